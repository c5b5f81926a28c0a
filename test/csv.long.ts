// The CSV reader, continued from csv.test.ts: thousands of files at random, against a reference of thirty lines.

import assert from 'node:assert/strict'
import { isUtf8 } from 'node:buffer'
import { test } from 'node:test'
import { read } from './csv.ts'

const MARK = '\xef\xbb\xbf'

/** What a file has to give, read the plain way: rows, and lines of complaints. Each character is a byte. */
function readPlainly(bytes: string, delimiter: string, mayHaveBlanks: boolean) {
  const blanks = mayHaveBlanks ? ' *' : ''
  const field = new RegExp(`(?:${blanks}"((?:[^"]|"")*)"${blanks}|([^"\\r\\n${delimiter}]*))(\r?\n|[${delimiter}])`, 'y')
  const [rows, complaints]: [string[][], number[]] = [[], []]
  let columns: string[] | undefined
  for (let at = 0, line = 1; at < bytes.length;) {
    const row: string[] = []
    let end = at
    for (field.lastIndex = at; ;) {
      const [, quoted, plain, after] = field.exec(bytes) ?? []
      end = field.lastIndex
      if (after) row.push(quoted?.replaceAll('""', '"') ?? plain!)
      if (after !== delimiter) break
    }
    const isWrong = end === 0
    if (isWrong) end = bytes.indexOf('\n', at) + 1
    const text = bytes.slice(at, end).replace(/\r?\n$/, '')
    const extra = row.length - (columns?.length ?? row.length)
    if (extra > 0 && text.endsWith(delimiter.repeat(extra))) row.length -= extra
    const isHeader = columns && columns.length > 1 && row.join('\n') === columns.join('\n')
    const fits = !isWrong && row.length === (columns ?? row).length && isUtf8(Buffer.from(text, 'latin1'))
    if (text && !columns) columns = row
    else if (text && (!fits || isHeader || text.startsWith(MARK))) complaints.push(line)
    else if (text) rows.push(row.map(value => Buffer.from(value, 'latin1').toString()))
    line += bytes.slice(at, end).split('\n').length - 1
    at = end
  }
  return { rows, complaints }
}

test('gives what a plain reader gives, for 3000 files at random', async () => {
  let seed = 1
  const random = (below: number) => (seed = seed * 48271 % 2147483647) % below
  const few = ['a', 'b', '"', '"', '\n', '\r\n']
  const others = ['""', ' ', ' "', '" ', '\r', ',', ';', '\t', '|', '\\', '\0', 'é', '\u2028', '\ufeff', 'a,b\n', '\n\n']
  const pieces = [...few, ...few, ...others].map(piece => Buffer.from(piece).toString('latin1')).concat('\xff')
  for (let round = 0; round < 3000; round++) {
    const delimiter = [',', ';', '\t', '|'][random(4)]!
    const header = ['a', 'b', 'c'].slice(0, 1 + random(3)).join(delimiter)
    const piece = () => random(4) ? pieces[random(pieces.length)] : delimiter
    const body = Array.from({ length: random(40) }, piece).join('')
    const bytes = `${header}\na${body}` // a NUL beside each LF would be UTF-16
    const { rows, complaints, format } = await read(Buffer.from(bytes, 'latin1'), delimiter)
    const plain = readPlainly(`${bytes}\n`, delimiter, format.mayHaveBlanks)
    assert.deepEqual(rows.map(row => Object.values(row)), plain.rows, JSON.stringify(bytes))
    assert.deepEqual(complaints.map(([line]) => line), plain.complaints, JSON.stringify(bytes))
  }
})

test('hundreds of thousands of columns may have one name; of those without a name, a row has to have room', async () => {
  const many = await read(`${'a,'.repeat(300_000)}b\n`)
  assert.equal(new Set(many.columns).size, 300_001)
  assert.ok(many.doubts[0]!.length < 1000)
  await assert.rejects(read(`${','.repeat(1_000_000)}b\n`), /too many columns without a name/) // a row of them has no room
})
