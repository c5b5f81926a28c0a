// public/follow.js as a library that others import, in this process: what it calls when, what it refuses and why, what it
// makes of those who answer in the server's place, and how it shares what a browser has, where no WebSocket gets through.
// (What only a browser can show is in element.test.ts.)

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { type Connection, follow } from '../public/follow.js'
import { logOf, until } from './app.ts'
import { app, Follower, gate, heardConsole, whole } from './follower.ts'
import { Gate } from './gate.ts'

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

    test('who is stopped by what another one is told is told nothing more', async () => {
      let stop = () => {}
      const heard: boolean[] = []
      await new Promise<void>(resolve => {
        const first = new Follower(between.url, randomUUID(), { tell({ live }) {
          if (!live) return
          stop()
          setImmediate(() => { first.stop(); resolve() })
        } })
        stop = follow(between.url, randomUUID(), () => {}, { tell: ({ live }) => heard.push(live) })
      })
      assert.ok(heard.length && !heard.includes(true), `heard ${heard}`)
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

suite('Where no WebSocket gets through, follow()', () => {
  test('tries it twice before it asks over HTTP: a failure that is told twice is one', async t => {
    const between = await gate(t)
    const run = await app.start('process', [5, 0])
    await new Follower(between.url, run.id).done()
    assert.deepEqual(between.asked.slice(0, 2), ['UPGRADE', 'UPGRADE'])
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
