import type { Metrics, Served } from './types.js'

/** @internal Parses metrics from JSON, which has no infinity for the last bound of a histogram. */
export function metrics(json: string): Metrics | Served {
  return JSON.parse(json, (key, value) => {
    if (key === 'buckets') {
      return value.map(([bound, count]: [number | null, number]) => [bound ?? Infinity, count])
    }
    return value
  })
}
