// The reader's end of longrun, for anybody's page or worker: no DOM, no imports.
//
//   import { follow } from 'http://127.0.0.1:8080/follow.js'
//   const stop = follow('http://127.0.0.1:8080/', id, entries => entries.forEach(show))
//
// It keeps the one rule of the program, seen from the reader: remember `next`, and after anything that went wrong ask
// for the log from there. So a late start, a lost connection and a restarted server are all one case. (What comes over
// one socket has no gap that could be looked for here: readers.ts sees to that.) Read follow() for what it promises,
// then Connection: first over a WebSocket, then without.

/** One entry of a log is `{ type, time, data }`; a run's last one has the type `done`.
 * @typedef {(entries: any[], next: number) => unknown} Receive */
/**
 * @typedef {object} Options
 * @property {number} [next] the position to begin at; what an earlier `receive` was told as `next` goes on from there
 * @property {string} [key] lets this page see this one run, where the server has a token
 * @property {(message: string) => void} [refuse] called when the server will not carry this run, or `receive` threw
 * @property {((connection: Connection) => void) | undefined} [tell] called when the state of the connection has changed
 */
/** Whole lines of a run's log; `next` is where they end.
 * @typedef {{ id: string, next: number, entries: any[] }} Chunk */
/** `next`: the position that it wants next; `waiting`: what has come and was not handed on yet.
 * @typedef {{ id: string, next: number, receive: Receive, refuse: (message: string) => void, tell: Options['tell'],
 *   waiting: any[][], handing: Promise<void> | undefined }} Reader */
/** @typedef {(way: 'in' | 'out', text: string, chunk?: Chunk & { position: number }) => void} Tap */

const SHORTEST_PAUSE = 250 // milliseconds before the first new attempt
const LONGEST_PAUSE = 10_000
const BEAT = 5000 // milliseconds between two heartbeats, until the server says how often
const MOST_READS = 4 // at a time over HTTP: a browser has six connections to a server, and the page needs some
const READ_TIME = 30_000 // milliseconds; the server answers after 20 s at the latest
const SOCKET_PAUSE = 60_000 // milliseconds until the WebSocket is tried again, where HTTP does instead

/** Those that follow() has made. @type {Set<Connection>} */
const connections = new Set()
let reads = 0
/** Those who wait to read. @type {(() => void)[]} */
const queue = []

/**
 * Follows a run: calls `receive` with its entries, in order, each once, from the first to `done`, then stops by itself.
 * It may be called before the run begins, while it goes on, or after its end. `receive` may return a promise: what
 * arrives meanwhile waits for it, and only then is acknowledged, so a page that cannot keep up is never drowned.
 * Connections are made again whenever they break, and shared: any number of runs of one server take one WebSocket.
 * Where no WebSocket gets through, the log is read over HTTP.
 * @param {string | URL} url where the server is, with a slash at its end; relative to the page's own address
 * @param {string} id
 * @param {Receive} receive
 * @param {Options} [options]
 * @returns {() => void} stops it
 */
export function follow(url, id, receive, options = {}) {
  const { key } = options
  const server = serverAt(url)
  let connection = [...connections].find(known => known.server === server && !known.key && !key && !known.follows(id))
  if (!connection) connections.add(connection = new Connection(server, key ? { run: id, key } : {}))
  const stop = connection.follow(id, receive, options)
  connection.connect()
  return stop
}

/** @param {string | URL} url */
const serverAt = url => new URL('./', new URL(url, globalThis.location?.href)).href

/** One server's runs, over one WebSocket, or over HTTP. A page that shows how it is connected holds one of its own. */
export class Connection {
  live = false
  /** what carries the runs @type {'WebSocket' | 'HTTP'} */
  over = 'WebSocket'
  /** whether the workers server answers the web server */
  workers = true
  /** since when it has not been live, 0 while it is; and when the next attempt is due. In milliseconds since 1970 */
  lost = 0
  retryAt = 0
  /** sees every message of the WebSocket @type {Tap | undefined} */
  tap
  /** @type {Map<string, Reader>} */
  #readers = new Map()
  /** ids that were left on this socket before their `done` @type {Set<string>} */
  #left = new Set()
  /** @type {WebSocket | undefined} */
  #socket
  #isOpen = false // from connect() to close()
  #failures = 0 // of WebSockets that did not open, one after the other
  #pauses = 0 // before new attempts, since it was live
  #beat = BEAT
  #heard = 0 // when the server was heard last, in milliseconds since 1970
  /** while HTTP does instead of the WebSocket @type {AbortController | undefined} */
  #http
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #retry
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #watch

  /** With a key it carries its run alone.
   * @param {string | URL} url @param {{ run?: string, key?: string, tell?: Options['tell'] }} [options] */
  constructor(url, { run = '', key = '', tell } = {}) {
    this.server = serverAt(url)
    this.run = run
    this.key = key
    this.tell = tell
  }

  /** @param {string} id */
  follows(id) {
    return this.#readers.has(id)
  }

  /** As the function follow(). @param {string} id @param {Receive} receive @param {Options} [options] */
  follow(id, receive, { next = 0, refuse = console.error, tell } = {}) {
    const reader = { id, next, receive, refuse, tell, waiting: [], handing: undefined }
    this.#readers.set(id, reader)
    // Trap: chunks for the reader before this one may be under way, and would be taken for the beginning. So this one
    // gets a fresh socket; to all others that is one more lost connection, from which they go on at their `next`.
    if (this.#left.has(id)) this.#openSocket()
    else this.#send({ start: id, next })
    if (this.#http) void this.#readOverHttp(reader, this.#http.signal)
    return () => this.#stop(reader)
  }

  /** Connects at once: to begin with, or because somebody asks for it. */
  connect() {
    if (!this.#isOpen) {
      this.#isOpen = true
      this.#watch = setInterval(() => this.#checkBeat(2.5), 1000)
      globalThis.addEventListener?.('online', this.#wake)
    }
    if (!this.#socket) this.#openSocket()
    this.#tellState()
  }

  /** Ends it: nobody is called any more. */
  close() {
    this.#isOpen = this.live = false
    clearInterval(this.#watch)
    clearTimeout(this.#retry)
    globalThis.removeEventListener?.('online', this.#wake)
    this.#readers.clear()
    this.#http?.abort()
    this.#dropSocket()
  }

  // A connection can die without a word: a laptop that slept, a router that forgot. Only the missing heartbeat tells
  // it from a quiet run.
  /** @param {number} beats */
  #checkBeat(beats) {
    if (this.#socket && Date.now() - this.#heard > beats * this.#beat) this.#loseConnection(this.#heard)
  }

  #wake = () => (this.live ? this.#checkBeat(1.2) : this.connect())

  #tellState() {
    this.tell?.(this)
    for (const reader of this.#readers.values()) reader.tell?.(this)
  }

  /** @param {'WebSocket' | 'HTTP'} over */
  #setLive(over) {
    this.over = over
    this.live = true
    this.#pauses = 0
    this.#tellState()
    this.lost = 0 // later, so that who was told can see for how long
  }

  // ---- Over the WebSocket

  #openSocket() {
    clearTimeout(this.#retry)
    this.#dropSocket()
    this.#left.clear()
    this.#heard = Date.now()
    const url = new URL('log', this.server)
    url.protocol = url.protocol.replace('http', 'ws')
    if (this.key) url.search = String(new URLSearchParams({ run: this.run, key: this.key }))
    try {
      this.#socket = new WebSocket(url)
    } catch {
      return this.#loseConnection(Date.now()) // the page's policy forbids it
    }
    this.#socket.onopen = () => this.#welcome()
    this.#socket.onmessage = ({ data }) => this.#hearMessage(data)
    this.#socket.onclose = () => this.#loseConnection(Date.now())
  }

  #welcome() {
    this.#failures = 0
    this.#heard = Date.now()
    this.#http?.abort()
    this.#http = undefined
    for (const { id, next } of this.#readers.values()) this.#send({ start: id, next })
    this.#setLive('WebSocket')
  }

  /** @param {string} text */
  #hearMessage(text) {
    this.#heard = Date.now()
    const message = JSON.parse(text)
    if ('beat' in message) this.#beat = message.beat
    else if ('workers' in message) this.#setWorkers(message.workers)
    else this.#hearOfRun(this.#readers.get(message.id), message, text)
  }

  /** @param {Reader | undefined} reader @param {Chunk & { error?: string }} message @param {string} text */
  #hearOfRun(reader, message, text) {
    if (!reader) return
    if (message.error !== undefined) return this.#refuse(reader, message.error)
    this.tap?.('in', text, { ...message, position: reader.next })
    void this.#takeEntries(reader, message.entries, message.next)
  }

  /** @param {boolean} workers */
  #setWorkers(workers) {
    if (this.workers === workers) return
    this.workers = workers
    this.#tellState()
  }

  /** @param {{ start: string, next: number } | { ack: string, next: number } | { stop: string }} message */
  #send(message) {
    if (this.#socket?.readyState !== 1) return // not open: #welcome() says what still holds
    const text = JSON.stringify(message)
    this.tap?.('out', text)
    this.#socket.send(text)
  }

  #dropSocket() {
    if (!this.#socket) return
    this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null // close() may take half a minute to tell
    this.#socket.close()
    this.#socket = undefined
  }

  /** @param {number} since when it was heard last */
  #loseConnection(since) {
    if (!this.live || this.#http) this.#failures++
    this.#dropSocket()
    if (this.#http) return this.#retryIn(SOCKET_PAUSE)
    if (this.live) this.lost = since
    this.live = false
    // Jittered, so that a restarted server does not get all its pages in one moment.
    this.#retryIn(Math.min(LONGEST_PAUSE, SHORTEST_PAUSE * 1.7 ** this.#pauses++) * (0.5 + Math.random()))
    this.#tellState()
    if (this.#failures >= 2) void this.#tryHttp()
  }

  /** @param {number} pause */
  #retryIn(pause) {
    this.retryAt = Date.now() + pause
    clearTimeout(this.#retry)
    this.#retry = setTimeout(() => this.#openSocket(), pause)
  }

  // ---- A reader's entries, however they came

  /** @param {Reader} reader @param {any[]} entries @param {number} next */
  #takeEntries(reader, entries, next) {
    reader.next = next
    if (!entries.length) return
    reader.waiting.push(entries)
    return (reader.handing ??= this.#handOn(reader))
  }

  /** One call at a time; whatever came during it is the next. @param {Reader} reader */
  async #handOn(reader) {
    try {
      while (reader.waiting.length) {
        const { next } = reader
        const entries = reader.waiting.length === 1 ? reader.waiting[0] ?? [] : reader.waiting.flat()
        reader.waiting = []
        await reader.receive(entries, next)
        this.#send({ ack: reader.id, next })
        if (entries.at(-1)?.type === 'done') this.#leaveRun(reader)
      }
    } catch (error) {
      this.#refuse(reader, `an entry could not be taken: ${error}`)
    }
    reader.handing = undefined
  }

  /** @param {Reader} reader */
  #leaveRun({ id }) {
    this.#readers.delete(id)
    this.#send({ stop: id })
    if (this.#readers.size === 0 && connections.delete(this)) this.close()
  }

  /** @param {Reader} reader */
  #stop(reader) {
    reader.waiting = []
    if (this.#readers.get(reader.id) !== reader) return
    this.#left.add(reader.id)
    this.#leaveRun(reader)
  }

  /** @param {Reader} reader @param {string} message */
  #refuse(reader, message) {
    this.#stop(reader)
    reader.refuse(message)
  }

  // ---- Without a WebSocket: a proxy, or a program that guards the network, may let none through

  async #tryHttp() {
    if (!(await this.#isAnswered()) || this.live || this.#http || !this.#isOpen) return
    const { signal } = (this.#http = new AbortController())
    this.#retryIn(SOCKET_PAUSE)
    this.#setLive('HTTP')
    for (const reader of this.#readers.values()) void this.#readOverHttp(reader, signal)
    do await pause(BEAT)
    while (!signal.aborted && (await this.#isAnswered()))
    if (signal.aborted) return // a WebSocket has opened
    this.#http?.abort()
    this.#http = undefined
    this.#loseConnection(Date.now())
  }

  /** Whether HTTP gets through, to our server and not only to a proxy before it. */
  async #isAnswered() {
    const path = this.key ? `tasks/${this.run}/log` : 'health'
    const answer = this.#fetch(path, { method: 'HEAD', signal: AbortSignal.timeout(2 * BEAT) })
    const status = await answer.then(({ status }) => status, () => 0)
    if (status === 0 || status === 502) return false
    this.#setWorkers(status !== 503 && status !== 504)
    return true
  }

  /** @param {string} path @param {RequestInit} init */
  #fetch(path, init) {
    const url = new URL(path, this.server)
    if (this.key) url.searchParams.set('key', this.key)
    return fetch(url, init)
  }

  /** Reads to the end of the log, waits there for more, and so on.
   * @param {Reader} reader @param {AbortSignal} signal */
  async #readOverHttp(reader, signal) {
    let live = ''
    for (let failures = 0; this.#readers.get(reader.id) === reader && !signal.aborted; ) {
      const path = `tasks/${encodeURIComponent(reader.id)}/log?offset=${reader.next}${live}`
      const { status, next, isUpToDate, entries } = await inTurn(() => this.#read(path, signal))
      if (signal.aborted || this.#readers.get(reader.id) !== reader) return
      if (status === 401) return this.#refuse(reader, 'the server asks for a token')
      if (entries) {
        failures = 0
        live = isUpToDate ? '&live=long-poll' : ''
        await this.#takeEntries(reader, entries, next)
      } else await pause(Math.min(LONGEST_PAUSE, 1000 * 1.5 ** failures++) * (0.5 + Math.random())) // 404: not yet
    }
  }

  /** @param {string} path @param {AbortSignal} signal
   * @returns {Promise<{ status: number, next: number, isUpToDate: boolean, entries?: any[] }>} no entries: try again */
  async #read(path, signal) {
    try {
      const answer = await this.#fetch(path, { signal: AbortSignal.any([signal, AbortSignal.timeout(READ_TIME)]) })
      const { status, headers } = answer
      const next = Number(headers.get('stream-next-offset') ?? NaN)
      const isUpToDate = headers.has('stream-up-to-date')
      if (!answer.ok || Number.isNaN(next)) return { status, next, isUpToDate } // or what a proxy says in its place
      return { status, next, isUpToDate, entries: status === 204 ? [] : await answer.json() }
    } catch {
      return { status: 0, next: 0, isUpToDate: false }
    }
  }
}

/** One after the other, in the order in which they came, MOST_READS at a time.
 * @template T @param {() => Promise<T>} read @returns {Promise<T>} */
async function inTurn(read) {
  while (reads >= MOST_READS) await new Promise(resolve => queue.push(() => resolve(undefined)))
  reads++
  try {
    return await read()
  } finally {
    reads--
    queue.shift()?.()
  }
}

/** @param {number} milliseconds */
const pause = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds))
