// What `node.mjs` does for `stream`, through node-llama-cpp: `node node_llama_cpp.mjs INDEX MODEL`.

import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'

const { getLlama } = await import(pathToFileURL(process.argv[2]).href)

const llama = await getLlama({ gpu: false, maxThreads: 2, logLevel: 'error' })
const model = await llama.loadModel({ modelPath: process.argv[3] })
const context = await model.createContext({ sequences: 16, contextSize: 256, threads: 2 })
const sequences = Array.from({ length: 16 }, () => context.getSequence())
const prompt = [504, 3575, 282, 4649, 314]

async function read(sequence, tokens) {
  await sequence.clearHistory()
  let read = 0
  for await (const token of sequence.evaluate(prompt, { temperature: 0 })) {
    // As text, which Realm's chunks have.
    model.detokenize([token])
    if (++read === tokens) break
  }
}

async function stream(streams, tokens) {
  const began = performance.now()
  await Promise.all(sequences.slice(0, streams).map((sequence) => read(sequence, tokens)))
  return { rate: (streams * tokens) / ((performance.now() - began) / 1000) }
}

await stream(1, 10)
console.log('{}')
for await (const line of createInterface({ input: process.stdin })) {
  const [, ...numbers] = line.split(' ')
  console.log(JSON.stringify(await stream(...numbers.map(Number))))
}
