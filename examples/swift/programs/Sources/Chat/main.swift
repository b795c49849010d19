//  A conversation whose answers come in pieces. The end of the input ends it.
//
//      swift run Chat [MODEL]

import Foundation
import Realm

let name = CommandLine.arguments.dropFirst().first ?? "qwen2.5-coder-0.5b"
let model = try await Realm().loadModel(name)
var messages: [Message] = []
while let line = readLine() {
    messages.append(.user(line))
    var answer = ""
    for try await chunk in try model.stream(Request(prompt: .chat(messages), maxTokens: 256, temperature: 0)) {
        print(chunk.text, terminator: "")
        // A terminal would show whole lines.
        fflush(stdout)
        answer += chunk.text
        // For a test: a program may end whatever Realm is doing.
        if ProcessInfo.processInfo.environment["REALM_EXIT_EARLY"] != nil { exit(0) }
    }
    print()
    messages.append(.assistant(answer))
}
