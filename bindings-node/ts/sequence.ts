import { tokens } from './convert.js'
import { call, wait } from './errors.js'
import type { NativeSequence } from './native.js'
import { count } from './numbers.js'
import { shown } from './show.js'
import type { Forwarded } from './types.js'

/**
 * A token sequence with its KV cache, to append to, run forward, fork and truncate. One forward pass at a
 * time.
 */
export class Sequence implements Disposable {
  readonly #native: NativeSequence

  /** @internal */
  constructor(native: NativeSequence) {
    this.#native = native
  }

  /** The tokens of the sequence. */
  get tokens(): number[] {
    return call(() => this.#native.tokens())
  }

  /** The number of tokens. */
  get length(): number {
    return call(() => this.#native.length())
  }

  /** The longest length that the sequence may have, in tokens. */
  get contextLength(): number {
    return call(() => this.#native.contextLength())
  }

  /** Adds tokens at the end; the next forward pass computes them. */
  append(ids: Iterable<number>): void {
    call(() => this.#native.append(tokens(ids)))
  }

  /** Computes the tokens appended since the last forward pass, or the last token again if there are none. */
  async forward(output: 'lastLogits' | 'logits' | 'hidden' | 'nothing' = 'lastLogits'): Promise<Forwarded> {
    return wait(() => this.#native.forward(output))
  }

  /** Creates another sequence with the same tokens. Both share the computed part until they differ. */
  fork(): Sequence {
    return new Sequence(call(() => this.#native.fork()))
  }

  /** Drops the tokens from index `length` on. */
  truncate(length: number): void {
    call(() => this.#native.truncate(count('length', length)))
  }

  /** Returns tokens, keys and values as bytes, for `Model.restoreSequence`. */
  async save(): Promise<Uint8Array> {
    return wait(() => this.#native.save())
  }

  /** Releases the sequence, and its part of the KV cache. */
  close(): void {
    this.#native.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

shown(Sequence, (sequence) => ({ length: sequence.length, contextLength: sequence.contextLength }))
