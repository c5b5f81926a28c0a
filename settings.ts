// What the program finds outside of itself: the environment variables that it can be set by, the folder of its runs,
// the priority of a process, and a terminal that perhaps nobody reads. To import this ends no process, whatever the
// variables say; a server calls openRuns() first, which ends it with a sentence for each value that is wrong.

import {
  accessSync, constants, existsSync, fstatSync, lstatSync, mkdirSync, openSync, rmSync, writeFileSync, writeSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { isIP } from 'node:net'
import { availableParallelism, getPriority, setPriority } from 'node:os'
import { dirname, extname, join, resolve } from 'node:path'
import { isatty } from 'node:tty'

// ---- Environment variables

/** What is wrong with the values of the settings, a sentence each. */
const complaints: string[] = []

export const HOST = process.env.HOST || '127.0.0.1'
if (!isIP(HOST) && !/^\w[\w.-]*$/.test(HOST)) complaints.push(`HOST=${HOST} is no address, nor a name, of this machine`)
export const PORT = wholeNumber('PORT', 8080, 0, 65_535)
/** Folder of the logs; uploads, produced files and the ipc sockets live below it. Absolute. */
export const RUNS = resolve(process.env.RUNS || 'runs')
/** What people uploaded, until the run that takes it has ended. */
export const UPLOADS = join(RUNS, 'uploads')
/** What runs produced: `<id>.<ending>`, kept as long as the run's log. */
export const FILES = join(RUNS, 'files')
export const REP_ADDR = address('REP_ADDR')
export const XSUB_ADDR = address('XSUB_ADDR')
export const XPUB_ADDR = address('XPUB_ADDR')
if (new Set([REP_ADDR, XSUB_ADDR, XPUB_ADDR]).size < 3) {
  complaints.push('REP_ADDR, XSUB_ADDR and XPUB_ADDR have to be three addresses: two of them are the same')
}
export const PROCESS_LIMIT = wholeNumber('PROCESS_LIMIT', Math.max(2, availableParallelism()), 1, 10_000)
/** The command that each task process is started with, and its arguments; empty: none. */
export const LAUNCH = split(process.env.LAUNCH)
/** The command that is told of each run's end, and its arguments; empty: none. */
export const ON_DONE = split(process.env.ON_DONE)
// A launched process has no channel over which it could be told later what to run, so it cannot be a spare.
export const SPARES = LAUNCH.length ? wholeNumber('SPARES', 0, 0, 0) : wholeNumber('SPARES', 1, 0, 100)
/** The longest time limit, in seconds: 20 days, as a timer of Node holds 24. */
export const MAX_TIME_LIMIT = 20 * 24 * 3600
/** In seconds; 0: none. */
export const TIME_LIMIT = wholeNumber('TIME_LIMIT', 0, 0, MAX_TIME_LIMIT)
/** Of this package, as /health tells it. */
export const PACKAGE_VERSION: string = createRequire(import.meta.url)('longrun/package.json').version
/** `.ts`; where this is installed, and was built, `.js`. */
export const ENDING = extname(import.meta.filename)
export const TASKS = resolve(process.env.TASKS || join(import.meta.dirname, `tasks${ENDING}`))
export const TOKEN = token()
export const ALLOWED_HOSTS = hosts()
export const ALLOWED_ORIGINS = origins()
export const KEEP_RUNS = wholeNumber('KEEP_RUNS', 1000, 0, 1_000_000)
/** In bytes. */
export const MAX_LOG = wholeNumber('MAX_LOG', 256 * 2 ** 20, 4096, Number.MAX_SAFE_INTEGER)
/** In bytes. */
export const MAX_UPLOAD = wholeNumber('MAX_UPLOAD', 2 ** 30, 1, Number.MAX_SAFE_INTEGER)

function wholeNumber(name: string, fallback: number, least: number, most: number): number {
  const text = process.env[name]
  if (!text) return fallback
  const value = Number(text)
  if (/^\d+$/.test(text) && value >= least && value <= most) return value
  complaints.push(least === most
    ? `${name}=${text} does not go together with LAUNCH: it can only be ${least} then`
    : `${name}=${text} is not a whole number from ${least} to ${most}`)
  return fallback
}

function address(name: 'REP_ADDR' | 'XSUB_ADDR' | 'XPUB_ADDR'): string {
  const text = process.env[name] || `ipc://${RUNS}/${name.slice(0, -'_ADDR'.length).toLowerCase()}.sock`
  const port = /^tcp:\/\/[^*\s]+:(\d{1,5})$/.exec(text)?.[1]
  if (!/^ipc:\/\/[^@]/.test(text) && !(Number(port) > 0 && Number(port) < 2 ** 16)) {
    complaints.push(`${name}=${text} is neither ipc://PATH nor tcp://HOST:PORT (no *: it is connected to as well)`)
  }
  // The kernel's limit for the path of a socket; libzmq would only say "invalid argument".
  if (text.startsWith('ipc://') && Buffer.byteLength(text) - 'ipc://'.length > 107) {
    complaints.push(`the socket path in ${text} is longer than 107 bytes: set RUNS or ${name} to a shorter one`)
  }
  return text
}

// The keys of runs are made from the token, and whoever has a key can try tokens at home: so it must be long.
function token(): string {
  const text = process.env.TOKEN ?? ''
  if (text && text.length < 16) complaints.push('TOKEN is shorter than 16 characters: `openssl rand -hex 32` makes one')
  if (/[^\w.~+/=!@#$%^&*()-]/.test(text)) complaints.push('TOKEN may have letters, digits and -._~+/=!@#$%^&*() only')
  return text
}

function hosts(): string[] {
  const given = split(process.env.ALLOWED_HOSTS, /[\s,]+/)
  for (const host of given) {
    const isName = /^([a-z\d][\w.-]*|\[[\da-f:]+\])(:\d+)?$/i.test(host) // in ASCII, as browsers send it
    if (!isName) complaints.push(`ALLOWED_HOSTS has ${host}, which is not a host such as app.example.org`)
  }
  return given.map(host => host.toLowerCase())
}

function origins(): string[] {
  const given = split(process.env.ALLOWED_ORIGINS, /[\s,]+/)
  if (given.length && !TOKEN) complaints.push('ALLOWED_ORIGINS needs a TOKEN: the keys of runs are made from it')
  for (const origin of given) {
    const right = URL.canParse(origin) && /^https?:/.test(origin) ? new URL(origin).origin : 'https://app.example.org'
    if (origin !== right) complaints.push(`ALLOWED_ORIGINS has ${origin}, which is not an origin such as ${right}`)
  }
  return given
}

function split(text = '', between = /\s+/) { return text.split(between).filter(Boolean) }

/** Ends a process that cannot do its work: a message for a person, and exit code 1. */
export function refuseToStart(message: string): never {
  console.error(`longrun: ${message}`)
  process.exit(1)
}

// ---- The runs folder

/** A server's first step: checks the settings, and makes RUNS, or checks that it is ours alone. May end the process. */
export function openRuns() {
  if (complaints.length) refuseToStart(complaints.join('\nlongrun: '))
  process.umask(0o077) // sockets too: libzmq creates them with what the umask leaves
  const mend = 'set RUNS to a folder of yours that nothing else uses, of mode 700'
  for (const folder of [RUNS, UPLOADS, FILES]) {
    try {
      makeFolder(folder)
      accessSync(folder, constants.W_OK) // its disk may be read-only
    } catch (error) {
      refuseToStart(`cannot create the runs folder, or write into it: ${(error as Error).message}; ${mend}`)
    }
    const found = lstatSync(folder) // not stat: a link could lead into somebody else's folder
    const unfit = `cannot create the runs folder: ${folder} is not a folder of its own; ${mend}`
    if (!found.isDirectory()) refuseToStart(unfit)
    if (found.uid !== process.getuid?.()) refuseToStart(`${folder} belongs to another user: ${mend}`)
    if (found.mode & 0o077) refuseToStart(`${folder} is open to other users: ${mend}`)
  }
}

// Trap: Node's own mkdir, when it is recursive, tries for ever what is no place for a folder, such as /proc/x.
function makeFolder(path: string) {
  if (existsSync(path)) return
  makeFolder(dirname(path))
  try {
    mkdirSync(path, { mode: 0o700 })
  } catch (error) {
    if (!existsSync(path)) throw error // else the other server was quicker
  }
}

/** Whether there is such a file: who reads a FIFO that somebody has put there would wait for ever. */
export const isThere = (path: string) => lstatSync(path, { throwIfNoEntry: false })?.isFile() === true

/** Removes what is there, if anything: somebody may have put a folder there. */
export const removeAll = (path: string) => attempt('tidy up', () => rmSync(path, { recursive: true, force: true }))

/** For what is no reason to end when it fails. */
export function attempt<T>(what: string, act: () => T): T | undefined {
  try {
    return act()
  } catch (error) {
    console.error(`cannot ${what}: ${(error as Error).message}`)
  }
}

/** A file that only takes up room: it is removed to make some for the last lines of runs on a full disk. */
export const BALLAST = join(RUNS, 'ballast')

/** Puts the ballast there, unless it is, or there is no room for it. */
export function layBallast() {
  try {
    if (!existsSync(BALLAST)) writeFileSync(BALLAST, Buffer.alloc(2 ** 16, ' '))
  } catch {
    removeAll(BALLAST) // the disk is full: half a ballast would never be laid again
  }
}

// ---- The processes of runs

/** The variable that marks what belongs to a run: whatever a run starts inherits it, and ends with the run. */
export const RUN_MARK = 'LONGRUN_RUN'
/** The variable by which a task process is told which version of the functions its server has loaded. */
export const VERSION = 'LONGRUN_VERSION'

// Whoever can run code as this user can read the servers' own. So what is left out are names that would mislead, and
// the TOKEN, which programs print by mistake.
/** @internal The environment of a task process: its server's, without what is the servers' own. */
export function taskEnvironment(): NodeJS.ProcessEnv {
  // The last one is set by `node --watch`: its child would send messages of its own over IPC.
  const servers = /^(TOKEN|HOST|PORT|LAUNCH|ON_DONE|NOTIFY_SOCKET|LONGRUN_.*|WATCH_REPORT_DEPENDENCIES)$/
  const given = Object.entries(process.env).filter(([name]) => !servers.test(name))
  // Node 24 takes 110 ms of processor time to load a task process, not 250, with what it has compiled before.
  return { NODE_COMPILE_CACHE: join(RUNS, 'compiled'), ...Object.fromEntries(given), RUNS }
}

/** @internal To a process; with a negative id, to its group. False when nobody is there any more. */
export function sendSignal(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(pid, signal)
  } catch {
    return false
  }
}

const NICE = 10 // of 19

// Eight runs on two cores would hold up every page by seconds.
// Trap: with a session of its own (`detached`) it is a group of its own for the kernel's scheduler, which shares the
// processor between groups, and looks at `nice` only within one; so that of the group is set, too. It takes one such
// write in 100 ms from an ordinary user. Where neither can be set, nothing is lost but time.
/** Lets a process wait for the servers, in the turn of its start: later only one of its threads would be meant. */
export function lowerPriority(pid: number, tries = 10) {
  try {
    if (getPriority(pid) < NICE) setPriority(pid, NICE) // who was started at less keeps that
    writeFileSync(`/proc/${pid}/autogroup`, String(NICE))
  } catch (error) {
    const isSoon = (error as NodeJS.ErrnoException).code === 'EAGAIN' && tries > 1
    if (isSoon) setTimeout(lowerPriority, 100, pid, tries - 1).unref()
  }
}

// ---- The terminal

// A SIGHUP says so where a terminal can be closed; without one, `nohup` is to protect from it (Node undoes that).
/** @internal Calls `stop` when somebody wants this process to end. */
export function onStop(stop: (signal: NodeJS.Signals) => void) {
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, stop)
  process.on('SIGHUP', [0, 1, 2].some(isatty) ? stop : () => {})
}

const UNREAD = 64 * 2 ** 10 // bytes that may wait for whoever reads a socket

// Trap, Ctrl-S: Node writes to terminals and pipes synchronously, so one whose reader has stopped stops the whole
// process, its signal handlers, too. The same file, opened anew with O_NONBLOCK, says EAGAIN instead.
/** From now on, what this process prints never holds it up: what nobody takes is dropped, and counted. */
export function printWithoutWaiting() {
  for (const output of [process.stdout, process.stderr]) {
    output.on('error', () => {}) // the terminal was closed; without a listener, the error would end the process
    const print = printer(output)
    let dropped = 0
    output.write = (text: string | Uint8Array, ...others: unknown[]) => {
      const missing = dropped ? `(${dropped} lines of output were dropped: nobody read them)\n` : ''
      const bytes = Buffer.from(text as string, others[0] as BufferEncoding) // this means nothing where there are bytes
      dropped = print(Buffer.concat([Buffer.from(missing), bytes])) ? 0 : dropped + 1
      const done = others.find(other => typeof other === 'function')
      if (done) process.nextTick(done)
      return true
    }
    // Trap: a socket that one process ends takes nothing more from any that has it, the servers among them.
    output._final = done => done()
    const end = output.end.bind(output)
    output.end = (...last: any[]) => {
      if (!last.length || typeof last[0] === 'function') return end(...last as []) as never
      output.write(...last as [string]) // else it would pass by whoever looks at what is written
      return end() as never
    }
  }
}

/** A function that prints without waiting, and tells whether it has printed. */
function printer(output: NodeJS.WriteStream & { fd: number }): (bytes: Buffer) => boolean {
  const write = output.write.bind(output)
  const kind = fstatSync(output.fd)
  const isSynchronous = kind.isFIFO() || kind.isCharacterDevice() // a socket is not, and a file takes everything
  const flags = constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY
  let file: number | undefined
  try {
    if (isSynchronous) file = openSync(`/proc/self/fd/${output.fd}`, flags)
  } catch {} // no /proc, or nobody at the other end any more
  return bytes => {
    try {
      if (file !== undefined) writeSync(file, bytes)
      else if (output.writableLength < UNREAD) write(bytes)
      else return false
      return true
    } catch {
      return false
    }
  }
}
