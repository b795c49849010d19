import { json } from './convert.js'
import { call } from './errors.js'
import { Generation } from './generation.js'
import { keeping, weakly } from './lists.js'
import { request, type Model } from './model.js'
import { native, type NativeChat } from './native.js'
import type { ChatOptions, ChatTool, Completion, Message } from './types.js'

/**
 * A conversation with a model: it keeps the messages, runs the tools that the model calls, and makes room
 * when the context is full.
 *
 *     const session = new ChatSession(model, { system: 'You are brief.', tools: [weather], temperature: 0 })
 *     const { text } = await session.ask('What is the weather in Paris?')
 *     for await (const chunk of session.stream('And tomorrow?')) process.stdout.write(chunk.text)
 *
 * A question that fails or is cancelled leaves the conversation as it was before the question. The session
 * answers one question at a time.
 */
export class ChatSession implements Disposable {
  readonly #native: NativeChat
  /** Held here, where the garbage collector sees them: a tool may belong to the session's owner. */
  readonly #tools: ReadonlyMap<string, ChatTool['run']>
  readonly #processors: readonly unknown[]

  constructor(
    model: Model,
    { system, messages = [], tools = [], maxRounds, overflow, ...options }: ChatOptions = {},
  ) {
    const definitions = tools.map(({ run, ...definition }) => {
      if (typeof run !== 'function') throw new TypeError(`the tool '${definition.name}' has no function 'run'`)
      return { type: 'function', function: definition }
    })
    this.#tools = new Map(tools.map(({ name, run }) => [name, run]))
    const run = ChatSession.#weakly(new WeakRef(this))
    const processors = options.logitsProcessors ?? []
    this.#processors = processors
    const begin: Message[] = [...(system === undefined ? [] : [{ role: 'system', content: system }]), ...messages]
    const session = json({ tools: definitions, maxRounds, overflow })
    this.#native = call(
      () =>
        new native.NativeChat(
          model.native,
          request(begin, options),
          session,
          options.adapter?.native ?? null,
          weakly(processors),
          definitions.length > 0 ? run : null,
        ),
    )
  }

  /**
   * Asks a question and waits for the answer. Its text is that of all rounds of tools, and its usage their
   * sum.
   */
  async ask(question: string | Message, options: { signal?: AbortSignal | undefined } = {}): Promise<Completion> {
    return this.stream(question, options).finish()
  }

  /** Asks a question and returns the running answer at once. Cancelling it removes the question again. */
  stream(question: string | Message, { signal }: { signal?: AbortSignal | undefined } = {}): Generation {
    const message = typeof question === 'string' ? { role: 'user', content: question } : question
    // The question is asked now, so that another question sees that the session is busy.
    const started = call(() => this.#native.stream(json(message)))
    return keeping(new Generation(async () => started, signal), [this, this.#processors])
  }

  /**
   * The messages so far, in OpenAI's format. Assigning messages, for example those that `JSON.stringify`
   * saved, continues from them.
   */
  get messages(): Message[] {
    return this.#state().messages
  }

  set messages(messages: readonly Message[]) {
    call(() => this.#native.setMessages(json(messages)))
  }

  /**
   * The number of messages dropped to make room in the context, since the beginning or the last `clear()`.
   */
  get droppedMessages(): number {
    return this.#state().droppedMessages
  }

  /** True while a question is being answered. */
  get busy(): boolean {
    return this.#state().busy
  }

  /** Removes the last question and everything that answered it; `false` if there is none. */
  undo(): boolean {
    return call(() => this.#native.undo())
  }

  /** Removes all messages except the system messages at the beginning. */
  clear(): void {
    call(() => this.#native.clear())
  }

  /** Releases the session. */
  close(): void {
    this.#native.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #state(): { messages: Message[]; droppedMessages: number; busy: boolean } {
    return JSON.parse(call(() => this.#native.state()))
  }

  /**
   * Returns the function that runs tools for the native half. It is static, since a closure of the
   * constructor would hold the model and the options.
   */
  static #weakly(weak: WeakRef<ChatSession>): (name: string, argument: string) => Promise<string> {
    return async (name, argument) => {
      const session = weak.deref()
      return session ? session.#run(name, argument) : json({ error: 'the session is gone' })
    }
  }

  async #run(name: string, argument: string): Promise<string> {
    try {
      return json({ answer: (await this.#tools.get(name)?.(JSON.parse(argument))) ?? null })
    } catch (error) {
      return json({ error: String(error) })
    }
  }
}
