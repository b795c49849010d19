"""An answer that fits a JSON schema, whatever the model would like to say.

    python guided.py [MODEL]
"""

import json
import sys

import realm

name = sys.argv[1] if len(sys.argv) > 1 else "qwen2.5-coder-0.5b"
model = realm.Realm().load_model(name)
schema = {
    "type": "object",
    "required": ["city", "country", "population"],
    "additionalProperties": False,
    "properties": {
        "city": {"type": "string", "maxLength": 30},
        "country": {"type": "string", "maxLength": 30},
        "population": {"type": "integer", "minimum": 0, "maximum": 100000000},
    },
}
question = [{"role": "user", "content": "Tell me about the capital of France, as JSON."}]
answer = model.generate(question, temperature=0, max_tokens=200, json_schema=schema)
for key, value in json.loads(answer.text).items():
    print(f"{key}: {value}")
