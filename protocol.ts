// The wire: every message that goes over ZeroMQ, and every line of a log. The other files decide who sends what, and
// when; what pages are told stands at the end of server.ts.
//
//   REQ/REP     request  [method, callId, id, args]  or  [method, callId, id, args, timeLimit]
//                        (for what is answered in place, such as `list`, call id and id mean nothing)
//               reply    ['', process id]  or  ['__RES__', result]  or  ['__ERROR__', message]  or  ['__BUSY__', message]
//   PUB/SUB     chunk    [id, position, lines]
//   log         entries  {"type": …, "time": …, "data": …}\n   one per line, in RUNS/<id>.ndjson
//
// The one idea: a run is a log, and a message (a chunk) is a piece of that log with the byte position
// at which it stands there. A reader that remembers the position it wants next can miss nothing.

import { lstatSync, mkdirSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join, resolve } from 'node:path'
import { Request, type Socket } from 'zeromq'

// ---- Settings: environment variables. A bad value ends the process with a sentence that says what is right.

export const HOST = process.env.HOST || '127.0.0.1'
export const PORT = setting('PORT', 8080, 0, 65_535)
/** Folder of the logs; uploads, produced files and the ipc sockets live below it. Absolute. */
export const RUNS = resolve(process.env.RUNS || 'runs')
/** What people uploaded, until the run that takes it has ended. */
export const UPLOADS = join(RUNS, 'uploads')
/** What runs produced: `<id>.<ending>`, kept as long as the run's log. */
export const FILES = join(RUNS, 'files')
export const REP_ADDR = address('REP_ADDR')
export const XSUB_ADDR = address('XSUB_ADDR')
export const XPUB_ADDR = address('XPUB_ADDR')
export const PROCESS_LIMIT = setting('PROCESS_LIMIT', Math.max(2, availableParallelism()), 1, 10_000)
export const SPARES = setting('SPARES', 1, 0, 100)
/** The longest that a run may take, in seconds; 0: no limit. At most 20 days: a timer of Node holds 24. */
const MAX_TIME_LIMIT = 20 * 24 * 3600
export const TIME_LIMIT = setting('TIME_LIMIT', 0, 0, MAX_TIME_LIMIT)
export const TASKS = resolve(process.env.TASKS || join(import.meta.dirname, 'tasks.ts'))
export const TOKEN = process.env.TOKEN ?? ''
export const KEEP_RUNS = setting('KEEP_RUNS', 1000, 0, 1_000_000)
export const MAX_LOG = setting('MAX_LOG', 256 * 2 ** 20, 4096, Number.MAX_SAFE_INTEGER)
export const MAX_UPLOAD = setting('MAX_UPLOAD', 2 ** 30, 1, Number.MAX_SAFE_INTEGER)
export const ALLOWED_HOSTS = (process.env.ALLOWED_HOSTS ?? '').split(/[\s,]+/).filter(Boolean)

function setting(name: string, fallback: number, least: number, most: number): number {
  const text = process.env[name]
  if (!text) return fallback
  const value = Number(text)
  if (/^\d+$/.test(text) && value >= least && value <= most) return value
  refuseToStart(`${name}=${text} is not a whole number from ${least} to ${most}`)
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

/** Ends a process that cannot do its work: a message for a person, and exit code 1. */
export function refuseToStart(message: string): never {
  console.error(`longrun: ${message}`)
  process.exit(1)
}

/** A write to a terminal that was closed emits 'error' on stdout, and without a listener that ends the process. */
export function outliveTerminal() {
  for (const output of [process.stdout, process.stderr]) output.on('error', () => {})
}

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
    if (found.uid !== process.getuid?.()) refuseToStart(`${folder} belongs to another user: set RUNS to a folder of yours`)
    if (found.mode & 0o077) refuseToStart(`${folder} is open to other users: set RUNS to a folder that nothing else uses, of mode 700`)
  }
}

// ---- Names

const ID = /^[A-Za-z0-9_-]{1,64}$/

/** Whether a text can name a run: safe as a file name, a topic and a part of an address. */
export const isId = (text: unknown): text is string => typeof text === 'string' && ID.test(text)
/** What to say of an id that cannot. */
export const INVALID_ID = 'invalid id: 1 to 64 of A-Z a-z 0-9 _ - are allowed'

const FILE = /^[A-Za-z0-9_-]{1,64}\.(?!part$)[a-z0-9]{1,10}$/

/** Whether a text can name a file that a run produced. What ends in `.part` is not finished. */
export const isFile = (text: unknown): text is string => typeof text === 'string' && FILE.test(text)

/** Path of the log of a run. */
export const logPath = (id: string) => join(RUNS, `${id}.ndjson`)

// ---- Entries: what stands in a log

/** One line of a run's log. `time` in milliseconds since 1970. */
export type Entry =
  | { type: 'start'; time: number; data: Start }
  | { type: 'msg'; time: number; data: unknown }
  | { type: 'progress'; time: number; data: { current: number; total?: number; unit?: string } }
  | { type: 'log'; time: number; data: Note }
  | { type: 'warning'; time: number; data: Note }
  | { type: 'error'; time: number; data: Note }
  | { type: 'done'; time: number; data: Done }
/** Always the first line. `timeLimit` in seconds, 0: none. */
export type Start = { method: string; args: unknown[]; callId: string; pid: number; timeLimit: number }
export type Note = { msg: string; line?: number; column?: number; file?: string; [detail: string]: unknown }
export type Outcome = 'ok' | 'error' | 'cancelled' | 'died'
/** Always the last line, exactly once. */
export type Done = { outcome: Outcome; result?: unknown; reason?: string; seconds: number }

/** The byte that ends a line, and with it an entry. */
export const LF = 10

/** An entry larger than this, in characters, is refused where it is made: one line must fit into every reader's memory. */
const MAX_ENTRY = 16 * 2 ** 20

/**
 * One entry as a line of the log. JSON has no raw line breaks, so a line break always ends an entry: readers
 * can cut a log into entries, and the web server can pass them on, without parsing them.
 * Throws a TypeError for what JSON cannot say, a RangeError for an entry above MAX_ENTRY.
 */
export function packEntry(type: Entry['type'], data: unknown, time = Date.now()): string {
  const json = JSON.stringify(data ?? null) as string | undefined
  if (json === undefined) throw new TypeError(`a ${typeof data} cannot be written as JSON`)
  if (json.length > MAX_ENTRY) throw new RangeError(`an entry of ${json.length} characters is above ${MAX_ENTRY}`)
  return `{"type":"${type}","time":${time},"data":${json}}\n`
}

/** Reads a line that one of our own processes wrote. Throws a SyntaxError when it is torn. */
export const unpackEntry = (line: string) => JSON.parse(line) as Entry

// ---- Requests and replies

export const ERROR_TAG = '__ERROR__'
export const BUSY_TAG = '__BUSY__'
export const RESULT_TAG = '__RES__'
const STARTED_TAG = ''

/** Reserved names: the workers server answers these itself, in place. All other calls start a process. */
export const RESERVED = ['list', 'read', 'stat', 'cancel', 'methods', 'ping']

/** The largest `args` that a call may have, in bytes. */
export const MAX_ARGS = 2 ** 20

/**
 * A call of a remote function, or of a reserved name that is answered in place. `id` names the run, and is never used
 * twice. `callId` names the work: two runs with the same one do not run at the same time; '' means the id. `timeLimit`
 * in seconds.
 */
export type Call = { method: string; callId: string; id: string; args: unknown[]; timeLimit?: number }

/** The call was refused: the message says what is wrong. */
export class RemoteError extends Error {
  override name = 'RemoteError'
  /**
   * 'unknown': nothing has that name; 'conflict': not in this state; 'failed': the server's fault; 'invalid': the
   * request has to be mended. Told from how the message begins, as only that is on the wire.
   */
  get kind(): 'unknown' | 'conflict' | 'failed' | 'invalid' {
    if (/^unknown /.test(this.message)) return 'unknown'
    if (/^cannot /.test(this.message)) return 'failed'
    return /^(already|not) (running|used)/.test(this.message) ? 'conflict' : 'invalid'
  }
}
/** There is no place at the moment: the process limit is reached, or the workers server is stopping. */
export class BusyError extends Error {
  override name = 'BusyError'
}
/** No reply in time. `sent` tells whether the call may have been executed all the same. */
export class TimeoutError extends Error {
  override name = 'TimeoutError'
  readonly sent: boolean
  constructor(sent: boolean) {
    super(`the workers server does not answer; the call ${sent ? 'may have been' : 'was not'} executed`)
    this.sent = sent
  }
}

export type Reply = { tag: string; payload: string | Buffer }
export const started = (pid: number): Reply => ({ tag: STARTED_TAG, payload: String(pid) })
export const result = (value: unknown): Reply => ({ tag: RESULT_TAG, payload: JSON.stringify(value) })
export const rawResult = (lines: Buffer): Reply => ({ tag: RESULT_TAG, payload: lines })
export const refused = (message: string): Reply => ({ tag: ERROR_TAG, payload: message })
export const busy = (message: string): Reply => ({ tag: BUSY_TAG, payload: message })

function packCall({ method, callId, id, args, timeLimit }: Call): string[] {
  const frames = [method, callId, id, JSON.stringify(args)]
  return timeLimit === undefined ? frames : [...frames, String(timeLimit)]
}

/** Reads a request's frames. Throws a RemoteError that says what is wrong with them, and what would be right. */
export function unpackCall(frames: Buffer[]): Call {
  if (frames.length !== 4 && frames.length !== 5) {
    throw new RemoteError(`malformed request: ${frames.length} frames, not [method, callId, id, args] or one more, timeLimit`)
  }
  const [method, callId, id, args, limit] = frames.map((frame, index) => text(frame, REQUEST_FRAMES[index]!)) as
    [string, string, string, string, string?]
  return { method, callId, id, args: unpackArgs(args), ...limit !== undefined && { timeLimit: unpackTimeLimit(limit) } }
}

const REQUEST_FRAMES = ['method', 'call id', 'id', 'arguments', 'time limit'] as const
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function text(frame: Buffer, what: string): string {
  const most = what === 'arguments' ? MAX_ARGS : 1024
  if (frame.length > most) throw new RemoteError(`invalid ${what}: ${frame.length} bytes, at most ${most} are allowed`)
  try {
    return utf8.decode(frame)
  } catch {
    throw new RemoteError(`invalid ${what}: not UTF-8`)
  }
}

function unpackArgs(json: string): unknown[] {
  const args = parseJson('arguments', json)
  if (!Array.isArray(args)) throw new RemoteError('invalid arguments: not a JSON array')
  return args
}

/** Reads JSON of strangers. Throws a RemoteError that says what is wrong with it. */
export function parseJson(what: string, json: string): unknown {
  try {
    const value = JSON.parse(json)
    JSON.stringify(value) // what is nested too deeply can be read, but not written again (RangeError)
    return value
  } catch (error) {
    throw new RemoteError(`invalid ${what}: ${error instanceof RangeError ? 'nested too deeply' : 'not JSON'}`)
  }
}

function unpackTimeLimit(seconds: string): number {
  const limit = Number(seconds)
  if (/^\d+(\.\d+)?(e-\d+)?$/.test(seconds) && limit <= MAX_TIME_LIMIT) return limit
  throw new RemoteError(`invalid time limit: not a number of seconds from 0 to ${MAX_TIME_LIMIT}`)
}

/** A request as a Router receives it: who sent it, and its own frames. */
type Envelope = { peer: Buffer; body: Buffer[] }

/** Undefined for a peer that is no REQ socket: without the empty delimiter there is nobody to answer. */
export function unpackEnvelope([peer, delimiter, ...body]: Buffer[]): Envelope | undefined {
  return peer && delimiter?.length === 0 ? { peer, body } : undefined
}

export const packReply = ({ peer }: Envelope, { tag, payload }: Reply) => [peer, '', tag, payload]

// ---- Chunks: what stands at a position of a run's log

/** `lines` are whole lines of the log of `id`, beginning at byte `position`; none at all: "the log is this long". */
export type Chunk = { id: string; position: number; lines: Buffer }

/** A larger piece is not published, only its end: whoever follows reads it from the log. Bounds what queues hold. */
export const MAX_CHUNK = 256 * 2 ** 10

export const packChunk = ({ id, position, lines }: Chunk) => [id, String(position), lines]

/** Undefined for what is not a chunk: anyone who can reach the address can publish. */
export function unpackChunk([id, position, lines]: Buffer[]): Chunk | undefined {
  const chunk = { id: String(id), position: Number(position), lines: lines ?? Buffer.alloc(0) }
  const whole = lines && (lines.length === 0 || lines.at(-1) === LF)
  return whole && isId(chunk.id) && Number.isSafeInteger(chunk.position) && chunk.position >= 0 ? chunk : undefined
}

// ---- Sockets

/**
 * A socket with what every one of ours needs: closing never waits for a peer that has gone (`linger`), and no
 * frame can be larger than we want to hold. The caller connects or binds it.
 */
export function createSocket<S extends Socket, O extends object>(Type: new (options: O) => S, options?: O): S {
  return new Type({ linger: 0, maxMessageSize: 2 * MAX_ENTRY, ...options } as O)
}

const idle: Request[] = []
let open = 0
const MAX_REQUESTS = 256

/**
 * Asks the workers server: the process id of the run that was started, or the result of a call answered in place.
 * Throws a RemoteError (refused), a BusyError (no place) or a TimeoutError; `timeout` in milliseconds.
 * Pattern: zguide chapter 4, "Client-side reliability (Lazy Pirate)", without its retry: a call may not be repeatable.
 */
export async function callRemote(call: Partial<Call> & { method: string }, timeout = 3000): Promise<Buffer> {
  const frames = packCall({ callId: '', id: 'call', args: [], ...call })
  const socket = idle.pop() ?? openRequest()
  const reply = await exchange(socket, frames, timeout).catch(error => {
    // Trap, the timed-out REQ: it still waits for its reply, and cannot be used again; its next send would fail with EFSM.
    socket.close()
    open--
    throw error
  })
  idle.push(socket)
  if (reply.tag === ERROR_TAG) throw new RemoteError(String(reply.payload))
  if (reply.tag === BUSY_TAG) throw new BusyError(String(reply.payload))
  return reply.payload
}

async function exchange(socket: Request, frames: string[], timeout: number) {
  const deadline = Date.now() + timeout
  socket.sendTimeout = timeout
  await socket.send(frames).catch(() => { throw new TimeoutError(false) })
  socket.receiveTimeout = Math.max(1, deadline - Date.now())
  return unpackReply(await socket.receive().catch(() => { throw new TimeoutError(true) }))
}

function openRequest(): Request {
  if (open >= MAX_REQUESTS) throw new BusyError('too many requests to the workers server at once')
  // Trap: without `immediate`, calls are queued for a server that is not there, and executed when it comes back, long
  // after the caller was told that they were not.
  const socket = createSocket(Request, { immediate: true })
  socket.connect(REP_ADDR)
  open++
  return socket
}

const unpackReply = ([tag, payload]: Buffer[]) => ({ tag: String(tag), payload: payload ?? Buffer.alloc(0) })
