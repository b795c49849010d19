// A conversation that remembers, and a tool that the model may call.

import { ChatSession, Realm } from 'realm'

const forecast = { paris: 'snow', rome: 'sun' }
const weather = {
  name: 'weather',
  description: 'Tells the weather in a city.',
  parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
  run: ({ city }) => forecast[city.toLowerCase()] ?? 'fog',
}

const model = await new Realm().loadModel('qwen2.5-coder-0.5b')
const session = new ChatSession(model, {
  system: 'You are a helpful assistant.',
  tools: [weather],
  temperature: 0,
  maxTokens: 200,
})
for (const question of ['What is the capital of France?', 'What is the weather there?']) {
  console.log(`> ${question}`)
  for await (const chunk of session.stream(question)) process.stdout.write(chunk.text)
  console.log()
}
console.log(`(${session.messages.length} messages, ${session.droppedMessages} dropped)`)
