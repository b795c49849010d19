"""A conversation whose answers are streamed. Ctrl-C stops an answer, Ctrl-D ends.

    python chat.py [MODEL]
"""

import sys

import realm

name = sys.argv[1] if len(sys.argv) > 1 else "qwen2.5-coder-0.5b"
model = realm.Realm().load_model(name)
messages = []
for line in sys.stdin:
    messages.append({"role": "user", "content": line.strip()})
    answer = ""
    try:
        for chunk in model.stream(messages, temperature=0, max_tokens=256):
            print(chunk.text, end="", flush=True)
            answer += chunk.text
    except KeyboardInterrupt:
        pass
    print()
    messages.append({"role": "assistant", "content": answer})
