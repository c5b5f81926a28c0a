// The connections of the web server: the requests that come on one are answered one after the other, also those that
// offer another protocol; what is no request is refused. Look for: openServer; takeTurn, and the trap above it.

import { EventEmitter } from 'node:events'
import { createServer, STATUS_CODES, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { HEADERS, HttpError } from './access.ts'

/** In ms: for so long the rest of what was refused is still read. */
export const LINGER = 3000
const STALLED = 45_000 // ms without a byte after which a request or a response is given up: longer than a read waits

/** A server that does not listen yet. It calls `respond` for a request, or `upgrade`, when its turn has come. */
export function openServer(
  respond: (request: IncomingMessage, response: ServerResponse) => void,
  upgrade: (request: IncomingMessage, socket: Duplex, head: Buffer) => void,
): Server {
  const server = createServer({
    maxHeaderSize: 16 * 2 ** 10,
    headersTimeout: 10_000,
    requestTimeout: 3600_000, // an upload may take long; it must not stall, though: see STALLED
    keepAliveTimeout: 65_000, // longer than a reverse proxy's: a request on a connection that we close would be lost
    connectionsCheckingInterval: 5000,
    requireHostHeader: false, // health probes may have none; all others are refused by us
    joinDuplicateHeaders: true, // two Hosts are joined, and match no name: a proxy may have checked the other one
  })
  server.timeout = STALLED
  server.on('connection', openQueue)
  server.on('clientError', refuseMalformed)
  async function answer(request: IncomingMessage, response: ServerResponse) {
    response.on('error', () => {}) // the client has gone
    await takeTurn(request.socket, response)
    if (!request.socket.destroyed) respond(request, response)
  }
  server.on('request', answer)
  server.on('checkExpectation', answer) // of what we know nothing of; Node would refuse it, without our headers
  server.on('upgrade', async (request, socket, head) => {
    socket.on('error', () => {}) // a reset at this moment would end the process
    const noAnswer = new EventEmitter() // the connection is another protocol's from here on: the turn never ends
    await takeTurn(socket, noAnswer)
    if (request.headers.upgrade?.toLowerCase() === 'websocket') upgrade(request, socket, head)
    else if (!socket.destroyed) ignoreUpgrade(server, request, socket, head)
  })
  return server
}

// ---- Turns

// Trap, pipelining: a client may send a thousand requests at once, and read nothing; all that Node has read it hands
// over, and all the answers would be in memory. So each waits for the one before it, and nothing is read meanwhile.
/** What was asked for on each connection, and is not answered yet: the first is being answered, the others wait. */
const queues = new WeakMap<Duplex, EventEmitter[]>()

function openQueue(socket: Duplex) {
  const queue: EventEmitter[] = []
  queues.set(socket, queue)
  socket.on('resume', () => queue.length > 1 && socket.pause()) // Node reads on whenever it has a whole request
  socket.on('drain', () => queue[0]?.emit('drain')) // Node does not tell it any more when an upgrade waits
}

/** Until all that came before on this connection is answered; the turn ends when `answer` emits 'close'. */
async function takeTurn(socket: Duplex, answer: EventEmitter) {
  const queue = queues.get(socket)!
  const before = queue.at(-1)
  queue.push(answer)
  answer.once('close', () => {
    queue.shift()
    if (queue.length === 1) socket.resume()
  })
  if (!before) return
  socket.pause()
  await new Promise(resolve => before.once('close', resolve))
}

// ---- Offers of other protocols, and what is no request

// Who offers to go on with another protocol (HTTP/2: Java, curl) has asked something all the same (RFC 9110, 7.8). Node
// has given the connection away: so what it has read of that is put back, without the offer.
function ignoreUpgrade(server: Server, request: IncomingMessage, socket: Duplex, head: Buffer) {
  const { method, url, httpVersion, headers: { upgrade, ...headers } } = request
  const again = Buffer.from(packHead(`${method} ${url} HTTP/${httpVersion}`, headers), 'latin1')
  for (const event of ['error', 'resume', 'pause', 'drain']) socket.removeAllListeners(event) // they are set up anew
  socket.unshift(Buffer.concat([again, head]))
  server.emit('connection', socket)
}

/** Requests that are no HTTP, or never end. Node would answer them, too, but without our headers. */
function refuseMalformed({ code = '', message }: NodeJS.ErrnoException, socket: Duplex) {
  if (!socket.writable) return // more of what is refused already
  const isLate = code === 'ERR_HTTP_REQUEST_TIMEOUT'
  const open = queues.get(socket)!.length
  if (isLate && open > 1) return // it is us who do not read on
  // Nothing may be written among answers that are on their way. Trap, a server that was stopped (SIGSTOP, a laptop
  // asleep): when it goes on, its timers may come first, and find too slow what it has not read yet. A client would
  // give up after a 408; when its connection breaks, it comes again.
  if (isLate || open) return socket.destroy()
  const status = code === 'HPE_HEADER_OVERFLOW' ? 431 : 400
  refuseConnection(socket, new HttpError(status, message))
}

/** Answers a request that has no response. */
export function refuseConnection(socket: Duplex, { status, message, headers }: HttpError) {
  const body = JSON.stringify({ errors: [message] })
  const own = { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body), Connection: 'close' }
  socket.end(packHead(`HTTP/1.1 ${status} ${STATUS_CODES[status]}`, { ...HEADERS, ...headers, ...own }) + body)
  // Trap: closing a connection on which something is unread resets it, and the answer is lost. So read on, for a while.
  socket.resume()
  setTimeout(() => socket.destroy(), LINGER)
}

const packHead = (first: string, headers: object) =>
  [first, ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`), '\r\n'].join('\r\n')
