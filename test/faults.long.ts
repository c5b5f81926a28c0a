// Faults, continued from faults.test.ts: those that take longer, or are met more seldom.

import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import {
  appendFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync,
} from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test, type TestContext } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Dealer } from 'zeromq'
import type { Entry } from '../log.ts'
import { App, gone, logOf, missing, ROOT, startApp, startServer, tasksOf, tcpAddresses, until } from './app.ts'

/** An application that has its runs on a disk of 2 MB of its own; undefined where none can be mounted. */
function onSmallDisk(t: TestContext, env: Record<string, string> = {}) {
  const disk = mkdtempSync(join(tmpdir(), 'longrun-disk-'))
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=2m,mode=0700', 'tmpfs', disk], { stdio: 'ignore' })
  } catch {
    rmSync(disk, { recursive: true })
    return undefined
  }
  const app = new App({ RUNS: join(disk, 'runs'), ...env })
  t.after(() => app.end().finally(() => {
    execFileSync('umount', ['-l', disk])
    rmSync(disk, { recursive: true })
  }))
  const filler = join(disk, 'filler')
  return {
    app,
    fill() {
      for (const size of [4096, 1]) assert.throws(() => { for (;;) appendFileSync(filler, 'x'.repeat(size)) }, /ENOSPC/)
    },
    empty() { rmSync(filler) },
    remount(how: string) { execFileSync('mount', ['-o', `remount,${how}`, disk]) },
  }
}

test('an upload larger than any file may be is told so, and leaves nothing', { skip: missing('prlimit') }, async t => {
  const app = new App({})
  t.after(() => app.end())
  await app.startWorkers()
  app.server = await startServer('server.ts', app.env, ROOT, ['prlimit', '--fsize=1000000'])
  app.url = /http:\/\/\S+:\d+/.exec(app.server.ready)![0]
  const { status, body } = await app.request('POST', '/files', Buffer.alloc(2_000_000))
  assert.deepEqual([status, body], [507, { errors: ['there is no space left for the file'] }])
  assert.deepEqual(readdirSync(join(app.runs, 'uploads')), [])
  assert.equal((await app.upload('small')).length, 36)
})

test('on a full disk the run fails with an error that the page shows; the servers and the others go on', async t => {
  const disk = onSmallDisk(t, { PROCESS_LIMIT: '4' })
  if (!disk) return t.skip('a small tmpfs cannot be mounted here')
  const { app } = disk
  await app.startBoth()
  const other = await app.start('process', [60, 50])
  const run = await app.start('flood', [100_000])
  const entries = await run.entries()
  assert.deepEqual(entries.slice(-2).map(({ type }) => type), ['error', 'done'])
  assert.match((entries.at(-1)!.data as { reason: string }).reason, /ENOSPC/)
  assert.ok((await other.entries()).at(-1)!.type === 'done', 'the other has its end, too')
  assert.equal((await app.request('POST', '/files', Buffer.alloc(2 ** 20))).status, 507)
  await app.untilRunning() // from here on, nobody else takes or frees space
  disk.fill()
  const tasks = () => tasksOf(app.runs)
  const before = tasks()
  const refused = await app.request('POST', '/tasks', { method: 'process', args: [2, 1] })
  assert.equal(refused.status, 500)
  assert.match(refused.body.errors[0], /cannot start a log: ENOSPC/)
  await until(() => tasks().some(pid => !before.includes(pid))) // the next spare is loaded all the same
  disk.empty()
  rmSync(join(app.runs, `${run.id}.ndjson`))
  assert.equal((await (await app.start('exit', [0])).entries()).length, 4, 'it works again when there is room')

  // Its log fills a page of the disk but for some bytes: what is appended needs another one.
  const written = [{ type: 'start', time: Date.now(), data: { method: 'deaf', args: [1000, ''], callId: '', pid: 99999, timeLimit: 0 } }, { type: 'log', time: Date.now(), data: { msg: 'deaf' } }]
  const orphan = await app.start('deaf', [1000, 'x'.repeat(4050 - JSON.stringify(written).length)])
  await orphan.reader.until(({ entries }) => entries.length > 1)
  await app.kill('workers')
  await app.startWorkers()
  rmSync(join(app.runs, 'ballast'))
  disk.fill()
  process.kill(orphan.pid, 'SIGKILL')
  const attempts = () => app.workers.output.filter(line => /cannot be ended: ENOSPC/.test(line)).length
  await until(() => attempts() > 0)
  const first = Date.now()
  await until(() => attempts() >= 4)
  assert.ok(Date.now() - first > 2000, 'an adopted run that cannot be ended is tried again each second, not more and more often')
  disk.empty()
  assert.equal((await orphan.outcome()).outcome, 'died')
})

test('on a full disk it starts, and ends what has died meanwhile; on a read-only one it says so', async t => {
  const disk = onSmallDisk(t, { PROCESS_LIMIT: '4' })
  if (!disk) return t.skip('a small tmpfs cannot be mounted here')
  const { app } = disk
  await app.startBoth()
  const lost = await app.start('tick', ['go'])
  await lost.reader.until(({ entries }) => entries.length > 1)
  await app.kill('workers')
  process.kill(lost.pid, 'SIGKILL')
  disk.fill()
  await app.startWorkers()
  assert.equal((await lost.outcome()).outcome, 'died')
  await app.kill('workers', 'SIGTERM')
  disk.fill()
  await app.startWorkers() // after a clean stop, too
  const refused = await app.request('POST', '/tasks', { method: 'process', args: [2, 1] })
  assert.match(refused.body.errors[0], /cannot start a log: ENOSPC/)
  disk.empty()
  assert.equal((await (await app.start('process', [2, 1])).outcome()).outcome, 'ok')
  await app.untilRunning()
  for (const which of ['workers', 'server'] as const) await app.kill(which, 'SIGTERM')
  disk.remount('ro')
  for (const file of ['workers.ts', 'server.ts']) {
    await assert.rejects(startServer(file, app.env), ({ message }: Error) => /EROFS: read-only/.test(message) && !/\n +at /.test(message))
  }
  disk.remount('rw')
  await app.startBoth()
})

const HEAVY = 3_000_000 // times `€"`, which is 15 MB of JSON

test('whoever has heavy entries and results slows down nobody: they are followed, adopted, listed and read', async t => {
  const app = new App({ PROCESS_LIMIT: '8' })
  t.after(() => app.end())
  await app.startBoth()
  const heavy = await Promise.all([1, 2, 3].map(() => app.start('heavy', ['€"', HEAVY, 'go'])))
  for (const { reader } of heavy) await reader.until(({ entries }) => entries.length > 1)
  await app.kill('workers')
  await app.startWorkers()
  const check = async (outcome?: string) => {
    const list: { id: string; outcome?: string }[] = (await app.request('GET', '/tasks')).body
    for (const { id } of heavy) assert.equal(list.find(run => run.id === id)!.outcome, outcome)
    assert.equal((await (await app.start('process', [2, 1])).outcome()).outcome, 'ok')
  }
  await check()
  app.letGo('go')
  for (const run of heavy) {
    const { outcome, result } = await run.outcome()
    assert.deepEqual([outcome, (result as string).length], ['ok', 2 * HEAVY])
  }
  await check('ok')
  await app.kill('workers')
  await app.startWorkers()
  await check('ok')
  const { result } = (await app.request('GET', `/tasks/${heavy[0]!.id}`)).body
  assert.equal(result, '€"'.repeat(HEAVY))
})

test('an entry and a result of 16 MiB are read by everybody, whatever the text; with one byte more they are refused', async t => {
  const app = new App({ PROCESS_LIMIT: '2' })
  t.after(() => app.end())
  await app.startBoth()
  for (const text of ['x', '€', '\u0007']) {
    const bytes = Buffer.byteLength(JSON.stringify(text)) - 2
    const most = Math.floor((2 ** 24 - 2) / bytes)
    for (const [count, entries, reason] of [
      [most - 100, 3, undefined], // with room for what stands beside a result
      [most, 3, /^an entry may have 16777216 bytes, this one has \d+$/], // as an entry it fits
      [most + 1, 2, /^an entry may have 16777216 bytes, this one has \d+$/],
    ] as const) {
      const run = await app.start('heavy', [text, count])
      const done = await run.outcome()
      assert.deepEqual([done.outcome, run.reader.entries.length], [reason ? 'error' : 'ok', reason ? entries + 1 : entries])
      if (reason) assert.match(done.reason!, reason)
      else assert.equal(done.result, text.repeat(count))
      const download = await app.request('GET', `/tasks/${run.id}/log.ndjson`)
      assert.equal(download.body, run.log())
      await app.untilRunning()
    }
  }
})

test('a line of 40 MiB that somebody else has written into a log is passed over by who reads it', async t => {
  const app = new App({})
  t.after(() => app.end())
  await app.startBoth()
  const run = await app.start('tick', ['go'])
  await run.reader.until(({ entries }) => entries.length > 1)
  run.reader.leave() // it counts bytes of entries
  const path = join(app.runs, `${run.id}.ndjson`)
  appendFileSync(path, 'x'.repeat(40 * 2 ** 20))
  const { length } = readFileSync(path)
  await until(() => readFileSync(path).length > length + 200, 'the run has gone on')
  const socket = await app.connect() // as a page, which is to come to the end
  const seen: Entry[] = []
  socket.on('message', text => {
    const { next, entries = [] } = JSON.parse(String(text))
    seen.push(...entries)
    if (next) socket.send(JSON.stringify({ ack: run.id, next }))
  })
  socket.send(JSON.stringify({ start: run.id, next: 0 }))
  app.letGo('go')
  await until(() => seen.at(-1)?.type === 'done', 'a page has it all')
  const read: Entry[] = []
  for (let next = '-1', isClosed = false; !isClosed;) {
    const { status, headers, body } = await app.request('GET', `/tasks/${run.id}/log?offset=${next}`)
    assert.equal(status, 200)
    read.push(...body)
    next = headers.get('stream-next-offset')!
    isClosed = headers.get('stream-closed') === 'true'
  }
  assert.deepEqual(read, seen)
  assert.deepEqual(seen.slice(1, -1).map(({ data }: any) => data.step), [...Array(seen.length - 2).keys()])
  const download: string = (await app.request('GET', `/tasks/${run.id}/log.ndjson`)).body
  assert.deepEqual([download.length, download.split('\n').filter(line => line.trim()).length], [readFileSync(path).length, seen.length])
})

test('of servers that are started at the same moment, whatever their addresses, one runs', async t => {
  const app = new App({})
  t.after(() => app.end())
  for (let round = 0; round < 4; round++) {
    const environments = [{}, tcpAddresses(), { REP_ADDR: `ipc://${app.runs}/other.sock` }]
    const begun = await Promise.allSettled(environments.map(env => startServer('workers.ts', { ...app.env, ...env })))
    const [started, ...others] = begun.flatMap(one => one.status === 'fulfilled' ? one.value : [])
    assert.ok(started && !others.length, `round ${round}: ${begun.map(({ status }) => status)}`)
    for (const one of begun) if (one.status === 'rejected') assert.match(String(one.reason), /another workers server is running on/)
    started.process.kill()
    await started.exited
  }
  await app.startWorkers()
})

test('a spare may be older than the time limit of its run, also for the next server', async t => {
  const app = new App({ SPARES: '1' })
  t.after(() => app.end())
  await app.startBoth()
  const spare = () => tasksOf(app.runs)[0]
  await until(spare, 'there is a spare')
  const ready = performance.now()
  await until(() => performance.now() - ready > 11_000, 'it is old')
  const run = await app.start('tick', ['never'], { timeLimit: 10 })
  await run.reader.until(({ entries }) => entries.length > 1)
  await app.kill('workers')
  await app.startWorkers()
  const { reason, seconds } = await run.outcome()
  assert.equal(reason, 'over its time limit of 10 s')
  assert.ok(seconds > 9.9, `${seconds} s`)
})

test('spares come back after a time of trouble, however often something is started meanwhile', async t => {
  const app = new App({ SPARES: '1', PROCESS_LIMIT: '2' })
  t.after(() => app.end())
  const tasks = join(app.runs, 'own.ts')
  const [trouble, starts] = [join(app.runs, 'trouble'), join(app.runs, 'starts')]
  writeFileSync(tasks, `import { appendFileSync, existsSync } from 'node:fs'
    import { remote } from ${JSON.stringify(join(import.meta.dirname, '../remote.ts'))}
    if (process.send && existsSync(${JSON.stringify(trouble)})) { appendFileSync(${JSON.stringify(starts)}, 'x'); process.exit(7) }
    export const say = remote('', [], () => {})`)
  writeFileSync(trouble, '')
  app.env.TASKS = tasks
  await app.startWorkers()
  await until(() => existsSync(starts) && readFileSync(starts, 'utf8').length > 7, 'the pause has grown to seconds')
  rmSync(trouble)
  const isReady = () => readdirSync(app.runs).some(name => name.startsWith('task.'))
  await until(async () => {
    const id = randomUUID()
    await app.call('say', '', id, '[]')
    await until(() => existsSync(join(app.runs, `${id}.ndjson`)) && logOf(app, id).includes('"done"'), 'it has ended')
    return isReady()
  }, 'there is a spare')
})

suite('A task', { concurrency: 3 }, () => {
  const app = new App({ PROCESS_LIMIT: '16', SPARES: '0' })
  before(() => app.startBoth())
  after(() => app.end())

  for (const how of ['return', 'throw', 'wait']) {
    test(`that started other processes leaves none of them: ${how}`, async () => {
      const run = await app.start('parent', [how])
      const { pids } = (await run.reader.until(({ entries }) => entries.length > 1)).entries[1]!.data as { pids: number[] }
      if (how === 'wait') process.kill(run.pid, 'SIGKILL')
      await run.outcome()
      for (const pid of pids) await gone(pid)
    })
  }
})

suite('The workers server', { concurrency: 4 }, () => {
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

  test('does not storm when spares crash, and every run still has its end', async t => {
    const folder = mkdtempSync(join(tmpdir(), 'longrun-crash-'))
    t.after(() => rmSync(folder, { recursive: true }))
    const mark = join(folder, 'starts')
    const tasks = join(folder, 'tasks.ts')
    // Loads in the workers server, crashes in every task process, and leaves a mark for each.
    writeFileSync(tasks, `import { appendFileSync } from 'node:fs'
      import { remote } from ${JSON.stringify(join(import.meta.dirname, '../remote.ts'))}
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

  test('a run whose log somebody has removed frees its place', async t => {
    const app = new App({ PROCESS_LIMIT: '1' })
    t.after(() => app.end())
    await app.startBoth()
    const run = await app.start('tick', ['go'])
    await run.reader.until(({ entries }) => entries.length > 1)
    rmSync(join(app.runs, `${run.id}.ndjson`))
    app.letGo('go')
    await app.untilRunning()
    assert.equal((await (await app.start('process', [2, 1])).outcome()).outcome, 'ok')
  })

  test('held up between the fork of a process and the first line of its log, which begins all the same', async t => {
    const app = new App({ SPARES: '0', NODE_OPTIONS: `--require ${join(import.meta.dirname, 'mistake.cjs')}` })
    t.after(() => app.end())
    await app.startBoth()
    const run = await app.start('process', [3, 1])
    assert.equal((await run.outcome()).outcome, 'ok')
    assert.deepEqual((await run.types()).filter(type => type !== 'progress'), ['start', 'msg', 'msg', 'msg', 'done'])
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
      await until(() => runs[0]!.log().includes('"done"'))
      assert.deepEqual(await app.call('process', '', randomUUID(), '[]'), ['__BUSY__', 'the workers server is stopping'])
      assert.deepEqual(await app.workers.exited, [0, null])
      for (const run of runs) assert.match(run.log(), /"outcome":"cancelled"[^\n]*\n$/)
      for (const pid of tasksOf(app.runs)) await gone(pid)
      await app.startWorkers() // a reader that was too slow for the last lines gets them now
      for (const run of runs) await run.outcome()
    })
  }

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

  test('ends by an error of its own, and the next one starts', async t => {
    const app = new App({ NODE_OPTIONS: `--require ${join(import.meta.dirname, 'mistake.cjs')}` })
    t.after(() => app.end())
    await app.startBoth()
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

  suite('that ends', { concurrency: 1 }, () => { // one after the other, with the same servers
    const app = new App({ PROCESS_LIMIT: '4', SPARES: '0' })
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

    test('a second signal ends it at once', async () => {
      const endless = 'const later=setTimeout;globalThis.setTimeout=(act,ms,...others)=>later(act,ms===5000&&2**31-1||ms,...others)'
      await app.kill('workers')
      app.env.NODE_OPTIONS = `--import ${JSON.stringify(`data:text/javascript,${endless}`)}` // the grace period: it never ends
      await app.startWorkers()
      delete app.env.NODE_OPTIONS
      const run = await app.start('deaf', [600])
      await run.reader.until(({ entries }) => entries.length > 1)
      const later = setInterval(() => app.workers.process.kill('SIGTERM'), 700) // and not the same Ctrl-C twice
      await app.kill('workers', 'SIGTERM')
      clearInterval(later)
      assert.match(run.log(), /"outcome":"cancelled"[^\n]*\n$/)
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
  })
})
