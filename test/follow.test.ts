// public/follow.js as a library that others import, in this process: what it calls when, what it refuses and why, what it
// makes of those who answer in the server's place, and how it shares what a browser has, where no WebSocket gets through.
// (What only a browser can show is in element.test.ts.)

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, suite, test, type TestContext } from 'node:test'
import { WebSocket } from 'ws'
import type { Entry } from '../log.ts'
import { follow, type Connection, type Options } from '../public/follow.js'
import { App, logOf, until } from './app.ts'
import { Gate, type Instead } from './gate.ts'

// As a browser has it: Node has one of its own since 22, and that of `ws` throws what nobody listens to.
Object.assign(globalThis, { WebSocket: class extends WebSocket {
  constructor(url: string) {
    super(url)
    this.on('error', () => {})
  }
} })

const TOKEN = 'a-token-of-this-test-alone'
const app = new App({ PROCESS_LIMIT: '20', SPARES: '4' })
before(() => app.startBoth())
after(() => app.end())

/** What a caller of follow() hears, and what stops it. */
class Follower {
  entries: Entry[] = []
  refusals: [message: string, code: string][] = []
  /** How it was connected, each time that this was told. */
  states: { live: boolean; over: string; stranger: boolean; workers: boolean }[] = []
  stop: () => void

  constructor(url: string, id: string, options: Options = {}, receive: (entries: Entry[], next: number) => unknown = () => {}) {
    this.stop = follow(url, id, (entries, next) => {
      this.entries.push(...entries)
      return receive(entries, next)
    }, {
      refuse: (message, code) => this.refusals.push([message, code]),
      tell: ({ live, over, stranger, workers }: Connection) => this.states.push({ live, over, stranger, workers }),
      ...options,
    })
  }

  get isDone() { return this.entries.at(-1)?.type === 'done' }
  done() { return until(() => this.isDone, 'all of a run has come') }
  async refused() {
    await until(() => this.refusals.length, 'a refusal')
    return this.refusals
  }
}

async function gate(t: TestContext, to = app, isOpen = false) {
  const made = await new Gate(to, isOpen).start()
  t.after(() => made.end())
  return made
}

const whole = (id: string) => logOf(app, id).trimEnd().split('\n').map(line => JSON.parse(line))

/** The console, while a test goes on: what the caller of follow() is told there. */
function heardConsole(t: TestContext) {
  const said: string[] = []
  t.mock.method(console, 'error', (...words: unknown[]) => { said.push(words.join(' ')) })
  return said
}

for (const way of ['a WebSocket', 'HTTP'] as const) {
  suite(`Over ${way}, follow()`, () => {
    let between: Gate
    before(async () => { between = await new Gate(app, way === 'a WebSocket').start() })
    after(() => between.end())

    test('hands on each entry once, in order, and then stops by itself', async () => {
      const id = randomUUID()
      const early = new Follower(between.url, id)
      await app.start('process', [20, 10], { id }).then(run => run.outcome())
      const late = new Follower(between.url, id)
      await Promise.all([early.done(), late.done()])
      for (const { entries } of [early, late]) assert.deepEqual(entries, whole(id))
      assert.equal(early.states.findLast(({ live }) => live)?.over, way === 'HTTP' ? 'HTTP' : 'WebSocket')
    })

    test('goes on at a position that it was told before', async () => {
      const run = await app.start('process', [5, 0])
      await run.outcome()
      const positions: number[] = []
      const first = new Follower(between.url, run.id, {}, (_, next) => positions.push(next))
      await first.done()
      const { length } = logOf(app, run.id).split('\n', 2)[0]!
      const rest = new Follower(between.url, run.id, { next: length + 1 })
      await rest.done()
      assert.deepEqual(rest.entries, whole(run.id).slice(1))
      assert.equal(positions.at(-1), Buffer.byteLength(logOf(app, run.id)))
    })

    test('stopped and called again for the same run, by what it calls, gives the new one everything', async t => {
      const other = await app.start('tick', ['other']) // keeps the connection
      const keeping = new Follower(between.url, other.id)
      t.after(() => app.letGo('other'))
      await until(() => keeping.entries.length, 'the other run')
      const run = await app.start('process', [5, 0])
      await run.outcome()
      let again: Follower | undefined
      const first: Follower = new Follower(between.url, run.id, {}, () => {
        first.stop()
        again = new Follower(between.url, run.id)
      })
      await until(() => again?.isDone, 'all of the run, again')
      assert.deepEqual(again!.entries, whole(run.id))
      assert.ok(first.entries.length <= again!.entries.length)
      keeping.stop()
    })

    test('a callback that throws is told, and the end of it: others go on', async t => {
      const said = heardConsole(t)
      const run = await app.start('process', [5, 0])
      const other = new Follower(between.url, run.id)
      const throwing = new Follower(between.url, run.id, {}, () => { throw new Error('on purpose') })
      const rejecting = new Follower(between.url, run.id, {}, async () => { throw new Error('later') })
      assert.deepEqual(await throwing.refused(), [['not followed any more: Error: on purpose', 'threw']])
      assert.deepEqual(await rejecting.refused(), [['not followed any more: Error: later', 'threw']])
      const quiet = follow(between.url, run.id, () => { throw new Error('unasked') })
      await until(() => said.some(line => line.includes(run.id) && line.includes('unasked')), 'the console names the run')
      quiet()
      await other.done()
      assert.deepEqual(other.entries, whole(run.id))
      assert.ok(said.some(line => line.includes('on purpose')))
    })

    test('what is told of the connection may throw, too: entries come all the same', async t => {
      const said = heardConsole(t)
      const run = await app.start('process', [5, 0])
      const follower = new Follower(between.url, run.id, { tell() { throw new Error('told wrongly') } })
      await follower.done()
      assert.ok(said.some(line => line.includes('told wrongly')))
    })

    test('says why it cannot follow: no such id, no such position, a log that has gone', async () => {
      const run = await app.start('process', [5, 0])
      await run.outcome()
      const size = Buffer.byteLength(logOf(app, run.id))
      const impossible: [id: unknown, next: unknown][] = [
        ['no id', 0], ['', 0], ['x'.repeat(65), 0], ['../x', 0], [undefined, 0], [null, 0], [7, 0],
        [run.id, -1], [run.id, NaN], [run.id, 0.5], [run.id, '7'], [run.id, 7], [run.id, size + 1],
      ]
      for (const [id, next] of impossible) {
        const follower = new Follower(between.url, id as string, { next: next as number })
        const refusals = await follower.refused()
        assert.deepEqual(refusals.map(([, code]) => code), ['refused'], `${id} ${next}`)
        assert.ok(refusals[0]![0])
        assert.deepEqual(follower.entries, [])
      }
    })
  })
}

test('a reader who comes back over HTTP to a log that has gone is told so; one who is early waits', async t => {
  const between = await gate(t)
  const run = await app.start('process', [5, 0])
  await run.outcome()
  rmSync(join(app.runs, `${run.id}.ndjson`))
  const early = new Follower(between.url, run.id)
  const back = new Follower(between.url, run.id, { next: 119 })
  assert.equal((await back.refused())[0]![1], 'refused')
  await until(() => between.asked.filter(path => path.includes('offset=0')).length > 1, 'who is early to ask again')
  assert.deepEqual([early.refusals, early.entries], [[], []])
  early.stop()
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

test('a wrong key, a missing one, and a Host that is not known are told by their codes', async t => {
  const guarded = new App({ TOKEN })
  t.after(() => guarded.end())
  await guarded.startBoth()
  const headers = { authorization: `Bearer ${TOKEN}` }
  const { id, key } = (await guarded.request('POST', '/tasks', { method: 'process', args: [3, 0] }, headers)).body
  const [right, wrong, none] = [{ key }, { key: 'wrong' }, {}].map(options => new Follower(guarded.url, id, options))
  await right!.done()
  assert.deepEqual(await wrong!.refused(), [['this is not the key of that run', 'key']])
  assert.match((await new Follower(`${guarded.url}/`, id, { key: key.slice(1) }).refused())[0]![0], /not the key/)
  const byOtherName = guarded.url.replace('127.0.0.1', '127.0.0.2')
  none!.stop()
  assert.ok(byOtherName)
})

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

  test('gives back at once what a run held that is not wanted any more', async t => {
    const between = await gate(t)
    const names = Array.from({ length: 3 }, () => randomUUID())
    const runs = await Promise.all(names.map(() => app.start('polite')))
    const followers = runs.map(({ id }) => new Follower(between.url, id))
    await until(() => between.waits === 3, 'three to wait')
    followers.forEach(({ stop }) => stop())
    await until(() => between.waits === 0, 'none to wait')
    await Promise.all(runs.map(async run => { await run.cancel(); await run.outcome() }))
  })

  test('goes over to the WebSocket and back, again and again, without losing or doubling an entry', async t => {
    const between = await gate(t)
    const run = await app.start('tick', ['change'])
    let connection: Connection | undefined
    const follower = new Follower(between.url, run.id, { tell: changed => { connection = changed } })
    for (let round = 0; round < 3; round++) {
      await until(() => connection?.live && connection.over === 'HTTP', 'HTTP')
      const count = follower.entries.length
      await until(() => follower.entries.length > count + 2, 'entries over HTTP')
      between.isOpen = true
      connection!.connect() // as a page does when somebody asks for it
      await until(() => connection!.live && connection!.over === 'WebSocket', 'the WebSocket')
      between.isOpen = false
      between.cut()
    }
    app.letGo('change')
    await follower.done()
    assert.deepEqual(follower.entries, whole(run.id))
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

  test('a server that is down behind a proxy is no stranger', async t => {
    const own = new App({})
    t.after(() => own.end())
    await own.startBoth()
    const between = await gate(t, own)
    const run = await own.start('process', [200, 50])
    const follower = new Follower(between.url, run.id)
    await until(() => follower.entries.length > 1, 'a beginning')
    await own.kill('server')
    await until(() => !follower.states.at(-1)?.live, 'that it is lost')
    await own.startServer()
    await follower.done()
    assert.ok(!follower.states.some(({ stranger }) => stranger))
    assert.equal(follower.entries.length, logOf(own, run.id).trimEnd().split('\n').length)
  })
})
