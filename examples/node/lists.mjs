// Many prompts and many texts, each in one call.

import { Realm } from 'realm'

const model = await new Realm().loadModel('qwen2.5-coder-0.5b')
const countries = ['France', 'Japan', 'Italy', 'Kenya']
const questions = countries.map((country) => [
  { role: 'user', content: `What is the capital of ${country}? One word.` },
])
const answers = await model.generateMany(questions, { temperature: 0, maxTokens: 8 })
answers.forEach((answer, i) => console.log(`${countries[i]}: ${answer.text}`))

const texts = ['A cat sat on the mat.', 'The kitten lay on the rug.', 'Interest rates rose again.']
const [first, ...others] = await model.embedMany(texts)
others.forEach((vector, i) => {
  const similarity = vector.reduce((sum, value, at) => sum + value * first[at], 0)
  console.log(`${similarity.toFixed(2)}  ${texts[i + 1]}`)
})
