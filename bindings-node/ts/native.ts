/** The native half: the exports of `src/`. None of it is public. */

import type { Chunk, Completion } from './types.js'

/** @internal */
export interface NativeGeneration {
  /**
   * Returns the next chunk if there is one, `true` if there will be none, `false` if the bell will ring with
   * `id`.
   */
  poll(bell: NativeBell, id: number): Chunk | boolean
  finish(): Promise<Completion>
  cancel(): void
}

/** @internal */
export interface NativeBell {
  readonly bell: unique symbol
}

/** @internal */
export interface NativeAdapter {
  info(): string
  close(): void
}

/** @internal */
export interface NativeTokenizer {
  encode(text: string, special: boolean, boundaries: boolean): Uint32Array
  encodeAsync(text: string, special: boolean, boundaries: boolean): Promise<Uint32Array>
  decode(tokens: Uint32Array, special: boolean): string
  tokenId(text: string): number | null
  info(): string
}

/** @internal */
export interface NativeSequence {
  tokens(): number[]
  length(): number
  contextLength(): number
  append(tokens: Uint32Array): void
  forward(output: string): Promise<{ values: Float32Array; width: number; cached: number }>
  fork(): NativeSequence
  truncate(length: number): void
  save(): Promise<Buffer>
  close(): void
}

/** @internal Returns logits, or an error message. */
export type Process = (tokens: Uint32Array, logits: Float32Array) => Float32Array | string

/** @internal */
export type RunTool = (tool: string, json: string) => Promise<string>

/** @internal */
export interface NativeChat {
  stream(question: string): NativeGeneration
  state(): string
  setMessages(messages: string): void
  undo(): boolean
  clear(): void
  close(): void
}

/** @internal */
export interface NativeModel {
  stream(request: string, adapter: NativeAdapter | null, process: Process | null): Promise<NativeGeneration>
  embed(text: string | Uint32Array, pooling: string | null, normalize: boolean): Promise<Float32Array>
  score(text: string | Uint32Array, top: number): Promise<string>
  logLikelihood(prompt: Uint32Array, continuation: Uint32Array): Promise<Float32Array>
  render(request: string): string
  renderAsync(request: string): Promise<string>
  renderTokens(request: string): number[]
  sequence(): NativeSequence
  restoreSequence(bytes: Buffer): Promise<NativeSequence>
  restoreForeignSequence(bytes: Buffer): Promise<NativeSequence>
  loadAdapter(path: string): Promise<NativeAdapter>
  adapted(adapter: NativeAdapter, scale: number): NativeModel
  tokenizer(): NativeTokenizer
  info(): string
  metrics(): string
  close(): void
}

/** @internal */
export interface NativeProgram {
  info(): string
  close(): void
}

/** @internal */
export type Log = (from: string, level: string, message: string) => void

/** @internal */
export interface NativeTenant {
  info(): string
  setLimits(limits: string): void
  model(model: NativeModel): NativeModel
  compileProgram(wasm: Buffer): Promise<NativeProgram>
  setProgram(program: NativeProgram | null): void
  program(): NativeProgram | null
  addProgram(name: string, program: NativeProgram): void
  removeProgram(name: string): boolean
  setGrants(
    options: string,
    log: Log | null,
    tools: ((tool: string, json: string) => Promise<string>) | null,
  ): void
  metrics(): string
  memory(): string
  close(): void
}

/** @internal */
export type Callback = (stage: string, what: string, done: number, total?: number | null) => void

/** @internal */
export interface NativeLong<T> {
  done(): Promise<T>
  giveUp(): void
}

/** @internal */
export interface NativeHub {
  cacheFolder(): string
  list(): Promise<string>
  info(model: string): Promise<string>
  pull(model: string, callback: Callback | null): NativeLong<string>
  remove(model: string): Promise<number>
}

/** @internal */
export interface NativeRealm {
  loadModel(model: string, options: string, callback: Callback | null): NativeLong<NativeModel>
  loadTokenizer(model: string): Promise<NativeTokenizer>
  tenant(name: string, limits: string): NativeTenant
  loadProgram(path: string): Promise<NativeProgram>
  compileProgram(wasm: Buffer): Promise<NativeProgram>
  prometheus(): string
  hub(): NativeHub
  readonly isRemote: boolean
  close(): void
}

/** @internal A call that can be aborted. */
export interface NativeCall {
  abort(): void
}

/** @internal */
export interface NativeEvents {
  /**
   * Returns the next event if there is one, `true` if there will be none, `false` if the bell will ring with
   * `id`.
   */
  poll(bell: NativeBell, id: number): string | boolean
  cancel(): void
}

/** @internal */
export interface NativeAnswer {
  status(): number
  headers(): string
  body(): string | null
  events(): NativeEvents | null
}

/** @internal */
export interface NativeService {
  handle(method: string, path: string, body: string, call: NativeCall): Promise<NativeAnswer>
}

interface Native {
  NativeCall: new () => NativeCall
  NativeService: {
    ofModel(model: NativeModel): NativeService
    ofRealm(realm: NativeRealm): NativeService
  }
  NativeBell: new (ring: (id: number) => void) => NativeBell
  NativeRealm: new (options: string, snapshotKey: Buffer | null) => NativeRealm
  connect(url: string, key: string): Promise<NativeRealm>
  NativeChat: new (
    model: NativeModel,
    request: string,
    session: string,
    adapter: NativeAdapter | null,
    process: Process | null,
    run: RunTool | null,
  ) => NativeChat
  generateMany(
    model: NativeModel,
    requests: string[],
    adapter: NativeAdapter | null,
    process: Process | null,
    call: NativeCall,
  ): Promise<Completion[]>
  generateEach(
    model: NativeModel,
    requests: string[],
    adapter: NativeAdapter | null,
    process: Process | null,
    call: NativeCall,
  ): Promise<(Completion | [code: string, message: string])[]>
  embedMany(
    model: NativeModel,
    texts: (string | Uint32Array)[],
    pooling: string | null,
    normalize: boolean,
  ): Promise<Float32Array[]>
  scoreMany(model: NativeModel, texts: (string | Uint32Array)[], top: number): Promise<string>
  inspect(path: string): Promise<string>
  logTo(log: Log | null, most: string): void
  command(args: string[]): number
  version(): string
}

/** Returns the C library of Linux. A report of the process names glibc's version only with glibc. */
function libc(): 'gnu' | 'musl' {
  const { report } = process as unknown as {
    report?: { excludeNetwork?: boolean; getReport(): { header?: { glibcVersionRuntime?: string } } }
  }
  if (!report) return 'gnu'
  // Otherwise a report looks up the names of all peers, which can take seconds.
  const before = report.excludeNetwork
  report.excludeNetwork = true
  try {
    return report.getReport().header?.glibcVersionRuntime ? 'gnu' : 'musl'
  } finally {
    report.excludeNetwork = before ?? false
  }
}

function load(): Native {
  const { platform, arch } = process
  const suffix = platform === 'linux' ? `-${libc()}` : platform === 'win32' ? '-msvc' : ''
  const name = `${platform}-${arch}${suffix}`
  // Every package has a literal name, since bundlers find a program's needs that way; and each is within a
  // `try`, which tells bundlers that most are missing.
  try {
    switch (name) {
      case 'linux-x64-gnu':
        return require('realm-linux-x64-gnu')
      case 'linux-arm64-gnu':
        return require('realm-linux-arm64-gnu')
      case 'linux-x64-musl':
        return require('realm-linux-x64-musl')
      case 'linux-arm64-musl':
        return require('realm-linux-arm64-musl')
      case 'darwin-arm64':
        return require('realm-darwin-arm64')
      case 'darwin-x64':
        return require('realm-darwin-x64')
      case 'win32-x64-msvc':
        return require('realm-win32-x64-msvc')
    }
  } catch (cause) {
    throw new Error(`cannot load realm's native half for this platform, realm-${name}: ${advice(name, cause)}`, { cause })
  }
  throw new Error(`realm runs on Linux, macOS and Windows, on x64 and on arm64 but for Windows; there is no package for ${name}`)
}

/** Returns advice for a machine without the native half. */
function advice(name: string, cause: unknown): string {
  const { code, message } = cause as { code?: string; message?: string }
  if (code !== 'MODULE_NOT_FOUND') return message ?? String(cause)
  if (name.endsWith('-musl')) {
    return (
      "the package is not installed. This system's C library is musl, as Alpine's is; where there is no package for it, use " +
      'an image with glibc, such as node:22-bookworm-slim'
    )
  }
  return (
    'the package is not installed. Install again on this platform and without `--omit=optional`; node_modules that was ' +
    'copied from another platform has the other one. A bundler has to copy `.node` files (the README says how)'
  )
}

/** @internal */
export const native = load()
