//  Generations as Swift has them: whole answers, streams, and tasks whose cancellation ends them.

extension Model {
    /// Runs a request to its end. Cancelling the task ends the request at once, frees its part of the KV cache, and throws
    /// `CancellationError`.
    ///
    /// - Throws: ``RealmError``: `InvalidArgument` and `LimitExceeded` say what about the request is wrong, or which limit of the tenant
    ///   it reached; `Overloaded` if too many requests wait already; and what ended the request early, such as `Trap` of a tenant's
    ///   program.
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

    /// Starts a request and returns its chunks as they come. The request waits while nobody asks for the next one, and ends when the
    /// stream is dropped or its task cancelled.
    ///
    ///     for try await chunk in try model.stream(Request(prompt: .text("Once upon a time"))) {
    ///         print(chunk.text, terminator: "")
    ///     }
    ///
    /// - Throws: ``RealmError``, as ``generate(_:)``; what ends the request early is thrown by the stream.
    public func stream(_ request: Request) throws -> AsyncThrowingStream<Chunk, any Error> {
        let generation = try start(request: request)
        // The closure is the generation's only owner: with the stream it goes, and the request with it.
        return AsyncThrowingStream {
            try await withTaskCancellationHandler {
                try await generation.nextChunk()
            } onCancel: {
                generation.cancel()
            }
        }
    }

    /// One vector of length 1 for a text, `[hidden]`, pooled as the model's file says.
    public func embed(_ text: String) async throws -> [Float] {
        try await embedTokens(tokens: encode(text))
    }

    /// Token ids of `text`, with the begin token where the model expects one. Control tokens spelled in it are not parsed.
    public func encode(_ text: String) -> [UInt32] {
        encode(text: text)
    }

    /// The text of tokens; control tokens are left out.
    public func decode(_ tokens: [UInt32]) throws -> String {
        try decode(tokens: tokens)
    }
}

extension ChatSession {
    /// Asks, and waits for the answer, whose text is that of all rounds of tools. Cancelling the task takes the question back and throws
    /// `CancellationError`.
    ///
    /// - Throws: ``RealmError``: `InvalidArgument` while another question is being answered, and as ``Model/generate(_:)``.
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

    /// Asks, and returns the answer's chunks as they come. Dropping the stream or cancelling its task takes the question back.
    ///
    /// - Throws: ``RealmError``, as ``ask(_:)``; what ends the answer early is thrown by the stream.
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
    /// What the user says.
    public static func user(_ content: String) -> Message {
        Message(role: "user", content: content)
    }

    /// What the model is told beforehand.
    public static func system(_ content: String) -> Message {
        Message(role: "system", content: content)
    }

    /// What the model said.
    public static func assistant(_ content: String) -> Message {
        Message(role: "assistant", content: content)
    }
}

extension Forwarded {
    /// Row by row, `[rows * width]`.
    public var values: [Float] {
        [Float](unsafeUninitializedCapacity: bytes.count / 4) { buffer, count in
            _ = bytes.copyBytes(to: UnsafeMutableRawBufferPointer(buffer))
            count = bytes.count / 4
        }
    }
}
