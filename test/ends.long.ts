// The end of a run, continued from ends.test.ts: every way to say what was wrong, functions that change meanwhile, and
// what is met more seldom.

import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync, closeSync, constants, existsSync, mkdirSync, mkdtempSync, openSync, readdirSync,
  readFileSync, rmSync, symlinkSync, truncateSync, writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import type { Note } from '../log.ts'
import { App, bareEnvironment, gone, logOf, ROOT, startApp, until } from './app.ts'

const MODULE_OF_ONES_OWN = `import { remote } from '${ROOT}/remote.ts'\n`

suite('What was wrong is said, with its causes', { concurrency: 4 }, () => {
  const app = new App({ PROCESS_LIMIT: '16', SPARES: '2' })
  before(() => app.startBoth())
  after(() => app.end())

  for (const [kind, words] of [
    ['fetch', [/^fetch failed: .*(ECONNREFUSED|bad port)/, /cause/]],
    ['aggregate', [/the first; the second/, /"errors":\[/]],
    ['cause', [/^outside: inside: a text$/, /"cause":\{"msg":"inside: a text"/]],
    ['code', [/no such file/, /"code":"ENOENT"/]],
    ['text', [/^a text$/, /a text/]],
    ['object', [/status: 7/, /status/]],
  ] as [string, [RegExp, RegExp]][]) {
    for (const how of ['throw', 'error', 'cause', 'msg', 'return']) {
      test(`${how} ${kind}`, async () => {
        const run = await app.start('explain', [kind, how])
        const done = await run.outcome()
        const [, second] = run.reader.entries
        const found = how === 'return' ? done.result : how === 'msg' ? (second!.data as { failed: unknown }).failed : second!.data
        const isError = !['text', 'object'].includes(kind)
        if (how === 'cause') assert.equal((found as Note).msg, 'it failed')
        else if (isError || how === 'throw' || how === 'error') assert.match((found as Note).msg, words[0])
        assert.match(JSON.stringify(found), words[1])
        if (how === 'throw') assert.match(done.reason!, words[0])
      })
    }
  }
})

test('functions that were edited, broken or removed since the start are not run; a restart runs them', async t => {
  const app = new App({ PROCESS_LIMIT: '8' })
  t.after(() => app.end())
  const [tasks, part, more, link] = ['own.ts', 'part.ts', 'lib/index.js', 'lib/link.ts'].map(name => join(app.runs, name)) as [string, string, string, string]
  const [original, whole] = [`export const word = 'old'\n`, `${MODULE_OF_ONES_OWN}import { word } from './part.ts'\nimport { end } from './lib'\nexport const say = remote('', [], () => word + end)\n`]
  mkdirSync(join(app.runs, 'lib'))
  writeFileSync(more, `exports.end = ''\n`)
  writeFileSync(part, original)
  writeFileSync(tasks, whole)
  symlinkSync(tasks, link)
  app.env.TASKS = link
  await app.startBoth()
  assert.equal((await (await app.start('say')).outcome()).result, 'old')
  for (const [file, text] of [[part, `export const word = 'new'\n`], [more, `exports.end = 'er'\n`], [tasks, 'this is (no module'], [tasks, whole.replace('say', 'tell')], [part, undefined]] as const) {
    text === undefined ? rmSync(file) : writeFileSync(file, text)
    for (const run of [await app.start('say'), await app.start('say'), await app.start('say')]) { // a spare may have loaded before
      const { result, reason } = await run.outcome()
      assert.ok(result === 'old' || /were changed since .* restart it/.test(reason!), `${result} ${reason}`)
    }
    assert.match((await (await app.start('say')).outcome()).reason!, /were changed since .* restart it/)
    writeFileSync(part, original)
    writeFileSync(more, `exports.end = ''\n`)
    writeFileSync(tasks, whole)
  }
  await (await app.start('say')).outcome() // by a spare, perhaps, that has loaded what was wrong
  assert.equal((await (await app.start('say')).outcome()).result, 'old', 'as it was is right again')
  writeFileSync(part, `export const word = 'new'\n`)
  await app.kill('workers', 'SIGTERM')
  await app.startWorkers()
  assert.equal((await (await app.start('say')).outcome()).result, 'new')
})

test('a run ends, however much its process said on stderr while nobody was there to cut it', async t => {
  const app = await startApp(t)
  const run = await app.start('polite')
  await run.reader.until(({ entries }) => entries.length > 1)
  await app.kill('workers')
  truncateSync(join(app.runs, `${run.id}.stderr`), 5 * 2 ** 30) // a hole takes no room
  appendFileSync(join(app.runs, `${run.id}.stderr`), '\nlast words\n')
  process.kill(run.pid, 'SIGKILL')
  await app.startWorkers()
  assert.match((await run.outcome()).reason!, /last words$/)
})

test('what a run has left goes with it, whatever the folder of the runs is called', async t => {
  const app = await startApp(t, { RUNS: mkdtempSync(join(tmpdir(), 'longrun-läufe-')) })
  const run = await app.start('daemons', ['return'])
  await run.outcome()
  for (const pid of (run.reader.entries[1]!.data as { pids: number[] }).pids) await gone(pid)
})

test('a task that fails before its first line says why', async t => {
  const app = new App({})
  t.after(() => app.end())
  const tasks = join(app.runs, 'own.ts')
  writeFileSync(tasks, `${MODULE_OF_ONES_OWN}if (process.send) throw new Error('no home')\nexport const say = remote('', [], () => {})\n`)
  app.env.TASKS = tasks
  await app.startBoth()
  assert.match((await (await app.start('say')).outcome()).reason!, /no home/)
})

test('what a server and its processes leave in the folder when they are killed is gone after the next start', async t => {
  const app = new App({})
  t.after(() => app.end())
  await app.startWorkers()
  await app.kill('workers')
  for (const name of ['task.123.stderr', 'nobody.stderr', 'nobody.stop', 'nobody.ndjson.copy']) {
    writeFileSync(join(app.runs, name), '{"type":"start"')
  }
  await app.startWorkers()
  const left = readdirSync(app.runs).filter(name => /task\.123|nobody/.test(name))
  assert.deepEqual(left, [])
})

test('a log that cannot be opened when the server starts is looked at again, and costs no call its process', async t => {
  const app = new App({ SPARES: '1' })
  t.after(() => app.end())
  const path = join(app.runs, 'odd.ndjson')
  const odd = createServer().listen(path) // a socket
  await once(odd, 'listening')
  await app.startWorkers()
  await until(() => readdirSync(app.runs).some(name => name.startsWith('task.')), 'there is a spare')
  odd.close()
  rmSync(path, { force: true })
  await until(() => app.workers.output.some(line => /cannot adopt .*odd.* left alone/.test(line)), 'it has looked again')
  assert.equal((await app.call('process', '', 'next', '[1,1]'))[0], '')
})

test('a terminal that takes no output stops nobody: neither server, nor a task that prints', { timeout: 120_000 }, async t => {
  const app = new App({})
  t.after(() => app.end())
  const pipe = join(app.runs, 'pipe') // as a terminal after Ctrl-S: it is there, and full
  execFileSync('mkfifo', [pipe])
  const reader = openSync(pipe, constants.O_RDONLY | constants.O_NONBLOCK)
  t.after(() => closeSync(reader))
  const start = (file: string, env: Record<string, string>) => {
    const child = spawn('sh', ['-c', `exec node --import ./loader.js ${file} >${pipe} 2>&1`], { cwd: ROOT, env: { ...bareEnvironment(), ...app.env, ...env }, stdio: 'ignore' })
    t.after(() => child.kill('SIGKILL'))
    return child
  }
  const workers = start('workers.ts', {})
  await until(() => existsSync(join(app.runs, 'rep.sock')))
  for (let line = 0; line < 3; line++) {
    assert.equal((await app.call('chatter', '', `chatter${line}`, '[2000]'))[0], '')
    await until(() => logOf(app, `chatter${line}`).includes('"done"'))
    assert.match(readFileSync(join(app.runs, `chatter${line}.ndjson`), 'utf8'), /"printed"[^]*"outcome":"ok"/)
  }
  assert.equal((await app.call('ping', '', '', '[]'))[0], '__RES__')
  workers.kill('SIGTERM')
  assert.deepEqual(await once(workers, 'exit'), [0, null])
})

suite('When the workers server is killed,', () => {
  const app = new App({ PROCESS_LIMIT: '4', SPARES: '0' })
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

  test('a process that hangs in its exit handlers is killed after the grace period by the next one, whoever asks about it first', async () => {
    const run = await app.start('stuck')
    assert.equal((await run.outcome()).outcome, 'ok')
    await app.kill('workers')
    await app.startWorkers()
    assert.equal((await app.request('GET', `/tasks/${run.id}`)).body.outcome, 'ok')
    await gone(run.pid)
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
