// What `core/realm/examples/streams.rs` does, through the Node package: `node node.mjs INDEX THREADS` with the package's main file.

import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'

const { Realm } = await import(pathToFileURL(process.argv[2]).href)

const PROMPT = [504, 3575, 282, 4649, 314]
const OPTIONS = { temperature: 0, ignoreEos: true, speculation: 'off' }

const realm = new Realm({ threads: Number(process.argv[3]), device: 'cpu' })
const tenant = realm.tenant('bench')
const model = tenant.model(await realm.loadModel('smollm2-135m', { kvTokens: 16384 }))

const start = (maxTokens) => model.stream(PROMPT, { ...OPTIONS, maxTokens })
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
/** Processor time of this thread, the process's first, in microseconds. */
const threadTime = () => Number(readFileSync(`/proc/${process.pid}/task/${process.pid}/schedstat`, 'utf8').split(' ')[0]) / 1000

const does = {
  async stream(streams, tokens) {
    const [before, began] = [threadTime(), performance.now()]
    const read = async () => {
      for await (const chunk of start(tokens)) void chunk
    }
    await Promise.all(Array.from({ length: streams }, read))
    const rate = (streams * tokens) / ((performance.now() - began) / 1000)
    return { rate, reader_us: (threadTime() - before) / (streams * tokens) }
  },
  async queued(streams, tokens) {
    const generations = Array.from({ length: streams }, () => start(tokens))
    await Promise.all(generations.map((generation) => generation.started()))
    while (tenant.running + tenant.waiting > 0) await sleep(5)
    const began = performance.now()
    let chunks = 0
    for (const generation of generations) {
      for await (const chunk of generation) chunks += chunk.text !== undefined
    }
    return { us: ((performance.now() - began) * 1000) / chunks }
  },
  async call(count) {
    const times = []
    for (let i = 0; i < count; i++) {
      const began = performance.now()
      const { value } = await start(1).next()
      const { queued, prefill, decode } = value.timings
      times.push((performance.now() - began - queued - prefill - decode) * 1000)
    }
    return { us: times.sort((a, b) => a - b)[count >> 1] }
  },
}

// The first run touches memory for the first time.
await does.stream(1, 10)
console.log('{}')
for await (const line of createInterface({ input: process.stdin })) {
  const [what, ...numbers] = line.split(' ')
  console.log(JSON.stringify(await does[what](...numbers.map(Number))))
}
