// A program that is compiled with the types of the DOM, of Node, and of both.

import realm from 'realm'
import { Generation, Realm, RealmError, type Chunk } from 'realm'

async function main() {
  const model = await new Realm().loadModel('x')
  const controller = new AbortController()
  for await (const chunk of model.stream([{ role: 'user', content: 'x' }], { signal: controller.signal })) {
    const text: string = chunk.text
    void text
  }
  const generation: Generation = model.stream('x', { signal: AbortSignal.timeout(100) })
  const chunk: Chunk | undefined = (await generation.next()).value
  void chunk
  const texts: ReadableStream<string> = generation.toTextStream()
  const chunks: ReadableStream<Chunk> = generation.toReadableStream()
  const reader = chunks.getReader()
  const read: Chunk | undefined = (await reader.read()).value
  new Response(texts as unknown as ConstructorParameters<typeof Response>[0])
  try {
    await realm.inspect('x')
  } catch (error) {
    if (error instanceof RealmError) console.log(error.code, read, realm.version)
  }
}
void main()
