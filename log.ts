// A run is a log. Whatever happens in a run is an entry, one line of JSON in RUNS/<id>.ndjson; lines are only ever
// appended, so the byte position at which a line begins says for ever where it stands. Look for: Entry, what a line can
// say; RunLog, the one place that writes logs; RunLog.finish, the one way in which a run ends.
//
//   {"type":"start","time":1767225600000,"data":{"method":"process","args":[2,100],"callId":"","pid":19372,…}}
//   {"type":"msg","time":1767225600021,"data":{"msg":"step 1 of 2","process":19372,"step":0}}
//   {"type":"done","time":1767225600242,"data":{"outcome":"ok","seconds":0.242}}

import { isUtf8 } from 'node:buffer'
import {
  closeSync, constants, copyFileSync, existsSync, fstatSync, ftruncateSync, openSync, readFileSync, readSync,
  renameSync, writeFileSync, writeSync,
} from 'node:fs'
import { uptime } from 'node:os'
import { join } from 'node:path'
import { inspect } from 'node:util'
import { BALLAST, isThere, removeAll, RUNS } from './settings.ts'

// ---- Names

/** Whether a text can name a run: safe as a file name, a topic and a part of an address. */
export const isId = (text: unknown): text is string => typeof text === 'string' && /^[A-Za-z0-9_-]{1,64}$/.test(text)
/** What to say of an id that cannot. */
export const INVALID_ID = 'invalid id: 1 to 64 of A-Z a-z 0-9 _ - are allowed'
/** Whether a text can name a file that a run produced. What ends in `.part` is not finished. */
export const isFile = (text: unknown): text is string =>
  typeof text === 'string' && /^[A-Za-z0-9_-]{1,64}\.(?!part$)[a-z0-9]{1,10}$/.test(text)

/** Path of the log of a run. */
export const logPath = (id: string) => join(RUNS, `${id}.ndjson`)
/** Path of what its process says on stderr, until the run has ended. */
export const stderrPath = (id: string) => join(RUNS, `${id}.stderr`)
const stopPath = (id: string) => join(RUNS, `${id}.stop`)
const beganPath = (id: string) => join(RUNS, `${id}.began`)

// ---- Entries

/** One line of a run's log. `time` in milliseconds since 1970. */
export type Entry =
  | { type: 'start'; time: number; data: Start }
  | { type: 'msg'; time: number; data: unknown }
  | { type: 'progress'; time: number; data: { current: number; total?: number; unit?: string } }
  | { type: 'log'; time: number; data: Note }
  | { type: 'warning'; time: number; data: Note }
  | { type: 'error'; time: number; data: Note }
  | { type: 'step'; time: number; data: { name: string } }
  | { type: 'done'; time: number; data: Done }
/** Always the first line. `timeLimit` in seconds, 0: none. */
export type Start = { method: string; args: unknown[]; callId: string; pid: number; timeLimit: number }
export type Note = { msg: string; line?: number; column?: number; file?: string; [detail: string]: unknown }
export type Outcome = (typeof OUTCOMES)[number]
const OUTCOMES = ['ok', 'error', 'cancelled', 'died'] as const
/** Always the last line, exactly once. The numbers of errors and warnings were counted by the task. */
export type Done = {
  outcome: Outcome; result?: unknown; reason?: string; seconds: number; errors?: number; warnings?: number
}
/** What a log says of its run: its size in bytes, and how the run ended, once it has. */
export type LogState = { size: number } & Partial<Omit<Done, 'result' | 'reason'>>
/** The last line of a log, which ends at `size`; the result as the bytes that stand there. */
type End = Omit<Done, 'result'> & { size: number; result?: Buffer }

/** The byte that ends a line, and with it an entry. */
export const LF = 10
/** Bytes of an entry's data; more is refused where it is made: one line must fit into every reader's memory. */
export const MAX_ENTRY = 16 * 2 ** 20

// ---- The log of a run

const TAIL = 64 * 2 ** 10 // bytes that are read at once, backwards, for the beginning of a line or the last progress
const MAX_LINE = MAX_ENTRY + 64 // bytes that a line of ours can have
// One of our lines, as packLine writes it, or another program, at its end. A sticky pattern, and no copy of the line: a
// late reader's log has a million of them. No part of it can match in two ways: else a line could take minutes.
const DATA = /"[^\n]*"|\[[^\n]*\]|\{[^\n]*\}|true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/.source
const LINE = new RegExp(`\\{"type":"\\w+","time":\\d+,"data":(?:${DATA})[ \\t\\r]*\\}[ \\t\\r]*\\n`, 'y')

/** A position at which no line of the log begins. */
export class PositionError extends Error {}

/** @internal The log of one run, open. The one place where lines are appended, and where a run is ended. */
export class RunLog {
  readonly id: string
  /** In bytes. */
  size: number
  /** Whether it had no name any more at the last append: others have ended the run, see `replace`, or removed it. */
  isRemoved = false
  #fd: number
  #expected = 0 // its size, had nobody else written into it

  /** Throws when there is a log already that is to be created, or none that is to be opened, or the disk is full. */
  constructor(id: string, how: 'create' | 'open') {
    this.id = id
    this.#fd = openLog(logPath(id), how === 'create' ? constants.O_CREAT | constants.O_EXCL : 0)
    this.size = fstatSync(this.#fd).size
  }

  /** Appends whole lines. Throws ENOSPC and the like: then those stay for which there was room. */
  append(lines: Buffer) {
    const before = fstatSync(this.#fd).size
    // Trap, `printf hello >> ID.ndjson`: what has no line end would swallow the first of ours.
    const isTorn = before !== this.#expected && this.#lineStart(before) !== before
    const bytes = isTorn ? Buffer.concat([Buffer.of(LF), lines]) : lines
    this.#expected = before + bytes.length
    try {
      for (let written = 0; written < bytes.length;) written += writeSync(this.#fd, bytes, written)
      const { size, nlink } = fstatSync(this.#fd) // somebody else may have written into it, too
      this.size = size
      this.isRemoved = nlink === 0
    } catch (error) {
      this.size = fstatSync(this.#fd).size
      this.cut() // no more than the torn line: readers may have read those before it
      throw error
    }
  }

  /**
   * Whole lines: at most so many bytes, or one longer line; none at the end. Throws a PositionError within a line. What
   * is longer than a line of ours can be, and than what a reply can hold, comes in parts, each a line of blanks.
   */
  lines(position: number, most: number): Buffer {
    const before = position ? this.read(position - 1, position).at(0) : LF
    const isWithin = before !== undefined && before !== LF && position - this.#lineStart(position) < MAX_LINE
    if (isWithin) throw new PositionError('invalid position: no line begins there')
    for (; ; most *= 2) {
      const lines = this.read(position, position + most)
      const end = lines.lastIndexOf(LF) + 1
      if (end || lines.length < most) return lines.subarray(0, end)
      if (most > MAX_LINE) return Buffer.from('\n'.padStart(MAX_LINE))
    }
  }

  /** The first entry, which is the call; undefined when there is none. Throws a SyntaxError for what is no JSON. */
  first(): Entry | undefined {
    const lines = this.lines(0, 4096)
    return lines.length ? unpackEntry(String(lines.subarray(0, lines.indexOf(LF)))) : undefined
  }

  // The last whole line that is ours counts: what somebody else has written behind it says nothing. Of this one all but
  // the result is parsed: with 16 MiB that would take 0.4 s, for each question of each page.
  /** How the run ended; undefined when it goes on. */
  end(): End | undefined {
    for (let end = this.#lineStart(this.size), start; end; end = start) {
      start = this.#lineStart(end - 1)
      const middle = Math.min(start + 64, end) // what follows, up to its end, may be 16 MiB
      const ends = Buffer.concat([this.read(start, middle), this.read(Math.max(middle, end - 8), end)])
      const line = lineAt(ends.toString('latin1'), 0)
      const done = line?.isDone ? unpackDone(this.read(start, end)) : undefined
      if (done) return { ...done, size: end }
      if (line && !line.isDone) break
    }
    return undefined
  }

  /** What it says of its run by now. */
  state(): LogState {
    const { size, outcome, seconds, errors, warnings } = this.end() ?? { size: this.size }
    return { size, outcome, seconds, errors, warnings }
  }

  /** The last entry of a type, with data, in the last TAIL bytes; undefined when there is none. */
  latest<T extends Entry['type']>(type: T): Extract<Entry, { type: T }> | undefined {
    const [, ...lines] = String(this.read(Math.max(0, this.size - TAIL), this.size)).split('\n') // one may be cut
    for (const line of lines.filter(line => line.startsWith(`{"type":"${type}","time":`)).reverse()) {
      try {
        const entry = unpackEntry(line) as Extract<Entry, { type: T }>
        if (entry.data) return entry
      } catch {} // somebody else has written it
    }
    return undefined
  }

  /** Cuts off a torn last line. For who has written it, or when its process has died: else it may be on its way. */
  cut() { ftruncateSync(this.#fd, this.size = this.#lineStart(this.size)) }

  /** Position after the last line break before `position`. */
  #lineStart(position: number): number {
    for (let end = position; end > 0; end -= TAIL) {
      const start = Math.max(0, end - TAIL)
      const found = this.read(start, end).lastIndexOf(LF)
      if (found >= 0) return start + found + 1
    }
    return 0
  }

  /** The bytes from one position to another, as far as there are any. */
  read(from: number, to: number): Buffer {
    const bytes = Buffer.allocUnsafe(to - from)
    return bytes.subarray(0, readSync(this.#fd, bytes, 0, bytes.length, from))
  }

  /**
   * The fence: puts a copy in the place of the log, so that a process which may be alive on a machine that was cut off
   * cannot write into it any more: what it has open has no name, and it ends when it sees that. (To look at the size
   * before each append would be a race.) Where there is no room for a copy, the log stays, without a fence.
   */
  replace() {
    const copy = `${logPath(this.id)}.copy`
    let other: number | undefined // what is open besides: the copy, and once that is the log, the old one
    try {
      removeAll(copy) // what a server that died has left, or somebody else
      copyFileSync(logPath(this.id), copy)
      other = openLog(copy)
      renameSync(copy, logPath(this.id))
      this.#expected = fstatSync(other).size
      const late = this.read(this.#expected, fstatSync(this.#fd).size) // what came while it was copied
      ;[other, this.#fd] = [this.#fd, other]
      this.append(late)
    } catch (error) {
      if (!/^(ENOSPC|EDQUOT)$/.test(String((error as NodeJS.ErrnoException).code))) throw error
    } finally {
      if (other !== undefined) closeSync(other)
      removeAll(copy)
    }
  }

  /** Ends the run by its last lines: `error` if something went wrong, then `done`. Returns their bytes. */
  finish(end: string): Buffer {
    const lines = Buffer.from(end)
    try {
      this.append(lines)
    } catch {
      removeAll(BALLAST) // on a full disk, it makes room for them
      this.append(lines.subarray(Math.max(0, lines.length - this.#expected + this.size))) // what is missing of them
    }
    return lines
  }

  close() { closeSync(this.#fd) }
}

// Never through a link, and without O_CREAT ('a+' would create what is missing).
function openLog(path: string, how = 0): number {
  return openSync(path, constants.O_RDWR | constants.O_APPEND | constants.O_NOFOLLOW | how, 0o600)
}

/** @internal Opens the log of a run for as long as `act` takes. Throws what the constructor of RunLog does. */
export function withLog<T>(id: string, act: (log: RunLog) => T, how: 'create' | 'open' = 'open'): T {
  const log = new RunLog(id, how)
  try {
    return act(log)
  } finally {
    log.close()
  }
}

// ---- Beside the log, until the run has ended: since when it goes on, and why it is to end

// For a server that takes over. The start of its process says nothing: a spare may have waited for hours.
/** Writes down when a run begins, by the clock of the machine that nobody sets, and that never jumps. */
export function noteBegin(id: string) { writeFileSync(beganPath(id), `${bootId()} ${uptime()}`, { mode: 0o600 }) }

/** For how long a run has been going on, in ms; undefined when that was not noted since the machine started. */
export function goingOnFor(id: string): number | undefined {
  const [boot, began] = readNote(beganPath(id)).split(' ')
  const goesOn = 1000 * (uptime() - Number(began))
  return boot === bootId() && goesOn >= 0 ? goesOn : undefined
}

const bootId = () => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()

// Before it gets its signal: whoever writes its `done`, its own process or a server, takes the reason from there.
/** Writes down why a run is to end. The first reason counts. Throws ENOSPC and the like. */
export function writeReason(id: string, reason: string) {
  if (!readReason(id)) writeFileSync(stopPath(id), reason, { mode: 0o600 })
}

/** The reason that was written down; undefined when the run was not asked to end. Throws EMFILE and the like. */
export const readReason = (id: string) => readNote(stopPath(id)) || undefined

const readNote = (path: string) => isThere(path) ? readFileSync(path, 'utf8').slice(0, MAX_WORDS) : ''
const sideFiles = (id: string) => [stopPath(id), stderrPath(id), beganPath(id)]

/** Whether some of the files stand beside the log that are only needed until a server has seen the end of the run. */
export const hasSideFiles = (id: string) => sideFiles(id).some(path => existsSync(path))
export const removeSideFiles = (id: string) => sideFiles(id).forEach(removeAll)

// ---- What an entry says

// JSON has no raw line breaks, so one always ends an entry: logs are cut into entries, and passed on, without a parse.
/** A line of the log. Throws a TypeError for what JSON cannot say, a RangeError for an entry above MAX_ENTRY. */
export const packEntry = (type: Entry['type'], data: unknown, time = Date.now()) => packLine(type, toJson(data), time)

function packLine(type: Entry['type'], json: string, time: number): string {
  // Trap: a text has up to three times as many bytes as characters, and what no reader can take ends its log for ever.
  const bytes = 3 * json.length > MAX_ENTRY ? Buffer.byteLength(json) : 0 // counted only where it may matter
  if (bytes > MAX_ENTRY) throw new RangeError(`an entry may have ${MAX_ENTRY} bytes, this one has ${bytes}`)
  return `{"type":"${type}","time":${time},"data":${json}}\n`
}

/** The last line of a log. The result stands last in it, so that its bytes can be cut out. Throws as packEntry does. */
export function packDone({ result, ...others }: Done): string {
  const head = toJson(given(others))
  const json = result === undefined ? head : `${head.slice(0, -1)},"result":${toJson(result)}}`
  return packLine('done', json, Date.now())
}

/** Reads that line; the result is cut out of it. Undefined for what packDone has not written. */
function unpackDone(line: Buffer): Omit<End, 'size'> | undefined {
  const [mark, end] = [',"result":', '}}\n'] // within a text, quotes would be `\\"`; what stands before it is flat
  const at = String(line.subarray(-end.length)) === end ? line.indexOf(mark) : -1
  if (!isUtf8(line)) return undefined
  try {
    const head = at < 0 ? undefined : JSON.parse(`${line.subarray(0, at)}}}`).data as Done
    const isCut = head?.seconds !== undefined // else it has none, or an earlier version wrote it
    const { result, ...done } = isCut ? head : JSON.parse(String(line)).data as Done
    const { outcome, seconds, reason = '' } = done
    if (!OUTCOMES.includes(outcome) || typeof seconds !== 'number' || typeof reason !== 'string') return undefined
    if (isCut) return { ...done, result: line.subarray(at + mark.length, -end.length) }
    return { ...done, result: result === undefined ? undefined : Buffer.from(JSON.stringify(result)) }
  } catch {
    return undefined // no JSON
  }
}

/** A line that has the shape of ours, and where it ends; undefined when somebody else has written it. */
function lineAt(text: string, start: number): { end: number; isDone: boolean } | undefined {
  LINE.lastIndex = start
  return LINE.test(text) ? { end: LINE.lastIndex, isDone: text.startsWith('done"', start + 9) } : undefined
}

/** @internal Makes blanks of lines of somebody else's: positions stay right, and who joins the lines gets JSON. */
export function blankForeign(lines: Buffer): Buffer {
  const text = lines.toString('latin1') // a byte each
  const isText = isUtf8(lines) // else it is looked for in each line: a browser that gets such a one is disconnected
  let hasOurs = false
  for (let start = 0, end = 0; start < lines.length; start = end) {
    const line = lineAt(text, start)
    end = line?.end ?? text.indexOf('\n', start) + 1
    const isOurs = line?.isDone ? unpackDone(lines.subarray(start, end)) !== undefined
      : line !== undefined && (isText || isUtf8(lines.subarray(start, end)))
    // Behind a line of ours they belong to that, else to the next; the last line break stays in any case.
    if (!isOurs) lines.fill(' ', Math.max(0, start - 1), hasOurs || end === lines.length ? end - 1 : end)
    hasOurs ||= isOurs
  }
  return lines
}

/** Reads a line that one of our own processes wrote. Throws a SyntaxError when it is torn. */
export const unpackEntry = (line: string) => JSON.parse(line) as Entry

// Trap: JSON says `null` for NaN, and `{}` for a Map, an Error, a promise that somebody forgot to await, without a
// word. A replacer for all doubles the time of every entry; to look first whether it is needed costs 0.1 µs.
function toJson(data: unknown): string {
  const json = JSON.stringify(data ?? null) as string | undefined // first, as it finds cycles
  if (json === undefined) throw new TypeError(`a ${typeof data} cannot be written as JSON`)
  return isPlain(data ?? null) ? json : JSON.stringify(data, recognisable)
}

function isPlain(value: unknown): boolean {
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return true
  if (typeof value === 'number') return Number.isFinite(value)
  if (typeof value !== 'object') return false
  if (Array.isArray(value)) return !value.includes(undefined) && value.every(isPlain) // which passes over holes
  const prototype = Object.getPrototypeOf(value)
  if (prototype !== Object.prototype && prototype !== null) return false
  for (const key in value) if (!isPlain((value as Record<string, unknown>)[key])) return false
  return true
}

function recognisable(this: Record<string, unknown>, key: string, value: unknown): unknown {
  const own = this[key] // before its toJSON
  if (own instanceof Error) return describeError(own)
  if (value instanceof Set) return [...value]
  if (value instanceof Map) {
    return [...value.keys()].every(name => typeof name === 'string') ? Object.fromEntries(value) : [...value]
  }
  if (value === null) return own === null ? null : String(own) // an invalid Date
  if (Array.isArray(value)) return value
  const saysNothing = typeof value !== 'object' || Object.keys(value).length === 0 // NaN, a promise, a RegExp
  return saysNothing && !isPlain(value) ? inspect(value) : value
}

/** The fields that have a value: what is optional and was not given is no `undefined` that somebody should see. */
export function given<T extends object>(fields: T): T {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as T
}

const MAX_WORDS = 2 ** 16 // characters of a message, and of a stack: they may come on top of MAX_LOG
const MOST_CAUSES = 20 // of an error, with the causes of these: what it says must fit into an entry

// With the messages of its causes in its own, as "fetch failed" alone helps nobody.
/** What a log says of an error, or of anything else that was thrown. */
export function describeError(thrown: unknown, left = { causes: MOST_CAUSES }): Note {
  if (!(thrown instanceof Error)) {
    const msg = typeof thrown === 'string' ? thrown : inspect(thrown)
    return { msg: msg.slice(0, MAX_WORDS) }
  }
  const { name, message, stack, cause, code, errors } = thrown as AggregateError & { code?: unknown }
  const describeAll = (all: unknown[]) => all.flatMap(one => left.causes-- > 0 ? describeError(one, left) : [])
  const causes = describeAll(cause === undefined || cause === null ? [] : [cause])
  const others = describeAll(Array.isArray(errors) ? errors : [])
  const why = [...causes, ...others].map(({ msg }) => msg).filter(msg => !message.includes(msg)).join('; ')
  const msg = [String(message || code || name), why].filter(Boolean).join(': ').slice(0, MAX_WORDS)
  return given({
    msg,
    code: typeof code === 'number' ? code : typeof code === 'string' ? code.slice(0, 200) : undefined,
    stack: stack ? String(stack).slice(0, MAX_WORDS) : undefined,
    cause: causes[0],
    errors: others.length ? others : undefined,
  })
}
