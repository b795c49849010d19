// What `examples/rust/examples/delivery.rs` does, through the Node package: `ci/bench-python-node` compares the two.
//
//     node bench.mjs [ROUNDS]

import { Realm } from './dist/index.mjs'

const TOKENS = 128
const PROMPT = [504, 3575, 282, 4649, 314]
const OPTIONS = { temperature: 0, ignoreEos: true, speculation: 'off' }

const model = await new Realm({ threads: 2, device: 'cpu' }).loadModel('smollm2-135m', { kvTokens: 16384 })

async function throughput(streams) {
  const began = performance.now()
  const read = async () => {
    for await (const chunk of model.stream(PROMPT, { ...OPTIONS, maxTokens: TOKENS })) void chunk
  }
  await Promise.all(Array.from({ length: streams }, read))
  return (streams * TOKENS) / ((performance.now() - began) / 1000)
}

async function delivery() {
  const times = []
  for (let i = 0; i < 200; i++) {
    // The thread that a request begins on is not part of a chunk's way.
    const stream = model.stream(PROMPT, { ...OPTIONS, maxTokens: 1 })
    const began = performance.now()
    const { value } = await stream.next()
    const { queued, prefill, decode } = value.timings
    times.push((performance.now() - began - queued - prefill - decode) * 1000)
  }
  return times.sort((a, b) => a - b)[times.length / 2]
}

await throughput(1)
for (let i = Number(process.argv[2] ?? 1); i > 0; i--) {
  console.log(JSON.stringify({ one: await throughput(1), sixteen: await throughput(16), delivery: await delivery() }))
}
