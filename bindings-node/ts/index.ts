/**
 * Realm runs many isolated tenants' AI programs on one copy of a model's weights, in this process.
 *
 *     import { Realm } from 'realm'
 *     const model = await new Realm().loadModel('qwen2.5-coder-0.5b')
 *     const question = [{ role: 'user', content: 'What is the capital of France?' }]
 *     for await (const chunk of model.stream(question, { temperature: 0 })) process.stdout.write(chunk.text)
 *
 * No call that waits blocks the event loop.
 */

import './globals.js'

export { ChatSession } from './chat.js'
export * from './errors.js'
export { createFetch, type Fetch } from './fetch.js'
export { Generation } from './generation.js'
export { Hub } from './hub.js'
export { Adapter, Model, Tokenizer, type ChatTemplateOptions, type EncodeOptions } from './model.js'
export { inspect, logTo, Realm, version } from './realm.js'
export { Sequence } from './sequence.js'
export { Program, Tenant } from './tenant.js'
export type * from './types.js'
