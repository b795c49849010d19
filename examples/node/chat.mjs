// A conversation whose answers are streamed. Ctrl-C stops an answer, Ctrl-D ends.
//
//     node chat.mjs [MODEL]

import { createInterface } from 'node:readline'

import { Realm } from 'realm'

const model = await new Realm().loadModel(process.argv[2] ?? 'qwen2.5-coder-0.5b')
const messages = []
for await (const line of createInterface({ input: process.stdin })) {
  messages.push({ role: 'user', content: line.trim() })
  const stream = model.stream(messages, { temperature: 0, maxTokens: 256 })
  const stop = () => stream.cancel()
  process.once('SIGINT', stop)
  let answer = ''
  for await (const chunk of stream) {
    process.stdout.write(chunk.text)
    answer += chunk.text
  }
  process.off('SIGINT', stop)
  console.log()
  messages.push({ role: 'assistant', content: answer })
}
