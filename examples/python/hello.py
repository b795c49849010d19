"""The Paris example: one question, one answer.

    python hello.py [MODEL]
"""

import sys

import realm

name = sys.argv[1] if len(sys.argv) > 1 else "qwen2.5-coder-0.5b"
model = realm.Realm().load_model(name)
question = [{"role": "user", "content": "What is the capital of France?"}]
answer = model.generate(question, temperature=0, max_tokens=64)
print(answer.text)
