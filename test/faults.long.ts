// Faults, continued from faults.test.ts: those that take longer, or are met more seldom.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Dealer } from 'zeromq'
import { App, gone, processesOf, startApp, startServer, tcpAddresses, until } from './app.ts'

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
  await app.startBoth()
  const other = await app.start('process', [60, 50])
  const run = await app.start('flood', [100_000])
  const entries = await run.entries()
  assert.deepEqual(entries.slice(-2).map(({ type }) => type), ['error', 'done'])
  assert.match((entries.at(-1)!.data as { reason: string }).reason, /ENOSPC/)
  assert.ok((await other.entries()).at(-1)!.type === 'done', 'the other has its end, too')
  assert.equal((await app.request('POST', '/files', Buffer.alloc(2 ** 20))).status, 507)
  await app.untilRunning() // from here on, nobody else takes or frees space
  const filler = join(disk, 'filler')
  assert.throws(() => { for (;;) appendFileSync(filler, Buffer.alloc(4096)) }, /ENOSPC/)
  const tasks = () => processesOf(app.runs).filter(({ command }) => command.includes('task.ts')).map(({ pid }) => pid)
  const before = tasks()
  const refused = await app.request('POST', '/tasks', { method: 'process', args: [2, 1] })
  assert.equal(refused.status, 500)
  assert.match(refused.body.errors[0], /cannot start a log: ENOSPC/)
  await until(() => tasks().some(pid => !before.includes(pid))) // the next spare is loaded all the same
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
  await until(() => attempts() > 0)
  const first = Date.now()
  await until(() => attempts() >= 4)
  assert.ok(Date.now() - first > 2000, 'an adopted run that cannot be ended is tried again each second, not more and more often')
  rmSync(filler)
  assert.equal((await orphan.outcome()).outcome, 'died')
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
      for (const { pid } of processesOf(app.runs)) if (pid !== app.server.process.pid) await gone(pid)
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
})
