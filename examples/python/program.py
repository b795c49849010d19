"""A tenant with a program of its own, which calls a tool of the application's.

    python program.py PROGRAM.wasm [MODEL]

PROGRAM is a WebAssembly component; `ci/build-programs` builds `agent.wasm`, which calls tools, and nine others.
"""

import sys

import realm

program = sys.argv[1] if len(sys.argv) > 1 else "target/programs/agent.wasm"
name = sys.argv[2] if len(sys.argv) > 2 else "qwen2.5-coder-0.5b"


def get_weather(arguments: dict[str, str]) -> dict[str, str]:
    print(f"(the program asks for the weather in {arguments['city']})")
    return {"weather": "heavy snow, -7 degrees"}


runtime = realm.Realm()
tenant = runtime.tenant("acme", realm.Limits(program_cpu_time=30.0))
tenant.set_program(runtime.load_program(program))
tenant.set_grants(realm.Grants(log=True, tools={"get_weather": get_weather}))
tool = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "required": ["city"],
            "additionalProperties": False,
            "properties": {"city": {"enum": ["Paris", "Rome"]}},
        },
    },
}
model = tenant.model(runtime.load_model(name))
question = [{"role": "user", "content": "What is the weather in Paris?"}]
for chunk in model.stream(question, temperature=0, max_tokens=64, tools=[tool], input={"tool_choice": "required"}):
    print(chunk.text, end="", flush=True)
print()
