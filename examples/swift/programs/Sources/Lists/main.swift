//  Many prompts and many texts, each in one call.
//
//      swift run Lists [MODEL]

import Foundation
import Realm

let name = CommandLine.arguments.dropFirst().first ?? "qwen2.5-coder-0.5b"
let model = try await Realm().loadModel(name)
let countries = ["France", "Japan", "Italy", "Kenya"]
let requests = countries.map { country in
    Request(prompt: .chat([.user("What is the capital of \(country)? One word.")]), maxTokens: 8, temperature: 0)
}
for (country, answer) in zip(countries, try await model.generateMany(requests: requests)) {
    print("\(country): \(answer.text)")
}

let texts = ["A cat sat on the mat.", "The kitten lay on the rug.", "Interest rates rose again."]
let vectors = try await model.embedMany(texts: texts)
for (text, vector) in zip(texts, vectors).dropFirst() {
    let similarity = zip(vector, vectors[0]).map(*).reduce(0, +)
    print("\(String(format: "%.2f", similarity))  \(text)")
}
