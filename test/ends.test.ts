// The end of a run: what is said of an error, what goes with the process, and that nobody else's process is touched.

import assert from 'node:assert/strict'
import { existsSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { App, gone, type Run } from './app.ts'

suite('At the end of a run', { concurrency: 8 }, () => {
  const app = new App({ PROCESS_LIMIT: '16', SPARES: '2' })
  before(() => app.startBoth())
  after(() => app.end())

  async function children(run: Run) {
    const { entries } = await run.reader.until(({ entries }) => entries.length > 1)
    return (entries[1]!.data as { pids: number[] }).pids
  }

  for (const [how, act] of [
    ['returns', undefined], ['throws', undefined],
    ['is cancelled', (run: Run) => run.cancel()],
    ['is killed', (run: Run) => process.kill(run.pid, 'SIGKILL')],
  ] as const) {
    test(`daemons that it has started go, too, when it ${how}`, async () => {
      const run = await app.start('daemons', [{ returns: 'return', throws: 'throw' }[how as string] ?? 'wait'])
      const pids = await children(run)
      await act?.(run)
      await run.outcome()
      for (const pid of pids) await gone(pid)
    })
  }

  test('daemons go at its time limit, too', async () => {
    const run = await app.start('daemons', ['wait'], { timeLimit: 6 })
    const pids = await children(run)
    assert.equal((await run.outcome()).reason, 'over its time limit of 6 s')
    for (const pid of pids) await gone(pid)
  })

  for (const ends of ['return', 'throw', 'wait']) {
    test(`its exit handlers run, and what they report follows no done: ${ends}`, async () => {
      const run = await app.start('tidy', [ends])
      await run.reader.until(({ entries }) => entries.length > 1)
      if (ends === 'wait') await run.cancel()
      await run.outcome()
      await gone(run.pid)
      assert.ok(existsSync(join(app.runs, 'files', `${run.id}.tidied`)))
      assert.ok(!run.log().includes('too late'))
      rmSync(join(app.runs, 'files', `${run.id}.tidied`))
    })
  }

  test('a process that hangs in its exit handlers has ended for its readers, and is killed after the grace period', async () => {
    const run = await app.start('stuck')
    assert.equal((await run.outcome()).outcome, 'ok')
    await gone(run.pid)
  })

  test('a cancel by force has the same reason as a polite one, and one from the shell is a cancel', async () => {
    const [polite, deaf, shell] = [await app.start('polite'), await app.start('deaf', [600]), await app.start('polite')]
    for (const run of [polite, deaf, shell]) await run.reader.until(({ entries }) => entries.length > 1)
    await Promise.all([polite.cancel(), deaf.cancel(), process.kill(shell.pid, 'SIGTERM')])
    for (const run of [polite, deaf, shell]) {
      const { outcome, reason } = await run.outcome()
      assert.deepEqual([outcome, reason], ['cancelled', 'cancelled'])
    }
  })

  test('a function that waits for nothing but its signal lives until that, and its result is told', async () => {
    const run = await app.start('forget')
    await run.reader.until(({ entries }) => entries.length > 1)
    await run.cancel()
    const { outcome, reason, result } = await run.outcome()
    assert.deepEqual([outcome, reason, result], ['cancelled', 'cancelled', 'tidied up'])
  })

  test('a run that throws an error of its own when it is cancelled is cancelled, and the error is told', async () => {
    const run = await app.start('forget', ['throw'])
    await run.reader.until(({ entries }) => entries.length > 1)
    await run.cancel()
    const { outcome, reason } = await run.outcome()
    assert.deepEqual([outcome, reason], ['cancelled', 'cancelled'])
    assert.deepEqual(await run.types(), ['start', 'log', 'error', 'done'])
    assert.equal((run.reader.entries[2]!.data as { msg: string }).msg, 'could not tidy up: the disk is gone')
  })

  test('numbers and collections that JSON does not know are written as a person knows them', async () => {
    const run = await app.start('odd')
    const { result } = await run.outcome()
    assert.deepEqual(result, { answer: 42 })
    const [, ...entries] = run.reader.entries.slice(0, -1)
    assert.deepEqual(entries.map(({ data }) => data), [
      { nan: 'NaN', infinity: '-Infinity', map: { a: 1 }, set: [1, 2], nothing: 'undefined', list: ['undefined'] },
      [[{ a: 1 }, 'NaN']],
      { promise: 'Promise { 1 }', pattern: '/x/', date: 'Invalid Date', when: '1970-01-01T00:00:00.000Z', call: (entries[2]!.data as { call: unknown }).call },
      { deep: [{ map: { set: ['x'] } }], empty: {}, null: null },
      { current: 'NaN', total: 'Infinity', unit: 'rows' },
      { msg: 'with details', why: ['a'] },
      { msg: "{ toString: 'x' }" },
    ])
  })

  test('what its process said on stderr is quoted, the last lines of it', async () => {
    const run = await app.start('grumble', [1000, 3])
    const { outcome, reason } = await run.outcome()
    assert.equal(outcome, 'died')
    assert.match(reason!, /^ended without a result \(exit code 3\); the last that it said:\n/)
    assert.match(reason!, /grumble 999\ngrumble 1000$/)
    assert.ok(!/grumble 9\n/.test(reason!), 'and no more')
    assert.ok(!readdirSync(app.runs).some(name => name.startsWith(run.id) && !name.endsWith('.ndjson')), 'nothing of it is left')
  })
})
