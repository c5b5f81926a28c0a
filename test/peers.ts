// Measures longrun beside what others make of the same: BullMQ with Redis and Socket.IO, and Celery with Redis and a
// WebSocket bridge (peers/). Each is set up as its documentation advises, with 8 places, and without what it can do
// without here: Redis is reached by a Unix socket, and writes nothing to the disk.
//
//   npm run bench:peers                        all rows, in less than four minutes
//   npm run bench:peers -- launch update       only those
//
// This process is the client of all three. In each row they take turns, three times; each cell has the medians of the
// three, and how busy each core was meanwhile. Whoever has lost entries, or not brought them to the end, has the number
// of these in the cell. The packages of npm come into a folder of the system's temporary ones, the others from Debian.

import { execFileSync, spawnSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { EventEmitter, once } from 'node:events'
import { existsSync, mkdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { startProgram } from './app.ts'
import { becomesQuiet, Load, makeRuns, now, Page, quantile, repeat, start, startLongrun, type Entry } from './bench.ts'

const PASSES = 3
const WARM_UP = 500_000 // µs of a run that are not measured
const MEASURED = 2.5 // s
const SETTLE = 300 // ms for a spare of ours to have loaded, and for all readers to be known
const SILENCE = 3000 // ms after which no more entries are expected
const PACKAGES = ['bullmq@6', 'ioredis@5', 'socket.io@4', 'socket.io-client@4']
const FOLDER = join(tmpdir(), 'longrun-peers', PACKAGES.join('+'))
const PROGRAMS = join(import.meta.dirname, 'peers')
const python = ['/usr/bin/python3', 'python3']
  .find(path => spawnSync(path, ['-c', 'import celery, redis, hiredis, aiohttp, websockets']).status === 0)

/** One of the three. `follow` resolves when the reader is there, and returns what ends it. */
type System = { name: string; url: string; follow: Follow }
type Follow = (id: string, hear: (entries: Entry[]) => void) => Promise<() => void>
/** What is measured of a row at once, and how many entries did not arrive. */
type Pass = { figures: number[]; lost: number }
type Row = { title: string; digits: number; take(system: System, load: Load): Promise<Pass> }

// ---- The rows

const ROWS: Record<string, Row> = {
  launch: {
    title: 'launch, POST → first entry, p50 / p99 ms',
    digits: 1,
    async take(system, load) {
      const all = await repeat(10, () => traffic(system, load, { method: 'stream', args: [1] }))
      return { figures: tail(all.map(({ first }) => first)), lost: all.reduce((sum, { lost }) => sum + lost, 0) }
    },
  },
  update: rate('update, 200 a second, p50 / p99 ms', 2, { perSecond: 200 }),
  flat: {
    title: 'one run flat out, entries a second (more is better)',
    digits: 0,
    async take(system, load) {
      const { heard, seconds, lost } = await traffic(system, load, { method: 'stream', args: [100_000] })
      return { figures: [heard / seconds], lost }
    },
  },
  fanout: rate('1,000 readers × 100 a second, p50 / p99 ms', 1, { perSecond: 100, readers: 1000 }),
  eight: rate('8 runs × 5,000 a second, p50 / p99 ms', 1, { perSecond: 5000, runs: 8 }),
}

/** How long entries are on their way, when runs make them at a rate. */
function rate(title: string, digits: number, { perSecond, ...counts }: { perSecond: number; readers?: number; runs?: number }): Row {
  const args = [perSecond * (WARM_UP / 1e6 + MEASURED), perSecond]
  return {
    title,
    digits,
    async take(system, load) {
      const { times, lost } = await traffic(system, load, { method: 'rate', args, ...counts })
      return { figures: tail(times), lost }
    },
  }
}

type Calls = { method: string; args: number[]; runs?: number; readers?: number }

/** Lets readers follow runs, starts these, and waits until each reader has heard the end, or nobody hears anything. */
async function traffic(system: System, load: Load, { method, args, runs = 1, readers = 1 }: Calls) {
  const ids = Array.from({ length: runs }, () => randomUUID())
  const times: number[] = []
  let [began, first, last, heard, waiting] = [0, 0, 0, 0, runs * readers]
  const over = new EventEmitter()

  function listener() {
    let next = 0
    return (entries: Entry[]) => {
      last = now()
      for (const { type, data } of entries) {
        if (type === 'done' && --waiting === 0) over.emit('over')
        if (type !== 'msg' || data.step < next) continue // what comes after a later one counts as lost
        first ||= last
        next = data.step + 1
        heard++
        if (data.at > began + WARM_UP) times.push((last - data.at) / 1000)
      }
    }
  }

  const leave = await Promise.all(ids.flatMap(id => Array.from({ length: readers }, () => system.follow(id, listener()))))
  await sleep(SETTLE)
  await load.during(async () => {
    began = last = now()
    await Promise.all(ids.map(id => start(system, method, args, id)))
    const isOver = once(over, 'over')
    const silence = setInterval(() => now() - last > SILENCE * 1000 && over.emit('over'), 100)
    await isOver
    clearInterval(silence)
  })
  leave.forEach(leave => leave())
  const lost = args[0]! * runs * readers - heard
  return { times, first: (first - began) / 1000, seconds: (last - began) / 1e6, heard, lost }
}

const tail = (values: number[]) => [0.5, 0.99].map(q => quantile(values, q))

// ---- The systems

async function startOurs(): Promise<System> {
  const { url } = await startLongrun({ PROCESS_LIMIT: '8' })
  return { name: 'longrun', url, follow: byWebSocket(url) }
}

async function startBullMQ(): Promise<System> {
  const env = { ...await startRedis(), NODE_PATH: join(FOLDER, 'node_modules') }
  const program = [process.execPath, join(PROGRAMS, 'bullmq.cjs')]
  const [server] = await Promise.all([startProgram(program, env), startProgram([...program, 'worker'], env)])
  return { name: 'BullMQ', url: server.ready, follow: bySocketIo(server.ready) }
}

async function startCelery(): Promise<System> {
  const env = await startRedis()
  const flags = ['--concurrency', '8', '--without-gossip', '--without-mingle', '--without-heartbeat']
  const worker = [python!, '-m', 'celery', '--app', 'celery_tasks', 'worker', ...flags]
  const bridge = [python!, join(PROGRAMS, 'celery_bridge.py')]
  const [{ ready }] = await Promise.all([startProgram(bridge, env, PROGRAMS), startProgram(worker, env, PROGRAMS)])
  const [url, live] = ready.split(' ') as [string, string]
  return { name: 'Celery', url, follow: byWebSocket(live) }
}

/** One of its own for each, with what its programs need to find it. RUNS is what sweep() of the benchmark knows them by. */
async function startRedis() {
  const RUNS = makeRuns()
  const REDIS = join(RUNS, 'redis.sock')
  const options = { port: 0, unixsocket: REDIS, dir: RUNS, save: '', 'set-proc-title': 'no' }
  await startProgram(['redis-server', ...Object.entries(options).flatMap(([name, value]) => [`--${name}`, `${value}`])], { RUNS })
  while (!existsSync(REDIS)) await sleep(10) // its first line comes before
  return { RUNS, REDIS, PYTHONDONTWRITEBYTECODE: '1' }
}

// ---- The client

const byWebSocket = (url: string): Follow => async (id, hear) => {
  const page = await Page.open({ name: url, url })
  void page.follow(id, frame => hear(JSON.parse(String(frame)).entries))
  return () => page.close()
}

const bySocketIo = (url: string): Follow => async (id, hear) => {
  const { io } = createRequire(join(FOLDER, 'any.js'))('socket.io-client')
  const socket = io(url, { transports: ['websocket'], forceNew: true })
  socket.on('entry', (entry: Entry) => hear([entry]))
  await socket.emitWithAck('follow', id)
  return () => socket.disconnect()
}

// ---- The program

if (!python || spawnSync('redis-server', ['--version']).error) {
  const missing = 'redis-server python3-celery python3-redis python3-hiredis python3-aiohttp python3-websockets'
  console.error(`what is to be measured is missing: apt install ${missing}`)
  process.exit(1)
}
const names = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(ROWS)
const unknown = names.find(name => !Object.hasOwn(ROWS, name))
if (unknown) {
  console.error(`there is no row ${unknown}: ${Object.keys(ROWS).join(', ')}`)
  process.exit(1)
}
if (!existsSync(FOLDER)) {
  mkdirSync(FOLDER, { recursive: true })
  execFileSync('npm', ['install', '--prefix', FOLDER, '--no-save', '--silent', ...PACKAGES])
}
const systems = await Promise.all([startOurs(), startBullMQ(), startCelery()])
for (const system of systems) await traffic(system, new Load(), { method: 'stream', args: [1] }) // until the last of its processes has loaded
console.log(`| what | ${systems.map(({ name }) => `${name} | cores, %`).join(' | ')} |`)
console.log(`| --- |${' --- |'.repeat(systems.length * 2)}`)
for (const name of names) await measure(ROWS[name]!)
process.exit() // bench.ts ends what is left

async function measure({ title, digits, take }: Row) {
  const isQuiet = await becomesQuiet()
  const cells = systems.map(system => ({ system, load: new Load(), passes: [] as Pass[] }))
  await repeat(PASSES, async () => {
    for (const { system, load, passes } of cells) passes.push(await take(system, load))
  })
  const shown = cells.map(({ load, passes }) => {
    const medians = passes[0]!.figures.map((_, i) => quantile(passes.map(({ figures }) => figures[i]!), 0.5).toFixed(digits))
    const lost = passes.reduce((sum, { lost }) => sum + lost, 0)
    return `${medians.join(' / ')}${lost ? `, ${lost} lost` : ''} | ${load}`
  })
  console.log(`| ${title}${isQuiet ? '' : ' (something else was running)'} | ${shown.join(' | ')} |`)
}
