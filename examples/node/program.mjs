// A tenant with a program of its own, which calls a tool of the application's.
//
//     node program.mjs PROGRAM.wasm [MODEL]
//
// PROGRAM is a WebAssembly component; `ci/build-programs` builds `agent.wasm`, which calls tools, and nine others.

import { Realm } from 'realm'

const [program = 'target/programs/agent.wasm', name = 'qwen2.5-coder-0.5b'] = process.argv.slice(2)

const realm = new Realm()
const tenant = realm.tenant('acme', { programCpuTime: 30_000 })
tenant.setProgram(await realm.loadProgram(program))
tenant.setGrants({
  log: (tenant, level, message) => console.error(`${tenant}: ${level}: ${message}`),
  tools: {
    get_weather: ({ city }) => {
      console.log(`(the program asks for the weather in ${city})`)
      return { weather: 'heavy snow, -7 degrees' }
    },
  },
})
const tool = {
  type: 'function',
  function: {
    name: 'get_weather',
    description: 'The weather in a city.',
    parameters: {
      type: 'object',
      required: ['city'],
      additionalProperties: false,
      properties: { city: { enum: ['Paris', 'Rome'] } },
    },
  },
}
const model = tenant.model(await realm.loadModel(name))
const question = [{ role: 'user', content: 'What is the weather in Paris?' }]
const options = { temperature: 0, maxTokens: 64, tools: [tool], input: { tool_choice: 'required' } }
for await (const chunk of model.stream(question, options)) process.stdout.write(chunk.text)
console.log()
