"""Many prompts and many texts, each in one call."""

import realm

model = realm.Realm().load_model("qwen2.5-coder-0.5b")
countries = ["France", "Japan", "Italy", "Kenya"]
questions = [[{"role": "user", "content": f"What is the capital of {country}? One word."}] for country in countries]
for country, answer in zip(countries, model.generate_many(questions, temperature=0, max_tokens=8), strict=True):
    print(f"{country}: {answer.text}")

texts = ["A cat sat on the mat.", "The kitten lay on the rug.", "Interest rates rose again."]
first, *others = model.embed_many(texts)
for text, vector in zip(texts[1:], others, strict=True):
    similarity = sum(a * b for a, b in zip(first, vector, strict=True))
    print(f"{similarity:.2f}  {text}")
