// Many tenants, one model: each has its own limits, and their requests share every forward pass.
//
//     node tenants.mjs [MODEL]

import { Realm } from 'realm'

const CAPITALS = ['France', 'Italy', 'Spain', 'Germany', 'Japan', 'Egypt', 'Norway', 'Greece']

const realm = new Realm()
const model = await realm.loadModel(process.argv[2] ?? 'qwen2.5-coder-0.5b')

async function ask(country) {
  const tenant = realm.tenant(country.toLowerCase(), { maxConcurrent: 1, requestTimeout: 60_000 })
  const question = [{ role: 'user', content: `What is the capital of ${country}? Answer in one sentence.` }]
  const answer = await tenant.model(model).generate(question, { temperature: 0, maxTokens: 24 })
  return `${tenant.name}: ${answer.text} (${tenant.metrics().tokens.generated} tokens)`
}

for (const line of await Promise.all(CAPITALS.map(ask))) console.log(line)
