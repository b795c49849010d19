//  A tenant with a program of its own, which calls a tool of this application.
//
//      swift run Program [PROGRAM.wasm [MODEL]]
//
//  PROGRAM is a WebAssembly component; `ci/build-programs` builds `agent.wasm`, which calls tools, and nine others.

import Realm

struct Place: Codable { let city: String }
struct Weather: Codable { let weather: String }

let arguments = Array(CommandLine.arguments.dropFirst())
let realm = try Realm()
let tenant = try realm.tenant("acme", limits: Limits(programCpuTime: 30))
tenant.setProgram(program: try await realm.loadProgram(path: arguments.first ?? "target/programs/agent.wasm"))

// Nothing but this is granted.
var grants = Grants()
grants.allowLog { level, tenant, message in print("\(tenant), \(level): \(message)") }
grants.allowTool("get_weather") { (place: Place) -> Weather in
    print("(the program asks for the weather in \(place.city))")
    return Weather(weather: "heavy snow, -7 degrees")
}
try tenant.setGrants(grants: grants)

let tool = """
    {"type": "function", "function": {"name": "get_weather", "description": "The weather in a city.",
     "parameters": {"type": "object", "required": ["city"], "additionalProperties": false,
                    "properties": {"city": {"enum": ["Paris", "Rome"]}}}}}
    """
let model = try tenant.model(model: try await realm.loadModel(arguments.dropFirst().first ?? "qwen2.5-coder-0.5b"))
let request = Request(
    prompt: .chat([.user("What is the weather in Paris?")]), maxTokens: 64, temperature: 0, tools: [tool],
    input: #"{"tool_choice": "required"}"#)
for try await chunk in try model.stream(request) { print(chunk.text, terminator: "") }
print()
