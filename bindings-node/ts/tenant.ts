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

  /** What it is. */
  get info(): ProgramInfo {
    return JSON.parse(call(() => this.native.info()))
  }

  /** Gives it back. Tenants that have it keep it. */
  close(): void {
    this.native.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

/** @internal What a callback throws is the application's affair, and ends nothing of Realm's. */
export function safely<A extends unknown[]>(callback: (...args: A) => unknown): (...args: A) => void {
  const warn = (error: unknown) => process.emitWarning(error instanceof Error ? error : String(error))
  return (...args) => {
    try {
      const done = callback(...args)
      // An async function is a callback, too.
      if (typeof (done as Promise<unknown> | null)?.then === 'function') (done as Promise<unknown>).then(undefined, warn)
    } catch (error) {
      warn(error)
    }
  }
}

/**
 * What the native half gets of the functions that were granted: see `Granted` for why no more than this. A function apart, since
 * closures of `setGrants` would share what its others hold: the tenant and the functions themselves.
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

  /** Its name. */
  get name(): string {
    return this.#info().name
  }

  /** Requests that run now, over all models. */
  get running(): number {
    return this.#info().running
  }

  /** Requests that wait now, over all models. */
  get waiting(): number {
    return this.#info().waiting
  }

  /** What it may use. */
  get limits(): Limits {
    return this.#info().limits
  }

  /** Changes what it may use, from the next step on; what is not named is not limited. */
  setLimits(limits: LimitOptions): void {
    call(() => this.#native.setLimits(json(limits)))
  }

  /** A loaded model as this tenant sees it: what is asked of it counts against the tenant's limits. */
  model(model: Model): Model {
    return new Model(call(() => this.#native.model(model.native)), this.#granted)
  }

  /**
   * Compiles a program that the tenant brought, a WebAssembly component or module in bytes, as work of the tenant: programs of
   * several tenants are compiled in fair turns by their weights, and the compiled code is the tenant's memory.
   */
  async compileProgram(wasm: Uint8Array): Promise<Program> {
    // A copy: it is compiled on another thread.
    return new Program(await wait(async () => this.#native.compileProgram(Buffer.from(bytes(wasm)))))
  }

  /** From now on this program answers the tenant's requests; with `null` Realm generates as for everybody. */
  setProgram(program: Program | null): void {
    call(() => this.#native.setProgram(program?.native ?? null))
  }

  /** What answers the tenant's requests. */
  get program(): Program | null {
    const program = call(() => this.#native.program())
    return program && new Program(program)
  }

  /** Gives the tenant a program that its other programs may run by this name. */
  addProgram(name: string, program: Program): void {
    call(() => this.#native.addProgram(name, program.native))
  }

  /** Takes a program away from those that others may run; says whether there was one. */
  removeProgram(name: string): boolean {
    return call(() => this.#native.removeProgram(name))
  }

  /** What the tenant's programs may do beside asking models, from the next request on. */
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

  /** Bytes of memory that it causes now, over all models: what the limit `memory` bounds. */
  get memory(): MemoryUse {
    return JSON.parse(call(() => this.#native.memory())) as MemoryUse
  }

  /** What was done for it, over all models that are loaded now. */
  metrics(): Served {
    return metrics(call(() => this.#native.metrics())) as Served
  }

  /** Gives it back. Models that it sees keep it. */
  close(): void {
    this.#native.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

shown(Program, ({ info }) => ({ ...info }))
shown(Tenant, ({ name, running, waiting, limits }) => ({ name, running, waiting, limits }))
