// A CSV reader: bytes in; rows as JSON lines, and complaints, out. It knows no task and no run. Look for: readHeader
// (what the first lines of a file tell), readRows (a MiB after the other), convertRow (the one loop over bytes).
//
// Its promises: memory is bounded, whatever the file; what is wrong costs its own row, and a forgotten quote its own
// line, not the rest of the file; a person is told what was guessed, and what may be wrong with it.

import { isUtf8 } from 'node:buffer'
import type { FileHandle } from 'node:fs/promises'

/** What the first lines of a file tell; the first row begins at `position`, in bytes, and in `line`, from 1. */
export type Header = Awaited<ReturnType<typeof readHeader>>
/** The rows that were read from `position` (in bytes) on. `json` has a line for each; its memory is used again. */
export type Part = { position: number; rows: number; json: Buffer }
/** Is told why a row was left out, and in which line it begins, from 1. */
export type Complain = (msg: string, line: number) => void

/** The byte between fields; whether blanks may stand around quotes; the JSON before, between and after the fields. */
type Format = { delimiter: number; mayHaveBlanks: boolean; around: Buffer[] }

// In the order of preference. A comma is the last: it also stands in texts and numbers (`Saldo, EUR` above `5,50`).
const DELIMITERS = new Map([['\t', 'tabs'], [';', 'semicolons'], ['|', 'bars'], [',', 'commas']])
const [LF, CR, QUOTE, BLANK] = [10, 13, 34, 32]
const MARK = Buffer.from('\ufeff') // the byte order mark
const ROW_LIMIT = 2 ** 20 // a forgotten quote must not swallow the file, nor an endless line the memory
const JSON_ROOM = 24 * ROW_LIMIT // half for one row: up to six bytes for each of its own (\u0000) and of its header's
const SAMPLE = 2 ** 16 // bytes after the header that are looked at before a delimiter is chosen
const SAMPLE_ROWS = 100 // rows in them that are looked at
const JOINED = 'a byte order mark: another file begins here, which is read as if it had the same columns'
const HEADER_AGAIN = 'the header again: were files put together?'
const UNCLOSED = 'a quoted field that is not closed, or not within 1 MiB'

// ---- The header

/**
 * Reads the names of the columns, and finds out the delimiter: the one that is given, or that a first line names as
 * Excel does (`sep=;`), or else the one that fits the header and the first rows. Throws an Error, with a sentence for a
 * person, when the file is no CSV, is not in UTF-8, or has no usable header.
 */
export async function readHeader(file: FileHandle, given?: unknown) {
  const known = [...DELIMITERS.keys()].find(delimiter => delimiter === given)
  if (given !== undefined && !known) throw new Error('the delimiter must be a comma, a semicolon, a tab or a bar')
  const { size } = await file.stat()
  const [buffer, json] = [Buffer.allocUnsafe(ROW_LIMIT + 1), Buffer.allocUnsafe(JSON_ROOM)]
  let csv = await readLines(file, buffer, 0, size, false)
  const isMac = /^[^\n]*\r(?!\n)[^\n]*\n?$/.test(buffer.toString('latin1', 0, Math.min(size, ROW_LIMIT)))
  if (isMac) csv = await readLines(file, buffer, 0, size, isMac)
  const other = whatElse(buffer.subarray(0, Math.min(size, SAMPLE)))
  if (other) throw new Error(`this is not CSV in UTF-8, but seems to be ${other}`)
  if (!csv.length) throw new Error('the header is longer than 1 MiB')
  const { start, line, named } = findHeader(csv)
  const { delimiter, filled, rival } = chooseDelimiter(csv, start, json, known ?? named)
  // (a doubled quote after a comma and a blank is text)
  const around = new RegExp(`(^|[\\n${delimiter}]) +"(?!"[^\\r\\n${delimiter}])|" +[\\r\\n${delimiter}]`)
  const mayHaveBlanks = around.test(csv.toString('latin1', start))
  const row = convertRow(csv, start, json, 0, bareFormat(delimiter))
  const problem = row.problem ?? whatIsInvalid(csv.subarray(start, row.end))
  if (problem) throw new Error(`the header: ${problem}`)
  const fields: string[] = JSON.parse(`[${json.toString('utf8', 2, row.jsonEnd - 2)}]`) // from ","first","last","
  // Nameless ones at the end, with nothing below them, are none: spreadsheets write as many as their widest row has.
  const names = fields.slice(0, Math.max(filled, fields.findLastIndex(name => name !== '') + 1))
  const columns = uniqueNames(names)
  const many = `${columns.length} columns, separated by ${DELIMITERS.get(delimiter)}`
  const summary = (columns.length === 1 ? '1 column' : many) + (named && !known ? ', as the first line says' : '')
  const doubts = doubtsOf(csv, names, columns, rival)
  if (mayHaveBlanks) doubts.push('blanks before and after the quotes of a field are taken as no part of it')
  if (isMac) doubts.push('carriage returns alone end its lines: they are taken as line feeds, within fields, too')
  const format = formatOf(names, columns, { ...bareFormat(delimiter), mayHaveBlanks })
  return { columns, summary, doubts, size, position: row.end, line: line + row.lines, isMac, ...format }
}

/** A name for each column: those that have none, or that of another, are numbered. */
function uniqueNames(names: string[]): string[] {
  if (names.every(name => name === '')) throw new Error('the header: column 1 has no name, nor has any other')
  const wanted = names.map((name, at) => name || `column ${at + 1}`)
  const [first, taken] = [new Set(wanted), new Set(wanted)]
  const counts = new Map<string, number>()
  return wanted.map(name => {
    if (first.delete(name)) return name
    let count = counts.get(name) ?? 2
    while (taken.has(`${name} ${count}`)) count++
    counts.set(name, count + 1)
    return `${name} ${count}`
  })
}

function doubtsOf(csv: Buffer, names: string[], columns: string[], rival?: string): string[] {
  const doubts = []
  const renamed = columns.filter((column, at) => column !== names[at]).map(column => `'${column}'`)
  const some = renamed.length > 20 ? `${renamed.slice(0, 20).join(', ')} …` : renamed.join(', ')
  if (some) doubts.push(`columns without a name, or with that of another, are called ${some}`)
  if (columns.length === 1) doubts.push('there is only one column: are the delimiter and the first line right?')
  if (rival) doubts.push(`${DELIMITERS.get(rival)} would fit as well: if the columns are wrong, name the delimiter`)
  const areNumbers = columns.every(name => /^[-+]?[\d.,]*\d[\d.,]*$/.test(name))
  if (areNumbers) doubts.push('the first line, which names the columns, has only numbers')
  const invalid = whatIsInvalid(csv)
  if (invalid) doubts.push(`${invalid}: the rows that have it are left out; save the file as UTF-8`)
  if (csv.includes(0)) doubts.push('there are NUL bytes in it: it may be no text, or damaged')
  return doubts
}

/** What the first bytes of a file are, if they are no UTF-8 text with rows in it. */
function whatElse(bytes: Buffer): string | undefined {
  const begins = (...signature: number[]) => signature.every((byte, i) => bytes[i] === byte)
  if (begins(0x50, 0x4b, 3, 4)) return 'a ZIP archive or an Excel workbook (.xlsx): unpack it, or save it as CSV'
  if (begins(0xd0, 0xcf, 0x11, 0xe0)) return 'an old Excel workbook (.xls): save it as CSV'
  if (begins(0x1f, 0x8b)) return 'packed with gzip: unpack it'
  if (begins(...Buffer.from('%PDF-'))) return 'a PDF'
  const raw = bytes.toString('latin1') // in UTF-16 a NUL stands beside each line feed, after or before it
  const isUtf16 = raw.includes('\n') && (!/\n(?!\0)/.test(raw) || !/(?<!\0)\n/.test(raw))
  if (isUtf16 || begins(0xff, 0xfe) || begins(0xfe, 0xff)) return 'UTF-16: save it as UTF-8'
  const text = bytes.toString('utf8', 0, 200).replace(/^[\ufeff\s]+/, '')
  if (/^<(!doctype|html|head|body|table|\?xml)\b/i.test(text)) return 'HTML or XML'
  return /^(\[\s*)*[{[]\s*"/.test(text) ? 'JSON' : undefined
}

// A letter of two bytes or more hardly comes about by chance: without any, the bytes mean something else.
function whatIsInvalid(bytes: Buffer): string | undefined {
  if (isUtf8(bytes)) return undefined
  return /[^\x00-\x7f\ufffd]/.test(String(bytes)) ? 'invalid UTF-8' : 'invalid UTF-8, perhaps Windows-1252 (Latin-1)'
}

/** Where the header begins, after byte order marks, blank lines, and a line that names the delimiter. */
function findHeader(csv: Buffer) {
  let named: string | undefined
  for (let [start, line] = [0, 1]; start < csv.length; line++) {
    while (startsWithMark(csv, start)) start += MARK.length
    const end = csv.indexOf(LF, start) + 1
    const text = csv.toString('latin1', start, Math.min(end, start + 100))
    const sep = /^\s*"?sep=([^"\r\n])"?\1*\r?\n$/i.exec(text)?.[1]
    if (!sep && text !== '\n' && text !== '\r\n') return { start, line, named }
    if (sep && !DELIMITERS.has(sep)) throw new Error(`the first line names a delimiter that is not known: ${sep}`)
    named = sep ?? named
    start = end
  }
  throw new Error('the file is empty')
}

const startsWithMark = (csv: Buffer, at: number) => MARK.every((byte, i) => csv[at + i] === byte)

/** How a delimiter does: the columns that it makes of the header; how many of the first rows fit, and fill how many. */
type Trial = { delimiter: string; columns: number; rows: number; fitting: number; filled: number; rival?: string }

// Tabs, semicolons or bars that fit each of the first rows are hardly there by chance; commas that do may be decimal
// ones. Else it is the delimiter that accounts for the most fields; or, when no row fits, for the most columns.
function chooseDelimiter(csv: Buffer, start: number, json: Buffer, fixed?: string): Trial {
  if (fixed) return tryDelimiter(csv, start, json, fixed)
  const trials = [...DELIMITERS.keys()].map(delimiter => tryDelimiter(csv, start, json, delimiter))
  const fitsAll = ({ columns, rows, fitting }: Trial) => columns > 1 && rows > 0 && fitting === rows
  const isSure = (trial: Trial) => Number(fitsAll(trial) && trial.delimiter !== ',')
  trials.sort((a, b) => isSure(b) - isSure(a) || b.fitting * b.columns - a.fitting * a.columns || b.columns - a.columns)
  const [best, ...others] = trials as [Trial, ...Trial[]]
  const rival = others.find(fitsAll)?.delimiter
  return best.columns > 1 ? { ...best, rival } : trials.find(({ delimiter }) => delimiter === ',')!
}

function tryDelimiter(csv: Buffer, start: number, json: Buffer, delimiter: string): Trial {
  const format = bareFormat(delimiter)
  const header = convertRow(csv, start, json, 0, format)
  const sample = csv.subarray(0, csv.lastIndexOf(LF, header.end + SAMPLE) + 1) // whole lines
  const trial = { delimiter, columns: header.fields, rows: 0, fitting: 0, filled: 0 }
  for (let at = header.end; at < sample.length && trial.rows < SAMPLE_ROWS;) {
    const row = convertRow(sample, at, json, 0, format)
    at = row.end
    if (row.fields || row.problem) trial.rows++
    if (!row.fields || row.fields !== trial.columns) continue
    trial.fitting++
    trial.filled = Math.max(trial.filled, row.fields - emptyAtEnd(sample, row.end, format.delimiter))
  }
  return trial
}

/** A row as the inside of a JSON array, for what is read before the columns have names. */
const bareFormat = (delimiter: string): Format =>
  ({ delimiter: delimiter.charCodeAt(0), mayHaveBlanks: true, around: [] })

function formatOf(names: string[], columns: string[], bare: Format) {
  const before = columns.map((name, i) => `${i ? '",' : '{'}${JSON.stringify(name)}:"`)
  const around = [...before, '"}\n'].map(text => Buffer.from(text))
  if (Buffer.concat(around).length > JSON_ROOM / 4) throw new Error('the header: too many columns without a name')
  const asRow = names.map((name, i) => before[i] + JSON.stringify(name).slice(1, -1)).join('') + '"}\n'
  return { format: { ...bare, around }, asRow: Buffer.from(asRow) }
}

// ---- The rows

/**
 * Reads the rows, about a MiB at a time: each round begins with the first byte that is not converted yet, and converts
 * the rows that are whole in it. So memory is bounded, and only a position is carried from one round to the next.
 */
export async function* readRows(file: FileHandle, header: Header, complain: Complain): AsyncGenerator<Part> {
  const [buffer, json] = [Buffer.allocUnsafe(ROW_LIMIT + 1), Buffer.allocUnsafe(JSON_ROOM)]
  const { size, isMac } = header
  let { position, line } = header
  while (position < size) {
    let lines = await readLines(file, buffer, position, size, isMac)
    const { rows, jsonEnd, ...round } = convertRows(lines, json, header, line, complain)
    yield { position, rows, json: json.subarray(0, jsonEnd) }
    line = round.line
    if (!round.end) { // not even one row is whole: this costs it its first line
      complain(lines.length ? UNCLOSED : 'a line of more than 1 MiB', line++)
      for (; !lines.length; lines = await readLines(file, buffer, position, size, isMac)) position += ROW_LIMIT
      round.end = lines.indexOf(LF) + 1
    }
    position += round.end
  }
}

/** Whole lines only: none from within a line that goes on for a MiB. */
async function readLines(file: FileHandle, buffer: Buffer, position: number, size: number, isMac: boolean) {
  let { bytesRead } = await file.read(buffer, 0, ROW_LIMIT, position)
  if (isMac) for (let at = 0; (at = buffer.indexOf(CR, at)) >= 0;) buffer[at] = LF
  if (position + bytesRead >= size) buffer[bytesRead++] = LF // the last line may lack its own
  return buffer.subarray(0, buffer.subarray(0, bytesRead).lastIndexOf(LF) + 1)
}

/** As many rows as are whole, and as have room. A blank line is a row without fields. */
function convertRows(csv: Buffer, json: Buffer, { format, columns, asRow }: Header, line: number, complain: Complain) {
  const invalid = whatIsInvalid(csv) // seldom anything: a single look for all rows
  const hasMark = csv.includes(MARK)
  const round = { end: 0, line, rows: 0, jsonEnd: 0 }
  while (round.end < csv.length && round.jsonEnd < JSON_ROOM / 2) {
    const row = convertRow(csv, round.end, json, round.jsonEnd, format)
    if (row.problem === UNCLOSED) break // the next round sees more of it
    const start = round.end
    const extra = row.fields - columns.length
    let problem = row.problem
    if (extra > 0 && emptyAtEnd(csv, row.end, format.delimiter) >= extra) row.jsonEnd -= extra * BETWEEN.length
    else if (extra && row.fields) problem = `${row.fields} instead of ${columns.length} fields`
    const isLikeHeader = row.jsonEnd - round.jsonEnd === asRow.length && columns.length > 1 // one word may be a row
    if (isLikeHeader && asRow.equals(json.subarray(round.jsonEnd, row.jsonEnd))) problem ??= HEADER_AGAIN
    const mayHaveMark = hasMark && (problem || startsWithMark(csv, start))
    if (mayHaveMark && csv.subarray(start, row.end).includes(MARK)) problem = JOINED
    if (invalid && !isUtf8(csv.subarray(start, row.end))) problem ??= invalid
    if (problem) {
      complain(problem, round.line)
    } else if (row.fields) {
      round.rows++
      round.jsonEnd = row.jsonEnd
    }
    round.end = row.end
    round.line += row.lines
  }
  return round
}

/** How many of the last fields of a row are empty, and without quotes. */
function emptyAtEnd(csv: Buffer, end: number, delimiter: number): number {
  const last = end - (csv[end - 2] === CR ? 3 : 2)
  let at = last
  while (csv[at] === delimiter) at--
  return last - at
}

// What JSON writes for the bytes that may not stand for themselves, and for those that may end a field.
const SPECIAL = Array.from({ length: 256 }, (_, byte) => {
  const character = String.fromCharCode(byte)
  return byte < 32 || '"\\,;|'.includes(character) ? Buffer.from(JSON.stringify(character).slice(1, -1)) : undefined
})
const BETWEEN = Buffer.from('","')

// Copies one row into json, with the JSON around its fields. CSV and JSON are the same UTF-8 but for quotes and
// escapes, so this takes a fraction of the time of decoding, splitting, joining and encoding.
function convertRow(csv: Buffer, start: number, json: Buffer, jsonEnd: number, format: Format) {
  const { delimiter, mayHaveBlanks, around } = format
  let at = start
  let lines = 1
  for (let fields = 1; ; fields++) {
    jsonEnd = put(around[fields - 1] ?? BETWEEN, json, jsonEnd)
    let first = at
    while (mayHaveBlanks && csv[first] === BLANK) first++
    const quoted = csv[first] === QUOTE
    if (quoted) at = first + 1
    for (; at < csv.length; at++) {
      let special
      for (; !(special = SPECIAL[csv[at]!]); at++) json[jsonEnd++] = csv[at]!
      const byte = csv[at]
      if (quoted) {
        if (byte === QUOTE && csv[++at] !== QUOTE) break
        if (byte === LF) lines++
      } else if (byte === delimiter || byte === LF || byte === CR || byte === QUOTE) break
      jsonEnd = put(special, json, jsonEnd)
    }
    while (quoted && mayHaveBlanks && csv[at] === BLANK) at++
    const end = csv[at++]
    if (end === delimiter) continue
    if (end === LF || (end === CR && csv[at++] === LF)) {
      const isBlank = at - start === (end === LF ? 1 : 2)
      return { end: at, lines, fields: isBlank ? 0 : fields, jsonEnd: put(around[fields] ?? BETWEEN, json, jsonEnd) }
    }
    // Only the first line is refused: a quote that somebody forgot to close is noticed at the next quote,
    // many lines later perhaps, and those may be right.
    const what = quoted ? 'text after the quotes of' : end === CR ? 'a lone CR in' : 'a quote inside'
    const problem = end === undefined ? UNCLOSED : `${what} field ${fields}`
    return { end: csv.indexOf(LF, start) + 1, lines: 1, fields: 0, jsonEnd, problem }
  }
}

// A loop, because the texts are short: the call of Buffer.copy alone would take longer.
function put(text: Buffer, json: Buffer, jsonEnd: number): number {
  for (let i = 0; i < text.length; i++) json[jsonEnd++] = text[i]!
  return jsonEnd
}
