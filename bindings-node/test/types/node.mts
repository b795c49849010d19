// What tsc has to accept of a user's program, and what it has to refuse. Never run.

import { Generation, LimitExceededError, Realm, RealmError, type Chunk, type Completion, type Message } from 'realm'

const realm: Realm = new Realm({ threads: 2, device: 'cpu' })
const model = await realm.loadModel('smollm2-135m', { onProgress: ({ stage, done, total }) => console.log(stage, done, total) })
const messages: Message[] = [{ role: 'user', content: 'Hello' }]
const whole: Completion = await model.generate(messages, { maxTokens: 5, temperature: 0, signal: AbortSignal.timeout(100) })
const thought: string = (await model.generate(messages, { enableThinking: false, reasoningFormat: 'inline' })).reasoning
const reason: 'stop' | 'length' | 'tool_calls' = whole.finishReason
const stream: Generation = model.stream([1, 2, 3], { jsonSchema: { type: 'object' }, logitBias: { 5: -Infinity } })
for await (const chunk of stream) {
  const text: string = chunk.text
  const first: number | undefined = chunk.tokens[0]?.id
  console.log(text, first, chunk.usage?.generatedTokens, chunk.usage?.reasoningTokens, chunk.reasoning, reason, thought)
}
const chunks: ReadableStream<Chunk> = stream.toReadableStream() as ReadableStream<Chunk>
const vector: Float32Array = await model.embed('text', { pooling: 'mean' })
const tenant = realm.tenant('acme', { maxConcurrent: 1, requestTimeout: 1000 })
tenant.setLimits({ ...tenant.limits, weight: 2 })
tenant.setGrants({ tools: { weather: async ({ city }: { city: string }) => ({ city }) }, random: 7 })
try {
  tenant.model(model)
} catch (error) {
  if (error instanceof LimitExceededError) console.log(error.code satisfies string)
  if (error instanceof RealmError) console.log(error.message, vector, chunks)
}

// @ts-expect-error: an option that there is not
void model.generate('a', { colour: 'red' })
// @ts-expect-error: a number is no prompt
void model.generate(5)
// @ts-expect-error: no such output
void model.sequence().forward('everything')
// @ts-expect-error: the native half is nobody's business
void model.native
