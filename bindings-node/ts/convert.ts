/** Converts JavaScript values for the native half. */

import { InvalidArgumentError } from './errors.js'
import { stringify } from './numbers.js'

/**
 * @internal Returns JSON, as `stringify` does, with U+FFFD for half of a surrogate pair, which UTF-8 cannot
 * encode.
 */
export function json(value: unknown): string {
  const text = stringify(value)
  // Only a lone surrogate is escaped like this; a backslash in the text is escaped by another, and skipped
  // with it.
  return text.includes('\\ud')
    ? text.replace(/\\(?:u(d[89a-f][0-9a-f]{2})|.)/g, (escape, lone) => (lone ? '\\ufffd' : escape))
    : text
}

/**
 * @internal Returns whether a value is a typed array of numbers, of any V8 context: `vm` and jest have their
 * own.
 */
export function isTyped(value: unknown): value is Uint32Array {
  return ArrayBuffer.isView(value) && !(Object.prototype.toString.call(value) === '[object DataView]')
}

/** @internal Returns token ids for the native half: a copy, since it reads them later, on another thread. */
export function tokens(ids: Iterable<number>): Uint32Array {
  if (Object.prototype.toString.call(ids) === '[object Uint32Array]') return Uint32Array.from(ids)
  const list = Array.from(ids as Iterable<unknown>)
  const bad = list.findIndex((id) => !(typeof id === 'number' && Number.isInteger(id) && id >= 0 && id < 2 ** 32))
  if (bad >= 0) {
    throw new InvalidArgumentError(`token ${bad} is ${describe(list[bad])}; a token id is a whole number from 0`)
  }
  return Uint32Array.from(list as number[])
}

function describe(value: unknown): string {
  return typeof value === 'string' ? JSON.stringify(value) : String(value)
}

/** @internal Returns bytes, of any V8 context, as a `Buffer` over the same memory. */
export function bytes(view: Uint8Array): Buffer {
  return Buffer.from(view.buffer, view.byteOffset, view.byteLength)
}

/**
 * @internal Returns a vector in memory of JavaScript's own: the native half's can be cloned, but never moved
 * to a worker.
 */
export function transferable(vector: Float32Array): Float32Array {
  return vector.slice()
}
