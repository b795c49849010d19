import { bell, nextId, rung } from './bell.js'
import { call, wait } from './errors.js'
import type { Model } from './model.js'
import { native, type NativeAnswer, type NativeEvents } from './native.js'
import { Realm } from './realm.js'
import { cancelOn, onAbort } from './signals.js'

/** The type of `fetch`; in programs that are compiled without the types of Node and of the DOM, that of any function like it. */
export type Fetch = typeof globalThis extends { fetch: infer F }
  ? F
  : // eslint-disable-next-line @typescript-eslint/no-explicit-any
    (input: any, init?: any) => Promise<any>

/**
 * A `fetch` that answers the calls of OpenAI's clients in this process, for clients that take one:
 *
 *     new OpenAI({ fetch: createFetch(realm), baseURL: 'http://realm/v1', apiKey: 'realm' })
 *
 * It asks the models of a `Realm`, which are loaded when they are first named, or one `Model`, whatever the name. An aborted
 * signal, a cancelled body and a response that is dropped end the request.
 */
export function createFetch(source: Realm | Model): Fetch {
  const service = call(() =>
    source instanceof Realm ? native.NativeService.ofRealm(source.native) : native.NativeService.ofModel(source.native),
  )
  return async (input, init) => {
    const request = input instanceof Request ? input : undefined
    const url = new URL(request?.url ?? input.toString())
    const signal = init?.signal ?? request?.signal
    // Reads what `fetch` takes: a string, bytes, a stream.
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

/** Forgets a signal once nothing can be aborted any more: signals may live longer than responses. */
const dropped = new FinalizationRegistry<() => void>((forget) => forget())

/** Events as they are sent over HTTP. */
function stream(events: NativeEvents, signal: AbortSignal | undefined): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder()
  // The native half of one that nobody reads ends the request when it is collected.
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
    // Read when somebody wants it: the engine waits for slow readers.
    { highWaterMark: 0 },
  )
}

/** The next event; `true` if there will be none. */
async function next(events: NativeEvents): Promise<string | true> {
  for (;;) {
    const id = nextId()
    const event = call(() => events.poll(bell, id))
    if (event !== false) return event
    await rung(id)
  }
}
