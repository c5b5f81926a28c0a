// The page's end of the WebSocket: one socket for every run that the page follows. It keeps the rule
// of the whole program, seen from the reader: remember `next`, and after anything that went wrong ask
// for the log from there. So a reload, a lost connection and a restarted server are all one case.

import { afterDrawing, redraw } from './draw.js'

/** @typedef {import('../protocol.ts').Entry} Entry */
/** @typedef {{ id: string, next: number, receive: (entries: Entry[], next: number) => void, refuse: (error: string) => void, rejoin: (seconds: number) => void }} Reader */
/** @typedef {{ id: string, next: number, entries: Entry[] }} Piece */

const SHORTEST_PAUSE = 250
const LONGEST_PAUSE = 10_000

export const connection = {
  live: false,
  /** whether the workers server answers the web server */
  workers: true,
  /** when the connection was lost, and when the next attempt is due */
  lost: 0,
  retryAt: 0,
  /** @type {((way: 'in' | 'out', text: string, piece?: Piece & { position: number }) => void) | undefined} */
  tap: undefined,
}

/** @type {Map<string, Reader>} */
const readers = new Map()
/** @type {Set<Reader>} */
const unacknowledged = new Set()
/** @type {WebSocket | undefined} */
let socket
let attempts = 0
let beat = 4000
let heard = 0
/** @type {ReturnType<typeof setTimeout> | undefined} */
let retry

/** @param {Reader} reader */
export function follow(reader) {
  readers.set(reader.id, reader)
  send({ start: reader.id, next: reader.next })
}

/** Only for a run whose `done` has arrived, or that never began. Of any other, pieces may be under
 * way, and would be taken for the beginning when the run is followed again. @param {Reader} reader */
export function unfollow(reader) {
  readers.delete(reader.id)
  unacknowledged.delete(reader)
  send({ stop: reader.id })
}

export function connect() {
  clearTimeout(retry)
  drop()
  heard = Date.now()
  const url = new URL('log', location.href)
  url.protocol = url.protocol.replace('http', 'ws')
  url.search = url.hash = ''
  socket = new WebSocket(url)
  socket.onopen = welcome
  socket.onmessage = ({ data }) => receive(data)
  socket.onclose = lose
  redraw()
}

function welcome() {
  attempts = 0
  heard = Date.now()
  connection.live = true
  const seconds = connection.lost && (Date.now() - connection.lost) / 1000
  connection.lost = 0
  for (const reader of readers.values()) {
    send({ start: reader.id, next: reader.next })
    if (seconds) reader.rejoin(seconds)
  }
  redraw()
}

/** @param {string} text */
function receive(text) {
  heard = Date.now()
  const message = JSON.parse(text)
  if ('beat' in message) beat = message.beat
  else if ('workers' in message) connection.workers = message.workers
  else if ('error' in message) readers.get(message.id)?.refuse(message.error)
  else take(message, text)
  redraw()
}

/** @param {Piece} piece @param {string} text */
function take(piece, text) {
  const reader = readers.get(piece.id)
  if (!reader || piece.next <= reader.next) return // old
  connection.tap?.('in', text, { ...piece, position: reader.next })
  reader.receive(piece.entries, piece.next)
  unacknowledged.add(reader)
}

// Acknowledged only when it is drawn: the server sends no further than a window beyond this, so a page
// that cannot keep up is never drowned.
afterDrawing(() => {
  for (const reader of unacknowledged) send({ ack: reader.id, next: reader.next })
  unacknowledged.clear()
})

/** @param {{ start: string, next: number } | { ack: string, next: number } | { stop: string }} message */
function send(message) {
  if (socket?.readyState !== WebSocket.OPEN) return // welcome() says it all again
  const text = JSON.stringify(message)
  connection.tap?.('out', text)
  socket.send(text)
}

function lose() {
  drop()
  connection.lost ||= connection.live ? Date.now() : 0
  connection.live = false
  // Jittered, so that a restarted server does not get all its pages in one moment.
  const pause = Math.min(LONGEST_PAUSE, SHORTEST_PAUSE * 1.7 ** attempts++) * (0.5 + Math.random())
  connection.retryAt = Date.now() + pause
  clearTimeout(retry)
  retry = setTimeout(connect, pause)
  redraw()
}

function drop() {
  if (!socket) return
  socket.onopen = socket.onmessage = socket.onclose = null // close() itself may take half a minute to tell
  socket.close()
  socket = undefined
}

// A connection can die without a word: a laptop that slept, a router that forgot. Only the missing
// heartbeat tells it from a quiet run.
setInterval(() => {
  if (socket && Date.now() - heard > 2.5 * beat) lose()
}, 1000)
addEventListener('online', connect)
document.addEventListener('visibilitychange', () => {
  if (!document.hidden && !connection.live) connect()
})
