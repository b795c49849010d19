import { bytes, isTyped, json, tokens, transferable } from './convert.js'
import { call, errorOf, wait, type RealmError } from './errors.js'
import { Generation } from './generation.js'
import { Granted, type Functions } from './grants.js'
import { aborted, keeping, many, plain, processed, weakly } from './lists.js'
import { native, type NativeAdapter, type NativeModel, type NativeTokenizer } from './native.js'
import { metrics } from './metrics.js'
import { count, finite } from './numbers.js'
import { Sequence } from './sequence.js'
import { hidden, shown } from './show.js'
import type {
  Completion,
  ListOptions,
  Message,
  Metrics,
  ModelInfo,
  Pooling,
  Prompt,
  RequestOptions,
  Scored,
} from './types.js'

/** A LoRA adapter on a model. It is unloaded when nobody holds it any more and the last request that uses it has ended. */
export class Adapter implements Disposable {
  /** @internal */
  declare readonly native: NativeAdapter

  /** @internal */
  constructor(native: NativeAdapter) {
    hidden(this, 'native', native)
  }

  /** What it was loaded by, which tenants' limits name; its largest rank; bytes that its matrices take. */
  get info(): { name: string; rank: number; bytes: number } {
    return JSON.parse(call(() => this.native.info()))
  }

  /** Gives it back. */
  close(): void {
    this.native.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

/** What a chat template is given beside messages. */
export type ChatTemplateOptions = Pick<
  RequestOptions,
  'tools' | 'templateVariables' | 'addGenerationPrompt' | 'continueFinalMessage'
>

/** How a text becomes tokens. */
export interface EncodeOptions {
  /** Control tokens spelled in the text become those tokens: only for text that no user wrote. */
  special?: boolean | undefined
  /** Begin and end tokens are added where the model expects them; so they are, unless this is `false`. */
  boundaries?: boolean | undefined
}

/** A model's tokenizer. */
export class Tokenizer {
  readonly #native: NativeTokenizer
  /** Number of tokens. */
  readonly vocabulary!: number
  /** The begin-of-sequence token. */
  readonly bos!: number | null
  /** The end-of-sequence token. */
  readonly eos!: number | null
  /** Whether the model expects the begin token before a text. */
  readonly addsBos!: boolean
  /** The tokens that end a generation. */
  readonly endTokens!: readonly number[]

  /** @internal */
  constructor(native: NativeTokenizer) {
    this.#native = native
    Object.assign(this, JSON.parse(native.info()))
  }

  /** Token ids of a text. */
  encode(text: string, { special = false, boundaries = true }: EncodeOptions = {}): number[] {
    return Array.from(call(() => this.#native.encode(text, special, boundaries)))
  }

  /** As `encode`, on another thread: for texts of megabytes. */
  async encodeAsync(text: string, { special = false, boundaries = true }: EncodeOptions = {}): Promise<number[]> {
    return Array.from(await wait(async () => this.#native.encodeAsync(text, special, boundaries)))
  }

  /** The text of token ids. Control tokens are left out, unless `special`. */
  decode(ids: Iterable<number>, { special = false }: { special?: boolean | undefined } = {}): string {
    return call(() => this.#native.decode(tokens(ids), special))
  }

  /** The token that is spelled exactly so, a control token included. */
  tokenId(text: string): number | null {
    return call(() => this.#native.tokenId(text))
  }
}

/** @internal A request as the native half takes it. */
export function request(prompt: Prompt, { signal, adapter, logitsProcessors, ...options }: RequestOptions): string {
  return json({ ...options, prompt: isTyped(prompt) ? Array.from(prompt) : prompt })
}

/** One set of weights, used by everybody, as one tenant sees it. */
export class Model implements Disposable {
  /** @internal */
  declare readonly native: NativeModel
  readonly #granted: Granted
  #tokenizer: Tokenizer | undefined

  /** @internal */
  constructor(native: NativeModel, granted = new Granted()) {
    hidden(this, 'native', native)
    this.#granted = granted
  }

  /** Answers a prompt: text, messages (`{role, content}`) or token ids. */
  async generate(prompt: Prompt, options: RequestOptions = {}): Promise<Completion> {
    return this.stream(prompt, options).finish()
  }

  /** Starts to answer a prompt, and returns at once what to iterate over. What is wrong with the request is thrown there. */
  stream(prompt: Prompt, options: RequestOptions = {}): Generation {
    const processors = options.logitsProcessors ?? []
    const process = weakly(processors)
    const given = () => this.native.stream(request(prompt, options), options.adapter?.native ?? null, process)
    const functions: Functions[] = []
    const generation = new Generation(() => this.#granted.during(functions, given), options.signal)
    return keeping(generation, [functions, processors])
  }

  /** One vector for a text or token ids. */
  async embed(
    text: string | Iterable<number>,
    { pooling, normalize = true }: { pooling?: Pooling | undefined; normalize?: boolean | undefined } = {},
  ): Promise<Float32Array> {
    return transferable(await wait(async () => this.native.embed(this.#text(text), pooling ?? null, normalize)))
  }

  /**
   * Answers many prompts, all with the same options; the completions are in the order of the prompts. A window of requests is
   * under way at once, so that a list of any length neither fills a queue nor holds others up.
   */
  generateMany(prompts: Iterable<Prompt>, options: ListOptions & { returnErrors: true }): Promise<(Completion | RealmError)[]>
  generateMany(prompts: Iterable<Prompt>, options?: ListOptions): Promise<Completion[]>
  async generateMany(
    prompts: Iterable<Prompt>,
    { returnErrors = false, ...options }: ListOptions = {},
  ): Promise<(Completion | RealmError)[]> {
    options.signal?.throwIfAborted()
    const requests = many(prompts, 'prompts').map((prompt) => request(prompt, options))
    const adapter = options.adapter?.native ?? null
    const process = processed(options.logitsProcessors ?? [])
    const call = new native.NativeCall()
    // The functions that were granted are held until the last request has ended.
    const work = this.#granted.during<(Completion | RealmError)[]>([], async () => {
      if (!returnErrors) return wait(async () => native.generateMany(this.native, requests, adapter, process, call))
      const each = await wait(async () => native.generateEach(this.native, requests, adapter, process, call))
      return each.map((result) => (Array.isArray(result) ? errorOf(...result) : result))
    })
    return aborted(work, call, options.signal)
  }

  /** One vector for each of many texts or lists of token ids; thousands are fine. */
  async embedMany(
    texts: Iterable<string | Iterable<number>>,
    { pooling, normalize = true }: { pooling?: Pooling | undefined; normalize?: boolean | undefined } = {},
  ): Promise<Float32Array[]> {
    const given = many(texts, 'texts').map(plain)
    const vectors = await wait(async () => native.embedMany(this.native, given, pooling ?? null, normalize))
    return vectors.map(transferable)
  }

  /** As `score`, for each of many texts. */
  async scoreMany(
    texts: Iterable<string | Iterable<number>>,
    { top = 0 }: { top?: number | undefined } = {},
  ): Promise<Scored[][]> {
    return JSON.parse(await wait(async () => native.scoreMany(this.native, many(texts, 'texts').map(plain), count('top', top))))
  }

  /** Token ids of each of many texts. */
  encodeMany(texts: Iterable<string>, options?: EncodeOptions): number[][] {
    return many(texts, 'texts').map((text) => this.encode(text, options))
  }

  /** For each token of a text, or of token ids, the log-probability of the one that follows, and the `top` likeliest. */
  async score(
    text: string | Iterable<number>,
    { top = 0 }: { top?: number | undefined } = {},
  ): Promise<Scored[]> {
    return JSON.parse(await wait(async () => this.native.score(this.#text(text), count('top', top))))
  }

  /** The log-probability of each token of `continuation` after `prompt`, in nats. */
  async logLikelihood(prompt: Iterable<number>, continuation: Iterable<number>): Promise<Float32Array> {
    return transferable(await wait(async () => this.native.logLikelihood(tokens(prompt), tokens(continuation))))
  }

  /** Token ids of a text. */
  encode(text: string, options?: EncodeOptions): number[] {
    return this.tokenizer.encode(text, options)
  }

  /** As `encode`, on another thread: for texts of megabytes. */
  async encodeAsync(text: string, options?: EncodeOptions): Promise<number[]> {
    return this.tokenizer.encodeAsync(text, options)
  }

  /** The text of token ids. */
  decode(ids: Iterable<number>, options?: { special?: boolean | undefined }): string {
    return this.tokenizer.decode(ids, options)
  }

  /** Its tokenizer. */
  get tokenizer(): Tokenizer {
    this.#tokenizer ??= new Tokenizer(call(() => this.native.tokenizer()))
    return this.#tokenizer
  }

  /**
   * The prompt that the model's chat template makes of messages, with the start of the assistant's answer.
   *
   * The text is to look at: it no longer says which words are the template's and which a user's, so that control tokens in it
   * can't be parsed safely. With `tokenize` the result is the token ids, in which a user's words are words: what `generate` goes
   * on from.
   */
  applyChatTemplate(messages: readonly Message[], options?: ChatTemplateOptions & { tokenize?: false | undefined }): string
  applyChatTemplate(messages: readonly Message[], options: ChatTemplateOptions & { tokenize: true }): number[]
  applyChatTemplate(
    messages: readonly Message[],
    { tokenize = false, ...options }: ChatTemplateOptions & { tokenize?: boolean | undefined } = {},
  ): string | number[] {
    const given = request(messages, options)
    return call(() => (tokenize ? this.native.renderTokens(given) : this.native.render(given)))
  }

  /** The text of `applyChatTemplate`, made on another thread: for conversations of thousands of messages. */
  async applyChatTemplateAsync(messages: readonly Message[], options: ChatTemplateOptions = {}): Promise<string> {
    return wait(async () => this.native.renderAsync(request(messages, options)))
  }

  /** An empty sequence that the caller drives forward by forward. */
  sequence(): Sequence {
    return new Sequence(call(() => this.native.sequence()))
  }

  /** A sequence from what `Sequence.save` gave, in this realm or another one of the same `snapshotKey`. */
  async restoreSequence(saved: Uint8Array): Promise<Sequence> {
    return new Sequence(await wait(async () => this.native.restoreSequence(Buffer.from(bytes(saved)))))
  }

  /**
   * The same for bytes that a realm of another key saved. Their form is checked in full; whether their keys and values are what the
   * model computes, nobody can know. The tenant's other requests don't use them.
   */
  async restoreForeignSequence(saved: Uint8Array): Promise<Sequence> {
    return new Sequence(await wait(async () => this.native.restoreForeignSequence(Buffer.from(bytes(saved)))))
  }

  /** Loads a LoRA adapter: a GGUF file, or the folder that PEFT saves. */
  async loadAdapter(path: string): Promise<Adapter> {
    return new Adapter(await wait(async () => this.native.loadAdapter(path)))
  }

  /** The same model with an adapter, and a factor on what it adds. */
  adapted(adapter: Adapter, { scale = 1 }: { scale?: number | undefined } = {}): Model {
    return new Model(call(() => this.native.adapted(adapter.native, finite('scale', scale))), this.#granted)
  }

  /** What the model is. */
  get info(): ModelInfo {
    return JSON.parse(call(() => this.native.info()))
  }

  /** What it has done for all tenants since it was loaded, and how it stands. */
  metrics(): Metrics {
    return metrics(call(() => this.native.metrics())) as Metrics
  }

  /** Gives it back. Generations that run keep it until they end. */
  close(): void {
    this.#tokenizer = undefined
    this.native.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #text(text: string | Iterable<number>): string | Uint32Array {
    return typeof text === 'string' ? text : tokens(text)
  }
}

shown(Adapter, ({ info }) => info)
shown(Model, ({ info }) => ({ ...info }))
shown(Tokenizer, ({ vocabulary, bos, eos, addsBos, endTokens }) => ({ vocabulary, bos, eos, addsBos, endTokens }))
