// OpenAI's client for Node, with a real model of this process.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'

import OpenAI from 'openai'

import { ANSWER, CAPITAL, counted, realm, until } from './common.mjs'

const MORE = { model: 'any', temperature: 0, max_tokens: 16 }
const LONG = { model: 'any', messages: [{ role: 'user', content: 'Write a very long story.' }], max_tokens: 4000, ignore_eos: true }

let runtime, model, tenant, client
before(async () => {
  runtime = new realm.Realm({ threads: 2, device: 'cpu' })
  model = await runtime.loadModel('smollm2-135m', { kvTokens: 16384 })
  tenant = runtime.tenant("openai's clients")
  client = clientOf(tenant.model(model))
})
after(() => model.close())

function clientOf(source) {
  return new OpenAI({ fetch: realm.createFetch(source), baseURL: 'http://realm/v1', apiKey: 'realm', maxRetries: 0 })
}

/** Waits until this many of the tenant's requests were cancelled, and none runs. */
async function cancelled(count) {
  await until(() => tenant.metrics().requests.cancelled === count && tenant.metrics().running === 0)
}

test('whole answers, streams, texts, vectors and models', async () => {
  const answer = await client.chat.completions.create({ messages: CAPITAL, n: 2, ...MORE })
  assert.deepEqual(answer.choices.map((choice) => choice.message.content), [ANSWER, ANSWER])
  let text = ''
  const stream = await client.chat.completions.create({
    messages: CAPITAL, stream: true, stream_options: { include_usage: true }, ...MORE,
  })
  let last
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? ''
    last = chunk
  }
  assert.equal(text, ANSWER)
  assert.ok(last.usage.completion_tokens > 0)
  const more = await client.completions.create({ model: 'any', prompt: 'One, two, three,', max_tokens: 4, temperature: 0 })
  assert.match(more.choices[0].text, /four/)
  const vectors = await client.embeddings.create({ model: 'any', input: ['Hello', 'Good bye'] })
  assert.equal(vectors.data[1].embedding.length, 576)
  assert.deepEqual((await client.models.list()).data.map((entry) => entry.id), ['smollm2-135m'])
})

test('responses', async () => {
  const answer = await client.responses.create({ model: 'any', input: CAPITAL, temperature: 0, max_output_tokens: 16 })
  assert.equal(answer.output_text, ANSWER)
})

test("failures are the client's own", async () => {
  const bad = client.chat.completions.create({ model: 'any', messages: CAPITAL, max_tokens: -1 })
  await assert.rejects(bad, (error) => error instanceof OpenAI.BadRequestError && error.param === 'max_tokens')
  const stateful = client.responses.create({ model: 'any', input: 'Hi', previous_response_id: 'resp_1' })
  await assert.rejects(stateful, OpenAI.BadRequestError)
  const unknown = clientOf(runtime).chat.completions.create({ model: 'no-such-model', messages: CAPITAL })
  await assert.rejects(unknown, (error) => error.code === 'model_not_found')
  const half = await client.chat.completions.create({ ...MORE, messages: [{ role: 'user', content: '\ud83d' }] })
  assert.equal(half.choices.length, 1)
})

test('an aborted signal, a stream that is left and a timeout end the request', async () => {
  const before = tenant.metrics().requests.cancelled
  for await (const _ of await client.chat.completions.create({ stream: true, ...LONG })) break
  await cancelled(before + 1)
  const controller = new AbortController()
  const whole = client.chat.completions.create(LONG, { signal: controller.signal })
  await until(() => tenant.metrics().running === 1)
  controller.abort()
  await assert.rejects(whole, OpenAI.APIUserAbortError)
  await cancelled(before + 2)
  const stream = await client.chat.completions.create({ stream: true, ...LONG })
  const read = (async () => {
    for await (const _ of stream) stream.controller.abort()
  })()
  await read.catch(() => {})
  await cancelled(before + 3)
  await assert.rejects(client.chat.completions.create(LONG, { timeout: 200 }), OpenAI.APIConnectionTimeoutError)
  await cancelled(before + 4)
  const gone = AbortSignal.abort(new Error('gone'))
  await assert.rejects(realm.createFetch(model)('http://realm/v1/models', { signal: gone }), /gone/)
})

test('a response that is dropped ends its request, however long its signal lives', async () => {
  const before = tenant.metrics().requests.cancelled
  const count = counted()
  const { signal } = count
  const fetch = realm.createFetch(tenant.model(model))
  const ask = async () => {
    const response = await fetch('http://realm/v1/chat/completions', {
      method: 'POST', body: JSON.stringify({ ...LONG, stream: true }), signal,
    })
    assert.equal(response.status, 200)
  }
  await ask()
  await until(() => {
    globalThis.gc()
    return tenant.metrics().requests.cancelled === before + 1 && count.listeners === 0
  })
  assert.equal(signal.aborted, false)
})

test('what fetch takes: an URL, a Request, bytes', async () => {
  const fetch = realm.createFetch(model)
  const body = JSON.stringify({ messages: CAPITAL, ...MORE })
  const address = 'http://realm/v1/chat/completions?x=1'
  for (const call of [
    fetch(new URL(address), { method: 'POST', body: new TextEncoder().encode(body) }),
    fetch(new Request(address, { method: 'POST', body })),
  ]) {
    const answer = await (await call).json()
    assert.equal(answer.choices[0].message.content, ANSWER)
  }
  assert.equal((await fetch('http://realm/v1/nothing')).status, 404)
})

test('first calls at the same time are all answered', async () => {
  const other = new realm.Realm({ threads: 2, device: 'cpu' })
  const clients = [clientOf(other), clientOf(other)]
  const ask = (_, index) => clients[index % 2].chat.completions.create({ ...MORE, model: 'smollm2-135m', messages: CAPITAL })
  const answers = await Promise.all(Array.from({ length: 16 }, ask))
  assert.ok(answers.every((answer) => answer.choices[0].message.content === ANSWER))
})
