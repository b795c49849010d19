import { MessageChannel } from 'node:worker_threads'

import { native, type NativeBell } from './native.js'

/** The functions that wait for the bell, by id. */
const waiting = new Map<number, () => void>()
let ids = 0

// While a function waits, the process continues: a port holds the event loop, which the bell does not.
const { port1: held } = new MessageChannel()
held.on('message', () => {})
held.unref()

/** @internal The bell of this thread. */
export const bell: NativeBell = new native.NativeBell((id) => {
  const ring = waiting.get(id)
  waiting.delete(id)
  if (waiting.size === 0) held.unref()
  ring?.()
})

/** @internal Returns an id for the bell to ring with. */
export function nextId(): number {
  ids = (ids + 1) >>> 0
  return ids
}

/** @internal Waits for the bell to ring with an id. */
export async function rung(id: number): Promise<void> {
  if (waiting.size === 0) held.ref()
  return new Promise((resolve) => waiting.set(id, resolve))
}
