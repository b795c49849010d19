//  Generations in Swift's style: whole answers, streams, and tasks whose cancellation ends them.

extension Model {
    /// Runs a request to its end. Cancelling the task ends the request at once, frees its part of the KV cache, and throws
    /// `CancellationError`.
    ///
    /// - Throws: ``RealmError``: `InvalidArgument` and `LimitExceeded` say what is wrong with the request, or
    ///   which limit of the tenant it reached; `Overloaded` if too many requests wait already; and the error
    ///   that ended the request early, such as `Trap` of a tenant's program.
    public func generate(_ request: Request) async throws -> Completion {
        try Task.checkCancellation()
        let generation = try start(request: request)
        return try await withTaskCancellationHandler {
            do {
                return try await generation.complete()
            } catch RealmError.Cancelled {
                throw CancellationError()
            }
        } onCancel: {
            generation.cancel()
        }
    }

    /// Starts a request and returns its chunks as they arrive. The request waits until its reader asks for
    /// the next chunk, and ends when the stream is dropped or its task cancelled.
    ///
    ///     for try await chunk in try model.stream(Request(prompt: .text("Once upon a time"))) {
    ///         print(chunk.text, terminator: "")
    ///     }
    ///
    /// - Throws: ``RealmError``, same as ``generate(_:)``; the stream throws the error that ended the request
    ///   early.
    public func stream(_ request: Request) throws -> AsyncThrowingStream<Chunk, any Error> {
        let generation = try start(request: request)
        // The closure is the generation's only owner: when the stream is dropped, so is the generation, and
        // the request ends.
        return AsyncThrowingStream {
            try await withTaskCancellationHandler {
                try await generation.nextChunk()
            } onCancel: {
                generation.cancel()
            }
        }
    }

    /// Returns the embedding of a text: a vector of length 1, `[hidden]`, pooled as the model's file says.
    public func embed(_ text: String) async throws -> [Float] {
        try await embedTokens(tokens: encode(text))
    }

    /// Encodes `text` into token ids, with the begin token if the model expects one. Control tokens spelled
    /// in it are not parsed.
    public func encode(_ text: String) -> [UInt32] {
        encode(text: text)
    }

    /// Decodes tokens into text, leaving out control tokens.
    public func decode(_ tokens: [UInt32]) throws -> String {
        try decode(tokens: tokens)
    }
}

extension ChatSession {
    /// Asks a question and waits for the answer, whose text is that of all rounds of tools. Cancelling the
    /// task removes the question again and throws `CancellationError`.
    ///
    /// - Throws: ``RealmError``: `InvalidArgument` while another question is being answered; otherwise the
    ///   same as ``Model/generate(_:)``.
    public func ask(_ question: String) async throws -> Completion {
        try Task.checkCancellation()
        let generation = try start(question: .user(question))
        return try await withTaskCancellationHandler {
            do {
                return try await generation.complete()
            } catch RealmError.Cancelled {
                throw CancellationError()
            }
        } onCancel: {
            generation.cancel()
        }
    }

    /// Asks a question and returns the answer's chunks as they arrive. Dropping the stream or cancelling its
    /// task removes the question again.
    ///
    /// - Throws: ``RealmError``, same as ``ask(_:)``; the stream throws the error that ended the answer
    ///   early.
    public func stream(_ question: String) throws -> AsyncThrowingStream<Chunk, any Error> {
        let generation = try start(question: .user(question))
        return AsyncThrowingStream {
            try await withTaskCancellationHandler {
                try await generation.nextChunk()
            } onCancel: {
                generation.cancel()
            }
        }
    }
}

extension Message {
    /// Creates a message of the user.
    public static func user(_ content: String) -> Message {
        Message(role: "user", content: content)
    }

    /// Creates a system message: instructions for the model.
    public static func system(_ content: String) -> Message {
        Message(role: "system", content: content)
    }

    /// Creates a message of the model.
    public static func assistant(_ content: String) -> Message {
        Message(role: "assistant", content: content)
    }
}

extension Forwarded {
    /// The numbers, row by row, `[rows * width]`.
    public var values: [Float] {
        [Float](unsafeUninitializedCapacity: bytes.count / 4) { buffer, count in
            _ = bytes.copyBytes(to: UnsafeMutableRawBufferPointer(buffer))
            count = bytes.count / 4
        }
    }
}
