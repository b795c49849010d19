// The package as a citizen of Node: collectors, other V8 contexts, odd strings, consoles, bundles, the event loop.

import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { inspect } from 'node:util'
import vm from 'node:vm'

import { CAPITAL, ENDLESS, GREEDY, PROGRAMS, realm, TINY, until } from './common.mjs'

let runtime, model
before(async () => {
  runtime = new realm.Realm({ threads: 2, device: 'cpu' })
  model = await runtime.loadModel('smollm2-135m', { kvTokens: 4096 })
})
after(() => model.close())

/** Runs the garbage collector until `done`, or for long enough. */
async function collected(done) {
  for (let i = 0; i < 100 && !done(); i++) {
    globalThis.gc()
    await sleep(10)
  }
}

test('tools and logs that hold their tenant are collected with it', async () => {
  let freed = 0
  const registry = new FinalizationRegistry(() => freed++)
  class Agent {
    constructor(close) {
      this.tenant = runtime.tenant('agent')
      this.model = this.tenant.model(model)
      this.tenant.setGrants({ tools: { look: () => this }, log: () => this })
      this.tenant.setGrants({ tools: { look: () => this, hear: () => this } })
      if (close) this.tenant.close()
      registry.register(this, 0)
    }
  }
  ;(() => {
    for (let i = 0; i < 40; i++) new Agent(i % 2)
  })()
  await collected(() => freed === 40)
  assert.equal(freed, 40)
})

test('sessions and streams whose functions hold their owner are collected with it', async () => {
  const freed = new Set()
  const registry = new FinalizationRegistry((kind) => freed.add(kind))
  const owners = {
    tools: (owner) => new realm.ChatSession(model, { tools: [{ name: 'look', run: () => owner }] }),
    processors: (owner) => new realm.ChatSession(model, { logitsProcessors: [(_, logits) => (owner, logits)] }),
    stream: (owner) => model.stream(ENDLESS[0], { ...ENDLESS[1], logitsProcessors: [(_, logits) => (owner, logits)] }),
  }
  for (const [kind, make] of Object.entries(owners)) {
    ;(() => {
      const owner = {}
      owner.owned = make(owner)
      registry.register(owner, kind)
    })()
  }
  await collected(() => freed.size === 3)
  assert.deepEqual([...freed].sort(), Object.keys(owners).sort())
  await until(() => model.metrics().served.running === 0)
})

const AGENT = join(PROGRAMS, 'agent.wasm')
test('a running request keeps the tools that it may call', { skip: !existsSync(AGENT) && 'ci/build-programs makes the programs' }, async () => {
  const program = await runtime.loadProgram(AGENT)
  const tool = {
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
  }
  const options = { temperature: 0, maxTokens: 32, tools: [tool], input: { tool_choice: 'required' } }
  const asked = []
  const start = (answer, later) => {
    const tenant = runtime.tenant('kept', { programCpuTime: 30_000 })
    tenant.setProgram(program)
    tenant.setGrants({ tools: { get_weather: ({ city }) => (asked.push(city), answer) } })
    const question = [{ role: 'user', content: 'What is the weather in Paris?' }]
    const generation = tenant.model(model).stream(question, options)
    // Other functions, from the next request on.
    later?.(tenant, generation)
    return generation.finish()
  }
  // Only the request holds the tool.
  const first = start('sunny')
  const second = start('rainy', (tenant, generation) => generation.started().then(() => tenant.setGrants({})))
  const watch = setInterval(globalThis.gc, 5)
  try {
    await Promise.all([first, second])
  } finally {
    clearInterval(watch)
  }
  assert.equal(asked.length, 2)
})

test('half of a surrogate pair is U+FFFD, and a backslash stays one', async () => {
  const same = async (odd, right) => {
    assert.deepEqual(model.encode(odd), model.encode(right))
    const render = (content) => model.applyChatTemplate([{ role: 'user', content }])
    assert.equal(render(odd), render(right))
    const ask = (text) => model.generate(text, { ...GREEDY, maxTokens: 4, stop: [text] })
    assert.deepEqual((await ask(odd)).tokens, (await ask(right)).tokens)
  }
  await same('a\ud800b', 'a\ufffdb')
  await same('\udc00\ud83d\ude00\ud800', '\ufffd😀\ufffd')
  assert.ok(model.applyChatTemplate([{ role: 'user', content: '\\ud800 \\\\ud800 "\\"' }]).includes('\\ud800 \\\\ud800 "\\"'))
  assert.equal(runtime.tenant('a\udfff').name, 'a\ufffd')
})

test('values of another V8 context are what they look like', async () => {
  const ids = model.encode('Once upon a time')
  const right = await model.generate(ids, GREEDY)
  for (const type of ['Uint32Array', 'Int32Array', 'Uint16Array', 'Float64Array', 'Array']) {
    const there = vm.runInNewContext(`${type}.from(ids)`, { ids })
    assert.deepEqual((await model.generate(there, GREEDY)).text, right.text, type)
    assert.deepEqual(model.decode(there), 'Once upon a time', type)
    assert.deepEqual(await model.embed(there), await model.embed(ids), type)
  }
  const messages = vm.runInNewContext('[{role: "user", content: "Hi"}]')
  assert.ok((await model.generate(messages, GREEDY)).text)
  const sequence = model.sequence()
  sequence.append(ids)
  await sequence.forward('nothing')
  const saved = vm.runInNewContext('Uint8Array.from(saved)', { saved: await sequence.save() })
  assert.deepEqual((await model.restoreSequence(saved)).tokens, ids)
  const { restored } = { restored: await model.restoreSequence(saved) }
  restored.close()
  await assert.rejects(model.generate('a', vm.runInNewContext('({ temperature: -1 })')), realm.InvalidArgumentError)
})

test('token ids are whole numbers', async () => {
  for (const bad of [[-1], [1.5], [NaN], ['7'], [2 ** 32], [undefined], Float32Array.of(0.5), Int8Array.of(-3)]) {
    assert.throws(() => model.decode(bad), { code: 'invalid-argument', message: /token 0 is .* whole number/ })
    await assert.rejects(model.embed(bad), { code: 'invalid-argument' })
    await assert.rejects(model.score(bad), { code: 'invalid-argument' })
    assert.throws(() => model.sequence().append(bad), { code: 'invalid-argument' })
  }
})

test('objects show what they are', async () => {
  assert.match(inspect(model), /^Model \{[^]*reference: 'smollm2-135m'[^]*architecture: 'llama'/)
  assert.equal(JSON.parse(JSON.stringify(model)).vocabulary, 49152)
  assert.match(inspect({ deep: { model } }, { depth: 0 }), /deep: \[Object\]/)
  assert.match(inspect({ model }, { depth: 0 }), /model: \[Model\]/)
  const tenant = runtime.tenant('acme', { weight: 2 })
  assert.match(inspect(tenant), /^Tenant \{[^]*name: 'acme'[^]*weight: 2/)
  assert.match(inspect(model.tokenizer), /^Tokenizer \{[^]*vocabulary: 49152/)
  assert.match(inspect(model.sequence()), /^Sequence \{ length: 0, contextLength: /)
  assert.deepEqual(Object.keys(model), [])
  const closed = await runtime.loadModel(TINY)
  closed.close()
  assert.equal(inspect(closed), 'Model { closed: true }')
  assert.equal(JSON.stringify(closed), '{"closed":true}')
})

test('results are plain data', async () => {
  const answer = await model.generate(CAPITAL, GREEDY)
  assert.deepEqual(structuredClone(answer), answer)
  assert.deepEqual(JSON.parse(JSON.stringify(answer)), answer)
  const vector = await model.embed('hi')
  const moved = structuredClone(vector, { transfer: [vector.buffer] })
  assert.deepEqual([moved.length, vector.length], [model.info.hidden, 0])
})

test('errors show who called', async () => {
  const here = async (work) => {
    const error = await Promise.resolve().then(work).then(() => assert.fail('it should have failed'), (error) => error)
    assert.match(error.stack, /citizen\.test\.mjs/, error.stack)
    assert.ok(error.stack.startsWith(`${error.name}: ${error.message}\n`), error.stack)
  }
  await here(() => model.generate('a', { temperature: -1 }))
  await here(() => model.stream('a', { temperature: -1 }).next())
  await here(() => model.embed([99999999]))
  await here(() => runtime.loadModel('no-such-model'))
  await here(() => model.decode([99999999]))
  await here(() => new realm.Realm({ device: 'abacus' }))
  // An error of the application's own stays as it is.
  const reason = new TypeError('mine')
  const { stack } = reason
  await assert.rejects(model.generate('a', { signal: AbortSignal.abort(reason) }), reason)
  assert.equal(reason.stack, stack)
})

test('what is disposed of is closed', async () => {
  for (const noun of [await runtime.loadModel(TINY), runtime.tenant('a'), model.sequence(), new realm.Realm({ device: 'cpu' })]) {
    noun[Symbol.dispose]()
  }
  const generation = model.stream(...ENDLESS)
  await generation.next()
  await generation[Symbol.asyncDispose]()
  await until(() => model.metrics().kv.used === 0)
})

test('long texts are encoded elsewhere', async () => {
  const text = 'The quick brown fox jumps over the lazy dog. '.repeat(2000)
  const options = { special: true, boundaries: false }
  assert.deepEqual(await model.encodeAsync(text, options), model.encode(text, options))
  const messages = Array.from({ length: 500 }, (_, i) => ({ role: i % 2 ? 'assistant' : 'user', content: `Message ${i}` }))
  assert.equal(await model.applyChatTemplateAsync(messages), model.applyChatTemplate(messages))
  await assert.rejects(model.applyChatTemplateAsync([{ content: 1, role: 2 }, null]), realm.RealmError)
  const alone = await runtime.loadTokenizer('smollm2-135m')
  assert.deepEqual(await alone.encodeAsync(text), model.encode(text))
  const error = await model.embed(text).catch((error) => error)
  assert.equal(error.code, 'limit-exceeded')
})

test('the package says which version it is', () => {
  assert.match(realm.version, /^\d+\.\d+\.\d+/)
  assert.equal(realm.default.default, realm.default)
})
