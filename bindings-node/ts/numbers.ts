/** Checks numbers for the native half, which JavaScript and N-API would convert silently. */

import { randomUUID } from 'node:crypto'

import { InvalidArgumentError } from './errors.js'

const MOST = 2 ** 32 - 1

/** The deepest nesting that Realm takes; `JSON.stringify` reports deeper values and cycles. */
const DEPTH = 200

/**
 * @internal Returns options as JSON. `JSON.stringify` converts NaN and infinities to `null`, which would read
 * as "not given", so they are refused with their place; the exception is a `logitBias` of `-Infinity`, which
 * `null` stands for. A bigint becomes its digits.
 */
export function stringify(options: unknown): string {
  const big = check(options, '', DEPTH)
  if (!big) return JSON.stringify(options)
  const mark = randomUUID()
  const text = JSON.stringify(options, (_, value) => (typeof value === 'bigint' ? mark + value + mark : value))
  return text.replaceAll(`"${mark}`, '').replaceAll(`${mark}"`, '')
}

/** Returns whether `value` contains a bigint. */
function check(value: unknown, place: string, depth: number): boolean {
  if (typeof value === 'bigint') return true
  if (typeof value === 'number') {
    if (Number.isFinite(value) || (value === -Infinity && /^logitBias\.\d+$/.test(place))) return false
    const hint = value === Infinity && /^(max|kv|tokens|request)/.test(place) ? '; leave it out for no limit' : ''
    throw new InvalidArgumentError(`${place} is ${value}, not a finite number${hint}`)
  }
  if (typeof value !== 'object' || value === null || depth === 0) return false
  if (typeof (value as { toJSON?: unknown }).toJSON === 'function') return false
  let big = false
  for (const [key, inner] of Object.entries(value)) {
    big = check(inner, place ? `${place}.${key}` : key, depth - 1) || big
  }
  return big
}

/** @internal Returns a count, which N-API would take modulo 2³², with NaN as 0. */
export function count(name: string, value: number): number {
  if (typeof value !== 'number') throw new TypeError(`${name} is a ${typeof value}, not a number`)
  if (Number.isInteger(value) && value >= 0 && value <= MOST) return value
  throw new InvalidArgumentError(`${name} is ${value}; it is a whole number from 0 to ${MOST}`)
}

/** @internal Returns a factor. */
export function finite(name: string, value: number): number {
  if (typeof value !== 'number') throw new TypeError(`${name} is a ${typeof value}, not a number`)
  if (Number.isFinite(value)) return value
  throw new InvalidArgumentError(`${name} is ${value}, not a finite number`)
}
