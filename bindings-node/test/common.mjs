// Shared by the tests: the package with the native half of this repository, questions, and a way to run a program apart.

import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const ROOT = fileURLToPath(new URL('../..', import.meta.url))
export const PACKAGE = new URL('../dist/index.mjs', import.meta.url).href
export const PROGRAMS = join(process.env.CARGO_TARGET_DIR ?? join(ROOT, 'target'), 'programs')
const SCENARIOS = join(ROOT, 'tests/conformance')
// A very small model, and a program.
export const TINY = join(SCENARIOS, 'tiny.gguf')
export const HELLO = join(SCENARIOS, 'programs/hello.wasm')
export const ADAPTER = join(SCENARIOS, 'adapter')
export const CAPITAL = [{ role: 'user', content: 'What is the capital of France? Answer in one sentence.' }]
export const ANSWER = 'The capital of France is Paris.'
// The beginning of a long text.
export const ENDLESS = ['Once upon a time', { ignoreEos: true, maxTokens: 4000, seed: 1 }]
export const GREEDY = { temperature: 0, maxTokens: 16 }

export const realm = await import(PACKAGE)

/** Waits until a condition holds, since the engine reacts at its next step. */
export async function until(what) {
  for (let i = 0; i < 1000; i++) {
    if (what()) return
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  throw new Error('it never came about')
}

/** Returns a controller, its signal, and the number of the signal's listeners. */
export function counted() {
  const cancel = new AbortController()
  const { signal } = cancel
  const count = { cancel, signal, listeners: 0 }
  const add = signal.addEventListener.bind(signal)
  const remove = signal.removeEventListener.bind(signal)
  signal.addEventListener = (...args) => (count.listeners++, add(...args))
  signal.removeEventListener = (...args) => (count.listeners--, remove(...args))
  return count
}

/** Runs a program, which must end by itself with this status; returns its output. */
export function run(program, status = 0, ...flags) {
  const code = `
    import * as realm from ${JSON.stringify(PACKAGE)}
    const CAPITAL = ${JSON.stringify(CAPITAL)}, ENDLESS = ${JSON.stringify(ENDLESS)}, GREEDY = ${JSON.stringify(GREEDY)}
    const runtime = new realm.Realm({ threads: 2, device: 'cpu' })
    const model = await runtime.loadModel('smollm2-135m', { kvTokens: 16384 })
    ${program}`
  const args = [...flags, '--input-type=module', '--eval', code]
  const ran = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 180_000 })
  if (ran.status !== status) throw new Error(`status ${ran.status} ${ran.signal}\n${ran.stdout}${ran.stderr}`)
  return ran.stdout
}
