// A task process: it runs one remote function, once, and reports what happens. Look for: remote(), which marks
// what may be called; Task, the handle that a function reports through; RunLog, the one place that writes logs;
// then the functions themselves; last, the small role that this file has when the workers server forks it.

import { closeSync, existsSync, fstatSync, ftruncateSync, openSync, readSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { inspect } from 'node:util'
import { Publisher } from 'zeromq'
import {
  createSocket, isId, logPath, MAX_CHUNK, MAX_LOG, packChunk, packEntry, RemoteError, RUNS, TASKS, unpackEntry,
  UPLOADS, XSUB_ADDR, type Call, type Done, type Entry, type Note, type Outcome, type Start,
} from './protocol.ts'

// ---- What may be called

type Types = { string: string; text: string; file: string; integer: number; number: number; boolean: boolean; object: Record<string, unknown> }
/** `text` is a string of many lines; `file` the name of an upload. Without a default, the argument must be given. */
export type Parameter = { name: string; type: keyof Types; description: string; default?: unknown; min?: number; max?: number }
type Values<P extends readonly Parameter[]> = { -readonly [K in keyof P]: Types[P[K]['type']] }

/** A function that may be called from outside, with what a caller must know. */
export type Remote = { description: string; parameters: readonly Parameter[]; run: (task: Task, ...args: any[]) => unknown }

const marked = new WeakSet<object>()

/**
 * Marks a function that may be called from outside, under the name by which its module exports it; nothing else
 * that a module exports can be. Arguments are checked against `parameters` before a process is taken for the call.
 */
export function remote<const P extends readonly Parameter[]>(
  description: string, parameters: P, run: (task: Task, ...args: Values<P>) => unknown,
): Remote {
  const made = { description, parameters, run }
  marked.add(made)
  return made
}

/**
 * The remote functions by name: those of this file, and those of the module that TASKS names. A Map, because in
 * an object `toString` and `__proto__` would be functions that anyone may call.
 */
export async function loadFunctions(): Promise<Map<string, Remote>> {
  const modules = [await import(import.meta.url), await import(pathToFileURL(TASKS).href)]
  const exported = modules.flatMap(module => Object.entries(module as object))
  return new Map(exported.filter((pair): pair is [string, Remote] => marked.has(Object(pair[1]))))
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
  if (type === 'file') return isUpload(value) ? undefined : 'no such upload: POST the file to /files first'
  if (type === 'object') return typeof value === 'object' && !Array.isArray(value) ? undefined : 'not an object'
  if (type === 'boolean') return typeof value === 'boolean' ? undefined : 'not true or false'
  if (type === 'string' || type === 'text') return typeof value === 'string' ? undefined : 'not a string'
  if (typeof value !== 'number') return `not a number`
  if (type === 'integer' && !Number.isSafeInteger(value)) return 'not a whole number'
  return value >= min && value <= max ? undefined : `not from ${min} to ${max}`
}

const isUpload = (name: unknown) => isId(name) && existsSync(join(UPLOADS, name))

// ---- The handle that a function reports through

const BATCH = 64 * 2 ** 10 // characters: what is gathered at most before it is written
const LONG_TURN = 20 // milliseconds: a function that never yields is followed live too

/**
 * What a remote function reports through. Entries of one turn of the event loop become one append and one message;
 * each method throws when the data cannot be written as JSON, or when the log would grow above MAX_LOG.
 */
export class Task {
  /** The run's id. */
  readonly id: string
  /** Aborts when the run is to end: cancelled, over its time limit, or the server stops. 5 s later it is killed. */
  readonly signal: AbortSignal
  #write: (lines: Buffer) => void
  #gathered = ''
  #since = 0
  #size = 0

  /** `write` appends whole lines to the run's log, and publishes them. */
  constructor(id: string, signal: AbortSignal, write: (lines: Buffer) => void) {
    this.id = id
    this.signal = signal
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

  #report(type: Entry['type'], data: unknown) {
    const line = packEntry(type, data)
    this.#size += Buffer.byteLength(line)
    if (this.#size > MAX_LOG) throw new RangeError(`the log of a run may have ${MAX_LOG} bytes (MAX_LOG)`)
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

/** The log of one run, open for writing. The one place where lines are appended, and where a run is ended. */
export class RunLog {
  #fd: number
  /** In bytes. */
  size: number

  /** Throws when the run has a log already (`create`), or when the disk does not let us. */
  constructor(id: string, create: boolean) {
    this.#fd = openSync(logPath(id), create ? 'ax+' : 'a+', 0o600)
    this.size = fstatSync(this.#fd).size
  }

  /** Appends whole lines, all or nothing, and returns the position at which they stand. Throws ENOSPC and the like. */
  append(lines: Buffer): number {
    const position = this.size
    try {
      for (let sent = 0; sent < lines.length;) sent += writeSync(this.#fd, lines, sent)
    } catch (error) {
      ftruncateSync(this.#fd, position) // a full disk may have taken a part
      throw error
    }
    this.size += lines.length
    return position
  }

  /** The entry in the last line, undefined when there is none. A torn line, of a process that died, is cut off. */
  last(): Entry | undefined {
    const end = this.#lineStart(this.size)
    if (end < this.size) ftruncateSync(this.#fd, this.size = end)
    return end > 0 ? unpackEntry(String(this.#read(this.#lineStart(end - 1), end))) : undefined
  }

  /** Position after the last line break before `position`. */
  #lineStart(position: number): number {
    for (let end = position; end > 0;) {
      const start = Math.max(0, end - BATCH)
      const found = this.#read(start, end).lastIndexOf('\n')
      if (found >= 0) return start + found + 1
      end = start
    }
    return 0
  }

  #read(from: number, to: number): Buffer {
    const bytes = Buffer.alloc(to - from)
    return bytes.subarray(0, readSync(this.#fd, bytes, 0, bytes.length, from))
  }

  /**
   * Ends the run: an `error` entry if something went wrong, then `done`, the last line of every log, and returns
   * the position of these lines, and their bytes. On a full disk the ballast goes first, to make room for them.
   */
  finish(done: Done, error?: Note): [position: number, lines: Buffer] {
    const lines = Buffer.from((error ? packEntry('error', error) : '') + packEntry('done', done))
    try {
      return [this.append(lines), lines]
    } catch {
      rmSync(BALLAST, { force: true })
      return [this.append(lines), lines]
    }
  }

  close() { closeSync(this.#fd) }
}

/** A file that only takes up room, for the last lines of runs on a full disk. The workers server lays it out. */
export const BALLAST = join(RUNS, 'ballast')

// ---- Remote functions

const countSteps = remote("the article's dummy task: one message a step", [
  { name: 'steps', type: 'integer', description: 'how many messages', default: 10, min: 0, max: 100_000_000 },
  { name: 'delay', type: 'integer', description: 'milliseconds between them', default: 100, min: 0, max: 86_400_000 },
], async (task, steps, delay) => {
  for (let step = 0; step < steps; step++) {
    task.msg({ process: process.pid, step, token: task.id })
    if (delay) await sleep(delay, undefined, { signal: task.signal })
    else if (step % 1000 === 999) await nextTurn(undefined, { signal: task.signal })
  }
})
export { countSteps as process } // its name in the article, which in here is Node's own

// importCsv

// compile

// ---- The task process

if (process.send && process.argv[1] === import.meta.filename) void awaitCall()

/** A spare: everything is loaded and connected, so that a call only has to be handed over. Used once. */
async function awaitCall() {
  process.once('disconnect', () => process.exit()) // a spare ends with its server
  const functions = await loadFunctions()
  const socket = createSocket(Publisher, { sendTimeout: 0 }) // 0: a send never waits, what is too much is dropped
  socket.connect(XSUB_ADDR)
  process.once('message', (call: TaskCall) => {
    process.removeAllListeners('disconnect') // a run goes on without its server: the next one adopts it
    process.channel?.unref() // nor does the channel keep a run alive that has nothing left to do
    void runCall(call, functions.get(call.method)!, socket)
  })
  process.send?.('ready')
  if (!process.connected) process.exit() // the server died while we were loading: no event will come
}

/** What the workers server hands to a task process: `args` as the caller gave them, `timeLimit` in seconds. */
export type TaskCall = Required<Call>

async function runCall({ id, method, args, callId, timeLimit }: TaskCall, called: Remote, socket: Publisher) {
  const began = Date.now()
  const log = new RunLog(id, true)
  const stop = new AbortController()
  let ended = false
  const task = new Task(id, stop.signal, write)
  process.title = `longrun ${method}`
  process.on('SIGTERM', () => stop.abort())
  process.on('uncaughtException', fail) // unhandled rejections too
  process.on('exit', () => task.flush()) // a function that calls process.exit() loses nothing that it reported
  process.stdout.on('error', () => {}) // the terminal of the workers server may be gone: no reason to end
  process.stderr.on('error', () => {})

  try {
    write(Buffer.from(packEntry('start', { method, args, callId, pid: process.pid, timeLimit } satisfies Start)))
    const result = await called.run(task, ...checkArgs(called, args))
    if (/function|symbol/.test(typeof result)) throw new TypeError(`a ${typeof result} cannot be written as JSON`)
    end(stop.signal.aborted ? 'cancelled' : 'ok', result)
  } catch (error) {
    fail(error) // the function's, or its result cannot be written
  }

  // Always the log first: who has seen a position can read it. The message is only a hint, and may be lost.
  function write(lines: Buffer) {
    if (ended) return // nothing follows `done`
    try {
      publish(log.append(lines), lines)
    } catch (error) {
      fail(error) // a full disk: what cannot be logged has not happened
    }
  }

  function publish(position: number, lines: Buffer) {
    const hint = lines.length > MAX_CHUNK ? { position: log.size, lines: Buffer.alloc(0) } : { position, lines }
    void socket.send(packChunk({ id, ...hint })).catch(() => {})
  }

  function fail(error: unknown): never {
    const { name, message, stack } = error instanceof Error ? error : new Error(inspect(error))
    // A cancelled function ends by the AbortError of what it awaited: that is no error of its own.
    if (stop.signal.aborted && name === 'AbortError') end('cancelled')
    end('error', undefined, { msg: message || name, stack })
  }

  function end(outcome: Outcome, result?: unknown, error?: Note): never {
    task.flush()
    const seconds = (Date.now() - began) / 1000
    const overtime = timeLimit > 0 && seconds >= timeLimit
    const reason = outcome === 'cancelled' ? overtime ? `over its time limit of ${timeLimit} s` : 'cancelled' : error?.msg
    publish(...log.finish({ outcome, result, reason, seconds }, error))
    ended = true
    // What the function started ends with it. The workers server sees to that, if it lives; else this process does,
    // for the whole of its process group, itself included.
    if (!process.connected) process.kill(-process.pid, 'SIGKILL')
    process.exit()
  }
}
