/** The native half: what `src/` exports. Nothing of it is public. */

import type { Chunk, Completion } from './types.js'

/** @internal */
export interface NativeGeneration {
  /** The next chunk if it is there already, `true` if there will be none, `false` if the bell will ring with `id`. */
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
  encode(text: string, special: boolean, boundaries: boolean): number[]
  decode(tokens: number[], special: boolean): string
  tokenId(text: string): number | null
  info(): string
}

/** @internal */
export interface NativeSequence {
  tokens(): number[]
  length(): number
  contextLength(): number
  append(tokens: number[]): void
  forward(output: string): Promise<{ values: Float32Array; width: number; cached: number }>
  fork(): NativeSequence
  truncate(length: number): void
  save(): Promise<Buffer>
  close(): void
}

/** @internal */
export interface NativeModel {
  stream(request: string, adapter: NativeAdapter | null): Promise<NativeGeneration>
  embed(tokens: number[], pooling: string | null, normalize: boolean): Promise<Float32Array>
  score(tokens: number[], top: number): Promise<string>
  logLikelihood(prompt: number[], continuation: number[]): Promise<Float32Array>
  render(request: string): string
  sequence(): NativeSequence
  restoreSequence(bytes: Buffer): Promise<NativeSequence>
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
  close(): void
}

/** @internal A call that can be aborted. */
export interface NativeCall {
  abort(): void
}

/** @internal */
export interface NativeEvents {
  /** The next event if it is there already, `true` if there will be none, `false` if the bell will ring with `id`. */
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
  NativeRealm: new (options: string) => NativeRealm
  inspect(path: string): Promise<string>
  logTo(log: Log | null, most: string): void
  command(args: string[]): number
}

/** The name of this platform's package: `realm-linux-x64-gnu` and its like. */
function platform(): string {
  const { platform, arch } = process
  if (platform === 'linux') {
    const report = process.report.getReport() as { header?: { glibcVersionRuntime?: string } }
    return `realm-linux-${arch}-${report.header?.glibcVersionRuntime ? 'gnu' : 'musl'}`
  }
  return platform === 'win32' ? `realm-win32-${arch}-msvc` : `realm-${platform}-${arch}`
}

function load(): Native {
  const name = platform()
  try {
    return require(name) as Native
  } catch (cause) {
    const why = `cannot load ${name}, the native half of realm for this platform; is it installed?`
    throw new Error(why, { cause })
  }
}

/** @internal */
export const native = load()
