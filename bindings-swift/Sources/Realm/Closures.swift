//  Protocols of the application, as closures.

import Foundation

extension Realm {
    /// Loads a model: a path to a GGUF file, a catalog name such as `smollm2-135m`, or
    /// `hf:owner/repo/file.gguf`. A model that is not on disk yet is fetched first. `onProgress` is called on
    /// a thread of Realm's.
    ///
    /// - Throws: ``RealmError``: `NotFound` for an unknown name, `Io` if fetching fails, `InvalidModel` or
    ///   `Unsupported` for a file that Realm cannot run.
    public func loadModel(
        _ model: String, options: LoadOptions? = nil, onProgress: (@Sendable (Progress) -> Void)? = nil
    ) async throws -> Model {
        try await load(model: model, options: options, progress: onProgress.map(ProgressClosure.init))
    }

    /// Fetches a model, unless it is on disk, without loading it. Returns its file's path.
    public func pull(_ model: String, onProgress: (@Sendable (Progress) -> Void)? = nil) async throws -> String {
        try await fetch(model: model, progress: onProgress.map(ProgressClosure.init))
    }

    /// Creates a tenant with limits of its own.
    public func tenant(_ name: String, limits: Limits? = nil) throws -> Tenant {
        try tenant(name: name, limits: limits)
    }

    /// Sends every line of Realm's own log up to a level to a closure, for the whole process: the level, the
    /// part of Realm, and the message. The closure is called soon after, on a thread of its own, so it may
    /// take long and ask models. If it is slower than the lines, some are dropped, and a line says how many.
    /// Nil ends that.
    public static func log(
        upTo most: LogLevel, _ body: (@Sendable (LogLevel, String, String) -> Void)?
    ) throws {
        try setLog(most: most, sink: body.map(LogClosure.init))
    }
}

extension Grants {
    /// Lets programs write to a log: the closure receives the level, the tenant's name and the message, soon
    /// after, on a thread of its own.
    public mutating func allowLog(_ body: @escaping @Sendable (LogLevel, String, String) -> Void) {
        log = LogClosure(body)
    }

    /// Lets programs call a function by this name, which takes a JSON text and returns one. A thrown error
    /// becomes the error `failed` of the program's call.
    public mutating func allowTool(
        _ name: String, json body: @escaping @Sendable (String) async throws -> String
    ) {
        tools[name] = ToolClosure(body)
    }

    /// Same as ``allowTool(_:json:)``, for types that JSON can encode.
    public mutating func allowTool<Arguments: Decodable, Answer: Encodable>(
        _ name: String, _ body: @escaping @Sendable (Arguments) async throws -> Answer
    ) {
        allowTool(name, json: { arguments in
            let arguments = try JSONDecoder().decode(Arguments.self, from: Data(arguments.utf8))
            let answer = try await body(arguments)
            return String(decoding: try JSONEncoder().encode(answer), as: UTF8.self)
        })
    }
}

extension Request {
    /// Adds a closure that changes the logits before each token is chosen: it receives the tokens so far and
    /// the logits of the next one, a number for each token of the vocabulary, where `-.infinity` excludes a
    /// token. A thrown error ends the request.
    public mutating func addLogitsProcessor(
        _ body: @escaping @Sendable ([UInt32], inout [Float]) throws -> Void
    ) {
        logitsProcessors.append(LogitsClosure(body))
    }
}

extension ChatTool {
    /// Creates a tool from its definition in OpenAI's format, a JSON text, and a closure that receives the
    /// arguments as JSON and returns JSON.
    public init(definition: String, json body: @escaping @Sendable (String) async throws -> String) {
        self.init(definition: definition, tool: ToolClosure(body))
    }
}

private final class LogitsClosure: LogitsProcessor {
    let body: @Sendable ([UInt32], inout [Float]) throws -> Void

    init(_ body: @escaping @Sendable ([UInt32], inout [Float]) throws -> Void) {
        self.body = body
    }

    func process(tokens: [UInt32], logits: Data) throws -> Data {
        var values = [Float](unsafeUninitializedCapacity: logits.count / 4) { buffer, count in
            _ = logits.copyBytes(to: UnsafeMutableRawBufferPointer(buffer))
            count = logits.count / 4
        }
        do {
            try body(tokens, &values)
        } catch let error as ToolError {
            throw error
        } catch {
            throw ToolError.Failed(message: "\(error)")
        }
        return values.withUnsafeBytes { Data($0) }
    }
}

private final class ProgressClosure: ProgressObserver {
    let body: @Sendable (Progress) -> Void

    init(_ body: @escaping @Sendable (Progress) -> Void) {
        self.body = body
    }

    func progressed(progress: Progress) {
        body(progress)
    }
}

private final class LogClosure: LogSink {
    let body: @Sendable (LogLevel, String, String) -> Void

    init(_ body: @escaping @Sendable (LogLevel, String, String) -> Void) {
        self.body = body
    }

    func line(level: LogLevel, from: String, message: String) {
        body(level, from, message)
    }
}

private final class ToolClosure: Tool {
    let body: @Sendable (String) async throws -> String

    init(_ body: @escaping @Sendable (String) async throws -> String) {
        self.body = body
    }

    func call(arguments: String) async throws -> String {
        do {
            return try await body(arguments)
        } catch let error as ToolError {
            throw error
        } catch {
            throw ToolError.Failed(message: "\(error)")
        }
    }
}
