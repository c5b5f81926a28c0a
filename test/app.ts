// What the tests need to start the real processes, and to talk to them as the outside would. Nothing here knows
// the insides of the servers: HTTP, WebSocket, Server-Sent Events and ZeroMQ are all that it uses.

import assert from 'node:assert/strict'
import { spawn, type ChildProcess } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import {
  get, request as httpRequest, type IncomingHttpHeaders, type IncomingMessage, type OutgoingHttpHeaders,
} from 'node:http'
import { request as httpsRequest, type RequestOptions as HttpsOptions } from 'node:https'
import { tmpdir } from 'node:os'
import { isAbsolute, join } from 'node:path'
import { createInterface } from 'node:readline'
import type { TestContext } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { WebSocket } from 'ws'
import { Request, XPublisher } from 'zeromq'
import type { Entry } from '../log.ts'

export const ROOT = join(import.meta.dirname, '..')
/** More remote functions, for the tests: they crash, hang, flood and misbehave on purpose. */
export const TEST_TASKS = join(import.meta.dirname, 'functions.ts')

/** Prints what the servers say, and keeps the folders of the runs: for a person who wants to see what a test does. */
const SHOW = Boolean(process.env['SHOW'])

const PATIENCE = 180_000 // ms after which a wait is in vain: a machine may be busy, and ten times slower

/** What is promised; throws an error that says what was waited for when it does not come. */
export async function soon<T>(promised: Promise<T>, what: () => string): Promise<T> {
  const late = Symbol()
  let timer: NodeJS.Timeout
  const patience = new Promise<typeof late>(resolve => { timer = setTimeout(resolve, PATIENCE, late) })
  const first = await Promise.race([promised, patience]).finally(() => clearTimeout(timer))
  if (first === late) throw new Error(`waited in vain for ${what()}`)
  return first
}

/** For what no event tells: looks again and again. Throws an error that says for what when it does not come to hold. */
export async function until(holds: () => unknown, what: string | (() => string) = String(holds)) {
  for (const deadline = performance.now() + PATIENCE; !await holds(); await sleep(20)) {
    if (performance.now() > deadline) throw new Error(`waited in vain until ${typeof what === 'string' ? what : what()}`)
  }
}

/** Why a test that needs this program of the machine is left out, or false. Where everything has to be tested, it is an error. */
export function missing(program: string): string | false {
  const folders = isAbsolute(program) ? ['/'] : process.env['PATH']!.split(':')
  const isThere = folders.some(folder => existsSync(join(folder, program)))
  if (!isThere && process.env['CI']) throw new Error(`no ${program} found`)
  return !isThere && `no ${program} found`
}

/** The blocks of code in this language that README.md and REFERENCE.md show. */
export function readmeBlocks(language: string): string[] {
  const shown = ['README.md', 'REFERENCE.md'].map(name => readFileSync(join(ROOT, name), 'utf8')).join('\n')
  return [...shown.matchAll(new RegExp(`\`\`\`${language}\n(.*?)\`\`\``, 'gs'))].map(([, block]) => block!)
}

/** One process of the system, with what it prints. */
export type Server = { process: ChildProcess; output: string[]; ready: string; exited: Promise<[number | null, string | null]> }

// A test file that is ended by its time-out must not leave servers behind.
const started = new Set<ChildProcess>()
process.once('exit', () => started.forEach(child => child.kill('SIGKILL')))
for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => process.exit(1))

/** Starts `workers.ts` or `server.ts`, as startProgram() does. `before`: a command that executes its arguments. */
export function startServer(
  file: string, env: Record<string, string>, root = ROOT, before: string[] = [],
): Promise<Server> {
  return startProgram([...before, process.execPath, '--import', join(root, 'loader.js'), join(root, file)], env, root)
}

/** Starts a command and waits for the line that it prints when it is ready; throws when it ends before. */
export async function startProgram(command: string[], env: Record<string, string>, folder = ROOT): Promise<Server> {
  const [program, ...args] = command
  const child = spawn(program!, args, { cwd: folder, env: { ...bareEnvironment(), ...env } })
  started.add(child)
  child.once('exit', () => started.delete(child))
  const output: string[] = []
  const exited = once(child, 'exit') as Promise<[number | null, string | null]>
  const lines = createInterface(child.stdout)
  for (const said of [lines, createInterface(child.stderr)]) {
    said.on('line', line => {
      output.push(line)
      if (SHOW) console.error(`${command.at(-1)}: ${line}`)
    })
  }
  exited.catch(() => {}) // there is no such program: the next line throws it
  const first = await soon(Promise.race([once(lines, 'line'), once(child, 'close')]), () => `what ${command.at(-1)} prints`)
  if (typeof first[0] !== 'string') throw new Error(`${command.at(-1)} ended at once: ${output.join('\n')}`)
  return { process: child, output, ready: first[0], exited }
}

/**
 * The environment of the machine without the settings of somebody's own longrun; and without certificates of its own,
 * which Node 20 reads at its start, for 70 ms a process. What was compiled once serves all tests.
 */
export function bareEnvironment() {
  const left = /^(HOST|PORT|RUNS|TASKS|TOKEN|SPARES|PROCESS_LIMIT|TIME_LIMIT|KEEP_RUNS|MAX_.*|ALLOWED_.*|LAUNCH|.*_ADDR|NODE_OPTIONS|NODE_TEST_CONTEXT|NODE_EXTRA_CA_CERTS)$/
  const kept = Object.entries(process.env).filter(([name]) => !left.test(name))
  return { NODE_COMPILE_CACHE: join(ROOT, 'node_modules/.cache/longrun'), ...Object.fromEntries(kept) }
}

export type Answer = { status: number; headers: Headers; body: any }

/** The whole system in a folder of its own, on a free port. */
export class App {
  readonly runs: string
  readonly env: Record<string, string>
  readonly root: string
  workers!: Server
  server!: Server
  url = ''
  #hasEnded = false

  /** `root`: the folder of the program. */
  constructor(env: Record<string, string>, root = ROOT) {
    this.root = root
    this.runs = env.RUNS ?? mkdtempSync(join(tmpdir(), 'longrun-test-'))
    this.env = { RUNS: this.runs, PORT: '0', TASKS: TEST_TASKS, ...env }
  }

  async startWorkers() {
    this.workers = await startServer('workers.ts', this.env, this.root)
    // Its first line may tell what it takes over, or what it cannot do.
    const { output, process } = this.workers
    const isReady = () => output.some(line => line.startsWith('workers server ready'))
    await until(() => isReady() || process.exitCode !== null || process.signalCode !== null, 'the workers server is ready')
  }

  /** On the same port as before, when it is not the first. */
  async startServer(tries = 100): Promise<void> {
    try {
      this.server = await startServer('server.ts', { ...this.env, ...this.url && { PORT: new URL(this.url).port } }, this.root)
    } catch (error) {
      if (!this.url || !/EADDRINUSE/.test(String(error)) || !tries) throw error
      await sleep(200) // another test has the port, for one of its connections
      return this.startServer(tries - 1)
    }
    this.url = /http:\/\/\S+:\d+/.exec(this.server.ready)![0]
  }

  async startBoth() {
    await this.startWorkers()
    await this.startServer()
  }

  async kill(which: 'workers' | 'server', signal: NodeJS.Signals = 'SIGKILL') {
    this[which].process.kill(signal)
    return soon(this[which].exited, () => `the end of the ${which} by ${signal}`)
  }

  /** Kills the workers server, and with it `doomed`; starts it again when `steady` has gone on without it. */
  async replaceWorkers(steady: Run, doomed: Run) {
    await this.kill('workers')
    process.kill(doomed.pid, 'SIGKILL')
    const size = steady.log().length
    await until(() => steady.log().length > size + 100)
    await this.startWorkers()
    assert.equal((await doomed.outcome()).outcome, 'died')
  }

  /** Ends everything, and sees to it that no process and no socket is left. */
  async end() {
    this.#hasEnded = true
    for (const which of ['server', 'workers'] as const) {
      this[which]?.process.kill('SIGCONT')
      if (this[which]) await this.kill(which, 'SIGTERM')
    }
    const left = await survivors(this.runs)
    left.forEach(({ pid }) => process.kill(pid, 'SIGKILL'))
    const sockets = readdirSync(this.runs).filter(name => name.endsWith('.sock'))
    if (SHOW) console.error(`RUNS=${this.runs}`)
    else rmSync(this.runs, { recursive: true, force: true })
    assert.deepEqual(left, [], 'no process is left')
    assert.deepEqual(sockets, [], 'no socket is left')
  }

  /** An HTTP request; `body` is sent as JSON unless it is bytes. */
  async request(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Answer> {
    const raw = body === undefined || Buffer.isBuffer(body)
    const asked = fetch(this.url + path, {
      method,
      headers: { ...!raw && { 'content-type': 'application/json' }, ...headers },
      body: raw ? body as Buffer<ArrayBuffer> | undefined : JSON.stringify(body),
      redirect: 'manual',
    })
    const response = await soon(asked, () => `an answer to ${method} ${path}`)
    const text = await soon(response.text(), () => `the end of the answer to ${method} ${path}`)
    const isJson = response.headers.get('content-type') === 'application/json'
    return { status: response.status, headers: response.headers, body: isJson && text ? JSON.parse(text) : text }
  }

  /** Follows a run first and starts it then, as the page does; throws when it is refused. */
  async start(method: string, args: unknown[] = [], options: { id?: string; callId?: string; timeLimit?: number } = {}): Promise<Run> {
    const id = options.id ?? randomUUID()
    const reader = await this.follow(id)
    const { status, body } = await this.request('POST', '/tasks', { method, args, ...options, id })
    if (status === 202) return new Run(this, id, body.pid, reader)
    assert.equal(status, 504, JSON.stringify(body)) // the machine is slow: the call may have been executed all the same
    const [start] = (await reader.until(({ entries }) => entries.length > 0)).entries
    return new Run(this, id, (start as Entry & { type: 'start' }).data.pid, reader)
  }

  async connect(headers: Record<string, string> = {}): Promise<WebSocket> {
    const socket = new WebSocket(this.url.replace('http', 'ws') + '/log', { headers, perMessageDeflate: false })
    socket.on('error', () => {})
    await soon(once(socket, 'open'), () => 'a WebSocket')
    return socket
  }

  /** A reader over a WebSocket, from a position on; whenever it is cut off, it comes back, as the page does. */
  async follow(id: string, next = 0): Promise<Reader> {
    const reader = new Reader(id, next)
    await this.#attach(reader)
    return reader
  }

  async #attach(reader: Reader) {
    const socket = await this.connect()
    reader.attach(socket)
    socket.once('close', () => void this.#comeBack(reader))
  }

  async #comeBack(reader: Reader) {
    while (!this.#hasEnded && !reader.isDone && !reader.hasLeft) {
      try {
        return await this.#attach(reader)
      } catch {
        await sleep(100) // the web server does not run
      }
    }
  }

  /** Asks the workers server as any other client would, with the frames as they are; [tag, payload]. */
  async call(...frames: (string | Buffer)[]): Promise<[string, string]> {
    const socket = new Request({ linger: 0, receiveTimeout: 60_000 })
    socket.connect(this.env.REP_ADDR ?? `ipc://${this.runs}/rep.sock`)
    try {
      await socket.send(frames)
      const [tag, payload] = await socket.receive()
      return [String(tag), String(payload)]
    } finally {
      socket.close()
    }
  }

  /**
   * Stops a process that follows these runs, and fills the queue of ZeroMQ on the way to it with old chunks: what is
   * published from now on is dropped until it goes on.
   */
  async stall(follower: ChildProcess, ...ids: string[]) {
    const socket = new XPublisher({ sendHighWaterMark: 0, linger: 10_000 }) // not a Publisher: that cannot tell when it is subscribed to
    socket.connect(`ipc://${this.runs}/xsub.sock`)
    const missing = new Set(ids)
    while (missing.size) {
      const [subscription] = await soon(socket.receive(), () => `subscriptions to ${[...missing]}`)
      missing.delete(String(subscription).slice(1))
    }
    follower.kill('SIGSTOP')
    for (let i = 0; i < 20_000; i++) await socket.send([ids[0]!, '0', ''])
    socket.close()
  }

  /** Until so few runs have a place: a process takes a moment longer to go than its run. */
  untilRunning(most = 0) {
    return until(async () => (await this.request('GET', '/health')).body.running <= most, `at most ${most} runs have a place`)
  }

  /** Lets go a run that waits for it. */
  letGo(name: string) { writeFileSync(join(this.runs, 'files', name), '') }

  async upload(content: string | Buffer): Promise<string> {
    const { status, body } = await this.request('POST', '/files', Buffer.from(content))
    assert.equal(status, 201, JSON.stringify(body))
    return body.file
  }
}

/** Starts both servers; they are ended with the test. */
export async function startApp(t: TestContext, env: Record<string, string> = {}): Promise<App> {
  const app = new App(env)
  t.after(() => app.end())
  await app.startBoth()
  return app
}

let addresses = 0

/** A loopback address that nobody else of these tests has: whoever must know a port beforehand is alone there. */
export const ownAddress = () => `127.${++addresses}.${process.pid >> 8 & 255}.${process.pid & 255}`

/** TCP addresses that nobody else has: both servers must know them beforehand. */
export function tcpAddresses(): Record<string, string> {
  const host = ownAddress()
  return { REP_ADDR: `tcp://${host}:7001`, XSUB_ADDR: `tcp://${host}:7002`, XPUB_ADDR: `tcp://${host}:7003` }
}

/** A client of the WebSocket that checks the promise: no hole, no overlap, bytes as in the log, nothing after `done`. */
export class Reader {
  readonly id: string
  next: number
  entries: Entry[] = []
  /** The lines as they stand in the log. */
  lines: string[] = []
  errors: string[] = []
  /** What it was told about the workers server: whether it answers. */
  workers: boolean[] = []
  socket?: WebSocket
  hasLeft = false
  #broken?: unknown
  #waiting: (() => void)[] = []

  constructor(id: string, next = 0) {
    this.id = id
    this.next = next
  }

  /** Goes on over this connection, from where it is. */
  attach(socket: WebSocket) {
    this.socket = socket
    socket.on('message', text => this.receive(String(text)))
    socket.send(JSON.stringify({ start: this.id, next: this.next }))
  }

  leave() {
    this.hasLeft = true
    this.socket?.terminate()
  }

  receive(text: string) {
    const message = JSON.parse(text)
    if ('workers' in message) this.workers.push(message.workers)
    else if (message.id !== this.id) return
    else if (message.error) this.errors.push(message.error)
    else try {
      this.take(message)
    } catch (error) {
      if (!this.#waiting.length) throw error
      this.#broken = error // thrown in here, it would leave those who wait waiting; see until()
    }
    if (message.entries) this.socket?.send(JSON.stringify({ ack: this.id, next: this.next }))
    this.#waiting.splice(0).forEach(wake => wake())
  }

  take({ next, entries }: { next: number; entries: Entry[] }) {
    assert.ok(!this.isDone, `nothing follows done in ${this.id}`)
    const lines = entries.map(entry => JSON.stringify(entry))
    const size = lines.reduce((sum, line) => sum + Buffer.byteLength(line) + 1, 0)
    assert.equal(next, this.next + size, `a hole or an overlap in ${this.id} at ${this.next}`)
    this.next = next
    this.entries.push(...entries)
    this.lines.push(...lines)
  }

  get isDone() { return this.entries.at(-1)?.type === 'done' }

  /** Until something holds of this reader; looks again after each message. Throws when the promise has been broken. */
  async until(holds: (reader: this) => boolean): Promise<this> {
    while (!this.#broken && !holds(this)) {
      const more = new Promise<void>(resolve => this.#waiting.push(resolve))
      await soon(more, () => `more of ${this.id}, until ${holds}; ${this.entries.length} entries have come, and ${this.errors}`)
    }
    if (this.#broken) throw this.#broken
    return this
  }

  /** All entries, when the run has ended. */
  async done(): Promise<Entry[]> {
    await this.until(() => this.isDone)
    return this.entries
  }
}

/** A run that was started, and a reader that follows it. */
export class Run {
  readonly app: App
  readonly id: string
  readonly pid: number
  readonly reader: Reader

  constructor(app: App, id: string, pid: number, reader: Reader) {
    this.app = app
    this.id = id
    this.pid = pid
    this.reader = reader
  }

  entries() { return this.reader.done() }

  /** The types of all entries, when the run has ended. */
  async types() { return (await this.entries()).map(({ type }) => type) }

  /** What `done` says, after checking that the reader has seen the log byte for byte. */
  async outcome() {
    const last = (await this.entries()).at(-1)!
    assert.equal(this.reader.lines.join('\n') + '\n', this.log(), 'the reader has the log, byte for byte')
    assert.equal(last.type, 'done')
    return (last as Entry & { type: 'done' }).data
  }

  log() { return readFileSync(join(this.app.runs, `${this.id}.ndjson`), 'utf8') }

  cancel() { return this.app.request('DELETE', `/tasks/${this.id}`) }
}

/**
 * Reads a log that comes as Server-Sent Events. Entries count with the offset that follows them: who is cut off between
 * the two comes again with the last offset, and gets them again.
 */
export function onEvents(response: IncomingMessage, take: (part: EventPart) => void) {
  let text = ''
  let entries: Entry[] = []
  response.on('error', () => {}).setEncoding('utf8').on('data', (part: string) => {
    const events = (text + part).split('\n\n')
    text = events.pop()!
    for (const event of events.filter(event => event !== ':')) {
      const found = /^event: (data|control)\ndata:([^\n]*)$/.exec(event) ?? assert.fail(`not an event: ${event}`)
      const value = JSON.parse(found[2]!)
      if (found[1] === 'data') entries = value
      else take({ next: Number(value.streamNextOffset), entries: entries.splice(0), isClosed: value.streamClosed })
    }
  })
}

type EventPart = { next: number; entries: Entry[]; isClosed?: boolean }

/** A client of Server-Sent Events; what it gets is checked as a page's is. */
export class Events {
  readonly reader: Reader
  /** Whether it was told that nothing will come any more. */
  isClosed = false
  response?: IncomingMessage
  #opened!: Promise<unknown>
  #closed!: Promise<unknown>
  #app: App

  constructor(app: App, id: string, next = 0) {
    this.#app = app
    this.reader = new Reader(id, next)
    this.connect()
  }

  /** Goes on from where it is. */
  connect() {
    const { id, next } = this.reader
    const asked = get(`${this.#app.url}/tasks/${id}/log?live=sse&offset=${next}`, { agent: false }).on('error', () => {})
    this.#opened = once(asked, 'response').then(([response]) => { this.#read(response) })
    this.#opened.catch(() => {}) // the server has been killed meanwhile
    this.#closed = new Promise(resolve => asked.once('close', resolve))
  }

  get opened() { return soon(this.#opened, () => `the beginning of the events of ${this.reader.id}`) }
  get closed() { return soon(this.#closed, () => `the end of the events of ${this.reader.id}`) }

  #read(response: IncomingMessage) {
    assert.equal(response.statusCode, 200)
    this.response = response
    onEvents(response, ({ next, entries, isClosed }) => {
      this.isClosed = isClosed === true
      if (entries.length) this.reader.receive(JSON.stringify({ id: this.reader.id, next, entries }))
    })
  }
}

/** What opens a WebSocket. */
export const UPGRADE = {
  Connection: 'Upgrade', Upgrade: 'websocket',
  'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': 'AAAAAAAAAAAAAAAAAAAAAA==',
}

export const port = ({ url }: App) => Number(new URL(url).port)

/** The answer to a raw request, as it came. */
export type RawAnswer = { about: string; status: number; headers: IncomingHttpHeaders; body: string }

/** A request with headers as they are, `Host` and `Origin` too. */
export function ask(
  where: App | HttpsOptions, method: string, path: string, headers: OutgoingHttpHeaders = {}, body?: string | Buffer,
): Promise<RawAnswer> {
  const to = where instanceof App ? { host: '127.0.0.1', port: port(where) } : where
  const request = where instanceof App ? httpRequest : httpsRequest
  const about = `${method} ${path}`
  const answer = new Promise<RawAnswer>((resolve, reject) => {
    const asked = request({ ...to, method, path, headers, agent: false })
    asked.on('response', response => {
      const { statusCode: status = 0, headers } = response
      response.toArray().then(parts => resolve({ about, status, headers, body: String(Buffer.concat(parts)) }), reject)
    })
    asked.on('upgrade', ({ statusCode: status = 0, headers }, socket) => {
      socket.destroy()
      resolve({ about, status, headers, body: '' })
    })
    asked.on('error', reject)
    asked.end(body)
  })
  return soon(answer, () => `an answer to ${about}`)
}

/** The log of a run as it stands in its file. */
export function logOf(app: App, id: string): string {
  return readFileSync(join(app.runs, `${id}.ndjson`), 'utf8')
}

/** What a server holds in memory, in bytes. */
export function memoryOf({ process }: Server): number {
  return 1024 * Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${process.pid}/status`, 'utf8'))![1])
}

/** Numbers below `most` that look random, and are the same every time (mulberry32). */
export function randomFrom(seed: number): (most: number) => number {
  return most => {
    seed = (seed + 0x6d2b79f5) | 0
    let mixed = Math.imul(seed ^ (seed >>> 15), seed | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) % most
  }
}

/** Until a process has gone, of which no event tells when it is not our child. */
export const gone = (pid: number) => until(() => !isThere(pid), `process ${pid} has gone`)

/** A zombie has gone: it has no command line. */
function isThere(pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`).length > 0
  } catch {
    return false
  }
}

/** What is left after the time that an orphan may take to notice: one that was loading notices when it has loaded. */
async function survivors(runs: string) {
  const deadline = Date.now() + 60_000
  let left = processesOf(runs)
  for (; left.length && Date.now() < deadline; left = processesOf(runs)) await sleep(20)
  return left
}

/** The processes that were started with this RUNS folder in their environment, whoever their parent is now. */
export function processesOf(runs: string): { pid: number; command: string }[] {
  const pids = readdirSync('/proc').filter(name => /^\d+$/.test(name)).map(Number)
  return pids.flatMap(pid => {
    try {
      const environment = readFileSync(`/proc/${pid}/environ`, 'utf8')
      if (pid === process.pid || !environment.split('\0').includes(`RUNS=${runs}`)) return []
      return [{ pid, command: readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim() }]
    } catch {
      return [] // it has ended while we looked
    }
  })
}

/** The task processes among them, spares, too. (A server may have started a compiler, which stays as long as it does.) */
export function tasksOf(runs: string): number[] {
  return processesOf(runs).filter(({ command }) => /task\.ts|^longrun /.test(command)).map(({ pid }) => pid)
}
