/** Plain data that goes in and comes out. */

import type { Adapter } from './model.js'

/** One message of a conversation, in OpenAI's format: `role`, `content` and what else a template reads. */
export interface Message {
  role: string
  content?: unknown
  [key: string]: unknown
}

/** What a generation goes on from: text as it is, a conversation, or token ids. */
export type Prompt = string | readonly Message[] | readonly number[] | Uint32Array

/** Where drafts come from: tokens that are computed on the chance that they follow. The text is the same with and without. */
export type Speculation = 'auto' | 'off' | 'lookup' | 'draft'

/** A function of the tokens so far and the logits of the next one, a number for each token of the vocabulary. */
export type LogitsProcessor = (tokens: Uint32Array, logits: Float32Array) => Float32Array | void

/** How a prompt is answered. */
export interface RequestOptions {
  /** Tokens to generate at most; as many as the context holds, unless given. */
  maxTokens?: number | undefined
  /** Divides the logits; 0 takes the likeliest token. */
  temperature?: number | undefined
  /** Keeps the `k` likeliest tokens; 0 keeps all. */
  topK?: number | undefined
  /** Keeps the likeliest tokens whose probabilities together reach `p`; 1 keeps all. */
  topP?: number | undefined
  /** Keeps tokens at least `p` times as likely as the likeliest; 0 keeps all. */
  minP?: number | undefined
  /** Keeps the tokens whose surprise is nearest to what is expected, up to this probability together; 1 keeps all. */
  typicalP?: number | undefined
  /** Divides the logits of tokens that occurred lately; 1 for none. */
  repetitionPenalty?: number | undefined
  /** How many of the last tokens `repetitionPenalty` looks at. */
  repetitionWindow?: number | undefined
  /** Taken off a token's logit for each time that it was generated. */
  frequencyPenalty?: number | undefined
  /** Taken off a token's logit once it was generated. */
  presencePenalty?: number | undefined
  /** Added to the logits of these tokens; `-Infinity` bans a token. */
  logitBias?: Readonly<Record<number, number>> | undefined
  /** Tokens that never come out. */
  bannedTokens?: readonly number[] | undefined
  /** Same seed, same text; from 0 to 2⁶⁴ - 1. */
  seed?: number | bigint | undefined
  /** Strings that end the text. */
  stop?: string | readonly string[] | undefined
  /** Log-probabilities of every token, and so many of the likeliest in its place. */
  logprobs?: number | undefined
  /** As OpenAI's `response_format`. */
  responseFormat?: Readonly<Record<string, unknown>> | undefined
  /** The text will be JSON that a schema allows. */
  jsonSchema?: Readonly<Record<string, unknown>> | boolean | undefined
  /** The text will be a JSON object. */
  json?: boolean | undefined
  /** The text will be what a regular expression matches. */
  regex?: string | undefined
  /** The text will be what a grammar allows, in Lark or in llama.cpp's GBNF. */
  grammar?: string | undefined
  /**
   * Tool definitions in OpenAI's format, for templates that know tools. With any, calls that the answer spells leave its text
   * and become `toolCalls`.
   */
  tools?: readonly Readonly<Record<string, unknown>>[] | undefined
  /**
   * Whether the model may, must or must not call tools, as OpenAI's `tool_choice`. If it must, the answer is one call, with
   * arguments that the tool's schema allows.
   */
  toolChoice?: 'auto' | 'none' | 'required' | { type: 'function'; function: { name: string } } | undefined
  /** Further variables for the template. */
  templateVariables?: Readonly<Record<string, unknown>> | undefined
  /** Whether a conversation's prompt ends with the start of the assistant's answer; so it does, unless the last message goes on. */
  addGenerationPrompt?: boolean | undefined
  /** The answer goes on with the words of the last message, which the generated text does not repeat. */
  continueFinalMessage?: boolean | undefined
  /** Control tokens spelled in a text prompt, such as `<|im_start|>`, become those tokens: only for text that no user wrote. */
  special?: boolean | undefined
  /** Whether the model thinks before it answers, for templates that know `enable_thinking`; the template's choice unless given. */
  enableThinking?: boolean | undefined
  /** How much it thinks, for templates that know `reasoning_effort`: mostly `low`, `medium` or `high`. */
  reasoningEffort?: string | undefined
  /** Where the thought goes: into `reasoning`, as it does unless given, or into the text with its marks. */
  reasoningFormat?: 'separate' | 'inline' | undefined
  /** Go on after an end token. */
  ignoreEos?: boolean | undefined
  /** The beginning of the prompt that other tenants send too: the system message, or so many tokens. */
  sharedPrefix?: 'system' | number | undefined
  /** The LoRA adapter that changes the model for this request. */
  adapter?: Adapter | undefined
  /** Factor on what the adapter adds. */
  adapterScale?: number | undefined
  /** What else the tenant's program is told: any JSON. */
  input?: unknown
  /** Where drafts come from; what the model was loaded with, unless given. */
  speculation?: Speculation | undefined
  /**
   * Functions that change the logits before each token is chosen, in this order: in place, or by returning others. `-Infinity`
   * rules a token out. They run on Node's thread; this request waits for them, and no other does. If one throws, the request
   * fails with a `FailedError` that says what.
   */
  logitsProcessors?: readonly LogitsProcessor[] | undefined
  /** Ends the request when it aborts; then the reason is thrown. */
  signal?: AbortSignal | undefined
}

/** How a list of prompts is answered. */
export interface ListOptions extends RequestOptions {
  /** One that fails leaves the others as they are: its error is in its place. Otherwise the first error is thrown. */
  returnErrors?: boolean | undefined
}

/** A tool that a session runs: what the model is told of it, and the function. */
export interface ChatTool {
  name: string
  description?: string | undefined
  /** JSON Schema of the arguments, an object. */
  parameters?: Readonly<Record<string, unknown>> | undefined
  /** Gets the arguments. What it returns or throws the model gets to see. */
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  run: (argument: any) => unknown
}

/** How a session answers: options of its requests, and its own. */
export interface ChatOptions extends Omit<RequestOptions, 'tools' | 'signal'> {
  /** What the model is told beforehand. */
  system?: string | undefined
  /** How the conversation begins, after `system`. */
  messages?: readonly Message[] | undefined
  /** Tools that the model may call. */
  tools?: readonly ChatTool[] | undefined
  /** How often the model may call tools for one question before it has to answer in words; 8, unless given. */
  maxRounds?: number | undefined
  /**
   * What happens when the conversation does not fit in the context any more: the oldest turns are dropped, which is the default
   * and `droppedMessages` counts, or the question fails with a `LimitExceededError`.
   */
  overflow?: 'drop_oldest' | 'refuse' | undefined
}

/** How a runtime is made. */
export interface RealmOptions {
  /** Threads that compute; one for each core that the process may use, unless given. More are lowered to as many. */
  threads?: number | undefined
  /** `auto`, `cpu`, `cuda` or `cuda:1`. */
  device?: string | undefined
  /** Where fetched models are kept. */
  cacheFolder?: string | undefined
  /**
   * What saved sequences are signed with: at least 32 random bytes, to be kept secret. Realms of one key restore each other's. Without
   * one each realm has a key of its own.
   */
  snapshotKey?: Uint8Array | undefined
}

/** What a load or a pull is at. */
export interface ProgressEvent {
  /** `waiting` (for another process that fetches the same), `failed` (a source; the next one is tried) ... */
  stage: 'waiting' | 'fetching' | 'failed' | 'fetched' | 'loading'
  /** The file or the source; empty while loading. */
  what: string
  /** Bytes that are here, or in place. */
  done: number
  /** Bytes there are; `null` where that is not known. */
  total: number | null
}

/** What takes long tells how it goes, and can be given up. */
export interface LongOptions {
  /** Called now and then; if it throws, the load ends with that. */
  onProgress?: ((event: ProgressEvent) => void) | undefined
  /** Gives it up when it aborts. */
  signal?: AbortSignal | undefined
}

/** How a model is loaded. */
export interface LoadOptions extends LongOptions {
  /** Tokens that the KV cache holds over all requests; 0 for one request of the model's own context length. */
  kvTokens?: number | undefined
  /**
   * Tokens that one request may have, prompt and generation together. By default what the model was trained for, or less where the
   * KV cache holds less; with more, texts get worse from there on.
   */
  contextLength?: number | undefined
  /** Bytes of the KV cache. */
  kvMemory?: number | undefined
  /** How the KV cache holds numbers. */
  cacheType?: 'f32' | 'f16' | 'q8_0' | undefined
  /** A chat template in place of the file's own: its source, or the name of a builtin one, such as `chatml` or `llama3`. */
  chatTemplate?: string | undefined
  /** Where drafts come from, for requests that do not say; `auto` unless given. */
  speculation?: Speculation | undefined
  /** A smaller model of the same vocabulary that drafts for this one. */
  draftModel?: string | undefined
  /** Requests that may wait over all tenants, 4096 unless given; one more is refused as `overloaded`. */
  maxQueued?: number | undefined
  /** Layers that GPUs compute, the last ones; the CPU computes the others. By default as many as fit. */
  gpuLayers?: number | undefined
}

/** What a tenant may use; what is missing is not limited. Times are in milliseconds. */
export interface LimitOptions {
  /** Share of the computation when there is more to do than can be done at once. */
  weight?: number | undefined
  /** Requests that run at once; others wait. */
  maxConcurrent?: number | null | undefined
  /** Requests that wait for a place; one more is refused. */
  maxQueued?: number | undefined
  /** Tokens in the KV cache of one model over all running requests. */
  kvTokens?: number | null | undefined
  /** Tokens computed a minute, over all models. */
  tokensPerMinute?: number | null | undefined
  /** From a request's start to its end, waiting included. */
  requestTimeout?: number | null | undefined
  /** Bytes of memory that the tenant causes at once, of every kind: 1 GiB unless given. */
  memory?: number | undefined
  /** Names of the models that the tenant may use. */
  models?: readonly string[] | null | undefined
  /** Names of the adapters that the tenant may use. */
  adapters?: readonly string[] | null | undefined
  /** Bytes that a run of one of its programs may have. */
  programMemory?: number | undefined
  /** Time that a run may compute itself. */
  programCpuTime?: number | undefined
  /** Handles that a run may hold at once. */
  programHandles?: number | undefined
  /** Bytes of text that a run may send. */
  programOutput?: number | undefined
}

/** What a tenant may use. */
export type Limits = { readonly [K in keyof LimitOptions]-?: Exclude<LimitOptions[K], undefined> }

export type LogLevel = 'error' | 'warn' | 'info' | 'debug' | 'trace'

/** What a tenant's programs may do beside asking models: nothing, unless given. */
export interface GrantOptions {
  /** Takes lines of their log. */
  log?: ((tenant: string, level: LogLevel, message: string) => void) | undefined
  /** The time. */
  clock?: boolean | undefined
  /** The system's random numbers, or a seed for the same ones in each run. */
  random?: boolean | number | undefined
  /** A key-value store, in memory or in a folder of its own; entries may take `quota` bytes together: in memory a
   * key, a value and 128 bytes for each, in a folder its file, in blocks of 4 KiB, and its name. */
  store?: { quota: number; folder?: string | undefined } | undefined
  /** Hosts that they may send HTTP requests to. */
  http?: readonly string[] | undefined
  /** Functions that they may call, by name, with JSON. What one throws the program gets as an error. */
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  tools?: Readonly<Record<string, (argument: any) => unknown>> | undefined
}

/** A token that might have come, with its log-probability in nats. */
export interface TokenLogprob {
  id: number
  logprob: number
}

/** A generated token. */
export interface Token {
  id: number
  /** In nats, where the request asked for it. */
  logprob?: number
  /** The likeliest tokens in its place, where the request asked for them. */
  top?: TokenLogprob[]
}

/**
 * Why a text ended: an end token, a stop string or the grammar's end; the length; or `tool_calls`, which is a stop after calls
 * of tools.
 */
export type FinishReason = 'stop' | 'length' | 'tool_calls'

/** A call of a tool that the model asks for. Realm calls nothing. */
export interface ToolCall {
  /** What the result names it by, in a message of the role `tool`. */
  id: string
  /** The tool's name. Nothing but the prompt keeps a model from making one up. */
  name: string
  /** The arguments: a JSON object, as a string. It may not fit the tool's schema. */
  arguments: string
}

/** Tokens used. */
export interface Usage {
  promptTokens: number
  /** Of the prompt's, how many were computed by an earlier request. */
  cachedTokens: number
  generatedTokens: number
  /** Of the generated, how many belong to the model's thought. */
  reasoningTokens: number
  /** Computed on the chance that they would follow. */
  draftTokens: number
  /** Of these, how many did. */
  acceptedTokens: number
}

/** Time used, in milliseconds. */
export interface Timings {
  /** Waiting for a place in the batch. */
  queued: number
  /** From there to the first token. */
  prefill: number
  /** From the first token to the last. */
  decode: number
}

/** A piece of an answer; the last one says how it ended. */
export interface Chunk {
  /** New text; may be empty while a character or a stop string is unfinished. */
  text: string
  /** New text of the model's thought, if there is any; it is not part of `text`. */
  reasoning?: string
  tokens: Token[]
  /** Tools that the model calls, if it does, each in one piece. Their spelling is not part of the text. */
  toolCalls?: ToolCall[]
  /** In the first chunk, what the request asked for and the model could only do in another way. */
  warnings?: string[]
  finishReason?: FinishReason
  usage?: Usage
  timings?: Timings
}

/** A whole answer. */
export interface Completion {
  /** The text, without the stop string that ended it, without tool calls and without thoughts. */
  text: string
  /** What the model thought before its answer; empty if it did not. */
  reasoning: string
  tokens: Token[]
  /** Tools that the model calls. */
  toolCalls: ToolCall[]
  /**
   * What the request asked for and the model could only do in another way: that its chat template knows no tools, for example.
   * Sentences for a log.
   */
  warnings: string[]
  finishReason: FinishReason
  usage: Usage
  timings: Timings
}

/** What a model says of one position of a text. */
export interface Scored {
  /** The log-probability of the token that follows, in nats; `null` after the last one. */
  next: number | null
  top: TokenLogprob[]
}

export type Pooling = 'mean' | 'last' | 'cls'

/** What a model is. */
export interface ModelInfo {
  /** What it was loaded by. */
  reference: string
  name: string | null
  architecture: string
  parameters: number
  fileBytes: number
  vocabulary: number
  layers: number
  /** Tokens that one request may have, prompt and generation together. */
  contextLength: number
  trainedContextLength: number
  /** Numbers in a hidden state, and so in an embedding. */
  hidden: number
  pooling: Pooling
  chatTemplate: boolean
  /** Where it runs. */
  device: string
}

/** What a GGUF file holds. */
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

/** A model that Realm knows by name, or whose file is here. */
export interface ModelStatus {
  name: string
  /** Where its file is, or will be. */
  path: string
  state: 'absent' | 'partial' | 'present'
  /** Bytes that are here. */
  bytes: number
  description: string | null
  license: string | null
}

/** What a program is. */
export interface ProgramInfo {
  /** Which level of the contract it is written at. */
  contract: 'program' | 'policy' | 'module'
  imports: string[]
  exports: string[]
  bytes: number
}

/** How often a value fell into a range. */
export interface Histogram {
  /** For each range its upper bound, which belongs to it, and how many values fell into it. */
  buckets: [bound: number, count: number][]
  sum: number
  count: number
}

/** Bytes of memory that a tenant causes, by what they are for. */
export interface MemoryUse {
  /** Requests that wait or run: prompts, stop strings, biases, grammars, fields. */
  requests: number
  /** Chunks and answers that no reader has taken yet. */
  results: number
  /** Sequences: their tokens and what the engine knows of them; also snapshots while they are taken or restored. */
  sequences: number
  /** Runs of programs: instances, linear memories, tables and stacks. */
  programs: number
  /** What programs hold handles of: logits, tensors, caches, samplers, grammars. */
  handles: number
  /** Strings and lists on their way between a program and the host. */
  transfers: number
  /** Stores of programs in memory, and copies of what those on disk keep. */
  stores: number
  /** Compiled code of programs, the bytes of those that are being compiled, and compiled grammars. */
  code: number
  /** Lines of programs' logs that the application has not taken yet. */
  logs: number
  /** All of these. */
  total: number
}

/** What was done for somebody. */
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
  /** Pages of the KV cache that sequences hold now. */
  kvPages: number
}

/** What a model has done and how it stands. */
export interface Metrics {
  served: Served
  batchRows: Histogram
  batchSequences: Histogram
  stepSeconds: Histogram
  forwardSeconds: number
  kv: { total: number; used: number; remembered: number; free: number; pageBytes: number }
  tenants: { name: string; served: Served }[]
}

/** What a forward gave. */
export interface Forwarded {
  /** Row by row: `[vocabulary]` for `lastLogits`, `[new tokens, vocabulary]` for `logits`, `[new tokens, hidden]` for `hidden`. */
  values: Float32Array
  /** Numbers in a row; 0 if nothing was wanted. */
  width: number
  /** How many of the sequence's tokens were found in the prefix cache for this forward. */
  cached: number
}
