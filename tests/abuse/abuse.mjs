// An application in Node whose workers, streams and clients come and go: `node --expose-gc abuse.mjs PACKAGE MODEL TINY SECONDS`.
// See README.md.

import { fork } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer, get } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'

const [, , entry, file, tiny, duration] = process.argv
if (entry === 'child') process.exit(0)
const { Realm } = await import(entry)
const runtime = new Realm({ threads: 2, device: 'cpu' })
const model = await runtime.loadModel(file, { kvTokens: 2048 })
const anonymous = () => +/RssAnon:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1] / 1024
const below = (n) => Math.floor(Math.random() * n)
const options = () => ({ maxTokens: 1 + below(100), ignoreEos: true, temperature: 0 })
const forever = new AbortController()
process.on('SIGUSR2', () => {})

function fail(why) {
  console.log('node: FAILED:', why)
  process.exit(1)
}

const server = createServer(async (request, response) => {
  // The client may leave at any chunk, and nothing here listens for that but the pipe.
  const stream = model.stream('Once upon a time', options())
  response.on('close', () => stream.cancel())
  try {
    for await (const chunk of stream) if (!response.write(chunk.text)) await sleep(1)
  } finally {
    response.end()
  }
})
server.listen(0)
await once(server, 'listening')
const { port } = server.address()

const leave = [
  async () => {
    for await (const chunk of model.stream('Once upon a time', options())) if (chunk.text && below(3) === 0) break
  },
  async () => {
    const signal = AbortSignal.timeout(below(20))
    await model.generate('Once upon a time', { ...options(), signal }).catch(() => {})
  },
  async () => {
    const cancel = new AbortController()
    const answer = model.stream('Once upon a time', { ...options(), signal: cancel.signal }).finish().catch(() => {})
    await sleep(below(10))
    cancel.abort()
    await answer
  },
  // Abandoned, with a signal that lives as long as the process.
  async () => void (await model.stream('Once upon a time', { ...options(), signal: forever.signal }).next()),
  async () => {
    const stream = model.stream('Once upon a time', options())
    const reads = [stream.next(), stream.next(), stream.next()]
    await sleep(below(5))
    stream.cancel()
    await Promise.all(reads)
  },
  async () => {
    const reader = model.stream('Once upon a time', options()).toTextStream().getReader()
    await reader.read()
    await reader.cancel()
  },
  async () => {
    const request = get({ port, agent: false }, (response) => response.on('data', () => {}).on('error', () => {}))
    request.on('error', () => {})
    await sleep(below(40))
    request.destroy()
  },
]

const code = `
  const { parentPort, workerData } = require('node:worker_threads')
  ;(async () => {
    const { Realm } = await import(workerData.entry)
    const model = await new Realm({ threads: 1, device: 'cpu' }).loadModel(workerData.tiny, { kvTokens: 2048 })
    parentPort.postMessage('ready')
    for (;;) {
      const answer = model.generate('a', { maxTokens: 2000, ignoreEos: true })
      for await (const chunk of model.stream('a', { maxTokens: 2000, ignoreEos: true })) if (Math.random() < 0.01) break
      await answer
    }
  })()`

async function worker() {
  const each = new Worker(code, { eval: true, workerData: { entry, tiny } })
  each.on('error', (error) => fail(error))
  // In the middle of the load, or of streams.
  if (below(4) > 0) await once(each, 'message')
  await sleep(below(60))
  await each.terminate()
}

async function abuse(seconds) {
  const end = Date.now() + seconds * 1000
  const loop = async (work, pause) => {
    while (Date.now() < end) {
      await work()
      await sleep(pause)
    }
  }
  await Promise.all([
    ...Array.from({ length: 6 }, () => loop(() => leave[below(leave.length)](), 0)),
    loop(worker, 50),
    loop(() => process.kill(process.pid, 'SIGUSR2'), 20),
    loop(() => once(fork(process.argv[1], ['child'], { execArgv: [] }), 'exit'), 2000),
    loop(() => gc(), 500),
  ])
}

async function report(when) {
  let metrics
  for (let i = 0; i < 600; i++) {
    gc()
    await sleep(100)
    metrics = model.metrics()
    if (metrics.served.running === 0 && metrics.kv.used === 0) break
  }
  if (metrics.served.running > 0 || metrics.kv.used > 0) fail('requests are left')
  const answer = model.generate('Once upon a time', { maxTokens: 2 })
  if ((await Promise.race([answer, sleep(60_000, null)])) === null) fail('the model does not answer')
  const { cancelled, finished } = metrics.served.requests ?? metrics.served
  console.log(`node: ${when}: RssAnon ${anonymous().toFixed(0)} MiB, cancelled ${cancelled}, finished ${finished}`)
  return anonymous()
}

// Memory is taken as it is needed: the first tenth shows how much.
await abuse(duration * 0.1)
await report('start')
await abuse(duration * 0.45)
const middle = await report('middle')
await abuse(duration * 0.45)
const grown = (await report('end')) - middle
if (grown > 32) fail('memory grew by more than 32 MiB')
console.log('node: ok')
process.exit(0)
