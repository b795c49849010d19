//  The Paris example: one question, one answer.
//
//      swift run Hello [MODEL]

import Realm

let name = CommandLine.arguments.dropFirst().first ?? "qwen2.5-coder-0.5b"
let model = try await Realm().loadModel(name)
let question = Request(prompt: .chat([.user("What is the capital of France?")]), maxTokens: 64, temperature: 0)
print(try await model.generate(question).text)
