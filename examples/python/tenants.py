"""Many tenants, one model: each has its own limits, and their requests share every forward pass.

    python tenants.py [MODEL]
"""

import asyncio
import sys

import realm

CAPITALS = ["France", "Italy", "Spain", "Germany", "Japan", "Egypt", "Norway", "Greece"]


async def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "qwen2.5-coder-0.5b"
    runtime = realm.Realm()
    model = await runtime.load_model_async(name)

    async def ask(country: str) -> str:
        tenant = runtime.tenant(country.lower(), realm.Limits(max_concurrent=1, request_timeout=60))
        question = [{"role": "user", "content": f"What is the capital of {country}? Answer in one sentence."}]
        answer = await tenant.model(model).generate_async(question, temperature=0, max_tokens=24)
        return f"{tenant.name}: {answer.text} ({tenant.metrics().tokens.generated} tokens)"

    for line in await asyncio.gather(*map(ask, CAPITALS)):
        print(line)


asyncio.run(main())
