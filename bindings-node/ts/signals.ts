/** What ends when a signal aborts. A signal has one listener, however many requests it may end: Node warns of the eleventh. */

interface Listener {
  abort: () => void
  ends: Set<() => void>
}

/** The listener of each signal that has one. */
const listeners = new WeakMap<AbortSignal, Listener>()

/**
 * @internal Calls `end` when the signal aborts, or at once if it has. Returns what takes that back, after which the signal holds
 * nothing of it.
 */
export function onAbort(signal: AbortSignal | undefined, end: () => void): () => void {
  if (!signal) return () => {}
  if (signal.aborted) {
    end()
    return () => {}
  }
  const { abort, ends } = listeners.get(signal) ?? listen(signal)
  ends.add(end)
  return () => {
    // Once more may be called after another listener has come.
    if (!ends.delete(end) || ends.size > 0) return
    signal.removeEventListener('abort', abort)
    listeners.delete(signal)
  }
}

/**
 * @internal Cancels what is referred to when the signal aborts, without keeping it: a signal may live as long as the process, which
 * is no reason for a request to.
 */
export function cancelOn(signal: AbortSignal | undefined, weak: WeakRef<{ cancel(): void }>): () => void {
  return onAbort(signal, () => weak.deref()?.cancel())
}

function listen(signal: AbortSignal): Listener {
  const ends = new Set<() => void>()
  const abort = () => {
    const now = [...ends]
    ends.clear()
    for (const end of now) end()
  }
  const listener = { abort, ends }
  signal.addEventListener('abort', abort, { once: true })
  listeners.set(signal, listener)
  return listener
}
