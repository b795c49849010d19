//  The parts of an error that all of Realm's languages have.

extension RealmError {
    /// The kind of failure, the same in every language, such as `limit-exceeded`.
    public var code: String {
        parts.code
    }

    /// The message for people: what was wrong and what would be right.
    public var message: String {
        parts.message
    }

    private var parts: (code: String, message: String) {
        switch self {
        case .InvalidModel(let message): return ("invalid-model", message)
        case .InvalidAdapter(let message): return ("invalid-adapter", message)
        case .InvalidArgument(let message): return ("invalid-argument", message)
        case .LimitExceeded(let message): return ("limit-exceeded", message)
        case .Overloaded(let message): return ("overloaded", message)
        case .Unsupported(let message): return ("unsupported", message)
        case .NotFound(let message): return ("not-found", message)
        case .Io(let message): return ("io", message)
        case .InvalidProgram(let message): return ("invalid-program", message)
        case .Trap(let message): return ("trap", message)
        case .Failed(let message): return ("failed", message)
        case .Denied(let message): return ("denied", message)
        case .Cancelled(let message): return ("cancelled", message)
        case .Internal(let message): return ("internal", message)
        }
    }
}

extension RealmError: CustomStringConvertible {
    public var description: String {
        "\(code): \(message)"
    }
}
