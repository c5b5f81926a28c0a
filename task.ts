// A run, from the inside: the process that runs one remote function, once. Look for: remote(), which marks what may be
// called; Task, the handle that a function reports through; then the process, from its first line to `done`.

import { createHash, randomUUID } from 'node:crypto'
import { existsSync, readFileSync, rmSync, statSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { Publisher } from 'zeromq'
import {
  describeError, given, isId, logPath, packEntry, readReason, RunLog, type Entry, type Note, type Outcome, type Start,
} from './log.ts'
import { connectOptions, createSocket, MAX_CHUNK, packChunk, RemoteError } from './protocol.ts'
import { isSaturated, MAX_LOG, printWithoutWaiting, TASKS, UPLOADS, XSUB_ADDR } from './settings.ts'

// ---- What may be called

type Types = {
  string: string; text: string; file: string
  integer: number; number: number; boolean: boolean
  object: Record<string, unknown>
}
/** `text` is a string of many lines; `file` the name of an upload. Without a default, the argument must be given. */
export type Parameter = {
  name: string; type: keyof Types; description: string; default?: unknown; min?: number; max?: number
  choices?: readonly (string | number)[]
}
type Values<P extends readonly Parameter[]> = { -readonly [K in keyof P]: Types[P[K]['type']] }

/** A function that may be called from outside, with what a caller must know. */
export type Remote = {
  description: string; parameters: readonly Parameter[]; run: (task: Task, ...args: any[]) => unknown
}

// A registered symbol, and not a WeakSet of this module: a module that Node takes for CommonJS (no "type": "module"
// beside it) gets a copy of this file of its own, and its marks must count, too.
const MARK = Symbol.for('longrun.remote')

/**
 * Marks a function that may be called from outside, under the name by which its module exports it; nothing else
 * that a module exports can be. Arguments are checked against `parameters` before a process is taken for the call.
 * Throws a TypeError when one of the three is missing, or a parameter has a type that there is not.
 */
export function remote<const P extends readonly Parameter[]>(
  description: string, parameters: P, run: (task: Task, ...args: Values<P>) => unknown,
): Remote {
  if (!Array.isArray(parameters) || typeof run !== 'function') {
    throw new TypeError('remote() takes a description, an array of parameters, and a function')
  }
  const odd = parameters.find(({ type }: Parameter) => !Object.hasOwn(WRONG, type))
  const types = Object.keys(WRONG).join(', ')
  if (odd) throw new TypeError(`parameter ${odd.name}: there is no type ${odd.type}, only ${types}`)
  return Object.assign({ description, parameters, run }, { [MARK]: true })
}

/** The arguments with their defaults filled in. Throws a RemoteError that names the argument that does not fit. */
export function checkArgs({ parameters }: Remote, args: unknown[]): unknown[] {
  if (args.length > parameters.length) {
    throw new RemoteError('invalid', `invalid arguments: ${args.length} given, at most ${parameters.length} are taken`)
  }
  return parameters.map((parameter, index) => {
    const value = args[index] ?? parameter.default
    const isMissing = value === undefined || value === null
    const wrong = isMissing
      ? `missing (${parameter.type})`
      : WRONG[parameter.type](value, parameter) || notChosen(value, parameter)
    if (wrong) throw new RemoteError('invalid', `invalid argument ${parameter.name}: ${wrong}`)
    return value
  })
}

/** What is wrong with a value of each type; false: nothing. */
const WRONG: Record<keyof Types, (value: unknown, parameter: Parameter) => string | false> = {
  string: value => typeof value !== 'string' && 'not a string',
  text: value => typeof value !== 'string' && 'not a string',
  file: value => !isUpload(value) && 'no such upload: the file has to be uploaded first',
  boolean: value => typeof value !== 'boolean' && 'not true or false',
  object: value => (typeof value !== 'object' || Array.isArray(value)) && 'not an object',
  number: (value, range) => Number.isFinite(value) ? notWithin(value, range) : 'not a number',
  integer: (value, range) => WRONG.number(value, range) || !Number.isSafeInteger(value) && 'not a whole number',
}

function isUpload(value: unknown): boolean {
  return isId(value) && existsSync(join(UPLOADS, value))
}

function notWithin(value: unknown, { min = -Infinity, max = Infinity }: Parameter): string | false {
  return (Number(value) < min || Number(value) > max) && `not from ${min} to ${max}`
}

function notChosen(value: unknown, { choices }: Parameter): string | false {
  return choices !== undefined && !choices.includes(value as string) && `not one of ${choices.join(', ')}`
}

// ---- The handle that a function reports through

const BATCH = 64 * 2 ** 10 // characters: what is gathered at most before it is written
const LONG_TURN = 20 // milliseconds: a function that never yields is followed live too

type Details = { line?: number; column?: number; file?: string; [detail: string]: unknown }

/**
 * What a remote function reports through. Entries of one turn of the event loop become one append to the log. Each
 * method throws when the data cannot be written as JSON, or when the log would grow above MAX_LOG.
 */
export class Task {
  /** The run's id. */
  readonly id: string
  /** Aborts when the run is to end: cancelled, over its time limit, or the server stops. Later it is killed. */
  readonly signal: AbortSignal
  #write: (lines: Buffer) => void
  #gathered = ''
  #since = 0
  #size: number
  #isOver = false
  /** How many of them were reported, for `done`. */
  readonly counts = { error: 0, warning: 0 }

  /** `size` of the log so far, in bytes; `write` appends whole lines to it, and publishes them. */
  constructor(id: string, signal: AbortSignal, size: number, write: (lines: Buffer) => void) {
    this.id = id
    this.signal = signal
    this.#size = size
    this.#write = write
  }

  /** Anything that JSON can say. */
  msg(data: unknown) { this.#report('msg', data) }
  /** How far it is, in any unit; without a total, only that something goes on. */
  progress(current: number, total?: number, unit?: string) { this.#report('progress', given({ current, total, unit })) }
  /** A part of the work begins: what follows belongs to it, until the next. */
  step(name: string) { this.#report('step', { name }) }
  /** `msg` may be an Error, here and below: then its stack, code and causes are details. */
  log(msg: unknown, details?: Details) { this.#report('log', note(msg, details)) }
  warning(msg: unknown, details?: Details) { this.#report('warning', note(msg, details)) }
  /** Something went wrong, and the function goes on. To end the run, throw. */
  error(msg: unknown, details?: Details) { this.#report('error', note(msg, details)) }

  /** Takes room for a line in the log. Throws a RangeError when there is not enough. */
  reserve(line: string) {
    const size = this.#size + Buffer.byteLength(line)
    if (size > MAX_LOG) throw new RangeError(`the log of a run may have ${MAX_LOG} bytes (MAX_LOG)`)
    this.#size = size
  }

  #report(type: Entry['type'], data: unknown) {
    const line = packEntry(type, data)
    this.reserve(line)
    if (this.#isOver) return // nothing follows `done`, not even what an exit handler reports
    if (type === 'error' || type === 'warning') this.counts[type]++
    if (!this.#gathered) {
      this.#since = performance.now()
      setImmediate(() => this.flush())
    }
    this.#gathered += line
    if (this.#gathered.length > BATCH || performance.now() - this.#since > LONG_TURN) this.flush()
  }

  /** Writes what was gathered in this turn. */
  flush() {
    if (!this.#gathered) return
    const lines = Buffer.from(this.#gathered)
    this.#gathered = ''
    this.#write(lines)
  }

  /** Writes what was gathered, and takes no more. False when that has been done before. */
  close(): boolean {
    this.flush()
    const isFirst = !this.#isOver
    this.#isOver = true
    return isFirst
  }
}

function note(msg: unknown, details?: Details): Note {
  return typeof msg === 'string' ? { msg, ...details && given(details) } : { ...describeError(msg), ...details }
}

// ---- Loading the functions

/** The variable by which a task process is told which version of the functions its server has. */
export const VERSION = 'LONGRUN_VERSION'

/**
 * The remote functions by name: those of tasks.ts, and those of the module that TASKS names. A Map, because in an
 * object `toString` and `__proto__` would be functions that anyone may call. Throws what a module throws, and an Error
 * when it has none, when two have one name, or, in a task process, when one has changed since its server was started.
 */
export async function loadFunctions(): Promise<Map<string, Remote>> {
  const wanted = process.env[VERSION]
  const changed = new Error('the remote functions were changed since the workers server was started: restart it')
  if (wanted && wanted !== version()) throw changed
  const functions = new Map<string, Remote>()
  for (const path of MODULES) {
    const found = Object.entries(await loadModule(path)).filter((pair): pair is [string, Remote] => isRemote(pair[1]))
    if (!found.length) throw new Error(`${path} exports no remote function, as in: export const NAME = remote(…)`)
    for (const [name, called] of found) {
      const other = functions.get(name)
      const isOther = other && other.description !== called.description // the same one may be a copy, see MARK
      if (isOther) throw new Error(`${path} exports ${name}, which tasks.ts has, too: rename it`)
      functions.set(name, called)
    }
  }
  if (wanted && wanted !== version()) throw changed // while it was loaded
  return functions
}

const MODULES = [join(import.meta.dirname, 'tasks.ts'), TASKS]

const isRemote = (value: unknown) => typeof value === 'object' && value !== null && MARK in value

const IMPORTED = /\b(?:from|import|require)\s*\(?\s*['"](\.{1,2}\/[^'"]+)['"]/g

/** A hash of the sources of the functions, and of what they import; what lies in packages does not count. */
export function version(): string {
  const hash = createHash('sha256')
  const paths = new Set(MODULES)
  for (const path of paths) { // those that are added meanwhile, too
    const names = [path, `${path}.ts`, path.replace(/\.js$/, '.ts')] // as loaders take them
    const file = names.find(name => statSync(name, { throwIfNoEntry: false })?.isFile())
    const source = file ? readFileSync(file, 'utf8') : ''
    hash.update(`${path}\0${source}\0`)
    for (const [, name] of source.matchAll(IMPORTED)) paths.add(resolve(dirname(path), name!))
  }
  return hash.digest('hex')
}

// On Node 20 a task process is CommonJS (see LOADER in processes.ts), where require() cannot load a module that awaits
// at its top level, nor import() one in TypeScript. tsx would see to that, with a second thread that takes 250 ms to
// start: so it is told only for modules that need it.
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

// ---- The task process

/** The variable that marks what belongs to a run: whatever a run starts inherits it, and ends with the run. */
export const RUN_MARK = 'LONGRUN_RUN'

const PATIENCE = 60_000 // ms until a launched task gives up waiting for its log to show on a shared file system
const APART = 0.5 // ms from one published chunk to the next, on average, at least
const BURST = 10 // ms of a pause that are made up for: so twenty chunks may follow it at once
const GATHERING = 4 // ms from one published chunk to the next, when the machine has no time to spare

if (process.argv[1] === import.meta.filename) {
  const [, id] = process.argv.splice(1) // removed, as a copy of this file (see MARK) must not do the same
  void main(id)
}

/**
 * Loads and connects everything, and only then runs: a process without an id is a spare, and gets its run over IPC when
 * that comes, in this moment perhaps; a launched one has no such channel, and its id as an argument.
 */
async function main(id: string | undefined) {
  printWithoutWaiting()
  copyErrorsToTerminal()
  const assigned = id ?? waitForRun()
  const functions = await loadFunctions().catch(error => error as Error)
  const socket = createSocket(Publisher, { ...connectOptions(XSUB_ADDR), sendTimeout: 0 }) // too much is dropped
  // Trap, the slow joiner: a connection takes a moment, and what a PUB sends before is dropped without an error. A run
  // that begins at once would lose its first entries; here that is a gap like any other, and read from the log.
  socket.connect(XSUB_ADDR)
  await nextTurn() // its run may have come meanwhile
  if (!id && !process.env[RUN_MARK]) await rehearse(socket)
  process.send?.('ready', undefined, undefined, () => {}) // an error here: the server has gone, `disconnect` follows
  if (id) await waitForLog(id)
  void run(new RunLog(await assigned, 'open'), functions, socket, process)
}

/**
 * What is done for the first time takes long: code is compiled, files are looked for. So before a spare says that it is
 * ready, it goes through a run once, from its log to `done`, with a log that no run can have, as no id has a point: the
 * first entry of its own run comes 3 ms sooner. Throws when there can be no log.
 */
async function rehearse(socket: Publisher) {
  const id = `rehearsal.${randomUUID()}`
  const steps = remote('', [{ name: 'total', type: 'integer', description: '' }], (task, total) => {
    task.msg({ step: 0 })
    task.progress(1, total)
    task.log('ready')
  })
  const start: Start = { method: 'steps', args: [2], callId: '', pid: process.pid, timeLimit: 0 }
  const log = new RunLog(id, 'create')
  try {
    log.append(Buffer.from(packEntry('start', start)))
    await run(log, new Map([['steps', steps]]), socket, STAGE)
  } finally {
    log.close()
    rmSync(logPath(id), { force: true }) // a server that starts tidies up, too
  }
}

/** What a run needs of its process. */
type Host = {
  title: string
  on(event: string, listener: (...args: any[]) => void): unknown
  send?: NodeJS.Process['send']
  exit(code: number): void
}
/** Stands for the process in a rehearsal, at whose end it must not exit. */
const STAGE: Host = { title: '', on() {}, exit() {} }

// What a task process says on stderr goes to a file, from which it is quoted if the process dies; and here to the
// terminal, too, where the author of a function looks for it.
function copyErrorsToTerminal() {
  const write = process.stderr.write.bind(process.stderr)
  process.stderr.write = (text: string | Uint8Array, ...others: any[]) => {
    process.stdout.write(text)
    return write(text, ...others)
  }
}

/** Waits until this spare gets a run, whose id it returns. The process ends when its server does before that. */
function waitForRun(): Promise<string> {
  if (!process.connected) process.exit() // the server died before we could listen: no event will come
  process.once('disconnect', () => process.exit()) // a spare ends with its server
  return new Promise(resolve => process.on('message', (id: string) => {
    if (!id) return // the first message, which only rehearses the next: see refill() in processes.ts
    process.removeAllListeners('disconnect') // a run goes on without its server: the next one adopts it
    process.channel?.unref() // nor does the channel keep a run alive that has nothing left to do
    process.env[RUN_MARK] = id
    resolve(id)
  }))
}

/** A log begins before its run is told to anyone; but another machine may see it later. */
async function waitForLog(id: string) {
  const deadline = performance.now() + PATIENCE
  while (!statSync(logPath(id), { throwIfNoEntry: false })?.size) {
    if (performance.now() > deadline) {
      console.error(`there is no ${logPath(id)}: is RUNS the same folder on this machine?`)
      process.exit(1)
    }
    await sleep(20)
  }
}

async function run(log: RunLog, functions: Map<string, Remote> | Error, socket: Publisher, host: Host) {
  const start = log.last()
  if (start?.type !== 'start') return host.exit(0) // it was ended before it began
  const { method, args } = start.data
  const began = performance.now()
  const waited = Math.max(0, Date.now() - start.time) // since its call, for this process to be ready
  const abort = new AbortController()
  const publication = new Publication(log, socket)
  const task = new Task(log.id, abort.signal, log.size, lines => {
    try {
      log.append(lines) // always the log first: who has seen a position can read it
    } catch (error) {
      return fail(error) // a full disk: what cannot be logged has not happened
    }
    publication.add(lines)
  })
  host.title = `longrun ${method}`
  host.on('SIGTERM', () => abort.abort())
  host.on('uncaughtException', fail) // unhandled rejections too
  host.on('exit', () => task.flush()) // a function that calls process.exit() loses nothing that it reported

  try {
    if (functions instanceof Error) throw functions
    const called = functions.get(method)!
    const result = await called.run(task, ...checkArgs(called, args))
    task.reserve(packEntry('msg', result)) // throws when it cannot be written as JSON, or does not fit any more
    end(abort.signal.aborted ? 'cancelled' : 'ok', result)
  } catch (error) {
    fail(error) // the function's, or its result cannot be written
  }

  function fail(error: unknown) {
    // A cancelled function ends by the AbortError of what it awaited: that is no error of its own.
    if (abort.signal.aborted && error instanceof Error && error.name === 'AbortError') return end('cancelled')
    end('error', undefined, describeError(error))
  }

  function end(outcome: Outcome, result?: unknown, error?: Note) {
    if (!task.close()) return host.exit(1) // an exit handler threw
    const reason = outcome === 'cancelled' ? readReason(log.id) ?? 'cancelled' : error?.msg
    const seconds = Math.round(waited + performance.now() - began) / 1000 // by a clock that nobody sets
    const errors = task.counts.error + Number(error !== undefined) || undefined
    const warnings = task.counts.warning || undefined
    publication.add(log.finish({ outcome, result, reason, seconds, errors, warnings }, error))
    publication.publish()
    host.send?.('done', undefined, undefined, () => {})
    // As any process does: its exit handlers run (temporary folders, locks). The workers server ends what it started.
    host.exit(outcome === 'ok' ? 0 : 1)
  }
}

/**
 * Publishes what has been logged, as chunks, which may be lost: at once, as long as the machine has time to spare. When
 * it has none, a task that goes on gathers a few milliseconds in each, as what costs is a message, which six threads
 * hand on, and not its bytes: of eight runs beside four endless loops, on two cores, half of the entries are there
 * within 80 ms, and not 440; to gather always would make it 3 ms for three runs alone, and not 0.5. (What waits when a
 * task stops yielding is not lost, but late: the web server asks how long the log is.)
 */
class Publication {
  readonly #log: RunLog
  readonly #socket: Publisher
  #waiting: Buffer[] = []
  #size = 0 // of what is waiting, in bytes
  #published = -GATHERING // when, by a clock that nobody sets
  #due = 0 // when the next chunk may go out
  #timer?: NodeJS.Timeout

  constructor(log: RunLog, socket: Publisher) {
    this.#log = log
    this.#socket = socket
  }

  /** Takes what was just appended to the log. Ends the process when the log is not the run's any more. */
  add(lines: Buffer) {
    if (this.#log.isRemoved) process.exit(1) // others have ended the run: not a word more
    this.#waiting.push(lines)
    this.#size += lines.length
    const now = performance.now()
    const isPressed = now - this.#published < GATHERING && isSaturated()
    const left = (isPressed ? this.#published + GATHERING : this.#due) - now
    if (left <= 0 || this.#size >= BATCH) this.publish()
    else this.#timer ??= setTimeout(() => this.publish(), left)
  }

  publish() {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (!this.#size) return // what was added last went out at once
    this.#published = performance.now()
    this.#due = Math.max(this.#due, this.#published - BURST) + APART
    const { id, size } = this.#log
    const isLarge = this.#size > MAX_CHUNK // then only its end: whoever follows reads it from the log
    const lines = isLarge ? Buffer.alloc(0) : Buffer.concat(this.#waiting)
    this.#waiting = []
    this.#size = 0
    void this.#socket.send(packChunk({ id, position: size - lines.length, lines })).catch(() => {})
  }
}
