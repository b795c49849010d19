//  A conversation that remembers, and a tool that the model may call.
//
//      swift run Session [MODEL]

import Foundation
import Realm

struct Place: Decodable {
    let city: String
}

let definition = """
    {"name": "weather", "description": "Tells the weather in a city.",
     "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}
    """
let weather = ChatTool(definition: definition) { arguments in
    let place = try JSONDecoder().decode(Place.self, from: Data(arguments.utf8))
    return ["paris": "\"snow\"", "rome": "\"sun\""][place.city.lowercased()] ?? "\"fog\""
}
let name = CommandLine.arguments.dropFirst().first ?? "qwen2.5-coder-0.5b"
let model = try await Realm().loadModel(name)
// How the conversation begins, and how each answer is made.
let beginning = Request(prompt: .chat([.system("You are a helpful assistant.")]), maxTokens: 200, temperature: 0)
let session = try ChatSession(model: model, request: beginning, tools: [weather])
for question in ["What is the capital of France?", "What is the weather there?"] {
    print("> \(question)")
    for try await chunk in try session.stream(question) {
        print(chunk.text, terminator: "")
        fflush(stdout)
    }
    print()
}
print("(\(session.droppedMessages()) dropped)")
