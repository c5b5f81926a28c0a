// What the program finds outside of itself: the environment variables that it can be set by, the folder of its runs,
// a machine that may have no time to spare, and a terminal that perhaps nobody reads. A bad value ends the process with
// a sentence that says what would be right.

import {
  constants, existsSync, fstatSync, lstatSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync, writeSync,
} from 'node:fs'
import { availableParallelism } from 'node:os'
import { join, resolve } from 'node:path'

// ---- Environment variables

export const HOST = process.env.HOST || '127.0.0.1'
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
export const PROCESS_LIMIT = wholeNumber('PROCESS_LIMIT', Math.max(2, availableParallelism()), 1, 10_000)
/** The command that each task process is started with, and its arguments; empty: none. */
export const LAUNCH = (process.env.LAUNCH ?? '').split(/\s+/).filter(Boolean)
// A launched process has no channel over which it could be told later what to run, so it cannot be a spare.
export const SPARES = LAUNCH.length ? wholeNumber('SPARES', 0, 0, 0) : wholeNumber('SPARES', 1, 0, 100)
/** The longest time limit, in seconds: 20 days, as a timer of Node holds 24. */
export const MAX_TIME_LIMIT = 20 * 24 * 3600
/** In seconds; 0: none. */
export const TIME_LIMIT = wholeNumber('TIME_LIMIT', 0, 0, MAX_TIME_LIMIT)
export const TASKS = resolve(process.env.TASKS || join(import.meta.dirname, 'tasks.ts'))
export const TOKEN = token()
export const ALLOWED_HOSTS = list('ALLOWED_HOSTS').map(host => host.toLowerCase())
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
  refuseToStart(least === most
    ? `${name}=${text} does not go together with LAUNCH: it can only be ${least} then`
    : `${name}=${text} is not a whole number from ${least} to ${most}`)
}

function address(name: 'REP_ADDR' | 'XSUB_ADDR' | 'XPUB_ADDR'): string {
  const text = process.env[name] || `ipc://${RUNS}/${name.slice(0, -'_ADDR'.length).toLowerCase()}.sock`
  const port = /^tcp:\/\/[^*\s]+:(\d{1,5})$/.exec(text)?.[1]
  if (!/^ipc:\/\/./.test(text) && !(Number(port) > 0 && Number(port) < 2 ** 16)) {
    refuseToStart(`${name}=${text} is neither ipc://PATH nor tcp://HOST:PORT (no *: it is connected to as well)`)
  }
  // The kernel's limit for the path of a socket; libzmq would only say "invalid argument".
  if (text.startsWith('ipc://') && Buffer.byteLength(text) - 'ipc://'.length > 107) {
    refuseToStart(`the socket path in ${text} is longer than 107 bytes: set RUNS or ${name} to a shorter one`)
  }
  return text
}

// The keys of runs are made from the token, and whoever has a key can try tokens at home: so it must be long.
function token(): string {
  const text = process.env.TOKEN ?? ''
  if (text && text.length < 16) refuseToStart('TOKEN is shorter than 16 characters: `openssl rand -hex 32` makes one')
  const allowed = /^[\w.~+/=!@#$%^&*()-]*$/
  if (!allowed.test(text)) refuseToStart('TOKEN may have letters, digits and -._~+/=!@#$%^&*() only')
  return text
}

function origins(): string[] {
  const given = list('ALLOWED_ORIGINS')
  if (given.length && !TOKEN) refuseToStart('ALLOWED_ORIGINS needs a TOKEN: the keys of runs are made from it')
  for (const origin of given) {
    const right = URL.canParse(origin) && /^https?:/.test(origin) ? new URL(origin).origin : 'https://app.example.org'
    if (origin !== right) refuseToStart(`ALLOWED_ORIGINS has ${origin}, which is not an origin such as ${right}`)
  }
  return given
}

/** What a task needs, and no secrets of the servers: TOKEN stays here. TASK_… is for the remote functions. */
export function taskEnvironment(): NodeJS.ProcessEnv {
  const wanted = /^(PATH|HOME|USER|LANG|LC_.*|TZ|TMPDIR|NODE_.*|TSX_.*|TASKS|MAX_LOG|(REP|XSUB|XPUB)_ADDR|TASK_.*)$/
  const given = Object.entries(process.env).filter(([name]) => wanted.test(name))
  // Node 24 loads a task process in 110 ms with what it has compiled before, and not in 250 (20 and 22 gain nothing).
  return { NODE_COMPILE_CACHE: join(RUNS, 'compiled'), ...Object.fromEntries(given), RUNS }
}

function list(name: string): string[] {
  return (process.env[name] ?? '').split(/[\s,]+/).filter(Boolean)
}

/** Ends a process that cannot do its work: a message for a person, and exit code 1. */
export function refuseToStart(message: string): never {
  console.error(`longrun: ${message}`)
  process.exit(1)
}

// ---- The runs folder

/** Creates the folders below RUNS, or checks that nobody else can look in, or put something there. */
export function openRuns() {
  process.umask(0o077) // sockets too: libzmq creates them with what the umask leaves
  for (const folder of [RUNS, UPLOADS, FILES]) {
    try {
      mkdirSync(folder, { recursive: true, mode: 0o700 })
    } catch (error) {
      refuseToStart(`cannot create the runs folder: ${(error as Error).message}`)
    }
    const found = lstatSync(folder) // not stat: a link could lead into somebody else's folder
    if (!found.isDirectory()) refuseToStart(`${folder} is not a folder of its own: remove it, or set RUNS`)
    const mend = 'set RUNS to a folder of yours that nothing else uses, of mode 700'
    if (found.uid !== process.getuid?.()) refuseToStart(`${folder} belongs to another user: ${mend}`)
    if (found.mode & 0o077) refuseToStart(`${folder} is open to other users: ${mend}`)
  }
}

/** A file that only takes up room: it is removed to make some for the last lines of runs on a full disk. */
export const BALLAST = join(RUNS, 'ballast')

/** Puts the ballast there, unless it is, or there is no room for it. */
export function layBallast() {
  try {
    if (!existsSync(BALLAST)) writeFileSync(BALLAST, Buffer.alloc(2 ** 16, ' '))
  } catch {
    rmSync(BALLAST, { force: true }) // the disk is full: half a ballast would never be laid again
  }
}

// ---- The machine

const SPARE_TIME = 0.1 // of the time of all cores: with less, the machine has none
const LOOK = 200 // ms from one look at it to the next, as each takes 30 µs

let machine = { looked: 0, idle: 0, isSaturated: false }

/** Whether the machine had no time to spare between the last two looks at it. (Of a container, its host.) */
export function isSaturated(): boolean {
  const looked = performance.now()
  const passed = looked - machine.looked
  if (passed < LOOK) return machine.isSaturated
  const idle = idleTime() ?? machine.idle
  machine = { looked, idle, isSaturated: idle - machine.idle < SPARE_TIME * passed * availableParallelism() }
  return machine.isSaturated
}

/** For how long cores have been idle, all of them together, in ms; undefined where that cannot be seen. */
function idleTime(): number | undefined {
  try {
    return 1000 * Number(readFileSync('/proc/uptime', 'utf8').split(' ')[1])
  } catch {
    return undefined // no /proc, or no descriptor left: no reason for a run to fail
  }
}

// ---- The terminal

const UNREAD = 64 * 2 ** 10 // bytes that may wait for whoever reads a socket

/**
 * From now on, what this process prints never holds it up: what nobody takes is dropped, and the number of dropped
 * lines is printed when somebody reads again.
 * Trap, Ctrl-S: Node writes to terminals and pipes synchronously, so one whose reader has stopped stops the whole
 * process, its signal handlers, too. The same file, opened anew with O_NONBLOCK, says EAGAIN instead.
 */
export function printWithoutWaiting() {
  for (const output of [process.stdout, process.stderr]) {
    output.on('error', () => {}) // the terminal was closed; without a listener, the error would end the process
    const print = printer(output)
    let dropped = 0
    output.write = (text: string | Uint8Array, ...others: unknown[]) => {
      const missing = dropped ? `(${dropped} lines of output were dropped: nobody read them)\n` : ''
      dropped = print(missing + (typeof text === 'string' ? text : Buffer.from(text))) ? 0 : dropped + 1
      const done = others.find(other => typeof other === 'function')
      if (done) process.nextTick(done)
      return true
    }
  }
}

/** A function that prints without waiting, and tells whether it has printed. */
function printer(output: NodeJS.WriteStream & { fd: number }): (text: string) => boolean {
  const write = output.write.bind(output)
  const kind = fstatSync(output.fd)
  if (!kind.isFIFO() && !kind.isCharacterDevice()) { // a file takes everything; a socket's queue is ours to bound
    return text => output.writableLength < UNREAD && (write(text), true)
  }
  const { O_WRONLY, O_NONBLOCK, O_NOCTTY } = constants
  let file: number
  try {
    file = openSync(`/proc/self/fd/${output.fd}`, O_WRONLY | O_NONBLOCK | O_NOCTTY)
  } catch {
    return text => (write(text), true) // no /proc, or nobody at the other end any more
  }
  return text => {
    try {
      writeSync(file, text)
      return true
    } catch {
      return false
    }
  }
}
