// The remote functions that come with the project, continued from tasks.test.ts: with much to do.

import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { startApp, until } from './app.ts'

test('importCsv takes a large file in bounded memory, and can be cancelled in its middle without leaving a file', async t => {
  const app = await startApp(t)
  const line = 'number,"some text, quoted",0123456789,äöü,last field\n'
  const big = Buffer.from('a,b,c,d,e\n' + line.repeat(1_200_000))
  const file = await app.upload(big)
  const run = await app.start('importCsv', [file])
  let peak = 0
  try {
    for (; ; await sleep(20)) peak = Math.max(peak, Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${run.pid}/status`, 'utf8'))?.[1] ?? 0))
  } catch {} // the process has gone
  assert.equal(((await run.outcome()).result as { rows: number }).rows, 1_200_000)
  assert.ok(peak > 0 && peak < 200_000, `${peak} kB at its peak`)
  await until(() => !existsSync(join(app.runs, 'uploads', file))) // the upload goes with the run
  const seconds = run.reader.entries.at(-1)!.time - run.reader.entries[0]!.time
  assert.ok(run.reader.entries.length < 25 * seconds / 1000 + 10, 'about 20 entries of progress a second')

  let cancelled
  do { // until it is not over before it can be cancelled
    cancelled = await app.start('importCsv', [await app.upload(big)])
    await cancelled.reader.until(({ entries }) => entries.length > 1)
    await cancelled.cancel()
  } while ((await cancelled.outcome()).outcome !== 'cancelled')
  await until(() => !readdirSync(join(app.runs, 'files')).some(name => name.startsWith(cancelled.id)))
})
