// What may be called: a module exports what remote() gives, a function with what a caller must know of it. Look for:
// remote; Task, the handle that a function reports through; loadFunctions. To import this ends no process and opens
// nothing, so that a function can be tested like any other.

import { createHash } from 'node:crypto'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { dirname, extname, join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { describeError, given, isId, packEntry, type Entry, type Note } from './log.ts'
import { RemoteError } from './protocol.ts'
import { MAX_LOG, TASKS, UPLOADS, VERSION } from './settings.ts'

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

/** Throws a RemoteError that names the argument that does not fit. */
export function checkArgs(called: Remote, args: unknown[]) {
  const { parameters } = called
  if (args.length > parameters.length) {
    throw new RemoteError('invalid', `invalid arguments: ${args.length} given, at most ${parameters.length} are taken`)
  }
  const values = withDefaults(called, args)
  for (const [index, parameter] of parameters.entries()) {
    const value = values[index]
    const isMissing = value === undefined || value === null
    const wrong = isMissing
      ? `missing (${parameter.type})`
      : WRONG[parameter.type](value, parameter) || notChosen(value, parameter)
    if (wrong) throw new RemoteError('invalid', `invalid argument ${parameter.name}: ${wrong}`)
  }
}

/** The arguments, with the defaults of those that were not given. */
export function withDefaults({ parameters }: Remote, args: unknown[]): unknown[] {
  return parameters.map((parameter, index) => args[index] ?? parameter.default)
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

const BATCH = 64 * 2 ** 10 // bytes that are gathered at most before they are written
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
  #bytes = 0 // of what is gathered
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

  /** Takes room for a line in the log, and returns its size. Throws a RangeError when there is not enough. */
  reserve(line: string): number {
    const bytes = Buffer.byteLength(line)
    if (this.#size + bytes > MAX_LOG) throw new RangeError(`the log of a run may have ${MAX_LOG} bytes (MAX_LOG)`)
    this.#size += bytes
    return bytes
  }

  #report(type: Entry['type'], data: unknown) {
    const line = packEntry(type, data)
    const bytes = this.reserve(line)
    if (this.#isOver) return // nothing follows `done`, not even what an exit handler reports
    if (type === 'error' || type === 'warning') this.counts[type]++
    if (this.#bytes + bytes > BATCH) this.flush()
    if (!this.#bytes) {
      this.#since = performance.now()
      setImmediate(() => this.flush())
    }
    this.#gathered += line
    this.#bytes += bytes
    if (performance.now() - this.#since > LONG_TURN) this.flush()
  }

  /** Writes what was gathered in this turn. */
  flush() {
    if (!this.#bytes) return
    const lines = Buffer.from(this.#gathered)
    this.#gathered = ''
    this.#bytes = 0
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

/**
 * The remote functions by name: those that the module of TASKS exports. A Map, because in an object `toString` and
 * `__proto__` would be functions that anyone may call. Throws what the module throws, and an Error when it exports
 * none, or when it has changed since the server of this task process was started.
 */
export async function loadFunctions(): Promise<Map<string, Remote>> {
  const wanted = process.env[VERSION]
  const changed = new Error('the remote functions were changed since the workers server was started: restart it')
  if (wanted && wanted !== version()) throw changed
  const found = Object.entries(await loadModule(TASKS)).filter((pair): pair is [string, Remote] => isRemote(pair[1]))
  if (!found.length) throw new Error(`${TASKS} exports no remote function, as in: export const NAME = remote(…)`)
  if (wanted && wanted !== version()) throw changed // while it was loaded
  return new Map(found)
}

const isRemote = (value: unknown) => typeof value === 'object' && value !== null && MARK in value

/** The program of a task process, which is loaded with the functions. */
export const TASK_PROGRAM = join(import.meta.dirname, `task${extname(import.meta.filename)}`)

const IMPORTED = /\b(?:from|import|require)\s*\(?\s*['"](\.{1,2}\/[^'"]+)['"]/g

/**
 * A hash of all sources that a task process loads: the functions, our own rooms, and what they import; what lies in
 * packages does not count.
 */
export function version(): string {
  const hash = createHash('sha256')
  const paths = new Set([TASKS, TASK_PROGRAM])
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
