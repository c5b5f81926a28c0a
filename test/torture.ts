// The random fault run: the whole system, runs and readers that keep coming, and a plan of faults that a seed makes.
//
//   npm run torture -- --seconds 60 --seed 7
//
// Every chunk that a reader gets is compared with the log as it arrives, byte for byte; at the end everything is
// started again, all runs end, and each reader must have each run whole. Look for: WHAT_HAPPENS, the faults and how
// often they come; Follower, which checks; Torture, which lives through it.

import { once } from 'node:events'
import { closeSync, existsSync, openSync, readdirSync, readFileSync, readSync, statSync, utimesSync } from 'node:fs'
import { get, type IncomingMessage, request } from 'node:http'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { WebSocket } from 'ws'
import { Dealer, Publisher, Subscriber } from 'zeromq'
import { type Entry, unpackEntry } from '../log.ts'
import { packChunk } from '../protocol.ts'
import { App, onEvents, processesOf, Reader, until } from './app.ts'

export type Options = {
  seconds: number
  seed: number
  /** What happens; the default is made from the seed. */
  plan?: Step[]
  /** How long everything may take to be whole again after the last fault, in seconds. */
  patience?: number
  /** More of the environment of both servers. */
  env?: Record<string, string>
  say?: (line: string) => void
}
export type Summary = { seed: number; runs: number; started: number; readers: number; entries: number; steps: Record<string, number>; problems: string[] }

// ---- The plan

/** Something that happens: when (ms from the start), to whom (`pick`, from 0 to 1, of those there are), for how long. */
export type Step = { at: number; what: keyof typeof WHAT_HAPPENS; pick: number; ms: number }

const PAUSE = 120 // ms between two steps, on average
const USUAL_START = 1500 // ms for both servers: where it takes longer, the plan goes slower, too, to find them at work

/** The same seed makes the same plan. */
export function makePlan(seed: number, seconds: number): Step[] {
  const random = randomNumbers(seed)
  const lots = Object.entries(WHAT_HAPPENS).flatMap(([what, [weight]]) => Array<string>(weight).fill(what)) as Step['what'][]
  const steps: Step[] = []
  for (let at = 0; at < seconds * 1000; at += Math.round(random() * 2 * PAUSE)) {
    // 50 ms to 5 s, short ones more often
    steps.push({ at, what: choose(lots, random()), pick: random(), ms: Math.round(50 * 100 ** random()) })
  }
  return steps
}

/** Numbers from 0 to 1 (mulberry32): small, and the same everywhere. */
function randomNumbers(seed: number): () => number {
  return () => {
    seed = seed + 0x6d2b79f5 | 0
    let mixed = Math.imul(seed ^ seed >>> 15, seed | 1)
    mixed ^= mixed + Math.imul(mixed ^ mixed >>> 7, mixed | 61)
    return ((mixed ^ mixed >>> 14) >>> 0) / 2 ** 32
  }
}

const choose = <T>(items: readonly T[], pick: number) => items[Math.floor(pick * items.length)]!

/** How often, in parts of the whole; and what. */
const WHAT_HAPPENS = {
  'a run starts': [24, (torture: Torture, step: Step) => torture.startRun(step)],
  'a page opens': [14, (torture: Torture, step: Step) => torture.open(new Page(torture, torture.someRuns(step)))],
  'a client of events comes': [8, (torture: Torture, step: Step) => torture.open(new Stream(torture, torture.someRuns(step).slice(0, 1)))],
  'a run is cancelled': [4, (torture: Torture, step: Step) => torture.ask('DELETE', `/tasks/${choose(torture.runs, step.pick)?.id}`)],
  'the web server is killed': [2, (torture: Torture, step: Step) => torture.kill('server', step)],
  'the web server is stopped': [2, (torture: Torture, step: Step) => torture.pause('server', step)],
  'the workers server is killed': [2, (torture: Torture, step: Step) => torture.kill('workers', step)],
  'the workers server is stopped': [2, (torture: Torture, step: Step) => torture.pause('workers', step)],
  'a task is killed': [3, (torture: Torture, step: Step) => torture.kill('task', step)],
  'a task is stopped': [3, (torture: Torture, step: Step) => torture.pause('task', step)],
  'a connection breaks': [8, (torture: Torture, { pick }: Step) => torture.someReader(pick)?.connection?.drop()],
  'a reader stalls': [8, (torture: Torture, step: Step) => torture.stall(step)],
  'an upload breaks off': [2, (torture: Torture, step: Step) => torture.breakUpload(step)],
  'garbage for HTTP': [2, (torture: Torture, { pick }: Step) => sendRaw(Number(new URL(torture.app.url).port), choose(GARBAGE, pick))],
  'garbage for the WebSocket': [2, (torture: Torture, { pick }: Step) => sendMessage(torture.app, choose(MESSAGES, pick))],
  'garbage for a socket of ZeroMQ': [2, (torture: Torture, { pick }: Step) => sendRaw(torture.socket(choose(['rep', 'xsub', 'xpub'], pick)), choose(GARBAGE, pick * 7 % 1))],
  'a strange peer of ZeroMQ': [3, (torture: Torture, { pick, ms }: Step) => choose([askNonsense, publishNonsense, hearEverything], pick)(torture, ms)],
} satisfies Record<string, [weight: number, happen: (torture: Torture, step: Step) => unknown]>

/** The calls that are made. */
const CALLS: ((ms: number) => [method: string, args: unknown[], timeLimit?: number])[] = [
  ms => ['process', [Math.ceil(ms / 10), 10]],
  ms => ['process', [20 * ms, 0]],
  ms => ['process', [10, 100], ms / 5000],
  ms => ['flood', [10 * ms]],
  ms => ['crash', ['on purpose', ms]],
  () => ['exit', [3]],
  () => ['suicide', ['SIGSEGV']],
  () => ['forget', [], 2],
  () => ['late', []],
  ms => ['spin', [ms / 2000]],
  ms => ['deaf', [ms / 1000]],
  () => ['polite', [], 3],
  () => ['parent', ['return']],
  () => ['parent', ['throw']],
  () => ['parent', ['wait'], 2],
  ms => ['text', [200 * ms]],
  ms => ['produce', [ms]],
]

// ---- Garbage

const GARBAGE = [
  Buffer.alloc(1000, 0xff), Buffer.alloc(100_000), Buffer.from([0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3]), Buffer.from('\n'),
  Buffer.from('GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n'), Buffer.from('GET /%00%zz HTTP/1.1\r\n\r\n'),
  Buffer.from(`POST /tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n${'['.repeat(50_000)}`),
  Buffer.from('GET /log HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n'),
]

function sendRaw(to: number | string, bytes: Buffer) {
  const socket = connect(to as number).on('error', () => {}) // nobody there, at the moment
  socket.setTimeout(1000, () => socket.destroy()).resume().write(bytes)
}

const MESSAGES = [
  '', '{', '[]', 'null', '{"start":1}', '{"start":"../../etc/passwd"}', '{"start":"run-1","next":-1}', '{"ack":"run-1","next":1e999}',
  '{"stop":{}}', '['.repeat(60_000), 'x'.repeat(100_000), Buffer.alloc(1000, 0xff),
]

function sendMessage(app: App, message: string | Buffer) {
  const socket = new WebSocket(app.url.replace('http', 'ws') + '/log').on('error', () => {})
  socket.once('open', () => socket.send(message, () => setTimeout(() => socket.terminate(), 100)))
}

async function askNonsense(torture: Torture, ms: number) {
  const dealer = new Dealer({ linger: 0, sendTimeout: 500 })
  dealer.connect(`ipc://${torture.socket('rep')}`)
  for (const frames of [[''], ['nonsense'], ['', '', '', '', ''], ['', 'process', '', 'x y', '[]'], ['', 'read', '', 'call', '["run-1",0.5]'], Array<string>(50).fill(''), ['', 'list', '', 'call', '[]']]) {
    await dealer.send(frames).catch(() => {})
  }
  await sleep(ms)
  dealer.close()
}

async function publishNonsense(torture: Torture, ms: number) {
  const publisher = new Publisher({ linger: 0, sendTimeout: 0 })
  publisher.connect(`ipc://${torture.socket('xsub')}`)
  await sleep(200) // a publisher cannot know when it is connected
  const { id } = torture.runs.findLast(({ accepted }) => accepted) ?? { id: 'nobody' }
  const lie = packChunk({ id, position: 1e9, lines: Buffer.alloc(0) }) // that the log is longer than it is
  for (const frames of [[''], ['run-1'], ['run-1', '0'], ['run-1', '-5', '\n'], ['run-1', 'x', 'y\n'], ['run-', '0', '{}\n'], ['run-1', '5', 'no end'], ['run-1', '0', Buffer.alloc(10), '\n'], lie]) {
    await publisher.send(frames).catch(() => {})
  }
  await sleep(ms)
  publisher.close()
}

/** Subscribes to everything, and reads nothing. */
async function hearEverything(torture: Torture, ms: number) {
  const subscriber = new Subscriber({ linger: 0, receiveHighWaterMark: 1 })
  subscriber.connect(`ipc://${torture.socket('xpub')}`)
  subscriber.subscribe()
  await sleep(ms)
  subscriber.close()
}

// ---- Readers

/** What a reader gets of one run, compared with the log as it comes: what can be seen stands in the log already. */
export class Follower extends Reader {
  entryCount = 0
  #log: string
  #report: (problem: string) => void
  #ended = false

  constructor(id: string, log: string, report: (problem: string) => void) {
    super(id)
    this.#log = log
    this.#report = problem => report(`a reader of ${id}: ${problem}`)
  }

  override get isDone() { return this.#ended }

  override take({ next, entries }: { next: number; entries: Entry[] }) {
    const lines = Buffer.from(entries.map(entry => `${JSON.stringify(entry)}\n`).join(''))
    const position = next - lines.length
    if (this.#ended) this.#report(`got entries at ${position}, after done`)
    if (position > this.next) this.#report(`a hole from ${this.next} to ${position}`)
    if (position < this.next) this.#report(`an overlap from ${position} to ${this.next}`)
    if (!lines.equals(readBytes(this.#log, position, lines.length))) this.#report(`what it got at ${position} is not what the log says`)
    this.next = next
    this.entryCount += entries.length
    this.#ended = entries.at(-1)?.type === 'done'
  }
}

function readBytes(path: string, position: number, length: number): Buffer {
  const bytes = Buffer.alloc(length)
  const file = openSync(path, 'r')
  const read = readSync(file, bytes, 0, length, Math.max(0, position))
  closeSync(file)
  return bytes.subarray(0, read)
}

type Connection = { stall(): void; goOn(): void; drop(): void; closed: Promise<unknown> }

/** Somebody who follows runs over one connection, and connects again when it breaks, from where it was. */
abstract class Client {
  readonly followers: Follower[]
  readonly app: App
  connection?: Connection
  #hasLeft = false

  constructor({ app, report }: Torture, runs: Started[]) {
    this.app = app
    this.followers = runs.map(({ id }) => new Follower(id, join(app.runs, `${id}.ndjson`), report))
  }

  abstract connect(): Promise<Connection>

  get isDone() { return this.followers.every(({ isDone }) => isDone) }

  async read() {
    while (!this.isDone && !this.#hasLeft) {
      this.connection = await this.connect().catch(() => undefined) // the server is down
      await this.connection?.closed
      await sleep(200)
    }
  }

  leave() {
    this.#hasLeft = true
    this.connection?.drop()
  }
}

class Page extends Client {
  async connect() {
    const socket = await this.app.connect()
    const open = this.followers.filter(({ isDone }) => !isDone)
    for (const follower of open) follower.attach(socket)
    // For a moment longer than needed: nothing may follow.
    socket.on('message', () => open.every(({ isDone }) => isDone) && setTimeout(() => socket.terminate(), 300))
    return { stall: () => socket.pause(), goOn: () => socket.resume(), drop: () => socket.terminate(), closed: new Promise(resolve => socket.once('close', resolve)) }
  }
}

class Stream extends Client {
  async connect() {
    const [follower] = this.followers as [Follower]
    const asked = get(`${this.app.url}/tasks/${follower.id}/log?offset=${follower.next}&live=sse`, { agent: false })
    const [response] = await once(asked, 'response') as [IncomingMessage]
    const closed = once(response, 'close')
    onEvents(response, ({ next, entries }) => {
      if (entries.length) follower.receive(JSON.stringify({ id: follower.id, next, entries }))
    })
    if (response.statusCode !== 200) response.destroy() // it has not begun
    return { stall: () => response.pause(), goOn: () => response.resume(), drop: () => response.destroy(), closed }
  }
}

// ---- The whole

type Which = 'server' | 'workers' | 'task'
/** A run that was asked for. `accepted`: the answer was that it has been started. */
type Started = { id: string; accepted: boolean }

class Torture {
  readonly app: App
  readonly runs: Started[] = []
  readonly clients: Client[] = []
  readonly problems: string[] = []
  readonly steps: Record<string, number> = {}
  readonly options: Required<Options>
  #down = { workers: 0, server: 0 } // ms for which a server stays down when it is killed
  #isUp = { workers: true, server: true }
  #killed = new Set<number>()
  #isOver = false

  constructor(options: Options) {
    this.options = { plan: makePlan(options.seed, options.seconds), patience: 60, env: {}, say: () => {}, ...options }
    this.app = new App({ PROCESS_LIMIT: '6', KEEP_RUNS: '100000', ...this.options.env })
  }

  report = (problem: string) => {
    this.problems.push(problem)
    this.options.say(`PROBLEM: ${problem}`)
  }

  async run(): Promise<Summary> {
    try {
      await this.#live()
      await this.#makeWhole()
      await this.#checkLogs()
      await this.#stop()
    } finally {
      this.#isOver = true
      this.clients.forEach(client => client.leave())
      await this.app.end().catch(error => this.report(error.message))
    }
    const followers = this.clients.flatMap(({ followers }) => followers)
    return {
      seed: this.options.seed,
      runs: this.runs.length,
      started: this.runs.filter(({ accepted }) => accepted).length,
      readers: followers.length,
      entries: followers.reduce((sum, { entryCount }) => sum + entryCount, 0),
      steps: this.steps,
      problems: this.problems,
    }
  }

  async #live() {
    const { plan, seconds, say } = this.options
    const launched = Date.now()
    await this.app.startWorkers()
    await this.app.startServer()
    const began = Date.now()
    const slowness = Math.min(4, Math.max(1, (began - launched) / USUAL_START))
    say(`the plan takes ${Math.round(seconds * slowness)} s on this machine`)
    void this.#keepRunning('workers')
    void this.#keepRunning('server')
    for (const step of plan) {
      await sleep(Math.max(0, step.at * slowness - (Date.now() - began)))
      say(`${(step.at / 1000).toFixed(2).padStart(7)} s  ${step.what} (pick ${step.pick.toFixed(3)}, ${step.ms} ms)`)
      this.steps[step.what] = (this.steps[step.what] ?? 0) + 1
      void Promise.resolve(WHAT_HAPPENS[step.what][1](this, step)).catch(error => this.report(`${step.what}: ${error.stack}`))
    }
  }

  // ---- What happens

  async startRun({ pick, ms }: Step) {
    const run = { id: `run-${this.runs.length}`, accepted: false } // run-1 and run-10: topics that begin alike
    this.runs.push(run)
    if (ms % 2) this.open(new Page(this, [run])) // half of them are followed before they exist
    const [method, args, timeLimit] = choose(CALLS, pick)(ms)
    const status = await this.ask('POST', '/tasks', { id: run.id, method, args, timeLimit })
    this.options.say(`           ${run.id} (${method}): ${status ?? 'no answer'}`)
    run.accepted = status === 202
    if (status && ![202, 503, 504].includes(status)) this.report(`${run.id} was answered with ${status}`)
  }

  /** The status of the answer; undefined when there was none. */
  async ask(method: string, path: string, body?: unknown): Promise<number | undefined> {
    return (await this.app.request(method, path, body).catch(() => undefined))?.status
  }

  /** One to three of the latest runs. */
  someRuns({ pick, ms }: Step): Started[] {
    const latest = this.runs.slice(-20)
    const from = Math.floor(pick * latest.length)
    return latest.slice(from, from + 1 + ms % 3)
  }

  open(client: Client) {
    if (!client.followers.length) return // no run yet
    this.clients.push(client)
    void client.read()
  }

  /** One that has not got everything yet. */
  someReader(pick: number): Client | undefined {
    return choose(this.clients.filter(({ isDone }) => !isDone), pick)
  }

  stall({ pick, ms }: Step) {
    const connection = this.someReader(pick)?.connection
    connection?.stall()
    setTimeout(() => connection?.goOn(), ms)
  }

  /** A server that is just starting mostly gets through: else a slow machine would never see one at work. */
  kill(which: Which, { pick, ms }: Pick<Step, 'pick' | 'ms'>) {
    if (which !== 'task') {
      if (!this.#isUp[which] && pick > 0.2) return
      this.#down[which] = ms
    }
    const pid = this.#find(which, pick)
    if (!pid) return
    this.#killed.add(pid)
    this.#signal(pid, 'SIGKILL')
  }

  pause(which: Which, { pick, ms }: Step) {
    const pid = this.#find(which, pick)
    if (!pid) return
    this.#signal(pid, 'SIGSTOP')
    setTimeout(() => this.#continue(pid), ms)
  }

  /** Unless it has ended: its id could be another's by then. */
  #continue(pid: number) {
    if (processesOf(this.app.runs).some(process => process.pid === pid)) this.#signal(pid, 'SIGCONT')
  }

  #signal(pid: number, signal: NodeJS.Signals) {
    try {
      process.kill(pid, signal)
    } catch {} // it has ended since it was found
  }

  #find(which: Which, pick: number): number | undefined {
    const command = { workers: /\/workers\.ts$/, server: /\/server\.ts$/, task: /\/tasks\.ts$|^longrun / }[which]
    return choose(processesOf(this.app.runs).filter(process => command.test(process.command)), pick)?.pid
  }

  breakUpload({ ms }: Step) {
    const upload = request(`${this.app.url}/files`, { method: 'POST', agent: false, headers: { 'content-length': 2 ** 20 } })
    upload.on('error', () => {}).write(Buffer.alloc(2 ** 17))
    setTimeout(() => upload.destroy(), Math.min(ms, 1000))
  }

  socket(name: string) { return join(this.app.runs, `${name}.sock`) }

  /** Starts a server again whenever it was killed, as the supervisor of a real system does. */
  async #keepRunning(which: 'workers' | 'server') {
    for (; ;) {
      const { process: { pid }, exited, output } = this.app[which]
      const [code, signal] = await exited
      this.#isUp[which] = false
      if (this.#isOver) return
      if (!this.#killed.has(pid!)) this.report(`the ${which} ended by itself (${code ?? signal}): ${output.slice(-5).join('\n')}`)
      await sleep(this.#down[which])
      await this.#start(which)
      this.#isUp[which] = true
    }
  }

  async #start(which: 'workers' | 'server') {
    while (!this.#isOver) {
      try {
        return await (which === 'workers' ? this.app.startWorkers() : this.app.startServer())
      } catch (error) {
        // Killed while it was starting; or the port was given to somebody else's connection meanwhile.
        if (!/ended at once: $|EADDRINUSE/.test(String(error))) this.report(String(error))
        await sleep(100)
      }
    }
  }

  // ---- The end

  /** A last kill of both servers; then everything goes on, every run ends, and every reader gets the rest. */
  async #makeWhole() {
    const { say, patience } = this.options
    for (const client of this.clients) client.connection?.goOn()
    for (const { pid } of processesOf(this.app.runs)) this.#signal(pid, 'SIGCONT')
    this.#ageUploads()
    for (const which of ['server', 'workers'] as const) this.kill(which, { pick: 0, ms: 0 })
    say('no more faults: everything goes on')

    while (await this.ask('GET', '/health') !== 200) await sleep(100)
    const deadline = Date.now() + patience * 1000
    for (let left = ['everything']; left.length; await sleep(200)) {
      if (Date.now() > deadline) return left.forEach(this.report)
      left = [...await this.#endRuns(), ...this.#unfinishedReaders()]
    }
  }

  /** What a kill of the web server left of an upload is removed an hour later: make it that late. */
  #ageUploads() {
    const folder = join(this.app.runs, 'uploads')
    for (const name of readdirSync(folder)) utimesSync(join(folder, name), 0, 0)
  }

  /** Cancels what runs; says which runs have no end yet. */
  async #endRuns(): Promise<string[]> {
    const answer = await this.app.request('GET', '/tasks').catch(() => undefined)
    if (answer?.status !== 200) return ['the servers do not answer']
    const running = answer.body.filter(({ outcome }: { outcome?: string }) => !outcome).map(({ id }: { id: string }) => id) as string[]
    for (const id of running) await this.ask('DELETE', `/tasks/${id}`)
    return running.map(id => `${id} does not end`)
  }

  #unfinishedReaders(): string[] {
    const followers = this.clients.flatMap(client => client.followers.map(follower => ({ client, follower })))
    return followers.filter(({ follower }) => !follower.isDone && existsSync(this.#log(follower.id)))
      .map(({ client, follower }) => `a reader of ${follower.id} (${client.constructor.name}): stands at ${follower.next} of ${statSync(this.#log(follower.id)).size}`)
  }

  #log(id: string) { return join(this.app.runs, `${id}.ndjson`) }

  async #checkLogs() {
    const { body } = await this.app.request('GET', '/tasks')
    const listed = new Map<string, { size: number; outcome: string }>(body.map((run: { id: string }) => [run.id, run]))
    for (const { id, accepted } of this.runs) {
      if (existsSync(this.#log(id))) this.#checkLog(id, listed.get(id))
      else if (accepted) this.report(`${id} was accepted, and has left no trace`)
    }
    for (const { id, errors } of this.clients.flatMap(({ followers }) => followers)) {
      for (const error of errors) this.report(`a reader of ${id} was told: ${error}`)
    }
  }

  #checkLog(id: string, listed: { size: number; outcome: string } | undefined) {
    const lines = readFileSync(this.#log(id), 'utf8').split('\n')
    if (lines.pop() !== '') this.report(`the log of ${id} ends with half a line`)
    const entries = lines.map(unpackEntry)
    const done = entries.filter(({ type }) => type === 'done') as (Entry & { type: 'done' })[]
    if (entries[0]?.type !== 'start') this.report(`the log of ${id} does not begin with start`)
    if (done.length !== 1 || entries.at(-1) !== done[0]) this.report(`the log of ${id} does not end with its only done`)
    if (listed?.size !== statSync(this.#log(id)).size) this.report(`the log of ${id} is listed with ${listed?.size} bytes`)
    if (listed?.outcome !== done[0]?.data.outcome) this.report(`the end of ${id} is listed as ${listed?.outcome}`)
  }

  /** Stops the servers: no process and no temporary file is left. (That no socket is left, App.end sees to.) */
  async #stop() {
    const { app } = this
    this.#isOver = true
    for (const which of ['server', 'workers'] as const) {
      app[which].process.kill('SIGTERM')
      await app[which].exited
    }
    // A service of the loader ends a moment after its process.
    await until(() => processesOf(app.runs).length === 0).catch(() => {})
    for (const { pid, command } of processesOf(app.runs)) this.report(`process ${pid} is left: ${command}`)
    const expected = /^(run-\d+\.ndjson|files\/run-\d+\.txt|ballast|files|uploads|\w+\.sock)$/
    const left = readdirSync(app.runs, { recursive: true, encoding: 'utf8' }).filter(name => !expected.test(name))
    for (const name of left) this.report(`a file is left: ${name}`)
  }
}

/** Lives through a plan of faults, and tells what came of it. */
export const torture = (options: Options): Promise<Summary> => new Torture(options).run()

/** The summary as lines for a person. */
export function describe({ seed, runs, started, readers, entries, steps, problems }: Summary): string {
  const counts = Object.entries(steps).map(([what, count]) => `${count} × ${what}`).sort()
  return [...problems, `seed ${seed}: ${runs} runs (${started} started), ${readers} readers, ${entries} entries; ${counts.join(', ')}; ${problems.length} problems`].join('\n')
}

if (process.argv[1] === import.meta.filename) {
  const { values } = parseArgs({ options: { seconds: { type: 'string', default: '60' }, seed: { type: 'string' } } })
  const seed = Number(values.seed ?? Date.now() % 1e6)
  console.log(`seed ${seed}`)
  const summary = await torture({ seconds: Number(values.seconds), seed, say: console.log })
  console.log(describe(summary))
  process.exit(summary.problems.length ? 1 : 0)
}
