// A program that is compiled with the language's own types alone.

import whole, { Realm, type Completion, type GrantOptions, type LoadOptions, type Message, type Prompt } from 'realm'

export async function answer(prompt: Prompt, options: LoadOptions = {}): Promise<Completion> {
  using runtime = new Realm()
  const model = await runtime.loadModel('x', options)
  for await (const { text } of model.stream(prompt)) void text.length
  const sequence = model.sequence()
  sequence.append(new Uint32Array([1]))
  const saved: Uint8Array = await sequence.save()
  void saved.length
  return model.generate(prompt)
}
export const messages: readonly Message[] = [{ role: 'user', content: 'x' }]
export const grants: GrantOptions = { tools: { add: ({ a, b }: { a: number; b: number }) => a + b } }
export const version: string = whole.version
