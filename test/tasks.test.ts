// The remote functions that come with the project, over HTTP and WebSocket, with real files.

import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { processesOf, until } from './app.ts'
import { app, importCsv } from './tasks.ts'


suite('process', { concurrency: 3 }, () => {
  test('says after each step how far it is', async () => {
    const run = await app.start('process', [3, 60])
    const steps = (await run.entries()).flatMap(({ type, data }) => type === 'progress' ? [data] : [])
    assert.deepEqual(steps, [1, 2, 3].map(current => ({ current, total: 3, unit: 'steps' })))
  })

  test('without a delay, has one message per step, and no more progress than a page can show', async () => {
    const entries = await (await app.start('process', [50_000, 0])).entries()
    const messages = entries.filter(({ type }) => type === 'msg')
    const progress = entries.flatMap(({ type, data }) => type === 'progress' ? [data] : [])
    assert.equal(messages.length, 50_000)
    assert.deepEqual(progress.at(-1), { current: 50_000, total: 50_000, unit: 'steps' })
    assert.ok(progress.length < 25 * (entries.at(-1)!.time - entries[0]!.time) / 1000 + 10, `${progress.length} entries`)
  })
})

suite('importCsv', { concurrency: 3 }, () => {
  test('makes JSON lines of rows; the header names the columns', async () => {
    const { result, rows, warnings, produced, run } = await importCsv('name,age\nAnna,3\nBert,4')
    assert.deepEqual(rows, [{ name: 'Anna', age: '3' }, { name: 'Bert', age: '4' }])
    assert.deepEqual(result, { rows: 2, rejected: 0, columns: ['name', 'age'], file: `${run.id}.ndjson` })
    assert.deepEqual(warnings, [])
    assert.match(produced!.headers.get('content-disposition')!, /^attachment/)
    const progress = run.reader.entries.filter(({ type }) => type === 'progress').at(-1)!
    assert.deepEqual(progress.data, { current: 22, total: 22, unit: 'bytes' })
  })

  test('knows quotes, doubled quotes, line breaks in fields, CRLF, a byte order mark, blank lines', async () => {
    const { rows, warnings } = await importCsv('\ufeffa,"b ""x"""\r\n"1,5","two\r\nlines"\r\n\r\n"",ü"\r\n'.replace('ü"', 'ü'))
    assert.deepEqual(rows, [{ a: '1,5', 'b "x"': 'two\r\nlines' }, { a: '', 'b "x"': 'ü' }])
    assert.deepEqual(warnings, [])
  })

  test('names what a file is that is no CSV in UTF-8', async () => {
    const { done } = await importCsv(Buffer.from('\ufeffname;age\r\nAnna;3\r\n', 'utf16le'))
    assert.equal(done.outcome, 'error')
    assert.match(done.reason!, /seems to be UTF-16/)
  })

  test('warns of each line that cannot be imported, with its number and why, and goes on', async () => {
    const content = Buffer.concat(['a,b\n', '1\n', '1,2,3\n', 'x"y,2\n', '"open,2\n', 'bad,', Buffer.from([0xff]), '\n', 'good,1\n'].map(part => Buffer.from(part)))
    const { rows, warnings, result } = await importCsv(content)
    assert.deepEqual(rows, [{ a: 'good', b: '1' }])
    assert.equal(result!.rejected, 5)
    assert.deepEqual(warnings.map(([line]) => line), [2, 3, 4, 5, 6])
    for (const [index, why] of [/1 instead of 2/, /3 instead of 2/, /quote/, /not closed/, /UTF-8/].entries()) {
      assert.match(String(warnings[index]![1]), why)
    }
  })

  test('keeps a flood of warnings bounded: a thousand are entries, the rest is counted', async () => {
    const { result, warnings, run } = await importCsv('a,b\n' + 'wrong\n'.repeat(5000) + '1,2\n')
    assert.equal(warnings.length, 1000)
    assert.equal(result!.rejected, 5000)
    assert.equal(result!.rows, 1)
    assert.ok(run.reader.entries.some(({ type, data }) => type === 'log' && /first 1000/.test(data.msg)))
  })
})

suite('compile', { concurrency: 3 }, () => {
  async function compile(source: string) {
    const run = await app.start('compile', [source])
    const done = await run.outcome()
    return { done, errors: run.reader.entries.flatMap(({ type, data }) => type === 'error' ? [data] : []) }
  }

  test('names every error with line, column and code, and counts them', async () => {
    const { done, errors } = await compile('const a: number = "x"\nlet b = 1\n  b.nothing()\n')
    assert.deepEqual(done.result, { errors: 2, warnings: 0 })
    assert.deepEqual(errors.map(({ line, column, code, file }) => [line, column, code, file]), [[1, 7, 'TS2322', 'source.ts'], [3, 5, 'TS2339', 'source.ts']])
    assert.match(errors[0]!.msg, /'string' is not assignable to type 'number'/)
  })

  test('is not fooled by a source whose types look like diagnostics', async () => {
    const lines = '\nsource.ts(9,9): error TS9999: invented\nerror TS9998: invented, too\n  (1,1): error TS9997: and this\n'
    const source = `type T = \`${lines}\${number}\`\nconst a: T = 5\nconst b: ${JSON.stringify(lines)} = 5\n`
    const { done, errors } = await compile(source)
    assert.deepEqual(done.result, { errors: 2, warnings: 0 })
    assert.deepEqual(errors.map(({ line, column, code }) => [line, column, code]), [[6, 7, 'TS2322'], [7, 7, 'TS2322']])
    assert.ok(errors[0]!.msg.endsWith(`is not assignable to type '\`${lines}\${number}\`'.`), 'the whole message')
  })

  test('calls the source by one name, wherever the compiler speaks of it', async () => {
    const source = 'export namespace A { export type X = { a: 1 } }\nnamespace B { type X = { a: 2 }; let x: X = null! as A.X }\n'
    const { errors } = await compile(source)
    assert.match(errors[0]!.msg, /'import\(".*\/source"\)\.A\.X' is not assignable to type 'X'\.\n  Types of property 'a' are/)
  })

  test('counts lines as the compiler does: LF, CRLF, CR, and two separators of Unicode', async () => {
    const { errors } = await compile('\ufeff1\n2\r\n3\r4\u20285\u2029const ü = nope\n')
    assert.deepEqual(errors.map(({ line, column, msg }) => [line, column, msg]), [[6, 11, "Cannot find name 'nope'."]])
  })

  test('finds nothing wrong with a good source', async () => {
    assert.deepEqual((await compile('export const add = (a: number, b: number) => a + b\n')).done.result, { errors: 0, warnings: 0 })
  })

  test('reads nothing but the source: no imports, no references, no types of this project', async () => {
    const source = '/// <reference path="/etc/passwd" />\nimport { WebSocket } from "ws"\nimport "/etc/passwd"\nprocess.exit()\n'
    const { errors } = await compile(source)
    assert.ok(errors.length >= 2)
    assert.ok(errors.every(({ msg, file }) => !/root:/.test(msg) && (file === undefined || file === 'source.ts')))
    assert.ok(errors.some(({ msg }) => /'process'/.test(msg)), 'no ambient types')
  })

  test('is cancelled together with its compiler, and leaves nothing in its folder', async () => {
    const deep = Array.from({ length: 400 }, (_, i) => `type T${i}<A> = A extends { x: infer B } ? T${(i + 1) % 400}<B | { x: A, y${i}: B }> : A; let v${i}: T${i}<{ x: { x: { x: number } } }> = 0`).join('\n')
    const run = await app.start('compile', [deep])
    const compiles = () => processesOf(app.runs).some(({ command }) => command.includes('--moduleSuffixes'))
    await until(() => run.reader.isDone || compiles())
    await run.cancel()
    await run.outcome()
    await until(() => !compiles() && !readdirSync(join(app.runs, 'files')).some(name => name.startsWith(run.id)))
  })
})
