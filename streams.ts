// A run's log as outside programs read it: the read half of the Durable Streams protocol (PROTOCOL.md, version 1.0, in
// durable-streams/durable-streams), in which a position is an offset, and a log whose run has ended is a closed stream.
// Its words are those of this file alone. At the end stand downloads, of the log and of what the run has produced. Look
// for: sendLog; streamLog, for who wants Server-Sent Events.

import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { HttpError } from './access.ts'
import { isFile } from './log.ts'
import { NO_LINES, type Chunk } from './protocol.ts'
import { endOf, oncePerChunk, type Readers, type Size } from './readers.ts'
import { FILES } from './settings.ts'

const POLL_TIME = 20_000 // ms that a long-poll waits
const HEARTBEAT = 10_000 // ms after which a heartbeat goes out, or a client that takes nothing is given up

/** A part of a log, and how long the log is by now. */
type Part = Size & { chunk: Chunk }

const offsetOf = (position: number) => String(position).padStart(16, '0') // all as long: they sort as text
const isUpToDate = ({ chunk, size }: Part) => endOf(chunk) >= size
const isClosed = ({ chunk, size, done }: Part) => done && endOf(chunk) === size
const arrayOf = oncePerChunk(() => ['[', ']'])
const eventOf = oncePerChunk(() => ['event: data\ndata:[', ']\n\n'])

/** A request on its way to its answer; `name` is that of the run or the file that its path names. */
export type Visit = { request: IncomingMessage; response: ServerResponse; name: string; query: URLSearchParams }

/** Answers a read of a run's log. Throws an HttpError, a RemoteError or a TimeoutError, before anything is sent. */
export async function sendLog(readers: Readers, { request, response, name: id, query }: Visit) {
  const { offset, live } = request.method === 'HEAD' ? { offset: 'now' as const, live: null } : unpackRead(query)
  let part = await readPart(readers, id, offset, response)
  if (live === 'sse') return streamLog(readers, part, nextCursor(query), response)
  if (live === 'long-poll' && !part.chunk.lines.length && !isClosed(part)) {
    await somethingNew(readers, part.chunk, response)
    part = await readPart(readers, id, part.chunk.position, response)
  }
  const { chunk } = part
  response.setHeader('Stream-Next-Offset', offsetOf(endOf(chunk)))
  if (isUpToDate(part)) response.setHeader('Stream-Up-To-Date', 'true')
  if (isClosed(part)) response.setHeader('Stream-Closed', 'true')
  if (live) response.setHeader('Stream-Cursor', nextCursor(query))
  const tag = `"${chunk.position}-${endOf(chunk)}${isClosed(part) ? '-closed' : ''}"`
  if (offset !== 'now') response.setHeader('ETag', tag)
  const isCatchUp = offset !== 'now' && !live
  if (isCatchUp) response.setHeader('Cache-Control', 'private, no-cache')
  if (isCatchUp && isKnown(request, tag)) return void response.writeHead(304).end()
  if (live && !chunk.lines.length) return void response.writeHead(204).end()
  const json = arrayOf(chunk)
  response.setHeader('Content-Type', 'application/json').end(json) // of HEAD, Node then tells no length
}

// ---- What is asked for

/** What a client wants to read: from which position on, and whether it waits for more. */
function unpackRead(query: URLSearchParams): { offset: number | 'now'; live: string | null } {
  const live = query.get('live')
  const [offset = '-1', ...others] = query.getAll('offset')
  if (live !== null && live !== 'sse' && live !== 'long-poll') throw new HttpError(400, 'live is long-poll or sse')
  if (live !== null && !query.has('offset')) throw new HttpError(400, 'live needs an offset')
  const isRight = /^(-1|now|\d{1,16})$/.test(offset) && !(Number(offset) > Number.MAX_SAFE_INTEGER)
  if (!isRight || others.length) {
    throw new HttpError(400, 'offset is one number of up to 16 digits, a position in bytes, or -1, or now')
  }
  return { offset: offset === 'now' ? offset : Math.max(0, Number(offset)), live }
}

/** Grows with time, and beyond the one that a client has: so that no cache on the way repeats an answer for ever. */
function nextCursor(query: URLSearchParams): string {
  const interval = Math.floor((Date.now() - Date.UTC(2024, 9, 9)) / 20_000)
  const given = query.get('cursor') ?? ''
  const last = /^\d{1,15}$/.test(given) ? Number(given) : 0
  return String(last < interval ? interval : last + 1 + Math.floor(180 * Math.random()))
}

/** Whether a client has what has this tag. Compared as weak ones: a proxy that compresses makes them so. */
export function isKnown(request: IncomingMessage, tag: string): boolean {
  const known = (request.headers['if-none-match'] ?? '').split(',')
  return known.some(given => ['*', tag].includes(given.trim().replace(/^W\//, '')))
}

// ---- What there is

async function readPart(readers: Readers, id: string, from: number | 'now', response: ServerResponse): Promise<Part> {
  const chunk = from === 'now' ? undefined : await readers.read(id, from, () => !response.destroyed)
  // Trap: a size from before the read is too small while the run writes: a part of the log that goes beyond it would
  // look as if it was all.
  const size = await readers.size(id)
  if (!size) throw new HttpError(404, `unknown run ${id}`)
  return { chunk: chunk ?? { id, position: size.size, lines: NO_LINES }, ...size }
}

/** Until a log goes on, or ends, or for POLL_TIME, or until the client has gone. */
async function somethingNew(readers: Readers, { id, position }: Chunk, response: ServerResponse) {
  if (response.destroyed) return // its 'close' will not come any more
  const patience = new AbortController()
  const wake = () => patience.abort()
  const reader = readers.follow(id, position, { send: wake, finish: wake, refuse: wake, isFull: () => false })
  response.once('close', wake)
  await sleep(POLL_TIME, undefined, { signal: patience.signal }).catch(() => {}) // rejects when it is awoken
  readers.unfollow(reader)
}

// ---- Server-Sent Events

/** Goes on after a part, by the same readers as the WebSocket's; what the connection takes counts as acknowledged. */
function streamLog(readers: Readers, part: Part, streamCursor: string, response: ServerResponse) {
  if (response.destroyed) return // its 'close' will not come any more
  // The body ends with its connection. Trap: a client takes a broken chunk (of HTTP) for an error, and gives up; after
  // an end it comes again, with its last offset.
  response.useChunkedEncodingByDefault = false
  const type = { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-cache', 'X-Accel-Buffering': 'no' }
  response.writeHead(200, type)
  function send(chunk: Chunk, state: object): boolean {
    if (chunk.lines.length) response.write(eventOf(chunk))
    return response.write(controlEvent(endOf(chunk), state))
  }
  const controlOf = (isUpToDate: boolean) => isUpToDate ? { streamCursor, upToDate: true } : { streamCursor }
  send(part.chunk, isClosed(part) ? CLOSED : controlOf(isUpToDate(part)))
  if (isClosed(part)) return void response.end()

  const reader = readers.follow(part.chunk.id, endOf(part.chunk), {
    send(chunk) {
      if (send(chunk, controlOf(reader.isUpToDate))) reader.acknowledge(endOf(chunk))
    },
    isFull: () => false,
    finish: () => response.end(controlEvent(reader.next, CLOSED)),
    refuse: () => response.end(), // it is told why when it comes again
  })
  response.once('close', () => readers.unfollow(reader))
  response.on('drain', () => reader.acknowledge(reader.next))
  // Nothing was sent for so long: a heartbeat; or what was sent is not taken: the client has gone without a word.
  response.setTimeout(HEARTBEAT, () => response.writableLength ? response.destroy() : response.write(':\n\n'))
}

const CLOSED = { upToDate: true, streamClosed: true }

/** Follows the entries of each part: where to go on, and whether that is the end. */
function controlEvent(position: number, state: object): string {
  return `event: control\ndata:${JSON.stringify({ streamNextOffset: offsetOf(position), ...state })}\n\n`
}

// ---- Downloads

/** The whole log as it stands, as a file. */
export async function downloadLog(readers: Readers, { request, response, name: id }: Visit) {
  const read = (position: number) => readers.read(id, position, () => !response.destroyed)
  let chunk = await read(0)
  response.setHeader('Content-Type', 'application/x-ndjson')
  response.setHeader('Content-Disposition', `attachment; filename="${id}.ndjson"`)
  if (request.method === 'HEAD') return void response.end()
  await pipeline(async function* () {
    for (; chunk.lines.length; chunk = await read(endOf(chunk))) yield chunk.lines
  }, response)
}

/** Always as an attachment: what a run produced must not be shown as a page of this server. */
export async function sendFile({ request, response, name }: Visit) {
  const missing = new HttpError(404, `there is no file ${name}`)
  if (!isFile(name)) throw missing
  // Trap: to open a FIFO waits for a writer, in one of the four threads that do all the work with files.
  const how = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK
  const file = await open(join(FILES, name), how).catch(error => {
    throw /^(ENOENT|ELOOP|ENXIO|EACCES)$/.test(error.code) ? missing : error // perhaps too many are open, for now
  })
  try {
    const stat = await file.stat()
    if (!stat.isFile()) throw missing
    const { size, mtimeMs } = stat
    const tag = `"${size}-${Math.trunc(mtimeMs)}"`
    if (isKnown(request, tag)) return void response.writeHead(304, { ETag: tag }).end()
    const isSame = (request.headers['if-range'] ?? tag) === tag // else what was begun cannot be gone on with
    const part = request.method === 'GET' && isSame ? unpackRange(request.headers.range, size) : undefined
    const { start, end } = part ?? { start: 0, end: size - 1 }
    if (part) response.setHeader('Content-Range', `bytes ${start}-${end}/${size}`)
    response.writeHead(part ? 206 : 200, {
      'Content-Type': 'application/octet-stream', 'Content-Disposition': `attachment; filename="${name}"`,
      'Content-Length': end - start + 1, 'Accept-Ranges': 'bytes', ETag: tag,
    })
    if (request.method === 'HEAD' || !size) return void response.end()
    await pipeline(file.createReadStream({ start, end, autoClose: false }), response)
  } finally {
    await file.close()
  }
}

/** The bytes that are asked for; undefined: all, also for several ranges. Throws when the file has none of them. */
function unpackRange(header = '', size: number): { start: number; end: number } | undefined {
  const [, first, last] = /^bytes=(\d*)-(\d*)$/i.exec(header) ?? []
  if (!first && !last || first && last && Number(last) < Number(first)) return undefined
  const start = first ? Number(first) : Math.max(0, size - Number(last))
  const end = first && last ? Math.min(Number(last), size - 1) : size - 1
  if (start > end) throw new HttpError(416, `the file has ${size} bytes`, { 'Content-Range': `bytes */${size}` })
  return { start, end }
}
