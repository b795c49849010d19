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

/**
 * A LoRA adapter of a model. It is unloaded when it is closed or collected and the last request that uses it
 * has ended.
 */
export class Adapter implements Disposable {
  /** @internal */
  declare readonly native: NativeAdapter

  /** @internal */
  constructor(native: NativeAdapter) {
    hidden(this, 'native', native)
  }

  /**
   * The name that it was loaded by, which tenants' limits use; its largest rank; the bytes of its matrices.
   */
  get info(): { name: string; rank: number; bytes: number } {
    return JSON.parse(call(() => this.native.info()))
  }

  /** Releases the adapter. */
  close(): void {
    this.native.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

/** The options of rendering messages with a chat template. */
export type ChatTemplateOptions = Pick<
  RequestOptions,
  'tools' | 'templateVariables' | 'addGenerationPrompt' | 'continueFinalMessage'
>

/** The options of encoding a text. */
export interface EncodeOptions {
  /**
   * True if control tokens spelled in the text become those tokens. Set it only for text that no user wrote.
   */
  special?: boolean | undefined
  /** True, the default, if begin and end tokens are added where the model expects them. */
  boundaries?: boolean | undefined
}

/** A model's tokenizer. */
export class Tokenizer {
  readonly #native: NativeTokenizer
  /** The number of tokens. */
  readonly vocabulary!: number
  /** The begin-of-sequence token. */
  readonly bos!: number | null
  /** The end-of-sequence token. */
  readonly eos!: number | null
  /** True if the model expects the begin token before a text. */
  readonly addsBos!: boolean
  /** The tokens that end a generation. */
  readonly endTokens!: readonly number[]

  /** @internal */
  constructor(native: NativeTokenizer) {
    this.#native = native
    Object.assign(this, JSON.parse(native.info()))
  }

  /** Encodes a text into token ids. */
  encode(text: string, { special = false, boundaries = true }: EncodeOptions = {}): number[] {
    return Array.from(call(() => this.#native.encode(text, special, boundaries)))
  }

  /** Same as `encode`, on another thread: for texts of megabytes. */
  async encodeAsync(text: string, { special = false, boundaries = true }: EncodeOptions = {}): Promise<number[]> {
    return Array.from(await wait(async () => this.#native.encodeAsync(text, special, boundaries)))
  }

  /** Decodes token ids into text. Control tokens are left out, unless `special`. */
  decode(ids: Iterable<number>, { special = false }: { special?: boolean | undefined } = {}): string {
    return call(() => this.#native.decode(tokens(ids), special))
  }

  /** Returns the token with exactly this spelling, including control tokens. */
  tokenId(text: string): number | null {
    return call(() => this.#native.tokenId(text))
  }
}

/** @internal Returns a request for the native half. */
export function request(prompt: Prompt, { signal, adapter, logitsProcessors, ...options }: RequestOptions): string {
  return json({ ...options, prompt: isTyped(prompt) ? Array.from(prompt) : prompt })
}

/** One set of weights, shared by all tenants, as one tenant sees it. */
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

  /**
   * Starts to answer a prompt, and returns the running request at once. Its first read throws an error of the
   * request.
   */
  stream(prompt: Prompt, options: RequestOptions = {}): Generation {
    const processors = options.logitsProcessors ?? []
    const process = weakly(processors)
    const given = () => this.native.stream(request(prompt, options), options.adapter?.native ?? null, process)
    const functions: Functions[] = []
    const generation = new Generation(() => this.#granted.during(functions, given), options.signal)
    return keeping(generation, [functions, processors])
  }

  /** Returns the embedding of a text or of token ids. */
  async embed(
    text: string | Iterable<number>,
    { pooling, normalize = true }: { pooling?: Pooling | undefined; normalize?: boolean | undefined } = {},
  ): Promise<Float32Array> {
    return transferable(await wait(async () => this.native.embed(this.#text(text), pooling ?? null, normalize)))
  }

  /**
   * Answers many prompts, all with the same options; the completions are in the order of the prompts. A
   * window of requests runs at once, so a list of any length neither fills a queue nor delays others.
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
    // The granted functions are held until the last request has ended.
    const work = this.#granted.during<(Completion | RealmError)[]>([], async () => {
      if (!returnErrors) return wait(async () => native.generateMany(this.native, requests, adapter, process, call))
      const each = await wait(async () => native.generateEach(this.native, requests, adapter, process, call))
      return each.map((result) => (Array.isArray(result) ? errorOf(...result) : result))
    })
    return aborted(work, call, options.signal)
  }

  /** Returns an embedding for each of many texts or lists of token ids; thousands are fine. */
  async embedMany(
    texts: Iterable<string | Iterable<number>>,
    { pooling, normalize = true }: { pooling?: Pooling | undefined; normalize?: boolean | undefined } = {},
  ): Promise<Float32Array[]> {
    const given = many(texts, 'texts').map(plain)
    const vectors = await wait(async () => native.embedMany(this.native, given, pooling ?? null, normalize))
    return vectors.map(transferable)
  }

  /** Same as `score`, for each of many texts. */
  async scoreMany(
    texts: Iterable<string | Iterable<number>>,
    { top = 0 }: { top?: number | undefined } = {},
  ): Promise<Scored[][]> {
    return JSON.parse(await wait(async () => native.scoreMany(this.native, many(texts, 'texts').map(plain), count('top', top))))
  }

  /** Encodes each of many texts into token ids. */
  encodeMany(texts: Iterable<string>, options?: EncodeOptions): number[][] {
    return many(texts, 'texts').map((text) => this.encode(text, options))
  }

  /**
   * Returns, for each token of a text or of token ids, the log-probability of the token that follows it, and
   * the `top` likeliest in its place.
   */
  async score(
    text: string | Iterable<number>,
    { top = 0 }: { top?: number | undefined } = {},
  ): Promise<Scored[]> {
    return JSON.parse(await wait(async () => this.native.score(this.#text(text), count('top', top))))
  }

  /** Returns the log-probability of each token of `continuation` after `prompt`, in nats. */
  async logLikelihood(prompt: Iterable<number>, continuation: Iterable<number>): Promise<Float32Array> {
    return transferable(await wait(async () => this.native.logLikelihood(tokens(prompt), tokens(continuation))))
  }

  /** Encodes a text into token ids. */
  encode(text: string, options?: EncodeOptions): number[] {
    return this.tokenizer.encode(text, options)
  }

  /** Same as `encode`, on another thread: for texts of megabytes. */
  async encodeAsync(text: string, options?: EncodeOptions): Promise<number[]> {
    return this.tokenizer.encodeAsync(text, options)
  }

  /** Decodes token ids into text. */
  decode(ids: Iterable<number>, options?: { special?: boolean | undefined }): string {
    return this.tokenizer.decode(ids, options)
  }

  /** The model's tokenizer. */
  get tokenizer(): Tokenizer {
    this.#tokenizer ??= new Tokenizer(call(() => this.native.tokenizer()))
    return this.#tokenizer
  }

  /**
   * Renders messages with the model's chat template, with the start of the assistant's answer.
   *
   * The text is for reading only: it no longer shows which words are the template's and which a user's, so
   * parsing control tokens in it is not safe. With `tokenize` the result is the token ids that `generate`
   * continues, in which only the template spells control tokens.
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

  /**
   * Same as `applyChatTemplate` without `tokenize`, on another thread: for conversations of thousands of
   * messages.
   */
  async applyChatTemplateAsync(messages: readonly Message[], options: ChatTemplateOptions = {}): Promise<string> {
    return wait(async () => this.native.renderAsync(request(messages, options)))
  }

  /** Creates an empty sequence that the caller drives, one forward pass at a time. */
  sequence(): Sequence {
    return new Sequence(call(() => this.native.sequence()))
  }

  /**
   * Restores a sequence from the result of `Sequence.save`, in this realm or another one with the same
   * `snapshotKey`.
   */
  async restoreSequence(saved: Uint8Array): Promise<Sequence> {
    return new Sequence(await wait(async () => this.native.restoreSequence(Buffer.from(bytes(saved)))))
  }

  /**
   * Restores a sequence that a realm with another key saved. The format of the bytes is checked in full, but
   * Realm cannot check that their keys and values are those that the model computes. Therefore the tenant's
   * other requests do not use them.
   */
  async restoreForeignSequence(saved: Uint8Array): Promise<Sequence> {
    return new Sequence(await wait(async () => this.native.restoreForeignSequence(Buffer.from(bytes(saved)))))
  }

  /** Loads a LoRA adapter: a GGUF file, or the folder that PEFT saves. */
  async loadAdapter(path: string): Promise<Adapter> {
    return new Adapter(await wait(async () => this.native.loadAdapter(path)))
  }

  /** Returns the same model with an adapter, and a factor on what the adapter adds. */
  adapted(adapter: Adapter, { scale = 1 }: { scale?: number | undefined } = {}): Model {
    return new Model(call(() => this.native.adapted(adapter.native, finite('scale', scale))), this.#granted)
  }

  /** Facts about the model. */
  get info(): ModelInfo {
    return JSON.parse(call(() => this.native.info()))
  }

  /** Reads the model's counters and gauges, over all tenants since it was loaded. */
  metrics(): Metrics {
    return metrics(call(() => this.native.metrics())) as Metrics
  }

  /** Releases the model. Running generations keep it until they end. */
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
