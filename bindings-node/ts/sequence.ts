import { tokens } from './convert.js'
import { call, wait } from './errors.js'
import type { NativeSequence } from './native.js'
import { count } from './numbers.js'
import { shown } from './show.js'
import type { Forwarded } from './types.js'

/** A token sequence with its KV cache, to append to, run forward, fork and truncate. One forward at a time. */
export class Sequence implements Disposable {
  readonly #native: NativeSequence

  /** @internal */
  constructor(native: NativeSequence) {
    this.#native = native
  }

  /** Its tokens. */
  get tokens(): number[] {
    return call(() => this.#native.tokens())
  }

  /** Number of tokens. */
  get length(): number {
    return call(() => this.#native.length())
  }

  /** Tokens that it may have at most. */
  get contextLength(): number {
    return call(() => this.#native.contextLength())
  }

  /** Adds tokens at the end; the next forward computes them. */
  append(ids: Iterable<number>): void {
    call(() => this.#native.append(tokens(ids)))
  }

  /** Computes what was appended since the last forward, or the last token again if nothing was. */
  async forward(output: 'lastLogits' | 'logits' | 'hidden' | 'nothing' = 'lastLogits'): Promise<Forwarded> {
    return wait(() => this.#native.forward(output))
  }

  /** Another sequence with the same tokens. Both share what is computed until they differ. */
  fork(): Sequence {
    return new Sequence(call(() => this.#native.fork()))
  }

  /** Drops the tokens from the `length`th on. */
  truncate(length: number): void {
    call(() => this.#native.truncate(count('length', length)))
  }

  /** Tokens, keys and values as bytes, for `Model.restoreSequence`. */
  async save(): Promise<Uint8Array> {
    return wait(() => this.#native.save())
  }

  /** Gives it back, and its part of the KV cache. */
  close(): void {
    this.#native.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

shown(Sequence, (sequence) => ({ length: sequence.length, contextLength: sequence.contextLength }))
