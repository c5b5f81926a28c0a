// The reader's end of longrun, for anybody's page or worker: no DOM, no imports.
//
//   import { follow } from 'http://127.0.0.1:8080/follow.js'
//   const stop = follow('http://127.0.0.1:8080/', id, entries => entries.forEach(show))
//
// It keeps the one rule of the program, seen from the reader: remember `next`, and after anything that went wrong ask
// for the log from there. So a late start, a lost connection and a restarted server are all one case. (What comes over
// one socket has no gap that could be looked for here: readers.ts sees to that.) Read follow() for what it promises,
// then Connection: first over a WebSocket, then without.

/** A run's last one has the type `done`. @typedef {import('../log.ts').Entry} Entry */
/** @typedef {(entries: Entry[], next: number) => unknown} Receive */
/** Why a run is not followed any more, see REFERENCE.md. @typedef {'refused' | 'key' | 'origin' | 'threw'} Code */
/**
 * @typedef {object} Options
 * @property {number} [next] the position to begin at; what an earlier `receive` was told as `next` goes on from there
 * @property {string} [key] lets this page see this one run, where the server has a token
 * @property {(message: string, code: Code) => void} [refuse] called when that is the end of it
 * @property {((connection: Connection) => void) | undefined} [tell] called when the state of the connection has changed
 */
/** Whole lines of a log, which end at `next`. @typedef {{ id: string, next: number, entries: Entry[] }} Chunk */
/** `next`: the position that it wants next; `waiting`: what has come and was not handed on yet.
 * @typedef {Options & { id: string, next: number, receive: Receive, waiting: Entry[][], reading?: AbortController,
 *   handing?: Promise<void> | undefined }} Reader */
/** `isOurs`: it is the server's own, and not of what stands before it.
 * @typedef {{ status: number, headers: Headers, data: any, isOurs: boolean }} Answer */
/** @typedef {(way: 'in' | 'out', text: string, chunk?: Chunk & { position: number }) => void} Tap */
/** @typedef {ReturnType<typeof setTimeout> | undefined} Timer */

const SHORTEST_PAUSE = 250 // milliseconds before the first new attempt
const LONGEST_PAUSE = 10_000
const BEAT = 5000 // milliseconds between two heartbeats, until the server says how often
const SOCKET_PAUSE = 60_000 // milliseconds until the WebSocket is tried again, where HTTP does instead
const READ_TIME = 30_000 // milliseconds; the server answers after 20 s at the latest
const RECHECK = 2000 // milliseconds between two reads of who has no place to wait
const PLACES = 3 // to wait in for entries over HTTP, for all pages of a browser
const MOST_RUNS = 1000 // that one WebSocket carries
const FOREIGN = 4403 // closes the WebSocket of a page whose origin is not allowed

/** Those that follow() has made. @type {Set<Connection>} */
const connections = new Set()

/**
 * Follows a run: calls `receive` with its entries, in order, each once, from the first to `done`, then stops by itself.
 * It may be called before the run begins, while it goes on, or after its end. `receive` may return a promise: what
 * arrives meanwhile waits for it, and only then is acknowledged, so a page that cannot keep up is never drowned.
 * Connections are made again whenever they break, and shared: a thousand runs of one server take one WebSocket. Where
 * none gets through, the log is read over HTTP.
 * @param {string | URL} url where the server is, relative to the page's own address
 * @param {string} id
 * @param {Receive} receive
 * @param {Options} [options]
 * @returns {() => void} stops it
 */
export function follow(url, id, receive, options = {}) {
  const { key = '' } = options
  const server = serverAt(url)
  let connection = [...connections].find(known => known.server === server && !known.key && !key && known.hasPlace(id))
  if (!connection) connections.add(connection = new Connection(server, { run: id, key }))
  const stop = connection.follow(id, receive, options)
  connection.connect()
  return stop
}

/** With a slash at its end, without which the last part of a path would be lost. @param {string | URL} url */
const serverAt = url => new URL(url, globalThis.location?.href).href.replace(/\/?$/, '/')

/** One server's runs, over one WebSocket, or over HTTP. A page that shows how it is connected holds one of its own. */
export class Connection {
  live = false
  /** what carries the runs @type {'WebSocket' | 'HTTP'} */ over = 'WebSocket'
  /** whether the workers server answers the web server */ workers = true
  /** whether somebody else answers in the server's place: loaded anew, the page would show what that says */
  stranger = false
  /** since when it has not been live, 0 while it is; and when the next attempt is due. In milliseconds since 1970 */
  lost = 0
  retryAt = 0
  /** sees every message of the WebSocket @type {Tap | undefined} */ tap
  /** @type {Map<string, Reader>} */ #readers = new Map()
  /** ids that were left on this socket before their `done` @type {Set<string>} */ #left = new Set()
  /** @type {WebSocket | undefined} */ #socket
  #isHeard = false // on this socket: the server speaks first
  #failures = 0 // of WebSockets on which nothing was heard, one after the other
  #pauses = 0 // before new attempts, since it was live
  #beat = BEAT
  #heard = 0 // when the server was heard last, in milliseconds since 1970
  /** while HTTP does instead of the WebSocket @type {Timer} */ #http
  /** @type {Timer} */ #retry
  /** from connect() to close() @type {Timer} */ #watch

  /** With a key it carries its run alone.
   * @param {string | URL} url @param {{ run?: string, key?: string, tell?: Options['tell'] }} [options] */
  constructor(url, { run = '', key = '', tell } = {}) {
    this.server = serverAt(url)
    this.run = run
    this.key = key
    this.tell = tell
  }

  /** Whether it can carry this run, too. @param {string} id */
  hasPlace(id) { return !this.#readers.has(id) && this.#readers.size < MOST_RUNS }

  /** As the function follow(). @param {string} id @param {Receive} receive @param {Options} [options] */
  follow(id, receive, { next = 0, refuse = message => console.error(`run ${id}: ${message}`), tell } = {}) {
    /** @type {Reader} */
    const reader = { id, next, receive, refuse, tell, waiting: [] }
    this.#readers.set(id, reader)
    const canBe = typeof id === 'string' && /^[\w-]{1,64}$/.test(id) && Number.isSafeInteger(next) && next >= 0
    if (!canBe) queueMicrotask(() => this.#refuse(reader, 'no run has such an id, or such a position', 'refused'))
    // Trap: chunks for the reader before this one may be under way, and would be taken for the beginning. So this one
    // gets a fresh socket; to all others that is one more lost connection, from which they go on at their `next`.
    if (this.#left.has(id)) this.#openSocket()
    else this.#send({ start: id, next })
    if (this.#http) this.#readOverHttp(reader)
    return () => this.#stop(reader)
  }

  /** Connects at once: to begin with, or because somebody asks for it. */
  connect() {
    if (!this.#watch) {
      this.#watch = setInterval(() => this.#checkBeat(2.5), 1000)
      globalThis.addEventListener?.('online', this.#wake)
    }
    if (!this.#socket) this.#openSocket()
    this.#tellState()
  }

  /** Ends it: nobody is called any more. */
  close() {
    this.live = false
    clearInterval(this.#watch)
    this.#watch = undefined
    clearTimeout(this.#retry)
    globalThis.removeEventListener?.('online', this.#wake)
    this.#endHttp()
    this.#readers.clear()
    this.#dropSocket()
  }

  // A connection can die without a word: a laptop that slept, a router that forgot. Only the missing heartbeat tells
  // it from a quiet run.
  #checkBeat(/** @type {number} */ beats) {
    if (this.#socket && Date.now() - this.#heard > beats * this.#beat) this.#loseConnection(this.#heard)
  }

  #wake = () => (this.live ? this.#checkBeat(1.2) : this.connect())

  #tellState() {
    attempt(() => this.tell?.(this))
    for (const { tell } of this.#readers.values()) attempt(() => tell?.(this)) // who is stopped by one hears no more
  }

  /** @param {'workers' | 'stranger'} what @param {boolean} is */
  #note(what, is) {
    if (this[what] === is) return
    this[what] = is
    this.#tellState()
  }

  #setLive(/** @type {Connection['over']} */ over) {
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
    const url = new URL('log', this.server.replace('http', 'ws'))
    if (this.key) url.search = String(new URLSearchParams({ run: this.run, key: this.key }))
    try {
      this.#socket = new WebSocket(url)
    } catch {
      return this.#loseConnection(Date.now()) // so Firefox tells what the page's policy forbids
    }
    this.#socket.onmessage = ({ data }) => attempt(() => this.#hearMessage(data))
    this.#socket.onerror = this.#socket.onclose = async (/** @type {any} */ { code, reason } = {}) => {
      this.#loseConnection(Date.now()) // by `error`, too: Chromium does not close what a policy forbids
      if (code !== FOREIGN) return
      await this.#isAnswered() // over HTTP it is told more: perhaps only the key is missing
      this.#readers.forEach(reader => this.#refuse(reader, reason, 'origin'))
    }
  }

  // The server speaks first: a socket that is only open may be somebody else's, or be closed with a refusal.
  #welcome() {
    this.#isHeard = true
    this.#failures = 0
    this.stranger = false
    this.#endHttp()
    for (const { id, next } of this.#readers.values()) this.#send({ start: id, next })
    this.#setLive('WebSocket')
  }

  #hearMessage(/** @type {string} */ text) {
    const message = JSON.parse(text)
    if (!this.#isHeard && !('workers' in message)) return // somebody else speaks here
    this.#heard = Date.now()
    if (!this.#isHeard) this.#welcome()
    if ('beat' in message) this.#beat = message.beat
    else if ('workers' in message) this.#note('workers', message.workers)
    else this.#hearOfRun(this.#readers.get(message.id), message, text)
  }

  /** @param {Reader | undefined} reader @param {Chunk & { error?: string }} message @param {string} text */
  #hearOfRun(reader, message, text) {
    if (!reader) return
    if (message.error !== undefined) return this.#refuse(reader, message.error, 'refused')
    this.tap?.('in', text, { ...message, position: reader.next })
    void this.#takeEntries(reader, message.entries, message.next)
  }

  /** @param {{ start: string, next: number } | { ack: string, next: number } | { stop: string }} message */
  #send(message) {
    if (!this.#isHeard) return // #welcome() says what still holds
    const text = JSON.stringify(message)
    this.tap?.('out', text)
    this.#socket?.send(text)
  }

  #dropSocket() {
    this.#isHeard = false
    if (!this.#socket) return
    this.#socket.onmessage = this.#socket.onerror = this.#socket.onclose = null // close() may tell once more, and late
    this.#socket.close()
    this.#socket = undefined
  }

  #loseConnection(/** @type {number} */ since) {
    if (!this.#watch) return
    if (!this.#isHeard) this.#failures++
    this.#dropSocket()
    if (this.#http) return this.#retryIn(SOCKET_PAUSE)
    if (this.live) this.lost = since
    this.live = false
    // Jittered, so that a restarted server does not get all its pages in one moment.
    this.#retryIn(jittered(Math.min(LONGEST_PAUSE, SHORTEST_PAUSE * 1.7 ** this.#pauses++)))
    this.#tellState()
    if (this.#failures >= 2) void this.#tryHttp()
  }

  #retryIn(/** @type {number} */ pause) {
    this.retryAt = Date.now() + pause
    clearTimeout(this.#retry)
    this.#retry = setTimeout(() => this.#openSocket(), pause)
  }

  // ---- A reader's entries, however they came

  /** @param {Reader} reader @param {Entry[]} entries @param {number} next */
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
        const entries = reader.waiting.splice(0).flat()
        await reader.receive(entries, next)
        if (this.#readers.get(reader.id) !== reader) return // it was stopped by that, and may be followed anew
        this.#send({ ack: reader.id, next })
        if (entries.at(-1)?.type === 'done') this.#leaveRun(reader)
      }
    } catch (error) {
      this.#break(reader, error)
    }
    reader.handing = undefined
  }

  #leaveRun(/** @type {Reader} */ { id, reading }) {
    reading?.abort()
    this.#readers.delete(id)
    this.#send({ stop: id })
    if (this.#readers.size === 0 && connections.delete(this)) this.close()
  }

  /** Whether it was followed until now. @param {Reader} reader */
  #stop(reader) {
    reader.waiting = []
    if (this.#readers.get(reader.id) !== reader) return false
    this.#left.add(reader.id)
    this.#leaveRun(reader)
    return true
  }

  /** @param {Reader} reader @param {string} message @param {Code} code */
  #refuse(reader, message, code) {
    if (this.#stop(reader)) attempt(() => reader.refuse?.(message, code))
  }

  /** A mistake, the caller's or ours, which has to be seen. @param {Reader} reader @param {unknown} error */
  #break(reader, error) {
    console.error(error)
    this.#refuse(reader, `not followed any more: ${error}`, 'threw')
  }

  // ---- Without a WebSocket: a proxy, or a program that guards the network, may let none through

  async #tryHttp() {
    if (!(await this.#isAnswered()) || this.live || this.#http || !this.#watch) return
    this.#http = setInterval(async () => {
      if ((await this.#isAnswered()) || !this.#http) return
      this.#endHttp()
      this.#loseConnection(Date.now())
    }, BEAT)
    this.#retryIn(SOCKET_PAUSE)
    this.#setLive('HTTP')
    for (const reader of this.#readers.values()) this.#readOverHttp(reader)
  }

  #endHttp() {
    clearInterval(this.#http)
    this.#http = undefined
    for (const { reading } of this.#readers.values()) reading?.abort()
  }

  /** Whether HTTP gets through, to our server and not only to what stands before it. */
  async #isAnswered() {
    const answer = await this.#ask(this.run ? `tasks/${this.run}/log?offset=now` : 'health', 2 * BEAT)
    for (const reader of this.#readers.values()) this.#refuseBy(reader, answer, 0)
    this.#note('stranger', answer?.isOurs === false && answer.status < 500) // 502: a proxy, and no server
    if (answer?.isOurs) this.#note('workers', answer.status !== 503 && answer.status !== 504)
    return answer?.isOurs
  }

  #readOverHttp(/** @type {Reader} */ reader) {
    reader.reading = new AbortController()
    this.#readLog(reader, reader.reading.signal).catch(error => this.#break(reader, error))
  }

  /** Reads to the end of the log, waits there for more, and so on.
   * @param {Reader} reader @param {AbortSignal} signal */
  async #readLog(reader, signal) {
    const read = (live = '') => this.#ask(`tasks/${reader.id}/log?offset=${reader.next}${live}`, READ_TIME, signal)
    let isAtEnd = false
    for (let failures = 0; !signal.aborted; ) {
      /** @type {Answer | undefined} */
      const answer = await (isAtEnd ? waitInPlace(read) : inTurn(read))
      if (signal.aborted || this.#refuseBy(reader, answer, reader.next)) return
      if (answer?.isOurs && (answer.status === 204 || Array.isArray(answer.data))) {
        failures = 0
        isAtEnd = answer.headers.has('stream-up-to-date')
        await this.#takeEntries(reader, answer.data ?? [], Number(answer.headers.get('stream-next-offset')))
        if (answer.headers.has('stream-closed')) return
      } else await pause(jittered(Math.min(LONGEST_PAUSE, 1000 * 1.5 ** failures++))) // 404: not yet
    }
  }

  /** If the server says that it will not carry a run. It may not know it yet, or have troubles of its own.
   * @param {Reader} reader @param {Answer | undefined} answer @param {number} next */
  #refuseBy(reader, answer, next) {
    const { status = 0, isOurs, data } = answer ?? {}
    if (!isOurs || status < 400 || status >= 500 || (status === 404 && next === 0)) return false
    this.#refuse(reader, data.errors.join('; '), status === 401 ? 'key' : status === 403 ? 'origin' : 'refused')
    return true
  }

  /** Undefined: there was no answer, or it was cut off. `patience` in milliseconds.
   * @param {string} path @param {number} patience @param {AbortSignal} [signal]
   * @returns {Promise<Answer | undefined>} */
  async #ask(path, patience, signal) {
    if (signal?.aborted) return
    const url = new URL(path, this.server)
    if (this.key) url.searchParams.set('key', this.key)
    const end = new AbortController() // Safari has AbortSignal.any since 17.4 only
    const abort = () => end.abort()
    const timer = setTimeout(abort, patience)
    signal?.addEventListener('abort', abort)
    // Trap: a redirection that is followed ends at a page of somebody else with status 200, or looks like no answer.
    /** @type {Response | undefined} */
    let answer = await fetch(url, { signal: end.signal, redirect: 'manual' }).catch(() => undefined)
    const data = await answer?.json().catch(({ name }) => { if (name !== 'SyntaxError') answer = undefined })
    clearTimeout(timer)
    signal?.removeEventListener('abort', abort)
    if (!answer) return
    const isOurs = answer.headers.has('stream-next-offset') || Array.isArray(data?.errors) || data?.server === true
    return { status: answer.status, headers: answer.headers, data, isOurs }
  }
}

// A browser has six connections to a server, for all its pages: were a read to wait on each, no page could be loaded,
// and no run cancelled. So few wait, in places that all pages of an origin share. The others ask again and again, one
// after the other, and so do pages that nobody sees.

/** @type {Promise<unknown>} */
let turn = Promise.resolve()

function inTurn(/** @type {() => Promise<Answer | undefined>} */ read) {
  const answer = turn.then(() => read())
  turn = answer.catch(() => {})
  return answer
}

async function waitInPlace(/** @type {(live?: string) => Promise<Answer | undefined>} */ read) {
  /** @type {ReturnType<typeof read> | undefined} */
  let answer
  for (let place = 0; place < PLACES && !answer && !globalThis.document?.hidden; place++) {
    const wait = (/** @type {unknown} */ lock) => lock && (answer = read('&live=long-poll'))
    await locks.request(`longrun ${place}`, { ifAvailable: true }, wait).catch(() => {}) // not allowed in some frames
  }
  return answer ?? pause(RECHECK).then(() => inTurn(read))
}

/** Over plain HTTP a browser has no locks: a page then has places of its own. @type {Set<string>} */
const held = new Set()
/** @type {{ request(name: string, options: object, act: (lock: unknown) => unknown): Promise<unknown> }} */
const locks = globalThis.navigator?.locks ?? {
  async request(name, _, act) {
    if (held.has(name)) return
    held.add(name)
    await act(name)
    held.delete(name)
  },
}

/** For what somebody else has written or said: what comes of it must not stop us. @param {() => unknown} act */
function attempt(act) {
  try {
    act()
  } catch (error) {
    console.error(error)
  }
}

const jittered = (/** @type {number} */ milliseconds) => milliseconds * (0.5 + Math.random())
const pause = (/** @type {number} */ milliseconds) => new Promise(resolve => setTimeout(resolve, milliseconds))
