import { bell, nextId, rung } from './bell.js'
import { call, wait } from './errors.js'
import type { Model } from './model.js'
import { native, type NativeAnswer, type NativeEvents } from './native.js'
import { Realm } from './realm.js'
import { cancelOn, onAbort } from './signals.js'

/**
 * The type of `fetch`. In programs compiled without the types of Node and of the DOM, the type of any similar
 * function.
 */
export type Fetch = typeof globalThis extends { fetch: infer F }
  ? F
  : // eslint-disable-next-line @typescript-eslint/no-explicit-any
    (input: any, init?: any) => Promise<any>

/**
 * Creates a `fetch` that answers the calls of OpenAI's clients in this process, for clients that take one:
 *
 *     new OpenAI({ fetch: createFetch(realm), baseURL: 'http://realm/v1', apiKey: 'realm' })
 *
 * It uses the models of a `Realm`, which are loaded when they are first named, or one `Model`, whatever name
 * a call has. An aborted signal, a cancelled body and a dropped response end the request.
 */
export function createFetch(source: Realm | Model): Fetch {
  const service = call(() =>
    source instanceof Realm ? native.NativeService.ofRealm(source.native) : native.NativeService.ofModel(source.native),
  )
  return async (input, init) => {
    const request = input instanceof Request ? input : undefined
    const url = new URL(request?.url ?? input.toString())
    const signal = init?.signal ?? request?.signal
    // Reads any body that `fetch` takes: a string, bytes, a stream.
    const body = await new Response(init?.body ?? request?.body ?? null).text()
    signal?.throwIfAborted()
    const handle = new native.NativeCall()
    const forget = onAbort(signal, () => handle.abort())
    try {
      const method = init?.method ?? request?.method ?? 'GET'
      const answer = await wait(async () => service.handle(method, url.pathname, body, handle))
      return response(answer, signal)
    } catch (error) {
      if (signal?.aborted) throw signal.reason
      throw error
    } finally {
      forget()
    }
  }
}

function response(answer: NativeAnswer, signal: AbortSignal | undefined): Response {
  const init = { status: answer.status(), headers: JSON.parse(answer.headers()) }
  const events = answer.events()
  return new Response(events ? stream(events, signal) : answer.body(), init)
}

/**
 * Removes a signal's listener once there is nothing left to abort: signals may live longer than responses.
 */
const dropped = new FinalizationRegistry<() => void>((forget) => forget())

/** The events, as they are sent over HTTP. */
function stream(events: NativeEvents, signal: AbortSignal | undefined): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder()
  // If the stream is never read, the native half ends the request when it is collected.
  const forget = cancelOn(signal, new WeakRef(events))
  dropped.register(events, forget, events)
  const ended = () => {
    dropped.unregister(events)
    forget()
  }
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const event = await next(events)
        if (signal?.aborted) {
          ended()
          controller.error(signal.reason)
        } else if (event !== true) {
          controller.enqueue(encoder.encode(`data: ${event}\n\n`))
        } else {
          ended()
          controller.enqueue(encoder.encode('data: [DONE]\n\n'))
          controller.close()
        }
      },
      cancel() {
        ended()
        events.cancel()
      },
    },
    // Reads only on demand: the engine waits for slow readers.
    { highWaterMark: 0 },
  )
}

/** Returns the next event; `true` if there will be none. */
async function next(events: NativeEvents): Promise<string | true> {
  for (;;) {
    const id = nextId()
    const event = call(() => events.poll(bell, id))
    if (event !== false) return event
    await rung(id)
  }
}
