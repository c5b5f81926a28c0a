// The benchmark: what the system costs, beside the raw limit of the same work, measured in the same run.
//
//   npm run bench            all rows; npm run bench -- launch update   only those
//
// Each row is the median of several rounds, with the smallest and the largest in brackets, or of many samples, with a
// high percentile. Raw limits are processes of their own, too: this file starts itself again as one of the roles at its
// end, with nothing of ours in it.

import { fork, spawn, type ChildProcess } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createReadStream, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { Agent, createServer, get, request, type IncomingMessage, type Server as HttpServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { availableParallelism, cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { WebSocket, WebSocketServer } from 'ws'
import { Proxy, Publisher, Subscriber, XPublisher, XSubscriber } from 'zeromq'
import { App, bareEnvironment, processesOf } from './app.ts'

type Row = { what: string; ours: string; raw: string; ratio: string }
const folder = mkdtempSync(join(tmpdir(), 'longrun-bench-'))
const agent = new Agent({ keepAlive: true })

/** Microseconds on a clock that all processes of the machine share. */
const now = () => Number(process.hrtime.bigint() / 1000n)
const quantile = (values: number[], q: number) => values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * q))] ?? NaN
const spread = (values: number[], digits = 1) =>
  `${quantile(values, 0.5).toFixed(digits)} (${Math.min(...values).toFixed(digits)}–${Math.max(...values).toFixed(digits)})`
const ratio = (ours: number[], raw: number[]) => (quantile(ours, 0.5) / quantile(raw, 0.5)).toFixed(2)

const MEASUREMENTS: Record<string, () => Promise<Row[]>> = {
  /** POST → first entry on an open WebSocket, a process of its own per run, 150 ms apart. */
  async launch() {
    const raw = await startRole('echo')
    const [ours, limit] = [[] as number[], [] as number[]]
    await withApp({ PROCESS_LIMIT: '20' }, async app => {
      const socket = await app.connect()
      const rawSocket = await openSocket(raw.port)
      for (let i = 0; i < 100; i++) {
        await sleep(150)
        ours.push(await launch(app, socket) / 1000)
        const began = now()
        await post(`http://127.0.0.1:${raw.port}`, {})
        rawSocket.send('x')
        await once(rawSocket, 'message')
        limit.push((now() - began) / 1000)
      }
      rawSocket.terminate()
    })
    raw.process.kill()
    const format = (values: number[]) => `${quantile(values, 0.5).toFixed(1)} ms, p95 ${quantile(values, 0.95).toFixed(1)} ms`
    return [{ what: 'launch, 100 starts 150 ms apart', ours: format(ours), raw: format(limit), ratio: ratio(ours, limit) }]
  },

  /** As many starts at once as there are places: until the last reply. */
  async burst() {
    const ours = await withApp({ PROCESS_LIMIT: '8', SPARES: '8' }, app => rounds(6, async () => {
      const began = now()
      await Promise.all(Array.from({ length: 8 }, () => post(`${app.url}/tasks`, { method: 'process', args: [1, 1] })))
      const took = (now() - began) / 1000
      await sleep(5000) // until the spares are there again
      return took
    }))
    ours.shift() // the first one finds code that was never run, and is optimized for the others
    return [{ what: 'burst of 8 starts, last reply, ms', ours: spread(ours), raw: '', ratio: '' }]
  },

  /** The next start as soon as the last run has ended. */
  async back() {
    const ours = await withApp({ PROCESS_LIMIT: '2', SPARES: '2' }, async app => {
      const socket = await app.connect()
      return rounds(50, async () => {
        const began = now()
        await launch(app, socket, true)
        return (now() - began) / 1000
      })
    })
    const raw = await rounds(50, async () => {
      const began = now()
      await once(spawn(process.execPath, ['-e', '0'], { env: bareEnvironment() }), 'exit')
      return (now() - began) / 1000
    })
    return [{ what: 'back to back, a run, ms', ours: spread(ours), raw: spread(raw), ratio: ratio(ours, raw) }]
  },

  /** task.msg() → the reader's handler; in turns, as the machine is not the same from one minute to the next. */
  async update() {
    const [ours, raw] = [[] as number[], [] as number[]]
    await withApp({}, app => rounds(5, async () => {
      ours.push(...await latencies(app, 1, 1000, 200))
      raw.push(...await rawPath(1000, 200))
    }))
    const format = (values: number[]) => `${quantile(values, 0.5).toFixed(2)} ms, p99 ${quantile(values, 0.99).toFixed(2)} ms`
    return [{ what: 'update, 200 a second', ours: format(ours), raw: format(raw), ratio: ratio(ours, raw) }]
  },

  /** One run, a million entries of about 80 bytes; the raw limit sends as many bytes in frames as large. */
  async throughput() {
    let log = { size: 0, frames: 0 }
    const ours = await rounds(5, () => withApp({}, async app => {
      const socket = await app.connect()
      const began = now()
      log = await drain(socket, await startRun(app, socket, 'stream', [1_000_000]))
      return 1_000_002 / ((now() - began) / 1e6)
    }))
    const raw = await startRole('blast', String(log.size), String(Math.round(log.size / log.frames)))
    const limit = await rounds(5, async () => {
      const socket = await openSocket(raw.port)
      const began = now()
      await drain(socket)
      return 1_000_002 / ((now() - began) / 1e6)
    })
    raw.process.kill()
    return [{ what: 'throughput, entries a second', ours: spread(ours, 0), raw: spread(limit, 0), ratio: (quantile(ours, 0.5) / quantile(limit, 0.5)).toFixed(2) }]
  },

  /** Eight runs at once, 5,000 entries a second each, when all eight have loaded: the first four seconds do not count. */
  async eight() {
    const ours = await withApp({ PROCESS_LIMIT: '8', SPARES: '0' }, async app => latencies(app, 8, 40_000, 5000, 20_000))
    return [{ what: '8 runs × 5,000 entries a second', ours: `p50 ${quantile(ours, 0.5).toFixed(1)} ms, p99 ${quantile(ours, 0.99).toFixed(1)} ms, none lost`, raw: '', ratio: '' }]
  },

  /** One run at 100 entries a second, 1,000 readers in another process. */
  async fanout() {
    const format = ([count, p50, p99]: number[]) => `${(count! / 10).toFixed(0)} a second, p50 ${(p50! / 1000).toFixed(1)} ms, p99 ${(p99! / 1000).toFixed(1)} ms`
    const ours = await withApp({}, async app => {
      const id = randomUUID()
      const readers = await startRole('readers', app.url.replace('http', 'ws') + '/log', id, '1000', '1000')
      await post(`${app.url}/tasks`, { method: 'rate', args: [1000, 100], id })
      const result = await readers.result
      readers.process.kill()
      return result
    })
    const raw = await startRole('broadcast', '1000', '100')
    const readers = await startRole('readers', `ws://127.0.0.1:${raw.port}`, 'raw', '1000', '1000')
    const limit = await readers.result
    readers.process.kill()
    const listeners = await startRole('listeners', `http://127.0.0.1:${raw.port}`, '1000', '1000')
    const events = await listeners.result
    listeners.process.kill()
    raw.process.kill()
    return [
      { what: 'fan-out to 1,000 readers', ours: format(ours), raw: `${format(limit)} (ws)`, ratio: (ours[1]! / limit[1]!).toFixed(2) },
      { what: '', ours: '', raw: `${format(events)} (Server-Sent Events)`, ratio: (ours[1]! / events[1]!).toFixed(2) },
    ]
  },

  /** A finished log of about 100 MB, to one reader; one of 1 MB, to 1,000 who come at once. */
  async late() {
    const logs = [1_000_000, 8_000].map(steps => ({ steps, path: join(folder, `log-${steps}`), ours: [] as number[], raw: [] as number[] }))
    const [large, small] = logs as [typeof logs[0], typeof logs[0]]
    await withApp({}, async app => {
      const socket = await app.connect()
      for (const { steps, path, ours } of logs) {
        const id = await startRun(app, socket, 'process', [steps, 0])
        await drain(socket, id)
        writeFileSync(path, readFileSync(join(app.runs, `${id}.ndjson`)))
        ours.push(...await rounds(3, () => arrive(`${app.url.replace('http', 'ws')}/log`, id, steps === small.steps ? 1000 : 1)))
      }
    })
    for (const { steps, path, raw } of logs) {
      const role = await startRole('sendfile', path)
      raw.push(...await rounds(3, () => arrive(`ws://127.0.0.1:${role.port}`, 'raw', steps === small.steps ? 1000 : 1)))
      role.process.kill()
    }
    const row = (what: string, { ours, raw, path }: typeof large) =>
      ({ what: `late join, ${(statSync(path).size / 1e6).toFixed(0)} MB, ${what}, ms`, ours: spread(ours, 0), raw: spread(raw, 0), ratio: ratio(ours, raw) })
    return [row('1 reader', large), row('1,000 readers at once', small)]
  },

  /** Resident memory. */
  async memory() {
    return withApp({}, async app => {
      const megabytes = (pid: number) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024
      const web = app.server.process.pid!
      const spare = processesOf(app.runs).find(({ command }) => command.includes('task.ts'))!
      const bare = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], { env: bareEnvironment() })
      await sleep(500)
      const raw = megabytes(bare.pid!)
      bare.kill()
      const rows = Object.entries({ 'workers server': app.workers.process.pid!, 'web server': web, 'a spare': spare.pid }).map(([what, pid]) =>
        ({ what: `memory of ${what}, MB`, ours: megabytes(pid).toFixed(0), raw: `${raw.toFixed(0)} (bare node)`, ratio: (megabytes(pid) / raw).toFixed(2) }))
      const before = megabytes(web)
      const readers = await startRole('readers', app.url.replace('http', 'ws') + '/log', 'nobody', '4000', '1')
      const perReader = (megabytes(web) - before) / 4000 * 1024
      readers.process.kill()
      const stalled = await app.connect() // it never acknowledges
      await startRun(app, stalled, 'process', [1_000_000, 0])
      const quick = await app.connect()
      await drain(quick, await startRun(app, quick, 'process', [1_000_000, 0]))
      return [
        ...rows,
        { what: 'memory of each of 4,000 readers, kB', ours: perReader.toFixed(0), raw: '', ratio: '' },
        { what: 'memory of web server in a flood, one reader stalled, MB', ours: megabytes(web).toFixed(0), raw: '', ratio: '' },
      ]
    })
  },

  /** A CSV of 200 MB. */
  async import() {
    const csv = join(folder, 'big.csv')
    writeFileSync(csv, 'id,name,email,amount,note\n' + Array.from({ length: 100_000 }, (_, i) => `${i},Anna Example,anna${i}@example.org,${i}.50,"a note, quoted"\n`).join('').repeat(32))
    const megabytes = statSync(csv).size / 1e6
    const ours = await rounds(3, () => withApp({}, async app => {
      const file = await app.upload(readFileSync(csv))
      const run = await app.start('importCsv', [file])
      const { seconds } = await run.outcome()
      return megabytes / seconds
    }))
    const raw = await rounds(3, async () => {
      const began = now()
      let lines = 0
      for await (const _ of createInterface(createReadStream(csv))) lines++
      return megabytes / ((now() - began) / 1e6)
    })
    return [{ what: `import of ${megabytes.toFixed(0)} MB, MB/s`, ours: spread(ours, 0), raw: spread(raw, 0), ratio: (quantile(ours, 0.5) / quantile(raw, 0.5)).toFixed(2) }]
  },

  /** Cost per entry, per reader, and per finished run that is kept. */
  async growth() {
    const perEntry: string[] = []
    for (const entries of [10_000, 1_000_000, 10_000_000]) {
      perEntry.push(await withApp({ MAX_LOG: '2000000000' }, async app => {
        const socket = await app.connect()
        const began = now()
        await drain(socket, await startRun(app, socket, 'process', [entries, 0]))
        return ((now() - began) / entries).toFixed(2)
      }))
    }
    const perDelivery: string[] = []
    for (const count of [10, 100, 1000]) {
      perDelivery.push(await withApp({}, async app => {
        const seconds = () => Number(readFileSync(`/proc/${app.server.process.pid}/stat`, 'utf8').split(' ').slice(13, 15).reduce((sum, ticks) => sum + Number(ticks) / 100, 0))
        const id = randomUUID()
        const readers = await startRole('readers', app.url.replace('http', 'ws') + '/log', id, String(count), '500')
        const before = seconds()
        await post(`${app.url}/tasks`, { method: 'rate', args: [500, 100], id })
        await readers.result
        readers.process.kill()
        return ((seconds() - before) / count / 500 * 1e6).toFixed(1)
      }))
    }
    const perRun: string[] = []
    for (const kept of [10, 1000, 10_000]) {
      perRun.push(await withApp({ KEEP_RUNS: String(kept), SPARES: '2' }, async app => {
        await app.kill('workers', 'SIGTERM')
        for (let i = 0; i < kept; i++) {
          const start = { type: 'start', time: i, data: { method: 'process', args: [], callId: '', pid: 1, timeLimit: 0 } }
          writeFileSync(join(app.runs, `kept-${i}.ndjson`), `${JSON.stringify(start)}\n{"type":"done","time":${i},"data":{"outcome":"ok","seconds":0}}\n`)
        }
        await app.startWorkers()
        const socket = await app.connect()
        await launch(app, socket, true)
        return quantile(await rounds(10, async () => (await sleep(1500), await launch(app, socket) / 1000)), 0.5).toFixed(1)
      }))
    }
    return [
      { what: 'growth: µs an entry, at 10⁴, 10⁶, 10⁷', ours: perEntry.join(', '), raw: '', ratio: '' },
      { what: 'growth: µs of the web server a delivery, to 10, 100, 1,000 readers', ours: perDelivery.join(', '), raw: '', ratio: '' },
      { what: 'growth: launch, ms, with 10, 1,000, 10,000 kept', ours: perRun.join(', '), raw: '', ratio: '' },
    ]
  },
}

// ---- What the measurements share

async function rounds<T>(count: number, round: () => Promise<T>): Promise<T[]> {
  const results: T[] = []
  for (let i = 0; i < count; i++) results.push(await round())
  return results
}

async function withApp<T>(env: Record<string, string>, use: (app: App) => Promise<T>): Promise<T> {
  const app = new App(env)
  try {
    await app.startWorkers()
    await app.startServer()
    while (processesOf(app.runs).length < 2 + Number(env.SPARES ?? 1)) await sleep(50)
    await sleep(2000) // the last spare has loaded
    return await use(app)
  } finally {
    await app.end()
  }
}

function post(url: string, body: object): Promise<void> {
  return new Promise((resolve, reject) => {
    const sent = request(url, { method: 'POST', agent, headers: { 'content-type': 'application/json' } }, response => {
      if (response.statusCode! >= 300) reject(new Error(`${url} answered ${response.statusCode}`))
      response.resume().on('end', resolve)
    })
    sent.on('error', reject).end(JSON.stringify(body))
  })
}

async function startRun(app: App, socket: WebSocket, method: string, args: unknown[]): Promise<string> {
  const id = randomUUID()
  socket.send(JSON.stringify({ start: id }))
  await post(`${app.url}/tasks`, { method, args, id })
  return id
}

/** Microseconds from the POST to the first entry; or to the end, and until there is a place again. */
async function launch(app: App, socket: WebSocket, toTheEnd = false): Promise<number> {
  const id = randomUUID()
  socket.send(JSON.stringify({ start: id }))
  const began = now()
  const heard = new Promise<void>(resolve => socket.on('message', function hear(text) {
    if (!String(text).startsWith(`{"id":"${id}"`) || (toTheEnd && !String(text).includes('"type":"done"'))) return
    socket.off('message', hear)
    resolve()
  }))
  await post(`${app.url}/tasks`, { method: 'process', args: [1, 0], id })
  await heard
  const took = now() - began
  socket.send(JSON.stringify({ stop: id }))
  return took
}

/** Takes all of a run as fast as it comes, without parsing it: the size of its log. Of a raw stream: until it closes. */
async function drain(socket: WebSocket, id?: string): Promise<{ size: number; frames: number }> {
  return new Promise(resolve => {
    let [size, frames] = [0, 0]
    socket.on('close', () => resolve({ size, frames }))
    socket.on('message', (data: Buffer) => {
      const head = data.toString('latin1', 0, 200)
      if (id === undefined) size += data.length
      if (id === undefined || !head.startsWith(`{"id":"${id}"`)) return
      size = Number(/"next":(\d+)/.exec(head)![1])
      frames++
      socket.send(`{"ack":"${id}","next":${size}}`)
      if (data.toString('latin1', data.length - 300).includes('"type":"done"')) resolve({ size, frames })
    })
  })
}

/** Milliseconds from task.msg() to the handler, of the entries of several runs but the first. Throws when one is missing. */
async function latencies(app: App, runs: number, entries: number, perSecond: number, first = 0): Promise<number[]> {
  const times: number[] = []
  let count = 0
  const socket = await app.connect()
  let ended = 0
  const all = new Promise<void>(resolve => socket.on('message', text => {
    const { id, next, entries } = JSON.parse(String(text))
    if (!entries) return
    const time = now()
    for (const { type, data } of entries) {
      if (type === 'msg' && ++count && data.step >= first) times.push((time - data.at) / 1000)
      if (type === 'done' && ++ended === runs) resolve()
    }
    socket.send(JSON.stringify({ ack: id, next }))
  }))
  for (let i = 0; i < runs; i++) await startRun(app, socket, 'rate', [entries, perSecond])
  await all
  if (count !== runs * entries) throw new Error(`${count} of ${runs * entries} entries`)
  return times
}

async function openSocket(port: number): Promise<WebSocket> {
  const socket = new WebSocket(`ws://127.0.0.1:${port}`, { perMessageDeflate: false })
  await once(socket, 'open')
  return socket
}

/** Milliseconds until so many readers, in a process of their own, have all of a log. */
async function arrive(url: string, id: string, count: number): Promise<number> {
  const readers = await startRole('arrive', url, id, String(count))
  const [took] = await readers.result
  readers.process.kill()
  return took!
}

// ---- Raw limits: processes of their own, with nothing of ours in them

type Role = { process: ChildProcess; port: number; result: Promise<number[]> }

async function startRole(...args: string[]): Promise<Role> {
  const child = fork(import.meta.filename, ['role', ...args], { execArgv: ['--import', import.meta.resolve('tsx')] })
  const [port] = await once(child, 'message')
  return { process: child, port, result: once(child, 'message').then(([result]) => result as number[]) }
}

/** Publisher → zmq.Proxy → subscriber → ws, each in a process of its own. */
async function rawPath(entries: number, perSecond: number): Promise<number[]> {
  const proxy = await startRole('proxy', folder)
  const bridge = await startRole('bridge', folder)
  const socket = await openSocket(bridge.port)
  const times: number[] = []
  const all = new Promise<void>(resolve => socket.on('message', text => {
    const { step, at } = JSON.parse(String(text))
    times.push((now() - at) / 1000)
    if (step === entries - 1) resolve() // the first ones may be lost: a slow joiner, and nobody here repairs it
  }))
  const publisher = await startRole('publish', folder, String(entries), String(perSecond))
  await all
  for (const role of [proxy, bridge, publisher]) role.process.kill()
  return times
}

const ROLES: Record<string, (...args: string[]) => Promise<number>> = {
  async echo() {
    const server = createServer((request, response) => request.resume().on('end', () => response.end('{}')))
    new WebSocketServer({ server }).on('connection', socket => socket.on('message', data => socket.send(data)))
    return listen(server)
  },
  async blast(size, frame) {
    const piece = Buffer.alloc(Number(frame), 'x')
    return listenSockets(socket => {
      for (let sent = 0; sent < Number(size); sent += piece.length) socket.send(piece, { binary: false })
      socket.close()
    })
  },
  async sendfile(path) {
    return listenSockets(async socket => {
      await once(socket, 'message')
      for await (const piece of createReadStream(path!, { highWaterMark: 256 * 1024 })) socket.send(piece, { binary: false })
      socket.close()
    })
  },
  /** To the first thousand who come by WebSocket, and to the first thousand who come for Server-Sent Events. */
  async broadcast(entries, perSecond) {
    async function send(write: (text: Buffer) => void, head: string, foot: string) {
      await sleep(1000)
      const began = now()
      for (let step = 0; step < Number(entries);) {
        for (const due = (now() - began) / 1e6 * Number(perSecond); step < due; step++) {
          const entry = JSON.stringify({ type: 'msg', time: Date.now(), data: { step, at: now() } })
          write(Buffer.from(`${head}{"id":"raw","next":${step},"entries":[${entry}]}${foot}`))
        }
        await sleep(1)
      }
    }
    const responses = new Set<ServerResponse>()
    const server = createServer((_, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' }).flushHeaders()
      if (responses.add(response).size === 1000) void send(text => responses.forEach(response => response.write(text)), 'data: ', '\n\n')
    })
    const sockets = new Set<WebSocket>()
    new WebSocketServer({ server, perMessageDeflate: false }).on('connection', socket => {
      socket.once('close', () => sockets.delete(socket))
      if (sockets.add(socket).size === 1000) void send(text => sockets.forEach(socket => socket.send(text, { binary: false })), '', '')
    })
    return listen(server)
  },
  async listeners(url, count, expected) {
    const times: number[] = []
    for (let i = 0; i < Number(count); i++) {
      const [response] = await once(get(url!, { agent: false }), 'response') as [IncomingMessage]
      createInterface(response).on('line', line => {
        if (!line) return
        for (const { data } of JSON.parse(line.slice('data: '.length)).entries) times.push(now() - data.at)
        if (times.length === Number(count) * Number(expected)) process.send!([times.length, quantile(times, 0.5), quantile(times, 0.99)])
      })
    }
    return 1
  },
  async readers(url, id, count, expected) {
    const times: number[] = []
    for (let i = 0; i < Number(count); i++) {
      const socket = new WebSocket(url!, { perMessageDeflate: false })
      let acknowledged = 0
      await once(socket, 'open')
      socket.send(JSON.stringify({ start: id }))
      socket.on('message', text => {
        const { entries, next } = JSON.parse(String(text))
        for (const { type, data } of entries ?? []) if (type === 'msg') times.push(now() - data.at)
        if (next - acknowledged > 64 * 1024) socket.send(JSON.stringify({ ack: id, next: acknowledged = next })) // as often as it must
        if (times.length === Number(count) * Number(expected)) process.send!([times.length, quantile(times, 0.5), quantile(times, 0.99)])
      })
    }
    return 1
  },
  async arrive(url, id, count) {
    const sockets = await rounds(Number(count), async () => {
      const socket = new WebSocket(url!, { perMessageDeflate: false })
      await once(socket, 'open')
      return socket
    })
    const began = now()
    const all = Promise.all(sockets.map(socket => new Promise<unknown>(resolve => {
      socket.on('message', (data: Buffer) => {
        const next = /"next":(\d+)/.exec(data.toString('latin1', 0, 200))?.[1]
        if (next) socket.send(`{"ack":"${id}","next":${next}}`)
        if (data.toString('latin1', data.length - 300).includes('"type":"done"')) resolve(socket)
      })
      socket.send(JSON.stringify({ start: id }))
    })))
    void all.then(() => process.send!([(now() - began) / 1000]))
    return 1
  },
  async proxy(folder) {
    const [front, back] = [new XSubscriber(), new XPublisher()]
    await front.bind(`ipc://${folder}/front`)
    await back.bind(`ipc://${folder}/back`)
    const proxy = new Proxy(front, back)
    void proxy.run()
    process.on('exit', () => proxy.terminate()) // also keeps it from being collected while it runs
    return 1
  },
  async bridge(folder) {
    const subscriber = new Subscriber()
    subscriber.subscribe('raw')
    subscriber.connect(`ipc://${folder}/back`)
    const sockets = new Set<WebSocket>()
    const port = await listenSockets(socket => void sockets.add(socket))
    void (async () => {
      for await (const [, text] of subscriber) sockets.forEach(socket => socket.send(text!, { binary: false }))
    })()
    return port
  },
  async publish(folder, entries, perSecond) {
    const publisher = new Publisher({ sendTimeout: 0 })
    publisher.connect(`ipc://${folder}/front`)
    await sleep(500)
    const began = now()
    void (async () => {
      for (let step = 0; step < Number(entries);) {
        for (const due = (now() - began) / 1e6 * Number(perSecond); step < due; step++) void publisher.send(['raw', JSON.stringify({ step, at: now() })])
        await sleep(1)
      }
    })()
    return 1
  },
}

async function listen(server: HttpServer): Promise<number> {
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return (server.address() as AddressInfo).port
}

async function listenSockets(serve: (socket: WebSocket) => void): Promise<number> {
  const server = createServer()
  new WebSocketServer({ server, perMessageDeflate: false }).on('connection', serve)
  return listen(server)
}

// ---- The program

if (process.argv[2] === 'role') {
  process.on('disconnect', () => process.exit())
  process.send!(await ROLES[process.argv[3]!]!(...process.argv.slice(4)))
} else {
  const wanted = process.argv.slice(2)
  console.log(`Node ${process.version}, ${availableParallelism()} processors (${cpus()[0]!.model.trim()})\n`)
  console.log('| what | longrun | raw limit | ratio |\n| --- | --- | --- | --- |')
  for (const [name, measure] of Object.entries(MEASUREMENTS)) {
    if (wanted.length && !wanted.includes(name)) continue
    for (const { what, ours, raw, ratio } of await measure()) console.log(`| ${what} | ${ours} | ${raw} | ${ratio} |`)
  }
  agent.destroy()
  rmSync(folder, { recursive: true })
}
