// The end of a run: what is said of an error, what goes with the process, and that nobody else's process is touched.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
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

suite('When the workers server is killed,', () => {
  const app = new App({ PROCESS_LIMIT: '4' })
  before(() => app.startBoth())
  after(() => app.end())

  test('a cancel holds when the workers server is killed within the grace, whether or not the task has ended meanwhile', async () => {
    const [deaf, polite] = [await app.start('deaf', [600]), await app.start('polite')]
    for (const run of [deaf, polite]) await run.reader.until(({ entries }) => entries.length > 1)
    for (const run of [deaf, polite]) await run.cancel()
    await app.kill('workers')
    await gone(polite.pid)
    await app.startWorkers()
    for (const run of [deaf, polite]) {
      const { outcome, reason } = await run.outcome()
      assert.deepEqual([outcome, reason], ['cancelled', 'cancelled'])
    }
  })

  test('what a run has left is ended by the next workers server, when there was none at its end', async () => {
    const run = await app.start('daemons', ['wait'])
    const { entries } = await run.reader.until(({ entries }) => entries.length > 1)
    await app.kill('workers')
    process.kill(run.pid, 'SIGKILL')
    await gone(run.pid)
    await app.startWorkers()
    for (const pid of (entries[1]!.data as { pids: number[] }).pids) await gone(pid)
    assert.equal((await run.outcome()).outcome, 'died')
  })

  test('a process group whose leader has died is nobody that an old log can name', async t => {
    await app.kill('workers')
    // Forked twice, as daemons are: the leader of the group has gone, its number stands in an old log.
    const leader = spawn('sh', ['-c', 'sleep 100 & echo $!'], { detached: true, env: { PATH: process.env.PATH } })
    const [stranger] = await once(leader.stdout, 'data')
    await once(leader, 'exit')
    t.after(() => process.kill(Number(stranger), 'SIGKILL'))
    const log = (id: string, pid: unknown) => writeFileSync(join(app.runs, `${id}.ndjson`), JSON.stringify({
      type: 'start', time: Date.now(), data: { method: 'process', args: [], callId: '', pid, timeLimit: 0 },
    }) + '\n', { mode: 0o600 })
    for (const [at, pid] of [leader.pid, -1, 0, 1, -leader.pid!, String(leader.pid), null, 1.5, process.pid].entries()) log(`old${at}`, pid)
    await app.startWorkers()
    const stat = JSON.parse((await app.call('stat', '', '', JSON.stringify([[0, 1, 2, 3, 4, 5, 6, 7, 8].map(at => `old${at}`)])))[1])
    assert.deepEqual(Object.entries<{ done: boolean }>(stat).filter(([, { done }]) => !done), [], 'all these runs have ended')
    assert.ok(readFileSync(`/proc/${String(stranger).trim()}/cmdline`).length, 'and the stranger lives')
  })

  test('a task whose log was replaced while it was cut off writes nothing after done, and ends', async () => {
    const run = await app.start('tick', ['go'])
    await run.reader.until(({ entries }) => entries.length > 2)
    process.kill(run.pid, 'SIGSTOP')
    await app.kill('workers')
    rmSync(join(app.runs, `${run.id}.stderr`)) // so that it cannot be seen that it lives, as on another machine
    const log = readFileSync(join(app.runs, `${run.id}.ndjson`))
    rmSync(join(app.runs, `${run.id}.ndjson`))
    writeFileSync(join(app.runs, `${run.id}.ndjson`), log, { mode: 0o600 })
    await app.startWorkers()
    const { outcome } = await run.outcome()
    assert.equal(outcome, 'died')
    process.kill(run.pid, 'SIGCONT')
    await gone(run.pid)
    assert.equal((await run.outcome()).outcome, 'died')
    assert.match(run.log(), /"type":"done"[^\n]*\n$/)
  })
})
