// Programs that take a `fetch`, asking a model of this process. Prints a line for each; exits with 1 if one failed.

import { ChatOpenAI } from '@langchain/openai'
import { createOpenAI } from '@ai-sdk/openai'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { generateObject, generateText, streamText } from 'ai'
import { createFetch, Realm } from 'realm'
import { z } from 'zod'

const fetch = createFetch(await new Realm().loadModel('qwen2.5-coder-0.5b'))
const QUESTION = 'What is the capital of France? Answer in one sentence.'
const ADDRESS = { baseURL: 'http://realm/v1', apiKey: 'realm', fetch }
const SCHEMA = z.object({ city: z.string(), country: z.string() })
const LIMITS = { maxOutputTokens: 60, temperature: 0, maxRetries: 0 }

async function check(name, program, right) {
  try {
    const answer = await program()
    const good = right(answer)
    console.log(good ? 'ok    ' : 'WRONG ', name, JSON.stringify(answer)?.slice(0, 150))
    if (!good) process.exitCode = 1
  } catch (error) {
    process.exitCode = 1
    console.log('FAILED', name, error)
  }
}

const isParis = (answer) => String(answer).includes('Paris')
const isCity = (answer) => SCHEMA.safeParse(answer).success

async function streamed(model) {
  let text = ''
  for await (const piece of streamText({ model, prompt: QUESTION, ...LIMITS }).textStream) text += piece
  return text
}

const compatible = createOpenAICompatible({ name: 'realm', supportsStructuredOutputs: true, ...ADDRESS })('any')
await check('AI SDK text', async () => (await generateText({ model: compatible, prompt: QUESTION, ...LIMITS })).text, isParis)
await check('AI SDK stream', () => streamed(compatible), isParis)
const paris = { schema: SCHEMA, prompt: 'Paris is in France.', ...LIMITS }
await check('AI SDK object', async () => (await generateObject({ model: compatible, ...paris })).object, isCity)
const openai = createOpenAI(ADDRESS).chat('any')
await check('AI SDK OpenAI text', async () => (await generateText({ model: openai, prompt: QUESTION, ...LIMITS })).text, isParis)
await check('AI SDK OpenAI stream', () => streamed(openai), isParis)

const configuration = { baseURL: ADDRESS.baseURL, fetch }
const chain = new ChatOpenAI({ model: 'any', apiKey: 'realm', maxTokens: 60, temperature: 0, maxRetries: 0, configuration })
await check('LangChain.js invoke', async () => (await chain.invoke(QUESTION)).content, isParis)
await check('LangChain.js stream', async () => {
  let text = ''
  for await (const piece of await chain.stream(QUESTION)) text += piece.content
  return text
}, isParis)
await check('LangChain.js schema', () => chain.withStructuredOutput(SCHEMA).invoke('Paris is in France.'), isCity)
