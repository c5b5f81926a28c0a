// public/follow.js as a library, continued from follow.test.ts: what it makes of those who answer in the server's place, and
// many runs at a time.

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { suite, test } from 'node:test'
import { App, logOf, until } from './app.ts'
import { app, Follower, gate, whole } from './follower.ts'
import type { Instead } from './gate.ts'

const TOKEN = 'a-token-of-this-test-alone'

suite('Where no WebSocket gets through, follow()', () => {
  test('reads at most four logs at a time, of which three wait, and all runs come to their end', async t => {
    const between = await gate(t)
    const names = Array.from({ length: 9 }, () => randomUUID())
    const runs = await Promise.all(names.map(name => app.start('tick', [name])))
    const followers = runs.map(({ id }) => new Follower(between.url, id))
    await until(() => followers.every(({ entries }) => entries.length > 1), 'all to be followed')
    await until(() => between.waits === 3, 'three to wait')
    names.forEach(name => app.letGo(name))
    await Promise.all(followers.map(follower => follower.done()))
    followers.forEach(({ entries }, index) => assert.deepEqual(entries, whole(runs[index]!.id)))
    assert.ok(between.mostReads <= 4, `${between.mostReads} at a time`)
    assert.equal(between.mostWaits, 3)
  })
})

/** Who may answer in the server's place, and is none of it. */
const STRANGERS: Record<string, Instead> = {
  'a login that has run out': (request, response) => request.url === '/login'
    ? response.writeHead(200, { 'Content-Type': 'text/html' }).end('<form>Log in</form>')
    : response.writeHead(302, { Location: '/login' }).end(),
  'a login at another origin': (_, response) => response.writeHead(302, { Location: 'http://127.0.0.1:9/login' }).end(),
  'a captive portal': (_, response) => response.writeHead(200, { 'Content-Type': 'text/html' }).end('<h1>Welcome</h1>'),
  'a portal that speaks JSON': (_, response) => response.writeHead(200, { 'Content-Type': 'application/json' }).end('{"ok":true}'),
  'a firewall': (_, response) => response.writeHead(403, { 'Content-Type': 'text/html' }).end('<h1>Blocked</h1>'),
  'a firewall that speaks JSON': (_, response) => response.writeHead(403, { 'Content-Type': 'application/json' }).end('{"message":"Forbidden"}'),
  'who counts requests': (_, response) => response.writeHead(429, { 'Retry-After': '60' }).end('slow down'),
  'who asks for another password': (_, response) => response.writeHead(401, { 'WWW-Authenticate': 'Basic' }).end('<h1>401</h1>'),
  'a file server': (_, response) => response.writeHead(404).end('<h1>Not found</h1>'),
  'nothing but silence': (_, response) => response.writeHead(204).end(),
}

suite('What is not the server is taken for it by nobody:', { concurrency: true }, () => {
  for (const [who, instead] of Object.entries(STRANGERS)) {
    test(`${who} is told, and when it has gone, the run goes on without a hole`, async t => {
      const between = await gate(t)
      const name = randomUUID()
      const run = await app.start('tick', [name])
      const follower = new Follower(between.url, run.id)
      await until(() => follower.entries.length > 1, 'a beginning')
      between.instead = instead
      await until(() => follower.states.at(-1)?.stranger, 'a stranger is told')
      await until(() => !follower.states.at(-1)?.live, 'that it is not connected')
      assert.deepEqual(follower.refusals, [])
      between.instead = undefined
      await until(() => follower.states.at(-1)?.live && !follower.states.at(-1)?.stranger, 'that it is connected again')
      app.letGo(name)
      await follower.done()
      assert.deepEqual(follower.entries, whole(run.id))
    })
  }

  for (const says of ['{"type":"connected"}', 'null', '[]', 'hello', '{"id":"any","next":9,"entries":[]}']) {
    test(`a WebSocket that says ${says} is not waited for: the log is read over HTTP`, async t => {
      if (/^[hn]/.test(says)) t.mock.method(console, 'error', () => {}) // which tells of it
      const between = await gate(t)
      between.says = says
      const run = await app.start('process', [5, 0])
      await run.outcome()
      const follower = new Follower(between.url, run.id)
      await follower.done()
      assert.deepEqual(follower.entries, whole(run.id))
      assert.ok(follower.states.every(({ live, over }) => !live || over === 'HTTP'))
    })
  }

  test('a server that is down behind a proxy is no stranger', async t => {
    const own = new App({})
    t.after(() => own.end())
    await own.startBoth()
    const between = await gate(t, own)
    const run = await own.start('tick', ['down'])
    const follower = new Follower(between.url, run.id)
    await until(() => follower.entries.length > 1, 'a beginning')
    await own.kill('server')
    await until(() => !follower.states.at(-1)?.live, 'that it is lost')
    await own.startServer()
    own.letGo('down')
    await follower.done()
    assert.ok(!follower.states.some(({ stranger }) => stranger))
    assert.equal(follower.entries.length, logOf(own, run.id).trimEnd().split('\n').length)
  })
})

test('more runs than one WebSocket carries are followed over several', async () => {
  const others = Array.from({ length: 2100 }, () => new Follower(app.url, randomUUID()))
  const run = await app.start('process', [5, 0])
  const last = new Follower(app.url, run.id)
  await last.done()
  assert.deepEqual(others.flatMap(({ refusals }) => refusals), [])
  const { readers } = (await app.request('GET', '/health')).body
  assert.ok(readers >= 2100, `${readers} readers`)
  others.forEach(({ stop }) => stop())
})

test('a wrong key, and a missing one, are told by their code', async t => {
  const guarded = new App({ TOKEN })
  t.after(() => guarded.end())
  await guarded.startBoth()
  const headers = { authorization: `Bearer ${TOKEN}` }
  const { id, key } = (await guarded.request('POST', '/tasks', { method: 'process', args: [3, 0] }, headers)).body
  const [right, wrong, none] = [{ key }, { key: 'wrong' }, {}].map(options => new Follower(guarded.url, id, options))
  await right!.done()
  assert.deepEqual(await wrong!.refused(), [['this is not the key of that run', 'key']])
  assert.match((await new Follower(`${guarded.url}/`, id, { key: key.slice(1) }).refused())[0]![0], /not the key/)
  const [[message, code]] = await none!.refused() as [[string, string]]
  assert.match(message, /^a token is needed/)
  assert.equal(code, 'key')
})
