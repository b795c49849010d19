import { tokens } from './convert.js'
import type { NativeCall, Process } from './native.js'
import { onAbort } from './signals.js'
import type { LogitsProcessor } from './types.js'

/** @internal A list, as an array; a string is none. */
export function many<T>(list: Iterable<T>, what: string): T[] {
  if (typeof list === 'string') throw new TypeError(`${what} is a list of them`)
  return Array.from(list)
}

/** @internal A text, or token ids, as the native half takes it. */
export function plain(text: string | Iterable<number>): string | Uint32Array {
  return typeof text === 'string' ? text : tokens(text)
}

/** @internal What `work` gives, unless the signal aborts first, which ends the call. */
export async function aborted<T>(work: Promise<T>, call: NativeCall, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return work
  return new Promise<T>((resolve, reject) => {
    const forget = onAbort(signal, () => {
      call.abort()
      reject(signal.reason)
    })
    work.then(resolve, reject).finally(forget)
  })
}

/** @internal Processors as one function for the native half; `null` if there are none. */
export function processed(processors: readonly LogitsProcessor[]): Process | null {
  if (processors.length === 0) return null
  if (processors.some((each) => typeof each !== 'function')) throw new TypeError('logitsProcessors are functions')
  return (tokens, logits) => {
    try {
      return processors.reduce((changed, process) => process(tokens, changed) ?? changed, logits)
    } catch (error) {
      return String(error)
    }
  }
}

/** What objects need as long as they are there, which the native half refers to weakly. */
const kept = new WeakMap<object, unknown>()

/** @internal Keeps something as long as `owner` is there. */
export function keeping<T extends object>(owner: T, what: unknown): T {
  kept.set(owner, what)
  return owner
}

/**
 * @internal As `processed`, without holding the processors: the native half is no part of what the garbage collector sees, and
 * they may refer to what uses them.
 */
export function weakly(processors: readonly LogitsProcessor[]): Process | null {
  if (processed(processors) === null) return null
  const weak = new WeakRef(processors)
  return (tokens, logits) => processed(weak.deref() ?? [])?.(tokens, logits) ?? logits
}
