// The benchmark: what the system costs, beside what one would write without it (plain.js).
//
//   npm run bench                           all rows, in about five minutes
//   npm run bench -- launch update          only those
//   npm run bench -- --busy update eight    beside four endless loops: on a machine that has no time left
//
// Both speak the same HTTP and WebSocket, so each row is one measurement, taken of the two in turns by the same client:
// this process. Settings are the defaults, unless a row names others. Beside each figure stands how busy each core was
// meanwhile. Look for: ROWS; compare(), which takes them; Stopwatch, for all that is measured in entries.

import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { EventEmitter, once } from 'node:events'
import { linkSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { Agent, request, type IncomingMessage } from 'node:http'
import { cpus, tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { createInterface } from 'node:readline'
import { json } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { WebSocket } from 'ws'
import { Publisher, Subscriber } from 'zeromq'
import { App, bareEnvironment, processesOf } from './app.ts'

const MEASURED = 3000 // ms of what runs report
const WARM_UP = 500 // ms before, once all readers hear something
const ACKNOWLEDGED = 64 * 2 ** 10 // bytes after which a page says that it has them
const QUIET = 0.1 // of the time of all cores: what the machine takes for itself
const SATURATED = 0.9 // of the time of all cores: beyond, what is measured is for the most part the wait for a core
const PATIENCE = 10_000 // ms for the machine to become quiet

const { values: options, positionals } = parseArgs({ allowPositionals: true, options: { busy: { type: 'boolean' } } })
const agent = new Agent({ keepAlive: true })
const folder = mkdtempSync(join(tmpdir(), 'longrun-bench-'))
process.once('exit', sweep)
// Not once: a Ctrl-C under npm comes twice, and the second would end us in the middle of sweep().
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => process.exit(1))

/** Microseconds, on a clock that all processes of the machine share. */
export const now = () => Number(process.hrtime.bigint() / 1000n)

/** What is called, as the outside sees it. */
type System = { name: string; url: string }
/** One of the two that are compared; `servers` are process ids. */
type Side = System & { name: 'longrun' | 'plain'; runs: string; servers: number[]; end(): Promise<void> }
/** Gets ready, and returns what is measured then. */
type Measurement = (side: Side) => Promise<() => Promise<number[]>>
type Measured = { values: number[]; load: Load }
type Pair = { longrun: Measured; plain: Measured; isQuiet: boolean }

// ---- The rows

const ROWS: Record<string, () => Promise<void>> = {
  /** From the call to the first entry that the run's own process has made, at a reader that follows it already. */
  async launch() {
    const starts = (count: number, pause: number): Measurement => async side => {
      const page = await Page.open(side)
      return () => repeat(count, async () => {
        await sleep(pause)
        return launch(page, '"type":"msg"')
      })
    }
    print('launch, p50 / p99 ms, one every 300 ms', await compare(starts(25, 300), { rounds: 3 }), tail(1))
    const many = await compare(starts(30, 150), { settings: { PROCESS_LIMIT: '20' } })
    print('launch, p50 / p99 ms, one every 150 ms, `PROCESS_LIMIT=20`', many, tail(1))
  },

  /** As many starts at once as there are places, until the last reply. */
  async burst() {
    const starts = (count: number): Measurement => async side => {
      await becomesQuiet() // all spares are there again
      return async () => {
        const began = now()
        await Promise.all(Array.from({ length: count }, () => start(side, 'stream', [1])))
        return [(now() - began) / 1000]
      }
    }
    print('2 starts at once, last reply, ms', await compare(starts(2), { rounds: 3 }), spread(1))
    const eight = await compare(starts(8), { rounds: 3, settings: { PROCESS_LIMIT: '8', SPARES: '8' } })
    print('8 starts at once, last reply, ms, `PROCESS_LIMIT=8 SPARES=8`', eight, spread(1))
  },

  /** The next start as soon as the last run is done. */
  async back() {
    const measured = await compare(async side => {
      const page = await Page.open(side)
      return () => repeat(20, () => launch(page, '"type":"done"'))
    }, { rounds: 2 })
    print('one run after the other, ms a run', measured, spread(0))
  },

  /** From task.msg() to the reader; and what of that is the way over ZeroMQ, which IPC does not go. */
  async update() {
    print('update, p50 / p99 ms, 200 a second', await compare(latency({ perSecond: 200 }), { rounds: 3 }), tail(2))
    const wire = await compare(async side => side.name === 'longrun' ? alongTheWire(side) : async () => [])
    print('the same, from a PUB by the proxy to a SUB alone', wire, tail(2))
  },

  /** The same of several runs at once, each with a reader. */
  async eight() {
    print('2 runs × 20,000 a second, p50 / p99 ms', await compare(latency({ runs: 2, perSecond: 20_000 })), tail(1))
    const eight = await compare(latency({ runs: 8, perSecond: 5000 }), { settings: { PROCESS_LIMIT: '8' } })
    print('8 runs × 5,000 a second, p50 / p99 ms, `PROCESS_LIMIT=8`', eight, tail(1))
  },

  /** A run that is watched, and starts, beside eight runs that compute without end. */
  async beside() {
    const settings = { PROCESS_LIMIT: '20' }
    const busy = (measurement: Measurement): Measurement => async side => {
      const ids = await Promise.all(Array.from({ length: 8 }, () => start(side, 'burn', [])))
      const measure = await measurement(side)
      return async () => {
        const values = await measure()
        await Promise.all(ids.map(id => ask(side, 'DELETE', `/tasks/${id}`)))
        return values
      }
    }
    const watched = await compare(busy(latency({ perSecond: 25 })), { settings })
    print('25 entries a second beside 8 runs that compute, p50 / p95 ms', watched, tail(1, 0.95))
    const launches = await compare(busy(async side => {
      const page = await Page.open(side)
      return () => repeat(6, async () => {
        await sleep(3000) // a spare takes so long to load there
        return launch(page, '"type":"msg"')
      })
    }), { settings })
    print('launch beside 8 runs that compute, one every 3 s, p50 / p95 ms', launches, tail(1, 0.95))
  },

  /** The same of one run with many readers. */
  async fanout() {
    const many = { readers: 1000, perSecond: 100 }
    print('1,000 readers × 100 a second, p50 / p99 ms', await compare(latency(many)), tail(1))
    print('the same by Server-Sent Events', await compare(latency({ ...many, read: readByEvents })), tail(1))
  },

  /** One run that has nothing else to do. */
  async throughput() {
    const measured = await compare(flatOut(1_000_000, took => 1e12 / took), { rounds: 3 })
    print('flat out, entries a second (more is better)', measured, spread(0))
  },

  /** The log of a run that has ended; of plain it is a static file. */
  async late() {
    const arrive = (log: string, readers: number, read: Read) => compare(async side => {
      const readLog = side.name === 'plain' ? readByParts : read
      return async () => {
        const began = now()
        const read = await Promise.all(Array.from({ length: readers }, () => readLog(side, basename(log, '.ndjson'))))
        if (Math.min(...read) < statSync(log).size) throw new Error(`a reader got ${Math.min(...read)} bytes of ${log}`)
        return [(now() - began) / 1000]
      }
    }, { rounds: 3, log })
    const [large, small] = [writeLog(100_000_000), writeLog(1_000_000)]
    print('late join, 100 MB, by WebSocket, ms', await arrive(large, 1, readByPage), spread(0))
    print('the same by catch-up reads', await arrive(large, 1, readByParts), spread(0))
    print('the same by Server-Sent Events', await arrive(large, 1, readByEvents), spread(0))
    print('late join, 1 MB, 1,000 readers at once, by WebSocket, ms', await arrive(small, 1000, readByPage), spread(0))
  },

  async memory() {
    const idle = await compare(async side => async () => {
      const servers = memory('VmRSS', side.servers)
      const spares = processesOf(side.runs).map(({ pid }) => pid).filter(pid => !side.servers.includes(pid))
      await repeat(4000, async () => void (await Page.open(side)).follow('nobody'))
      return [servers, memory('VmRSS', spares), (memory('VmRSS', side.servers) - servers) / 4000 * 1024]
    })
    const flood = await compare(async side => {
      const [page, stalled, id] = [await Page.open(side), await Page.open(side), randomUUID()]
      void stalled.follow(id)
      stalled.stall()
      return async () => {
        await page.run('stream', [1_000_000], undefined, id)
        return [memory('VmHWM', side.servers)]
      }
    })
    print('memory of the servers, MB', column(idle, 0), spread(0))
    print('memory of a spare, MB', column(idle, 1), spread(0))
    print('memory of each of 4,000 readers, kB', column(idle, 2), spread(0))
    print('memory of the servers in a flood, one reader stalled, at most, MB', flood, spread(0))
  },

  /** A CSV file to JSON lines. */
  async import() {
    const rows = Array.from({ length: 100_000 }, (_, i) => `${i},Anna,anna${i}@example.org,${i}.50,"a note, quoted"\n`)
    const csv = Buffer.from('id,name,email,amount,note\n' + rows.join('').repeat(5))
    const measured = await compare(async side => {
      const page = await Page.open(side)
      const { file } = await post(side, '/files', csv)
      return async () => {
        const began = now()
        await page.run('importCsv', [file])
        return [csv.length / (now() - began)]
      }
    }, { rounds: 3 })
    print(`import of ${(csv.length / 1e6).toFixed(0)} MB, MB/s (more is better)`, measured, spread(0))
  },

  /** What an entry costs when there are more of them, and a delivery when there are more readers. */
  async growth() {
    for (const entries of [1e4, 1e6]) {
      const measured = await compare(flatOut(entries, took => took / entries))
      print(`growth: µs an entry, ${entries} entries`, measured, spread(2))
    }
    for (const readers of [10, 1000]) {
      const measured = await compare(async side => {
        const traffic = await startTraffic(side, { readers, perSecond: 100 })
        return async () => {
          const before = processorTime(side.servers)
          const times = await traffic.end()
          return [(processorTime(side.servers) - before) / times.length]
        }
      })
      print(`growth: µs of the servers a delivery, ${readers} readers`, measured, spread(1))
    }
  },
}

// ---- Both sides

/**
 * Takes a measurement of both, in turns, as the machine is not the same from one minute to the next. Each row has fresh
 * servers, with `settings`, and with `log`, a file, among their runs.
 */
async function compare(measurement: Measurement, { rounds = 1, settings = {}, log = '' } = {}): Promise<Pair> {
  const sides = await Promise.all([startLongrun(settings, log), startPlain(settings, log)])
  const pair: Pair = {
    longrun: { values: [], load: new Load() }, plain: { values: [], load: new Load() }, isQuiet: await becomesQuiet(),
  }
  const loops = options.busy ? Array.from({ length: 4 }, () => spawnNode(['-e', 'for (;;);'], folder)) : []
  try {
    for (let round = 0; round < rounds; round++) {
      for (const side of sides) {
        const measured = pair[side.name]
        const measure = await measurement(side)
        measured.values = measured.values.concat(await measured.load.during(measure))
      }
    }
  } finally {
    for (const loop of loops) loop.kill()
    await Promise.all(sides.map(side => side.end()))
  }
  return pair
}

/** Both servers of ours, with these settings, and with `log` among their runs. */
export async function startLongrun(settings: object, log = ''): Promise<Side> {
  const app = new App({ RUNS: makeRuns(log), ...settings })
  await app.startBoth()
  const servers = [app.workers, app.server].map(({ process }) => process.pid!)
  return { name: 'longrun', url: app.url, runs: app.runs, servers, end: () => app.end() }
}

async function startPlain(settings: object, log: string): Promise<Side> {
  const runs = makeRuns(log)
  const server = spawnNode([join(import.meta.dirname, 'plain.js')], runs, settings)
  const [url] = await once(createInterface(server.stdout), 'line')
  const end = async () => {
    server.kill()
    while (processesOf(runs).length) await sleep(10) // its spares see for themselves that it has gone
  }
  return { name: 'plain', url, runs, servers: [server.pid!], end }
}

function spawnNode(args: string[], runs: string, settings = {}) {
  const env = { ...bareEnvironment(), RUNS: runs, ...settings }
  return spawn(process.execPath, args, { env, stdio: ['ignore', 'pipe', 'inherit'] })
}

/** A folder of which sweep() ends all processes that have it as their RUNS. */
export function makeRuns(log = ''): string {
  const runs = mkdtempSync(join(folder, 'runs-'))
  if (log) linkSync(log, join(runs, basename(log)))
  return runs
}

/** The log of a run that has ended, of about so many bytes. */
function writeLog(bytes: number): string {
  const line = (type: string, data: object) => JSON.stringify({ type, time: Date.now(), data }) + '\n'
  const start = line('start', { method: 'stream', args: [], callId: '', pid: 0, timeLimit: 0 })
  const entry = line('msg', { step: 123_456, text: 'about 80 bytes' })
  const path = join(folder, `log-${bytes}.ndjson`)
  writeFileSync(path, start + entry.repeat(bytes / entry.length) + line('done', { outcome: 'ok', seconds: 1 }))
  return path
}

/** Ends whatever is left, and removes the folder: in the middle of a row, when somebody interrupts it. */
function sweep() {
  const left = () => [folder, ...readdirSync(folder).map(name => join(folder, name))].flatMap(processesOf)
  for (let processes = left(); processes.length; processes = left()) {
    for (const { pid } of processes) {
      try {
        process.kill(pid, 'SIGKILL')
      } catch {} // it has ended meanwhile
    }
  }
  rmSync(folder, { recursive: true, force: true })
}

// ---- The machine

/** How busy each core is while something is measured. */
export class Load {
  #cores: { busy: number; all: number }[] = []

  async during<T>(act: () => Promise<T>): Promise<T> {
    const before = ticks()
    const result = await act()
    this.#cores = ticks().map((after, i) => ({
      busy: after.busy - before[i]!.busy + (this.#cores[i]?.busy ?? 0),
      all: after.all - before[i]!.all + (this.#cores[i]?.all ?? 0),
    }))
    return result
  }

  /** Of all cores, from 0 to 1. */
  get share() { return this.#cores.reduce((sum, { busy, all }) => sum + busy / all, 0) / this.#cores.length }

  toString() {
    const percent = this.#cores.map(({ busy, all }) => Math.round(busy / all * 100)).join(' + ')
    return this.share > SATURATED ? `${percent}, saturated` : percent
  }
}

/** Of each core, since the machine was started. What its host takes for others (steal) is not to be had either. */
function ticks() {
  return readFileSync('/proc/stat', 'utf8').match(/(?<=^cpu\d+ ).*/gm)!.map(line => {
    const times = line.split(' ').map(Number).slice(0, 8) // user, nice, system, idle, iowait, irq, softirq, steal
    const all = times.reduce((sum, time) => sum + time, 0)
    return { busy: all - times[3]! - times[4]!, all }
  })
}

/** Waits until all spares have loaded, and what the last row started is gone; false when the machine stays busy. */
export async function becomesQuiet(): Promise<boolean> {
  for (const deadline = Date.now() + PATIENCE; Date.now() < deadline;) {
    const load = new Load()
    await load.during(() => sleep(300))
    if (load.share < QUIET) return true
  }
  return false
}

/** Megabytes: VmRSS what is resident now, VmHWM the most that was. */
function memory(field: 'VmRSS' | 'VmHWM', pids: number[]): number {
  const sizes = pids.map(pid => new RegExp(`${field}:\\s+(\\d+)`).exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1])
  return sizes.reduce((sum, size) => sum + Number(size) / 1024, 0)
}

/** Microseconds that processes have used so far. */
function processorTime(pids: number[]): number {
  const ticks = pids.flatMap(pid => readFileSync(`/proc/${pid}/stat`, 'utf8').split(' ').slice(13, 15))
  return ticks.reduce((sum, tick) => sum + Number(tick) * 10_000, 0)
}

// ---- The client

export type Entry = { type: string; data: any }
type Followed = { hear: (frame: Buffer) => void; finish: (bytes: number) => void; bytes: number; acknowledged: number }

/** A WebSocket that follows runs, as a page does. */
export class Page {
  readonly #side: System
  readonly #socket: WebSocket
  readonly #runs = new Map<string, Followed>()

  constructor(side: System) {
    this.#side = side
    this.#socket = new WebSocket(`${side.url.replace('http', 'ws')}/log`, { perMessageDeflate: false })
    this.#socket.on('message', (frame: Buffer) => this.#receive(frame))
    this.#socket.on('error', () => {}) // cut off, when its server is ended
  }

  static async open(side: System): Promise<Page> {
    const page = new Page(side)
    await once(page.#socket, 'open')
    return page
  }

  /** Until the run is done: the bytes of its frames. `hear` gets them as they come: not every row wants them parsed. */
  follow(id: string, hear = (_: Buffer) => {}): Promise<number> {
    this.#socket.send(JSON.stringify({ start: id }))
    return new Promise(finish => this.#runs.set(id, { hear, finish, bytes: 0, acknowledged: 0 }))
  }

  /** Follows a run, starts it, and waits until it is done: the bytes of its frames. */
  async run(method: string, args: unknown[], hear?: (frame: Buffer) => void, id = randomUUID()): Promise<number> {
    const done = this.follow(id, hear)
    await start(this.#side, method, args, id)
    return done
  }

  stall() { this.#socket.pause() }

  close() { this.#socket.close() }

  #receive(frame: Buffer) {
    const [, id = '', next = 0] = /^{"id":"([\w-]+)",(?:"next":(\d+))?/.exec(frame.toString('latin1', 0, 120)) ?? []
    const run = this.#runs.get(id)
    if (!run) return
    run.bytes += frame.length
    run.hear(frame)
    if (Number(next) - run.acknowledged > ACKNOWLEDGED) {
      run.acknowledged = Number(next)
      this.#socket.send(JSON.stringify({ ack: id, next: run.acknowledged }))
    }
    if (!frame.includes('"type":"done"', -300)) return
    this.#runs.delete(id)
    run.finish(run.bytes)
  }
}

/** Connects, and reads a run to its end: the bytes that came, which are no less than those of its log. */
type Read = (side: Side, id: string, hear?: (entries: Entry[]) => void) => Promise<number>

const readByPage: Read = async (side, id, hear) => {
  const page = await Page.open(side)
  const bytes = await page.follow(id, hear && (frame => hear(JSON.parse(String(frame)).entries)))
  page.close()
  return bytes
}

const readByEvents: Read = async (side, id, hear) => {
  const response = await ask(side, 'GET', `/tasks/${id}/log?offset=-1&live=sse`)
  let bytes = 0
  let text = ''
  for await (const part of response) {
    bytes += part.length
    if (!hear) continue
    const events = (text + part).split('\n\n')
    text = events.pop()!
    for (const event of events) {
      if (/^event: ?data$/m.test(event)) hear(JSON.parse(event.match(/(?<=^data:).*/gm)!.join('\n')))
    }
  }
  return bytes
}

/** A part at a time, each of which tells where the next one begins; plain has only one. */
const readByParts: Read = async (side, id) => {
  let bytes = 0
  for (let offset: unknown = -1; offset !== undefined;) {
    const response = await ask(side, 'GET', `/tasks/${id}/log?offset=${offset}`)
    for await (const part of response) bytes += part.length
    offset = response.headers['stream-up-to-date'] ? undefined : response.headers['stream-next-offset']
  }
  return bytes
}

/** Starts a run, and returns its id. Throws when it is refused. */
export async function start(side: System, method: string, args: unknown[], id: string = randomUUID()): Promise<string> {
  await post(side, '/tasks', { method, args, id })
  return id
}

/** Milliseconds from the call to a certain entry. */
function launch(page: Page, awaited: string): Promise<number> {
  const began = now()
  return new Promise((resolve, reject) => {
    page.run('stream', [1], frame => {
      if (frame.includes(awaited)) resolve((now() - began) / 1000)
    }).catch(reject)
  })
}

async function post(side: System, path: string, body: object): Promise<any> {
  return json(await ask(side, 'POST', path, body))
}

async function ask(side: System, method: string, path: string, body?: object): Promise<IncomingMessage> {
  const sent = request(side.url + path, { method, agent, headers: { 'content-type': 'application/json' } })
  sent.end(body && (Buffer.isBuffer(body) ? body : JSON.stringify(body)))
  const [response] = await once(sent, 'response') as [IncomingMessage]
  if (response.statusCode === 503) { // no place: the process of the last run has not quite gone
    response.resume()
    await sleep(1)
    return ask(side, method, path, body)
  }
  if (response.statusCode! >= 300) throw new Error(`${side.name} answers ${response.statusCode} to ${method} ${path}`)
  return response
}

/** About 80 bytes an entry, as fast as a run can make them; the reader does not parse them. `took` in microseconds. */
const flatOut = (entries: number, figure: (took: number) => number): Measurement => async side => {
  const page = await Page.open(side)
  return async () => {
    const began = now()
    const bytes = await page.run('stream', [entries])
    if (bytes < entries * 75) throw new Error(`only ${bytes} bytes of ${entries} entries`)
    return [figure(now() - began)]
  }
}

type Traffic = { runs?: number; readers?: number; perSecond: number; read?: Read }

const latency = (traffic: Traffic): Measurement => async side => (await startTraffic(side, traffic)).end

/** Starts runs that report at a rate, and readers of each. `end` is for what they measure. */
async function startTraffic(side: Side, { runs = 1, readers = 1, perSecond, read = readByPage }: Traffic) {
  const watch = new Stopwatch(runs * readers)
  const ids = await Promise.all(Array.from({ length: runs }, () => start(side, 'rate', [1e9, perSecond])))
  const followers = ids.flatMap(id => Array.from({ length: readers }, () => read(side, id, watch.listener())))
  const reading = Promise.all(followers)
  await Promise.race([watch.begin(), reading]) // a reader that fails would never hear anything
  reading.catch(() => {}) // in the end they are cut off, with their servers
  const end = async () => {
    const times = await watch.end()
    await Promise.all(ids.map(id => ask(side, 'DELETE', `/tasks/${id}`)))
    return times
  }
  return { end }
}

/**
 * How long entries are on their way to some readers. It takes those that are made within MEASURED, and waits until each
 * reader has heard a later one, as the slowest must not be left out. Throws where a reader misses an entry.
 */
class Stopwatch extends EventEmitter<{ begun: []; over: [] }> {
  readonly #times: number[] = []
  #silent: number
  #waiting: number
  #from = Infinity
  #until = Infinity

  constructor(readers: number) {
    super()
    this.#silent = this.#waiting = readers
  }

  async begin() {
    await once(this, 'begun')
    await sleep(WARM_UP)
    this.#from = now()
    this.#until = this.#from + MEASURED * 1000
  }

  /** In milliseconds. */
  async end(): Promise<number[]> {
    await once(this, 'over')
    return this.#times
  }

  /** For one reader. */
  listener(): (entries: Entry[]) => void {
    let next = -1
    let isOver = false
    return entries => {
      const time = now()
      for (const { type, data: { step, at } } of entries) {
        if (type !== 'msg') continue
        if (next < 0 && --this.#silent === 0) this.emit('begun')
        if (next >= 0 && step !== next) throw new Error(`a reader got entry ${step} instead of ${next}`)
        next = step + 1
        if (at >= this.#from && at < this.#until) this.#times.push((time - at) / 1000)
      }
      if (isOver || !(entries.at(-1)?.data.at >= this.#until)) return
      isOver = true
      if (--this.#waiting === 0) this.emit('over')
    }
  }
}

/** How long messages of the size of an entry take from a PUB to a SUB, through the proxy of the workers server. */
async function alongTheWire({ runs }: Side) {
  const publisher = new Publisher({ linger: 0 })
  const subscriber = new Subscriber({ linger: 0 })
  publisher.connect(`ipc://${runs}/xsub.sock`)
  subscriber.connect(`ipc://${runs}/xpub.sock`)
  subscriber.subscribe('wire')
  await sleep(WARM_UP)
  return () => repeat(MEASURED / 5, async () => {
    await sleep(5)
    const sent = now()
    await publisher.send(['wire', '0', 'x'.repeat(80)])
    await subscriber.receive()
    return (now() - sent) / 1000
  })
}

/** One after the other. */
export async function repeat<T>(count: number, act: () => Promise<T>): Promise<T[]> {
  const results: T[] = []
  for (let i = 0; i < count; i++) results.push(await act())
  return results
}

// ---- The table

type Show = (values: number[]) => string

/** 0 is the smallest, 0.5 the median. */
export function quantile(values: number[], q: number): number {
  const sorted = Float64Array.from(values).sort()
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))]!
}

/** The median, and what only one in a hundred exceeds. */
const tail = (digits: number, most = 0.99): Show => values => [0.5, most].map(q => quantile(values, q).toFixed(digits)).join(' / ')

/** The median, with the smallest and the largest of several. */
const spread = (digits: number): Show => values => {
  const [least, median = '', most] = [0, 0.5, 1].map(q => quantile(values, q).toFixed(digits))
  return values.length > 1 ? `${median} (${least}–${most})` : median
}

/** One value of several that were measured at once. */
function column({ longrun, plain, isQuiet }: Pair, i: number): Pair {
  const pick = ({ values, load }: Measured) => ({ values: values.slice(i, i + 1), load })
  return { longrun: pick(longrun), plain: pick(plain), isQuiet }
}

function print(what: string, { longrun, plain, isQuiet }: Pair, show: Show) {
  const beside = options.busy ? ', beside four endless loops' : ''
  const name = what + beside + (isQuiet ? '' : ' (something else was running)')
  const cells = [longrun, plain].map(({ values, load }) => values.length ? `${show(values)} | ${load}` : '– | –')
  const ratio = plain.values.length ? (quantile(longrun.values, 0.5) / quantile(plain.values, 0.5)).toFixed(2) : '–'
  console.log(`| ${name} | ${cells.join(' | ')} | ${ratio} |`)
}

// ---- The program

if (process.argv[1] === import.meta.filename) {
  const unknown = positionals.find(name => !Object.hasOwn(ROWS, name))
  if (unknown) {
    console.error(`there is no row ${unknown}: ${Object.keys(ROWS).join(', ')}`)
    process.exit(1)
  }
  console.log(`Node ${process.version}, ${cpus().length} processors (${cpus()[0]!.model.trim()})\n`)
  console.log('| what | longrun | cores, % | plain | cores, % | ratio |\n| --- | --- | --- | --- | --- | --- |')
  for (const name of positionals.length ? positionals : Object.keys(ROWS)) await ROWS[name]!()
  process.exit() // without waiting for readers that were cut off
}
