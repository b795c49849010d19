import { bell, nextId, rung } from './bell.js'
import { CancelledError, call, wait } from './errors.js'
import type { NativeGeneration } from './native.js'
import { cancelOn } from './signals.js'
import type { Chunk, Completion } from './types.js'

/** Removes the signal listeners of abandoned generations. */
const abandoned = new FinalizationRegistry<() => void>((forget) => forget())

/**
 * A running request: `for await (const chunk of generation)`. Leaving the loop, `cancel()`, `await using` or an aborted
 * signal ends the request and frees its part of the KV cache at once.
 */
export class Generation implements AsyncIterableIterator<Chunk>, AsyncDisposable {
  readonly #start: Promise<NativeGeneration>
  #native: NativeGeneration | undefined
  #cancelled = false
  readonly #signal: AbortSignal | undefined
  readonly #forget: () => void = () => {}

  /** @internal */
  constructor(start: () => Promise<NativeGeneration>, signal?: AbortSignal) {
    this.#signal = signal
    this.#start = wait(async () => {
      signal?.throwIfAborted()
      const native = await start()
      this.#native = native
      if (this.#cancelled) native.cancel()
      return native
    })
    // The reader gets the error; until then it must not count as an unhandled rejection.
    this.#start.catch(() => {})
    if (!signal) return
    this.#forget = cancelOn(signal, new WeakRef(this))
    abandoned.register(this, this.#forget, this)
  }

  /**
   * Waits until the request is accepted. An error of the request is thrown here, as it would be by the first
   * read.
   */
  async started(): Promise<void> {
    await this.#start
  }

  /** Returns the next chunk. */
  async next(): Promise<IteratorResult<Chunk, undefined>> {
    const native = this.#native ?? (await this.#start)
    // A chunk that has arrived needs no turn of the event loop.
    let id = nextId()
    let chunk = call(() => native.poll(bell, id))
    while (chunk === false) {
      await rung(id)
      id = nextId()
      chunk = call(() => native.poll(bell, id))
    }
    if (chunk !== true) {
      if (chunk.finishReason !== undefined) this.#ended()
      return { done: false, value: chunk }
    }
    this.#ended()
    if (this.#signal?.aborted && this.#cancelled) throw this.#signal.reason
    return { done: true, value: undefined }
  }

  /** Waits for the end and joins the chunks that were not read yet. */
  async finish(): Promise<Completion> {
    try {
      const native = await this.#start
      return await wait(() => native.finish())
    } catch (error) {
      if (error instanceof CancelledError && this.#signal?.aborted) throw this.#signal.reason
      throw error
    } finally {
      this.#ended()
    }
  }

  /** Ends the request; no more chunks follow. */
  cancel(): void {
    this.#cancelled = true
    this.#ended()
    this.#native?.cancel()
  }

  /** Ends the request; `for await` calls this when it is left early. */
  async return(): Promise<IteratorResult<Chunk, undefined>> {
    this.cancel()
    return { done: true, value: undefined }
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cancel()
  }

  /** Returns the chunks as a web stream; cancelling it ends the request. */
  toReadableStream(): ReadableStream<Chunk> {
    return new ReadableStream<Chunk>(
      {
        pull: async (controller) => {
          const { done, value } = await this.next()
          if (done) controller.close()
          else controller.enqueue(value)
        },
        cancel: () => this.cancel(),
      },
      // Reads only on demand: the engine waits for slow readers.
      { highWaterMark: 0 },
    )
  }

  /**
   * Returns the text as a web stream of strings. A `Response` takes bytes: `toTextStream().pipeThrough(new
   * TextEncoderStream())`.
   */
  toTextStream(): ReadableStream<string> {
    const texts = new TransformStream<Chunk, string>({
      transform: (chunk, controller) => {
        if (chunk.text) controller.enqueue(chunk.text)
      },
    })
    return this.toReadableStream().pipeThrough(texts)
  }

  #ended(): void {
    this.#forget()
    abandoned.unregister(this)
  }
}
