// The web server: the page, the API, and the bridge from the tasks' messages to the browsers. It knows no remote
// function and reads no entry; it keeps nothing that matters, so it can be killed at any time. Look for: Reader,
// the one rule of this program; then ROUTES, for HTTP; then the WebSocket.

import { isUtf8 } from 'node:buffer'
import { createHash, randomUUID, timingSafeEqual } from 'node:crypto'
import { once } from 'node:events'
import { constants, createWriteStream, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { createServer, STATUS_CODES, type IncomingMessage, type ServerResponse } from 'node:http'
import { isIP, type AddressInfo } from 'node:net'
import { networkInterfaces } from 'node:os'
import { extname, join } from 'node:path'
import { addAbortSignal, type Duplex } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { WebSocketServer, type WebSocket } from 'ws'
import { Subscriber } from 'zeromq'
import {
  ALLOWED_HOSTS, BusyError, callRemote, createSocket, FILES, HOST, INVALID_ID, isFile, isId, LF, MAX_ARGS,
  MAX_UPLOAD, openRuns, outliveTerminal, parseJson, PORT, refuseToStart, RemoteError, RESERVED, TimeoutError, TOKEN,
  unpackChunk, UPLOADS, XPUB_ADDR, type Call,
} from './protocol.ts'

const BEAT = 5000 // ms between two heartbeats
const CHECK = 2000 // ms between two questions for the sizes of the logs
const WINDOW = 2 ** 20 // bytes that a reader may have unacknowledged; beyond, it gets nothing until it acknowledges
const GATHERED = 64 * 2 ** 10 // bytes of chunks that become one piece; copying more costs more than it saves
const MAX_FOLLOWS = 1000 // runs that one socket may follow
const MAX_CONNECTIONS = 5000
const MAX_READS = 16 // reads of logs that may be under way at once
const BODY_TIME = 10_000 // ms for the body of a call
const STALLED = 30_000 // ms without a byte after which a request or a response is given up
const LINGER = 3000 // ms in which the rest of a refused request is still read
const MAX_BODY = MAX_ARGS + 4096
const TYPES: Record<string, string> = {
  '.html': 'text/html; charset=utf-8', '.css': 'text/css; charset=utf-8', '.js': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml', '.csv': 'text/csv; charset=utf-8', '.png': 'image/png', '.ico': 'image/x-icon',
}

// ---- The program

openRuns()
const isLoopback = HOST === 'localhost' || HOST === '::1' || /^127\./.test(HOST) && isIP(HOST) === 4
if (!isLoopback && !TOKEN) refuseToStart(`HOST=${HOST} can be reached from other machines: set TOKEN, too`)
if (!/^[\w.~+/=!@#$%^&*()-]*$/.test(TOKEN)) refuseToStart('TOKEN may have letters, digits and -._~+/=!@#$%^&*() only')

const files = loadFiles()
const streams = new Map<string, Stream>()
const reads = new Map<string, Promise<Piece>>() // what is being read, by run and position
let reading = 0
const turns: (() => void)[] = [] // of those who wait to read
const wanted = new Set<string>() // ids of the logs whose size is to be asked for
const answering = new WeakSet<Duplex>() // connections in the middle of an answer, into which nothing else may be written
const sockets = new WebSocketServer({ noServer: true, maxPayload: 64 * 2 ** 10, perMessageDeflate: false })
let workers = true // whether the workers server answers
let answered = 0 // when it did so last, in ms since 1970
const subscriber = createSocket(Subscriber)
subscriber.events.on('handshake', () => void checkSizes()) // reconnected: what was missed meanwhile?
subscriber.connect(XPUB_ADDR)
void receiveChunks()
void checkSizes()
setInterval(checkSizes, CHECK)

const server = createServer({
  maxHeaderSize: 16 * 2 ** 10,
  headersTimeout: 10_000,
  requestTimeout: 3600_000, // an upload may take long; it must not stall, though: see STALLED
  keepAliveTimeout: 65_000, // longer than a reverse proxy's: a request on a connection that we close would be lost
  connectionsCheckingInterval: 5000,
  joinDuplicateHeaders: true, // a second Host is joined to the first, and matches no name: a proxy may have checked the other
}, (request, response) => {
  response.on('error', () => {}) // the client has gone
  answering.add(request.socket)
  response.once('close', () => answering.delete(request.socket))
  respond(request, response).catch(error => respondError(response, error))
})
server.maxConnections = MAX_CONNECTIONS
server.timeout = STALLED
server.on('upgrade', upgrade)
server.on('clientError', refuseMalformed)
sockets.on('wsClientError', (error, socket) => refuseConnection(socket, new HttpError(400, error.message)))
server.on('error', (error: NodeJS.ErrnoException) => {
  const other = /EADDRINUSE|EACCES/.test(error.message) ? 'PORT to another' : 'HOST to an address of this machine'
  refuseToStart(`cannot listen on ${HOST}:${PORT}: ${error.message}; set ${other}`)
})
server.listen(PORT, HOST, 4096, () => console.log(`longrun is at http://${[...ownHosts()][0]}/`))
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit())
outliveTerminal()

// ---- Readers: the one rule

/** Some whole lines of a run's log, with what is sent for them: made once, for all readers. */
class Piece {
  readonly id: string
  readonly position: number
  readonly end: number
  readonly lines: Buffer
  #frame?: Buffer
  #event?: Buffer

  constructor(id: string, position: number, lines: Buffer = Buffer.alloc(0)) {
    this.id = id
    this.position = position
    this.end = position + lines.length
    this.lines = lines
  }

  /** What of it stands at `position` or later; undefined when none of its lines begins there. */
  from(position: number): Piece | undefined {
    const offset = position - this.position
    if (offset === 0) return this
    return this.lines[offset - 1] === LF ? new Piece(this.id, position, this.lines.subarray(offset)) : undefined
  }

  /** For a WebSocket, as a whole frame: `ws` would make one for each reader, which costs as much as writing it. */
  get frame() { return this.#frame ??= this.#wrap(`{"id":"${this.id}","next":${this.end},"entries":[`, ']}', frameHead) }
  /** For Server-Sent Events. */
  get event() { return this.#event ??= this.#wrap(`id: ${this.end}\ndata: {"next":${this.end},"entries":[`, ']}\n\n') }

  // Lines become the elements of a JSON array by turning line breaks into commas: no entry is parsed on its way.
  #wrap(head: string, foot: string, frame?: (length: number) => Buffer): Buffer {
    const lines = this.lines.subarray(0, -1)
    const start = frame?.(head.length + lines.length + foot.length) ?? Buffer.alloc(0)
    const text = Buffer.concat([start, Buffer.from(head), lines, Buffer.from(foot)])
    const elements = text.subarray(-lines.length - foot.length, -foot.length)
    for (let at = elements.indexOf(LF); at >= 0; at = elements.indexOf(LF, at + 1)) elements[at] = 44
    return text
  }
}

/** What begins a text frame of the WebSocket protocol (RFC 6455, section 5.2), from a server: whole, and not masked. */
function frameHead(length: number): Buffer {
  const head = Buffer.alloc(length < 126 ? 2 : length < 2 ** 16 ? 4 : 10)
  head.writeUInt16BE(0x8100 + (length < 126 ? length : length < 2 ** 16 ? 126 : 127))
  if (head.length === 4) head.writeUInt16BE(length, 2)
  if (head.length === 10) head.writeUInt32BE(length, 6) // the last four of eight bytes: no piece is that large
  return head
}

/** Where a reader's pieces go. `isFull`: whether more are waiting there than a reader should hold. */
type Sink = { send(piece: Piece): void; isFull(): boolean; refuse(message: string): void; finish(): void }

/** One page, or one client of Server-Sent Events, following one run. Positions are bytes of the run's log. */
class Reader {
  readonly id: string
  /** The position that it wants next: all before it has been sent. */
  next: number
  #acknowledged: number
  #seen = 0 // the furthest position that is known to exist
  #last = Infinity // where the log of a run that is done ends
  #catchingUp = false
  #sink: Sink

  constructor(id: string, next: number, sink: Sink) {
    this.id = id
    this.next = this.#acknowledged = next
    this.#sink = sink
  }

  /** Whether it has all that there will ever be. */
  get isDone() { return this.next >= this.#last }

  // The one rule of this program: a piece at `next` is sent; one before it is old; one beyond it means that something
  // was missed, and the log is read from `next`. Late, reconnected, restarted, overtaken, too slow: all the same case.
  receive(piece: Piece) {
    this.#seen = Math.max(this.#seen, piece.end)
    if (piece.end <= this.next || this.#catchingUp) return // old, or the catch-up will come to it
    const fresh = piece.from(this.next)
    if (!fresh || this.#isFull()) return void this.#catchUp()
    this.next = piece.end
    this.#sink.send(fresh)
  }

  /** The page has rendered everything before `position`. */
  acknowledge(position: number) {
    this.#acknowledged = Math.min(Math.max(position, this.#acknowledged), this.next)
    if (this.#seen > this.next) void this.#catchUp()
  }

  /** The log ends at `size`, for good. */
  end(size: number) {
    this.#last = size
    if (this.isDone) this.#sink.finish()
  }

  // Trap, the stopped browser (a closed laptop, a debugger): its connection stays open, and `send` never fails; all that is
  // meant for it would pile up here. So it gets no more than WINDOW beyond what it has acknowledged.
  #isFull() { return this.next - this.#acknowledged >= WINDOW || this.#sink.isFull() }

  // Live pieces that arrive meanwhile only move `#seen`, so the two cannot race: the catch-up ends when `next` has
  // reached it, or the log has no more. If it ends early (no answer), the next answer about sizes starts it again.
  async #catchUp() {
    if (this.#catchingUp) return
    this.#catchingUp = true
    try {
      let read = this.#readOn()
      while (read) {
        const piece = await read
        if (piece.end === this.next || !this.#isFollowed()) break
        this.next = piece.end
        read = this.#readOn() // is on its way while this one is sent
        this.#sink.send(piece)
        if (this.isDone) this.#sink.finish()
      }
    } catch (error) {
      const isRefused = error instanceof RemoteError && error.kind !== 'failed' // a position where no line begins
      if (isRefused && this.#isFollowed()) this.#sink.refuse(error.message)
    } finally {
      this.#catchingUp = false
    }
  }

  #readOn(): Promise<Piece> | undefined {
    const isBehind = this.next < this.#seen && !this.#isFull() && this.#isFollowed()
    return isBehind ? readPiece(this.id, this.next) : undefined
  }

  #isFollowed() { return streams.get(this.id)?.readers.has(this) }
}

/** All readers of one run, and the pieces that wait for the end of the turn. */
type Stream = { readers: Set<Reader>; waiting: Piece[] }

function follow(reader: Reader) {
  const stream = streams.get(reader.id) ?? { readers: new Set<Reader>(), waiting: [] }
  // Trap, the slow joiner: until this has reached the proxy, chunks pass us by, without a sign. See checkSoon() below.
  if (!streams.has(reader.id)) subscriber.subscribe(reader.id)
  streams.set(reader.id, stream)
  stream.readers.add(reader)
  checkSoon(reader.id) // how long the log is tells whether there is something to catch up with
}

function unfollow(reader: Reader) {
  const stream = streams.get(reader.id)
  if (!stream?.readers.delete(reader) || stream.readers.size) return
  streams.delete(reader.id)
  subscriber.unsubscribe(reader.id)
}

// What arrives in one turn of the event loop is joined to one piece, and sent as one frame to each reader: so the more
// there is to do, the less each entry costs.
async function receiveChunks() {
  for await (const frames of subscriber) {
    const chunk = unpackChunk(frames)
    // Trap, prefix topics: who subscribes to "first" gets "first2", too. So compare the whole id.
    const stream = chunk && streams.get(chunk.id)
    if (!stream) continue
    const { waiting } = stream
    const piece = new Piece(chunk.id, chunk.position, chunk.lines)
    const [first] = waiting
    // A piece has no holes: what does not begin where the last one ended (after a gap, or old) starts a new one.
    const fits = !first || piece.position === waiting.at(-1)!.end && piece.end - first.position <= GATHERED
    if (!fits) passOn(stream)
    if (!waiting.length) setImmediate(passOn, stream)
    waiting.push(piece)
    if (!chunk.lines.length) checkSoon(chunk.id) // the run has probably ended
  }
}

function passOn({ readers, waiting }: Stream) {
  const pieces = waiting.splice(0)
  const [first] = pieces
  if (!first) return
  const piece = pieces.length === 1 ? first : new Piece(first.id, first.position, Buffer.concat(pieces.map(({ lines }) => lines)))
  for (const reader of readers) reader.receive(piece)
}

// ---- What the workers server is asked

/** A piece of the log, empty at its end. Readers who want the same get the same: one request for all. */
function readPiece(id: string, position: number): Promise<Piece> {
  const key = `${id} ${position}`
  const read = reads.get(key) ?? requestPiece(id, position).finally(() => reads.delete(key))
  reads.set(key, read)
  return read
}

async function requestPiece(id: string, position: number): Promise<Piece> {
  while (reading >= MAX_READS) await new Promise<void>(resolve => turns.push(resolve)) // calls must find a free socket, too
  reading++
  try {
    return new Piece(id, position, await callRemote({ method: 'read', args: [id, position] }))
  } finally {
    reading--
    turns.shift()?.()
  }
}

/** Asks for the size of a log at the end of this turn: with all the others that are wanted, in one request. */
function checkSoon(id: string) {
  if (!wanted.size) setImmediate(() => {
    void checkSizes([...wanted])
    wanted.clear()
  })
  wanted.add(id)
}

// Trap, the lost tail: what was lost shows as a gap when more follows; after the last chunk nothing does, and a run that
// has ended would look as if it went on. So ask how long the logs are; that also tells whether the workers server lives.
async function checkSizes(ids = unfinished()) {
  const asked = Date.now()
  try {
    for (let from = 0; from === 0 || from < ids.length; from += 10_000) { // what fits into the arguments of one call
      const answer = await callRemote({ method: 'stat', args: [ids.slice(from, from + 10_000)] }, 1500)
      for (const [id, { size, done }] of Object.entries<{ size: number; done: boolean }>(JSON.parse(String(answer)))) {
        const end = new Piece(id, size) // no lines at all: the log is this long
        streams.get(id)?.readers.forEach(reader => {
          reader.receive(end)
          if (done) reader.end(size)
        })
      }
    }
    answered = Date.now()
    tellPages(true)
  } catch (error) {
    if (error instanceof TimeoutError && answered <= asked) tellPages(false) // else a later question was answered meanwhile
  }
}

function unfinished(): string[] {
  return [...streams].filter(([, { readers }]) => [...readers].some(reader => !reader.isDone)).map(([id]) => id)
}

function tellPages(answer: boolean) {
  if (answer === workers) return
  workers = answer
  const silence = 'does not answer; if it has ended, it has said why, and npm run workers starts it again'
  console.error(`the workers server ${workers ? 'answers' : silence}`)
  sockets.clients.forEach(socket => socket.send(JSON.stringify({ workers })))
}

// ---- Who gets in

/** An answer other than success; the message is for the user. */
class HttpError extends Error {
  readonly status: number
  readonly headers: Record<string, string>
  constructor(status: number, message: string, headers = {}) {
    super(message)
    this.status = status
    this.headers = headers
  }
}

/**
 * The names under which this server answers, HOST first. Any other Host is that of a foreign page,
 * whose owner lets his own name lead to our address (DNS rebinding).
 */
function ownHosts(): Set<string> {
  const { port } = server.address() as AddressInfo
  const everywhere = HOST === '0.0.0.0' || HOST === '::'
  const local = isLoopback || everywhere ? ['localhost', '127.0.0.1', '::1'] : []
  const own = everywhere ? Object.values(networkInterfaces()).flatMap(found => found ?? []).map(({ address }) => address) : []
  const hosts = [HOST, ...local, ...own].map(host => isIP(host) === 6 ? `[${host}]` : host)
  return new Set([...hosts.map(host => port === 80 ? host : `${host}:${port}`), ...ALLOWED_HOSTS].map(host => host.toLowerCase()))
}

/** Throws an HttpError when the request comes from a foreign page, which can hide neither its Origin nor its name. */
function checkNames({ headers }: IncomingMessage) {
  const hosts = ownHosts()
  if (!hosts.has(headers.host?.toLowerCase() ?? '')) throw new HttpError(403, 'this server does not answer to that Host; see ALLOWED_HOSTS')
  const origin = headers.origin
  if (origin !== undefined && !hosts.has(/^https?:\/\/(.+)$/.exec(origin)?.[1] ?? '')) {
    throw new HttpError(403, 'requests from pages of another origin are refused')
  }
}

function checkToken({ headers }: IncomingMessage) {
  const bearer = /^Bearer (.+)$/i.exec(headers.authorization ?? '')?.[1]
  const cookie = /(?:^|; )longrun=([^;]+)/.exec(headers.cookie ?? '')?.[1]
  if (!TOKEN || isToken(bearer) || isToken(cookie)) return
  throw new HttpError(401, 'a token is needed: Authorization: Bearer TOKEN, or open /?token=TOKEN', { 'WWW-Authenticate': 'Bearer' })
}

// In constant time: how long a comparison takes would tell how much of a guess was right.
function isToken(given = ''): boolean {
  return timingSafeEqual(sha256(given), sha256(TOKEN))
}

function sha256(text: string | Buffer): Buffer {
  return createHash('sha256').update(text).digest()
}

// ---- HTTP

type Handler = (request: IncomingMessage, response: ServerResponse, name: string, query: URLSearchParams) => Promise<void>

const ROUTES: [method: string, path: RegExp, handler: Handler][] = [
  ['GET', /^\/methods$/, async (_, response) => respondJson(response, 200, await callRemote({ method: 'methods' }))],
  ['GET', /^\/tasks$/, async (_, response) => respondJson(response, 200, await callRemote({ method: 'list' }))],
  ['POST', /^\/tasks$/, startTask],
  ['DELETE', /^\/tasks\/([\w-]{1,64})$/, cancelTask],
  ['GET', /^\/tasks\/([\w-]{1,64})\/log$/, sendLog],
  ['GET', /^\/tasks\/([\w-]{1,64})\/events$/, sendEvents],
  ['POST', /^\/files$/, receiveFile],
  ['GET', /^\/files\/([\w.-]{1,75})$/, sendFile],
  ['GET', /^\/health$/, sendHealth],
  ['GET', /^\/([\w-]+\.\w+|)$/, sendPage],
]

const HEADERS = {
  'Content-Security-Policy': "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    + "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Cache-Control': 'no-store',
}

async function respond(request: IncomingMessage, response: ServerResponse) {
  response.setHeaders(new Map(Object.entries(HEADERS)))
  // Compared and matched as it came, never decoded or resolved: there is no path that could lead elsewhere.
  const [path = '', search] = (request.url ?? '').split('?', 2)
  const query = new URLSearchParams(search)
  checkNames(request)
  if (TOKEN && path === '/' && isToken(query.get('token') ?? '')) {
    query.delete('token') // out of the address, and so out of the history, and of what people copy
    const secure = request.headers['x-forwarded-proto'] === 'https' ? '; Secure' : ''
    const cookie = `longrun=${TOKEN}; Path=/; HttpOnly; SameSite=Strict${secure}` // out of reach of scripts and of other sites
    return void response.writeHead(303, { 'Set-Cookie': cookie, Location: `/${query.size ? `?${query}` : ''}` }).end()
  }
  checkToken(request)
  const method = request.method === 'HEAD' ? 'GET' : request.method
  const routes = ROUTES.filter(([, pattern, handler]) => pattern.test(path) && (handler !== sendPage || files.has(path.slice(1))))
  const route = routes.find(([verb]) => verb === method)
  if (route) return route[2](request, response, route[1].exec(path)?.[1] ?? '', query)
  if (!routes.length) throw new HttpError(404, `there is nothing at ${path.slice(0, 200)}`)
  const allowed = routes.map(([verb]) => verb).join(', ')
  throw new HttpError(405, `${request.method} is not allowed here, only ${allowed}`, { Allow: allowed })
}

async function startTask(request: IncomingMessage, response: ServerResponse) {
  const call = await readCall(request)
  const pid = await callRemote(call)
  respondJson(response, 202, { id: call.id, pid: Number(pid) })
}

/** What `POST /tasks` asks for; that it makes sense is for the workers server to say. */
async function readCall(request: IncomingMessage): Promise<Call> {
  // A page of another site can post forms and plain text without asking; JSON it cannot.
  if (!/^application\/json\s*(;|$)/i.test(request.headers['content-type'] ?? '')) {
    throw new HttpError(415, 'the content type must be application/json')
  }
  const body = await buffer(bodyOf(addAbortSignal(AbortSignal.timeout(BODY_TIME), request), MAX_BODY))
  if (!isUtf8(body)) throw new HttpError(400, 'the body is not UTF-8')
  const { method, id = randomUUID(), callId = '', args = [], timeLimit } = Object(parseJson('body', String(body)))
  if ([method, id, callId].some(field => typeof field !== 'string')) {
    throw new HttpError(400, 'the body must be a JSON object: {"method": NAME, "args": [...]}; method, id and callId are strings')
  }
  if (RESERVED.includes(method)) throw new HttpError(404, `unknown method ${method}`) // it would start nothing
  if (!Array.isArray(args)) throw new HttpError(400, 'args must be an array')
  if (args.includes(Infinity) || args.includes(-Infinity)) throw new HttpError(400, 'a number in args is too large')
  if (!['number', 'undefined'].includes(typeof timeLimit)) throw new HttpError(400, 'timeLimit must be a number of seconds')
  return { method, callId, id, args, timeLimit }
}

/** The body of a request, unless it is larger than it may be. */
async function* bodyOf(request: IncomingMessage, most: number) {
  const tooLarge = new HttpError(413, `the body may have at most ${most} bytes`)
  if (Number(request.headers['content-length'] ?? 0) > most) throw tooLarge
  let size = 0
  for await (const part of request as AsyncIterable<Buffer>) {
    size += part.length
    if (size > most) throw tooLarge
    yield part
  }
}

async function cancelTask(_: IncomingMessage, response: ServerResponse, id: string) {
  await callRemote({ method: 'cancel', args: [id] })
  respondJson(response, 202, { id })
}

async function sendLog(request: IncomingMessage, response: ServerResponse, id: string, query: URLSearchParams) {
  let piece = await readPiece(id, positionOf('from', query.get('from')))
  response.writeHead(200, { 'Content-Type': 'application/x-ndjson', 'Content-Disposition': `attachment; filename="${id}.ndjson"` })
  if (request.method === 'HEAD') return void response.end()
  await pipeline(async function* () {
    for (; piece.lines.length; piece = await readPiece(id, piece.end)) yield piece.lines
  }, response)
}

/** The same readers as those of the WebSocket; what the client's connection takes counts as acknowledged. */
async function sendEvents(request: IncomingMessage, response: ServerResponse, id: string) {
  const last = positionOf('Last-Event-ID', request.headers['last-event-id'])
  response.setHeader('Content-Type', 'text/event-stream').setHeader('X-Accel-Buffering', 'no')
  if (request.method === 'HEAD') return void response.end()
  const reader = new Reader(id, last, {
    send: piece => { if (response.write(piece.event)) reader.acknowledge(piece.end) },
    isFull: () => false,
    refuse: message => response.end(`event: refused\ndata: ${JSON.stringify({ errors: [message] })}\n\n`),
    // A browser comes again when its events have ended; only a 204 tells it that there is no more.
    finish: () => response.headersSent ? response.end() : response.writeHead(204).end(),
  })
  if (!last) response.flushHeaders()
  // Nothing was sent for so long: a heartbeat; or what was sent is not taken: the client has gone without a word.
  response.setTimeout(2 * BEAT, () => response.writableLength ? response.destroy() : response.write(':\n\n'))
  response.on('drain', () => reader.acknowledge(reader.next))
  follow(reader)
  response.once('close', () => unfollow(reader))
}

/** A position that somebody gives as text; the beginning, if none. */
function positionOf(what: string, given: unknown): number {
  const text = String(given ?? 0)
  if (!/^\d{1,15}$/.test(text)) throw new HttpError(400, `${what} must be a position, in bytes`)
  return Number(text)
}

async function receiveFile(request: IncomingMessage, response: ServerResponse) {
  const type = request.headers['content-type'] ?? ''
  if (/^(multipart|application\/x-www-form-urlencoded)/i.test(type)) throw new HttpError(415, 'the body must be the file itself, not a form')
  const name = randomUUID()
  const path = join(UPLOADS, `${name}.part`) // no run can take it before it is whole
  const file = createWriteStream(path, { flags: 'wx', mode: 0o600 })
  try {
    await pipeline(bodyOf(request, MAX_UPLOAD), file)
    renameSync(path, join(UPLOADS, name))
  } catch (error) {
    if (!file.closed) await once(file, 'close').catch(() => {}) // rejects with the error that closes it
    rmSync(path, { force: true }) // before it was closed it could still be created, or hold its space
    throw error
  }
  respondJson(response, 201, { file: name })
}

/** Always as an attachment: what a run produced must not be shown as a page of this server. */
async function sendFile(request: IncomingMessage, response: ServerResponse, name: string) {
  const missing = new HttpError(404, `there is no file ${name}`)
  if (!isFile(name)) throw missing
  const file = await open(join(FILES, name), constants.O_RDONLY | constants.O_NOFOLLOW).catch(() => { throw missing })
  const { size } = await file.stat()
  response.writeHead(200, {
    'Content-Type': 'application/octet-stream',
    'Content-Length': size,
    'Content-Disposition': `attachment; filename="${name}"`,
  })
  if (request.method === 'HEAD') return void (await file.close(), response.end())
  await pipeline(file.createReadStream({ end: Math.max(0, size - 1) }), response)
}

async function sendHealth(_: IncomingMessage, response: ServerResponse) {
  const readers = [...streams.values()].reduce((sum, stream) => sum + stream.readers.size, 0)
  try {
    const { running, limit } = JSON.parse(String(await callRemote({ method: 'ping' })))
    respondJson(response, 200, { server: true, workers: true, running, limit, readers })
  } catch {
    respondJson(response, 503, { server: true, workers: false, readers })
  }
}

/** A buffer is JSON already. */
function respondJson(response: ServerResponse, status: number, value: unknown, headers = {}) {
  const json = Buffer.isBuffer(value) ? value : JSON.stringify(value)
  response.writeHead(status, { 'Content-Type': 'application/json', ...headers }).end(json)
}

function respondError(response: ServerResponse, error: unknown) {
  const { status, message, headers } = toHttpError(error)
  if (response.headersSent) return void response.destroy() // too late to say it: the client sees that it is cut off
  const { req: request } = response
  // What is left of the request is still read, and dropped: closing the connection would reset it, and a client that
  // is still sending would never see the answer. But not for long, as the rest could be without end.
  if (request.destroyed) headers.Connection = 'close'
  else if (!request.complete) setTimeout(() => request.complete || request.destroy(), LINGER)
  if (status !== 401 || !request.headers.accept?.includes('text/html')) return respondJson(response, status, { errors: [message] }, headers)
  // A click on a link in another site carries no strict cookie; when it is loaded again, it is a request of our own page.
  if (request.headers['sec-fetch-site'] === 'cross-site') headers.Refresh = '0'
  response.writeHead(status, { 'Content-Type': 'text/html; charset=utf-8', ...headers }).end(tokenForm(request.url ?? ''))
}

/** Asks a person for the token, and takes the run of the address along. */
function tokenForm(url: string): string {
  const run = /[?&]run=([\w-]{1,64})(&|$)/.exec(url)?.[1]
  const field = run ? `<input type="hidden" name="run" value="${run}">` : ''
  const wrong = /^\/\?(.*&)?token=/.test(url) ? '<p role="alert">This is not the token of this server.</p>' : ''
  return String(files.get('token.html')?.body).replace('</form>', `${field}${wrong}</form>`)
}

const STATUS = { unknown: 404, conflict: 409, failed: 500, invalid: 400 }

function toHttpError(error: unknown): HttpError {
  if (error instanceof HttpError) return error
  if (error instanceof RemoteError) return new HttpError(STATUS[error.kind], error.message)
  if (error instanceof BusyError) return new HttpError(503, error.message, { 'Retry-After': '1' })
  if (error instanceof TimeoutError) return new HttpError(504, error.message)
  const { code, message } = error as NodeJS.ErrnoException
  if (code === 'EMFILE') return new HttpError(503, 'too many connections are open', { 'Retry-After': '1' })
  if (code === 'ENOSPC') return new HttpError(507, 'there is no space left for the file')
  if (!/^(ERR_STREAM_PREMATURE_CLOSE|ECONNRESET|ABORT_ERR)$/.test(code ?? '')) console.error(error)
  return new HttpError(500, message)
}

// ---- The page

type File = { type: string; body: Buffer; tag: string }

/** The files of the page, read once: what is not in here cannot be asked for. */
function loadFiles(): Map<string, File> {
  const folder = join(import.meta.dirname, 'public')
  const found = readdirSync(folder, { withFileTypes: true }).filter(file => file.isFile() && extname(file.name) in TYPES)
  const loaded = new Map(found.map(({ name }) => {
    const body = readFileSync(join(folder, name))
    return [name, { type: TYPES[extname(name)]!, body, tag: `"${sha256(body).toString('base64url')}"` }]
  }))
  return loaded.set('', loaded.get('index.html')!)
}

async function sendPage(request: IncomingMessage, response: ServerResponse, name: string) {
  const file = files.get(name)!
  const known = request.headers['if-none-match'] === file.tag
  response.writeHead(known ? 304 : 200, { 'Content-Type': file.type, 'Cache-Control': 'no-cache', ETag: file.tag })
  response.end(known ? undefined : file.body)
}

// ---- WebSocket

function upgrade(request: IncomingMessage, socket: Duplex, head: Buffer) {
  socket.on('error', () => {}) // a reset at this moment would end the process
  try {
    if (request.url?.split('?')[0] !== '/log') throw new HttpError(404, 'the WebSocket is at /log')
    checkNames(request)
    checkToken(request)
    sockets.handleUpgrade(request, socket, head, webSocket => serveSocket(webSocket, socket))
  } catch (error) {
    refuseConnection(socket, toHttpError(error))
  }
}

/** Requests that are no HTTP, or never end. Node would answer them, too, but without our headers. */
function refuseMalformed({ code = '' }: NodeJS.ErrnoException, socket: Duplex) {
  if (!socket.writable) return // more of what is refused already
  if (answering.has(socket)) return socket.destroy()
  const status = { HPE_HEADER_OVERFLOW: 431, ERR_HTTP_REQUEST_TIMEOUT: 408 }[code] ?? 400
  refuseConnection(socket, new HttpError(status, STATUS_CODES[status]!))
}

function refuseConnection(socket: Duplex, { status, message, headers }: HttpError) {
  const body = JSON.stringify({ errors: [message] })
  const own = { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body), Connection: 'close' }
  const head = Object.entries({ ...HEADERS, ...headers, ...own }).map(([name, value]) => `${name}: ${value}\r\n`).join('')
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${head}\r\n${body}`)
  // Trap: closing a connection on which something is unread resets it, and the answer is lost. So read on, for a while.
  socket.resume()
  setTimeout(() => socket.destroy(), LINGER)
}

/** `connection` is what the socket is on: between the frames that `ws` writes there, we may write our own. */
function serveSocket(socket: WebSocket, connection: Duplex) {
  const readers = new Map<string, Reader>()
  const isFull = () => socket.bufferedAmount > 4 * WINDOW // of all the runs that it follows together
  // The answers for a page that keeps asking, and does not read them, would fill our memory.
  const tell = (message: object) => isFull() ? socket.terminate() : socket.send(JSON.stringify(message))
  const sink = (id: string): Sink => ({
    send: piece => { if (socket.readyState === socket.OPEN) connection.write(piece.frame) },
    isFull,
    refuse(message) {
      tell({ id, error: message })
      stop(id)
    },
    finish() {},
  })
  function stop(id: string) {
    const reader = readers.get(id)
    if (reader) unfollow(reader)
    readers.delete(id)
  }

  socket.on('message', (text, binary) => {
    const message = binary ? undefined : unpackMessage(String(text))
    if (!message) return socket.close(1008, 'expected {"start": ID, "next": POSITION}, {"ack": ID, "next": POSITION} or {"stop": ID}')
    const { verb, id, next } = message
    if (!isId(id)) return tell({ id: String(id).slice(0, 64), error: INVALID_ID })
    if (verb === 'ack') return readers.get(id)?.acknowledge(next)
    stop(id)
    if (verb === 'stop') return
    if (readers.size >= MAX_FOLLOWS) return tell({ id, error: `one socket may follow ${MAX_FOLLOWS} runs` })
    const reader = new Reader(id, next, sink(id))
    readers.set(id, reader)
    follow(reader)
  })
  socket.on('ping', () => isFull() && socket.terminate()) // `ws` has answered it
  socket.on('error', () => {}) // without a listener, one oversized frame ends the process; `ws` closes it, with the right code
  socket.once('close', () => readers.forEach(unfollow))
  tell({ workers })
  tell({ beat: BEAT })
  keepBeating(socket)
}

/** What a page may say; undefined for anything else. */
function unpackMessage(text: string): { verb: 'start' | 'ack' | 'stop'; id: string; next: number } | undefined {
  try {
    const { start, ack, stop, next = 0 } = JSON.parse(text)
    const verb = start !== undefined ? 'start' : ack !== undefined ? 'ack' : 'stop'
    const id: unknown = start ?? ack ?? stop
    return typeof id === 'string' && Number.isSafeInteger(next) && next >= 0 ? { verb, id, next } : undefined
  } catch {
    return undefined
  }
}

/** The heartbeat: a page that has gone without a word does not answer pings; after two of them it is cut off. */
function keepBeating(socket: WebSocket) {
  let missed = 0
  socket.on('pong', () => { missed = 0 })
  const timer = setInterval(() => {
    if (missed === 2) return socket.terminate()
    missed++
    socket.ping()
    socket.send(JSON.stringify({ beat: BEAT }))
  }, BEAT)
  socket.once('close', () => clearInterval(timer))
}
