//  Many tenants, one model: each has its own limits, and their requests share every forward pass.
//
//      swift run Tenants [MODEL]

import Realm

let capitals = ["France", "Italy", "Spain", "Germany", "Japan", "Egypt", "Norway", "Greece"]
let name = CommandLine.arguments.dropFirst().first ?? "qwen2.5-coder-0.5b"
let realm = try Realm()
let model = try await realm.loadModel(name)

func ask(_ country: String, _ realm: Realm, _ model: Model) async throws -> String {
    let tenant = try realm.tenant(country.lowercased(), limits: Limits(maxConcurrent: 1, requestTimeout: 60))
    let question = "What is the capital of \(country)? Answer in one sentence."
    let request = Request(prompt: .chat([.user(question)]), maxTokens: 24, temperature: 0)
    let answer = try await tenant.model(model: model).generate(request)
    return "\(tenant.name()): \(answer.text) (\(tenant.metrics().generatedTokens) tokens)"
}

// All of them at once.
let tasks = capitals.map { country in Task { try await ask(country, realm, model) } }
for task in tasks { print(try await task.value) }
