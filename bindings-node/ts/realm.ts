import { bytes, json } from './convert.js'
import { call, wait } from './errors.js'
import { Hub } from './hub.js'
import { long } from './long.js'
import { Model, Tokenizer } from './model.js'
import { native, type NativeRealm } from './native.js'
import { Program, safely, Tenant } from './tenant.js'
import type { FileInfo, LimitOptions, LoadOptions, LogLevel, RealmOptions } from './types.js'

/** The runtime: owns the devices and loads models. One for each process is normal. */
export class Realm implements Disposable {
  /** @internal */
  readonly native: NativeRealm

  constructor({ snapshotKey, ...options }: RealmOptions = {}) {
    this.native = call(() => {
      const key = snapshotKey === undefined ? null : Buffer.from(bytes(snapshotKey))
      return new native.NativeRealm(json(options), key)
    })
  }

  /**
   * Connects to a server, `realm serve`, whose models are then used as those of this process are. `url` is
   * `http://…` or `https://…`, and `key` one of the server's. `loadModel` finds a model by the name that the
   * server has for it. What stays at the server, such as options of loading, limits of tenants and programs,
   * is an `UnsupportedError`. `sequence`, `fork` and `truncate` wait for the server's answer.
   */
  static async connect(url: string, key = ''): Promise<Realm> {
    const connected = await wait(async () => native.connect(url, key))
    return Object.assign(Object.create(Realm.prototype), { native: connected })
  }

  /** True if a server computes. */
  get isRemote(): boolean {
    return call(() => this.native.isRemote)
  }

  /**
   * Loads a model: a path to a GGUF file, a name of the catalog such as `smollm2-135m`, or
   * `hf:owner/repo/file.gguf`. A model that is not on disk yet is fetched first.
   */
  async loadModel(model: string, { onProgress, signal, ...options }: LoadOptions = {}): Promise<Model> {
    const given = json(options)
    const begin = (callback: Parameters<NativeRealm['loadModel']>[2]) =>
      this.native.loadModel(model, given, callback)
    return new Model(await long(begin, { onProgress, signal }))
  }

  /** Loads only a model's tokenizer. */
  async loadTokenizer(model: string): Promise<Tokenizer> {
    return new Tokenizer(await wait(async () => this.native.loadTokenizer(model)))
  }

  /** Creates a tenant with limits of its own. Two tenants of the same name share nothing. */
  tenant(name: string, limits: LimitOptions = {}): Tenant {
    return new Tenant(call(() => this.native.tenant(name, json(limits))))
  }

  /** Compiles a program, a WebAssembly component or module, from a file or from bytes. */
  async loadProgram(program: string | Uint8Array): Promise<Program> {
    const compile = async () =>
      typeof program === 'string'
        ? this.native.loadProgram(program)
        : // A copy: it is compiled on another thread.
          this.native.compileProgram(Buffer.from(bytes(program)))
    return new Program(await wait(compile))
  }

  /** Returns the metrics of all loaded models, in the text format of Prometheus and OpenMetrics. */
  prometheus(): string {
    return call(() => this.native.prometheus())
  }

  /** The hub, which fetches models and keeps them on disk. */
  get hub(): Hub {
    return new Hub(call(() => this.native.hub()))
  }

  /** Releases the runtime. Objects that it created stay until they are closed themselves. */
  close(): void {
    this.native.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

/** Reads a GGUF file's header, without loading the model. */
export async function inspect(path: string): Promise<FileInfo> {
  return JSON.parse(await wait(async () => native.inspect(path)))
}

/**
 * Sends Realm's own log to a function that takes a line's source, a level and a message; `null` ends it.
 * `most` is the most verbose level that is sent.
 */
export function logTo(
  log: ((target: string, level: LogLevel, message: string) => void) | null,
  most: LogLevel = 'info',
): void {
  const sink = log && safely((from: string, level: string, message: string) => log(from, level as LogLevel, message))
  call(() => native.logTo(sink, most))
}

/** The version of this package. */
export const version: string = native.version()
