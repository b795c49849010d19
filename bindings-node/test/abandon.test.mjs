// Readers that leave at any moment: the model answers the next one, and all pages are free. REALM_STRESS_SECONDS is the length of
// the random part; without it, that part lasts only a moment.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'

import { counted, ENDLESS, PACKAGE, TINY, realm, until } from './common.mjs'

let runtime, model
before(async () => {
  runtime = new realm.Realm({ threads: 2, device: 'cpu' })
  model = await runtime.loadModel('smollm2-135m', { kvTokens: 16384 })
})
after(() => model.close())

async function isWell(model) {
  await until(() => model.metrics().served.running === 0 && model.metrics().kv.used === 0)
  const answer = model.generate('a', { maxTokens: 2, ignoreEos: true })
  assert.equal((await Promise.race([answer, sleep(60_000, null, { ref: false })]))?.tokens.length, 2)
}

/** Waits until a condition holds, collecting garbage. */
async function untilCollected(what) {
  await until(() => {
    globalThis.gc()
    return what()
  })
}

test('an abandoned stream ends, with a signal that lives on and without one', async () => {
  const forever = counted()
  for (const signal of [undefined, forever.signal]) {
    for (let i = 0; i < 8; i++) {
      await (async () => void (await model.stream(ENDLESS[0], { ...ENDLESS[1], signal }).next()))()
    }
    await untilCollected(() => model.metrics().served.running === 0)
    // A signal that lives as long as the process holds nothing of ended requests.
    await untilCollected(() => forever.listeners === 0)
  }
  await isWell(model)
})

test('a signal that is held ends what is read, and forgets what has ended', async () => {
  const count = counted()
  const { cancel, signal } = count
  for (let i = 0; i < 4; i++) await model.generate('a', { maxTokens: 1, signal })
  assert.equal(count.listeners, 0)
  const reading = (async () => {
    for await (const chunk of model.stream(ENDLESS[0], { ...ENDLESS[1], signal })) assert.ok(chunk)
  })()
  const finishing = model.generate(ENDLESS[0], { ...ENDLESS[1], signal })
  await sleep(100)
  globalThis.gc()
  cancel.abort()
  await assert.rejects(reading, { name: 'AbortError' })
  await assert.rejects(finishing, { name: 'AbortError' })
  await isWell(model)
})

test('a signal has one listener, however many requests it may end', async () => {
  const count = counted()
  const { cancel, signal } = count
  const fetch = realm.createFetch(model)
  const ask = (stream) => {
    const request = { model: 'any', prompt: ENDLESS[0], max_tokens: 4000, ignore_eos: true, stream }
    return fetch('http://realm/v1/completions', { method: 'POST', body: JSON.stringify(request), signal })
  }
  const options = { ...ENDLESS[1], signal }
  const works = Array.from({ length: 2 }, () => [
    model.generate(ENDLESS[0], options),
    model.generateMany([ENDLESS[0]], options),
    ask(false),
    ask(true).then((response) => response.text()),
    model.stream(ENDLESS[0], options).finish(),
  ]).flat()
  const ended = Promise.allSettled(works)
  await until(() => model.metrics().served.running === works.length)
  assert.equal(count.listeners, 1)
  cancel.abort()
  for (const { status, reason } of await ended) assert.deepEqual([status, reason?.name], ['rejected', 'AbortError'])
  await isWell(model)
  // A later request sees the abort, too, and adds no listener.
  await assert.rejects(model.generate('a', { signal }), { name: 'AbortError' })
  assert.equal(count.listeners, 1)
})

// The work that a worker is doing when it ends, from `ready()` on.
const WORK = {
  midstream: `ready(); for await (const chunk of model.stream(...ENDLESS));`,
  broken: `ready(); for await (const chunk of model.stream(...ENDLESS)) break; setInterval(() => {}, 1000)`,
  finishing: `ready(); await model.generate(...ENDLESS)`,
  abandoned: `ready(); await model.stream(...ENDLESS).next(); setInterval(() => {}, 1000)`,
  forwards: `ready(); const sequence = model.sequence(); for (;;) { sequence.append([1, 2, 3]); await sequence.forward(); sequence.truncate(0) }`,
  // Its tokens are used up for a minute: until then only the end of the worker wakes the waiting request.
  waiting: `const seen = runtime.tenant('a', { tokensPerMinute: 1 }).model(model)
    await seen.generate('a', { maxTokens: 1 }); ready(); await seen.generate('a')`,
}

test('workers that end in the middle leave neither threads nor models', async (t) => {
  if (!existsSync('/proc/self/task')) return t.skip('only Linux says which threads a process has')
  const threads = () => {
    const names = readdirSync('/proc/self/task').map((id) => {
      try {
        return readFileSync(`/proc/self/task/${id}/comm`, 'utf8')
      } catch {
        return ''
      }
    })
    return names.filter((name) => name.startsWith('realm-engine') || name.startsWith('realm-cpu')).length
  }
  // The model's own threads: its engine, and one that computes with it. A thread that has not run yet has no name.
  const before = Math.min(2, availableParallelism())
  await until(() => threads() === before)
  for (const [how, work] of Object.entries(WORK)) {
    for (let i = 0; i < 3; i++) {
      const code = `(async () => {
        const realm = await import(${JSON.stringify(PACKAGE)}), ENDLESS = ${JSON.stringify(ENDLESS)}
        const runtime = new realm.Realm({ threads: 2, device: 'cpu' })
        const model = await runtime.loadModel('smollm2-135m', { kvTokens: 8192 })
        const ready = () => require('node:worker_threads').parentPort.postMessage('ready')
        ${work}
      })()`
      const worker = new Worker(code, { eval: true })
      await once(worker, 'message')
      await sleep(30 * i)
      await worker.terminate()
      await until(() => threads() === before).catch(() => assert.fail(`${how}: ${threads()} threads and not ${before}`))
    }
  }
  // In the middle of a load.
  for (let i = 0; i < 4; i++) {
    const code = `import(${JSON.stringify(PACKAGE)}).then((realm) => new realm.Realm().loadModel('smollm2-135m'))`
    const worker = new Worker(code, { eval: true })
    await sleep(60 + 30 * i)
    await worker.terminate()
  }
  await until(() => threads() === before)
  await isWell(model)
})

const below = (n) => Math.floor(Math.random() * n)

/** Ways to leave, each time at another moment. */
const leave = [
  async (model, request) => {
    const signal = AbortSignal.timeout(below(5))
    await model.generate('a', { ...request, signal }).catch((error) => assert.match(error.name, /Timeout|Abort/))
  },
  async (model, request) => {
    for await (const chunk of model.stream('a', request)) if (chunk.tokens && below(4) === 0) break
  },
  async (model, request) => {
    const stream = model.stream('a', request)
    const reads = [stream.next(), stream.next(), stream.next()]
    await sleep(below(3))
    stream.cancel()
    await Promise.all(reads)
  },
  async (model, request) => {
    const reader = model.stream('a', request).toReadableStream().getReader()
    await reader.read()
    await sleep(below(3))
    await reader.cancel()
  },
  async (model, request) => void (await model.stream('a', request).next()),
  async (model) => {
    const sequence = model.sequence()
    sequence.append([1, 2, 3])
    const forward = sequence.forward()
    if (below(2)) sequence.close()
    await forward
  },
]

test('whatever readers do, the model answers', async () => {
  const tiny = await runtime.loadModel(TINY, { kvTokens: 8192 })
  const end = Date.now() + 1000 * Number(process.env.REALM_STRESS_SECONDS ?? 1)
  const one = async () => {
    while (Date.now() < end) {
      await leave[below(leave.length)](tiny, { maxTokens: 1 + below(200), ignoreEos: true, temperature: 0 })
    }
  }
  await Promise.all(Array.from({ length: 8 }, one))
  await untilCollected(() => tiny.metrics().served.running === 0)
  await isWell(tiny)
  tiny.close()
})
