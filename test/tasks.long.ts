// The remote functions that come with the project, continued from tasks.test.ts: with much to do.

import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { startApp, until } from './app.ts'
import { importCsv } from './tasks.ts'

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

suite('importCsv', { concurrency: 3 }, () => {
  test('finds the delimiter, or takes the one that is given', async () => {
    assert.deepEqual((await importCsv('a;b,c;d\n1;2;3')).rows, [{ a: '1', 'b,c': '2', d: '3' }])
    assert.deepEqual((await importCsv('a\tb\n1\t2')).rows, [{ a: '1', b: '2' }])
    assert.deepEqual((await importCsv('a;b,c\n1,2', { delimiter: ',' })).rows, [{ 'a;b': '1', c: '2' }])
    for (const delimiter of ['^', 5, null, '']) {
      const { done } = await importCsv('a,b\n1,2', { delimiter })
      assert.match(done.reason!, /must be a comma, a semicolon, a tab or a bar/)
    }
    assert.match((await importCsv('a,b\n1,2', { header: false })).done.reason!, /unknown option 'header'/)
  })

  test('says what it has found, by the name that people know, and what it doubts', async () => {
    const said = async (...args: Parameters<typeof importCsv>) => (await importCsv(...args)).run.reader.entries
      .flatMap(({ type, data }) => type === 'log' || type === 'warning' ? [`${type}: ${data.msg}`] : [])
    const [named] = await said('Konto;Betrag\n1;5,50\n', {}, 'Konten.csv')
    assert.equal(named, 'log: Konten.csv: 2 columns, separated by semicolons')
    assert.deepEqual(await said('sep=|\na|b\n'), ['log: 2 columns, separated by bars, as the first line says'])
    const [found, doubt] = await said('Konto\n1200\n')
    assert.equal(found, 'log: 1 column')
    assert.match(doubt!, /^warning: there is only one column/)
    const { result } = await importCsv('Konto\n1200\n')
    assert.equal(result!.rejected, 0, 'a doubt is no rejected line')
  })

  test('refuses a file without a usable header', async () => {
    for (const [content, why] of [['', /empty/], ['\n\n', /empty/], ['a,"b\n', /not closed/], [',,\n', /column 1 has no name/]] as const) {
      const { done } = await importCsv(content)
      assert.equal(done.outcome, 'error')
      assert.match(done.reason!, why)
    }
  })

  test('keeps a column with a dangerous name harmless', async () => {
    const { produced } = await importCsv('__proto__,constructor\n1,2\n')
    assert.equal(produced!.body, '{"__proto__":"1","constructor":"2"}\n')
  })
})
