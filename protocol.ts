// The wire: every message that goes over ZeroMQ. The other rooms decide who sends what, and when; what pages are told
// stands in server.ts.
//
//   REQ/REP     request  [method, callId, id, args]  or  [method, callId, id, args, timeLimit]
//                        (for what is answered in place, such as `list`, call id and id mean nothing)
//               reply    ['', process id]  or  ['__RES__', result]  or  ['__BUSY__', message]
//                        or  ['__ERROR__', 'KIND: message'], KIND one of invalid, unknown, conflict, failed
//   PUB/SUB     chunk    [id, position, lines]
//
// A chunk is some whole lines of a run's log, with the byte position at which they stand there. A reader that remembers
// the position it wants next can miss nothing: see readers.ts.

import { isUtf8 } from 'node:buffer'
import { once } from 'node:events'
import { existsSync, lstatSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { curveKeyPair, Publisher, Request, type Socket } from 'zeromq'
import { isId, LF, MAX_ENTRY } from './log.ts'
import { attempt, MAX_TIME_LIMIT, refuseToStart, REP_ADDR, RUNS, XPUB_ADDR, XSUB_ADDR } from './settings.ts'

// ---- Requests

export const ERROR_TAG = '__ERROR__'
export const BUSY_TAG = '__BUSY__'
export const RESULT_TAG = '__RES__'
const STARTED_TAG = ''

/** Reserved names: the workers server answers these itself, in place. All other calls start a process. */
export const RESERVED = ['list', 'show', 'read', 'stat', 'cancel', 'methods', 'ping']

/** The largest `args` that a call may have, in bytes. */
export const MAX_ARGS = 2 ** 20

/**
 * What is asked for. `id` names the run, and is never used twice; `callId` names the work: two runs of the same one do
 * not run at the same time; '' means the id. `timeLimit` in seconds.
 */
export type Call = { method: string; callId: string; id: string; args: unknown[]; timeLimit?: number }

function packCall({ method, callId, id, args, timeLimit }: Call): string[] {
  // A large decimal, such as 1e20, would be written as an integer, and be refused: see `parseJson`.
  const json = JSON.stringify(args).replace(LONG, token => isHeld(token) ? token : `${token}.0`)
  const frames = [method, callId, id, json]
  return timeLimit === undefined ? frames : [...frames, String(timeLimit)]
}

/** Reads a request's frames. Throws a RemoteError that says what is wrong with them, and what would be right. */
export function unpackCall(frames: Buffer[]): Call {
  if (frames.length !== 4 && frames.length !== 5) {
    const right = '[method, callId, id, args] or one more, timeLimit'
    throw new RemoteError('invalid', `malformed request: ${frames.length} frames, not ${right}`)
  }
  const [method, callId, id, json, limit] = frames.map((frame, index) => unpackText(frame, REQUEST_FRAMES[index]!))
  const args = parseJson('arguments', json!)
  if (!Array.isArray(args)) throw invalid('arguments', 'not a JSON array')
  const isLimit = limit === undefined || /^\d+(\.\d+)?(e-\d+)?$/.test(limit) && Number(limit) <= MAX_TIME_LIMIT
  if (!isLimit) throw invalid('time limit', `not a number of seconds from 0 to ${MAX_TIME_LIMIT}`)
  return { method: method!, callId: callId!, id: id!, args, timeLimit: limit === undefined ? limit : Number(limit) }
}

const REQUEST_FRAMES = ['method', 'call id', 'id', 'arguments', 'time limit']
/** What is wrong with a part of a request. */
export const invalid = (what: string, why: string) => new RemoteError('invalid', `invalid ${what}: ${why}`)
/** Whether something can be a position in a log. */
export const isPosition = (value: unknown): value is number => Number.isSafeInteger(value) && Number(value) >= 0

function unpackText(frame: Buffer, what: string): string {
  const most = what === 'arguments' ? MAX_ARGS : 1024
  if (frame.length > most) throw invalid(what, `${frame.length} bytes, at most ${most} are allowed`)
  if (!isUtf8(frame)) throw invalid(what, 'not UTF-8')
  return String(frame)
}

// Such numbers have to be found in the text, as nobody can tell what was written afterwards.
/** Reads JSON of strangers. Throws a RemoteError, also for a number that would not arrive as it was written. */
export function parseJson(what: string, json: string): unknown {
  let value
  try {
    value = JSON.parse(json)
    JSON.stringify(value) // what is nested too deeply can be read, but not written again (RangeError)
  } catch (error) {
    throw invalid(what, error instanceof RangeError ? 'nested too deeply' : 'not JSON')
  }
  const lost = lostNumber(json)
  if (lost === undefined) return value
  const most = `whole numbers go up to ${Number.MAX_SAFE_INTEGER}, others up to 1.8e308`
  throw invalid(what, `the number ${lost.slice(0, 40)} cannot be held, ${most}`)
}

/** The first number of a JSON text that would not arrive as it was written; undefined: there is none. */
export const lostNumber = (json: string): string | undefined =>
  SUSPECT.test(json) ? json.match(LONG)?.find(token => !isHeld(token)) : undefined

/** What each of them has: looked for in a fifth of the time, and seldom there. */
const SUSPECT = /(?<![\d.])\d{16}|\d[eE]\+?\d{3}/

/** The strings of a JSON text, and its numbers of 16 characters or with an exponent: others are small enough. */
const LONG = /"(?:[^"\\]+|\\.)*"|[-+.\deE]{16,}|[-.\d]+[eE][-+\d]+/g

/** Whether a string or a number arrives as it was written; decimals are rounded, as everywhere. */
const isHeld = (token: string) =>
  token.startsWith('"') || (/[.eE]/.test(token) ? Number.isFinite : Number.isSafeInteger)(Number(token))

/** Who sent what a Router received, and its own frames; undefined for who is no REQ socket, and waits for no reply. */
export const unpackEnvelope = ([peer, delimiter, ...body]: Buffer[]) =>
  peer && delimiter?.length === 0 ? { peer, body } : undefined

// ---- Replies

/** Why a call was refused: it has to be mended; nothing has that name; not in this state; by the server's fault. */
export type Kind = 'invalid' | 'unknown' | 'conflict' | 'failed'

/** The call was refused: the message says what is wrong. */
export class RemoteError extends Error {
  readonly kind: Kind
  constructor(kind: Kind, message: string) {
    super(message)
    this.kind = kind
  }
}
/** There is no place at the moment: the process limit is reached, or the workers server is stopping. */
export class BusyError extends Error {}

/** No reply in time; if the call was sent, it may have been executed all the same. */
export class TimeoutError extends Error {
  constructor(isSent: boolean) {
    super(`the workers server does not answer; the call ${isSent ? 'may have been' : 'was not'} executed`)
  }
}

export type Reply = { tag: string; payload: string | Buffer }
export const started = (pid: number): Reply => ({ tag: STARTED_TAG, payload: String(pid) })
/** A buffer is lines of a log, or JSON already. */
export const result = (value: unknown): Reply =>
  ({ tag: RESULT_TAG, payload: Buffer.isBuffer(value) ? value : JSON.stringify(value) })
export const refused = ({ kind, message }: RemoteError): Reply => ({ tag: ERROR_TAG, payload: `${kind}: ${message}` })
export const busy = (message: string): Reply => ({ tag: BUSY_TAG, payload: message })

export const packReply = ({ peer }: { peer: Buffer }, { tag, payload }: Reply) => [peer, '', tag, payload]

/** The payload of a reply. Throws the RemoteError or BusyError that it stands for. */
function unpackReply([tag, payload = Buffer.alloc(0)]: Buffer[]): Buffer {
  if (String(tag) === BUSY_TAG) throw new BusyError(String(payload))
  if (String(tag) !== ERROR_TAG) return payload
  const found = /^(invalid|unknown|conflict|failed): (.*)$/s.exec(String(payload))
  throw found ? new RemoteError(found[1] as Kind, found[2]!) : new RemoteError('failed', String(payload))
}

// ---- Chunks

/** `lines` are whole lines of the log of `id`, beginning at byte `position`; none at all: "the log is this long". */
export type Chunk = { id: string; position: number; lines: Buffer }

/** Of a larger chunk a task publishes only its end: whoever follows reads it from the log. Bounds what queues hold. */
export const MAX_CHUNK = 256 * 2 ** 10

/** Of a chunk that only says how long the log is. */
export const NO_LINES = Buffer.alloc(0)

export const packChunk = ({ id, position, lines }: Chunk) => [id, String(position), lines]

/** Undefined for what is not a chunk: anyone who can reach the address can publish. */
export function unpackChunk([id, position, lines]: Buffer[]): Chunk | undefined {
  const chunk = { id: String(id), position: Number(position), lines: lines ?? NO_LINES }
  const isWhole = lines && (lines.length === 0 || lines.at(-1) === LF && isUtf8(lines))
  return isWhole && isId(chunk.id) && isPosition(chunk.position) ? chunk : undefined
}

/** Connects to where tasks publish. What finds no room is dropped: who misses a chunk reads the log. */
export function openPublisher(): (chunk: Chunk) => void {
  const socket = createSocket(Publisher, XSUB_ADDR, { sendTimeout: 0 })
  return chunk => { socket.send(packChunk(chunk)).catch(() => {}) }
}

// ---- Sockets

/** Of all sockets: closing never waits for a peer that has gone, and no frame is larger than we want to hold. */
const optionsFor = (address: string) =>
  ({ linger: 0, maxMessageSize: 2 * MAX_ENTRY, ipv6: address.startsWith('tcp://[') })

/** A socket that connects to an address. Throws ENOENT without the server's key, see `waitForServerKey`. */
export function createSocket<S extends Socket & { connect(address: string): void }, O>(
  Type: new (options: O) => S, address: string, options?: O,
): S {
  const socket = new Type({ ...optionsFor(address), ...isLocal(address) ? {} : clientKeys(), ...options } as O)
  socket.connect(address)
  return socket
}

// Trap, the silent takeover: binding an ipc address that is in use succeeds, and the one who had it gets no connection
// any more, and no error. So this looks whether somebody listens: by a plain connection, as a server that is stopped or
// busy would not answer a request, but is still there. And any file that stands there would be removed.
/** A socket that is bound to an address. Ends the process when it cannot be. */
export async function bindSocket<S extends Socket & { bind(address: string): Promise<void> }, O>(
  Type: new (options: O) => S, address: string, options?: O,
): Promise<S> {
  const cannot = (why: string) =>
    refuseToStart(`cannot listen on ${address}: ${why}; it has to be an address of this machine, or a free path`)
  if (address.startsWith('ipc://')) {
    const path = address.slice('ipc://'.length)
    const probe = connect(path)
    const isInUse = await once(probe, 'connect').then(() => true, () => false)
    probe.destroy()
    const mend = 'stop it, or set RUNS to another folder'
    if (isInUse) refuseToStart(`another workers server is running on ${address}: ${mend}`)
    if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() === false) cannot('what stands there is no socket')
  }
  const socket = new Type({ ...optionsFor(address), ...isLocal(address) ? {} : serverKeys(), ...options } as O)
  await socket.bind(address).catch(error => cannot(error.message))
  return socket
}

/** Removes the file of an ipc address. */
export function removeSocket(address: string) {
  if (address.startsWith('ipc://')) attempt('tidy up', () => rmSync(address.slice('ipc://'.length), { force: true }))
}

// ---- Keys: what leaves the machine is encrypted (zguide chapter 5, "Security")

/** Whether what goes over an address stays on this machine. */
const isLocal = (address: string) => /^(ipc:|tcp:\/\/(localhost|127\.[\d.]+|\[::1\]):)/.test(address)

const KEY_TIME = 10_000 // ms in which the key of the workers server must be there
const CURVE = join(RUNS, 'curve')
const PUBLIC = join(CURVE, 'server.public')
const SECRET = join(CURVE, 'server.secret')

// Its own pair says nothing about a client: whoever knows the public key of the server is let in.
function clientKeys() {
  const { publicKey, secretKey } = curveKeyPair()
  return { curveServerKey: readFileSync(PUBLIC, 'utf8'), curvePublicKey: publicKey, curveSecretKey: secretKey }
}

/** The workers server makes its keys when it starts, perhaps just now. Without one the process ends. */
export async function waitForServerKey() {
  if ([REP_ADDR, XPUB_ADDR].every(isLocal)) return
  const deadline = performance.now() + KEY_TIME
  while (!existsSync(PUBLIC) && performance.now() < deadline) await sleep(100)
  const mend = 'start it first, or copy that file to here'
  if (!existsSync(PUBLIC)) refuseToStart(`no key of the workers server: there is no ${PUBLIC}; ${mend}`)
}

/** Those of the workers server: made once, so what was copied elsewhere stays right. */
function serverKeys() {
  if (!existsSync(PUBLIC)) {
    mkdirSync(CURVE, { recursive: true, mode: 0o700 })
    const { publicKey, secretKey } = curveKeyPair()
    writeFileSync(SECRET, secretKey, { mode: 0o600 })
    writeFileSync(PUBLIC, publicKey, { mode: 0o600 }) // last: whoever finds it finds both
  }
  return { curveServer: true, curveSecretKey: readFileSync(SECRET, 'utf8') }
}

// ---- Calls

const MAX_REQUESTS = 128 // sockets: libzmq allows 1,023 in a process, and each is three, with what tells its events
const CONNECT_TIME = 3000 // ms in which the workers server must have taken the connection
const START_TIME = 3000 // ms for what starts something: nobody may be left to guess for long whether it did
const ASK_TIME = 30_000 // ms for what can be asked again: a machine may be busy

/** Makes a function that runs what it is given, `most` at a time: the others wait in a queue (as in p-limit). */
export function limit(most: number) {
  let active = 0
  const queue: (() => void)[] = []
  return async <T>(act: () => Promise<T>): Promise<T> => {
    if (active < most) active++
    else await new Promise<void>(resolve => queue.push(resolve))
    try {
      return await act()
    } finally {
      const next = queue.shift()
      if (next) next() // in the place of the one that has ended
      else active--
    }
  }
}

const limitRequests = limit(MAX_REQUESTS)
const idle: Request[] = [] // sockets whose last request was answered: a new one takes 0.2 ms more
const waiting = new Set<Request>() // for a reply

// Pattern: zguide chapter 4, "Client-side reliability (Lazy Pirate)"; what starts a run is never asked again, though.
/**
 * Asks the workers server: the process id of the run that was started, or the result of a call answered in place.
 * Throws a RemoteError (refused), a BusyError (no place) or a TimeoutError; `timeout` in milliseconds.
 */
export async function callRemote(
  call: Partial<Call> & { method: string }, timeout = RESERVED.includes(call.method) ? ASK_TIME : START_TIME,
): Promise<Buffer> {
  const frames = packCall({ callId: '', id: 'call', args: [], ...call }) // answered in place, it needs no id
  const deadline = performance.now() + timeout
  return unpackReply(await limitRequests(async () => {
    for (;;) {
      const reply = await exchange(frames, deadline)
      if (reply) return reply
      if (!RESERVED.includes(call.method) || performance.now() >= deadline) throw new TimeoutError(true)
    }
  }))
}

/** Undefined when there was no reply in time, or the connection broke. Throws a TimeoutError when it was not sent. */
async function exchange(frames: string[], deadline: number): Promise<Buffer[] | undefined> {
  const left = () => Math.ceil(deadline - performance.now())
  if (left() <= 0) throw new TimeoutError(false) // it has waited in the queue
  const socket = idle.pop() ?? openRequest()
  socket.sendTimeout = Math.min(CONNECT_TIME, left())
  await socket.send(frames).catch(() => {
    socket.close()
    throw new TimeoutError(false)
  })
  socket.receiveTimeout = Math.max(1, left())
  waiting.add(socket)
  const reply = await socket.receive().catch(() => undefined)
  waiting.delete(socket)
  // Trap, the timed-out REQ: it still waits for its reply, and cannot be used again: its next send would fail (EFSM).
  if (reply) idle.push(socket)
  else socket.close()
  return reply
}

function openRequest(): Request {
  // Trap: without `immediate`, calls are queued for a server that is not there, and executed when it comes back, long
  // after the caller was told that they were not.
  const socket = createSocket(Request, REP_ADDR, { immediate: true })
  socket.events.on('disconnect', () => waiting.has(socket) && socket.close()) // the reply will never come
  return socket
}
