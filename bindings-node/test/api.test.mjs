// The public API with a real model, as a user calls it.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync, statSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { after, before, test } from 'node:test'

import { ANSWER, CAPITAL, ENDLESS, GREEDY, PROGRAMS, ROOT, realm, until } from './common.mjs'

let runtime, model
before(async () => {
  runtime = new realm.Realm({ threads: 2, device: 'cpu' })
  model = await runtime.loadModel('smollm2-135m', { kvTokens: 16384 })
})
after(() => model.close())

test('a model answers', async () => {
  const answer = await model.generate(CAPITAL, GREEDY)
  assert.equal(answer.text, ANSWER)
  assert.equal(answer.finishReason, 'stop')
  assert.equal(answer.usage.generatedTokens, 8)
  assert.equal(answer.tokens.length, 8)
  assert.ok(answer.timings.decode > 0)
})

test('a stream gives the same text in pieces', async () => {
  const chunks = []
  for await (const chunk of model.stream(CAPITAL, GREEDY)) chunks.push(chunk)
  assert.equal(chunks.map((chunk) => chunk.text).join(''), ANSWER)
  assert.ok(chunks.length > 3)
  assert.ok(chunks.slice(0, -1).every((chunk) => chunk.finishReason === undefined))
  assert.equal(chunks.at(-1).finishReason, 'stop')
})

test('web streams', async () => {
  let text = ''
  for await (const piece of model.stream(CAPITAL, GREEDY).toTextStream()) text += piece
  assert.equal(text, ANSWER)
  const bytes = model.stream(CAPITAL, GREEDY).toTextStream().pipeThrough(new TextEncoderStream())
  assert.equal(await new Response(bytes).text(), ANSWER)
  const reader = model.stream(...ENDLESS).toReadableStream().getReader()
  assert.ok((await reader.read()).value.tokens.length)
  await reader.cancel()
  await until(() => model.metrics().kv.used === 0)
})

test('require gives what import gives', () => {
  const required = createRequire(import.meta.url)('../dist/index.js')
  assert.deepEqual(Object.keys(realm).sort(), [...Object.keys(required), 'default'].sort())
  assert.equal(required.Realm, realm.Realm)
})

test('many requests share the model', async () => {
  const answers = await Promise.all(Array.from({ length: 16 }, () => model.generate(CAPITAL, GREEDY)))
  assert.deepEqual(answers.map((answer) => answer.text), Array(16).fill(ANSWER))
})

test('an answer can be made to fit', async () => {
  const ask = (options) =>
    model.generate([{ role: 'user', content: 'What is the capital of France? Answer as JSON.' }], { ...GREEDY, ...options })
  const schema = {
    type: 'object',
    required: ['capital'],
    additionalProperties: false,
    properties: { capital: { enum: ['Rome', 'Paris'] } },
  }
  assert.equal(JSON.parse((await ask({ jsonSchema: schema, maxTokens: 64 })).text).capital, 'Paris')
  const responseFormat = { type: 'json_schema', json_schema: { name: 'capital', schema } }
  assert.equal(JSON.parse((await ask({ responseFormat, maxTokens: 64 })).text).capital, 'Paris')
  assert.equal((await ask({ regex: '(Rome|Paris)!{3}' })).text, 'Paris!!!')
  assert.equal((await ask({ grammar: 'start: ("Rome" | "Paris") "."' })).text, 'Paris.')
  await assert.rejects(ask({ json: true, regex: 'a' }), { code: 'invalid-argument', message: /only one of/ })
})

test('embeddings and logits are arrays without a copy', async () => {
  const vector = await model.embed('A cat sat on the mat.')
  assert.ok(vector instanceof Float32Array && vector.length === model.info.hidden)
  assert.ok(Math.abs(vector.reduce((sum, value) => sum + value * value, 0) - 1) < 1e-5)
  const sequence = model.sequence()
  sequence.append(model.encode('The capital of France is'))
  const before = process.memoryUsage()
  const { values, width } = await sequence.forward('logits')
  assert.deepEqual([values.length, width], [5 * model.info.vocabulary, model.info.vocabulary])
  // The memory is the engine's own: V8 counts it as external to its heap.
  const rose = process.memoryUsage()
  assert.ok(rose.heapUsed - before.heapUsed < values.byteLength / 2)
  assert.equal(values.buffer.byteLength, values.byteLength)
  const last = values.subarray(4 * width)
  assert.equal(model.decode([last.indexOf(Math.max(...last))]), ' Paris')
  sequence.close()
})

test('an aborted signal ends a request with its reason', async () => {
  const aborted = new AbortController()
  setTimeout(() => aborted.abort(), 200)
  await assert.rejects(model.generate(ENDLESS[0], { ...ENDLESS[1], signal: aborted.signal }), { name: 'AbortError' })
  await until(() => model.metrics().kv.used === 0)
  await assert.rejects(model.generate('a', { signal: aborted.signal }), { name: 'AbortError' })
  const reason = new Error('enough')
  const second = new AbortController()
  await assert.rejects(async () => {
    for await (const chunk of model.stream(ENDLESS[0], { ...ENDLESS[1], signal: second.signal })) {
      assert.ok(chunk)
      second.abort(reason)
    }
  }, reason)
  await until(() => model.metrics().kv.used === 0)
  const third = AbortSignal.timeout(100)
  await assert.rejects(model.generate(ENDLESS[0], { ...ENDLESS[1], signal: third }), { name: 'TimeoutError' })
})

test('whoever leaves a loop frees its pages', async () => {
  for await (const chunk of model.stream(...ENDLESS)) {
    assert.ok(chunk)
    await until(() => model.metrics().kv.used > 0)
    break
  }
  await until(() => model.metrics().kv.used === 0)
  const generation = model.stream(...ENDLESS)
  await generation.next()
  await generation[Symbol.asyncDispose]()
  assert.deepEqual(await generation.next(), { done: true, value: undefined })
  await assert.rejects(generation.finish(), { code: 'cancelled' })
  await until(() => model.metrics().kv.used === 0)
})

test('a generation that nobody holds any more frees its pages', async () => {
  await (async () => {
    await model.stream(...ENDLESS).next()
    await until(() => model.metrics().kv.used > 0)
  })()
  await until(() => {
    globalThis.gc()
    return model.metrics().kv.used === 0
  })
})

test('progress is told, and may object', async () => {
  const events = []
  const loaded = await runtime.loadModel('smollm2-135m', { onProgress: (event) => events.push(event) })
  assert.equal(events.at(-1).stage, 'loading')
  assert.equal(events.at(-1).done, events.at(-1).total)
  loaded.close()
  const objection = new Error('no')
  const onProgress = () => {
    throw objection
  }
  await assert.rejects(runtime.loadModel('smollm2-135m', { onProgress }), objection)
  await assert.rejects(runtime.loadModel('smollm2-135m', { onProgress: async () => onProgress() }), objection)
  await assert.rejects(runtime.loadModel('smollm2-135m', { signal: AbortSignal.abort() }), { name: 'AbortError' })
})

test('the hub lists and pulls', async () => {
  const status = await runtime.hub.info('smollm2-135m')
  assert.equal(statSync(status.path).size, status.bytes)
  assert.ok((await runtime.hub.list()).some((each) => each.path === status.path && each.state === 'present'))
  assert.equal(await runtime.hub.pull('smollm2-135m'), status.path)
  assert.equal((await realm.inspect(status.path)).architecture, 'llama')
})

const weather = {
  tools: [
    {
      type: 'function',
      function: {
        name: 'get_weather',
        description: 'The weather in a city.',
        parameters: {
          type: 'object',
          required: ['city'],
          additionalProperties: false,
          properties: { city: { enum: ['Paris', 'Rome'] } },
        },
      },
    },
  ],
  input: { tool_choice: 'required' },
  temperature: 0,
  maxTokens: 64,
}

test("a tenant's program calls granted tools, and what they throw harms nobody", async () => {
  const coder = await runtime.loadModel('qwen2.5-coder-0.5b', { kvTokens: 4096 })
  const tenant = runtime.tenant('agent')
  tenant.setProgram(await runtime.loadProgram(readFileSync(join(PROGRAMS, 'agent.wasm'))))
  assert.equal(tenant.program.info.contract, 'program')
  const seen = tenant.model(coder)
  const ask = () => seen.generate([{ role: 'user', content: 'What is the weather in Paris?' }], weather)
  const calls = []
  const get_weather = async (argument) => {
    calls.push(argument)
    return { weather: 'heavy snow, -7 degrees' }
  }
  tenant.setGrants({ tools: { get_weather } })
  assert.match((await ask()).text, /snow|-7/)
  assert.equal(calls.length, 1)
  assert.ok(['Paris', 'Rome'].includes(calls[0].city))
  const lines = []
  const broken = () => {
    throw new RangeError('the barometer is broken')
  }
  tenant.setGrants({ log: (...line) => lines.push(line), tools: { get_weather: broken } })
  assert.ok((await ask()).text)
  await until(() => lines.some(([name, , message]) => name === 'agent' && message.includes('RangeError: the barometer')))
  for (const log of [broken, async () => broken()]) {
    const warned = new Promise((resolve) => process.once('warning', resolve))
    tenant.setGrants({ log })
    assert.ok((await ask()).text)
    assert.match((await warned).message, /barometer/)
  }
  // A result that JSON cannot express, and an error that has no message.
  for (const get_weather of [() => 5n, () => Promise.reject(Object.create(null))]) {
    tenant.setGrants({ tools: { get_weather } })
    assert.ok((await ask()).text)
  }
  coder.close()
})

test("Realm's own log can be read", async () => {
  const lines = []
  realm.logTo((...line) => lines.push(line), 'trace')
  await model.generate('a', { maxTokens: 1 })
  realm.logTo(null)
  assert.ok(lines.every(([target]) => target.startsWith('realm')))
  assert.throws(() => realm.logTo(null, 'loud'), { code: 'invalid-argument' })
})

test('the command is part of the package', () => {
  const command = join(ROOT, 'bindings-node/dist/command.js')
  const args = ['run', 'smollm2-135m', CAPITAL[0].content, '--temperature', '0', '--max-tokens', '16']
  const ran = spawnSync(process.execPath, [command, ...args], { encoding: 'utf8' })
  assert.deepEqual([ran.status, ran.stdout], [0, ANSWER + '\n'])
  assert.equal(spawnSync(process.execPath, [command, 'no-such-command']).status, 2)
})

test('every code has a class', () => {
  const source = readFileSync(join(ROOT, 'core/realm/src/error.rs'), 'utf8')
  const codes = [...source.matchAll(/Self::\w+ => "([a-z-]+)"/g)].map((found) => found[1])
  assert.deepEqual(codes.sort(), [...realm.errorsByCode.keys()].sort())
})
