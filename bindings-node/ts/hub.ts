import { long } from './long.js'
import { call, wait } from './errors.js'
import type { NativeHub } from './native.js'
import type { LongOptions, ModelStatus } from './types.js'

/** The models of a cache folder. */
export class Hub {
  readonly #native: NativeHub

  /** @internal */
  constructor(native: NativeHub) {
    this.#native = native
  }

  /** The path of the cache folder. */
  get cacheFolder(): string {
    return call(() => this.#native.cacheFolder())
  }

  /** Lists the catalog's models, and every file from Hugging Face on disk. */
  async list(): Promise<ModelStatus[]> {
    return JSON.parse(await wait(() => this.#native.list()))
  }

  /** Returns the state of one model on disk. */
  async info(model: string): Promise<ModelStatus> {
    return JSON.parse(await wait(async () => this.#native.info(model)))
  }

  /** Fetches a model, unless it is on disk, and returns the path of its file. */
  async pull(model: string, options: LongOptions = {}): Promise<string> {
    return long((callback) => this.#native.pull(model, callback), options)
  }

  /** Removes a model's file; returns the number of freed bytes. */
  async remove(model: string): Promise<number> {
    return wait(async () => this.#native.remove(model))
  }
}
