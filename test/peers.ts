// Measures longrun beside what others make of the same: BullMQ with Redis and Socket.IO, and Celery with Redis and a
// bridge to WebSockets (peers/). They are set up as their documentation advises, with nine places that are used again;
// and where there was a choice, as is fastest: Redis is reached by a Unix socket, and writes nothing to the disk.
//
//   npm run bench:peers                     all rows, in about three minutes
//   npm run bench:peers -- launch update    only those
//
// This process is the client of all three, and parses all that it hears. In each row they take turns, three times; each
// cell has the medians of the three passes, and beside it how busy each core was. npm's packages come into a folder of
// the system's temporary ones; the others have to be there. Look for: ROWS; observe(), which takes all of them.

import { execFileSync, spawnSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { EventEmitter, once } from 'node:events'
import { existsSync, mkdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { startProgram } from './app.ts'
import { becomesQuiet, Load, makeRuns, now, Page, quantile, repeat, start, startLongrun, type Entry } from './bench.ts'

const PASSES = 3
const WARM_UP = 500 // ms that are not measured, from when all readers have heard something
const LOADING = 1000 // ms of a run that may pass until then
const MEASURED = 2500 // ms after them
const SETTLE = 300 // ms for a spare of ours to have loaded, and for all readers to be known
const SILENCE = 3000 // ms after which no more entries are expected
const PACKAGES = ['bullmq@6', 'ioredis@5', 'socket.io@4', 'socket.io-client@4']
const FOLDER = join(tmpdir(), 'longrun-peers', PACKAGES.join('+'))
const PROGRAMS = join(import.meta.dirname, 'peers')
const python = ['/usr/bin/python3', 'python3']
  .find(path => spawnSync(path, ['-c', 'import celery, redis, hiredis, aiohttp']).status === 0)

/** One of the three, and the entries that its readers should have heard so far, and have. */
type System = { name: string; url: string; follow: Follow; expected: number; heard: number }
/** Resolves when the reader is there, to what ends it. */
type Follow = (id: string, hear: (entries: Entry[]) => void) => Promise<() => void>
/** `pass` returns what one pass has measured. */
type Row = { title: string; digits: number; pass(system: System, load: Load): Promise<number[]> }

// ---- The rows

const ROWS: Record<string, Row> = {
  launch: {
    title: 'launch, from POST to the first entry, p50 / p99 ms',
    digits: 1,
    async pass(system, load) {
      const runs = await repeat(10, () => observe(system, load, { method: 'stream', args: [1] }))
      return tail(runs.map(({ first }) => first))
    },
  },
  update: rate('update, 200 a second, p50 / p99 ms', 2, { perSecond: 200 }),
  flat: {
    title: 'one run flat out, entries a second (more is better)',
    digits: 0,
    async pass(system, load) {
      const { heard, seconds } = await observe(system, load, { method: 'stream', args: [100_000] })
      return [heard / seconds]
    },
  },
  fanout: rate('1,000 readers × 100 a second, p50 / p99 ms', 1, { perSecond: 100, readers: 1000 }),
  busy: {
    title: '25 entries a second beside 8 runs that compute, p50 / p95 ms',
    digits: 1,
    async pass(system, load) {
      const computing = observe(system, new Load(), { method: 'burn', args: [WARM_UP + MEASURED + 2000], runs: 8 })
      await sleep(1000)
      const { times } = await observe(system, load, { method: 'rate', args: [(WARM_UP + MEASURED) / 40, 25] })
      await computing
      return [0.5, 0.95].map(q => quantile(times, q))
    },
  },
  eight: rate('8 runs × 5,000 a second, p50 / p99 ms', 1, { perSecond: 5000, runs: 8 }),
}

type Traffic = { perSecond: number; runs?: number; readers?: number }

/** How long entries are on their way, when runs make them at a rate. */
function rate(title: string, digits: number, { perSecond, ...counts }: Traffic): Row {
  const args = [(LOADING + WARM_UP + MEASURED) / 1000 * perSecond, perSecond]
  return {
    title,
    digits,
    async pass(system, load) {
      const { times } = await observe(system, load, { method: 'rate', args, ...counts })
      return tail(times)
    },
  }
}

type Calls = { method: string; args: number[]; runs?: number; readers?: number }

/** Lets readers follow runs, starts these, and waits until all have heard the end, or none hears anything more. */
async function observe(system: System, load: Load, { method, args, runs = 1, readers = 1 }: Calls) {
  const ids = Array.from({ length: runs }, () => randomUUID())
  const times: number[] = []
  const end = new EventEmitter()
  let [began, first, last, heard] = [0, 0, 0, 0]
  let [silent, waiting] = [runs * readers, runs * readers] // readers that have heard nothing, and not the end
  let measured = Infinity // from when on

  function listener() {
    let next = 0
    let isHeard = false
    return (entries: Entry[]) => {
      last = now()
      for (const { type, data } of entries) {
        if (type === 'done' && --waiting === 0) end.emit('end')
        if (type !== 'msg' || data.step < next) continue // behind a later one: as good as lost
        next = data.step + 1
        first ||= last
        if (!isHeard && --silent === 0) measured = last + WARM_UP * 1000
        isHeard = true
        heard++
        if (data.at > measured) times.push((last - data.at) / 1000)
      }
    }
  }

  const followers = ids.flatMap(id => Array.from({ length: readers }, () => system.follow(id, listener())))
  const leave = await Promise.all(followers)
  await sleep(SETTLE)
  await load.during(async () => {
    const ended = once(end, 'end') // before the start: an end may come before its reply
    began = last = now()
    await Promise.all(ids.map(id => start(system, method, args, id)))
    const silence = setInterval(() => now() - last > SILENCE * 1000 && end.emit('end'), 100)
    await ended
    clearInterval(silence)
  })
  leave.forEach(leave => leave())
  system.expected += method === 'burn' ? 0 : args[0]! * runs * readers // it only computes, for so many ms
  system.heard += heard
  return { times, first: (first - began) / 1000, seconds: (last - began) / 1e6, heard }
}

const tail = (values: number[]) => [0.5, 0.99].map(q => quantile(values, q))

// ---- The systems

async function startOurs(): Promise<System> {
  const { url } = await startLongrun({ PROCESS_LIMIT: '9' })
  return { name: 'longrun', url, follow: byWebSocket(url), expected: 0, heard: 0 }
}

async function startBullMQ(): Promise<System> {
  const env = await startRedis()
  const program = [process.execPath, join(PROGRAMS, 'bullmq.cjs')]
  const [server] = await Promise.all([startProgram(program, env), startProgram([...program, 'worker'], env)])
  return { name: 'BullMQ', url: server.ready, follow: bySocketIo(server.ready), expected: 0, heard: 0 }
}

async function startCelery(): Promise<System> {
  const env = await startRedis()
  const flags = ['--concurrency', '9', '--without-gossip', '--without-mingle', '--without-heartbeat']
  const [server, bridge] = await Promise.all([
    startProgram([python!, 'celery_tasks.py'], env, PROGRAMS),
    startProgram([process.execPath, 'celery_bridge.cjs'], env, PROGRAMS),
    startProgram([python!, '-m', 'celery', '--app', 'celery_tasks', 'worker', ...flags], env, PROGRAMS),
  ])
  return { name: 'Celery', url: server.ready, follow: byWebSocket(bridge.ready), expected: 0, heard: 0 }
}

/** One of its own for each. Returns what its programs need to know; by RUNS, bench.ts finds what it has to end. */
async function startRedis() {
  const RUNS = makeRuns()
  const REDIS = join(RUNS, 'redis.sock')
  const options = { port: 0, unixsocket: REDIS, dir: RUNS, save: '', 'set-proc-title': 'no' } // a title hides RUNS
  const flags = Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)])
  await startProgram(['redis-server', ...flags], { RUNS })
  while (!existsSync(REDIS)) await sleep(10) // its first line comes before
  return { RUNS, REDIS, NODE_PATH: join(FOLDER, 'node_modules'), PYTHONDONTWRITEBYTECODE: '1' }
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
  const missing = 'redis-server python3-celery python3-redis python3-hiredis python3-aiohttp'
  console.error(`what is to be measured is missing: apt install ${missing}`)
  process.exit(1)
}
const names = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(ROWS)
const unknown = names.find(name => !Object.hasOwn(ROWS, name))
if (unknown) {
  console.error(`there is no row ${unknown}: ${Object.keys(ROWS).join(', ')}`)
  process.exit(1)
}
if (!existsSync(join(FOLDER, 'node_modules'))) {
  mkdirSync(FOLDER, { recursive: true })
  execFileSync('npm', ['install', '--prefix', FOLDER, '--no-save', '--silent', ...PACKAGES])
}
const systems = await Promise.all([startOurs(), startBullMQ(), startCelery()])
for (const system of systems) await observe(system, new Load(), { method: 'stream', args: [1] }) // all has loaded then
const machine = `${cpus().length} processors (${cpus()[0]!.model.trim()})`
console.log(`Node ${process.version}, ${PACKAGES.join(', ')}, ${machine}\n`)
console.log(`| what | ${systems.map(({ name }) => `${name} | cores, %`).join(' | ')} |`)
console.log(`| --- |${' --- | --- |'.repeat(systems.length)}`)
for (const name of names) await measure(ROWS[name]!)
const losses = systems.map(({ expected, heard }) => `${expected - heard} of ${expected.toLocaleString('en')} | `)
console.log(`| entries lost, in all rows | ${losses.join(' | ')} |`)
process.exit() // bench.ts ends what is left

async function measure({ title, digits, pass }: Row) {
  const isQuiet = await becomesQuiet()
  const cells = systems.map(system => ({ system, load: new Load(), passes: [] as number[][] }))
  await repeat(PASSES, async () => {
    for (const { system, load, passes } of cells) passes.push(await pass(system, load))
  })
  const shown = cells.map(({ load, passes }) => {
    const medians = passes[0]!.map((_, i) => quantile(passes.map(figures => figures[i] ?? NaN), 0.5).toFixed(digits))
    return `${medians.includes('NaN') ? '–' : medians.join(' / ')} | ${load}` // nothing was heard in time
  })
  console.log(`| ${title}${isQuiet ? '' : ' (something else was running)'} | ${shown.join(' | ')} |`)
}
