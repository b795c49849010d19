//  An answer that fits a JSON schema, whatever the model would like to say.
//
//      swift run Guided [MODEL]

import Foundation
import Realm

struct City: Decodable {
    let city: String
    let country: String
    let population: Int
}

let schema = """
    {"type": "object", "required": ["city", "country", "population"], "additionalProperties": false, "properties": {
        "city": {"type": "string", "maxLength": 30},
        "country": {"type": "string", "maxLength": 30},
        "population": {"type": "integer", "minimum": 0, "maximum": 100000000}}}
    """
let name = CommandLine.arguments.dropFirst().first ?? "qwen2.5-coder-0.5b"
let model = try await Realm().loadModel(name)
let question = Message.user("Tell me about the capital of France, as JSON.")
let request = Request(prompt: .chat([question]), maxTokens: 200, temperature: 0, guide: .jsonSchema(schema))
let answer = try JSONDecoder().decode(City.self, from: Data(try await model.generate(request).text.utf8))
print("city: \(answer.city)\ncountry: \(answer.country)\npopulation: \(answer.population)")
