// What happens when a task, or the workers server, does what it should not, or dies: nothing is lost, every run has
// exactly one end, and no process is left. Everything here is done for real. The web server's faults: server.test.ts.

import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { appendFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Dealer } from 'zeromq'
import { App, gone, processesOf, ROOT, startApp, startServer, tcpAddresses, type Run } from './app.ts'

suite('A task', { concurrency: 4 }, () => {
  const app = new App({ PROCESS_LIMIT: '16', SPARES: '2', MAX_LOG: '30000000' })
  before(async () => {
    await app.startWorkers()
    await app.startServer()
  })
  after(() => app.end())

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
    ['forget', [], 'ended without a result (exit code 0)'],
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

  test('whose result does not fit into MAX_LOG fails with an error that says so, however long its words', async t => {
    const small = await startApp(t, { MAX_LOG: '300000' })
    for (const [method, args, reason] of [['claim', [{ text: 'x'.repeat(200_000) }], /MAX_LOG/], ['crash', ['y'.repeat(200_000), 1], /^y+$/]] as const) {
      const run = await small.start(method, [...args])
      const done = await run.outcome()
      assert.equal(done.outcome, 'error')
      assert.match(done.reason!, reason)
      assert.ok(run.log().length < 300_000 + 3 * 2 ** 16 + 1000, `${run.log().length} bytes`)
    }
  })

  test('that reports more than MAX_LOG fails with an error that says so; others go on', async () => {
    const other = await app.start('process', [20, 20])
    const run = await app.start('flood', [1_000_000])
    const done = await run.outcome()
    assert.equal(done.outcome, 'error')
    assert.match(done.reason!, /MAX_LOG/)
    assert.ok(run.log().length < 30_000_000 + 2000)
    assert.equal((await other.outcome()).outcome, 'ok')
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

test('a task that runs out of memory: its entries, an error, done; the servers go on', async t => {
  const app = await startApp(t, { NODE_OPTIONS: '--max-old-space-size=150' })
  const run = await app.start('hoard')
  const done = await run.outcome()
  assert.equal(done.outcome, 'died')
  assert.match(done.reason!, /SIGABRT|SIGTRAP|exit code 134/)
  assert.deepEqual(await run.types(), ['start', 'log', 'error', 'done'])
  assert.equal((await (await app.start('process', [2, 1])).outcome()).outcome, 'ok')
})

test('on a full disk the run fails with an error that the page shows; the servers and the others go on', async t => {
  const disk = mkdtempSync(join(tmpdir(), 'longrun-disk-'))
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=2m,mode=0700', 'tmpfs', disk], { stdio: 'ignore' })
  } catch {
    rmSync(disk, { recursive: true })
    return t.skip('a small tmpfs cannot be mounted here')
  }
  const app = new App({ RUNS: join(disk, 'runs'), PROCESS_LIMIT: '4' })
  t.after(() => app.end().finally(() => {
    execFileSync('umount', ['-l', disk])
    rmSync(disk, { recursive: true })
  }))
  await app.startWorkers()
  await app.startServer()
  const other = await app.start('process', [60, 50])
  const run = await app.start('flood', [100_000])
  const entries = await run.entries()
  assert.deepEqual(entries.slice(-2).map(({ type }) => type), ['error', 'done'])
  assert.match((entries.at(-1)!.data as { reason: string }).reason, /ENOSPC/)
  assert.ok((await other.entries()).at(-1)!.type === 'done', 'the other has its end, too')
  assert.equal((await app.request('POST', '/files', Buffer.alloc(2 ** 20))).status, 507)
  while ((await app.request('GET', '/health')).body.running) await sleep(20) // from here on, nobody else takes or frees space
  const filler = join(disk, 'filler')
  assert.throws(() => { for (;;) appendFileSync(filler, Buffer.alloc(4096)) }, /ENOSPC/)
  const tasks = () => processesOf(app.runs).filter(({ command }) => command.includes('task.ts')).map(({ pid }) => pid)
  const before = tasks()
  const refused = await app.request('POST', '/tasks', { method: 'process', args: [2, 1] })
  assert.equal(refused.status, 500)
  assert.match(refused.body.errors[0], /cannot start a log: ENOSPC/)
  while (tasks().every(pid => before.includes(pid))) await sleep(50) // the next spare is loaded all the same
  rmSync(filler)
  rmSync(join(app.runs, `${run.id}.ndjson`))
  assert.equal((await (await app.start('exit', [0])).entries()).length, 4, 'it works again when there is room')

  // Its log fills a page of the disk but for some bytes: what is appended needs another one.
  const written = [{ type: 'start', time: Date.now(), data: { method: 'deaf', args: [1000, ''], callId: '', pid: 99999, timeLimit: 0 } }, { type: 'log', time: Date.now(), data: { msg: 'deaf' } }]
  const orphan = await app.start('deaf', [1000, 'x'.repeat(4050 - JSON.stringify(written).length)])
  await orphan.reader.until(({ entries }) => entries.length > 1)
  await app.kill('workers')
  await app.startWorkers()
  rmSync(join(app.runs, 'ballast'))
  assert.throws(() => { for (;;) appendFileSync(filler, 'x') }, /ENOSPC/)
  process.kill(orphan.pid, 'SIGKILL')
  const attempts = () => app.workers.output.filter(line => /cannot be ended: ENOSPC/.test(line)).length
  while (!attempts()) await sleep(10)
  const first = Date.now()
  while (attempts() < 4) await sleep(10)
  assert.ok(Date.now() - first > 2000, 'an adopted run that cannot be ended is tried again each second, not more and more often')
  rmSync(filler)
  assert.equal((await orphan.outcome()).outcome, 'died')
})

suite('The workers server', { concurrency: 4 }, () => {
  test('refuses what is wrong, says why, and serves the next request', async t => {
    const app = await startApp(t)
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
    assert.deepEqual((await app.call('list', '', '', '[]')), ['__RES__', '[]'], 'none of these was started')
    assert.equal((await app.call('process', '', id, '[1,1]'))[0], '')
  })

  test('serves the next request, 30 rounds of 30, after garbage, HTTP, peers that are no REQ, and callers that die', async t => {
    const app = await startApp(t)
    const path = `${app.runs}/rep.sock`
    for (let round = 0; round < 30; round++) {
      const raw = connect(path).on('error', () => {})
      await once(raw, 'connect')
      raw.end(round % 2 ? 'GET / HTTP/1.1\r\nHost: x\r\n\r\n' : Buffer.from(Array.from({ length: 200 }, (_, i) => (i * round * 7) % 256)))
      const dealer = new Dealer({ linger: 0 })
      dealer.connect(`ipc://${path}`)
      await dealer.send(['no delimiter'])
      await dealer.send([''])
      await dealer.send(['', 'list', '', '', '[]']) // a caller that dies before its reply
      if (round % 2) await dealer.receive()
      dealer.close()
      assert.equal((await app.call('ping', '', '', '[]'))[0], '__RES__', `round ${round}`)
    }
  })

  test('says so when a process cannot be started, keeps the place free, and goes on', async t => {
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

  test('does not storm when spares crash, and every run still has its end', async t => {
    const folder = mkdtempSync(join(tmpdir(), 'longrun-crash-'))
    t.after(() => rmSync(folder, { recursive: true }))
    const mark = join(folder, 'starts')
    const tasks = join(folder, 'tasks.ts')
    // Loads in the workers server, crashes in every task process, and leaves a mark for each.
    writeFileSync(tasks, `import { appendFileSync } from 'node:fs'
      import { remote } from ${JSON.stringify(join(import.meta.dirname, '../task.ts'))}
      if (process.send) { appendFileSync(${JSON.stringify(mark)}, 'x'); process.exit(7) }
      export const doomed = remote('never runs', [], () => {})`)
    const began = Date.now()
    const app = await startApp(t, { TASKS: tasks })
    const runs = await Promise.all([app.start('doomed'), app.start('doomed')])
    for (const run of runs) {
      const done = await run.outcome()
      assert.deepEqual([done.outcome, done.reason], ['died', 'ended without a result (exit code 7)'])
      assert.deepEqual(await run.types(), ['start', 'error', 'done'])
    }
    await sleep(3000) // nothing is to happen, or rather: not much
    const [starts, time] = [readFileSync(mark, 'utf8').length, Date.now() - began]
    assert.ok(starts <= 5 + Math.log2(time / 20), `${starts} processes in ${time} ms`) // each pause is twice as long as the last
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
    while ((await app.request('GET', '/health')).body.running > 1) await sleep(20) // one is left of those that were adopted
    const more = []
    for (let place = 1; place < 5; place++) more.push(await app.start('tick', ['go']))
    assert.equal((await app.call('process', '', randomUUID(), '[]'))[0], '__BUSY__')
    app.letGo('go')
    for (const run of [steady, ...more]) assert.equal((await run.outcome()).outcome, 'ok')
    const list = (await app.request('GET', '/tasks')).body
    assert.ok(list.length === 9 && list.every(({ outcome }: { outcome?: string }) => outcome), 'all have ended')
  })

  test('a run whose log somebody has removed frees its place', async t => {
    const app = new App({ PROCESS_LIMIT: '1' })
    t.after(() => app.end())
    await app.startWorkers()
    await app.startServer()
    const run = await app.start('tick', ['go'])
    await run.reader.until(({ entries }) => entries.length > 1)
    rmSync(join(app.runs, `${run.id}.ndjson`))
    app.letGo('go')
    while ((await app.request('GET', '/health')).body.running) await sleep(20)
    assert.equal((await (await app.start('process', [2, 1])).outcome()).outcome, 'ok')
  })

  test('a process id that has come round again is not taken for the run', async t => {
    const app = new App({})
    t.after(() => app.end())
    await app.startWorkers()
    await app.kill('workers')
    const stranger = spawn('sleep', ['100'], { detached: true })
    t.after(() => stranger.kill())
    const start = { type: 'start', time: Date.now(), data: { method: 'process', args: [], callId: '', pid: stranger.pid, timeLimit: 0 } }
    writeFileSync(join(app.runs, 'old.ndjson'), JSON.stringify(start) + '\n', { mode: 0o600 })
    await app.startWorkers()
    assert.equal(JSON.parse((await app.call('stat', '', '', '[["old"]]'))[1]).old.done, true)
    assert.deepEqual([stranger.exitCode, stranger.signalCode], [null, null], 'and it is not killed')
  })

  test('held up between the fork of a process and the first line of its log, which begins all the same', async t => {
    const app = new App({ SPARES: '0', NODE_OPTIONS: `--require ${join(import.meta.dirname, 'mistake.cjs')}` })
    t.after(() => app.end())
    await app.startWorkers()
    await app.startServer()
    const run = await app.start('process', [3, 1])
    assert.equal((await run.outcome()).outcome, 'ok')
    assert.deepEqual(await run.types(), ['start', 'msg', 'progress', 'msg', 'msg', 'progress', 'done'])
  })

  test('killed and never started again: the page is told, the runs finish in their logs, the spares end', async t => {
    const app = await startApp(t)
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

  test('stopped for ten seconds: the page is told meanwhile, nothing is lost', async t => {
    const app = await startApp(t)
    const run = await app.start('tick', ['go'])
    await run.reader.until(({ entries }) => entries.length > 1)
    app.workers.process.kill('SIGSTOP')
    await Promise.all([sleep(10_000), run.reader.until(({ workers }) => workers.at(-1) === false)])
    app.workers.process.kill('SIGCONT')
    await run.reader.until(({ workers }) => workers.at(-1) === true)
    app.letGo('go')
    assert.equal((await run.outcome()).outcome, 'ok')
  })

  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    test(`asked to stop by ${signal}: refuses new calls, cancels the runs, writes every done, leaves nothing`, async t => {
      const app = await startApp(t, { PROCESS_LIMIT: '4' })
      const runs = [await app.start('polite'), await app.start('deaf', [600]), await app.start('process', [100_000, 10])]
      for (const run of runs) await run.reader.until(({ entries }) => entries.length > 1)
      app.workers.process.kill(signal)
      while (!runs[0]!.log().includes('"done"')) await sleep(10)
      assert.deepEqual(await app.call('process', '', randomUUID(), '[]'), ['__BUSY__', 'the workers server is stopping'])
      assert.deepEqual(await app.workers.exited, [0, null])
      for (const run of runs) assert.match(run.log(), /"outcome":"cancelled"[^\n]*\n$/)
      for (const { pid } of processesOf(app.runs)) if (pid !== app.server.process.pid) await gone(pid)
      await app.startWorkers() // a reader that was too slow for the last lines gets them now
      for (const run of runs) await run.outcome()
    })
  }

  test('a second signal ends it at once', async t => {
    const app = await startApp(t)
    const run = await app.start('deaf', [600])
    await run.reader.until(({ entries }) => entries.length > 1)
    app.workers.process.kill('SIGTERM')
    const later = setInterval(() => app.workers.process.kill('SIGTERM'), 700) // and not the same Ctrl-C twice
    await app.workers.exited
    clearInterval(later)
    const done = run.log().trimEnd().split('\n').at(-1)!
    assert.ok(JSON.parse(done).data.seconds < 5, done)
  })

  test('started twice: the second refuses with a clear message, the first is unharmed', async t => {
    const app = await startApp(t)
    const run = await app.start('tick', ['go'])
    const other = mkdtempSync(join(tmpdir(), 'longrun-other-'))
    t.after(() => rmSync(other, { recursive: true }))
    const addresses = Object.fromEntries(['REP', 'XSUB', 'XPUB'].map(name => [`${name}_ADDR`, `ipc://${app.runs}/${name.toLowerCase()}.sock`]))
    const refuses = async () => {
      for (const env of [{}, tcpAddresses()]) {
        await assert.rejects(startServer('workers.ts', { ...app.env, ...env }), new RegExp(`another workers server is running on ${app.runs}, process ${app.workers.process.pid}`))
      }
      await assert.rejects(startServer('workers.ts', { ...app.env, ...addresses, RUNS: other }), /another workers server is running on ipc:/)
    }
    await refuses()
    app.workers.process.kill('SIGSTOP') // even when it cannot answer
    await refuses()
    app.workers.process.kill('SIGCONT')
    app.letGo('go')
    assert.equal((await run.outcome()).outcome, 'ok')
    assert.equal((await (await app.start('process', [3, 1])).outcome()).outcome, 'ok')
    for (const name of ['rep', 'xsub', 'xpub']) rmSync(join(app.runs, `${name}.sock`))
    await assert.rejects(startServer('workers.ts', app.env), /another workers server is running on/)
  })

  test('starts normally over stale sockets, over torn, empty and foreign files, and with an old unfinished run', async t => {
    const app = new App({})
    t.after(() => app.end())
    await app.startWorkers()
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
    await app.startServer()
    for (const id of ['torn', 'empty']) {
      const entries = await (await app.follow(id)).done()
      assert.deepEqual(entries.map(({ type }) => type), ['start', 'error', 'done'])
    }
    assert.equal(readFileSync(join(app.runs, 'garbage.ndjson'), 'utf8'), 'this is no log\n')
    assert.equal(readFileSync(join(app.runs, 'nothing.ndjson'), 'utf8'), '{"type":"start","time":5}\n')
    assert.ok(!existsSync(join(app.runs, 'nowhere')), 'nor is anything created where a link leads')
    assert.equal((await (await app.start('process', [3, 1])).outcome()).outcome, 'ok')
  })

  test('ends by an error of its own, and the next one starts', async t => {
    const app = new App({ NODE_OPTIONS: `--require ${join(import.meta.dirname, 'mistake.cjs')}` })
    t.after(() => app.end())
    await app.startWorkers()
    await app.startServer()
    const run = await app.start('tick', ['go'])
    app.workers.process.kill('SIGUSR2')
    assert.deepEqual(await app.workers.exited, [1, null])
    await app.startWorkers()
    app.letGo('go')
    assert.equal((await run.outcome()).outcome, 'ok')
  })

  test('whoever follows what is no log of a run disturbs nobody', async t => {
    const app = await startApp(t)
    writeFileSync(join(app.runs, 'garbage.ndjson'), 'this is no log\n', { mode: 0o600 })
    await app.follow('garbage')
    const run = await app.start('process', [100, 10])
    await run.outcome()
    const stat = JSON.parse((await app.call('stat', '', '', JSON.stringify([['garbage', run.id]])))[1])
    assert.deepEqual(Object.keys(stat), [run.id])
    assert.deepEqual(await app.call('process', '', 'garbage', '[1,1]'), ['__ERROR__', 'conflict: already used: the id garbage; every run needs a new one'])
    assert.deepEqual(await app.call('cancel', '', '', '["garbage"]'), ['__ERROR__', 'unknown: unknown run garbage'])
    assert.ok(!run.reader.workers.includes(false), 'nor has the workers server gone')
  })

  test('a bad setting is a clear error at the start', async t => {
    const app = new App({})
    t.after(() => app.end())
    const module = (name: string, text: string) => {
      writeFileSync(join(app.runs, name), `import { remote } from '${ROOT}/task.ts'\n${text}`)
      return join(app.runs, name)
    }
    for (const [env, message] of [
      [{ PROCESS_LIMIT: 'many' }, /PROCESS_LIMIT=many is not a whole number from 1/],
      [{ PROCESS_LIMIT: '0' }, /PROCESS_LIMIT=0/],
      [{ TIME_LIMIT: '-1' }, /TIME_LIMIT=-1/],
      [{ REP_ADDR: 'udp://x' }, /REP_ADDR=udp:\/\/x is neither/],
      [{ REP_ADDR: `ipc:///tmp/${'x'.repeat(120)}` }, /longer than 107 bytes/],
      [{ REP_ADDR: 'tcp://nonsense' }, /REP_ADDR=tcp:\/\/nonsense is neither/],
      [{ XSUB_ADDR: 'tcp://*:7000' }, /XSUB_ADDR=tcp:\/\/\*:7000 is neither/],
      [{ REP_ADDR: 'tcp://nowhere.invalid:7000' }, /cannot listen on tcp:\/\/nowhere/],
      [{ TASKS: '/nowhere.ts' }, /cannot load the remote functions, TASKS is \/nowhere.ts: .*Cannot find module/],
      [{ TASKS: module('unmarked.ts', 'export const x = () => {}') }, /unmarked.ts exports no remote function/],
      [{ TASKS: module('nameless.ts', "export default remote('', [], () => {})") }, /cannot be named default: export const/],
      [{ TASKS: module('wrong.ts', "export const x = remote('without parameters', () => {})") }, /remote\(\) takes a description, an array of parameters, and a function/],
      [{ RUNS: '/dev/null' }, /cannot create the runs folder/],
    ] as [Record<string, string>, RegExp][]) {
      await assert.rejects(startServer('workers.ts', { ...app.env, ...env }), message)
    }
  })
})
