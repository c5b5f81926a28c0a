// What happens when a task, or the workers server, does what it should not, or dies: nothing is lost, every run has
// exactly one end, and no process is left. Everything here is done for real. The web server's faults: server.test.ts.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { appendFileSync, existsSync, mkdirSync, readFileSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import type { Entry } from '../log.ts'
import { App, gone, logOf, type Run, startApp, tasksOf, until } from './app.ts'

const app = new App({ PROCESS_LIMIT: '16' })
const small = new App({ PROCESS_LIMIT: '16', MAX_LOG: '300000', SPARES: '0', NODE_OPTIONS: '--max-old-space-size=150' })
before(() => Promise.all([app.startBoth(), small.startBoth()]))
after(() => Promise.all([app.end(), small.end()]))

suite('A log into which somebody else writes', { concurrency: 8 }, () => {
  /** Writes into the log of a run that goes on, and waits until that has gone on behind it. */
  async function write(run: Run, text: string) {
    const path = join(app.runs, `${run.id}.ndjson`)
    run.reader.leave() // it counts bytes of entries
    appendFileSync(path, text)
    const { length } = readFileSync(path)
    await until(() => readFileSync(path).length > length + 200, 'the run has gone on')
  }

  /** How a run has ended, once it has; and its entries. */
  async function endOf({ id }: Run) {
    await until(async () => (await app.request('GET', `/tasks/${id}`)).body.outcome, `${id} has ended`)
    const { body } = await app.request('GET', `/tasks/${id}`)
    const { body: entries } = await app.request('GET', `/tasks/${id}/log?offset=-1`)
    assert.deepEqual(entries.map(({ type }: Entry) => type).filter((type: string) => /start|done/.test(type)), ['start', 'done'])
    assert.equal(entries.at(-1).type, 'done')
    return { ...body, entries }
  }

  for (const text of [
    'hello', '\0'.repeat(1000), 'hello\n', '{"type":"\n', '{"type":"msg","time":17', '{"type":"progress","time":1,oops\n',
    '{"type":"msg","time":1,"data":{"a":{"b":1}\n', '{"type":"done","time":1,"data":{}}\n', '{"type":"done","time":1}\n{"type":"',
  ]) {
    test(`loses no entry, and ends as it would have: ${JSON.stringify(text.slice(0, 50))}`, async () => {
      const name = `behind-${randomUUID()}`
      const run = await app.start('tick', [name])
      await run.reader.until(({ entries }) => entries.length > 1)
      await write(run, text)
      await write(run, text)
      assert.equal((await app.request('GET', `/tasks/${run.id}`)).body.outcome, undefined)
      app.letGo(name)
      const { outcome, entries } = await endOf(run)
      assert.equal(outcome, 'ok')
      assert.deepEqual(entries.slice(1, -1).map(({ data }: any) => data.step), [...Array(entries.length - 2).keys()])
    })

    test(`has its end when its process dies behind ${JSON.stringify(text.slice(0, 50))}`, async () => {
      const run = await app.start('forget')
      await run.reader.until(({ entries }) => entries.length > 1)
      run.reader.leave()
      appendFileSync(join(app.runs, `${run.id}.ndjson`), text)
      process.kill(run.pid, 'SIGKILL')
      const { outcome, reason } = await endOf(run)
      assert.deepEqual([outcome, reason], ['died', 'killed by SIGKILL'])
    })
  }

  test('tells its step and its result, whatever looks like a step behind them', async () => {
    const run = await app.start('parts', [randomUUID()])
    await run.reader.until(({ entries }) => entries.length > 4)
    run.reader.leave()
    for (const text of ['{"type":"step","time":1}\n', '{"type":"step","time":1,"data":null}\n']) {
      appendFileSync(join(app.runs, `${run.id}.ndjson`), text)
    }
    const { step, progress } = (await app.request('GET', `/tasks/${run.id}`)).body
    assert.deepEqual([step, progress], ['test', { current: 12, total: 30 }])
    await run.cancel()
    const { outcome, reason } = await endOf(run)
    assert.deepEqual([outcome, reason], ['cancelled', 'cancelled'])
  })

  test('begins its run, whatever stands there before its process has looked at it', async t => {
    const app = await startApp(t, { SPARES: '1', PROCESS_LIMIT: '8' })
    for (const text of ['hello', 'hello\n', '{"type":"\n', '{"type":"msg","time":1,"data":1}\n', '{"type":"done","time":1,"data":{}}\n']) {
      await until(() => tasksOf(app.runs).length > 0, 'there is a spare')
      const spare = tasksOf(app.runs)[0]!
      process.kill(spare, 'SIGSTOP')
      const id = randomUUID()
      const { pid } = (await app.request('POST', '/tasks', { method: 'claim', args: [{ a: 1 }], id })).body
      appendFileSync(join(app.runs, `${id}.ndjson`), text)
      process.kill(spare, 'SIGCONT')
      assert.equal(pid, spare)
      await until(async () => (await app.request('GET', `/tasks/${id}`)).body.outcome, `${id} has ended`)
      const { outcome, result } = (await app.request('GET', `/tasks/${id}`)).body
      assert.deepEqual([outcome, result], ['ok', { a: 1 }], text)
      await app.untilRunning()
      await gone(pid)
    }
  })
})

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

    test('killed and never started again: the page is told, the runs finish in their logs, the spares end', async () => {
      const run = await app.start('tick', ['go'])
      await run.reader.until(({ entries }) => entries.length > 1)
      await app.kill('workers')
      await run.reader.until(({ workers }) => workers.at(-1) === false)
      app.letGo('go')
      await gone(run.pid)
      assert.match(run.log(), /"outcome":"ok"[^\n]*\n$/)
      for (const pid of tasksOf(app.runs)) await gone(pid) // the spares
      assert.equal((await app.request('GET', '/health')).status, 503)
      await app.startWorkers()
      assert.equal((await run.outcome()).outcome, 'ok')
    })

    test('killed while the process of a run still loads: the run goes on, whether or not it is started again', async () => {
      const own = new App({ SPARES: '0' })
      for (const isStartedAgain of [false, true]) {
        await own.startWorkers()
        const id = `loading-${isStartedAgain}`
        const [, pid] = await own.call('process', '', id, '[1, 1]')
        process.kill(Number(pid), 'SIGSTOP')
        await own.kill('workers')
        if (isStartedAgain) await own.startWorkers()
        process.kill(Number(pid), 'SIGCONT')
        await until(() => /"outcome":"ok"[^\n]*\n$/.test(logOf(own, id)), `${id} has ended well`)
      }
      await own.end()
    })

    test('starts normally over stale sockets, over torn, empty and foreign files, and with an old unfinished run', async () => {
      await app.kill('workers')
      assert.ok(existsSync(join(app.runs, 'rep.sock')))
      const line = (entry: object) => `${JSON.stringify(entry)}\n`
      const data = { method: 'process', args: [], callId: '', pid: 999999, timeLimit: 0 }
      const foreign = ['this is no log\n', 'nor is this, which has no end', 'null\n', line({ type: 'start', time: 5 }),
        ...[5, { ...data, args: {} }, { ...data, pid: 'x' }, { ...data, method: {} }].map(data => line({ type: 'start', time: 5, data })),
        ...['x', null].map(time => line({ type: 'start', time, data }))]
      foreign.forEach((text, at) => writeFileSync(join(app.runs, `foreign${at}.ndjson`), text, { mode: 0o600 }))
      symlinkSync('nowhere', join(app.runs, 'link.ndjson'))
      mkdirSync(join(app.runs, 'uploads', 'folder'))
      utimesSync(join(app.runs, 'uploads', 'folder'), 1, 1)
      const call = line({ type: 'start', time: 1, data })
      writeFileSync(join(app.runs, 'torn.ndjson'), `${call}{"ty`)
      // What is no file would hold up who opens it for ever, or fail each time: a folder, a FIFO.
      const beside = ['stop', 'stderr', 'began', 'ndjson.copy'].flatMap(ending => [`a-folder.${ending}`, `a-pipe.${ending}`])
      const odd = [...beside, 'pipe.ndjson'].map(name => join(app.runs, name))
      for (const path of odd) execFileSync(path.includes('folder') ? 'mkdir' : 'mkfifo', [path])
      for (const id of ['a-folder', 'a-pipe']) writeFileSync(join(app.runs, `${id}.ndjson`), call)
      writeFileSync(join(app.runs, 'empty.ndjson'), '') // its server died in the moment between its creation and its first line
      utimesSync(join(app.runs, 'empty.ndjson'), 1, 1)
      await app.startWorkers()
      for (const id of ['torn', 'empty', 'a-folder', 'a-pipe']) {
        const entries = await (await app.follow(id)).done()
        assert.deepEqual(entries.map(({ type }) => type), ['start', 'error', 'done'])
      }
      assert.deepEqual(foreign.map((_, at) => readFileSync(join(app.runs, `foreign${at}.ndjson`), 'utf8')), foreign)
      assert.ok(!existsSync(join(app.runs, 'nowhere')), 'nor is anything created where a link leads')
      assert.deepEqual(odd.filter(path => existsSync(path)), [join(app.runs, 'pipe.ndjson')])
      assert.match(app.workers.output.join('\n'), /cannot adopt .*pipe\.ndjson, which is left alone/)
      assert.equal((await (await app.start('process', [3, 1])).outcome()).outcome, 'ok')
    })
  })
})
