// The web server, the way to the page: HTTP and the WebSocket. It knows no remote function and reads no entry; it keeps
// nothing that matters, so it can be killed at any time. Look for: ROUTES; serveSocket, by which a page follows runs.

import { isUtf8 } from 'node:buffer'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createWriteStream, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { extname, join } from 'node:path'
import type { Duplex } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { WebSocketServer, type WebSocket } from 'ws'
import { Subscriber } from 'zeromq'
import {
  admit, corsHeaders, HEADERS, HttpError, isLoopback, keyOf, ownHosts, preflightHeaders, sha256, toHttpError, tokenForm,
  unpackAsked, type Pass,
} from './access.ts'
import { LINGER, openServer, refuseConnection } from './connections.ts'
import { INVALID_ID, isId } from './log.ts'
import {
  callRemote, createSocket, isPosition, MAX_ARGS, parseJson, RESERVED, unpackChunk, waitForServerKey, type Call,
} from './protocol.ts'
import { endOf, oncePerChunk, Readers, type Reader, type Sink, type Size } from './readers.ts'
import {
  ENDING, HOST, MAX_UPLOAD, onStop, openRuns, PACKAGE_VERSION, PORT, printWithoutWaiting, refuseToStart, TOKEN,
  UPLOADS, XPUB_ADDR,
} from './settings.ts'
import { downloadLog, isKnown, sendFile, sendLog, type Visit } from './streams.ts'

const CHECK = 2000 // ms between two questions for the sizes of the logs that are followed
const BEAT = 5000 // ms between two heartbeats
const WAITING = 4 * 2 ** 20 // bytes that may wait for one WebSocket, of all the runs that it follows
const MAX_FOLLOWS = 1000 // runs that one socket may follow
const MAX_CONNECTIONS = 5000
const MAX_STAT = 10_000 // ids in one question for sizes: what fits into the arguments of a call
const BODY_TIME = 10_000 // ms for the body of a call
const FOREIGN = 4403 // with which a WebSocket is closed whose page's origin is not allowed: as the status 403
const TYPES: Record<string, string> = {
  '.html': 'text/html; charset=utf-8', '.css': 'text/css; charset=utf-8', '.js': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml', '.csv': 'text/csv; charset=utf-8',
}

// ---- The program

process.on('uncaughtException', error => { // told by Node itself, it would wait for a terminal that nobody reads
  console.error(error)
  process.exit(1)
})
onStop(() => process.exit())
openRuns()
printWithoutWaiting()
if (!isLoopback && !TOKEN) refuseToStart(`HOST=${HOST} can be reached from other machines: set TOKEN, too`)
await waitForServerKey()

const files = loadFiles()
const sockets = new WebSocketServer({ noServer: true, maxPayload: 64 * 2 ** 10, perMessageDeflate: false })
const subscriber = createSocket(Subscriber, XPUB_ADDR)
const readers = new Readers({
  subscribe: id => subscriber.subscribe(id),
  unsubscribe: id => subscriber.unsubscribe(id),
  read: (id, position) => callRemote({ method: 'read', args: [id, position] }),
  stat: askSizes,
  tell: tellPages,
})
subscriber.events.on('handshake', () => readers.checkAll()) // reconnected: what was missed meanwhile?
void receiveChunks()
readers.checkAll()
setInterval(() => readers.checkAll(), CHECK)

const server = openServer((request, response) => {
  respond(request, response).catch(error => respondError(response, error))
}, upgrade)
server.maxConnections = MAX_CONNECTIONS
sockets.on('wsClientError', (error, socket) => refuseConnection(socket, new HttpError(400, error.message)))
server.on('error', (error: NodeJS.ErrnoException) => {
  const other = /^(EADDRINUSE|EACCES)$/.test(error.code!) ? 'PORT to another' : 'HOST to an address of this machine'
  refuseToStart(`cannot listen on ${HOST}:${PORT}: ${error.message}; set ${other}`)
})
server.once('listening', () => process.send?.('ready', undefined, undefined, () => {})) // to start.js
server.listen(PORT, HOST, 4096, () => console.log(`longrun is at http://${[...hosts()][0]}/`))

// Below stand functions, and what they alone need: a `const` there is not yet defined while the program above runs.

// ---- Chunks, from the workers server to the readers

async function receiveChunks() {
  for await (const frames of subscriber) {
    const chunk = unpackChunk(frames)
    if (chunk) readers.receive(chunk)
  }
}

async function askSizes(ids: string[]): Promise<Map<string, Size>> {
  const answer = await callRemote({ method: 'stat', args: [ids.slice(0, MAX_STAT)] })
  const others = ids.length > MAX_STAT ? await askSizes(ids.slice(MAX_STAT)) : []
  return new Map([...Object.entries<Size>(JSON.parse(String(answer))), ...others])
}

function tellPages(isAnswering: boolean) {
  const command = ENDING === '.ts' ? 'npm run workers' : `node ${import.meta.dirname}/workers.js` // where it was built
  const silence = `does not answer; if it has ended, it has said why, and ${command} starts it again`
  console.error(`the workers server ${isAnswering ? 'answers' : silence}`)
  sockets.clients.forEach(socket => socket.send(JSON.stringify({ workers: isAnswering })))
}

// ---- The WebSocket

function serveSocket(socket: WebSocket, { run }: Pass) {
  const following = new Map<string, Reader>()
  const isFull = () => socket.bufferedAmount > WAITING
  // The answers for a page that keeps asking, and does not read them, would fill our memory.
  const tellPage = (message: object) => isFull() ? socket.terminate() : socket.send(JSON.stringify(message))
  const sink = (id: string): Sink => ({
    send: chunk => socket.send(messageOf(chunk), { binary: false }),
    isFull,
    finish() {}, // the page knows it by `done`
    refuse(message) {
      tellPage({ id, error: message })
      stop(id)
    },
  })
  function stop(id: string) {
    const reader = following.get(id)
    if (reader) readers.unfollow(reader)
    following.delete(id)
  }
  function start(id: string, next: number) {
    stop(id)
    if (run !== undefined && id !== run) return tellPage({ id, error: `the key of run ${run} opens no other` })
    if (following.size >= MAX_FOLLOWS) return tellPage({ id, error: `one socket may follow ${MAX_FOLLOWS} runs` })
    following.set(id, readers.follow(id, next, sink(id)))
  }

  socket.on('message', (text, binary) => {
    const message = binary ? undefined : unpackMessage(String(text))
    if (!message) return socket.close(1008, `expected ${MESSAGES}`)
    const { verb, id, next } = message
    if (!isId(id)) tellPage({ id: String(id).slice(0, 64), error: INVALID_ID })
    else if (verb === 'start') start(id, next)
    else if (verb === 'ack') following.get(id)?.acknowledge(next)
    else stop(id)
  })
  socket.on('ping', () => isFull() && socket.terminate()) // `ws` has answered it, and answers pile up, too
  socket.on('error', () => {}) // without it, one oversized frame ends the process; `ws` closes it, with the right code
  socket.once('close', () => following.forEach(reader => readers.unfollow(reader)))
  tellPage({ workers: readers.isAnswering !== false })
  tellPage({ beat: BEAT })
  keepBeating(socket)
}

/** A chunk as a page gets it over its WebSocket. */
const messageOf = oncePerChunk(chunk => [`{"id":"${chunk.id}","next":${endOf(chunk)},"entries":[`, ']}'])

const MESSAGES = '{"start": ID, "next": POSITION}, {"ack": ID, "next": POSITION} or {"stop": ID}'

/** What a page may say; undefined for anything else. */
function unpackMessage(text: string): { verb: 'start' | 'ack' | 'stop'; id: string; next: number } | undefined {
  try {
    const { start, ack, stop, next = 0 } = JSON.parse(text)
    const verb = start !== undefined ? 'start' : ack !== undefined ? 'ack' : 'stop'
    const id: unknown = start ?? ack ?? stop
    return typeof id === 'string' && isPosition(next) ? { verb, id, next } : undefined
  } catch {
    return undefined
  }
}

/** The heartbeat: a page that has gone without a word does not answer pings; after two of them it is cut off. */
function keepBeating(socket: WebSocket) {
  let missed = 0
  socket.on('pong', () => { missed = 0 })
  const timer = setInterval(() => {
    if (++missed > 2) return socket.terminate()
    socket.ping()
    socket.send(JSON.stringify({ beat: BEAT }))
  }, BEAT)
  socket.once('close', () => clearInterval(timer))
}

function upgrade(request: IncomingMessage, socket: Duplex, head: Buffer) {
  try {
    const asked = unpackAsked(request)
    if (asked.path !== '/log') throw new HttpError(404, 'the WebSocket is at /log')
    const pass = admit(asked, hosts())
    const isRefused = pass instanceof HttpError
    if (isRefused && (pass.status !== 403 || asked.headers.origin === undefined)) throw pass
    const serve = isRefused ? refuseSocket : (webSocket: WebSocket) => serveSocket(webSocket, pass)
    sockets.handleUpgrade(request, socket, head, serve)
  } catch (error) {
    refuseConnection(socket, toHttpError(error))
  }
}

/** Trap: of an upgrade that was refused a browser tells a page nothing, but of a socket the code of its end. */
function refuseSocket(socket: WebSocket) {
  socket.on('error', () => {}) // as in serveSocket
  socket.close(FOREIGN, 'pages of this origin are refused: see ALLOWED_ORIGINS and ALLOWED_HOSTS')
  setTimeout(() => socket.terminate(), LINGER)
}

// ---- HTTP

const ROUTES: [method: string, path: RegExp, handler: (visit: Visit) => Promise<void>][] = [
  ['GET', /^\/methods$/, visit => sendResult(visit, 'methods')],
  ['GET', /^\/tasks$/, listTasks],
  ['POST', /^\/tasks$/, startTask],
  ['GET', /^\/tasks\/([\w-]{1,64})$/, visit => sendResult(visit, 'show', visit.name)],
  ['DELETE', /^\/tasks\/([\w-]{1,64})$/, cancelTask],
  ['GET', /^\/tasks\/([\w-]{1,64})\/log$/, visit => sendLog(readers, visit)],
  ['GET', /^\/tasks\/([\w-]{1,64})\/log\.ndjson$/, visit => downloadLog(readers, visit)],
  ['POST', /^\/files$/, receiveFile],
  ['GET', /^\/files\/([\w.-]{1,75})$/, sendFile],
  ['GET', /^\/health$/, sendHealth],
  ['GET', /^\/([\w-]+\.\w+|)$/, sendPage],
]

const hosts = () => ownHosts((server.address() as AddressInfo).port)

async function respond(request: IncomingMessage, response: ServerResponse) {
  const asked = unpackAsked(request)
  const { path, query } = asked
  const pass = admit(asked, hosts())
  response.setHeaders(new Map(Object.entries({ ...HEADERS, ...corsHeaders(asked, pass) })))
  const preflight = request.method === 'OPTIONS' && preflightHeaders(asked)
  if (preflight) return void response.writeHead(204, preflight).end()
  const method = request.method === 'HEAD' ? 'GET' : request.method
  if (pass instanceof HttpError) {
    if (path !== '/health' || method !== 'GET') throw pass
    // For anybody, such as a load balancer: so it tells little, and costs no request to the workers server.
    return void response.writeHead(readers.isAnswering ? 200 : 503, { 'Content-Length': 0 }).end()
  }
  if (pass.cookie) {
    query.delete('token') // out of the address, and so out of the history, and of what people copy
    const Location = `./${query.size ? `?${query}` : ''}` // relative: a proxy may show us below a path of its own
    return void response.writeHead(303, { 'Set-Cookie': pass.cookie, Location }).end()
  }
  const routes = ROUTES.filter(([, pattern, handler]) =>
    pattern.test(path) && (handler !== sendPage || files.has(path.slice(1))))
  const route = routes.find(([verb]) => verb === method)
  if (route) {
    const [, pattern, handler] = route
    return handler({ request, response, name: pattern.exec(path)?.[1] ?? '', query })
  }
  if (!routes.length) throw new HttpError(404, `there is nothing at ${path.slice(0, 200)}`)
  const allowed = routes.map(([verb]) => verb === 'GET' ? 'GET, HEAD' : verb).join(', ')
  throw new HttpError(405, `${request.method} is not allowed here, only ${allowed}`, { Allow: allowed })
}

/** What the workers server answers, as it comes. */
async function sendResult({ response }: Visit, method: string, ...args: unknown[]) {
  respondJson(response, 200, await callRemote({ method, args }))
}

async function listTasks(visit: Visit) {
  const [callId, limit] = ['callId', 'limit'].map(name => visit.query.get(name) ?? undefined)
  const isWhole = limit === undefined || /^\d{1,16}$/.test(limit) && Number.isSafeInteger(Number(limit))
  if (!isWhole) throw new HttpError(400, `limit must be a whole number in digits, at most ${Number.MAX_SAFE_INTEGER}`)
  await sendResult(visit, 'list', { callId, limit: limit && Number(limit) })
}

async function startTask({ request, response }: Visit) {
  const call = await readCall(request)
  const pid = Number(await callRemote(call))
  const key = TOKEN ? keyOf(call.id) : undefined
  respondJson(response, 202, { id: call.id, pid, key }, { Location: `tasks/${call.id}` })
}

/** What `POST /tasks` asks for; that it makes sense is for the workers server to say. */
async function readCall(request: IncomingMessage): Promise<Call> {
  // A page of another site can post forms and plain text without asking; JSON it cannot.
  if (!/^application\/json\s*(;|$)/i.test(request.headers['content-type'] ?? '')) {
    throw new HttpError(415, 'the content type must be application/json')
  }
  const timer = setTimeout(() => request.destroy(), BODY_TIME) // addAbortSignal takes 0.2 ms more
  request.once('close', () => clearTimeout(timer))
  const parts: Buffer[] = [] // not by `buffer` of node:stream/consumers: that makes a Blob first, which takes 0.3 ms
  const most = 6 * MAX_ARGS + 4096 // JSON can escape a byte as six; how long args really are, the workers server counts
  for await (const part of bodyOf(request, most)) parts.push(part)
  const body = Buffer.concat(parts)
  if (!isUtf8(body)) throw new HttpError(400, 'the body is not UTF-8')
  const given = (parseJson('body', String(body)) ?? {}) as Record<string, unknown>
  const { method, id = randomUUID(), callId = '', args = [], timeLimit } = given
  if (typeof method !== 'string' || typeof id !== 'string' || typeof callId !== 'string') {
    const shape = '{"method": NAME, "args": [...]}; method, id and callId are strings'
    throw new HttpError(400, `the body must be a JSON object: ${shape}`)
  }
  if (RESERVED.includes(method)) throw new HttpError(404, `unknown method ${method}`) // it would start nothing
  if (!Array.isArray(args)) throw new HttpError(400, 'args must be an array')
  if (timeLimit === undefined || typeof timeLimit === 'number') return { method, callId, id, args, timeLimit }
  throw new HttpError(400, 'timeLimit must be a number of seconds')
}

/** The body of a request, unless it is compressed, or larger than it may be. */
async function* bodyOf(request: IncomingMessage, most: number) {
  const { 'content-encoding': content, 'transfer-encoding': transfer } = request.headers
  const isCompressed = /\w/.test(`${content ?? ''} ${transfer ?? ''}`.replace(/identity|chunked/gi, ''))
  if (isCompressed) throw new HttpError(400, 'the body must be sent as it is, not compressed')
  const tooLarge = new HttpError(413, `the body may have at most ${most} bytes`)
  if (Number(request.headers['content-length'] ?? 0) > most) throw tooLarge
  let size = 0
  // Who stops reading must not destroy the request, as `for await` would: see respondError.
  for await (const part of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    size += part.length
    if (size > most) throw tooLarge
    yield part
  }
}

async function cancelTask({ response, name: id }: Visit) {
  await callRemote({ method: 'cancel', args: [id] })
  respondJson(response, 202, { id })
}

async function receiveFile({ request, response }: Visit) {
  const type = request.headers['content-type'] ?? ''
  if (/^(multipart|application\/x-www-form-urlencoded)/i.test(type)) {
    throw new HttpError(415, 'the body must be the file itself, not a form')
  }
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

async function sendHealth({ response }: Visit) {
  const answer = await callRemote({ method: 'ping' }, 3000).catch(() => undefined)
  const { running, limit } = JSON.parse(String(answer ?? '{}'))
  respondJson(response, answer ? 200 : 503, {
    version: PACKAGE_VERSION, server: true, workers: answer !== undefined, running, limit, readers: readers.count,
  })
}

const JSON_TYPE = { 'Content-Type': 'application/json' }

/** A buffer is JSON already. */
function respondJson(response: ServerResponse, status: number, value: unknown, headers = {}) {
  const json = Buffer.isBuffer(value) ? value : Buffer.from(JSON.stringify(value))
  response.writeHead(status, { ...JSON_TYPE, 'Content-Length': json.length, ...headers })
  response.end(json)
}

function respondError(response: ServerResponse, error: unknown) {
  const { status, message, headers } = toHttpError(error)
  if (response.headersSent) return void response.destroy() // too late to say it: the client sees that it is cut off
  const { req: request } = response
  let page = { headers: JSON_TYPE, body: JSON.stringify({ errors: [message] }) }
  if (status === 401 && request.headers.accept?.includes('text/html')) { // it is for a person
    // A click on a link in another site carries no strict cookie; loaded again, it is a request of our own page.
    if (request.headers['sec-fetch-site'] === 'cross-site') headers.Refresh = '0'
    const [form, style] = ['token.html', 'token.css'].map(name => String(files.get(name)?.body)) as [string, string]
    page = tokenForm(unpackAsked(request), form, style)
  }
  const length = { 'Content-Length': Buffer.byteLength(page.body) } // so it is known to be whole before it has an end
  response.writeHead(status, { ...page.headers, ...length, ...headers }).write(page.body)
  // What is left of the request is still read, and dropped: a connection that is closed before is reset, and a client
  // that is still sending would never see the answer. But not for long, as the rest could be without end.
  if (request.complete || request.destroyed) return void response.end()
  request.resume().once('close', () => response.end())
  setTimeout(() => request.destroy(), LINGER)
}

// ---- The page

/** The files of the page, read once: what is not in here cannot be asked for. */
function loadFiles() {
  const path = join(import.meta.dirname, 'public')
  const found = readdirSync(path, { withFileTypes: true }).filter(file => file.isFile() && extname(file.name) in TYPES)
  const loaded = new Map(found.map(({ name }) => {
    const body = readFileSync(join(path, name))
    return [name, { type: TYPES[extname(name)]!, body, tag: `"${sha256(body).toString('base64url')}"` }]
  }))
  return loaded.set('', loaded.get('index.html')!)
}

async function sendPage({ request, response, name }: Visit) {
  const { type, body, tag } = files.get(name)!
  const isCurrent = isKnown(request, tag)
  response.writeHead(isCurrent ? 304 : 200, {
    'Content-Type': type, 'Content-Length': body.length, 'Cache-Control': 'no-cache', ETag: tag,
  })
  response.end(isCurrent ? undefined : body)
}
