/** Keeps the functions alive that a tenant granted its programs. */

import type { GrantOptions } from './types.js'

/** @internal The functions of one `setGrants`. */
export type Functions = Pick<GrantOptions, 'log' | 'tools'>

/**
 * @internal The functions that a tenant's programs may call. The native half refers to them weakly: if it
 * held a tool that holds the object that holds the tenant, no collector would see the cycle. So they are held
 * by every object that may run a program: the tenant, the models that it sees, and each running request,
 * which holds the functions granted when it started.
 */
export class Granted {
  #current: Functions | undefined
  /** For each request that is being started, the functions that it may be started with. */
  readonly #starting = new Set<Functions[]>()

  set(functions: Functions): void {
    this.#current = functions
    for (const kept of this.#starting) kept.push(functions)
  }

  /** Starts a request. `kept` then holds the functions that it may call. */
  async during<T>(kept: Functions[], start: () => Promise<T>): Promise<T> {
    if (this.#current) kept.push(this.#current)
    this.#starting.add(kept)
    try {
      return await start()
    } finally {
      this.#starting.delete(kept)
    }
  }
}
