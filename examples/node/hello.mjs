// The Paris example: one question, one answer.
//
//     node hello.mjs [MODEL]

import { Realm } from 'realm'

const model = await new Realm().loadModel(process.argv[2] ?? 'qwen2.5-coder-0.5b')
const question = [{ role: 'user', content: 'What is the capital of France?' }]
const answer = await model.generate(question, { temperature: 0, maxTokens: 64 })
console.log(answer.text)
