"""A conversation that remembers, and a tool that the model may call."""

import sys

import realm

WEATHER = {"paris": "snow", "rome": "sun"}


def weather(city: str) -> str:
    """Tells the weather in a city."""
    print(f"(the model asks for the weather in {city})", file=sys.stderr)
    return WEATHER.get(city.lower(), "fog")


model = realm.Realm().load_model("qwen2.5-coder-0.5b")
session = realm.ChatSession(model, system="You are a helpful assistant.", tools=[weather], temperature=0, max_tokens=200)
for question in ("What is the capital of France?", "What is the weather there?"):
    print(f"> {question}")
    for chunk in session.stream(question):
        print(chunk.text, end="", flush=True)
    print()
print(f"({len(session.messages)} messages, {session.dropped_messages} dropped)")
