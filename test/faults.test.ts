// What happens when a task, or the workers server, does what it should not, or dies: nothing is lost, every run has
// exactly one end, and no process is left. Everything here is done for real. The web server's faults: server.test.ts.

import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { App, gone, logOf, missing, processesOf, startApp, until, type Run } from './app.ts'

const app = new App({ PROCESS_LIMIT: '16', SPARES: '2' })
const small = new App({ PROCESS_LIMIT: '4', MAX_LOG: '300000', NODE_OPTIONS: '--max-old-space-size=150' })
before(() => Promise.all([app.startBoth(), small.startBoth()]))
after(() => Promise.all([app.end(), small.end()]))

suite('A task', { concurrency: 8 }, () => {
  test('that throws after many entries: all of them, then the error with its stack, then done', async () => {
    const run = await app.start('crash', ['on purpose', 5000])
    const done = await run.outcome()
    assert.equal(done.outcome, 'error')
    assert.equal(done.reason, 'on purpose')
    const entries = run.reader.entries
    assert.equal(entries.length, 5003)
    const { msg, stack } = entries.at(-2)!.data as { msg: string; stack: string }
    assert.equal(msg, 'on purpose')
    assert.match(stack, /functions\.ts/)
  })

  for (const method of ['returns', 'publishes']) {
    for (const [what, why] of [['bigint', /BigInt/], ['cycle', /circular/], ['function', /function cannot be written as JSON/]] as const) {
      test(`that ${method} a ${what}: an error that says so, then done`, async () => {
        const run = await app.start(method, [what])
        const done = await run.outcome()
        assert.equal(done.outcome, 'error')
        assert.match(done.reason!, why)
        assert.deepEqual(await run.types(), ['start', 'error', 'done'])
      })
    }
  }

  for (const [method, args, reason] of [
    ['exit', [0], 'ended without a result (exit code 0)'],
    ['exit', [3], 'ended without a result (exit code 3)'],
    ['suicide', ['SIGKILL'], 'killed by SIGKILL'],
    ['suicide', ['SIGSEGV'], 'killed by SIGSEGV'],
  ] as const) {
    test(`that ends by ${method} ${args}: what it had reported, an error with the reason, done`, async () => {
      const run = await app.start(method, [...args])
      const done = await run.outcome()
      assert.equal(done.outcome, 'died')
      assert.equal(done.reason, reason)
      assert.deepEqual(await run.types(), ['start', 'log', 'error', 'done'])
    })
  }

  test('that throws where nobody catches it: an error and done', async () => {
    const run = await app.start('late')
    assert.equal((await run.outcome()).reason, 'in a timer')
  })

  test('that never yields is followed live, and is gone a moment after the grace period', async () => {
    const run = await app.start('spin', [600])
    await run.reader.until(({ entries }) => entries.length > 3)
    await endsByCancel(run)
  })

  test('that ignores SIGTERM is gone a moment after the grace period', async () => {
    const run = await app.start('deaf', [600])
    await run.reader.until(({ entries }) => entries.length > 1)
    await endsByCancel(run)
  })

  test('that is stopped is gone a moment after the grace period', async () => {
    const run = await app.start('process', [100_000, 10])
    await run.reader.until(({ entries }) => entries.length > 3)
    process.kill(run.pid, 'SIGSTOP')
    await endsByCancel(run)
  })

  test('that overruns its time limit in an endless loop is killed, with the reason', async () => {
    const run = await app.start('spin', [60], { timeLimit: 0.5 })
    const done = await run.outcome()
    assert.deepEqual([done.outcome, done.reason], ['cancelled', 'over its time limit of 0.5 s'])
  })

  test('that is cancelled while its process is still loading ends as cancelled', async () => {
    const runs = await Promise.all([1, 2, 3, 4].map(() => app.start('polite'))) // more than there are spares
    await Promise.all(runs.map(run => run.cancel()))
    for (const run of runs) assert.equal((await run.outcome()).outcome, 'cancelled')
  })

  for (const how of ['return', 'throw', 'wait']) {
    test(`that started other processes leaves none of them: ${how}`, async () => {
      const run = await app.start('parent', [how])
      const { pids } = (await run.reader.until(({ entries }) => entries.length > 1)).entries[1]!.data as { pids: number[] }
      if (how === 'wait') process.kill(run.pid, 'SIGKILL')
      await run.outcome()
      for (const pid of pids) await gone(pid)
    })
  }

  test('whose result does not fit into MAX_LOG fails with an error that says so, however long its words', async () => {
    for (const [method, args, reason] of [['claim', [{ text: 'x'.repeat(200_000) }], /MAX_LOG/], ['crash', ['y'.repeat(200_000), 1], /^y+$/]] as const) {
      const run = await small.start(method, [...args])
      const done = await run.outcome()
      assert.equal(done.outcome, 'error')
      assert.match(done.reason!, reason)
      assert.ok(run.log().length < 300_000 + 3 * 2 ** 16 + 1000, `${run.log().length} bytes`)
    }
  })

  test('that reports more than MAX_LOG fails with an error that says so; others go on', async () => {
    const other = await small.start('process', [20, 20])
    const run = await small.start('flood', [1_000_000])
    const done = await run.outcome()
    assert.equal(done.outcome, 'error')
    assert.match(done.reason!, /MAX_LOG/)
    assert.ok(run.log().length < 300_000 + 2000)
    assert.equal((await other.outcome()).outcome, 'ok')
  })

  test('that runs out of memory: its entries, an error, done; the servers go on', async () => {
    const run = await small.start('hoard')
    const done = await run.outcome()
    assert.equal(done.outcome, 'died')
    assert.match(done.reason!, /SIGABRT|SIGTRAP|exit code 134/)
    assert.deepEqual(await run.types(), ['start', 'log', 'error', 'done'])
    assert.equal((await (await small.start('process', [2, 1])).outcome()).outcome, 'ok')
  })

  async function endsByCancel(run: Run) {
    const asked = Date.now()
    assert.equal((await run.cancel()).status, 202)
    const done = await run.outcome()
    assert.deepEqual([done.outcome, done.reason], ['cancelled', 'cancelled'])
    assert.ok(Date.now() - asked < 60_000, 'the grace period and a moment')
    await gone(run.pid)
  }
})

suite('The workers server', { concurrency: 4 }, () => {
  test('refuses what is wrong, says why, and serves the next request', async () => {
    const id = randomUUID()
    for (const [frames, message] of [
      [['process', '', id], /3 frames/],
      [['process', '', id, '[]', '1', '2'], /6 frames/],
      [[''], /1 frames/],
      [['process', '', id, '{}'], /not a JSON array/],
      [['process', '', id, '[1,'], /not JSON/],
      [['process', '', id, ''], /not JSON/],
      [['process', '', id, '['.repeat(100_000) + ']'.repeat(100_000)], /nested too deeply/],
      [['process', '', id, `["${'x'.repeat(2 ** 21)}"]`], /at most 1048576 are allowed/],
      [['process', '', id, Buffer.from([0x5b, 0x22, 0xff, 0x22, 0x5d])], /not UTF-8/],
      [['process\0', '', id, '[]'], /unknown method/],
      [['', '', id, '[]'], /unknown method/],
      [['__proto__', '', id, '[]'], /unknown method/],
      [['constructor', '', id, '[]'], /unknown method/],
      [['toString', '', id, '[]'], /unknown method/],
      [['unmarked', '', id, '[]'], /unknown method/],
      [['process', '', '', '[]'], /invalid id/],
      [['process', '', '../x', '[]'], /invalid id/],
      [['process', '', 'x'.repeat(65), '[]'], /invalid id/],
      [['process', 'x'.repeat(2000), id, '[]'], /invalid call id/],
      [['process', '', id, '[]', 'soon'], /time limit/],
      [['process', '', id, '[]', '-1'], /time limit/],
      [['process', '', id, '[]', '1e9'], /time limit/],
      [['read', '', '', '["nobody", 0]'], /unknown run/],
      [['read', '', '', '[]'], /invalid id/],
      [['stat', '', '', '[1]'], /stat takes/],
      [['cancel', '', '', '[{}]'], /invalid id/],
      [[Buffer.alloc(10 * 2 ** 20), '', id, '[]'], /invalid method/],
    ] as [(string | Buffer)[], RegExp][]) {
      const [tag, answer] = await app.call(...frames)
      assert.equal(tag, '__ERROR__', String(frames[0]))
      assert.match(answer, message)
      assert.match(answer, /^unknown (method|run)/.test(message.source) ? /^unknown: / : /^invalid: /)
    }
    assert.doesNotMatch((await app.call('list', '', '', '[]'))[1], new RegExp(id), 'none of these was started')
    assert.equal((await app.call('process', '', id, '[1,1]'))[0], '')
  })

  test('says so when a process cannot be started, keeps the place free, and goes on', { skip: missing('prlimit') }, async t => {
    const app = new App({ PROCESS_LIMIT: '1', SPARES: '0' })
    t.after(() => app.end())
    await app.startWorkers()
    const limits = (soft: string) => execFileSync('prlimit', ['--pid', String(app.workers.process.pid), `--nofile=${soft}:`])
    const open = execFileSync('sh', ['-c', `ls /proc/${app.workers.process.pid}/fd | wc -l`])
    limits(String(Number(open) + 2))
    for (let i = 0; i < 3; i++) {
      const [tag, message] = await app.call('process', '', randomUUID(), '[1,1]')
      assert.equal(tag, '__ERROR__')
      assert.match(message, /cannot start a process: .*EMFILE/)
    }
    limits('1024')
    assert.deepEqual(readdirSync(app.runs).filter(name => name.endsWith('.stderr')), [], 'nothing of them is left')
    assert.equal((await app.call('process', '', randomUUID(), '[1,1]'))[0], '')
  })

  test('without a descriptor left, it goes on: runs that live are not taken for dead, others end later', { skip: missing('prlimit') }, async t => {
    const app = new App({ PROCESS_LIMIT: '4', SPARES: '0' })
    t.after(() => app.end())
    await app.startWorkers()
    const start = async (id: string, letGo: string) => {
      assert.equal((await app.call('tick', '', id, JSON.stringify([letGo])))[0], '')
      await until(() => logOf(app, id).split('\n').length > 3, `${id} goes on`)
    }
    await start('adopted', 'go')
    await app.kill('workers')
    await app.startWorkers()
    await start('own', 'stop')
    const limit = (soft: string) => execFileSync('prlimit', ['--pid', String(app.workers.process.pid), `--nofile=${soft}:`])
    const saying = (words: RegExp) => app.workers.output.filter(line => words.test(line)).length
    limit('3')
    await until(() => saying(/cannot look at adopted: EMFILE/) > 2, 'it has looked at the adopted run')
    app.letGo('stop')
    await until(() => saying(/own cannot be ended: EMFILE/) > 1, 'it has tried to end its own run')
    limit('1024')
    await until(() => saying(/run own ended: ok/), 'its own run has ended')
    assert.doesNotMatch(logOf(app, 'adopted'), /"done"/)
    app.letGo('go')
    await until(() => saying(/run adopted ended: ok/), 'the adopted run has ended')
    for (const id of ['own', 'adopted']) assert.match(logOf(app, id), /^[^]*\n\{"type":"done"[^\n]*\n$/)
    assert.deepEqual(await app.kill('workers', 'SIGTERM'), [0, null])
  })

  test('killed and started again: the runs go on, and limit, duplicate check, cancel and time limit hold for them', async t => {
    const app = await startApp(t, { PROCESS_LIMIT: '5' })
    const steady = await app.start('tick', ['go'], { callId: 'steady' })
    const limited = await app.start('spin', [600], { timeLimit: 10 })
    const polite = await app.start('polite')
    const doomed = await app.start('process', [10_000, 10])
    const torn = await app.start('process', [10_000, 10])
    const runs = [steady, limited, polite, doomed, torn]
    for (const run of runs) await run.reader.until(({ entries }) => entries.length > 1)
    await app.kill('workers')
    process.kill(doomed.pid, 'SIGKILL')
    process.kill(torn.pid, 'SIGKILL')
    for (const { pid } of [doomed, torn]) await gone(pid)
    appendFileSync(join(app.runs, `${torn.id}.ndjson`), '{"type":"msg","ti') // as a write that was cut off
    await app.startWorkers()
    for (const run of [doomed, torn]) {
      const done = await run.outcome()
      assert.deepEqual([done.outcome, done.reason], ['died', 'ended without a result, while no workers server was running'])
      assert.deepEqual((await run.types()).slice(-2), ['error', 'done'])
    }
    assert.deepEqual(await app.call('process', 'steady', randomUUID(), '[]'), ['__ERROR__', 'conflict: already running: the call steady'])
    assert.match((await app.call('process', '', steady.id, '[]'))[1], /already running/)
    assert.equal((await polite.cancel()).status, 202)
    assert.equal((await polite.outcome()).outcome, 'cancelled')
    assert.equal((await limited.outcome()).reason, 'over its time limit of 10 s')
    await app.untilRunning(1) // one is left of those that were adopted
    const more = []
    for (let place = 1; place < 5; place++) more.push(await app.start('tick', ['go']))
    assert.equal((await app.call('process', '', randomUUID(), '[]'))[0], '__BUSY__')
    app.letGo('go')
    for (const run of [steady, ...more]) assert.equal((await run.outcome()).outcome, 'ok')
    const list: { outcome?: string }[] = (await app.request('GET', '/tasks')).body
    assert.deepEqual([list.length, list.filter(({ outcome }) => !outcome)], [9, []], 'all have ended')
  })

  suite('that ends', { concurrency: 1 }, () => { // one after the other, with the same servers
    const app = new App({ PROCESS_LIMIT: '4' })
    before(() => app.startBoth())
    after(() => app.end())

    test('a process id that has come round again is not taken for the run', async t => {
      await app.kill('workers')
      const stranger = spawn('sleep', ['100'], { detached: true })
      t.after(() => stranger.kill())
      const start = { type: 'start', time: Date.now(), data: { method: 'process', args: [], callId: '', pid: stranger.pid, timeLimit: 0 } }
      writeFileSync(join(app.runs, 'old.ndjson'), JSON.stringify(start) + '\n', { mode: 0o600 })
      await app.startWorkers()
      assert.equal(JSON.parse((await app.call('stat', '', '', '[["old"]]'))[1]).old.done, true)
      assert.deepEqual([stranger.exitCode, stranger.signalCode], [null, null], 'and it is not killed')
    })

    test('killed and never started again: the page is told, the runs finish in their logs, the spares end', async () => {
      const run = await app.start('tick', ['go'])
      await run.reader.until(({ entries }) => entries.length > 1)
      await app.kill('workers')
      await run.reader.until(({ workers }) => workers.at(-1) === false)
      app.letGo('go')
      await gone(run.pid)
      assert.match(run.log(), /"outcome":"ok"[^\n]*\n$/)
      for (const { pid } of processesOf(app.runs)) if (pid !== app.server.process.pid) await gone(pid) // the spares
      assert.equal((await app.request('GET', '/health')).status, 503)
      await app.startWorkers()
      assert.equal((await run.outcome()).outcome, 'ok')
    })

    test('a second signal ends it at once', async () => {
      const run = await app.start('deaf', [600])
      await run.reader.until(({ entries }) => entries.length > 1)
      const asked = Date.now()
      const later = setInterval(() => app.workers.process.kill('SIGTERM'), 700) // and not the same Ctrl-C twice
      await app.kill('workers', 'SIGTERM')
      clearInterval(later)
      const done = JSON.parse(run.log().trimEnd().split('\n').at(-1)!)
      assert.ok(done.time - asked < 5000, 'before the grace period is over')
      await app.startWorkers()
    })

    test('what somebody else writes into logs hurts nobody: not the list, not these runs, not the next start', async () => {
      const ended = await app.start('process', [2, 1])
      await ended.outcome()
      const [one, other] = [await app.start('tick', ['on']), await app.start('tick', ['on'])]
      for (const run of [one, other]) await run.reader.until(({ entries }) => entries.length > 1)
      one.reader.leave() // it counts bytes of entries
      for (const { id } of [ended, one]) appendFileSync(join(app.runs, `${id}.ndjson`), 'hello\n')
      const check = async () => {
        const list: { id: string; outcome?: string }[] = (await app.request('GET', '/tasks')).body
        const outcomes = [ended, one, other].map(run => list.find(({ id }) => id === run.id)!.outcome)
        assert.deepEqual(outcomes, ['ok', undefined, undefined])
        const [, stat] = await app.call('stat', '', '', JSON.stringify([[ended.id, one.id, other.id]]))
        const done = Object.values<{ done: boolean }>(JSON.parse(stat)).map(({ done }) => done)
        assert.deepEqual(done, [true, false, false])
        const late = await (await app.follow(ended.id)).done()
        assert.equal(late.at(-1)!.type, 'done', 'and nothing follows it')
      }
      await check()
      await app.kill('workers')
      await app.startWorkers()
      await check()
      const part = (await app.request('GET', `/tasks/${one.id}/log?offset=0`)).body
      assert.deepEqual(part.slice(0, 2).map(({ type }: { type: string }) => type), ['start', 'msg'], 'it can still be read')
      assert.equal((await app.request('DELETE', `/tasks/${one.id}`)).status, 202)
      await gone(one.pid)
      app.letGo('on')
      assert.equal((await other.outcome()).outcome, 'ok')
      await app.untilRunning()
      const lines = logOf(app, one.id).trimEnd().split('\n')
      assert.equal(lines.filter(line => line.startsWith('{"type":"done"')).length, 1)
      assert.match(lines.at(-1)!, /"outcome":"cancelled"/)
    })

    test('what belongs to no run that is known goes at the next start, and with its log', async () => {
      const files = join(app.runs, 'files')
      const run = await app.start('produce', [5])
      await run.outcome()
      const live = await app.start('tick', ['later'])
      await live.reader.until(({ entries }) => entries.length > 1)
      await app.kill('workers')
      for (const name of [`${run.id}.part`, `${run.id}.csv`, `${live.id}.part`, 'nobody.csv', 'nobody.part', 'rehearsal.x']) {
        writeFileSync(join(files, name), '')
      }
      mkdirSync(join(files, 'gone.part', 'folder'), { recursive: true })
      app.letGo('later')
      await gone(live.pid) // it ends while there is nobody
      writeFileSync(join(app.runs, 'unfinished.ndjson'), '{"type":"start","time":1,"data":{"method":"process","args":[],"callId":"","pid":999999,"timeLimit":0}}\n')
      writeFileSync(join(files, 'unfinished.part'), '')
      await app.startWorkers()
      const left = () => readdirSync(files).filter(name => name.includes('.')).sort().join()
      await until(() => left() === [`${run.id}.csv`, `${run.id}.txt`].join(), 'what runs that are known have produced is left')
      app.env.KEEP_RUNS = '0'
      for (const _ of [0, 1]) { // and then as it was
        await app.kill('workers')
        await app.startWorkers()
        if (app.env.KEEP_RUNS) await until(() => !left(), 'nothing is left of runs that are forgotten')
        delete app.env.KEEP_RUNS
      }
      assert.ok(!existsSync(join(app.runs, `${run.id}.ndjson`)))
    })

    test('a clock that has jumped a day ahead, or back, is nothing to a run that is adopted', async () => {
      const runs = await Promise.all([3600, 0].map(timeLimit => app.start('tick', ['day'], { timeLimit })))
      for (const run of runs) await run.reader.until(({ entries }) => entries.length > 1)
      for (const days of [1, -1]) {
        await app.kill('workers')
        app.env.NODE_OPTIONS = `--import ${JSON.stringify(`data:text/javascript,const now=Date.now;Date.now=()=>now()+${days * 86_400_000}`)}`
        await app.startWorkers()
        for (const run of runs) await run.reader.until(({ entries }) => entries.length > 50)
      }
      delete app.env.NODE_OPTIONS
      app.letGo('day')
      for (const run of runs) {
        const { outcome, seconds } = await run.outcome()
        assert.equal(outcome, 'ok')
        assert.ok(seconds >= 0 && seconds < 3600, `${seconds} s`)
      }
      await app.kill('workers')
      await app.startWorkers()
    })

    test('starts normally over stale sockets, over torn, empty and foreign files, and with an old unfinished run', async () => {
      await app.kill('workers')
      assert.ok(existsSync(join(app.runs, 'rep.sock')))
      writeFileSync(join(app.runs, 'garbage.ndjson'), 'this is no log\n', { mode: 0o600 })
      writeFileSync(join(app.runs, 'nothing.ndjson'), '{"type":"start","time":5}\n', { mode: 0o600 })
      symlinkSync('nowhere', join(app.runs, 'link.ndjson'))
      mkdirSync(join(app.runs, 'uploads', 'folder'))
      utimesSync(join(app.runs, 'uploads', 'folder'), 1, 1)
      writeFileSync(join(app.runs, 'torn.ndjson'), '{"type":"start","time":1,"data":{"method":"process","args":[],"callId":"","pid":999999,"timeLimit":0}}\n{"ty')
      writeFileSync(join(app.runs, 'empty.ndjson'), '') // its server died in the moment between its creation and its first line
      utimesSync(join(app.runs, 'empty.ndjson'), 1, 1)
      await app.startWorkers()
      for (const id of ['torn', 'empty']) {
        const entries = await (await app.follow(id)).done()
        assert.deepEqual(entries.map(({ type }) => type), ['start', 'error', 'done'])
      }
      assert.equal(readFileSync(join(app.runs, 'garbage.ndjson'), 'utf8'), 'this is no log\n')
      assert.equal(readFileSync(join(app.runs, 'nothing.ndjson'), 'utf8'), '{"type":"start","time":5}\n')
      assert.ok(!existsSync(join(app.runs, 'nowhere')), 'nor is anything created where a link leads')
      assert.equal((await (await app.start('process', [3, 1])).outcome()).outcome, 'ok')
    })
  })
})
