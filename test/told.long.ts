// What an application hears of its runs, continued from told.test.ts: commands that fail, servers that stop.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { App, gone, missing, processesOf, startApp, until } from './app.ts'
import { LISTENER } from './told.ts'

const TOKEN = 'a-token-for-the-application'
const AUTHORIZED = { Authorization: `Bearer ${TOKEN}` }

test('a clean stop waits for those who are told of ends, and leaves nobody', async t => {
  const heard = mkdtempSync(join(tmpdir(), 'longrun-heard-'))
  writeFileSync(join(heard, 'listener'), `sleep 1\n${LISTENER}`)
  const app = new App({ ON_DONE: `sh ${join(heard, 'listener')}`, HEARD: heard })
  t.after(() => app.end().finally(() => rmSync(heard, { recursive: true })))
  await app.startBoth()
  const run = await app.start('tick', ['never'])
  const stuck = await app.start('tick', ['never'], { id: 'it-hangs' })
  for (const { reader } of [run, stuck]) await reader.until(({ entries }) => entries.length > 1)
  await app.kill('workers', 'SIGTERM')
  assert.equal(JSON.parse(readFileSync(join(heard, run.id), 'utf8').split('\n')[0]!).outcome, 'cancelled')
  await gone(Number(readFileSync(join(heard, 'it-hangs.pid'), 'utf8')))
})

test('a clean stop starts nobody any more when its patience is over', async t => {
  const heard = mkdtempSync(join(tmpdir(), 'longrun-heard-'))
  writeFileSync(join(heard, 'listener'), LISTENER)
  const app = new App({ ON_DONE: `sh ${join(heard, 'listener')}`, HEARD: heard, PROCESS_LIMIT: '12' })
  t.after(() => app.end().finally(() => rmSync(heard, { recursive: true })))
  await app.startBoth()
  const pids = () => readdirSync(heard).filter(name => name.endsWith('.pid'))
  for (let at = 0; at < 10; at++) await (await app.start('process', [1, 0], { id: `${at}-hangs` })).outcome()
  await until(() => pids().length === 4, 'four at once')
  assert.deepEqual(await app.kill('workers', 'SIGTERM'), [0, null])
  const left = processesOf(app.runs).filter(({ command }) => /listener|sleep/.test(command))
  assert.deepEqual([left, pids().length], [[], 4])
  assert.equal(app.workers.output.filter(line => /ON_DONE=.* failed: the workers server has stopped/.test(line)).length, 6)
})

test('a run that is not to be kept is kept until its end was told', async t => {
  const heard = mkdtempSync(join(tmpdir(), 'longrun-heard-'))
  writeFileSync(join(heard, 'listener'), `sleep 3\n${LISTENER}`)
  const app = new App({ ON_DONE: `sh ${join(heard, 'listener')}`, HEARD: heard, PROCESS_LIMIT: '12', KEEP_RUNS: '0' })
  t.after(() => app.end().finally(() => rmSync(heard, { recursive: true })))
  await app.startBoth()
  const ids = Array.from({ length: 9 }, (_, at) => `run-${at}`)
  for (const id of ids) await (await app.start('process', [1, 0], { id })).outcome()
  for (const id of ids) {
    await until(() => existsSync(join(heard, id)), `the end of ${id} is told`)
    assert.equal(JSON.parse(readFileSync(join(heard, id), 'utf8').split('\n')[0]!).outcome, 'ok')
  }
  await until(() => !readdirSync(app.runs).some(name => name.endsWith('.ndjson')), 'their logs have gone')
})

test('without a descriptor left, an end is told later, and no server goes', { skip: missing('prlimit') }, async t => {
  const heard = mkdtempSync(join(tmpdir(), 'longrun-heard-'))
  writeFileSync(join(heard, 'listener'), LISTENER)
  const app = new App({ ON_DONE: `sh ${join(heard, 'listener')}`, HEARD: heard, PROCESS_LIMIT: '4', SPARES: '0' })
  t.after(() => app.end().finally(() => rmSync(heard, { recursive: true })))
  await app.startWorkers()
  const pid = String(app.workers.process.pid)
  const limit = (soft: number) => execFileSync('prlimit', ['--pid', pid, `--nofile=${soft}:`])
  for (const [free, id] of [[0, 'none'], [1, 'one']] as const) { // descriptors; a log takes one
    assert.equal((await app.call('tick', '', id, JSON.stringify([id])))[0], '')
    await until(() => existsSync(join(app.runs, `${id}.ndjson`)) && readFileSync(join(app.runs, `${id}.ndjson`), 'utf8').includes('"msg"'), `${id} goes on`)
    const open = new Set(readdirSync(`/proc/${pid}/fd`).map(Number))
    limit(Array.from({ length: 1000 }, (_, at) => at).filter(at => !open.has(at))[free]!)
    app.letGo(id)
    const says = new RegExp(`run ${id}( cannot be ended: EMFILE|: ON_DONE=.* failed: .*EMFILE)`)
    await until(() => app.workers.output.filter(line => says.test(line)).length > 1, `it is told that there is none left for ${id}`)
    limit(1024)
    await until(() => existsSync(join(heard, id)), `the end of ${id} is told`)
    assert.equal(JSON.parse(readFileSync(join(heard, id), 'utf8').split('\n')[0]!).outcome, 'ok')
  }
})

test('a command that is not there is told in the terminal, and harms no run', async t => {
  const app = new App({ ON_DONE: '/no/such/command --at all' })
  t.after(() => app.end())
  await app.startBoth()
  for (let at = 0; at < 2; at++) assert.equal((await (await app.start('process', [1, 0])).outcome()).outcome, 'ok')
  await until(() => app.workers.output.filter(line => /ON_DONE=.* failed: .*ENOENT/.test(line)).length === 2, 'it is told twice')
})

test('the key of a run shows that run, and no other', async t => {
  const app = new App({ TOKEN })
  t.after(() => app.end())
  await app.startBoth()
  const start = (id: string) => app.request('POST', '/tasks', { method: 'process', args: [1, 0], id }, AUTHORIZED)
  const { key } = (await start('mine')).body
  await start('other')
  const status = async (path: string) => (await app.request('GET', path)).status
  assert.deepEqual([await status(`/tasks/mine?key=${key}`), await status(`/tasks/other?key=${key}`), await status('/tasks/mine')], [200, 401, 401])
  assert.deepEqual([await status(`/tasks?key=${key}`), await status(`/tasks/nobody?key=${key}`)], [401, 401])
})

test('an application gets the result of a run as the log has it, and the reason of an end, whatever they hold', async t => {
  const app = await startApp(t, { PROCESS_LIMIT: '16', SPARES: '0' })
  const show = async (id: string) => (await app.request('GET', `/tasks/${id}`)).body
  const results = [{ file: 'x.csv' }, '', null, 0, false, ['},"result":', '€'], { reason: '","result":1', seconds: -1 }, 'x'.repeat(2 ** 20 - 1000)]
  for (const result of results) {
    const run = await app.start('takes', ['', 1, 1, true, { result }])
    await run.outcome()
    assert.deepEqual((await show(run.id)).result, ['', 1, 1, true, { result }])
  }
  const nothing = await app.start('process', [1, 0])
  await nothing.outcome()
  assert.ok(!('result' in await show(nothing.id)))
  const crashed = await app.start('crash', ['a reason with ,"result": in it'])
  await crashed.outcome()
  const { outcome, reason, errors } = await show(crashed.id)
  assert.deepEqual([outcome, reason, errors], ['error', 'a reason with ,"result": in it', 1])
})
