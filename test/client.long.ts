// Clients of the contract in other languages: client.py, which REFERENCE.md shows, against the real system.

import assert from 'node:assert/strict'
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { after, before, test } from 'node:test'
import { App, logOf, readmeBlocks, startApp } from './app.ts'

const CLIENT = join(import.meta.dirname, 'client.py')
const python = ['/usr/bin/python3', 'python3'].find(path => spawnSync(path, ['-c', 'import zmq']).status === 0)
if (!python && process.env['CI']) throw new Error('Python 3 with pyzmq is missing: apt install python3-zmq')
const skip = !python && 'Python 3 with pyzmq is missing: apt install python3-zmq'

const app = new App({})
before(() => app.startBoth())
after(() => app.end())

function run(...args: string[]): ChildProcess {
  return spawn(python!, [CLIENT, ...args], { env: { RUNS: app.runs }, stdio: ['ignore', 'pipe', 'pipe'] })
}

async function output(client: ChildProcess): Promise<string> {
  const [printed, complaint, [code]] = await Promise.all([text(client.stdout!), text(client.stderr!), once(client, 'exit')])
  assert.equal(code, 0, complaint)
  return printed
}

test('the reference shows the client as it is', () => {
  const shown = readmeBlocks('python').find(block => block.includes('def follow('))
  assert.ok(shown && readFileSync(CLIENT, 'utf8').includes(shown))
})

test('the lines of the README that call from Python start a run, and make its key', { skip }, async t => {
  const folder = mkdtempSync(join(tmpdir(), 'longrun-test-'))
  const TOKEN = 'a-long-token-of-letters'
  const own = await startApp(t, { RUNS: join(folder, 'runs'), TOKEN }) // where those lines look for it
  t.after(() => rmSync(folder, { recursive: true }))
  const lines = readmeBlocks('python').find(block => block.includes('zmq.REQ'))
  const client = spawn(python!, ['-c', `${lines}\nprint(tag, id, key)`], { cwd: folder, env: { TOKEN } })
  const [, id, key] = /^b'' (\S+) (\S+)$/m.exec(await output(client)) ?? []
  const { status, body } = await own.request('GET', `/tasks/${id}/log?key=${key}&offset=-1&live=sse`) // until its end
  assert.equal(status, 200)
  assert.match(body, /"outcome":"ok"/)
})

test('a client in Python starts a run, follows it to its end, and from a position on', { skip }, async () => {
  const id = (await output(run('start', 'process', '[20, 20]'))).trim()
  assert.equal(await output(run('follow', id)), logOf(app, id))
  const second = logOf(app, id).indexOf('\n') + 1
  assert.equal(await output(run('follow', id, String(second))), logOf(app, id).slice(second))
})

test('a client in Python that was stopped in a flood, and has lost messages, repairs the gap', { skip }, async () => {
  const id = (await output(run('start', 'murmur', '["go"]'))).trim()
  const client = run('follow', id)
  const printed = output(client)
  await once(client.stdout!, 'data')
  await app.stall(client, id)
  app.letGo('go')
  const reader = await app.follow(id)
  await reader.done()
  client.kill('SIGCONT')
  assert.equal(await printed, logOf(app, id))
})

test('a client in Python cancels a run, and is told what it cannot do', { skip }, async () => {
  const id = (await output(run('start', 'process', '[1000, 100]'))).trim()
  await output(run('cancel', id))
  assert.match(await output(run('follow', id)), /"outcome":"cancelled"[^\n]*\n$/)
  await assert.rejects(output(run('cancel', id)), /not running/)
  await assert.rejects(output(run('start', 'nothing', '[]')), /unknown method nothing/)
})
