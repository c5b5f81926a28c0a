// Programs and prints where the machine is against them: a full disk, endless output, no /proc, no workers server.

import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { App, bareEnvironment, gone, memoryOf, ROOT, startApp } from './app.ts'

const TASKS = join(import.meta.dirname, 'programs.ts')
const MIB = 2 ** 20

test('a program that prints without end, in one line or in many, stays small, and can be cancelled', async t => {
  const app = await startApp(t, { TASKS, MAX_LOG: String(MIB) })
  for (const endless of ['yes', 'yes >&2', `tr '\\0' x < /dev/zero`, `yes '{' | tr -d '\\n'`, `yes | tr '\\n' '\\r'`]) {
    const run = await app.start('sh', [`echo begin; ${endless}`])
    await run.reader.until(({ entries }) => entries.length > 1)
    const task = { process: { pid: run.pid } } as Parameters<typeof memoryOf>[0]
    const ends = Date.now() + 3000
    let most = 0
    while (Date.now() < ends) {
      most = Math.max(most, memoryOf(task))
      await new Promise(resolve => setTimeout(resolve, 100))
    }
    assert.ok(most < 400 * MIB, `${endless}: ${most / MIB} MiB`)
    await run.cancel()
    assert.equal((await run.outcome()).outcome, 'cancelled', endless)
    assert.ok(run.log().length <= MIB)
  }
})

test('what is printed on a full disk fails the run as an entry does, once', async t => {
  const disk = mkdtempSync(join(tmpdir(), 'longrun-disk-'))
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=2m,mode=0700', 'tmpfs', disk], { stdio: 'ignore' })
  } catch {
    rmSync(disk, { recursive: true })
    return t.skip('a small tmpfs cannot be mounted here')
  }
  const app = new App({ TASKS, RUNS: join(disk, 'runs') })
  t.after(() => app.end().finally(() => {
    execFileSync('umount', ['-l', disk])
    rmSync(disk, { recursive: true })
  }))
  await app.startBoth()
  const run = await app.start('js', [`
    process.on('exit', () => console.log('leaving'))
    process.stdout.write('no end')
    process.stderr.write('nor here')
    for (let i = 0; ; i++) console.error('a line of it', i)`])
  assert.match((await run.outcome()).reason!, /ENOSPC/)
  assert.deepEqual((await run.types()).slice(-3), ['log', 'error', 'done'])
})

test('a program of an adopted run is asked to end with all that it has started', async t => {
  const app = await startApp(t, { TASKS })
  const run = await app.start('sh', ['sleep 1000 & echo $!; sleep 1001; echo on'])
  const { entries } = await run.reader.until(({ entries }) => entries.length > 1)
  app.workers.process.kill('SIGKILL')
  await app.workers.exited
  await app.startWorkers()
  await run.cancel()
  assert.deepEqual([(await run.outcome()).outcome, await run.types()], ['cancelled', ['start', 'log', 'done']])
  await gone(Number((entries[1]!.data as { msg: string }).msg))
})

test('without /proc, as on a Mac, the workers server says where it runs, and how to bring it up there', t => {
  const runs = mkdtempSync(join(tmpdir(), 'longrun-proc-'))
  t.after(() => rmSync(runs, { recursive: true }))
  const hidden = ['--mount', 'sh', '-c', 'mount -t tmpfs none /proc && exec "$@"', 'sh']
  const { status, stderr } = spawnSync('unshare', [...hidden, process.execPath, '--import', 'tsx', 'workers.ts'], {
    cwd: ROOT, env: { ...bareEnvironment(), RUNS: runs }, encoding: 'utf8',
  })
  if (/unshare|mount:/.test(stderr)) return t.skip('mounts cannot be made here')
  const [sentence, ...lines] = stderr.trimEnd().split('\n')
  assert.deepEqual([status, lines.length], [78, 2])
  assert.match(sentence!, /^longrun: it runs on Linux/)
  const reference = readFileSync(join(ROOT, 'REFERENCE.md'), 'utf8')
  for (const line of lines) assert.ok(reference.includes(`\n${line}\n`), line)
})
