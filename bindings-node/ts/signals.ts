/**
 * The functions to call when a signal aborts. A signal has one listener, however many requests it may end:
 * Node warns about the eleventh.
 */

interface Listener {
  abort: () => void
  ends: Set<() => void>
}

/** The listener of each signal that has one. */
const listeners = new WeakMap<AbortSignal, Listener>()

/**
 * @internal Calls `end` when the signal aborts, or at once if it has. Returns a function that undoes this,
 * after which the signal holds no reference.
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
    // This may be called again after another listener has been added.
    if (!ends.delete(end) || ends.size > 0) return
    signal.removeEventListener('abort', abort)
    listeners.delete(signal)
  }
}

/**
 * @internal Cancels the object when the signal aborts, without keeping it: a signal may live as long as the
 * process, and a request should not.
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
