// What a run is to its caller, continued from run.test.ts: in quantities, not to be kept, and with modules of all kinds.

import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { test } from 'node:test'
import { packEntry } from '../log.ts'
import { App, tasksOf, ROOT, startApp, until } from './app.ts'

test('a run may be a million entries: whole, in order, each once', async t => {
  const app = await startApp(t)
  const run = await app.start('process', [1_000_000, 0])
  assert.equal((await run.outcome()).outcome, 'ok')
  const steps = run.reader.entries.filter(({ type }) => type === 'msg')
  assert.equal(steps.length, 1_000_000)
  steps.forEach(({ data }, step) => {
    if ((data as { step: number }).step !== step) assert.fail(`entry ${step} is ${JSON.stringify(data)}`)
  })
})

test('finished runs take no memory for what they were called with', async t => {
  const app = new App({ SPARES: '0', NODE_OPTIONS: '--max-old-space-size=100' })
  t.after(() => app.end())
  await app.startWorkers()
  await app.kill('workers')
  for (let at = 0; at < 200; at++) {
    const text = String.fromCharCode(97 + at % 26).repeat(1_000_000)
    const start = packEntry('start', { method: 'process', args: [text], callId: '', pid: 0, timeLimit: 0 })
    writeFileSync(join(app.runs, `old${at}.ndjson`), start + packEntry('done', { outcome: 'ok', seconds: 1 }), { mode: 0o600 })
  }
  await app.startWorkers()
  assert.equal(JSON.parse((await app.call('list', '', '', '[]'))[1]).length, 200)
})

for (const spares of ['0', '1']) {
  test(`a module of one's own may await while it loads, and import while it runs (${spares} spares)`, async t => {
    const folder = mkdtempSync(join(tmpdir(), 'longrun-own-'))
    t.after(() => rmSync(folder, { recursive: true }))
    writeFileSync(join(folder, 'package.json'), '{ "type": "module" }')
    writeFileSync(join(folder, 'greeting.ts'), `export const greeting: string = 'hello'`)
    const own = (first: string) => `${first}
      import { remote } from ${JSON.stringify(join(ROOT, 'remote.ts'))}
      export const greet = remote('greets', [], async task => {
        const { greeting } = await import('./greeting.ts')
        task.log(greeting)
      })`
    writeFileSync(join(folder, 'importing.ts'), own(''))
    writeFileSync(join(folder, 'awaiting.ts'), own('await new Promise(resolve => setTimeout(resolve, 10))'))
    for (const name of ['importing.ts', 'awaiting.ts']) {
      const app = await startApp(t, { TASKS: join(folder, name), SPARES: spares })
      const run = await app.start('greet')
      assert.equal((await run.outcome()).outcome, 'ok')
      assert.deepEqual(await run.types(), ['start', 'log', 'done'], 'it ran once')
    }
  })
}

test('a task finds what whoever started the server has put into its environment, and nothing that is the servers\' own', async t => {
  const app = await startApp(t, { DATABASE_URL: 'db', VIRTUAL_ENV: 'venv', NOTIFY_SOCKET: '/nowhere', ON_DONE: '', LONGRUN_ODD: '1', TOKEN: '' })
  const names = (await (await app.start('environment')).outcome()).result as string[]
  for (const name of ['DATABASE_URL', 'VIRTUAL_ENV', 'NODE_COMPILE_CACHE', 'RUNS', 'TASKS', 'LONGRUN_RUN']) assert.ok(names.includes(name), name)
  assert.deepEqual(names.filter(name => /^(TOKEN|HOST|PORT|LAUNCH|ON_DONE|NOTIFY_SOCKET|LONGRUN_ODD)$/.test(name)), [])
})

test('a run that is not to be kept has its end all the same', async t => {
  const app = await startApp(t, { KEEP_RUNS: '0' })
  const run = await app.start('process', [3, 1])
  assert.equal((await run.entries()).at(-1)!.type, 'done')
  await until(async () => (await app.request('GET', '/tasks')).body.length === 0) // its process takes a moment longer to go
  await until(() => !readdirSync(app.runs).some(name => name.startsWith(run.id)))
})

test('what a run has produced goes with it, whatever stands behind the first point of its name, or when a server starts', async t => {
  const app = await startApp(t, { KEEP_RUNS: '1' })
  const files = join(app.runs, 'files')
  const name = (id: string) => [`${id}.tar.gz`, `${id}.csv`, `${id}.part.tmp`, `${id}.ünï`, `${id}.`, id, `${id}.dir`]
  const produce = (id: string) => name(id).forEach((file, at) => at > 4 ? mkdirSync(join(files, file, 'x'), { recursive: true }) : writeFileSync(join(files, file), ''))
  const nobodys = ['.part', 'ünï.csv', 'a b.csv', `${'x'.repeat(65)}.csv`, 'cache']
  for (const file of nobodys) writeFileSync(join(files, file), '')
  produce('first-1') // a run that is not known yet
  for (const id of ['first', 'last']) {
    const run = await app.start('tick', [`${id}.go`], { id })
    produce(id)
    app.letGo(`${id}.go`)
    await run.outcome()
    await app.untilRunning()
  }
  const left = (...ids: string[]) => [...nobodys, ...ids.flatMap(id => [...name(id), ...id === 'last' ? ['last.go'] : []])].sort()
  await until(() => !readdirSync(files).some(file => file.split('.')[0] === 'first'), 'what the first has produced has gone')
  assert.deepEqual(readdirSync(files).sort(), left('first-1', 'last'))
  await app.kill('workers')
  produce('first')
  await app.startWorkers()
  assert.deepEqual(readdirSync(files).sort(), [...left('last'), 'first', 'first-1'].sort(), 'what has no point may be somebody else\'s')
})

test('with a run goes what it has produced, and nothing else that its result may name', async t => {
  const app = await startApp(t, { KEEP_RUNS: '0', PROCESS_LIMIT: '4' })
  app.letGo('victim.txt')
  for (const file of ['x./../victim.txt', 'y./..', 'z.\0', 'victim.txt']) {
    const id = file[0]!
    const run = await app.start('claim', [{ file }], { id })
    await run.entries()
  }
  await until(() => !readdirSync(app.runs).some(name => name.endsWith('.ndjson')))
  assert.ok(existsSync(join(app.runs, 'files', 'victim.txt')))
  assert.equal((await app.request('GET', '/health')).status, 200)
})

test('a clock that was set back makes no time negative, and keeps the order of the starts', async t => {
  const app = new App({ PROCESS_LIMIT: '4' })
  t.after(() => app.end())
  await app.startBoth()
  const run = await app.start('tick', ['go'])
  await app.kill('workers')
  const late = { method: 'process', args: [], callId: '', pid: 1, timeLimit: 0 }
  const tomorrow = Date.now() + 86_400_000
  writeFileSync(join(app.runs, 'future.ndjson'), `${JSON.stringify({ type: 'start', time: tomorrow, data: late })}\n`, { mode: 0o600 })
  await app.startWorkers()
  const { seconds } = (await (await app.follow('future')).done()).at(-1)!.data as { seconds: number }
  assert.ok(seconds >= 0 && seconds < 60, `${seconds} s`)
  const next = await app.start('process', [1, 1])
  await next.outcome()
  const [first] = (await app.request('GET', '/tasks')).body
  assert.equal(first.id, next.id, 'what was started last comes first, whatever the clock said before')
  app.letGo('go')
  await run.outcome()
})

test('the time limit of a call, or of all calls, ends a run with the reason', async t => {
  const app = await startApp(t, { TIME_LIMIT: '1' })
  const [own, general] = await Promise.all([app.start('polite', [], { timeLimit: 0.3 }), app.start('polite')])
  for (const [run, seconds] of [[own, 0.3], [general, 1]] as const) {
    const done = await run.outcome()
    assert.equal(done.outcome, 'cancelled')
    assert.equal(done.reason, `over its time limit of ${seconds} s`)
  }
})

test('of finished runs, the oldest go first, with what they produced', async t => {
  const app = await startApp(t, { KEEP_RUNS: '2' })
  const produced: string[] = []
  for (let i = 0; i < 4; i++) {
    const run = await app.start('produce', [10])
    const { result } = await run.outcome()
    produced.push((result as { file: string }).file)
    await app.untilRunning()
  }
  const known = (await app.request('GET', '/tasks')).body.map(({ id }: { id: string }) => `${id}.txt`)
  assert.deepEqual(known, produced.slice(2).reverse())
  const left = () => readdirSync(app.runs, { recursive: true, encoding: 'utf8' }).filter(name => produced.some(file => name.includes(basename(file, '.txt')))).length
  await until(() => left() <= 4) // a log, and a file, of two runs: readers have had the time to fetch the end
  const statuses = await Promise.all(produced.map(async name => (await app.request('GET', `/files/${name}`)).status))
  assert.deepEqual(statuses, [404, 404, 200, 200])
})

test('runs, and spares, wait for the servers: their processes have a lower priority, and so has each session', async t => {
  const app = await startApp(t)
  const run = await app.start('tick', ['never'])
  const others = () => tasksOf(app.runs).filter(pid => pid !== run.pid)
  await until(() => others().length, 'there is a spare')
  const own = priorityOf(app.workers.process.pid!)
  assert.deepEqual(own, priorityOf(process.pid), 'the servers keep theirs')
  for (const pid of [run.pid, ...others()]) {
    // Not at once: an ordinary user may set one in 100 ms. The servers' own session may have none, where theirs has.
    const isLowered = () => {
      const { nice, group } = priorityOf(pid)
      return nice === Math.max(10, own.nice) && (group === undefined || group === 10)
    }
    await until(isLowered, () => `the priority of ${pid} is lower, not ${JSON.stringify(priorityOf(pid))}`)
  }
})

/** `nice`, of the process and of its session as the scheduler groups it; undefined where the kernel does not group so. */
function priorityOf(pid: number): { nice: number; group?: number } {
  const nice = Number(readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ')[16])
  const path = `/proc/${pid}/autogroup`
  const group = existsSync(path) ? /nice (-?\d+)/.exec(readFileSync(path, 'utf8')) : null
  return { nice, group: group ? Number(group[1]) : undefined }
}
