import { bytes, json } from './convert.js'
import { call, wait } from './errors.js'
import { Granted, type Functions } from './grants.js'
import { metrics } from './metrics.js'
import { Model } from './model.js'
import type { NativeProgram, NativeTenant } from './native.js'
import { hidden, shown } from './show.js'
import type { GrantOptions, LimitOptions, Limits, LogLevel, MemoryUse, ProgramInfo, Served } from './types.js'

/** A compiled WebAssembly program, which answers the requests of any number of tenants. */
export class Program implements Disposable {
  /** @internal */
  declare readonly native: NativeProgram

  /** @internal */
  constructor(native: NativeProgram) {
    hidden(this, 'native', native)
  }

  /** Facts about the program. */
  get info(): ProgramInfo {
    return JSON.parse(call(() => this.native.info()))
  }

  /** Releases the program. Tenants that use it keep it. */
  close(): void {
    this.native.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

/** @internal Returns a callback whose errors are the application's own, and end nothing of Realm's. */
export function safely<A extends unknown[]>(callback: (...args: A) => unknown): (...args: A) => void {
  const warn = (error: unknown) => process.emitWarning(error instanceof Error ? error : String(error))
  return (...args) => {
    try {
      const done = callback(...args)
      // The callback may be an async function.
      if (typeof (done as Promise<unknown> | null)?.then === 'function') (done as Promise<unknown>).then(undefined, warn)
    } catch (error) {
      warn(error)
    }
  }
}

/**
 * Returns the functions for the native half, which refers to the granted functions weakly: `Granted` says
 * why. It is a function of its own, since closures of `setGrants` would share the references of its other
 * closures: the tenant and the functions themselves.
 */
function weakly(functions: WeakRef<Functions>) {
  const run = async (name: string, input: string) => {
    try {
      const tool = functions.deref()?.tools?.[name]
      if (!tool) throw new Error(`the tool '${name}' is gone`)
      return json({ answer: (await tool(JSON.parse(input))) ?? null })
    } catch (error) {
      return json({ error: String(error) })
    }
  }
  const sink = safely((from: string, level: string, message: string) =>
    functions.deref()?.log?.(from, level as LogLevel, message),
  )
  return { sink, run }
}

/** An identity with limits that hold over all models it uses. */
export class Tenant implements Disposable {
  readonly #native: NativeTenant
  readonly #granted = new Granted()

  /** @internal */
  constructor(native: NativeTenant) {
    this.#native = native
  }

  #info(): { name: string; running: number; waiting: number; limits: Limits } {
    return JSON.parse(call(() => this.#native.info()))
  }

  /** The tenant's name. */
  get name(): string {
    return this.#info().name
  }

  /** The number of requests that run now, over all models. */
  get running(): number {
    return this.#info().running
  }

  /** The number of requests that wait now, over all models. */
  get waiting(): number {
    return this.#info().waiting
  }

  /** The tenant's limits. */
  get limits(): Limits {
    return this.#info().limits
  }

  /** Changes the limits, from the next step on. Missing fields have their defaults. */
  setLimits(limits: LimitOptions): void {
    call(() => this.#native.setLimits(json(limits)))
  }

  /** Returns a loaded model as this tenant sees it: requests to it count against the tenant's limits. */
  model(model: Model): Model {
    return new Model(call(() => this.#native.model(model.native)), this.#granted)
  }

  /**
   * Compiles a program that the tenant brought, a WebAssembly component or module in bytes, on the tenant's
   * account: programs of several tenants are compiled in fair turns by their weights, and the compiled code
   * is the tenant's memory.
   */
  async compileProgram(wasm: Uint8Array): Promise<Program> {
    // A copy: it is compiled on another thread.
    return new Program(await wait(async () => this.#native.compileProgram(Buffer.from(bytes(wasm)))))
  }

  /**
   * Sets the program that answers the tenant's requests from now on; `null` returns to Realm's own
   * generation.
   */
  setProgram(program: Program | null): void {
    call(() => this.#native.setProgram(program?.native ?? null))
  }

  /** The program that answers the tenant's requests. */
  get program(): Program | null {
    const program = call(() => this.#native.program())
    return program && new Program(program)
  }

  /** Adds a program, by a name, that the tenant's other programs may run. */
  addProgram(name: string, program: Program): void {
    call(() => this.#native.addProgram(name, program.native))
  }

  /** Removes a program that others may run; returns whether there was one of that name. */
  removeProgram(name: string): boolean {
    return call(() => this.#native.removeProgram(name))
  }

  /** Sets what the tenant's programs may do besides asking models, from the next request on. */
  setGrants({ log, tools = {}, ...options }: GrantOptions): void {
    const names = Object.keys(tools)
    for (const name of names) {
      if (typeof tools[name] !== 'function') throw new TypeError(`the tool '${name}' is not a function`)
    }
    const functions = { log, tools }
    const { sink, run } = weakly(new WeakRef(functions))
    const granted = json({ ...options, tools: names })
    call(() => this.#native.setGrants(granted, log ? sink : null, names.length ? run : null))
    this.#granted.set(functions)
  }

  /** The memory that the tenant holds now, in bytes, over all models; the limit `memory` bounds it. */
  get memory(): MemoryUse {
    return JSON.parse(call(() => this.#native.memory())) as MemoryUse
  }

  /** Reads the tenant's counters, over all models that are loaded now. */
  metrics(): Served {
    return metrics(call(() => this.#native.metrics())) as Served
  }

  /** Releases the tenant. Models that it sees keep it. */
  close(): void {
    this.#native.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

shown(Program, ({ info }) => ({ ...info }))
shown(Tenant, ({ name, running, waiting, limits }) => ({ name, running, waiting, limits }))
