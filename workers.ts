// The workers server: it starts one process per run, watches over it to its end, and answers questions about
// runs. It keeps nothing that the logs do not hold, so it can be killed and started again in the middle of
// everything. Look for: answerCalls (the REP side), startRun and finishRun (a run's life), adoptRun (after a crash).

import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync, existsSync, openSync, readdirSync, readFileSync, readSync, rmSync, statSync, writeFileSync,
} from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Proxy, Publisher, Router, XPublisher, XSubscriber } from 'zeromq'
import {
  busy, BusyError, createSocket, FILES, INVALID_ID, isFile, isId, KEEP_RUNS, logPath, MAX_CHUNK, openRuns,
  outliveTerminal, packChunk, packEntry, packReply, PROCESS_LIMIT, rawResult, refused, refuseToStart, RemoteError,
  REP_ADDR, RESERVED, result, RUNS, SPARES, started, TIME_LIMIT, unpackCall, unpackEntry, unpackEnvelope, UPLOADS,
  XPUB_ADDR, XSUB_ADDR,
  type Call, type Done, type Entry, type Outcome, type Reply, type Start,
} from './protocol.ts'
import { BALLAST, checkArgs, loadFunctions, RunLog } from './tasks.ts'

const GRACE = 5000 // ms between asking a run to end, and killing it
const QUIET = 20 // ms without a launch before a spare is refilled: loading one would slow down a burst of launches
const LONGEST_PAUSE = 30_000 // ms between two attempts to load a spare, when all of them crash
const WATCH = 250 // ms between two looks at adopted runs
const AFTERLIFE = 2500 // ms in which readers can still fetch the last lines of a run that is not kept; server.ts asks every 2000
const LAST_READS = 200 // ms in which readers can still fetch the last lines when the server stops
const UPLOAD_AGE = 3600_000 // ms after which an upload that no run took is removed
const TASK_PROCESS = join(import.meta.dirname, 'tasks.ts')

/** A run, from its call until its log is removed. Times in ms since 1970, sizes in bytes. */
type Run = {
  id: string
  start: Start
  started: number
  /** Why it is to end, once that was asked for. */
  reason?: string
  timers: NodeJS.Timeout[]
  /** Started by an earlier workers server: its end is no event for us. */
  adopted: boolean
}
type Ended = { run: Run; size: number; outcome: Outcome; seconds: number; file?: string }

// A place is a process: a run stands in `running` from the check of the limit until its process has gone and its
// log has its last line. The limit, the duplicate check and the clean stop are all this one Map.
const running = new Map<string, Run>()
const ended = new Map<string, Ended>() // oldest first
const spares: ChildProcess[] = []
let loading: ChildProcess | undefined
let pause = QUIET
let refillTimer: NodeJS.Timeout | undefined
let removal: NodeJS.Timeout | undefined
let stopping = 0

// ---- The program

openRuns()
const functions = await loadFunctions().catch(error => refuseToStart(`cannot load the remote functions: ${error.stack}`))
for (const name of RESERVED) {
  if (functions.has(name)) refuseToStart(`a remote function cannot be called ${name}: that name is reserved`)
}
const router = createSocket(Router, { sendTimeout: 0 })
await bind(router, REP_ADDR)
let proxy = await startProxy()
process.on('exit', () => { // whatever the reason is: its thread would keep this process for ever
  try {
    proxy.terminate()
  } catch {} // it has just ended by itself, see startProxy
})
const publisher = createSocket(Publisher, { sendTimeout: 0 })
publisher.connect(XSUB_ADDR)

layBallast()
adoptAll()
setInterval(finishAdopted, WATCH)
tidy(sweepUploads)
setInterval(tidy, UPLOAD_AGE / 6, sweepUploads)
process.on('SIGTERM', stop)
process.on('SIGINT', stop)
outliveTerminal()
refill()
void answerCalls()
console.log(`workers server ready: ${REP_ADDR}, process limit ${PROCESS_LIMIT}, remote functions ${[...functions.keys()].join(', ')}`)

// Binding an ipc address that somebody listens on succeeds, and silently takes it over from him: so ask first.
// A plain connection, not a request: a server that is stopped or busy would not answer, but is still there.
async function bind(socket: { bind(address: string): Promise<void> }, address: string) {
  const path = socketPath(address)
  if (path && await listens(path)) refuseToStart(`another workers server is running on ${address}`)
  await socket.bind(address).catch(error => refuseToStart(`cannot listen on ${address}: ${error.message}`))
}

/**
 * From the tasks to the web server. Native, in its own thread: no message of a task passes through this program.
 * When this process is stopped and continued (SIGSTOP), it may end by EINTR, and closes its sockets: so start another.
 */
async function startProxy(): Promise<Proxy> {
  const xsub = createSocket(XSubscriber)
  const xpub = createSocket(XPublisher)
  const closed = Promise.all([xsub, xpub].map(({ events }) => new Promise(resolve => events.on('end', resolve))))
  await bind(xsub, XSUB_ADDR)
  await bind(xpub, XPUB_ADDR)
  const native = new Proxy(xsub, xpub)
  native.run().catch(async () => {
    await closed
    proxy = await startProxy()
  })
  return native
}

/** The file of an ipc address. */
function socketPath(address: string): string | undefined {
  return address.startsWith('ipc://') ? address.slice('ipc://'.length) : undefined
}

function listens(path: string): Promise<boolean> {
  return new Promise(resolve => {
    const probe = connect(path, () => resolve(true)).on('error', () => resolve(false))
    probe.once('connect', () => probe.destroy())
  })
}

// ---- Requests

// Every request gets exactly one reply, so one line sends, and answer() always returns. The REP side is a Router:
// one frame from a peer that is not REQ ends a Reply socket (zguide chapter 3, "The Asynchronous Client/Server").
async function answerCalls() {
  for await (const frames of router) {
    const envelope = unpackEnvelope(frames)
    if (!envelope) continue
    await router.send(packReply(envelope, await answer(envelope.body))).catch(() => {}) // the caller has gone
  }
}

async function answer(body: Buffer[]): Promise<Reply> {
  try {
    const call = unpackCall(body)
    switch (call.method) {
      case 'list': return result(listRuns())
      case 'stat': return result(statRuns(call.args[0]))
      case 'read': return rawResult(readLines(knownRun(call.args[0]), call.args[1]))
      case 'cancel':
        cancelRun(runningRun(call.args[0]), 'cancelled')
        return result(true)
      case 'methods': return result([...functions].map(([name, { description, parameters }]) => ({ name, description, parameters })))
      case 'ping': return result({ pid: process.pid, running: running.size, limit: PROCESS_LIMIT })
      default: return started(await startRun(call))
    }
  } catch (error) {
    if (error instanceof BusyError) return busy(error.message)
    const { message, kind } = error instanceof RemoteError ? error : new RemoteError(`cannot answer: ${(error as Error).message}`)
    if (kind === 'failed') console.error(error)
    return refused(message)
  }
}

function listRuns() {
  const live = [...running.values()].map(run => readEnd(run) ?? { run, size: sizeOf(run.id) })
  const kept = [...ended.values()].slice(surplus())
  return [...kept, ...live].reverse().sort((a, b) => b.run.started - a.run.started).map(({ run, ...end }) => {
    const { method, callId, pid } = run.start
    return { id: run.id, method, callId, pid, started: run.started, ...end }
  })
}

function statRuns(ids: unknown) {
  if (!Array.isArray(ids)) throw new RemoteError('invalid arguments: stat takes [[id, …]]')
  const known = ids.filter(id => findRun(id)).map(id => {
    const end = ended.get(id) ?? readEnd(running.get(id)!)
    return [id, { size: end?.size ?? sizeOf(id), done: end !== undefined }]
  })
  return Object.fromEntries(known)
}

/** Whole lines from a position: at most MAX_CHUNK bytes, or one line that is longer; none at the end. */
function readLines(id: string, position: unknown, length = MAX_CHUNK): Buffer {
  if (!Number.isSafeInteger(position) || Number(position) < 0) throw new RemoteError('invalid position: not a whole number')
  const skip = position ? 1 : 0 // one byte earlier, to see that a line begins here
  if (!existsSync(logPath(id))) return Buffer.alloc(0)
  const file = openSync(logPath(id), 'r')
  try {
    for (; ; length *= 2) {
      const bytes = Buffer.allocUnsafe(length)
      const read = bytes.subarray(0, readSync(file, bytes, 0, length, Number(position) - skip))
      if (skip && read.length && read[0] !== 10) throw new RemoteError('invalid position: no line begins there')
      const end = read.lastIndexOf(10) + 1
      if (end > skip || read.length < length) return read.subarray(skip, Math.max(skip, end))
    }
  } finally {
    closeSync(file)
  }
}

function sizeOf(id: string): number {
  return statSync(logPath(id), { throwIfNoEntry: false })?.size ?? 0
}

function knownRun(id: unknown): string {
  if (!isId(id)) throw new RemoteError(INVALID_ID)
  if (!findRun(id)) throw new RemoteError(`unknown run ${id}`)
  return id
}

function runningRun(id: unknown): Run {
  const run = running.get(knownRun(id))
  if (!run || readEnd(run)) throw new RemoteError(`not running: ${id} has ended`)
  return run
}

/** By id; looks on the disk, too: a log that was empty and young when this server started was left for later. */
function findRun(id: unknown): Run | undefined {
  if (!isId(id)) return
  try {
    return running.get(id) ?? ended.get(id)?.run ?? adoptRun(id)
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error // else it is no log of a run, see adoptAll
  }
}

// ---- A run's life

/** Checks the call, takes a process for it, and returns its process id. Throws a RemoteError or a BusyError. */
async function startRun({ method, callId, id, args, timeLimit = TIME_LIMIT }: Call): Promise<number> {
  if (!isId(id)) throw new RemoteError(INVALID_ID)
  if (callId.length > 256) throw new RemoteError('invalid call id: at most 256 characters are allowed')
  const called = functions.get(method)
  if (!called) throw new RemoteError(`unknown method ${method}`)
  checkArgs(called, args)
  if (running.has(id)) throw new RemoteError(`already running: a run with the id ${id}`)
  if (findRun(id) || existsSync(logPath(id))) throw new RemoteError(`already used: the id ${id}`)
  const key = callId || id
  if ([...running.values()].some(run => (run.start.callId || run.id) === key)) throw new RemoteError(`already running: the call ${key}`)
  if (stopping) throw new BusyError('the workers server is stopping')
  if (running.size >= PROCESS_LIMIT) throw new BusyError(`the process limit of ${PROCESS_LIMIT} is reached`)

  const spare = takeSpare()
  const child = spare ?? forkTask(id)
  const start: Start = { method, args, callId, pid: child.pid ?? 0, timeLimit }
  const run: Run = { id, start, started: Date.now(), timers: [], adopted: false }
  running.set(id, run) // in the same turn as the checks: two calls cannot both pass them
  if (!child.pid) {
    const [error] = await once(child, 'error') // no such binary, no descriptors left: then there is no `exit`
    running.delete(id)
    throw new RemoteError(`cannot start a process: ${error.message}`)
  }
  try {
    beginLog(run)
  } catch (error) {
    running.delete(id)
    child.kill('SIGKILL')
    throw new RemoteError(`cannot start a log: ${(error as Error).message}`) // the disk is full
  }
  child.once('exit', (code, signal) => finishRun(run, exitReason(code, signal)))
  // Not in this turn: in a burst, the processes that wake would compete with the replies to the other calls.
  if (spare) setImmediate(() => spare.send(id, () => {})) // it has died: `exit` follows
  limitTime(run)
  console.log(`run ${id} started: ${method}, process ${child.pid}`)
  return child.pid
}

// The log begins with the call, and stands before anyone hears that the run has started: whatever dies from here
// on, the task process or this one, the run is known, and somebody will end it.
function beginLog(run: Run) {
  const { id, start } = run
  const log = new RunLog(id, 'create')
  const line = packEntry('start', start)
  const lines = Buffer.from(line)
  run.started = unpackEntry(line).time // the same for a server that adopts it
  try {
    log.append(lines)
    void publisher.send(packChunk({ id, position: 0, lines })).catch(() => {})
  } catch (error) {
    rmSync(logPath(id))
    throw error
  } finally {
    log.close()
  }
}

function exitReason(code: number | null, signal: string | null): string {
  return signal ? `killed by ${signal}` : `ended without a result (exit code ${code})`
}

function limitTime(run: Run) {
  const { timeLimit } = run.start
  if (!timeLimit) return
  const left = run.started + timeLimit * 1000 - Date.now()
  run.timers.push(setTimeout(cancelRun, Math.max(0, left), run, `over its time limit of ${timeLimit} s`))
}

/** Asks a run to end; kills it, and all that it started, when it has not done so after the grace period. */
function cancelRun(run: Run, reason: string) {
  if (run.reason) return // asked already
  run.reason = reason
  sendSignal(run.start.pid, 'SIGTERM')
  run.timers.push(setTimeout(sendSignal, GRACE, -run.start.pid, 'SIGKILL'))
}

/**
 * A negative id means the process group: the process, and everything that it started. A log without a call has process
 * id 0, and kill(0) would be the end of our own group, as kill(-1) of all that the user has running.
 */
function sendSignal(pid: number, signal: NodeJS.Signals) {
  if (Math.abs(pid) <= 1) return
  try {
    process.kill(pid, signal)
  } catch {} // nobody there any more
}

/** A zombie is none: it may stay for long when its parent has died, but then it has no command line any more. */
function hasProcess(pid: number): boolean {
  try {
    return process.kill(pid, 0) && (process.platform !== 'linux' || readFileSync(`/proc/${pid}/cmdline`).length > 0)
  } catch {
    return false
  }
}

/** The end of every run: nothing that it started is left, its log has its last line, its place is free. */
function finishRun(run: Run, reason: string) {
  run.timers.forEach(clearTimeout)
  // What is left of its process group. If there is a process of that number, it has come round again, for somebody else.
  if (!hasProcess(run.start.pid)) sendSignal(-run.start.pid, 'SIGKILL')
  try {
    const { size, done } = writeEnd(run, reason)
    running.delete(run.id)
    ended.set(run.id, summary(run, size, done))
    // The end position of the log, with no lines: a reader that has missed the last of them learns it from this.
    void publisher.send(packChunk({ id: run.id, position: size, lines: Buffer.alloc(0) })).catch(() => {})
    console.log(`run ${run.id} ended: ${done.outcome}, ${done.seconds} s${done.reason ? `, ${JSON.stringify(done.reason.slice(0, 200))}` : ''}`)
  } catch (error) {
    console.error(`run ${run.id} cannot be ended: ${(error as Error).message}`) // the disk is full
    if (!stopping) return void setTimeout(finishRun, 1000, run, reason)
    running.delete(run.id) // the next server will find it, and try again
  }
  tidy(() => {
    for (const name of uploadsOf(run)) rmSync(join(UPLOADS, name), { force: true })
    rmSync(join(FILES, `${run.id}.part`), { recursive: true, force: true }) // unfinished work
    layBallast()
  })
  tidy(removeOldest)
  if (stopping) leaveWhenIdle()
}

/** Whatever stands in the way of tidying up, it is no reason to end. */
function tidy(act: () => void) {
  try {
    act()
  } catch (error) {
    console.error(`cannot tidy up: ${(error as Error).message}`)
  }
}

/** The last entry of the run's log, which is written here if the process could not do it. */
function writeEnd(run: Run, reason: string): { size: number; done: Done } {
  const log = new RunLog(run.id, 'open')
  try {
    log.cut()
    const last = log.last()
    if (last?.type === 'done') return { size: log.size, done: last.data }
    if (!last) log.append(Buffer.from(packEntry('start', run.start))) // a server died in the middle of this line
    const seconds = (Date.now() - run.started) / 1000
    const done: Done = { outcome: run.reason ? 'cancelled' : 'died', reason: run.reason ?? reason, seconds }
    log.finish(done, run.reason ? undefined : { msg: reason })
    return { size: log.size, done }
  } finally {
    log.close()
  }
}

/** How a run ended, by its log; undefined while that is not complete. Its process may take a moment longer to go. */
function readEnd(run: Run): Ended | undefined {
  if (!existsSync(logPath(run.id))) return
  const log = new RunLog(run.id, 'open')
  try {
    const last = log.last()
    return last?.type === 'done' ? summary(run, log.size, last.data) : undefined
  } finally {
    log.close()
  }
}

function summary(run: Run, size: number, { outcome, seconds, result }: Done): Ended {
  const file = Object(result).file as unknown
  // A result can say anything: what is no name of a file, or of another run, must not be removed with this one.
  return { run, size, outcome, seconds, ...isFile(file) && file.startsWith(`${run.id}.`) && { file } }
}

function uploadsOf({ start }: Run): string[] {
  const parameters = functions.get(start.method)?.parameters ?? []
  return start.args.filter((name, index): name is string => parameters[index]?.type === 'file' && isId(name))
}

/** So many of the ended runs, the oldest, are not to be kept. */
function surplus(): number {
  return Math.max(0, ended.size - KEEP_RUNS)
}

function removeOldest() {
  clearTimeout(removal)
  for (const [id, { run, seconds, file }] of ended) {
    if (!surplus()) return
    const left = run.started + seconds * 1000 + AFTERLIFE - Date.now()
    if (left > 0) {
      removal = setTimeout(tidy, Math.min(left, AFTERLIFE), removeOldest) // not longer: the clock may have been set back
      return
    }
    ended.delete(id)
    rmSync(logPath(id), { force: true })
    if (file) rmSync(join(FILES, file), { recursive: true, force: true })
  }
}

function layBallast() {
  try {
    if (!existsSync(BALLAST)) writeFileSync(BALLAST, Buffer.alloc(2 ** 16, ' '))
  } catch {
    rmSync(BALLAST, { force: true }) // the disk is full: half a ballast would never be laid again
  }
}

function sweepUploads() {
  const taken = new Set([...running.values()].flatMap(uploadsOf))
  for (const name of readdirSync(UPLOADS)) {
    const path = join(UPLOADS, name)
    const age = Date.now() - (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Date.now())
    if (age > UPLOAD_AGE && !taken.has(name)) rmSync(path, { recursive: true, force: true })
  }
}

// ---- After a crash of the workers server

/** Takes over what an earlier workers server left: runs that go on, and runs whose process died without a `done`. */
function adoptAll() {
  const ids = readdirSync(RUNS).filter(name => name.endsWith('.ndjson')).map(name => name.slice(0, -'.ndjson'.length))
  const written = new Map(ids.map(id => [id, statSync(logPath(id), { throwIfNoEntry: false })?.mtimeMs ?? 0]))
  for (const id of ids.sort((a, b) => written.get(a)! - written.get(b)!)) {
    try {
      adoptRun(id)
    } catch (error) {
      console.error(`${logPath(id)} is no log of a run, and is left alone: ${(error as Error).message}`)
    }
  }
  tidy(removeOldest)
}

function adoptRun(id: string): Run | undefined {
  const found = isId(id) ? statSync(logPath(id), { throwIfNoEntry: false }) : undefined
  if (!found?.isFile()) return
  const first = firstEntry(id)
  if (!first && Date.now() - found.mtimeMs < GRACE) return // a server may be creating it at this moment
  const start = first?.type === 'start' && Array.isArray(first.data?.args) ? first.data
    : { method: '', args: [], callId: '', pid: 0, timeLimit: 0 }
  const run: Run = { id, start, started: first?.time ?? found.mtimeMs, timers: [], adopted: true }
  const end = readEnd(run)
  if (end) {
    ended.set(id, end)
    return run
  }
  running.set(id, run)
  if (!isAlive(run)) {
    finishRun(run, 'ended without a result, while no workers server was running')
    return run
  }
  limitTime(run)
  console.log(`run ${id} adopted: ${start.method}, process ${start.pid}`)
  return run
}

function firstEntry(id: string): Entry | undefined {
  const [line] = String(readLines(id, 0, 4096)).split('\n', 1)
  return line ? unpackEntry(line) : undefined
}

/**
 * Whether the process of a run lives. A process id can come round again, so it must be the process that has this run's
 * log open, or a task process that is still loading, and no spare; where there is no /proc, the id alone has to do.
 */
function isAlive({ id, start }: Run): boolean {
  if ([...spares, loading].some(spare => spare?.pid === start.pid)) return false
  if (process.platform !== 'linux') return hasProcess(start.pid)
  const log = statSync(logPath(id), { throwIfNoEntry: false })
  const folder = `/proc/${start.pid}/fd`
  try {
    if (readFileSync(`/proc/${start.pid}/cmdline`, 'utf8').includes(TASK_PROCESS)) return true
    return readdirSync(folder).some(file => {
      const open = statSync(join(folder, file), { throwIfNoEntry: false })
      return open && log && open.ino === log.ino && open.dev === log.dev
    })
  } catch {
    return false // no such process, a zombie, or another user's
  }
}

// A process that is not our child cannot tell us of its end: this is the one place that has to look again and again.
function finishAdopted() {
  for (const run of running.values()) {
    if (run.adopted && !isAlive(run)) finishRun(run, 'ended without a result')
  }
}

// ---- Processes

/** Starts a task process, which loads the functions, connects, and runs the run `id`; without one it is a spare. */
function forkTask(id?: string): ChildProcess {
  const stripsTypes = 'typescript' in process.features && Boolean(process.features.typescript)
  const child = fork(TASK_PROCESS, id ? [id] : [], {
    // A process group of its own: the run can be killed with all that it started, and a Ctrl-C in the terminal
    // reaches the workers server alone, which then asks the runs to end.
    detached: true,
    // Not `--import tsx`: that runs a second thread for `import`, and takes 450 ms to load this, not 200.
    execArgv: stripsTypes ? [] : ['--require', fileURLToPath(import.meta.resolve('tsx/cjs')), '--eval', 'require(process.argv[1])'],
    env: taskEnvironment(),
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
  child.on('error', () => {}) // startRun and loadSpare see to it; without a listener it would end this process
  return child
}

/** What a task needs, and no secrets of the servers: TOKEN stays here. TASK_… is for the remote functions. */
function taskEnvironment(): NodeJS.ProcessEnv {
  const wanted = /^(PATH|HOME|USER|LANG|LC_.*|TZ|TMPDIR|NODE_.*|RUNS|TASKS|MAX_LOG|(REP|XSUB|XPUB)_ADDR|TASK_.*)$/
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => wanted.test(name)))
}

// Refilled one at a time, and not in the middle of a burst of launches, which the loading would slow down.
function refillSoon() {
  clearTimeout(refillTimer)
  refillTimer = setTimeout(refill, pause)
}

/** One that is still loading will do: it is ready sooner than a new one, and two would slow each other down. */
function takeSpare(): ChildProcess | undefined {
  refillSoon()
  const child = spares.shift() ?? loading
  if (child === loading) loading = undefined
  return child?.removeAllListeners('exit').removeAllListeners('message')
}

function refill() {
  if (stopping || loading || spares.length >= SPARES) return
  const child = loading = forkTask()
  child.once('message', () => {
    spares.push(child)
    loading = undefined
    pause = QUIET
    refill()
  })
  child.once(child.pid ? 'exit' : 'error', () => { // what could not be forked does not exit
    if (loading === child) {
      loading = undefined
      pause = Math.min(2 * pause, LONGEST_PAUSE) // it crashed while loading: a pause that grows, not a fork storm
    } else {
      spares.splice(spares.indexOf(child), 1)
    }
    refillSoon()
  })
}

// ---- Stop

// Ctrl-C under npm sends the signal twice, from the terminal and from npm: only a later one means "at once".
function stop() {
  if (stopping && Date.now() - stopping > 250) running.forEach(run => sendSignal(-run.start.pid, 'SIGKILL'))
  if (stopping) return
  stopping = Date.now()
  for (const spare of [...spares, loading]) spare?.kill('SIGKILL')
  running.forEach(run => cancelRun(run, 'the workers server was stopped'))
  leaveWhenIdle()
}

function leaveWhenIdle() {
  if (running.size === 0) setTimeout(leave, LAST_READS)
}

function leave() {
  for (const path of [REP_ADDR, XSUB_ADDR, XPUB_ADDR].map(socketPath)) if (path) rmSync(path, { force: true })
  process.exit()
}
