// A task process: it runs one remote function, once, and reports what happens. Look for: remote(), which marks
// what may be called; Task, the handle that a function reports through; RunLog, the one place that writes logs;
// then the functions themselves; last, the small role that this file has when the workers server forks it.

import { isUtf8 } from 'node:buffer'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync, constants, existsSync, fstatSync, ftruncateSync, openSync, readFileSync, readSync, rmSync, statSync, writeSync,
} from 'node:fs'
import { mkdir, open, rename, rm, writeFile, type FileHandle } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { basename, dirname, join } from 'node:path'
import { text } from 'node:stream/consumers'
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { inspect } from 'node:util'
import { Publisher } from 'zeromq'
import {
  createSocket, FILES, isId, LF, logPath, MAX_CHUNK, MAX_LOG, outliveTerminal, packChunk, packEntry, RemoteError, RUNS,
  TASKS, unpackEntry, UPLOADS, XSUB_ADDR, type Done, type Entry, type Note, type Outcome,
} from './protocol.ts'

// ---- What may be called

type Types = {
  string: string; text: string; file: string
  integer: number; number: number; boolean: boolean
  object: Record<string, unknown>
}
/** `text` is a string of many lines; `file` the name of an upload. Without a default, the argument must be given. */
export type Parameter = { name: string; type: keyof Types; description: string; default?: unknown; min?: number; max?: number }
type Values<P extends readonly Parameter[]> = { -readonly [K in keyof P]: Types[P[K]['type']] }

/** A function that may be called from outside, with what a caller must know. */
export type Remote = { description: string; parameters: readonly Parameter[]; run: (task: Task, ...args: any[]) => unknown }

// A registered symbol, and not a WeakSet of this module: a module that Node takes for CommonJS (no "type": "module"
// beside it) gets a copy of this file of its own, and its marks must count, too.
const MARK = Symbol.for('longrun.remote')

/**
 * Marks a function that may be called from outside, under the name by which its module exports it; nothing else
 * that a module exports can be. Arguments are checked against `parameters` before a process is taken for the call.
 * Throws a TypeError when one of the three is missing.
 */
export function remote<const P extends readonly Parameter[]>(
  description: string, parameters: P, run: (task: Task, ...args: Values<P>) => unknown,
): Remote {
  if (!Array.isArray(parameters) || typeof run !== 'function') {
    throw new TypeError('remote() takes a description, an array of parameters, and a function')
  }
  return Object.assign({ description, parameters, run }, { [MARK]: true })
}

/** The arguments with their defaults filled in. Throws a RemoteError that names the argument that does not fit. */
export function checkArgs({ parameters }: Remote, args: unknown[]): unknown[] {
  if (args.length > parameters.length) {
    throw new RemoteError(`invalid arguments: ${args.length} given, at most ${parameters.length} are taken`)
  }
  return parameters.map((parameter, index) => {
    const value = args[index] ?? parameter.default
    const wrong = whatIsWrong(parameter, value)
    if (wrong) throw new RemoteError(`invalid argument ${parameter.name}: ${wrong}`)
    return value
  })
}

function whatIsWrong({ type, min = -Infinity, max = Infinity }: Parameter, value: unknown): string | undefined {
  if (value === undefined || value === null) return `missing (${type})`
  if (type === 'file') return isUpload(value) ? undefined : 'no such upload: the file has to be uploaded first'
  if (type === 'object') return typeof value === 'object' && !Array.isArray(value) ? undefined : 'not an object'
  if (type === 'boolean') return typeof value === 'boolean' ? undefined : 'not true or false'
  if (type === 'string' || type === 'text') return typeof value === 'string' ? undefined : 'not a string'
  if (typeof value !== 'number' || !Number.isFinite(value)) return 'not a number'
  if (type === 'integer' && !Number.isSafeInteger(value)) return 'not a whole number'
  return value >= min && value <= max ? undefined : `not from ${min} to ${max}`
}

const isUpload = (name: unknown) => isId(name) && existsSync(join(UPLOADS, name))

// ---- The handle that a function reports through

const BATCH = 64 * 2 ** 10 // characters: what is gathered at most before it is written
const LONG_TURN = 20 // milliseconds: a function that never yields is followed live too

/**
 * What a remote function reports through. Entries of one turn of the event loop become one append to the log. Each
 * method throws when the data cannot be written as JSON, or when the log would grow above MAX_LOG.
 */
export class Task {
  /** The run's id. */
  readonly id: string
  /** Aborts when the run is to end: cancelled, over its time limit, or the server stops. 5 s later it is killed. */
  readonly signal: AbortSignal
  #write: (lines: Buffer) => void
  #gathered = ''
  #since = 0
  #size: number

  /** `size` of the log so far; `write` appends whole lines to it, and publishes them. */
  constructor(id: string, signal: AbortSignal, size: number, write: (lines: Buffer) => void) {
    this.id = id
    this.signal = signal
    this.#size = size
    this.#write = write
  }

  /** Anything that JSON can say. */
  msg(data: unknown) { this.#report('msg', data) }
  /** How far it is, in any unit; without a total, only that something goes on. */
  progress(current: number, total?: number, unit?: string) { this.#report('progress', { current, total, unit }) }
  log(msg: string, details?: Details) { this.#report('log', { msg, ...details }) }
  warning(msg: string, details?: Details) { this.#report('warning', { msg, ...details }) }
  /** Something went wrong, and the function goes on. To end the run, throw. */
  error(msg: string, details?: Details) { this.#report('error', { msg, ...details }) }

  /** Takes room for a line in the log. Throws a RangeError when there is not enough. */
  reserve(line: string) {
    const size = this.#size + Buffer.byteLength(line)
    if (size > MAX_LOG) throw new RangeError(`the log of a run may have ${MAX_LOG} bytes (MAX_LOG)`)
    this.#size = size
  }

  #report(type: Entry['type'], data: unknown) {
    const line = packEntry(type, data)
    this.reserve(line)
    if (!this.#gathered) {
      this.#since = Date.now()
      setImmediate(() => this.flush())
    }
    this.#gathered += line
    if (this.#gathered.length > BATCH || Date.now() - this.#since > LONG_TURN) this.flush()
  }

  /** Writes what was gathered in this turn. */
  flush() {
    if (!this.#gathered) return
    const lines = Buffer.from(this.#gathered)
    this.#gathered = ''
    this.#write(lines)
  }
}

type Details = { line?: number; column?: number; file?: string; [detail: string]: unknown }

// ---- The log of a run

/** A file that only takes up room: it is removed to make some for the last lines of runs on a full disk. */
export const BALLAST = join(RUNS, 'ballast')

/** The log of one run, open for writing. The one place where lines are appended, and where a run is ended. */
export class RunLog {
  readonly id: string
  /** In bytes. */
  size: number
  #fd: number

  /** Throws when there is a log already that is to be created, or none that is to be opened, or the disk is full. */
  constructor(id: string, how: 'create' | 'open') {
    this.id = id
    const { O_APPEND, O_CREAT, O_EXCL, O_NOFOLLOW, O_RDWR } = constants // 'a+' would create what is missing
    this.#fd = openSync(logPath(id), O_RDWR | O_APPEND | O_NOFOLLOW | (how === 'create' ? O_CREAT | O_EXCL : 0), 0o600)
    this.size = fstatSync(this.#fd).size
  }

  /** Appends whole lines, all or nothing. Throws ENOSPC and the like. */
  append(lines: Buffer) {
    try {
      for (let sent = 0; sent < lines.length;) sent += writeSync(this.#fd, lines, sent)
    } catch (error) {
      ftruncateSync(this.#fd, this.size) // a full disk may have taken a part
      throw error
    }
    this.size += lines.length
  }

  /** Whole lines from a position: at most so many bytes, or one line that is longer; none at the end. */
  lines(position: number, most: number): Buffer {
    const before = position ? this.read(position - 1, position).at(0) : LF
    if (before !== undefined && before !== LF) throw new RemoteError('invalid position: no line begins there')
    for (; ; most *= 2) {
      const lines = this.read(position, position + most)
      const end = lines.lastIndexOf(LF) + 1
      if (end || lines.length < most) return lines.subarray(0, end)
    }
  }

  /** The entry in the last whole line, undefined when there is none. */
  last(): Entry | undefined {
    const end = this.#lineStart(this.size)
    return end > 0 ? unpackEntry(String(this.read(this.#lineStart(end - 1), end))) : undefined
  }

  /** Cuts off a torn last line. Only when its process has died: a live one may be writing that line. */
  cut() { ftruncateSync(this.#fd, this.size = this.#lineStart(this.size)) }

  /** Position after the last line break before `position`. */
  #lineStart(position: number): number {
    for (let end = position; end > 0;) {
      const start = Math.max(0, end - BATCH)
      const found = this.read(start, end).lastIndexOf(LF)
      if (found >= 0) return start + found + 1
      end = start
    }
    return 0
  }

  /** The bytes from one position to another. */
  read(from: number, to: number): Buffer {
    const bytes = Buffer.allocUnsafe(to - from)
    return bytes.subarray(0, readSync(this.#fd, bytes, 0, bytes.length, from))
  }

  /**
   * Ends the run: an `error` entry if something went wrong, then `done`, the last line of every log. On a full disk
   * the ballast goes first, to make room for them.
   */
  finish(done: Done, error?: Note) {
    const lines = Buffer.from((error ? packEntry('error', error) : '') + packEntry('done', done))
    try {
      this.append(lines)
    } catch {
      rmSync(BALLAST, { force: true })
      this.append(lines)
    }
  }

  close() { closeSync(this.#fd) }
}

// ---- Remote functions

const countSteps = remote('counts: one message per step', [
  { name: 'steps', type: 'integer', description: 'how many messages', default: 10, min: 0, max: 100_000_000 },
  { name: 'delay', type: 'integer', description: 'milliseconds between them', default: 100, min: 0, max: 86_400_000 },
], async (task, steps, delay) => {
  for (let step = 0; step < steps; step++) {
    task.msg({ process: process.pid, step, token: task.id })
    if (delay) await sleep(delay, undefined, { signal: task.signal })
    else if (step % 1000 === 999) await nextTurn(undefined, { signal: task.signal })
  }
})
export { countSteps as process } // its name in the article that this project comes from; in here, it is Node's own

export const importCsv = remote('turns a CSV file into JSON lines, and names the lines that are wrong', [
  { name: 'file', type: 'file', description: 'CSV in UTF-8; its first line names the columns' },
  { name: 'options', type: 'object', description: 'delimiter: a comma, a semicolon or a tab', default: {} },
], async (task, file, { delimiter, ...others }) => {
  for (const name in others) throw new Error(`unknown option '${name}'`)
  const delimiters = DELIMITERS.filter(known => delimiter === undefined || delimiter === known)
  if (!delimiters.length) throw new Error('the delimiter must be a comma, a semicolon or a tab')
  const name = `${task.id}.ndjson`
  const part = join(FILES, `${task.id}.part`)
  const csv = await open(join(UPLOADS, file))
  const json = await open(part, 'wx', 0o600)
  try {
    const result = await convertCsv(task, csv, json, delimiters)
    await rename(part, join(FILES, name)) // whoever finds this name finds the whole file
    return { ...result, file: name }
  } finally {
    await Promise.all([csv.close(), json.close(), rm(part, { force: true })])
  }
})

export const compile = remote('checks a TypeScript source that stands alone', [
  { name: 'source', type: 'text', description: 'TypeScript; nothing that it imports is read' },
], async (task, source) => {
  const { counts, report } = boundedReports(task)
  const folder = join(FILES, `${task.id}.part`) // is removed with the run, however that ends
  await mkdir(folder)
  try {
    await writeFile(join(folder, 'source.ts'), source)
    const tsc = spawn(compilerPath(), COMPILER_ARGUMENTS, {
      cwd: folder, stdio: ['ignore', 'pipe', 'pipe'], signal: task.signal, killSignal: 'SIGKILL',
    })
    const [[code, signal], output, complaint] = await Promise.all([once(tsc, 'close'), text(tsc.stdout), text(tsc.stderr)])
    for (const diagnostic of output.split(NEXT_DIAGNOSTIC).filter(Boolean)) reportDiagnostic(diagnostic.trim(), report)
    // Exit codes 1 and 2 mean that the source has errors; a crash is 2 as well, but says so on stderr.
    if (signal || code > 2 || complaint || (code > 0 && !counts.error)) {
      throw new Error(`the compiler failed (${signal ?? `exit code ${code}`}) ${complaint.slice(0, 2000)}`)
    }
    return { errors: counts.error, warnings: counts.warning }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
})

// Counts every report, and makes entries of the first thousand: those tell the story of a file with a
// million bad lines; the others would only flood the log and every page.
const REPORT_LIMIT = 1000

type Report = (type: 'warning' | 'error', msg: string, details: Details) => void

function boundedReports(task: Task) {
  const counts = { warning: 0, error: 0 }
  const report: Report = (type, msg, details) => {
    counts[type]++
    const count = counts.warning + counts.error
    if (count <= REPORT_LIMIT) task[type](msg, details)
    if (count === REPORT_LIMIT + 1) task.log(`these were the first ${REPORT_LIMIT}: the rest is only counted`)
  }
  return { counts, report }
}

const DELIMITERS = [',', ';', '\t']
const [CR, QUOTE] = [13, 34]
const ROW_LIMIT = 2 ** 20 // a forgotten quote must not swallow the file, nor an endless line the memory
const JSON_ROOM = 24 * ROW_LIMIT // half for one row: up to six bytes for each of its own (\u0000) and of its header's
const PROGRESS_PAUSE = 50 // milliseconds
const UNCLOSED = 'a quoted field that is not closed, or not within 1 MiB'

type Format = { delimiter: number; around: Buffer[] } // around: the JSON before, between, after the fields

// Each round reads a MiB from the first byte that is not converted yet, and converts the rows that are whole in it.
// So memory is bounded, and only a position is carried from one round to the next.
async function convertCsv(task: Task, csv: FileHandle, output: FileHandle, delimiters: string[]) {
  const { size } = await csv.stat()
  const { counts, report } = boundedReports(task)
  const [buffer, json] = [Buffer.allocUnsafe(ROW_LIMIT + 1), Buffer.allocUnsafe(JSON_ROOM)]
  const { columns, format, ...header } = readHeader(await readLines(csv, buffer, 0, size), json, delimiters)
  let { position, line } = header
  let rows = 0
  let progressTime = 0
  while (position < size) {
    task.signal.throwIfAborted()
    if (Date.now() - progressTime >= PROGRESS_PAUSE) {
      task.progress(position, size, 'bytes')
      progressTime = Date.now()
    }
    let lines = await readLines(csv, buffer, position, size)
    const round = convertRows(lines, json, format, line, report)
    await output.writeFile(json.subarray(0, round.jsonEnd))
    rows += round.rows
    line = round.line
    if (!round.end) { // not even one row is whole: this costs it its first line
      report('warning', lines.length ? UNCLOSED : 'a line of more than 1 MiB', { line: line++ })
      for (; !lines.length; lines = await readLines(csv, buffer, position, size)) position += ROW_LIMIT
      round.end = lines.indexOf(LF) + 1
    }
    position += round.end
  }
  task.progress(size, size, 'bytes')
  return { rows, rejected: counts.warning, columns }
}

// Whole lines only: none from within a line that goes on for a MiB.
async function readLines(csv: FileHandle, buffer: Buffer, position: number, size: number): Promise<Buffer> {
  let { bytesRead } = await csv.read(buffer, 0, ROW_LIMIT, position)
  if (position + bytesRead >= size) buffer[bytesRead++] = LF // the last line may lack its own
  return buffer.subarray(0, buffer.subarray(0, bytesRead).lastIndexOf(LF) + 1)
}

// The delimiter is the one that makes the most columns.
function readHeader(csv: Buffer, json: Buffer, delimiters: string[]) {
  if (!csv.length) throw new Error('the header is longer than 1 MiB')
  let start = csv.toString('utf8', 0, 3) === '\ufeff' ? 3 : 0
  let line = 1
  for (; csv[start] === LF || (csv[start] === CR && csv[start + 1] === LF); line++) start = csv.indexOf(LF, start) + 1
  if (start === csv.length) throw new Error('the file is empty')
  const read = (delimiter: number) => convertRow(csv, start, json, 0, { delimiter, around: [] })
  const bytes = delimiters.map(text => text.charCodeAt(0))
  const delimiter = bytes.sort((one, other) => read(other).fields - read(one).fields)[0]!
  const row = read(delimiter)
  if (row.problem) throw new Error(`the header: ${row.problem}`)
  if (!isUtf8(csv.subarray(start, row.end))) throw new Error('the header: invalid UTF-8')
  const columns: string[] = JSON.parse(`[${json.toString('utf8', 2, row.jsonEnd - 2)}]`) // from ","first","last","
  if (columns.includes('')) throw new Error(`the header: column ${columns.indexOf('') + 1} has no name`)
  const names = new Set<string>()
  const twice = columns.find(name => names.size === names.add(name).size)
  if (twice !== undefined) throw new Error(`the header: two columns are named '${twice}'`)
  const before = columns.map((name, i) => `${i ? '",' : '{'}${JSON.stringify(name)}:"`)
  const around = [...before, '"}\n'].map(piece => Buffer.from(piece))
  return { columns, format: { delimiter, around }, position: row.end, line: line + row.lines }
}

// As many rows as are whole, and as have room. A blank line is a row without fields.
function convertRows(csv: Buffer, json: Buffer, format: Format, line: number, report: Report) {
  const columns = format.around.length - 1
  const valid = isUtf8(csv)
  const round = { end: 0, line, rows: 0, jsonEnd: 0 }
  while (round.end < csv.length && round.jsonEnd < JSON_ROOM / 2) {
    const row = convertRow(csv, round.end, json, round.jsonEnd, format)
    if (row.problem === UNCLOSED) break // the next round sees more of it
    const problem = row.problem
      ?? (row.fields && row.fields !== columns ? `${row.fields} instead of ${columns} fields` : undefined)
      ?? (valid || isUtf8(csv.subarray(round.end, row.end)) ? undefined : 'invalid UTF-8')
    if (problem) {
      report('warning', problem, { line: round.line })
    } else if (row.fields) {
      round.rows++
      round.jsonEnd = row.jsonEnd
    }
    round.end = row.end
    round.line += row.lines
  }
  return round
}

// What JSON writes for the bytes that may not stand for themselves, and for those that may end a field.
const SPECIAL = Array.from({ length: 256 }, (_, byte) => {
  const character = String.fromCharCode(byte)
  return byte < 32 || '"\\,;'.includes(character) ? Buffer.from(JSON.stringify(character).slice(1, -1)) : undefined
})
const BETWEEN = Buffer.from('","')

// Copies one row into json, with the JSON around its fields. CSV and JSON are the same UTF-8 but for quotes
// and escapes, so this takes a fraction of the time of decoding, splitting, joining and encoding.
function convertRow(csv: Buffer, start: number, json: Buffer, jsonEnd: number, { delimiter, around }: Format) {
  let at = start
  let lines = 1
  for (let fields = 1; ; fields++) {
    jsonEnd = put(around[fields - 1] ?? BETWEEN, json, jsonEnd)
    const quoted = csv[at] === QUOTE
    if (quoted) at++
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

// A loop, because the pieces are short: the call of Buffer.copy alone would take longer.
function put(piece: Buffer, json: Buffer, jsonEnd: number): number {
  for (let i = 0; i < piece.length; i++) json[jsonEnd++] = piece[i]!
  return jsonEnd
}

const COMPILER_ARGUMENTS = [
  'source.ts', '--noEmit', '--strict', '--target', 'es2023', '--lib', 'es2023,dom', '--module', 'esnext',
  '--moduleDetection', 'force', '--skipLibCheck', '--pretty', 'false', '--locale', 'en',
  // Nothing is read but the source and the compiler's own libraries; the last one keeps an import from
  // telling whether a file exists.
  '--ignoreConfig', '--noResolve', '--types', '', '--moduleSuffixes', '.none',
]

// The compiler itself: the command `tsc` may be a wrapper, and killing it would leave the compiler running.
function compilerPath(): string {
  const typescript = createRequire(import.meta.url).resolve('typescript/package.json')
  const platform = `@typescript/typescript-${process.platform}-${process.arch}/package.json`
  return join(dirname(createRequire(typescript).resolve(platform)), 'lib', 'tsc')
}

// A diagnostic begins with its place and code, and goes on in the lines that do not.
const DIAGNOSTIC = /^(?:(.+)\((\d+),(\d+)\): )?(error|warning) (TS\d+): ([^]*)/
const NEXT_DIAGNOSTIC = /\n(?=(?:.+\(\d+,\d+\): )?(?:error|warning) TS\d+: )/

function reportDiagnostic(diagnostic: string, report: Report) {
  const [, file, line, column, type, code, msg] = DIAGNOSTIC.exec(diagnostic) ?? []
  if (!msg) throw new Error(`the compiler said: ${diagnostic.slice(0, 2000)}`)
  const place = file && { line: Number(line), column: Number(column), file: basename(file) }
  report(type === 'warning' ? 'warning' : 'error', msg, { ...place, code })
}

// ---- The task process

// The arguments are taken away, so that a copy of this file (see MARK) does not do the same.
if (process.send && process.argv[1] === import.meta.filename) void awaitRun(process.argv.splice(1)[1])

/**
 * Loads and connects everything, then runs the run that it was started for; without one it is a spare, which gets
 * its run as a message: later, or while it is still loading. All that it is told is the id: the call stands in the log.
 */
async function awaitRun(id: string | undefined) {
  const assigned = id ?? assignment()
  const functions = await loadFunctions()
  const socket = createSocket(Publisher, { sendTimeout: 0 }) // 0: a send never waits, what is too much is dropped
  // Trap, the slow joiner: a connection takes a moment, and what a PUB sends before is dropped without an error. A run
  // that begins at once would lose its first entries; here that is a gap before `next`, read from the log like any other.
  socket.connect(XSUB_ADDR)
  if (!id) process.send?.('ready', undefined, undefined, () => {}) // the server has gone: `disconnect` follows
  await run(await assigned, functions, socket)
}

function assignment(): Promise<string> {
  if (!process.connected) process.exit() // the server died before we could listen: no event will come
  process.once('disconnect', () => process.exit()) // a spare ends with its server
  return new Promise(resolve => process.once('message', (id: string) => {
    process.removeAllListeners('disconnect') // a run goes on without its server: the next one adopts it
    process.channel?.unref() // nor does the channel keep a run alive that has nothing left to do
    resolve(id)
  }))
}

const HINT_PAUSE = 4 // milliseconds from one hint to the next

/**
 * Publishes what has been logged: a hint, which may be lost. The first one after a pause goes out at once; a task that
 * goes on gathers a few milliseconds in each, as what costs is a message, which six threads hand over, and not its bytes.
 * (What waits when a task stops yielding is not lost, but late: the web server asks how long the log is.)
 */
class Hints {
  readonly #log: RunLog
  readonly #socket: Publisher
  #position: number // up to here it has been published
  #time = -HINT_PAUSE // of the last hint, by a clock that nobody sets
  #timer?: NodeJS.Timeout

  constructor(log: RunLog, socket: Publisher) {
    this.#log = log
    this.#socket = socket
    this.#position = log.size
  }

  /** For what was just logged. */
  publishSoon() {
    const early = this.#time + HINT_PAUSE - performance.now()
    if (early <= 0 || this.#log.size - this.#position >= BATCH) this.publish()
    else this.#timer ??= setTimeout(() => this.publish(), early)
  }

  publish() {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#time = performance.now()
    const { id, size } = this.#log
    const position = size - this.#position > MAX_CHUNK ? size : this.#position
    this.#position = size
    void this.#socket.send(packChunk({ id, position, lines: this.#log.read(position, size) })).catch(() => {})
  }
}

type Began = Entry & { type: 'start' }

/** Waits for the first line of the log: a server that is held up writes it late, one that was killed never. No event tells. */
async function awaitLog(id: string) {
  const isBegun = () => statSync(logPath(id), { throwIfNoEntry: false })?.size
  while (!isBegun() && process.connected) await sleep(10)
  if (!isBegun()) process.exit()
  const log = new RunLog(id, 'open')
  const start = log.last()
  if (start?.type !== 'start') process.exit() // it was ended before it began
  return { log, start }
}

async function run(id: string, functions: Map<string, Remote>, socket: Publisher) {
  const { log, start } = await awaitLog(id)
  const { method, args } = start.data
  const stop = new AbortController()
  const hints = new Hints(log, socket)
  const task = new Task(id, stop.signal, log.size, lines => {
    try {
      log.append(lines) // always the log first: who has seen a position can read it
    } catch (error) {
      fail(error) // a full disk: what cannot be logged has not happened
    }
    hints.publishSoon()
  })
  process.title = `longrun ${method}`
  process.on('SIGTERM', () => stop.abort())
  process.on('uncaughtException', fail) // unhandled rejections too
  process.on('exit', () => task.flush()) // a function that calls process.exit() loses nothing that it reported
  outliveTerminal()

  try {
    const called = functions.get(method)!
    const result = await called.run(task, ...checkArgs(called, args))
    task.reserve(packEntry('msg', result)) // throws when it cannot be written as JSON, or does not fit into the log any more
    end(stop.signal.aborted ? 'cancelled' : 'ok', result)
  } catch (error) {
    fail(error) // the function's, or its result cannot be written
  }

  function fail(error: unknown): never {
    // A cancelled function ends by the AbortError of what it awaited: that is no error of its own.
    if (stop.signal.aborted && Object(error).name === 'AbortError') end('cancelled')
    end('error', undefined, describe(error))
  }

  function end(outcome: Outcome, result?: unknown, error?: Note): never {
    task.flush()
    log.finish(lastEntry(start, outcome, result, error?.msg), error)
    hints.publish()
    // What the function started ends with it: the whole process group, this process too, so that nothing follows
    // `done`. The workers server would see to that, but may have died just now; and the next one leaves ended runs alone.
    process.kill(-process.pid, 'SIGKILL')
    process.exit()
  }
}

function lastEntry({ time, data: { timeLimit } }: Began, outcome: Outcome, result: unknown, problem?: string): Done {
  const seconds = (Date.now() - time) / 1000
  const isOver = timeLimit > 0 && seconds >= timeLimit
  const reason = outcome === 'cancelled' ? isOver ? `over its time limit of ${timeLimit} s` : 'cancelled' : problem
  return { outcome, result, reason, seconds }
}

const LAST_WORDS = 2 ** 16 // characters of a message, which comes twice, and of a stack: they may come on top of MAX_LOG

/** A function can throw anything. */
function describe(thrown: unknown): Note {
  const { name, message, stack } = thrown instanceof Error ? thrown : new Error(typeof thrown === 'string' ? thrown : inspect(thrown))
  return { msg: String(message || name).slice(0, LAST_WORDS), stack: stack && String(stack).slice(0, LAST_WORDS) }
}

// ---- Loading the functions

/**
 * The remote functions by name: those of this file, and those of the module that TASKS names. A Map, because in
 * an object `toString` and `__proto__` would be functions that anyone may call. Throws what the module throws, and an
 * Error when it has none.
 */
export async function loadFunctions(): Promise<Map<string, Remote>> {
  const functions = new Map<string, Remote>()
  for (const path of [import.meta.filename, TASKS]) {
    const found = Object.entries(await loadModule(path)).filter((pair): pair is [string, Remote] => MARK in Object(pair[1]))
    if (!found.length) throw new Error(`${path} exports no remote function, as in: export const NAME = remote(…)`)
    for (const [name, called] of found) functions.set(name, called)
  }
  return functions
}

// On Node 20 a task process is CommonJS (see forkTask), where require() cannot load a module that awaits at its top
// level, nor import() one in TypeScript. tsx would see to that, with a second thread that takes 250 ms to start: so it
// is told only for modules that need it.
async function loadModule(path: string): Promise<Record<string, object>> {
  const { href } = pathToFileURL(path)
  if (typeof require !== 'function') return import(href)
  const wholeLoader = async () => (await import('tsx/esm/api')).register()
  const imports = (file: string) => /\bimport\s*\(/.test(readFileSync(file, 'utf8'))
  try {
    const module = require(path)
    const sources = Object.keys(require.cache).filter(file => file.endsWith('.ts') && file !== import.meta.filename)
    if (sources.some(imports)) await wholeLoader()
    return module
  } catch (error) {
    if (!/^ERR_REQUIRE_(ASYNC_MODULE|ESM)$/.test(String((error as NodeJS.ErrnoException).code))) throw error
    await wholeLoader()
    return import(href)
  }
}
