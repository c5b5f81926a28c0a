// The workers server: it starts one process per run, watches over it to its end, and answers questions about
// runs. It keeps nothing that the logs do not hold, so it can be killed and started again in the middle of
// everything. Look for: answerCalls (the REP side), startRun and finishRun (a run's life), adoptRun (after a crash).

import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Proxy, Publisher, Router, XPublisher, XSubscriber } from 'zeromq'
import {
  busy, BusyError, createSocket, FILES, INVALID_ID, isFile, isId, KEEP_RUNS, logPath, MAX_CHUNK, openRuns,
  outliveTerminal, packChunk, packEntry, packReply, PROCESS_LIMIT, rawResult, refused, refuseToStart, RemoteError,
  REP_ADDR, RESERVED, result, RUNS, SPARES, started, TASKS, TIME_LIMIT, unpackCall, unpackEntry, unpackEnvelope, UPLOADS,
  XPUB_ADDR, XSUB_ADDR,
  type Call, type Done, type Outcome, type Reply, type Start,
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

/** A run, from its call until its log is removed. */
type Run = {
  id: string
  start: Start
  /** In ms since 1970. */
  started: number
  /** Why it is to end, once that was asked for. */
  reason?: string
  /** Asks it to end at its time limit; once it was asked, kills it after the grace period. */
  timer?: NodeJS.Timeout
  /** What its log says, once that is complete. */
  end?: State
  /** What it has produced, in FILES. */
  file?: string
}
/** What a log says of its run: its size in bytes; how the run ended, once it has. */
type State = { size: number; outcome?: Outcome; seconds?: number }

// A place is a process: a run stands in `running` from the check of the limit until its process has gone and its
// log has its last line. The limit, the duplicate check and the clean stop are all this one Map.
const running = new Map<string, Run>()
const ended = new Map<string, Run>() // oldest first
const spares = new Set<ChildProcess>() // the last one may still be loading
let pause = QUIET
let refillTimer: NodeJS.Timeout | undefined
let stopping = 0

// ---- The program

openRuns()
const functions = await loadFunctions().catch(error => refuseToStart(`cannot load the remote functions, TASKS is ${TASKS}: ${error.stack}`))
for (const name of [...RESERVED, 'default']) {
  if (functions.has(name)) refuseToStart(`a remote function cannot be named ${name}: export const ANOTHER_NAME = remote(…)`)
}
const router = createSocket(Router, { sendTimeout: 0 })
await bind(router, REP_ADDR)
let proxy = await startProxy()
process.on('exit', () => { // whatever the reason is
  attempt('remove the sockets', removeSockets)
  try {
    proxy.terminate() // else its thread would keep this process alive for ever
  } catch {} // it has just ended by itself, see startProxy
})
const publisher = createSocket(Publisher, { sendTimeout: 0 })
publisher.connect(XSUB_ADDR)

layBallast()
adoptAll()
attempt('remove old uploads', sweepUploads)
setInterval(attempt, UPLOAD_AGE / 6, 'remove old uploads', sweepUploads)
process.on('SIGTERM', stop)
process.on('SIGINT', stop)
outliveTerminal()
refill()
void answerCalls()
console.log(`workers server ready: ${REP_ADDR}, process limit ${PROCESS_LIMIT}, remote functions ${[...functions.keys()].join(', ')}`)

// Trap, the silent takeover: binding an ipc address that is in use succeeds, and the one who had it gets no connection
// any more, and no error. So look whether somebody listens: by a plain connection, as a server that is stopped or busy
// would not answer a request, but is still there.
async function bind(socket: { bind(address: string): Promise<void> }, address: string) {
  const path = socketPath(address)
  if (path && await listens(path)) refuseToStart(`another workers server is running on ${address}: stop it, or set RUNS to another folder`)
  await socket.bind(address).catch(error => refuseToStart(`cannot listen on ${address}: ${error.message}`))
}

/**
 * From the tasks to the web server: XSUB and XPUB are SUB and PUB that pass on who subscribes to what, too, so that all
 * tasks and all web servers need one address each. Native, in its own thread: no message passes through this program.
 * When this process is stopped and continued (SIGSTOP), the proxy may end with EINTR (interrupted system call), and
 * closes its sockets: so start another, when they are closed; else bind() would find them, and refuse to start.
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
  const probe = connect(path)
  return once(probe, 'connect').then(() => true, () => false).finally(() => probe.destroy())
}

// ---- Requests

// Every request gets exactly one reply: so there is a single send, and answer() never throws.
// Traps of a REP socket: it must answer one request before it can read the next (lockstep), and a single frame from a
// peer that is no REQ makes its receive() throw, which ends the loop: nobody is answered any more (fragility). So this
// side is a ROUTER, which a REQ cannot tell from a REP (ZeroMQ's guide, chapter 3, "The Asynchronous Client/Server").
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
  const kept = [...ended.values()].slice(Math.max(0, ended.size - KEEP_RUNS)) // the others are about to be removed
  return [...kept, ...running.values()].reverse().sort((a, b) => b.started - a.started).map(run => {
    const { id, start: { method, callId, pid }, started } = run
    return { id, method, callId, pid, started, ...stateOf(run) }
  })
}

function statRuns(ids: unknown) {
  if (!Array.isArray(ids)) throw new RemoteError('invalid arguments: stat takes [[id, …]]')
  const known = ids.map(id => running.get(id) ?? ended.get(id)).filter(run => run !== undefined)
  return Object.fromEntries(known.map(run => {
    const { size, outcome } = stateOf(run)
    return [run.id, { size, done: outcome !== undefined }]
  }))
}

/** What its log says of a run. Once that is complete nothing follows, but its process may take a moment longer to go. */
function stateOf(run: Run): State {
  if (run.end) return run.end
  if (!existsSync(logPath(run.id))) return { size: 0 } // somebody has removed it
  return withLog(run.id, log => {
    const last = log.last()
    if (last?.type !== 'done') return { size: log.size }
    const { outcome, seconds, result } = last.data
    const { file } = Object(result) // a result can say anything: only what is named after the run goes with it
    if (isFile(file) && file.startsWith(`${run.id}.`)) run.file = file
    return run.end = { size: log.size, outcome, seconds }
  })
}

/** Whole lines from a position: at most MAX_CHUNK bytes, or one line that is longer; none at the end. */
function readLines({ id }: Run, position: unknown): Buffer {
  if (!Number.isSafeInteger(position) || Number(position) < 0) throw new RemoteError('invalid position: not a whole number')
  if (!existsSync(logPath(id))) return Buffer.alloc(0)
  return withLog(id, log => log.lines(Number(position), MAX_CHUNK))
}

function withLog<T>(id: string, act: (log: RunLog) => T): T {
  const log = new RunLog(id, 'open')
  try {
    return act(log)
  } finally {
    log.close()
  }
}

function knownRun(id: unknown): Run {
  if (!isId(id)) throw new RemoteError(INVALID_ID)
  const run = running.get(id) ?? ended.get(id)
  if (!run) throw new RemoteError(`unknown run ${id}`)
  return run
}

function runningRun(id: unknown): Run {
  const run = knownRun(id)
  if (stateOf(run).outcome) throw new RemoteError(`not running: ${run.id} has ended`)
  return run
}

// ---- A run's life

/** Checks the call, takes a process for it, and returns its process id. Throws a RemoteError or a BusyError. */
async function startRun({ method, callId, id, args, timeLimit = TIME_LIMIT }: Call): Promise<number> {
  if (!isId(id)) throw new RemoteError(INVALID_ID)
  if (callId.length > 256) throw new RemoteError('invalid call id: at most 256 characters are allowed')
  const called = functions.get(method)
  if (!called) throw new RemoteError(`unknown method ${method}: \`methods\` tells what can be called`)
  checkArgs(called, args)
  if (running.has(id)) throw new RemoteError(`already running: a run with the id ${id}`)
  if (ended.has(id) || existsSync(logPath(id))) throw new RemoteError(`already used: the id ${id}; every run needs a new one`)
  const key = callId || id
  if ([...running.values()].some(run => (run.start.callId || run.id) === key)) throw new RemoteError(`already running: the call ${key}`)
  if (stopping) throw new BusyError('the workers server is stopping')
  if (running.size >= PROCESS_LIMIT) throw new BusyError(`the process limit of ${PROCESS_LIMIT} is reached`)

  const spare = takeSpare()
  const child = spare ?? forkTask(id)
  if (!child.pid) {
    const [error] = await once(child, 'error') // no such binary, no descriptors left: then there is no `exit`
    throw new RemoteError(`cannot start a process: ${error.message}`)
  }
  const run: Run = { id, start: { method, args, callId, pid: child.pid, timeLimit }, started: Date.now() }
  try {
    beginLog(run)
  } catch (error) {
    child.kill('SIGKILL')
    throw new RemoteError(`cannot start a log: ${(error as Error).message}`) // the disk is full
  }
  running.set(id, run) // in the same turn as the checks: two calls cannot both pass them
  // Trap: `exit` overtakes the last messages of the process, which are still on their way. Were it told as the end of the
  // run, these would never be shown; but what is told is a position, see finishRun.
  child.once('exit', (code, signal) => {
    finishRun(run, signal ? `killed by ${signal}` : `ended without a result (exit code ${code})`)
  })
  // Not in this turn: in a burst, the processes that wake would compete with the replies to the other calls.
  if (spare) setImmediate(() => spare.send(id, () => {})) // an error here means that it has died: `exit` follows
  limitTime(run)
  console.log(`run ${id} started: ${method}, process ${child.pid}`)
  return child.pid
}

// The log begins with the call, and stands before anyone hears that the run has started: whatever dies from here
// on, the task process or this one, the run is known, and somebody will end it.
function beginLog({ id, start, started }: Run) {
  const log = new RunLog(id, 'create')
  try {
    const lines = Buffer.from(packEntry('start', start, started))
    log.append(lines)
    publish(id, 0, lines)
  } catch (error) {
    rmSync(logPath(id))
    throw error
  } finally {
    log.close()
  }
}

function publish(id: string, position: number, lines: Buffer) {
  void publisher.send(packChunk({ id, position, lines })).catch(() => {}) // a hint: who misses it reads the log
}

function limitTime(run: Run) {
  const { timeLimit } = run.start
  if (!timeLimit) return
  const left = run.started + timeLimit * 1000 - Date.now()
  run.timer = setTimeout(cancelRun, Math.max(0, left), run, `over its time limit of ${timeLimit} s`)
}

/** Asks a run to end; kills it, and all that it started, when it has not done so after the grace period. */
function cancelRun(run: Run, reason: string) {
  if (run.reason) return // asked already
  run.reason = reason
  clearTimeout(run.timer)
  sendSignal(run.start.pid, 'SIGTERM') // ends a process that is still loading at once: it has no listener yet
  run.timer = setTimeout(sendSignal, GRACE, -run.start.pid, 'SIGKILL')
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

/** A zombie does not count: it may stay for long when its parent has died, but it has no command line any more. */
function hasProcess(pid: number): boolean {
  try {
    return process.platform === 'linux' ? readFileSync(`/proc/${pid}/cmdline`).length > 0 : process.kill(pid, 0)
  } catch {
    return false
  }
}

/** The end of every run: nothing that it started is left, its log has its last line, its place is free. */
function finishRun(run: Run, why: string) {
  clearTimeout(run.timer)
  // What is left of its process group. (If there is a process of that id, the id was used again: it is somebody else's.)
  if (!hasProcess(run.start.pid)) sendSignal(-run.start.pid, 'SIGKILL')
  try {
    const { outcome, seconds, reason } = completeLog(run, why)
    console.log(`run ${run.id} ended: ${outcome}, ${seconds} s${reason ? `, ${JSON.stringify(reason.slice(0, 200))}` : ''}`)
    // Where the log ends, with no lines: a reader that has missed the last of them learns it from this.
    publish(run.id, stateOf(run).size, Buffer.alloc(0))
    keepRun(run)
  } catch (error) {
    console.error(`run ${run.id} cannot be ended: ${(error as Error).message}`) // the disk is full, say
    // Else the next server will find it, and try again; or somebody has removed the log, and there is nothing to end.
    if (!stopping && existsSync(logPath(run.id))) return void setTimeout(finishRun, 1000, run, why)
  }
  running.delete(run.id)
  attempt('tidy up', () => {
    for (const name of uploadsOf(run)) remove(UPLOADS, name)
    remove(FILES, `${run.id}.part`) // unfinished work
    layBallast()
  })
  if (stopping) leaveWhenIdle()
}

/** The last entry of the run's log, which is written here if the process could not do it. */
function completeLog(run: Run, why: string): Done {
  return withLog(run.id, log => {
    log.cut()
    const last = log.last()
    if (last?.type === 'done') return last.data
    if (!last) log.append(Buffer.from(packEntry('start', run.start, run.started))) // a server died in the middle of this line
    const seconds = (Date.now() - run.started) / 1000
    const done: Done = { outcome: run.reason ? 'cancelled' : 'died', reason: run.reason ?? why, seconds }
    log.finish(done, run.reason ? undefined : { msg: why })
    return done
  })
}

/** Keeps the log of a run that has ended until enough others have, and for a while at least: readers fetch its last lines. */
function keepRun(run: Run) {
  ended.set(run.id, run)
  setTimeout(attempt, AFTERLIFE, 'remove the oldest run', removeOldest)
}

// Each run that ends has one other removed, AFTERLIFE later: so none goes sooner, and none that is too many stays.
function removeOldest() {
  const [oldest] = ended.values()
  if (!oldest || ended.size <= KEEP_RUNS) return
  ended.delete(oldest.id)
  rmSync(logPath(oldest.id), { force: true })
  if (oldest.file) remove(FILES, oldest.file)
}

/** For what is no reason to end when it fails. */
function attempt(what: string, act: () => void) {
  try {
    act()
  } catch (error) {
    console.error(`cannot ${what}: ${(error as Error).message}`)
  }
}

function remove(folder: string, name: string) {
  rmSync(join(folder, name), { recursive: true, force: true })
}

function uploadsOf({ start }: Run): string[] {
  const parameters = functions.get(start.method)?.parameters ?? []
  return start.args.filter((name, index): name is string => parameters[index]?.type === 'file' && isId(name))
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
    const written = statSync(join(UPLOADS, name), { throwIfNoEntry: false })?.mtimeMs ?? Infinity
    if (Date.now() - written > UPLOAD_AGE && !taken.has(name)) remove(UPLOADS, name)
  }
}

// ---- After a crash of the workers server

/** Takes over what an earlier workers server left: runs that go on, and runs whose process died without a `done`. */
function adoptAll() {
  const ids = readdirSync(RUNS).flatMap(name => /^(.*)\.ndjson$/.exec(name)?.[1] ?? []).filter(isId)
  const written = new Map(ids.map(id => [id, statSync(logPath(id), { throwIfNoEntry: false })?.mtimeMs ?? 0]))
  ids.sort((a, b) => written.get(a)! - written.get(b)!)
  for (const id of ids) attempt(`adopt ${logPath(id)}, which is left alone`, () => adoptRun(id))
}

function adoptRun(id: string) {
  const lines = withLog(id, log => log.lines(0, 4096))
  const first = lines.length ? unpackEntry(String(lines.subarray(0, lines.indexOf('\n')))) : undefined
  if (first && !(first.type === 'start' && Array.isArray(first.data?.args))) throw new Error('it does not begin with a call')
  // Without a first line, its server died while it wrote the call.
  const start = first?.data ?? { method: '', args: [], callId: '', pid: 0, timeLimit: 0 }
  const run: Run = { id, start, started: first?.time ?? Date.now() }
  if (stateOf(run).outcome) return keepRun(run)
  running.set(id, run)
  if (isAlive(run)) watchRun(run)
  else finishRun(run, 'ended without a result, while no workers server was running')
}

// A process that is not our child cannot tell us of its end: this is the one place that has to look again and again.
function watchRun(run: Run) {
  limitTime(run)
  const watch = setInterval(() => {
    if (isAlive(run)) return
    clearInterval(watch)
    finishRun(run, 'ended without a result')
  }, WATCH)
  console.log(`run ${run.id} adopted: ${run.start.method}, process ${run.start.pid}`)
}

/**
 * Whether the process of a run lives. A process id can come round again, so it must be the process that has this run's
 * log open, or a task process that is still loading, and no spare; where there is no /proc, the id alone has to do.
 */
function isAlive({ id, start: { pid } }: Run): boolean {
  if ([...spares].some(spare => spare.pid === pid)) return false
  if (process.platform !== 'linux') return hasProcess(pid)
  try {
    if (readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(TASK_PROCESS)) return true
    const log = statSync(logPath(id))
    return readdirSync(`/proc/${pid}/fd`).some(file => {
      const open = statSync(`/proc/${pid}/fd/${file}`, { throwIfNoEntry: false }) // it may be closed by now
      return open?.ino === log.ino && open.dev === log.dev
    })
  } catch {
    return false // no such process, a zombie, or another user's
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
  child.on('error', () => {}) // startRun and refill see to it; without a listener it would end this process
  return child
}

/** What a task needs, and no secrets of the servers: TOKEN stays here. TASK_… is for the remote functions. */
function taskEnvironment(): NodeJS.ProcessEnv {
  const wanted = /^(PATH|HOME|USER|LANG|LC_.*|TZ|TMPDIR|NODE_.*|RUNS|TASKS|MAX_LOG|(REP|XSUB|XPUB)_ADDR|TASK_.*)$/
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => wanted.test(name)))
}

/** One that is still loading will do: it is ready sooner than a new one, and two would slow each other down. */
function takeSpare(): ChildProcess | undefined {
  refillSoon()
  const [spare] = spares
  if (spare) spares.delete(spare.removeAllListeners('exit').removeAllListeners('message'))
  return spare
}

// Refilled one at a time, and not in the middle of a burst of launches, which the loading would slow down.
function refillSoon() {
  clearTimeout(refillTimer)
  refillTimer = setTimeout(refill, pause)
}

function refill() {
  const isLoading = [...spares].some(spare => spare.listenerCount('message')) // it has not said that it is ready
  if (stopping || isLoading || spares.size >= SPARES) return
  const spare = forkTask()
  spares.add(spare)
  spare.once('message', () => {
    pause = QUIET
    refill()
  })
  spare.once(spare.pid ? 'exit' : 'error', () => { // what could not be forked does not exit
    spares.delete(spare)
    pause = Math.min(2 * pause, LONGEST_PAUSE) // when all of them crash: a pause that grows, not a fork storm
    refillSoon()
  })
}

// ---- Stop

// Ctrl-C under npm sends the signal twice, from the terminal and from npm: only a later one means "at once".
function stop() {
  if (stopping && Date.now() - stopping > 250) running.forEach(run => sendSignal(-run.start.pid, 'SIGKILL'))
  if (stopping) return
  stopping = Date.now()
  for (const spare of spares) spare.kill('SIGKILL') // it has nothing to clean up
  running.forEach(run => cancelRun(run, 'the workers server was stopped'))
  leaveWhenIdle()
}

function leaveWhenIdle() {
  if (running.size === 0) setTimeout(() => process.exit(), LAST_READS)
}

function removeSockets() {
  for (const path of [REP_ADDR, XSUB_ADDR, XPUB_ADDR].map(socketPath)) if (path) rmSync(path, { force: true })
}
