// A run, from the outside: the workers server starts one process per run, watches over it to its end, and answers
// questions about runs. It keeps nothing that the logs do not hold, so it can be killed and started again in the middle
// of everything. Look for: answerCalls (the REP side), startRun and finishRun (a run's life), adoptRun (after a crash).
//
//   startRun ──▶ going on ──cancelRun──▶ asked to end ──┐
//                    │                        │     finishRun ──▶ ended ──removeOldest──▶ (forgotten)
//                    └──────── stateOf ───────┴─▶ done ─┘
//
//   state          its process       its log                  its timer                          in the Map
//   going on       lives             has no `done`            until its time limit, if any       running
//   asked to end   lives             the same, and a `.stop`  until it is killed: the grace      running
//   done           is about to exit  ends with `done`         the same                           running
//   ended          has gone          ends with `done`         none                               ended
//
// finishRun comes when the process has gone, from whatever state, and writes `done` where there is none. A server that
// starts finds what the last one left in any of the four, and adoptRun puts it there.

import type { ChildProcess } from 'node:child_process'
import { existsSync, lstatSync, readdirSync, renameSync, rmSync, statSync, utimesSync } from 'node:fs'
import { join } from 'node:path'
import { Proxy, Publisher, Router, XPublisher, XSubscriber } from 'zeromq'
import { loadFunctions, version } from './load.ts'
import {
  blankForeign, goingOnFor, hasSideFiles, INVALID_ID, isId, LF, logPath, noteBegin, packDone, packEntry, PositionError,
  readReason, removeSideFiles, RunLog, stderrPath, unpackEntry, withLog, writeReason, type Start, type State,
} from './log.ts'
import {
  attempt, claimRuns, endProcesses, endSpares, finishTelling, giveUpRuns, hasOpen, isAbsence, isLaunched, keepSpares,
  lastErrors, startProcess, tellEnd, trimErrors,
} from './processes.ts'
import {
  bindOptions, bindSocket, busy, BusyError, connectOptions, createSocket, isLocal, makeKeys, packChunk, packReply,
  rawResult, refused, RemoteError, removeSocket, RESERVED, result, started, unpackCall, unpackEnvelope, type Call,
  type Reply,
} from './protocol.ts'
import { checkArgs } from './remote.ts'
import {
  FILES, KEEP_RUNS, layBallast, onStop, openRuns, printWithoutWaiting, PROCESS_LIMIT, refuseToStart, REP_ADDR, RUNS,
  sendSignal, TASKS, TIME_LIMIT, UPLOADS, XPUB_ADDR, XSUB_ADDR,
} from './settings.ts'

// In milliseconds:
const GRACE = isLaunched ? 30_000 : 5000 // between asking a run to end, and killing it; an engine has one of its own
const WATCH = 250 // between two looks at runs that cannot tell what they do
const AFTERLIFE = 2500 // in which readers can still fetch the last lines of a run that is not kept; they ask every 2000
const LAST_READS = 200 // in which readers can still fetch the last lines when the server stops
const UPLOAD_AGE = 3600_000 // after which an upload that no run took, and nobody asked for, is removed
const MAX_PART = 512 * 2 ** 10 // bytes of an answer to `read`: each part is a round trip for a reader that catches up

/** A run, from its call until its log is removed. Its state is derived: see the head of this file. */
type Run = {
  id: string
  start: Start
  /** For people. */
  title: string
  /** When its call came: in ms since 1970, as its log says; and by a clock that nobody sets. */
  started: number
  began: number
  /** Its process, or its launcher's, when it is a child of this server. */
  child?: ChildProcess
  /** Asked to end: why. */
  reason?: string
  /** Its process has gone: what is told of that, if its log has no end. */
  why?: string
  /** What its log said when it was looked at last; done: it has an outcome. */
  log: State
  timer?: NodeJS.Timeout
}

// A run stands in `running` from its first line until all that it has started is gone. The limit, the check for the same
// call and the clean stop are all this one Map; calls are answered one after the other, so none comes between.
const running = new Map<string, Run>()
const ended = new Map<string, Run>() // in the order of their ends
const gone = new Map<string, Run>() // ended, but their places are not free yet: see freePlaces
let nextSweep = 0 // when that looks again at the earliest, by a clock that nobody sets
let stopping = 0 // since when, by a clock that nobody sets
let patience = GRACE // ms for those who are told of ends, when the server stops

// ---- The program: below its last line stand functions only, as a `const` there is not defined yet when they run

const ELSEWHERE = `it runs on Linux, and needs its /proc. Elsewhere, in a container, by the Dockerfile in REFERENCE.md:
    docker build -t longrun .
    docker run --init --restart=on-failure -e TOKEN -p 127.0.0.1:8080:8080 -v longrun:/var/lib/longrun longrun`

openRuns()
if (!existsSync('/proc/self/environ')) refuseToStart(ELSEWHERE)
claimRuns()
printWithoutWaiting()
const loadedVersion = version()
const functions = await loadFunctions().catch(error => {
  const reason = error instanceof RemoteError ? error.message : error.stack // who has written it looks for the line
  return refuseToStart(`cannot load the remote functions, TASKS is ${TASKS}: ${reason}`)
})
const taken = [...RESERVED, 'default'].find(name => functions.has(name))
if (taken) refuseToStart(`a remote function cannot be named ${taken}: export const ANOTHER_NAME = remote(…)`)
if (![REP_ADDR, XSUB_ADDR, XPUB_ADDR].every(isLocal)) makeKeys()
const router = createSocket(Router, { ...bindOptions(REP_ADDR), sendTimeout: 0 })
await bindSocket(router, REP_ADDR)
let proxy = await startProxy()
process.on('exit', () => { // whatever the reason is
  attempt('remove the sockets', () => [REP_ADDR, XSUB_ADDR, XPUB_ADDR].forEach(removeSocket))
  attempt('give the folder up', giveUpRuns)
  attempt('end the proxy', () => proxy.terminate()) // else its thread would keep this process alive for ever
})
const publisher = createSocket(Publisher, { ...connectOptions(XSUB_ADDR), sendTimeout: 0 })
publisher.connect(XSUB_ADDR)

attempt('lay the ballast', layBallast)
adoptAll()
attempt('remove old uploads', sweepUploads)
setInterval(attempt, UPLOAD_AGE / 6, 'remove old uploads', sweepUploads)
setInterval(attempt, 1000, 'bound what tasks say on stderr', () => trimErrors([...running.keys()]))
setInterval(() => running.forEach(lookAt), WATCH)
onStop(stop)
keepSpares(loadedVersion)
void answerCalls()
const names = [...functions.keys()].join(', ')
console.log(`workers server ready: ${REP_ADDR}, process limit ${PROCESS_LIMIT}, remote functions ${names}`)
process.send?.('ready', undefined, undefined, () => {}) // to start.js

/**
 * From the tasks to the web server: XSUB and XPUB are SUB and PUB that pass on who subscribes to what, too, so that all
 * tasks and all web servers need one address each. Native, in its own thread: no message passes through this program.
 * When this process is stopped and continued (SIGSTOP), the proxy may end with EINTR (interrupted system call), and
 * closes its sockets: so start another, when they are closed; else they would be found to be in use.
 */
async function startProxy(): Promise<Proxy> {
  const xsub = createSocket(XSubscriber, bindOptions(XSUB_ADDR))
  const xpub = createSocket(XPublisher, bindOptions(XPUB_ADDR))
  const closed = Promise.all([xsub, xpub].map(({ events }) => new Promise(resolve => events.on('end', resolve))))
  await bindSocket(xsub, XSUB_ADDR)
  await bindSocket(xpub, XPUB_ADDR)
  const native = new Proxy(xsub, xpub)
  native.run().catch(async () => {
    await closed
    proxy = await startProxy()
  })
  return native
}

// ---- Requests

// Every request gets exactly one reply: so there is a single send, and answer() never throws. One is answered after the
// other, which is what keeps two calls from both passing a check.
// Trap, the fragile REP: a single frame from a peer that is no REQ makes its receive() throw, which ends the loop, and
// nobody is answered any more. So this side is a ROUTER, which a REQ cannot tell from a REP (zguide chapter 3, "The
// Asynchronous Client/Server").
async function answerCalls() {
  for await (const frames of router) {
    const envelope = unpackEnvelope(frames)
    if (!envelope) continue // not from a REQ socket: there is nobody to answer
    await router.send(packReply(envelope, await answer(envelope.body))).catch(() => {}) // the caller has gone
  }
}

async function answer(body: Buffer[]): Promise<Reply> {
  try {
    const call = unpackCall(body)
    const { method, args } = call
    if (method === 'list') return result(listRuns(args[0]))
    if (method === 'show') return rawResult(showRun(knownRun(args[0])))
    if (method === 'stat') return result(statRuns(args[0]))
    if (method === 'read') return rawResult(readLines(knownRun(args[0]), args[1]))
    if (method === 'cancel') return result(cancelRun(runningRun(args[0]), 'cancelled'))
    if (method === 'methods') return result(listFunctions())
    if (method === 'ping') return result({ pid: process.pid, running: running.size, limit: PROCESS_LIMIT })
    return started(await startRun(call))
  } catch (error) {
    if (error instanceof BusyError) return busy(error.message)
    if (error instanceof RemoteError) return refused(error)
    if (error instanceof PositionError) return refused(new RemoteError('invalid', error.message))
    console.error(error)
    return refused(new RemoteError('failed', `cannot answer: ${(error as Error).message}`))
  }
}

function listFunctions() {
  return [...functions].map(([name, { description, parameters }]) => ({ name, description, parameters }))
}

/** The runs, newest first: all, those of one call id and of what begins with it and a `/`, or only so many. */
function listRuns(filter: unknown = {}) {
  const { callId, limit = Infinity } = (filter ?? {}) as { callId?: unknown; limit?: unknown }
  const isNumber = limit === Infinity || Number.isSafeInteger(limit) && Number(limit) >= 0
  if (!isNumber || callId !== undefined && typeof callId !== 'string') {
    throw new RemoteError('invalid', 'invalid arguments: list takes [{"callId": TEXT, "limit": NUMBER}], or less')
  }
  const kept = [...ended.values()].slice(Math.max(0, ended.size - KEEP_RUNS)) // the others are about to be removed
  const live = [...running.values()].filter(({ id }) => !ended.has(id)) // who has ended keeps its place a moment longer
  const all = [...kept, ...live].sort((one, other) => other.began - one.began)
  const wanted = all.filter(({ start }) => callId === undefined || `${start.callId}/`.startsWith(`${callId}/`))
  return wanted.slice(0, Number(limit)).map(summary)
}

/** A run in the list: what its log says of it, and how far it is, if it goes on. */
function summary(run: Run) {
  const { id, title, start: { method, callId, pid }, started } = run
  const state = stateOf(run)
  const progress = state.outcome ? undefined : readLog(run, log => log.latest('progress')?.data)
  return { id, method, title, callId, pid, started, ...state, progress }
}

/** The same with its step, its last progress and its reason; its result is cut out of the log as it stands there. */
function showRun(run: Run): Buffer {
  const { result, ...more } = readLog(run, log => {
    const { reason, result } = log.end() ?? {}
    return { progress: log.latest('progress')?.data, step: log.latest('step')?.data.name, reason, result }
  }) ?? {}
  const json = Buffer.from(JSON.stringify({ ...summary(run), ...more }))
  return result ? Buffer.concat([json.subarray(0, -1), Buffer.from(',"result":'), result, Buffer.from('}')]) : json
}

function statRuns(ids: unknown) {
  if (!Array.isArray(ids)) throw new RemoteError('invalid', 'invalid arguments: stat takes [[id, …]]')
  const known = ids.map(id => running.get(id) ?? ended.get(id)).filter(run => run !== undefined)
  const sizes = known.map(run => {
    const { size, outcome } = stateOf(run)
    return [run.id, { size, done: outcome !== undefined }] as const
  })
  return Object.fromEntries(sizes.filter(([, { size }]) => size)) // a log that was removed is as unknown as its run
}

/**
 * What a run's log says: looked at again when it has grown, until it has said how the run ended, which nothing changes
 * any more. Size 0: somebody has removed it. Whoever asks may be the first to find it done: then its process is about to
 * exit, and may hang in doing so.
 */
function stateOf(run: Run): State {
  const size = statSync(logPath(run.id), { throwIfNoEntry: false })?.size ?? 0
  if (size === run.log.size || size && run.log.outcome) return run.log
  const state = size ? readLog(run, log => log.state()) : { size }
  if (!state) return { size } // there is no descriptor left, say: it is looked at the next time
  run.log = state
  if (state.outcome && running.has(run.id)) killLater(run)
  return state
}

/** What `read` finds in the log of a run; undefined when it cannot be read, or something in it is not ours. */
function readLog<T>({ id }: Run, read: (log: RunLog) => T): T | undefined {
  let found: T | undefined
  attempt(`read the log of ${id}`, () => { found = withLog(id, read) })
  return found
}

/**
 * Whole lines from a position: at most MAX_PART bytes, or one line that is longer; none at the end. (The web server
 * reads no log itself: it may be on another machine.)
 */
function readLines(run: Run, position: unknown): Buffer {
  if (typeof position !== 'number' || !Number.isSafeInteger(position) || position < 0) {
    throw new RemoteError('invalid', 'invalid position: not a whole number')
  }
  const { size, outcome } = stateOf(run)
  if (!size) throw new RemoteError('unknown', `the log of ${run.id} was removed`)
  if (outcome && position > size) throw new RemoteError('invalid', `invalid position: the log has ended at ${size}`)
  const lines = blankForeign(withLog(run.id, log => log.lines(position, MAX_PART)))
  return outcome ? lines.subarray(0, size - position) : lines // nothing follows `done`, whoever has written there
}

function knownRun(id: unknown): Run {
  if (!isId(id)) throw new RemoteError('invalid', INVALID_ID)
  const run = running.get(id) ?? ended.get(id)
  if (!run) throw new RemoteError('unknown', `unknown run ${id}`)
  return run
}

function runningRun(id: unknown): Run {
  const run = knownRun(id)
  if (stateOf(run).outcome) throw new RemoteError('conflict', `not running: ${run.id} has ended`)
  return run
}

// ---- A run's life

/** Checks the call, takes a process for it, and returns its process id. Throws a RemoteError or a BusyError. */
async function startRun(call: Call): Promise<number> {
  checkCall(call)
  const { method, id, callId, args, timeLimit = TIME_LIMIT } = call
  if (stopping) throw new BusyError('the workers server is stopping')
  if (running.size >= PROCESS_LIMIT) {
    attempt('keep its uploads', () => touchUploads(call)) // the call may come again: they must not be swept until then
    throw new BusyError(`the process limit of ${PROCESS_LIMIT} is reached`)
  }
  const { child, stderr } = await startProcess(id)
  const run = newRun(id, { method, args, callId, pid: child.pid!, timeLimit }, Date.now(), child)
  try {
    renameSync(stderr, stderrPath(id)) // by which it is known from now on, see `isAlive`
    attempt(`note when ${id} begins`, () => noteBegin(id))
    beginLog(run)
  } catch (error) {
    child.kill('SIGKILL')
    removeSideFiles(id)
    throw new RemoteError('failed', `cannot start a log: ${(error as Error).message}`) // the disk is full
  }
  watchOver(run)
  // Not in this turn: in a burst, the processes that wake would compete with the replies to the other calls. (If this
  // server is killed before it, the spare ends with it, and the next server writes `died`.)
  setImmediate(() => {
    if (!isLaunched) child.send(id, () => {}) // an error here means that it has died: `exit` follows
    console.log(`run ${id} started: ${method}, process ${child.pid}`)
  })
  return child.pid!
}

/** Throws a RemoteError that says what is wrong with a call, whether or not there is a place for it. */
function checkCall({ method, callId, id, args }: Call) {
  if (!isId(id)) throw new RemoteError('invalid', INVALID_ID)
  if (callId.length > 256) throw new RemoteError('invalid', 'invalid call id: at most 256 characters are allowed')
  const called = functions.get(method)
  if (!called) throw new RemoteError('unknown', `unknown method ${method}: \`methods\` tells what can be called`)
  checkArgs(called, args)
  if (running.has(id)) throw new RemoteError('conflict', `already running: a run with the id ${id}`)
  if (ended.has(id) || existsSync(logPath(id))) {
    throw new RemoteError('conflict', `already used: the id ${id}; every run needs a new one`)
  }
  const name = callId || id
  const isRunning = [...running.values()].some(({ id, start }) => (start.callId || id) === name)
  if (isRunning) throw new RemoteError('conflict', `already running: the call ${name}`)
}

function newRun(id: string, start: Start, started: number, child?: ChildProcess): Run {
  const goesOn = child ? 0 : goingOnFor(id) ?? Math.max(0, Date.now() - started)
  return { id, start, title: titleOf(start), started, began: performance.now() - goesOn, child, log: { size: 0 } }
}

/** The method and its arguments, for people: cut, and without uploads, whose names say nothing. */
function titleOf({ method, args }: Start): string {
  const given = args.filter((_, index) => !isUpload(method, index)).map(value => JSON.stringify(value))
  return [...`${method}(${given.join(', ')})`.slice(0, 120)].slice(0, 60).join('') // no half of a surrogate pair
}

function isUpload(method: string, index: number): boolean {
  return functions.get(method)?.parameters[index]?.type === 'file'
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

function publish(id: string, position: number, lines = Buffer.alloc(0)) {
  void publisher.send(packChunk({ id, position, lines })).catch(() => {}) // who misses it reads the log
}

/** Gives a run its place, and sees to its time limit and its end, whoever has started its process. */
function watchOver(run: Run) {
  const { child, start: { pid, timeLimit } } = run
  running.set(run.id, run)
  // Trap: `exit` overtakes the last chunks of the process, which are still on their way. Were it told as the end of the
  // run, these would never be shown; but what is told is a position, see finishRun.
  child?.once('exit', (code, signal) => {
    sendSignal(-pid, 'SIGKILL') // what is left of its process group; the id cannot be another's yet
    finishRun(run, signal ? `killed by ${signal}` : `ended without a result (exit code ${code})`)
  })
  child?.on('message', message => message === 'done' && attempt(`look at ${run.id}`, () => stateOf(run)))
  const left = Math.max(0, timeLimit - secondsOf(run))
  if (timeLimit) run.timer = setTimeout(cancelRun, left * 1000, run, `over its time limit of ${timeLimit} s`)
}

/**
 * An adopted process cannot tell us of its end, nor a launched one that it has written `done`: so this is the one place
 * that has to look again and again.
 */
function lookAt(run: Run) {
  const tells = run.child && !isLaunched
  if (tells || run.why) return
  attempt(`look at ${run.id}`, () => {
    if (isAlive(run)) stateOf(run)
    else finishRun(run, 'ended without a result')
  })
}

/** How long a run has been going on. */
function secondsOf({ began }: Run): number {
  return Math.round(performance.now() - began) / 1000
}

/** Asks a run to end; kills it, and all that it started, when it has not done so after the grace period. */
function cancelRun(run: Run, reason: string): true {
  if (run.reason) return true // asked already
  run.reason = reason
  attempt(`write down why ${run.id} is to end`, () => writeReason(run.id, reason))
  signalRun(run, 'SIGTERM') // ends a process that is still loading at once: it has no listener yet
  killLater(run)
  return true
}

function killLater(run: Run) {
  clearTimeout(run.timer)
  run.timer = setTimeout(() => {
    killLater(run) // again, should it not go
    signalRun(run, 'SIGKILL')
  }, GRACE)
}

/**
 * To its process, if that is still there. SIGKILL goes to the whole process group, all that it started; but of a
 * launcher to itself alone: what it has started elsewhere ends with it, and only with it.
 */
function signalRun(run: Run, signal: NodeJS.Signals) {
  const { pid } = run.start
  attempt(`send ${signal} to ${run.id}`, () => {
    if (isAlive(run)) sendSignal(signal === 'SIGKILL' && !isLaunched ? -pid : pid, signal)
  })
}

/** The end of every run: its log has its last line, nothing that it started is left, its place is free. */
function finishRun(run: Run, why: string) {
  run.why = why
  try {
    const { outcome, seconds, reason } = completeLog(run, why)
    // Where the log ends, with no lines: a reader that has missed the last of them learns it from this.
    publish(run.id, run.log.size)
    keepRun(run)
    tellEnd(run.id, () => showRun(knownRun(run.id)))
    const words = reason ? [JSON.stringify(reason.slice(0, 200))] : []
    console.log([`run ${run.id} ended: ${outcome}`, `${seconds} s`, ...words].join(', '))
  } catch (error) {
    console.error(`run ${run.id} cannot be ended: ${(error as Error).message}`) // the disk is full, say
    // Else the next server will find it, and try again; or somebody has removed the log, and there is nothing to end.
    if (!stopping && existsSync(logPath(run.id))) {
      setTimeout(finishRun, 1000, run, why)
      return
    }
  }
  clearTimeout(run.timer)
  attempt('tidy up', () => removeSideFiles(run.id))
  gone.set(run.id, run)
  if (gone.size === 1) setTimeout(freePlaces, Math.max(0, nextSweep - performance.now()))
}

// A look for what runs have left reads the environments of all processes of the machine, which takes 0.1 s with 4,000
// of them: so it is one for all runs that have ended meanwhile, and takes a fifth of the time at most.
function freePlaces() {
  const began = performance.now()
  try {
    endProcesses(id => gone.has(id))
    gone.forEach(leavePlace)
    layBallast()
  } catch (error) {
    console.error(`cannot look for what runs have left, and tries again: ${(error as Error).message}`)
    setTimeout(freePlaces, 1000)
  }
  nextSweep = performance.now() + 4 * (performance.now() - began)
  if (stopping) void leaveWhenIdle()
}

function leavePlace({ id, start }: Run) {
  running.delete(id)
  gone.delete(id)
  attempt('tidy up', () => {
    for (const file of uploadsOf(start)) rmSync(file, { recursive: true, force: true })
    rmSync(join(FILES, `${id}.part`), { recursive: true, force: true }) // unfinished work
  })
}

/** Writes the last entry of the run's log, if its process could not do it, and returns how the run ended. */
function completeLog(run: Run, why: string) {
  return withLog(run.id, log => {
    const mayLive = !run.child || isLaunched // elsewhere: what a launcher stood for, or another server has started
    if (mayLive && !log.end()) log.replace()
    log.cut()
    if (!log.end()) endLog(log, run, why)
    run.log = log.state()
    return log.end()!
  })
}

function endLog(log: RunLog, run: Run, why: string) {
  if (!log.size) log.append(Buffer.from(packEntry('start', run.start, run.started))) // a server died while it wrote this
  const seconds = secondsOf(run)
  if (run.reason) {
    log.finish(packDone({ outcome: 'cancelled', reason: run.reason, seconds }))
  } else {
    const said = lastErrors(run.id)
    const msg = said ? `${why}; the last that it said:\n${said}` : why
    log.finish(packEntry('error', { msg }) + packDone({ outcome: 'died', reason: msg, seconds }))
  }
}

/** Keeps the log of a run that has ended until enough others have, and for a while at least: for its last readers. */
function keepRun(run: Run) {
  // Without its arguments: of a thousand runs they may be a thousand times 1 MiB.
  ended.set(run.id, { ...run, start: { ...run.start, args: [] }, child: undefined })
  setTimeout(attempt, AFTERLIFE, 'remove the oldest run', removeOldest)
}

// Each run that ends has one other removed, AFTERLIFE later: so none goes sooner, and none that is too many stays.
function removeOldest() {
  const [oldest] = ended.values()
  if (!oldest || ended.size <= KEEP_RUNS) return
  ended.delete(oldest.id)
  rmSync(logPath(oldest.id), { force: true })
  sweepFiles(`${oldest.id}.`)
}

/** Removes what runs have produced that are not known any more, and the unfinished work of those that have ended. */
function sweepFiles(beginning = '') {
  for (const name of readdirSync(FILES).filter(name => name.startsWith(beginning))) {
    const id = /^([\w-]{1,64})\.\w+$/.exec(name)?.[1]
    const isKept = !id || running.has(id) || existsSync(logPath(id)) && name !== `${id}.part`
    if (!isKept) rmSync(join(FILES, name), { recursive: true, force: true })
  }
}

/** The paths of a call's uploads. */
function uploadsOf({ method, args }: { method: string; args: unknown[] }): string[] {
  return args.filter((name, index) => isUpload(method, index) && isId(name)).map(name => join(UPLOADS, String(name)))
}

function touchUploads(call: Call) {
  for (const file of uploadsOf(call)) utimesSync(file, new Date(), new Date())
}

function sweepUploads() {
  const taken = new Set([...running.values()].flatMap(({ start }) => uploadsOf(start)))
  for (const file of readdirSync(UPLOADS).map(name => join(UPLOADS, name))) {
    const written = statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? Infinity
    if (Date.now() - written > UPLOAD_AGE && !taken.has(file)) rmSync(file, { recursive: true, force: true })
  }
}

// ---- After a crash of the workers server

/**
 * Takes over what an earlier workers server left: runs that go on, and runs whose process died without a `done`. What
 * belongs to none of them is ended and removed: once all logs could be looked at, else it is tried again.
 */
function adoptAll() {
  try {
    const names = readdirSync(RUNS)
    const ids = names.flatMap(name => /^(.*)\.ndjson$/.exec(name)?.[1] ?? []).filter(isId)
    const unknown = ids.filter(id => !running.has(id) && !ended.has(id))
    const logs = unknown.map(id => ({ id, written: lstatSync(logPath(id), { throwIfNoEntry: false })?.mtimeMs ?? 0 }))
    logs.sort((one, other) => one.written - other.written)
    const areAdopted = logs.map(({ id }) => isAdopted(id))
    if (areAdopted.includes(false)) throw new Error('some logs cannot be read')
    endProcesses(id => !running.has(id))
    for (const name of names) {
      const id = /^(.*)\.(stderr|stop|began|ndjson\.copy)$/.exec(name)?.[1]
      if (id && !running.has(id)) attempt('tidy up', () => rmSync(join(RUNS, name), { force: true }))
    }
    attempt('tidy up', sweepFiles)
  } catch (error) {
    console.error(`cannot take over what was left, and tries again: ${(error as Error).message}`)
    setTimeout(adoptAll, 1000)
  }
}

/** Whether all is known of a log, for now: false when it cannot be read at the moment. */
function isAdopted(id: string): boolean {
  try {
    adoptRun(id)
    return true
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    const isPassing = code !== undefined && !isAbsence(error) // no descriptor left, a failing disk
    console.error(`cannot adopt ${logPath(id)}, ${isPassing ? 'but tries again' : 'which is left alone'}: ${message}`)
    return !isPassing
  }
}

function adoptRun(id: string) {
  const { lines, state } = withLog(id, log => ({ lines: log.lines(0, 4096), state: log.state() }))
  const first = lines.length ? unpackEntry(String(lines.subarray(0, lines.indexOf(LF)))) : undefined
  const isCall = first?.type === 'start' && Array.isArray(first.data?.args)
  if (first && !isCall) throw new Error('it does not begin with a call')
  // Without a first line, its server died while it wrote the call.
  const start = first?.data ?? { method: '', args: [], callId: '', pid: 0, timeLimit: 0 }
  const run = newRun(id, start, first?.time ?? Date.now())
  const reason = readReason(id)
  if (isAlive(run)) {
    watchOver(run)
    console.log(`run ${id} adopted: ${start.method}, process ${start.pid}`)
    if (reason) cancelRun(run, reason) // that server was killed within the grace
  } else if (state.outcome) {
    keepRun({ ...run, log: state })
    if (hasSideFiles(id)) tellEnd(id, () => showRun(knownRun(id))) // it ended while there was no server
  } else {
    running.set(id, run)
    run.reason = reason
    finishRun(run, 'ended without a result, while no workers server was running')
  }
}

/** Whether the process of a run, or its launcher, lives. Throws EMFILE and the like when that cannot be seen. */
function isAlive({ id, child, start: { pid } }: Run): boolean {
  if (child) return child.exitCode === null && child.signalCode === null
  return hasOpen(pid, [logPath(id), stderrPath(id)])
}

// ---- Stop

// Ctrl-C under npm sends the signal twice, from the terminal and from npm: only a later one means "at once".
function stop(signal: NodeJS.Signals) {
  if (stopping && performance.now() - stopping < 250) return
  if (stopping) {
    patience = 0
    running.forEach(run => signalRun(run, 'SIGKILL'))
  } else {
    stopping = performance.now()
    endSpares()
    running.forEach(run => cancelRun(run, `the workers server was stopped by ${signal}`))
  }
  void leaveWhenIdle()
}

async function leaveWhenIdle() {
  if (running.size) return
  await finishTelling(patience)
  setTimeout(() => process.exit(), LAST_READS)
}
