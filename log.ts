// A run is a log. Whatever happens in a run is an entry, one line of JSON in RUNS/<id>.ndjson; lines are only ever
// appended, so the byte position at which a line begins says for ever where it stands. Look for: Entry, what a line can
// say; RunLog, the one place that writes logs; RunLog.finish, the one way in which a run ends.
//
//   {"type":"start","time":1767225600000,"data":{"method":"process","args":[2,100],"callId":"","pid":19372,…}}
//   {"type":"msg","time":1767225600021,"data":{"process":19372,"step":0,"token":"first"}}
//   {"type":"done","time":1767225600242,"data":{"outcome":"ok","seconds":0.242}}

import {
  closeSync, constants, copyFileSync, fstatSync, ftruncateSync, openSync, readFileSync, readSync, renameSync, rmSync,
  writeFileSync, writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { inspect } from 'node:util'
import { BALLAST, RUNS } from './settings.ts'

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
export type Outcome = 'ok' | 'error' | 'cancelled' | 'died'
/** Always the last line, exactly once. The numbers of errors and warnings were counted by the task. */
export type Done = {
  outcome: Outcome; result?: unknown; reason?: string; seconds: number; errors?: number; warnings?: number
}
/** What a log says of its run: its size in bytes; how the run ended, and what it produced, in FILES, once it has. */
export type State = { size: number; outcome?: Outcome; seconds?: number; file?: string }

/** The byte that ends a line, and with it an entry. */
export const LF = 10
/** An entry of more characters is refused where it is made: one line must fit into every reader's memory. */
export const MAX_ENTRY = 16 * 2 ** 20

// ---- The log of a run

const STEP = 64 * 2 ** 10 // bytes that are read at once to find the beginning of a line

/** A position at which no line of the log begins. */
export class PositionError extends Error {
  override name = 'PositionError'
}

/** The log of one run, open. The one place where lines are appended, and where a run is ended. */
export class RunLog {
  readonly id: string
  /** In bytes. */
  size: number
  #fd: number

  /** Throws when there is a log already that is to be created, or none that is to be opened, or the disk is full. */
  constructor(id: string, how: 'create' | 'open') {
    this.id = id
    this.#fd = openLog(logPath(id), how === 'create' ? constants.O_CREAT | constants.O_EXCL : 0)
    this.size = fstatSync(this.#fd).size
  }

  /** Appends whole lines, all or nothing. Throws ENOSPC and the like. */
  append(lines: Buffer) {
    try {
      for (let written = 0; written < lines.length;) written += writeSync(this.#fd, lines, written)
    } catch (error) {
      ftruncateSync(this.#fd, this.size) // a full disk may have taken a part
      throw error
    }
    this.size += lines.length
  }

  /** Whether it has no name any more: somebody else has ended the run, see `replace`, or has removed its log. */
  get isRemoved() { return fstatSync(this.#fd).nlink === 0 }

  /**
   * Whole lines from a position: at most so many bytes, or one line that is longer; none at the end.
   * Throws a PositionError when no line begins there.
   */
  lines(position: number, most: number): Buffer {
    const before = position ? this.read(position - 1, position).at(0) : LF
    if (before !== undefined && before !== LF) throw new PositionError('invalid position: no line begins there')
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

  /** What it says of its run by now. */
  state(): State {
    const last = this.last()
    if (last?.type !== 'done') return { size: this.size }
    const { outcome, seconds, result } = last.data
    const named = typeof result === 'object' && result !== null && 'file' in result ? result.file : undefined
    // A result can say anything: only what is named after the run goes with it.
    const file = isFile(named) && named.startsWith(`${this.id}.`) ? named : undefined
    return { size: this.size, outcome, seconds, file }
  }

  /** Cuts off a torn last line. Only when its process has died: a live one may be writing that line. */
  cut() { ftruncateSync(this.#fd, this.size = this.#lineStart(this.size)) }

  /** Position after the last line break before `position`. */
  #lineStart(position: number): number {
    for (let end = position; end > 0;) {
      const start = Math.max(0, end - STEP)
      const found = this.read(start, end).lastIndexOf(LF)
      if (found >= 0) return start + found + 1
      end = start
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
   * before each append would be a race.) Throws ENOSPC: then nothing has changed.
   */
  replace() {
    const copy = `${logPath(this.id)}.copy`
    try {
      copyFileSync(logPath(this.id), copy)
      const fd = openLog(copy)
      renameSync(copy, logPath(this.id))
      this.size = fstatSync(fd).size
      const late = this.read(this.size, fstatSync(this.#fd).size) // what came while it was copied
      closeSync(this.#fd)
      this.#fd = fd
      this.append(late)
    } finally {
      rmSync(copy, { force: true })
    }
  }

  /**
   * Ends the run: an `error` entry if something went wrong, then `done`, the last line of every log. On a full disk
   * the ballast goes first, to make room for them. Returns the lines.
   */
  finish(done: Done, error?: Note): Buffer {
    const lines = Buffer.from((error ? packEntry('error', error) : '') + packEntry('done', given(done)))
    try {
      this.append(lines)
    } catch {
      rmSync(BALLAST, { force: true })
      this.append(lines)
    }
    return lines
  }

  close() { closeSync(this.#fd) }
}

// Never through a link, and without O_CREAT ('a+' would create what is missing).
function openLog(path: string, how = 0): number {
  return openSync(path, constants.O_RDWR | constants.O_APPEND | constants.O_NOFOLLOW | how, 0o600)
}

/** Opens the log of a run for as long as `act` takes. Throws ENOENT when there is none. */
export function withLog<T>(id: string, act: (log: RunLog) => T): T {
  const log = new RunLog(id, 'open')
  try {
    return act(log)
  } finally {
    log.close()
  }
}

// ---- Why a run is to end

/**
 * Writes down why a run is to end, before it gets its signal: whoever writes its `done`, its own process or a server,
 * this one or the next, takes the reason from there. The first reason counts. Throws ENOSPC and the like.
 */
export function writeReason(id: string, reason: string) {
  if (!readReason(id)) writeFileSync(stopPath(id), reason, { mode: 0o600 })
}

/** The reason that was written down; undefined when the run was not asked to end. */
export function readReason(id: string): string | undefined {
  try {
    return readFileSync(stopPath(id), 'utf8') || undefined
  } catch {
    return undefined
  }
}

/** Removes the files beside the log that are only needed until the run has ended. */
export function removeSideFiles(id: string) {
  for (const path of [stopPath(id), stderrPath(id)]) rmSync(path, { force: true })
}

// ---- What an entry says

/**
 * One entry as a line of the log. JSON has no raw line breaks, so a line break always ends an entry: readers
 * can cut a log into entries, and the web server can pass them on, without parsing them.
 * Throws a TypeError for what JSON cannot say, a RangeError for an entry above MAX_ENTRY.
 */
export function packEntry(type: Entry['type'], data: unknown, time = Date.now()): string {
  const json = toJson(data)
  if (json.length > MAX_ENTRY) throw new RangeError(`an entry of ${json.length} characters is above ${MAX_ENTRY}`)
  return `{"type":"${type}","time":${time},"data":${json}}\n`
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
  if (Array.isArray(value)) return value.every(isPlain)
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
  if (typeof value !== 'object') return isPlain(value) ? value : inspect(value) // NaN, Infinity, undefined, a function
  const isEmpty = Object.keys(value).length === 0 && !Array.isArray(value)
  return isEmpty && !isPlain(value) ? inspect(value) : value // a promise, a regular expression
}

/** The fields that have a value: what is optional and was not given is no `undefined` that somebody should see. */
export function given<T extends object>(fields: T): T {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as T
}

const LAST_WORDS = 2 ** 16 // characters of a message, and of a stack: they may come on top of MAX_LOG
const DEEPEST = 5 // causes of causes, and of the errors in them

/**
 * What a log says of an error, or of anything else that was thrown: its message with those of its causes, as
 * "fetch failed" alone helps nobody; its stack, its code, its causes one by one.
 */
export function describeError(thrown: unknown, depth = 0): Note {
  if (!(thrown instanceof Error)) {
    const msg = typeof thrown === 'string' ? thrown : inspect(thrown)
    return { msg: msg.slice(0, LAST_WORDS) }
  }
  const { name, message, stack, cause, code, errors } = thrown as AggregateError & { code?: unknown }
  const causes = depth < DEEPEST ? [cause ?? [], Array.isArray(errors) ? errors.slice(0, 10) : []].flat() : []
  const notes = causes.map(cause => describeError(cause, depth + 1))
  const why = notes.map(({ msg }) => msg).filter(msg => !message.includes(msg)).join('; ')
  const msg = [String(message || code || name), why].filter(Boolean).join(': ').slice(0, LAST_WORDS)
  const hasCause = cause !== undefined && cause !== null
  return given({
    msg,
    code,
    stack: stack ? String(stack).slice(0, LAST_WORDS) : undefined,
    cause: hasCause ? notes[0] : undefined,
    errors: notes.length > Number(hasCause) ? notes.slice(Number(hasCause)) : undefined,
  })
}
