// Runs the scenarios of tests/conformance, which every language's package runs. Its README describes the operations.

import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { resolve as path } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'

import { ROOT, realm } from './common.mjs'

const FOLDER = path(ROOT, 'tests/conformance')
const snake = (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
const camel = (name) => name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase())
/** Returns an object with its keys, and those of objects in it, renamed. */
const renamed = (value, rename) => {
  if (Array.isArray(value)) return value.map((each) => renamed(each, rename))
  if (value === null || typeof value !== 'object') return value
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [rename(key), renamed(each, rename)]))
}

const TIMES = { requestTimeout: 'request_timeout_ms', programCpuTime: 'program_cpu_time_ms' }

/** The objects and results of a scenario; `realm` and `model` outlive it. */
class Runner {
  async start() {
    const runtime = new realm.Realm({ threads: 2, device: 'cpu' })
    this.objects = { realm: runtime, model: await runtime.loadModel('smollm2-135m', { kvTokens: 4096 }) }
    this.values = {}
    return this
  }

  /** Closes the objects of the last scenario. */
  begin() {
    const { realm, model, ...others } = this.objects
    for (const each of Object.values(others)) end(each)
    this.objects = { realm, model }
    this.values = {}
  }

  /** Performs an operation: converts its arguments, makes the call, and converts the result. */
  async operate({ op, as = 'unnamed', expect, error, eventually, model = 'model', ...a }) {
    assert.ok(op in operations, `there is no operation ${op}`)
    const used = new Set()
    const arguments_ = new Proxy(a, { get: (target, key) => (used.add(key), target[key]) })
    const add = (thing) => void (this.objects[as] = thing)
    const get = (key) => {
      const thing = this.objects[arguments_[key]]
      assert.ok(thing !== undefined, `there is no object ${a[key]}`)
      return thing
    }
    const context = { a: arguments_, model: this.objects[model], realm: this.objects.realm, add, get, runner: this }
    try {
      return await operations[op](context)
    } finally {
      const unused = Object.keys(a).filter((key) => !used.has(key))
      assert.deepEqual(unused, [], `${op} knows no such arguments`)
    }
  }

  /** Returns a request's prompt and options. */
  request({ prompt, messages, tokens, logit_bias, lark, adapter, ...rest }) {
    const { tools, tool_choice, template_variables, input, json_schema, logits_processors, ...plain } = rest
    const options = renamed(plain, camel)
    if (tools !== undefined) options.tools = tools
    if (logits_processors !== undefined) options.logitsProcessors = logits_processors.map(processor)
    if (tool_choice !== undefined) options.toolChoice = tool_choice
    if (template_variables !== undefined) options.templateVariables = template_variables
    if (input !== undefined) options.input = input
    if (json_schema !== undefined) options.jsonSchema = json_schema
    if (logit_bias !== undefined) options.logitBias = logit_bias
    if (lark !== undefined) options.grammar = lark
    if (adapter !== undefined) options.adapter = this.objects[adapter]
    return [prompt ?? messages ?? tokens, options]
  }
}

function end(thing) {
  if (thing instanceof realm.Generation) thing.cancel()
  else thing?.close?.()
}

const token = ({ id, logprob = null, top = [] }) => ({ id, logprob, top })
const completion = (of) => ({
  text: of.text,
  reasoning: of.reasoning,
  warnings: of.warnings,
  ids: of.tokens.map((each) => each.id),
  tokens: of.tokens.map(token),
  tool_calls: of.toolCalls,
  finish_reason: of.finishReason,
  usage: renamed(of.usage, snake),
  decode_seconds: of.timings.decode / 1000,
})
const chunkJson = ({ text, reasoning = '', tokens, toolCalls = [], warnings = [], finishReason, usage }) => ({
  text,
  reasoning,
  warnings,
  tokens: tokens.map(token),
  tool_calls: toolCalls,
  finish: usage ? { reason: finishReason, usage: renamed(usage, snake) } : null,
})
const served = ({ tokens, requests, preemptions, running, waiting, kvPages, firstTokenSeconds }) => ({
  prompt_tokens: tokens.prompt,
  cached_tokens: tokens.cached,
  generated_tokens: tokens.generated,
  ...renamed(requests, snake),
  preemptions,
  running,
  waiting,
  kv_pages: kvPages,
  first_tokens: firstTokenSeconds.count,
})
const limits = (asked = {}) => {
  const options = renamed(asked, camel)
  for (const [name, theirs] of Object.entries(TIMES)) {
    if (theirs in asked) {
      delete options[camel(theirs)]
      options[name] = asked[theirs]
    }
  }
  return options
}
/** Returns the logits processor that a scenario describes. */
const processor = ({ only, not_the_last, nan, fail }) => (tokens, logits) => {
  if (fail !== undefined) throw fail
  if (only !== undefined) logits.forEach((_, id) => only.includes(id) || (logits[id] = -Infinity))
  if (not_the_last) logits[tokens.at(-1)] = -Infinity
  if (nan) logits[0] = NaN
}
const program = async ({ add }, compiled) => {
  const loaded = await compiled
  add(loaded)
  return loaded.info
}

const operations = {
  // The runtime and models.
  realm: ({ a, add }) => {
    const snapshotKey = a.snapshot_key && Buffer.from(a.snapshot_key)
    return add(new realm.Realm({ threads: a.threads, device: a.device, snapshotKey })) ?? null
  },
  pull: ({ a, realm }) => realm.hub.pull(a.reference),
  models: async ({ realm }) => (await realm.hub.list()).map(({ name, state }) => ({ reference: name, state })),
  inspect: async ({ a }) => renamed(await realm.inspect(path(FOLDER, a.path)), snake),
  load_model: async ({ a, realm, get, add }) => {
    const file = path(FOLDER, a.reference)
    let last
    const options = { ...renamed(a.options ?? {}, camel), onProgress: (event) => (last = event) }
    const runtime = a.realm ? get('realm') : realm
    add(await runtime.loadModel(existsSync(file) ? file : a.reference, options))
    return { done: last.done, total: last.total }
  },
  info: ({ model }) => renamed(model.info, snake),
  // Texts and tokens.
  tokenizer: async ({ a, realm, add }) => {
    const tokenizer = await realm.loadTokenizer(a.reference)
    add(tokenizer)
    const { vocabulary, bos, eos, addsBos, endTokens } = tokenizer
    return { vocabulary, bos, eos, adds_bos: addsBos, end_tokens: endTokens }
  },
  encode: ({ a, model, get }) =>
    (a.tokenizer ? get('tokenizer') : model).encode(a.text, { special: a.special, boundaries: a.boundaries }),
  decode: ({ a, model }) => model.decode(a.tokens),
  token_id: ({ a, model }) => model.tokenizer.tokenId(a.text),
  render: ({ a, model, runner }) => model.applyChatTemplate(...runner.request(a.request)),
  render_tokens: ({ a, model, runner }) => {
    const [messages, options] = runner.request(a.request)
    return model.applyChatTemplate(messages, { ...options, tokenize: true })
  },
  // Generations.
  generate: async ({ a, model, runner }) => completion(await model.generate(...runner.request(a.request))),
  stream: async ({ a, model, runner, add }) => {
    const generation = model.stream(...runner.request(a.request))
    await generation.started()
    add(generation)
    return null
  },
  next: async ({ get }) => {
    const { done, value } = await get('generation').next()
    return done ? null : chunkJson(value)
  },
  collect: async ({ get }) => {
    const chunks = []
    for await (const chunk of get('generation')) chunks.push(chunk)
    const text = chunks.map((chunk) => chunk.text).join('')
    return { text, chunks: chunks.map(chunkJson), count: chunks.length }
  },
  finish: async ({ get }) => completion(await get('generation').finish()),
  cancel: ({ get }) => get('generation').cancel() ?? null,
  close: ({ a, get, runner }) => {
    end(get('object'))
    delete runner.objects[a.object]
    return null
  },
  // Scores and vectors.
  score: ({ a, model }) => model.score(a.tokens, { top: a.top }),
  log_likelihood: async ({ a, model }) => Array.from(await model.logLikelihood(a.prompt, a.continuation)),
  embed: async ({ a, model }) =>
    Array.from(await model.embed(a.text ?? a.tokens, { pooling: a.pooling, normalize: a.normalize })),
  // Lists.
  generate_many: async ({ a, model, runner }) => {
    const [, options] = runner.request(a.options ?? {})
    const each = await model.generateMany(a.prompts, { ...options, returnErrors: a.each })
    return each.map((one) =>
      one instanceof realm.RealmError ? { error: { code: one.code, message: one.message } } : completion(one),
    )
  },
  embed_many: async ({ a, model }) => {
    const vectors = await model.embedMany(a.texts, { pooling: a.pooling, normalize: a.normalize })
    return vectors.map((vector) => Array.from(vector))
  },
  score_many: ({ a, model }) => model.scoreMany(a.texts, { top: a.top }),
  encode_many: ({ a, model }) => model.encodeMany(a.texts, { special: a.special, boundaries: a.boundaries }),
  // Chat sessions.
  chat: ({ a, model, runner, add }) => {
    const [, options] = runner.request(a.options ?? {})
    const tools = a.tools?.map(({ definition, ...made }) => ({
      ...(definition.function ?? definition),
      run: (argument) => {
        if ('error' in made) throw made.error
        return 'answer' in made ? made.answer : argument
      },
    }))
    const { system, max_rounds: maxRounds, overflow } = a
    return add(new realm.ChatSession(model, { system, tools, maxRounds, overflow, ...options })) ?? null
  },
  ask: async ({ a, get }) => completion(await get('chat').ask(a.text)),
  ask_stream: ({ a, get, add }) => add(get('chat').stream(a.text)) ?? null,
  chat_state: ({ get }) => {
    const { messages, droppedMessages, busy } = get('chat')
    return { messages, dropped_messages: droppedMessages, busy }
  },
  set_messages: ({ a, get }) => void (get('chat').messages = a.messages) ?? null,
  undo: ({ get }) => get('chat').undo(),
  clear: ({ get }) => get('chat').clear() ?? null,
  // Sequences.
  sequence: ({ model, add }) => add(model.sequence()) ?? null,
  append: ({ a, get }) => get('sequence').append(a.tokens) ?? null,
  forward: async ({ a, get }) => {
    const { values, width, cached } = await get('sequence').forward(a.output && camel(a.output))
    const rows = Array.from({ length: width ? values.length / width : 0 }, (_, row) => values.subarray(row * width, (row + 1) * width))
    const argmax = rows.map((row) => row.reduce((best, value, i) => (value > row[best] ? i : best), 0))
    return { rows: rows.length, width, cached, argmax, values: Array.from(values) }
  },
  sequence_state: ({ get }) => {
    const { tokens, length, contextLength } = get('sequence')
    return { tokens, len: length, context_length: contextLength }
  },
  fork: ({ get, add }) => add(get('sequence').fork()) ?? null,
  truncate: ({ a, get }) => get('sequence').truncate(a.len) ?? null,
  save: async ({ get, add }) => {
    const bytes = await get('sequence').save()
    add(bytes)
    return bytes.length
  },
  restore: async ({ a, model, get, add }) => {
    const saved = a.bytes ? get('bytes') : Buffer.from(a.junk)
    return add(await (a.foreign ? model.restoreForeignSequence(saved) : model.restoreSequence(saved))) ?? null
  },
  // Adapters.
  load_adapter: async ({ a, model, add }) => {
    const adapter = await model.loadAdapter(path(FOLDER, a.path))
    add(adapter)
    return adapter.info
  },
  adapted: ({ a, model, get, add }) => add(model.adapted(get('adapter'), { scale: a.scale })) ?? null,
  // Tenants.
  tenant: ({ a, realm, add }) => add(realm.tenant(a.name, limits(a.limits))) ?? null,
  tenant_model: ({ model, get, add }) => add(get('tenant').model(model)) ?? null,
  set_limits: ({ a, get }) => get('tenant').setLimits(limits(a.limits)) ?? null,
  tenant_state: ({ get }) => {
    const { name, running, waiting, program, limits } = get('tenant')
    const named = Object.entries(limits).map(([key, value]) => [TIMES[key] ?? snake(key), value])
    return { name, running, waiting, has_program: program !== null, limits: Object.fromEntries(named) }
  },
  tenant_metrics: ({ get }) => served(get('tenant').metrics()),
  // Programs.
  load_program: (context) => program(context, context.realm.loadProgram(path(FOLDER, context.a.file))),
  compile_program: (context) => {
    const { a, realm, get } = context
    const wasm = readFileSync(path(FOLDER, a.file))
    return program(context, a.tenant ? get('tenant').compileProgram(wasm) : realm.loadProgram(wasm))
  },
  set_program: ({ a, get }) => get('tenant').setProgram(a.program === null ? null : get('program')) ?? null,
  add_program: ({ a, get }) => get('tenant').addProgram(a.name, get('program')) ?? null,
  remove_program: ({ a, get }) => get('tenant').removeProgram(a.name),
  set_grants: ({ a, get, add }) => {
    const lines = []
    const tool = (made) => (argument) => {
      if ('error' in made) throw made.error
      return 'answer' in made ? made.answer : argument
    }
    get('tenant').setGrants({
      log: a.log ? (tenant, level, message) => lines.push({ tenant, level, message }) : undefined,
      clock: a.clock,
      random: a.random === 'system' ? true : a.random,
      store: a.store === undefined ? undefined : { quota: a.store },
      http: a.http,
      tools: Object.fromEntries(Object.entries(a.tools ?? {}).map(([name, made]) => [name, tool(made)])),
    })
    add(lines)
    return null
  },
  log_lines: async ({ get }) => {
    // Lines come from a thread of their own, some time after the program wrote them.
    const lines = get('log')
    for (let i = 0; i < 100 && lines.length === 0; i++) await sleep(10)
    return [...lines]
  },
  // Numbers.
  metrics: ({ model }) => {
    const metrics = model.metrics()
    const tenants = metrics.tenants.map((tenant) => ({ name: tenant.name, served: served(tenant.served) }))
    return { served: served(metrics.served), steps: metrics.stepSeconds.count, kv: renamed(metrics.kv, snake), tenants }
  },
  prometheus: ({ realm }) => realm.prometheus(),
}

/** Returns `value` with every `{"$ref": "name.key.0"}` replaced by its result. Expectations are resolved later. */
function resolve(value, kept) {
  if (Array.isArray(value)) return value.map((each) => resolve(each, kept))
  if (value === null || typeof value !== 'object') return value
  const keys = Object.keys(value)
  if (keys.length === 1 && keys[0] === '$ref') {
    return value.$ref.split('.').reduce((at, part) => {
      assert.ok(part in at, `${value.$ref} leads nowhere`)
      return at[part]
    }, kept)
  }
  return Object.fromEntries(keys.filter((key) => key !== 'expect').map((key) => [key, resolve(value[key], kept)]))
}

/** Returns where `found` differs from the description `wanted`; `undefined` if it does not. */
function mismatch(found, wanted) {
  const first = (whys) => whys.find((why) => why !== undefined)
  if (Array.isArray(wanted)) {
    if (!Array.isArray(found) || found.length !== wanted.length) return `: ${short(found)} has not ${wanted.length} items`
    return first(wanted.map((each, i) => prefixed(`[${i}]`, mismatch(found[i], each))))
  }
  if (wanted !== null && typeof wanted === 'object') {
    const entries = Object.entries(wanted)
    if (entries.some(([key]) => key.startsWith('$'))) return first(entries.map(([key, each]) => special(found, key, each)))
    return first(
      entries.map(([key, each]) => {
        if (!(key in Object(found))) return `: ${short(found)} has no ${key}`
        return prefixed(`.${key}`, mismatch(found[key], each))
      }),
    )
  }
  return found === wanted ? undefined : `: ${short(found)} and not ${short(wanted)}`
}

const prefixed = (prefix, why) => (why === undefined ? undefined : prefix + why)
const short = (value) => `${JSON.stringify(value)}`.slice(0, 400)

function special(found, name, argument) {
  const matchers = {
    $at_least: () => found >= argument,
    $at_most: () => found <= argument,
    $near: () => Math.abs(found - argument) <= 1e-3 * Math.max(Math.abs(argument), 1),
    $contains: () =>
      typeof found === 'string' ? found.includes(argument) : found.some((item) => mismatch(item, argument) === undefined),
    $length: () => [...found].length === argument,
    $norm: () => Math.abs(Math.hypot(...found) - argument) <= 1e-3,
    $not: () => mismatch(found, argument) !== undefined,
    $starts: () => mismatch(found.slice(0, argument.length), argument) === undefined,
    $json: () => mismatch(JSON.parse(found), argument) === undefined,
  }
  assert.ok(name in matchers, `there is no matcher ${name}`)
  return matchers[name]() ? undefined : `: ${short(found)} is not ${name} ${short(argument)}`
}

async function check(runner, step, given) {
  let result
  try {
    result = await runner.operate(given)
  } catch (error) {
    if (!(error instanceof realm.RealmError)) throw error
    if (!('error' in step)) return `: ${error.code}: ${error.message}`
    return mismatch({ code: error.code, message: error.message }, given.error)
  }
  if ('error' in step) return `: an error was expected, not ${short(result)}`
  if ('as' in step) runner.values[step.as] = result
  return 'expect' in step ? mismatch(result, resolve(step.expect, runner.values)) : undefined
}

async function perform(runner, step) {
  const given = resolve(step, runner.values)
  const deadline = performance.now() + (step.eventually ? 10_000 : 0)
  for (;;) {
    const why = await check(runner, step, given)
    if (why === undefined || performance.now() >= deadline) return why
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

const areas = readdirSync(FOLDER).filter((file) => file.endsWith('.json'))
assert.ok(areas.length > 0)
for (const area of areas) {
  test(area, async () => {
    const { scenarios } = JSON.parse(readFileSync(path(FOLDER, area), 'utf8'))
    assert.ok(scenarios.length > 0)
    const runner = await new Runner().start()
    const failures = []
    for (const { name, steps } of scenarios) {
      runner.begin()
      for (const [i, step] of steps.entries()) {
        const why = await perform(runner, step)
        if (why === undefined) continue
        failures.push(`${name}, step ${i} (${step.op})${why}`)
        break
      }
    }
    runner.begin()
    runner.objects.model.close()
    assert.deepEqual(failures, [])
  })
}
