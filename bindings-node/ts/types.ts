/** Plain data: arguments and results. */

import type { Adapter } from './model.js'

/**
 * One message of a conversation, in OpenAI's format: `role`, `content` and any other field that a template
 * reads.
 */
export interface Message {
  role: string
  content?: unknown
  [key: string]: unknown
}

/** The prompt that a generation continues: text as it is, a conversation, or token ids. */
export type Prompt = string | readonly Message[] | readonly number[] | Uint32Array

/**
 * The source of drafts: tokens that are computed on the chance that they follow. Drafts do not change the
 * text.
 */
export type Speculation = 'auto' | 'off' | 'lookup' | 'draft'

/**
 * A function of the tokens so far and the logits of the next one, a number for each token of the vocabulary.
 */
export type LogitsProcessor = (tokens: Uint32Array, logits: Float32Array) => Float32Array | void

/** The options of an answer. */
export interface RequestOptions {
  /** The most tokens to generate; by default as many as the context holds. */
  maxTokens?: number | undefined
  /** Divides the logits; 0 takes the likeliest token. */
  temperature?: number | undefined
  /** Keeps the `k` likeliest tokens; 0 keeps all. */
  topK?: number | undefined
  /** Keeps the likeliest tokens whose probabilities together reach `p`; 1 keeps all. */
  topP?: number | undefined
  /** Keeps tokens at least `p` times as likely as the likeliest; 0 keeps all. */
  minP?: number | undefined
  /**
   * Keeps the tokens whose surprise is nearest to the expected one, up to this probability together; 1 keeps
   * all.
   */
  typicalP?: number | undefined
  /**
   * Divides positive and multiplies negative logits of tokens among the last `repetitionWindow`; 1 changes
   * nothing.
   */
  repetitionPenalty?: number | undefined
  /** The number of last tokens that `repetitionPenalty` applies to. */
  repetitionWindow?: number | undefined
  /** Subtracted from a token's logit for each time that it was generated. */
  frequencyPenalty?: number | undefined
  /** Subtracted once from the logit of a token that was generated. */
  presencePenalty?: number | undefined
  /** Added to the logits of these tokens; `-Infinity` bans a token. */
  logitBias?: Readonly<Record<number, number>> | undefined
  /** Tokens that are never generated. */
  bannedTokens?: readonly number[] | undefined
  /** The seed, from 0 to 2⁶⁴ - 1. The same seed gives the same text. */
  seed?: number | bigint | undefined
  /** Strings that end the text. */
  stop?: string | readonly string[] | undefined
  /** The number of likeliest tokens to return in each token's place; log-probabilities come with all of them. */
  logprobs?: number | undefined
  /** The form of the text, as OpenAI's `response_format`. */
  responseFormat?: Readonly<Record<string, unknown>> | undefined
  /** Guides the text to be JSON that a schema allows. */
  jsonSchema?: Readonly<Record<string, unknown>> | boolean | undefined
  /** Guides the text to be a JSON object. */
  json?: boolean | undefined
  /** Guides the text to match a regular expression. */
  regex?: string | undefined
  /** Guides the text by a grammar, in Lark or in llama.cpp's GBNF. */
  grammar?: string | undefined
  /**
   * Tool definitions in OpenAI's format. With tools, calls in the answer are removed from its text and become
   * `toolCalls`.
   */
  tools?: readonly Readonly<Record<string, unknown>>[] | undefined
  /**
   * The choice that the model has, as OpenAI's `tool_choice`: it may, must or must not call tools. If it
   * must, the answer is one call, with arguments that the tool's schema allows.
   */
  toolChoice?: 'auto' | 'none' | 'required' | { type: 'function'; function: { name: string } } | undefined
  /** Further variables for the template. */
  templateVariables?: Readonly<Record<string, unknown>> | undefined
  /**
   * True if the prompt of a conversation ends with the start of the assistant's answer. The default is true,
   * unless the answer continues the last message.
   */
  addGenerationPrompt?: boolean | undefined
  /** True if the answer continues the last message. The generated text does not repeat that message. */
  continueFinalMessage?: boolean | undefined
  /**
   * True if control tokens spelled in a text prompt, such as `<|im_start|>`, become those tokens. Set it only
   * for text that no user wrote.
   */
  special?: boolean | undefined
  /**
   * True if the model thinks before it answers, for templates with the variable `enable_thinking`. By default
   * the template chooses.
   */
  enableThinking?: boolean | undefined
  /**
   * The amount of thinking, for templates with the variable `reasoning_effort`: usually `low`, `medium` or
   * `high`.
   */
  reasoningEffort?: string | undefined
  /**
   * The place of the thought: `separate`, the default, returns it as `reasoning`; `inline` leaves it in the
   * text with its marks.
   */
  reasoningFormat?: 'separate' | 'inline' | undefined
  /** True to continue after an end token. */
  ignoreEos?: boolean | undefined
  /** The beginning of the prompt that other tenants send too: the system message, or a number of tokens. */
  sharedPrefix?: 'system' | number | undefined
  /** The LoRA adapter of this request. */
  adapter?: Adapter | undefined
  /** The factor on what the adapter adds. */
  adapterScale?: number | undefined
  /** Further input for the tenant's program, any JSON. */
  input?: unknown
  /** The source of drafts; by default the one that the model was loaded with. */
  speculation?: Speculation | undefined
  /**
   * Functions that change the logits before each token is chosen, called in this order: in place, or by
   * returning others. `-Infinity` excludes a token. They run on Node's thread; only this request waits for
   * them. If one throws, the request fails with a `FailedError` that has its message.
   */
  logitsProcessors?: readonly LogitsProcessor[] | undefined
  /** Ends the request when it aborts; its reason is then thrown. */
  signal?: AbortSignal | undefined
}

/** The options of a list of prompts. */
export interface ListOptions extends RequestOptions {
  /**
   * True if a request that fails does not stop the others: its error is in its place. Otherwise the first
   * error is thrown.
   */
  returnErrors?: boolean | undefined
}

/** A tool that a session runs: its description for the model, and its function. */
export interface ChatTool {
  name: string
  description?: string | undefined
  /** The JSON Schema of the arguments, an object. */
  parameters?: Readonly<Record<string, unknown>> | undefined
  /** Receives the arguments. The model reads its result or its error. */
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  run: (argument: any) => unknown
}

/** The options of a session: those of its requests, and its own. */
export interface ChatOptions extends Omit<RequestOptions, 'tools' | 'signal'> {
  /** Instructions for the model before the conversation. */
  system?: string | undefined
  /** The beginning of the conversation, after `system`. */
  messages?: readonly Message[] | undefined
  /** The tools that the model may call. */
  tools?: readonly ChatTool[] | undefined
  /**
   * The most rounds of tool calls for one question, after which the model must answer in words; 8 by default.
   */
  maxRounds?: number | undefined
  /**
   * The rule for a conversation that no longer fits in the context: `drop_oldest`, the default, drops the
   * oldest turns, and `droppedMessages` counts the dropped messages; with `refuse` the question fails with a
   * `LimitExceededError`.
   */
  overflow?: 'drop_oldest' | 'refuse' | undefined
}

/** The options of a runtime. */
export interface RealmOptions {
  /**
   * The number of threads that compute; by default one for each core that the process may use. A larger
   * number is lowered to that.
   */
  threads?: number | undefined
  /** `auto`, `cpu`, `cuda` or `cuda:1`. */
  device?: string | undefined
  /** The folder of fetched models. */
  cacheFolder?: string | undefined
  /**
   * The key that signs saved sequences: at least 32 random bytes, to be kept secret. Realms with the same key
   * restore each other's sequences. By default each realm has a key of its own.
   */
  snapshotKey?: Uint8Array | undefined
}

/** An event of a load or a pull. */
export interface ProgressEvent {
  /**
   * The stage: `waiting` (for another process that fetches the same file), `failed` (a source; the next one
   * is tried) ...
   */
  stage: 'waiting' | 'fetching' | 'failed' | 'fetched' | 'loading'
  /** The file or the source; empty while loading. */
  what: string
  /** The number of bytes that are fetched or loaded. */
  done: number
  /** The total number of bytes; `null` if unknown. */
  total: number | null
}

/** The options of a call that takes long: it reports its progress, and can be cancelled. */
export interface LongOptions {
  /** Called now and then; an error that it throws ends the load and is thrown there. */
  onProgress?: ((event: ProgressEvent) => void) | undefined
  /** Cancels the call when it aborts. */
  signal?: AbortSignal | undefined
}

/** The options of loading a model. */
export interface LoadOptions extends LongOptions {
  // generated by ci/api: load options
  /**
   * The number of tokens that the KV cache holds, over all requests of all tenants; 0 holds one request of
   * the model's trained context length. By default what fits in `kvMemory`. One request has at most
   * `contextLength` of them.
   */
  kvTokens?: number | undefined
  /**
   * The longest context of one request, prompt and generation together, in tokens. By default the length that
   * the model was trained for, or less if the KV cache holds less. Beyond the trained length texts get worse,
   * and the log warns.
   */
  contextLength?: number | undefined
  /**
   * The size of the KV cache, in bytes. By default on the CPU a quarter of the free memory, at most 8 GiB,
   * where pages take memory when they are first used; on a GPU four fifths of the memory that the weights
   * leave free.
   */
  kvMemory?: number | undefined
  /** The number format of the KV cache. By default 32-bit floats on the CPU and 16-bit floats on a GPU. */
  cacheType?: 'f32' | 'f16' | 'q8_0' | undefined
  /**
   * A chat template in place of the file's own: its source, or the name of a builtin one, such as `chatml` or
   * `llama3`.
   */
  chatTemplate?: string | undefined
  /** The source of drafts for requests that name none. By default any source. */
  speculation?: Speculation | undefined
  /**
   * A smaller model with the same vocabulary that drafts for this one: a path, a catalog name or an `hf:`
   * reference.
   */
  draftModel?: string | undefined
  /**
   * The most requests that may wait, over all tenants; one more is refused as `overloaded`. By default 4096.
   * Half of the places are divided among the tenants by their weights, at least one each; a tenant within its
   * part is never refused.
   */
  maxQueued?: number | undefined
  /**
   * The number of layers on GPUs, counted from the last one; the output layer is on a GPU too, and the CPU
   * computes the layers before. By default as many as fit beside a KV cache. Has no effect without a GPU.
   */
  gpuLayers?: number | undefined
  // end of load options
}

/**
 * The limits of a tenant. A missing field has its default, and `null` means no limit. Times are in
 * milliseconds.
 */
export interface LimitOptions {
  /** The tenant's factor in fair sharing of the computation while others want some too. */
  weight?: number | undefined
  /** The most requests that run at once; others wait. */
  maxConcurrent?: number | null | undefined
  /** The most requests that wait for a place; one more is refused. */
  maxQueued?: number | undefined
  /** The most tokens in the KV cache of one model, over all running requests. */
  kvTokens?: number | null | undefined
  /** The most tokens computed in a minute, over all models. */
  tokensPerMinute?: number | null | undefined
  /** The most time from a request's start to its end, including waiting. */
  requestTimeout?: number | null | undefined
  /** The most bytes of memory that the tenant holds at once, of all kinds: 1 GiB by default. */
  memory?: number | undefined
  /** The names of the models that the tenant may use. */
  models?: readonly string[] | null | undefined
  /** The names of the adapters that the tenant may use. */
  adapters?: readonly string[] | null | undefined
  /** The most bytes of memory of one run of a program. */
  programMemory?: number | undefined
  /** The most computing time of one run of a program. */
  programCpuTime?: number | undefined
  /** The most handles that one run holds at once. */
  programHandles?: number | undefined
  /** The most bytes of text that one run sends. */
  programOutput?: number | undefined
}

/** The limits of a tenant, all of them. */
export type Limits = { readonly [K in keyof LimitOptions]-?: Exclude<LimitOptions[K], undefined> }

export type LogLevel = 'error' | 'warn' | 'info' | 'debug' | 'trace'

/** The things that a tenant's programs may do besides asking models. The default is nothing. */
export interface GrantOptions {
  /** Receives the lines of their log. */
  log?: ((tenant: string, level: LogLevel, message: string) => void) | undefined
  /** The time. */
  clock?: boolean | undefined
  /** The system's random numbers, or a seed for the same ones in each run. */
  random?: boolean | number | undefined
  /**
   * A key-value store, in memory or in a folder of its own. Entries may take `quota` bytes together: in
   * memory each counts its key, its value and 128 bytes; in a folder its file, in blocks of 4 KiB, and its
   * name.
   */
  store?: { quota: number; folder?: string | undefined } | undefined
  /** The hosts that they may send HTTP requests to. */
  http?: readonly string[] | undefined
  /** Functions that they may call, by name, with JSON. The program sees a thrown error as an error. */
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  tools?: Readonly<Record<string, (argument: any) => unknown>> | undefined
}

/** A token and its log-probability in nats. */
export interface TokenLogprob {
  id: number
  logprob: number
}

/** A generated token. */
export interface Token {
  id: number
  /** Its log-probability in nats, if the request asked for it. */
  logprob?: number
  /** The likeliest tokens in its place, if the request asked for them. */
  top?: TokenLogprob[]
}

/**
 * The reason why a text ended: `stop` for an end token, a stop string or the grammar's end; `length`; or
 * `tool_calls`, which is a stop after tool calls.
 */
export type FinishReason = 'stop' | 'length' | 'tool_calls'

/** A tool call that the model asks for. Realm does not run it. */
export interface ToolCall {
  /** The id that the result, a message of the role `tool`, refers to. */
  id: string
  /** The tool's name. The model may make up a name that no tool has. */
  name: string
  /** The arguments: a JSON object, as a string. It may not fit the tool's schema. */
  arguments: string
}

/** The numbers of tokens used. */
export interface Usage {
  promptTokens: number
  /** Those of the prompt's tokens that an earlier request computed. */
  cachedTokens: number
  generatedTokens: number
  /** Those of the generated tokens that belong to the model's thought. */
  reasoningTokens: number
  /** Tokens computed on the chance that they follow. */
  draftTokens: number
  /** Those of the draft tokens that did follow. */
  acceptedTokens: number
}

/** The time used, in milliseconds. */
export interface Timings {
  /** The time of waiting for a place in the batch. */
  queued: number
  /** The time from there to the first token. */
  prefill: number
  /** The time from the first token to the last. */
  decode: number
}

/** A part of an answer; the last one says how it ended. */
export interface Chunk {
  /** New text; may be empty while a character or a stop string is unfinished. */
  text: string
  /** New text of the model's thought, if there is any; it is not part of `text`. */
  reasoning?: string
  tokens: Token[]
  /** New tool calls, if there are any, each complete. Their spelling is not part of the text. */
  toolCalls?: ToolCall[]
  /** In the first chunk, options of the request that the model could serve only in another way. */
  warnings?: string[]
  finishReason?: FinishReason
  usage?: Usage
  timings?: Timings
}

/** A whole answer. */
export interface Completion {
  /** The text, without the stop string that ended it, without tool calls and without thoughts. */
  text: string
  /** The model's thought before its answer; empty if it had none. */
  reasoning: string
  tokens: Token[]
  /** The tool calls of the answer. */
  toolCalls: ToolCall[]
  /**
   * Options of the request that the model could serve only in another way, for example tools that its chat
   * template does not know. Sentences for a log.
   */
  warnings: string[]
  finishReason: FinishReason
  usage: Usage
  timings: Timings
}

/** The score of one position of a text. */
export interface Scored {
  /** The log-probability of the token that follows, in nats; `null` after the last one. */
  next: number | null
  top: TokenLogprob[]
}

export type Pooling = 'mean' | 'last' | 'cls'

/** Facts about a model. */
export interface ModelInfo {
  /** The reference that it was loaded by. */
  reference: string
  name: string | null
  architecture: string
  parameters: number
  fileBytes: number
  vocabulary: number
  layers: number
  /** The longest context of one request, prompt and generation together, in tokens. */
  contextLength: number
  trainedContextLength: number
  /** The length of a hidden state, and so of an embedding. */
  hidden: number
  pooling: Pooling
  chatTemplate: boolean
  /** The device that it runs on. */
  device: string
}

/** Facts from the header of a GGUF file. */
export interface FileInfo {
  name: string | null
  architecture: string
  parameters: number
  layers: number
  vocabulary: number
  trainedContextLength: number
  chatTemplate: boolean
  /** Largest first. */
  tensorTypes: { name: string; count: number; bytes: number }[]
}

/** A model of the catalog, or one whose file is on disk. */
export interface ModelStatus {
  name: string
  /** The path of its file, which may not exist yet. */
  path: string
  state: 'absent' | 'partial' | 'present'
  /** The number of bytes on disk. */
  bytes: number
  description: string | null
  license: string | null
}

/** Facts about a program. */
export interface ProgramInfo {
  /** The level of the contract that it is written for. */
  contract: 'program' | 'policy' | 'module'
  imports: string[]
  exports: string[]
  bytes: number
}

/** The numbers of values in ranges. */
export interface Histogram {
  /** For each range its upper bound, which is part of the range, and the number of values in it. */
  buckets: [bound: number, count: number][]
  sum: number
  count: number
}

/** The bytes of memory that a tenant holds, by kind. */
export interface MemoryUse {
  /** Requests that wait or run: prompts, stop strings, biases, grammars, fields. */
  requests: number
  /** Chunks and answers that no reader has taken yet. */
  results: number
  /**
   * Sequences: their tokens and the engine's data about them; also snapshots while they are taken or
   * restored.
   */
  sequences: number
  /** Runs of programs: instances, linear memories, tables and stacks. */
  programs: number
  /** Values behind programs' handles: logits, tensors, caches, samplers, grammars. */
  handles: number
  /** Strings and lists on their way between a program and the host. */
  transfers: number
  /** Stores of programs in memory, and copies of the entries of those on disk. */
  stores: number
  /** Compiled code of programs, the bytes of those that are being compiled, and compiled grammars. */
  code: number
  /** Lines of programs' logs that the application has not taken yet. */
  logs: number
  /** The sum of all kinds. */
  total: number
}

/** The counters and gauges of one tenant, or of all. */
export interface Served {
  tokens: {
    prompt: number
    cached: number
    generated: number
    recomputed: number
    drafted: number
    accepted: number
  }
  requests: { finished: number; cancelled: number; timedOut: number; refused: number; failed: number }
  preemptions: number
  queueSeconds: Histogram
  firstTokenSeconds: Histogram
  interTokenSeconds: Histogram
  running: number
  waiting: number
  /** The number of pages of the KV cache that sequences hold now. */
  kvPages: number
}

/** A reading of a model's counters and gauges. */
export interface Metrics {
  served: Served
  batchRows: Histogram
  batchSequences: Histogram
  stepSeconds: Histogram
  forwardSeconds: number
  kv: { total: number; used: number; remembered: number; free: number; pageBytes: number }
  tenants: { name: string; served: Served }[]
}

/** The results of a forward pass. */
export interface Forwarded {
  /**
   * The numbers, row by row: `[vocabulary]` for `lastLogits`, `[new tokens, vocabulary]` for `logits`, `[new
   * tokens, hidden]` for `hidden`.
   */
  values: Float32Array
  /** The number of values in a row; 0 for `nothing`. */
  width: number
  /** The number of the sequence's tokens that were found in the prefix cache for this forward pass. */
  cached: number
}
