// What may be called: a module exports what remote() gives, a function with what a caller must know of it, or what
// command() gives, a program in any language. Look for: remote; Task, the handle that a function reports through;
// runCommand. To import this ends no process and opens nothing, so that a function can be tested like any other.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'
import { inspect } from 'node:util'
import { describeError, given, isId, MAX_ENTRY, packEntry, type Entry, type Note } from './log.ts'
import { cutLines } from './prints.ts'
import { invalid, lostNumber } from './protocol.ts'
import { FILES, lowerPriority, MAX_LOG, RUN_MARK, RUNS, sendSignal, UPLOADS } from './settings.ts'

export { FILES, UPLOADS }

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
type Value<Q extends Parameter> = Q extends { choices: readonly (infer Choice)[] } ? Choice : Types[Q['type']]
type Values<P extends readonly Parameter[]> = { -readonly [K in keyof P]: Value<P[K]> }
type Named<P extends readonly Parameter[]> = { [Q in P[number] as Q['name']]: Value<Q> }

/** A function that may be called from outside, with what a caller must know. */
export type Remote = {
  description: string; parameters: readonly Parameter[]; run: (task: Task, ...args: any[]) => unknown
}

// A registered symbol, and not a WeakSet of this module: a module that Node takes for CommonJS (no "type": "module"
// beside it) gets a copy of this file of its own, and its marks must count, too.
const MARK = Symbol.for('longrun.remote')

/**
 * Marks a function that may be called from outside, by the name under which its module exports it: nothing else can be.
 * Throws a TypeError when one of the three is missing, or a parameter has a type that there is not, or a default or a
 * choice that is wrong.
 */
export function remote<const P extends readonly Parameter[]>(
  description: string, parameters: P, run: (task: Task, ...args: Values<P>) => unknown,
): Remote {
  if (!Array.isArray(parameters) || typeof run !== 'function') {
    throw new TypeError('remote() takes a description, an array of parameters, and a function')
  }
  for (const parameter of parameters as readonly Parameter[]) {
    const { name, type, choices = [] } = parameter
    const types = Object.keys(WRONG).join(', ')
    if (!Object.hasOwn(WRONG, type)) throw new TypeError(`parameter ${name}: there is no type ${type}, only ${types}`)
    for (const value of [...choices, parameter.default ?? []].flat()) {
      const wrong = type !== 'file' && whatIsWrong(value, parameter)
      if (wrong) throw new TypeError(`parameter ${name}: ${inspect(value)} is ${wrong}`)
    }
  }
  return Object.assign({ description, parameters, run }, { [MARK]: true })
}

/** @internal Whether something that a module exports is what remote() gives. */
export const isRemote = (value: unknown): value is Remote =>
  typeof value === 'object' && value !== null && MARK in value

/** @internal Throws a RemoteError that names the argument that does not fit. */
export function checkArgs(called: Remote, args: unknown[]) {
  const { parameters } = called
  const [count, most] = [args.length, parameters.length]
  if (count > most) throw invalid('arguments', `${count} given, at most ${most} are taken`)
  for (const [index, value] of withDefaults(called, args).entries()) {
    const wrong = whatIsWrong(value, parameters[index]!)
    if (wrong) throw invalid(`argument ${parameters[index]!.name}`, wrong)
  }
}

/** @internal The arguments, with the defaults of those that were not given. */
export const withDefaults = ({ parameters }: Remote, args: unknown[]): unknown[] =>
  parameters.map((parameter, index) => args[index] ?? parameter.default)

function whatIsWrong(value: unknown, parameter: Parameter): string | false {
  const { type, choices = [value] } = parameter
  if (value === undefined || value === null) return `missing (${type})`
  return WRONG[type](value, parameter) || !choices.includes(value as string) && `not one of ${choices.join(', ')}`
}

/** What is wrong with a value of each type; false: nothing. */
const WRONG: Record<keyof Types, (value: unknown, parameter: Parameter) => string | false> = {
  string: value => typeof value !== 'string' && 'not a string',
  text: value => typeof value !== 'string' && 'not a string',
  file: value => {
    const isThere = isId(value) && existsSync(join(UPLOADS, value))
    return !isThere && 'no such upload: the file has to be uploaded first'
  },
  boolean: value => typeof value !== 'boolean' && 'not true or false',
  object: value => (typeof value !== 'object' || Array.isArray(value)) && 'not an object',
  number: (value, { min = -Infinity, max = Infinity }) => {
    if (typeof value !== 'number' || !Number.isFinite(value)) return 'not a number'
    return (value < min || value > max) && `not from ${min} to ${max}`
  },
  integer: (value, range) => WRONG.number(value, range) || !Number.isSafeInteger(value) && 'not a whole number',
}

// ---- The handle that a function reports through

const BATCH = 64 * 2 ** 10 // bytes that may be gathered before they are written
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
  #since = 0 // when that began
  #size: number // of the log, with what is gathered, in bytes
  #written: number // of that, what is in the log
  #dropped = 0 // lines that were printed, and found no room
  #isOver = false
  /** @internal Whether no turn of the event loop will follow this one. */
  isExiting = false
  /** The arguments by name, as a program gets them: an upload by its path. */
  args: Record<string, unknown> = {}
  /** @internal How many of them were reported, for `done`. */
  readonly counts = { error: 0, warning: 0 }

  /** @internal `size` of the log so far, in bytes; `write` appends whole lines to it, and publishes them. */
  constructor(id: string, signal: AbortSignal, size: number, write: (lines: Buffer) => void) {
    this.id = id
    this.signal = signal
    this.#size = this.#written = size
    this.#write = write
  }

  // Fields, and no methods: so a function can take them out, `({ log }) => …`.
  /** Anything that JSON can say. */
  msg = (data: unknown) => this.#report('msg', data)
  /** How far it is, in any unit; without a total, only that something goes on. */
  progress = (current: number, total?: number, unit?: string) =>
    this.#report('progress', given({ current, total, unit }))
  /** A part of the work begins: what follows belongs to it, until the next. */
  step = (name: string) => this.#report('step', { name })
  /** `msg` may be an Error, here and below: its stack, code and causes are details; as `details`, it is a cause. */
  log = (msg: unknown, details?: Details | Error) => this.#report('log', note(msg, details))
  warning = (msg: unknown, details?: Details | Error) => this.#report('warning', note(msg, details))
  /** Something went wrong, and the function goes on. To end the run, throw. */
  error = (msg: unknown, details?: Details | Error) => this.#report('error', note(msg, details))

  /** @internal Takes room for a line in the log. Throws a RangeError when there is not enough. */
  reserve(line: string) {
    const size = this.#size + Buffer.byteLength(line)
    if (size > MAX_LOG) throw new RangeError(`the log of a run may have ${MAX_LOG} bytes (MAX_LOG)`)
    this.#size = size
  }

  // They have the first half of the log, never fail a run, nor take the room of what it reports: more is dropped.
  /** @internal What was printed, as an entry: by the function, or by a program in words of its own. */
  print(type: 'log' | 'progress' | 'warning', data: unknown) {
    const line = packEntry(type, data)
    if (this.#size + Buffer.byteLength(line) > MAX_LOG / 2) this.#dropped++
    else this.add(type, line)
  }

  #report(type: Entry['type'], data: unknown) { this.add(type, packEntry(type, data)) }

  /** @internal Adds a packed entry. */
  add(type: Entry['type'], line: string) {
    this.reserve(line)
    if (this.#isOver) return // nothing follows `done`, not even what an exit handler reports
    if (type === 'error' || type === 'warning') this.counts[type]++
    if (!this.#gathered) {
      this.#since = performance.now()
      setImmediate(() => this.flush())
    }
    this.#gathered += line
    const isLong = this.#size - this.#written > BATCH || performance.now() - this.#since > LONG_TURN
    if (isLong || this.isExiting) this.flush()
  }

  /** @internal Writes what was gathered in this turn. */
  flush() {
    const lines = Buffer.from(this.#gathered)
    this.#gathered = ''
    this.#written = this.#size
    if (lines.length) this.#write(lines)
  }

  /** @internal Writes what was gathered, and takes no more. False when that has been done before. */
  close(): boolean {
    if (this.#isOver) return false
    if (this.#dropped) {
      const room = `the first half of a log, ${MAX_LOG / 2} bytes`
      const msg = `${this.#dropped} printed lines were dropped: prints have ${room}`
      this.#gathered += packEntry('log', { msg }) // on top of MAX_LOG, as what follows it
    }
    this.#dropped = 0 // a write that fails closes, too
    this.flush()
    this.#isOver = true
    return true
  }
}

// In JavaScript, all is taken that console.log takes: of `('failed', error)` or `('rows', 5)` nothing is lost.
function note(msg: unknown, details?: unknown): Note {
  const said = typeof msg === 'string' ? { msg } : describeError(msg)
  if (details === undefined) return said
  if (details instanceof Error) return { ...said, cause: describeError(details) }
  return given({ ...said, ...typeof details === 'object' ? details : { details } })
}

// ---- Programs

/** `progress`: how a line tells it, by groups `current`, `total` and `unit` (`%` is of 100). `env`: what is added. */
export type CommandOptions = { progress?: RegExp; cwd?: string; env?: Record<string, string> }
type Program = readonly (string | number)[]

// No shell reads what `program` says, so nothing that a caller says is ever a command.
/** Marks a program as a function, see `remote`. `program`: its name and arguments, or what makes them of the call's. */
export function command<const P extends readonly Parameter[]>(
  description: string, parameters: P, program: Program | ((args: Named<P>) => Program), options?: CommandOptions,
): Remote {
  return remote(description, parameters, (task, ..._: unknown[]) =>
    runCommand(task, typeof program === 'function' ? program(task.args as Named<P>) : program, options))
}

const QUOTED = 2000 // characters of what it said on stderr, which its error quotes
const LAST_TURNS = 16 // of the event loop, for what is left in its pipes, some 200 KiB: each takes 64 KiB
const LOOK_PAUSE = 20 // milliseconds between two looks at what it has left
const TERMINATED = 143 // the exit code with which a shell says that SIGTERM has ended what it ran

// Trap: SIGTERM to a shell does not reach what that has started, and waits for. So a program leads a group of its own,
// which gets the signals; but not below a launcher (where a task has no IPC): its engine may know one group only.
const hasOwnGroup = process.send !== undefined

const running = new Set<number>() // where signals to programs go
process.on('exit', () => running.forEach(id => sendSignal(id, 'SIGKILL')))

/**
 * Runs a program within a function, and returns the result that it has printed. On stdin it gets the arguments by name,
 * as a line of JSON. Lines of JSON that it prints are entries, see `readEntry`; all others become `log` entries. What
 * it has started ends with it. Throws an Error when it fails, or the reason of `task.signal` when it ended by that.
 */
export async function runCommand(task: Task, program: Program, options: CommandOptions = {}): Promise<unknown> {
  task.signal.throwIfAborted()
  if (!Array.isArray(program) || !program[0]) throw new TypeError('a program is an array: its name, then its arguments')
  const odd = program.filter(part => typeof part !== 'string' && typeof part !== 'number')
  if (odd.length) throw new TypeError(`cannot start ${program[0]}: ${inspect(odd[0])} is neither a text nor a number`)
  const child = await startProgram(task, program, options)
  const id = hasOwnGroup ? -child.pid! : child.pid!
  running.add(id)
  let result: unknown
  let lastWords = ''
  const takeStdout = cutLines(print, line => {
    if (Buffer.byteLength(line) > MAX_ENTRY) {
      task.print('warning', { msg: `a line that begins with { has more than ${MAX_ENTRY} bytes, and comes in parts` })
      return false
    }
    const said = readEntry(line)
    if (said?.type === 'result') result = said.data
    else if (said) task.add(said.type, said.entry)
    return said !== undefined
  })
  const takeStderr = cutLines(line => {
    lastWords = `${lastWords}${line}\n`.slice(-QUOTED)
    print(line)
  })
  const stop = () => sendSignal(id, 'SIGTERM')
  task.signal.addEventListener('abort', stop)
  const outputs = [[child.stdout, takeStdout], [child.stderr, takeStderr]] as const
  for (const [output, take] of outputs) output.on('data', bytes => {
    take(bytes)
    output.pause() // Trap: else 2 MiB of a flood are read in one turn, and a cancel waits for seconds.
    setImmediate(() => output.resume())
  })
  child.stdin.end(`${JSON.stringify(task.args)}\n`)
  const [code, signal] = await once(child, 'exit')
  task.signal.removeEventListener('abort', stop)
  // What it has left was asked to end, too, and may tidy up; if nobody was asked, it is of no use any more.
  while (task.signal.aborted && sendSignal(id, 0) && isRunning(-id)) await sleep(LOOK_PAUSE)
  sendSignal(id, 'SIGKILL') // in the turn of its end, or of the look: the id cannot be another group's yet
  running.delete(id)
  // Its last lines are there to be read by now. Their end may never come: a daemon that it has left can hold the pipe.
  for (let turn = 0; turn < LAST_TURNS; turn++) await nextTurn()
  for (const [output, take] of outputs) {
    output.destroy()
    take()
  }
  if (code === 0) return result
  if (task.signal.aborted && (signal === 'SIGTERM' || code === TERMINATED)) throw task.signal.reason
  const said = lastWords.trim() && `; the last that it said:\n${lastWords.trimEnd()}`
  throw new Error(`${program[0]} ended ${signal ? `by ${signal}` : `with exit code ${code}`}${said}`)

  function print(line: string) {
    const found = options.progress && readProgress(line, options.progress)
    task.print(found ? 'progress' : 'log', found ?? { msg: line })
  }
}

// Trap: a zombie takes signals, too, and in a container there may be nobody who asks for its end.
function isRunning(group: number): boolean {
  const pattern = new RegExp(`\\) [^Z] \\d+ ${group} `) // as `PID (name) STATE PARENT GROUP …`
  return readdirSync('/proc').some(pid => {
    try {
      return pattern.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
    } catch {
      return false // no process, or it has gone
    }
  })
}

async function startProgram(task: Task, program: Program, { cwd, env }: CommandOptions) {
  const [name = '', ...args] = program.map(String)
  // Without PYTHONUNBUFFERED, Python keeps 8 KiB to itself, and nothing is live. The last two: see endProcesses.
  const own = { TASK_ID: task.id, TASK_FILES: FILES, RUNS, [RUN_MARK]: task.id }
  const environment = { ...process.env, PYTHONUNBUFFERED: '1', ...env, ...own }
  try {
    const child = spawn(name, args, { cwd, env: environment, detached: hasOwnGroup })
    if (child.pid && hasOwnGroup) lowerPriority(child.pid)
    await once(child, 'spawn')
    for (const pipe of child.stdio) pipe!.on('error', () => {}) // it reads nothing, or has gone
    return child
  } catch (error) {
    const orElse = `${cwd ? `, or no folder ${cwd}` : ''}, or no interpreter of it`
    const missing = `: there is no such program${orElse}`
    const why = { ENOENT: missing, ENOTDIR: missing, EACCES: ': it may not be executed (chmod +x), or is a folder' }
    const { code } = error as { code: keyof typeof why }
    throw new Error(`cannot start ${name}${why[code] ?? ''}`, { cause: error })
  }
}

const isNote = ({ msg }: any) => typeof msg === 'string'
const isNumber = Number.isFinite

/** What a program can say as `{"type", "data"}`, and the shape of its data. */
const SAYINGS = new Map<unknown, (data: any) => boolean>([
  ['msg', () => true], ['result', () => true], ['log', isNote], ['warning', isNote], ['error', isNote],
  ['step', ({ name }) => typeof name === 'string'],
  ['progress', ({ current, total = 0, unit = '' }) => isNumber(current) && isNumber(total) && typeof unit === 'string'],
])

/** An entry, packed, or the result; undefined for any other line, and where a number would silently become another. */
function readEntry(line: string) {
  try {
    const { type, data } = JSON.parse(line)
    const isSaid = data !== undefined && SAYINGS.get(type)?.(data) && lostNumber(line) === undefined
    if (isSaid) return { type, data, entry: packEntry(type, data) }
  } catch {} // not JSON; or nested too deeply to be written again
  return undefined
}

function readProgress(line: string, pattern: RegExp) {
  pattern.lastIndex = 0 // of one with the flag `g`
  const { current, total, unit } = pattern.exec(line)?.groups ?? {}
  const found = given({ current: Number(current), total: Number(total ?? (unit === '%' ? 100 : 0)) || undefined, unit })
  return SAYINGS.get('progress')!(found) ? found : undefined
}
