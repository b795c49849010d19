// A program that uses a server's models instead of its own.

import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, describe, test } from 'node:test'
import { ANSWER, CAPITAL, ENDLESS, GREEDY, realm, ROOT } from './common.mjs'

const { Realm } = realm
const command = join(ROOT, 'bindings-node/dist/command.js')
const folder = mkdtempSync(join(tmpdir(), 'realm-'))
const keys = ['--api-keys', join(folder, 'keys.db')]
const key = execFileSync(process.execPath, [command, 'api-key', 'create', ...keys, '--tenant', 'acme'], { encoding: 'utf8' }).trim()
const server = spawn(process.execPath, [command, 'serve', 'smollm2-135m', '--port', '0', ...keys], { stdio: ['ignore', 'ignore', 'pipe'] })
let url
for await (const line of createInterface({ input: server.stderr })) {
  url = line.match(/http:\/\/[\d.:]+/)?.[0]
  if (url) break
}
// What it says later is not read.
server.stderr.resume()

describe('a server', () => {
  after(() => {
    // SIGTERM does not end the command of this package: Node's own handler raises the signal again and again.
    server.kill('SIGKILL')
    rmSync(folder, { recursive: true })
  })

  test('one line makes a program use a server', async () => {
    const there = await Realm.connect(url, key)
    assert.equal(there.isRemote, true)
    const model = await there.loadModel('smollm2-135m')
    assert.equal((await model.generate(CAPITAL, GREEDY)).text, ANSWER)
    let text = ''
    for await (const chunk of model.stream(CAPITAL, GREEDY)) text += chunk.text
    assert.equal(text, ANSWER)
    const sequence = model.sequence()
    sequence.append(model.encode('The capital of France is'))
    assert.equal((await sequence.forward()).values.length, model.info.vocabulary)
    assert.equal(sequence.fork().length, sequence.length)
    sequence.close()
    const tenant = there.tenant('acme')
    assert.equal((await tenant.model(model).generate(CAPITAL, GREEDY)).text, ANSWER)
    const cancel = new AbortController()
    const endless = model.generate(ENDLESS[0], { ...ENDLESS[1], signal: cancel.signal })
    setTimeout(() => cancel.abort(), 50)
    await assert.rejects(endless, { name: 'AbortError' })
    there.close()
  })

  test('what stays at the server is an error', async () => {
    for (const wrong of [undefined, '', 'rk_wrong']) await assert.rejects(Realm.connect(url, wrong), { code: 'denied' })
    const there = await Realm.connect(url, key)
    await assert.rejects(there.loadModel('absent'), { code: 'not-found' })
    await assert.rejects(there.loadModel('smollm2-135m', { kvTokens: 64 }), { code: 'unsupported', message: /realm admin models load/ })
    assert.throws(() => there.tenant('other'), { code: 'denied' })
    await assert.rejects(there.loadProgram(new Uint8Array([0, 97, 115, 109])), { code: 'unsupported' })
    await assert.rejects(Realm.connect('localhost'), { code: 'invalid-argument' })
    await assert.rejects(Realm.connect('http://127.0.0.1:1'), { code: 'io' })
  })
})
