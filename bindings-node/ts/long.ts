import { call, wait } from './errors.js'
import type { Callback, NativeLong } from './native.js'
import { onAbort } from './signals.js'
import type { LongOptions, ProgressEvent } from './types.js'

/** @internal Runs a call that reports its progress and can be cancelled. */
export async function long<T>(
  begin: (callback: Callback | null) => NativeLong<T>,
  { onProgress, signal }: LongOptions,
): Promise<T> {
  signal?.throwIfAborted()
  return new Promise<T>((resolve, reject) => {
    const giveUp = (why: unknown) => {
      running.giveUp()
      reject(why)
    }
    const tell: Callback = (stage, what, done, total) => {
      try {
        const returned: unknown = onProgress?.({ stage, what, done, total: total ?? null } as ProgressEvent)
        // The callback may be an async function.
        if (returned instanceof Promise) returned.catch(giveUp)
      } catch (error) {
        giveUp(error)
      }
    }
    const running = call(() => begin(onProgress ? tell : null))
    const forget = onAbort(signal, () => giveUp(signal?.reason))
    wait(() => running.done()).then(resolve, reject).finally(forget)
  })
}
