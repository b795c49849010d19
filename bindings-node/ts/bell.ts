import { MessageChannel } from 'node:worker_threads'

import { native, type NativeBell } from './native.js'

/** Who waits for the bell, by id. */
const waiting = new Map<number, () => void>()
let ids = 0

// While somebody waits, the process goes on: a port holds the event loop, the bell does not.
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

/** @internal An id for the bell to ring with. */
export function nextId(): number {
  ids = (ids + 1) >>> 0
  return ids
}

/** @internal Waits for the bell to ring with an id. */
export async function rung(id: number): Promise<void> {
  if (waiting.size === 0) held.ref()
  return new Promise((resolve) => waiting.set(id, resolve))
}
