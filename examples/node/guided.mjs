// An answer that fits a JSON schema, whatever the model would like to say.
//
//     node guided.mjs [MODEL]

import { Realm } from 'realm'

const model = await new Realm().loadModel(process.argv[2] ?? 'qwen2.5-coder-0.5b')
const jsonSchema = {
  type: 'object',
  required: ['city', 'country', 'population'],
  additionalProperties: false,
  properties: {
    city: { type: 'string', maxLength: 30 },
    country: { type: 'string', maxLength: 30 },
    population: { type: 'integer', minimum: 0, maximum: 100000000 },
  },
}
const question = [{ role: 'user', content: 'Tell me about the capital of France, as JSON.' }]
const answer = await model.generate(question, { temperature: 0, maxTokens: 200, jsonSchema })
for (const [key, value] of Object.entries(JSON.parse(answer.text))) console.log(`${key}: ${value}`)
