//  A conversation with a model, for a view. See ../README.md: this file is not compiled by the project's tests.

import Foundation
import Realm

@MainActor
final class Chat: ObservableObject {
    struct Line: Identifiable {
        let id = UUID()
        let isUser: Bool
        var text: String
    }

    enum State: Equatable {
        case loading(Double?)
        case ready
        case answering
        case failed(String)
    }

    @Published private(set) var lines: [Line] = []
    @Published private(set) var state = State.loading(nil)

    private var model: Model?
    private var answer: Task<Void, Never>?

    func load() async {
        guard model == nil else { return }
        do {
            // An app may write there, and the system does not delete it while the app runs.
            let folder = try FileManager.default.url(
                for: .cachesDirectory, in: .userDomainMask, appropriateFor: nil, create: true)
            let realm = try Realm(cacheFolder: folder.appendingPathComponent("realm").path)
            model = try await realm.loadModel("qwen2.5-coder-0.5b") { progress in
                let part = progress.total.map { Double(progress.done) / Double(max($0, 1)) }
                Task { @MainActor in
                    if case .loading = self.state { self.state = .loading(part) }
                }
            }
            state = .ready
        } catch {
            state = .failed("\(error)")
        }
    }

    func send(_ text: String) {
        guard let model, state == .ready, !text.isEmpty else { return }
        lines.append(Line(isUser: true, text: text))
        let messages = lines.map { $0.isUser ? Message.user($0.text) : Message.assistant($0.text) }
        lines.append(Line(isUser: false, text: ""))
        state = .answering
        answer = Task {
            do {
                for try await chunk in try model.stream(Request(prompt: .chat(messages), maxTokens: 512)) {
                    lines[lines.count - 1].text += chunk.text
                }
            } catch {
                lines[lines.count - 1].text += "\n\(error)"
            }
            state = .ready
        }
    }

    /// Ends the answer; what has come of it stays.
    func stop() {
        answer?.cancel()
    }
}
