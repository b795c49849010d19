import { tokens } from './convert.js'
import type { NativeCall, Process } from './native.js'
import { onAbort } from './signals.js'
import type { LogitsProcessor } from './types.js'

/** @internal Returns a list as an array; a string is not a list. */
export function many<T>(list: Iterable<T>, what: string): T[] {
  if (typeof list === 'string') throw new TypeError(`${what} is a list of them`)
  return Array.from(list)
}

/** @internal Returns a text, or token ids, for the native half. */
export function plain(text: string | Iterable<number>): string | Uint32Array {
  return typeof text === 'string' ? text : tokens(text)
}

/** @internal Returns the result of `work`, unless the signal aborts first, which ends the call. */
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

/** @internal Returns processors as one function for the native half; `null` if there are none. */
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

/** Objects that their owners need, which the native half refers to weakly. */
const kept = new WeakMap<object, unknown>()

/** @internal Keeps an object as long as `owner` exists. */
export function keeping<T extends object>(owner: T, what: unknown): T {
  kept.set(owner, what)
  return owner
}

/**
 * @internal Same as `processed`, without holding the processors: the garbage collector does not see the
 * native half, and the processors may refer to the object that uses them.
 */
export function weakly(processors: readonly LogitsProcessor[]): Process | null {
  if (processed(processors) === null) return null
  const weak = new WeakRef(processors)
  return (tokens, logits) => processed(weak.deref() ?? [])?.(tokens, logits) ?? logits
}
