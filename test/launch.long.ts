// Tasks below a launcher (LAUNCH), on this machine: `prlimit` and `nice`, which become the task, and a script that
// stands for it, as one around the client of an engine does. A real engine: cluster.long.ts.

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { chmodSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { getPriority, tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { App, gone, missing, processesOf, startApp, until } from './app.ts'

const folder = mkdtempSync(join(tmpdir(), 'longrun-launch-'))
after(() => rmSync(folder, { recursive: true }))

/** A launcher that stays beside its task; as REFERENCE.md's for Slurm, without Slurm. */
const STANDING = script('standing', `
  setpriv --pdeathsig KILL "$@" &
  trap 'kill $!' TERM
  while kill -0 $! 2>/dev/null; do wait $!; code=$?; done
  exit $code`)
const standsNot = missing('setpriv')

suite('Below a launcher', { concurrency: 3 }, () => {
  for (const [LAUNCH, skip] of [
    ['prlimit --data=536870912', missing('prlimit')], ['nice -n 10', false], [STANDING, standsNot],
  ] as const) {
    suite(`Tasks started by ${LAUNCH.split('/').at(-1)}`, { skip, concurrency: 3 }, () => {
      const app = new App({ LAUNCH, PROCESS_LIMIT: '16' })
      before(() => skip || app.startBoth())
      after(() => app.end())

      test('report live, from start to done, and know what they are given', async () => {
        const run = await app.start('tick', ['go'])
        await run.reader.until(({ entries }) => entries.length > 3)
        assert.equal((run.reader.entries[0]!.data as { pid: number }).pid, run.pid)
        app.letGo('go')
        assert.equal((await run.outcome()).outcome, 'ok')
        const echo = await app.start('takes', ['a "b" $c *', 9, -0.5, false])
        assert.deepEqual((await echo.outcome()).result, ['a "b" $c *', 9, -0.5, false, {}])
      })

      test('fail with an error and its stack', async () => {
        const run = await app.start('crash', ['on purpose'])
        assert.equal((await run.outcome()).reason, 'on purpose')
        assert.deepEqual(await run.types(), ['start', 'log', 'log', 'log', 'error', 'done'])
      })

      test('are cancelled politely, also while they are still loading', async () => {
        const [settled, loading] = await Promise.all([app.start('polite'), app.start('polite')])
        await loading.cancel()
        await settled.reader.until(({ entries }) => entries.length > 1)
        await settled.cancel()
        for (const run of [settled, loading]) assert.equal((await run.outcome()).outcome, 'cancelled')
        assert.deepEqual(await settled.types(), ['start', 'log', 'log', 'done'])
      })

      test('end by their time limit', async () => {
        const run = await app.start('polite', [], { timeLimit: 1 })
        const { outcome, reason } = await run.outcome()
        assert.deepEqual([outcome, reason], ['cancelled', 'over its time limit of 1 s'])
      })

      test('leave no process that they have started', async () => {
        for (const how of ['return', 'wait']) {
          const run = await app.start('parent', [how])
          const { entries } = await run.reader.until(({ entries }) => entries.length > 1)
          const { pids } = entries[1]!.data as { pids: number[] }
          if (how === 'wait') process.kill(run.pid, 'SIGKILL')
          await run.outcome()
          for (const pid of pids) await gone(pid)
        }
      })

      test('die with their launcher, and take nobody with them', async () => {
        const [run, other] = await Promise.all([app.start('tick', ['never']), app.start('tick', ['later'])])
        for (const { reader } of [run, other]) await reader.until(({ entries }) => entries.length > 1)
        process.kill(run.pid, 'SIGKILL')
        const { outcome, reason } = await run.outcome()
        assert.deepEqual([outcome, reason], ['died', 'killed by SIGKILL'])
        assert.deepEqual((await run.types()).slice(-2), ['error', 'done'])
        app.letGo('later')
        assert.equal((await other.outcome()).outcome, 'ok')
        await until(() => !processesOf(app.runs).some(({ command }) => command.includes(run.id)))
      })
    })
  }

  test('a task that reaches the memory limit of its launcher dies, and the reason is what it said', { skip: missing('prlimit') }, async t => {
    const app = await startApp(t, { LAUNCH: 'prlimit --data=268435456' })
    const run = await app.start('hoard')
    const done = await run.outcome()
    assert.equal(done.outcome, 'died')
    const [error] = run.reader.entries.slice(-2)
    assert.equal(error!.type, 'error')
    assert.match(JSON.stringify(error), /heap out of memory/)
  })

  test('the launcher is what it is, to the task: its niceness', async t => {
    const app = await startApp(t, { LAUNCH: 'nice -n 10' })
    const run = await app.start('tick', ['go'])
    await run.reader.until(({ entries }) => entries.length > 1)
    assert.equal(getPriority(run.pid), Math.min(19, getPriority() + 10))
    app.letGo('go')
    await run.outcome()
  })

  test('a task that ignores SIGTERM, or hangs as it exits, is killed with its launcher, after a grace that an engine may use', { skip: standsNot }, async t => {
    const app = await startApp(t, { LAUNCH: STANDING, PROCESS_LIMIT: '2' })
    const run = await app.start('deaf', [600])
    await run.reader.until(({ entries }) => entries.length > 1)
    const began = Date.now()
    const stuck = await app.start('stuck')
    assert.equal((await stuck.outcome()).outcome, 'ok')
    await run.cancel()
    const { outcome, reason } = await run.outcome()
    assert.deepEqual([outcome, reason], ['cancelled', 'cancelled'])
    assert.ok(Date.now() - began > 29_000)
    await gone(stuck.pid)
  })

  test('the process limit holds', async t => {
    const app = await startApp(t, { LAUNCH: 'nice -n 10', PROCESS_LIMIT: '2' })
    const runs = await Promise.all([app.start('tick', ['go']), app.start('tick', ['go'])])
    assert.equal((await app.call('process', '', randomUUID(), '[1, 1]'))[0], '__BUSY__')
    app.letGo('go')
    for (const run of runs) assert.equal((await run.outcome()).outcome, 'ok')
    await untilIdle(app)
    assert.equal((await (await app.start('process', [1, 1])).outcome()).outcome, 'ok')
  })

  for (const [LAUNCH, skip] of [['nice -n 10', false], [STANDING, standsNot]] as const) {
    test(`the workers server is killed and started again: runs by ${LAUNCH.split('/').at(-1)} are its own`, { skip }, async t => {
      const app = await startApp(t, { LAUNCH, PROCESS_LIMIT: '4' })
      const steady = await app.start('tick', ['go'], { callId: 'steady' })
      const limited = await app.start('polite', [], { timeLimit: 5 })
      const polite = await app.start('polite')
      const doomed = await app.start('tick', ['never'])
      for (const run of [steady, limited, polite, doomed]) await run.reader.until(({ entries }) => entries.length > 1)
      await app.replaceWorkers(steady, doomed)
      assert.match((await app.call('process', 'steady', randomUUID(), '[]'))[1], /already running/)
      await polite.cancel()
      assert.equal((await polite.outcome()).outcome, 'cancelled')
      assert.equal((await limited.outcome()).reason, 'over its time limit of 5 s')
      app.letGo('go')
      assert.equal((await steady.outcome()).outcome, 'ok')
      await untilIdle(app)
    })
  }

  test('the workers server is asked to stop: runs end as cancelled, nothing is left', { skip: standsNot }, async t => {
    const app = await startApp(t, { LAUNCH: STANDING, PROCESS_LIMIT: '4' })
    const runs = await Promise.all([app.start('polite'), app.start('tick', ['never'])])
    for (const run of runs) await run.reader.until(({ entries }) => entries.length > 1)
    assert.deepEqual(await app.kill('workers', 'SIGTERM'), [0, null])
    for (const run of runs) assert.match(run.log(), /"outcome":"cancelled"[^\n]*\n$/)
  })

  test('a launcher that is not there is a clear refusal, and the place is free', async t => {
    const app = await startApp(t, { LAUNCH: join(folder, 'nobody'), PROCESS_LIMIT: '1' })
    for (let attempt = 0; attempt < 3; attempt++) {
      const { status, body } = await app.request('POST', '/tasks', { method: 'process', args: [1, 1] })
      assert.equal(status, 500)
      assert.match(body.errors[0], /nobody/)
    }
    assert.equal((await app.request('GET', '/health')).body.running, 0)
    assert.deepEqual((await app.request('GET', '/tasks')).body, [])
    assert.deepEqual(readdirSync(app.runs).filter(name => /ndjson|stderr/.test(name)), [])
  })

  test('a launcher that fails, or starts nothing, is the end of the run, and says why', async t => {
    for (const code of [0, 3]) {
      const LAUNCH = script('failing', `echo no account >&2; exit ${code}`)
      const app = await startApp(t, { LAUNCH, PROCESS_LIMIT: '1' })
      const run = await app.start('process', [1, 1])
      const done = await run.outcome()
      assert.equal(done.outcome, 'died')
      assert.match(done.reason!, new RegExp(`exit code ${code}`))
      assert.match(JSON.stringify(run.reader.entries.at(-2)), /no account/)
      assert.deepEqual(await run.types(), ['start', 'error', 'done'])
      await untilIdle(app)
    }
  })

  test('spares make no sense below a launcher: more than none is a bad setting', async t => {
    const app = new App({ LAUNCH: 'nice -n 10', SPARES: '1' })
    t.after(() => app.end())
    await assert.rejects(app.startWorkers(), /SPARES=1/)
  })
})

function script(name: string, text: string): string {
  const path = join(folder, name)
  writeFileSync(path, `#!/bin/sh\n${text}\n`)
  chmodSync(path, 0o755)
  return path
}

/** Until every place is free. */
async function untilIdle(app: App) {
  await app.untilRunning()
}
