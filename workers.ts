// A run, from the outside: the workers server starts one process per run, watches over it to its end, and answers all
// requests. It keeps nothing that the logs and the small files beside them do not hold, so it can be killed and started
// again in the middle of everything. Look for: answerCalls (the REP side), startRun and finishRun (a run's life),
// adoptRun (after a crash).
//
//   startRun ──▶ going on ──cancelRun──▶ asked to end ──┐
//                    │                        │     finishRun ──▶ ended ──removeOldest──▶ (forgotten)
//                    └──────── lookAt ────────┴─▶ done ─┘
//
//   state          its process       its log                  its timer                          in the Map
//   going on       lives             has no `done`            until its time limit, if any       running
//   asked to end   lives             the same, and a `.stop`  until it is killed: the grace      running
//   done           is about to exit  ends with `done`         the same                           running
//   ended          has gone          ends with `done`         none                               ended
//
// finishRun comes when the process has gone, from whatever state, and writes `done` where there is none; the run keeps
// its place in `running` until freePlaces has looked for what it has left. A server that starts finds what the last one
// left in any of the four states, and adoptRun takes it over.

import { existsSync, readdirSync, renameSync, utimesSync } from 'node:fs'
import { join } from 'node:path'
import { Proxy, Router, XPublisher, XSubscriber } from 'zeromq'
import { functions, loadFunctions } from './load.ts'
import {
  hasSideFiles, INVALID_ID, isId, logPath, noteBegin, packDone, packEntry, PositionError, readReason, removeSideFiles,
  stderrPath, withLog, writeReason,
} from './log.ts'
import {
  claimRuns, endProcesses, endSpares, finishTelling, giveUpRuns, hasOpen, isAbsence, isLaunched, keepSpares, lastErrors,
  startProcess, tellEnd, trimErrors,
} from './processes.ts'
import {
  bindSocket, busy, BusyError, invalid, NO_LINES, openPublisher, packReply, refused, RemoteError, removeSocket,
  RESERVED, result, started, unpackCall, unpackEnvelope, type Call, type Reply,
} from './protocol.ts'
import { checkArgs } from './remote.ts'
import {
  ended, keepRun, listRuns, logState, newRun, readLines, readRun, removeWork, running, runningRun, secondsOf, showRun,
  statRuns, sweepFiles, sweepUploads, unknownRuns, uploadsOf, type Run,
} from './runs.ts'
import {
  attempt, layBallast, onStop, openRuns, printWithoutWaiting, PROCESS_LIMIT, refuseToStart, removeAll, REP_ADDR, RUNS,
  sendSignal, TASKS, TIME_LIMIT, XPUB_ADDR, XSUB_ADDR,
} from './settings.ts'

const GRACE = isLaunched ? 30_000 : 5000 // ms between asking a run to end, and killing it; an engine has one of its own

let freeTimer: NodeJS.Timeout | undefined // until freePlaces
let freeFrom = 0 // when that comes at the earliest, by a clock that nobody sets
let stopping = 0 // since when, by that clock
let patience = GRACE // ms for those who are told of ends, when the server stops

// ---- The program: below its last line stand functions only, as a `const` there is not defined yet when they run

const ELSEWHERE = `it runs on Linux, and needs its /proc. Elsewhere, in a container, by the Dockerfile in REFERENCE.md:
    docker build -t longrun .
    docker run --init --restart=on-failure -e TOKEN -p 127.0.0.1:8080:8080 -v longrun:/var/lib/longrun longrun`

openRuns()
if (!existsSync('/proc/self/environ')) refuseToStart(ELSEWHERE)
claimRuns()
printWithoutWaiting()
const version = await loadFunctions().catch(error => {
  const reason = error instanceof RemoteError ? error.message : error.stack // who has written it looks for the line
  return refuseToStart(`cannot load the remote functions, TASKS is ${TASKS}: ${reason}`)
})
const taken = [...RESERVED, 'default'].find(name => functions.has(name))
if (taken) refuseToStart(`a remote function cannot be named ${taken}: export const ANOTHER_NAME = remote(…)`)
const router = await bindSocket(Router, REP_ADDR, { sendTimeout: 0 })
let proxy = await startProxy()
process.on('exit', () => { // whatever the reason is
  [REP_ADDR, XSUB_ADDR, XPUB_ADDR].forEach(removeSocket)
  giveUpRuns()
  attempt('end the proxy', () => proxy.terminate()) // else its thread would keep this process alive for ever
})
const publish = openPublisher()

attempt('lay the ballast', layBallast)
adoptAll()
attempt('remove old uploads', sweepUploads)
setInterval(attempt, 600_000, 'remove old uploads', sweepUploads)
setInterval(attempt, 1000, 'bound what tasks say on stderr', () => trimErrors([...running.keys()]))
setInterval(() => running.forEach(run => (!tellsDone(run) || run.log.outcome) && lookAt(run)), 250)
onStop(stop)
process.on('SIGUSR2', () => process.exit()) // start.js says so when the web server refuses: runs go on
keepSpares(version)
void answerCalls()
const names = [...functions.keys()].join(', ')
console.log(`workers server ready: ${REP_ADDR}, process limit ${PROCESS_LIMIT}, remote functions ${names}`)
process.send?.('ready', undefined, undefined, () => {}) // to start.js

// From the tasks to the web server: XSUB and XPUB are SUB and PUB that pass on who subscribes to what, too, so that all
// tasks and all web servers need one address each. Native, in its own thread: no message passes through this program.
// Trap: when this process is stopped and continued (SIGSTOP), the proxy may end with EINTR (interrupted system call),
// and closes its sockets: so start another, when they are closed; else they would be found to be in use.
async function startProxy(): Promise<Proxy> {
  const xsub = await bindSocket(XSubscriber, XSUB_ADDR)
  const xpub = await bindSocket(XPublisher, XPUB_ADDR)
  const closed = Promise.all([xsub, xpub].map(({ events }) => new Promise(resolve => events.on('end', resolve))))
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
    if (method === 'show') return result(showRun(args[0]))
    if (method === 'stat') return result(statRuns(args[0]))
    if (method === 'read') return result(readLines(args[0], args[1]))
    if (method === 'cancel') return result(cancelRun(runningRun(args[0]), 'cancelled'))
    if (method === 'methods') {
      return result([...functions].map(([name, { description, parameters }]) => ({ name, description, parameters })))
    }
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

// ---- A run's life

/** Checks the call, takes a process for it, and returns its process id. Throws a RemoteError or a BusyError. */
async function startRun(call: Call): Promise<number> {
  checkCall(call)
  const { method, id, callId, args, timeLimit = TIME_LIMIT } = call
  if (stopping) throw new BusyError('the workers server is stopping')
  if (running.size >= PROCESS_LIMIT) {
    // It may come again: its uploads must not be swept until then.
    attempt('keep its uploads', () => uploadsOf(call).forEach(file => utimesSync(file, new Date(), new Date())))
    throw new BusyError(`the process limit of ${PROCESS_LIMIT} is reached`)
  }
  const { child, stderr } = await startProcess(id)
  const run = newRun(id, { method, args, callId, pid: child.pid!, timeLimit }, child)
  const lines = Buffer.from(packEntry('start', run.start, run.started))
  try {
    renameSync(stderr, stderrPath(id)) // by which it is known from now on, see `isAlive`
    // The log begins with the call, and stands before anyone hears that the run has started: whatever dies from here
    // on, the task process or this one, the run is known, and somebody will end it.
    withLog(id, log => log.append(lines), 'create')
  } catch (error) {
    child.kill('SIGKILL')
    removeSideFiles(id)
    removeAll(logPath(id)) // it may have been created
    throw new RemoteError('failed', `cannot start a log: ${(error as Error).message}`) // the disk is full
  }
  if (!isLaunched) child.send(id, () => {}) // first, as it takes a moment; an error: it has died, `exit` follows
  publish({ id, position: 0, lines })
  watchOver(run)
  attempt(`note when ${id} begins`, () => noteBegin(id))
  console.log(`run ${id} started: ${method}, process ${child.pid}`)
  return child.pid!
}

/** Throws a RemoteError that says what is wrong with a call, whether or not there is a place for it. */
function checkCall({ method, callId, id, args }: Call) {
  if (!isId(id)) throw new RemoteError('invalid', INVALID_ID)
  if ([...callId].length > 256) throw invalid('call id', 'at most 256 characters are allowed')
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
  child?.on('message', message => message === 'done' && lookAt(run))
  const left = Math.max(0, timeLimit - secondsOf(run))
  if (timeLimit) run.timer = setTimeout(cancelRun, left * 1000, run, `over its time limit of ${timeLimit} s`)
}

// An adopted process cannot tell that it is done, nor a launched one: so these are looked at again and again. Any other
// is looked at when it tells, or when somebody who asked has found it done.
function lookAt(run: Run) {
  if (run.process === 'gone') return
  attempt(`look at ${run.id}`, () => {
    if (!isAlive(run)) return finishRun(run, 'ended without a result')
    if (run.process === 'exiting' || !logState(run).outcome) return
    run.process = 'exiting'
    killLater(run) // it may hang in that
  })
}

function tellsDone({ child }: Run): boolean { return child !== undefined && !isLaunched }

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
  run.timer = setInterval(signalRun, GRACE, run, 'SIGKILL') // again and again, should it not go
}

// To its process, if that is still there. SIGKILL goes to the whole process group, all that it started; but of a
// launcher to itself alone: what it has started elsewhere ends with it, and only with it.
function signalRun(run: Run, signal: NodeJS.Signals) {
  const { pid } = run.start
  attempt(`send ${signal} to ${run.id}`, () => {
    if (isAlive(run)) sendSignal(signal === 'SIGKILL' && !isLaunched ? -pid : pid, signal)
  })
}

/** The end of every run: its log has its last line, nothing that it started is left, its place is free. */
function finishRun(run: Run, why: string) {
  run.process = 'gone'
  try {
    const { outcome, seconds, reason } = endLog(run, why)
    // Where the log ends, with no lines: a reader that has missed the last of them learns it from this.
    publish({ id: run.id, position: run.log.size, lines: NO_LINES })
    tellEnd(run.id, showRun)
    const words = reason ? `, ${JSON.stringify(reason.slice(0, 200))}` : ''
    console.log(`run ${run.id} ended: ${outcome}, ${seconds} s${words}`)
  } catch (error) {
    console.error(`run ${run.id} cannot be ended: ${(error as Error).message}`) // the disk is full, say
    // Else the next server will find it, and try again; or somebody has removed the log, and there is nothing to end.
    if (!stopping && existsSync(logPath(run.id))) {
      setTimeout(finishRun, 1000, run, why)
      return
    }
  }
  clearTimeout(run.timer)
  removeSideFiles(run.id)
  keepRun(run)
  freeTimer ??= setTimeout(freePlaces, Math.max(0, freeFrom - performance.now()))
}

// A look for what runs have left reads the environments of all processes of the machine, which takes 0.1 s with 4,000
// of them: so it is one for all runs that have ended meanwhile, and takes a fifth of the time at most.
function freePlaces() {
  const began = performance.now()
  const isDone = attempt('look for what runs have left, and tries again', () => {
    const left = new Map([...running].filter(([id]) => ended.has(id)))
    endProcesses(id => left.has(id))
    for (const [id, run] of left) {
      running.delete(id)
      removeWork(run)
    }
    layBallast()
    return true
  })
  freeTimer = isDone ? undefined : setTimeout(freePlaces, 1000)
  freeFrom = performance.now() + 4 * (performance.now() - began)
  if (stopping) void leaveWhenIdle()
}

/** Writes the last entry of the run's log, if its process could not do it, and returns how the run ended. */
function endLog(run: Run, why: string) {
  return withLog(run.id, log => {
    if (!tellsDone(run) && !log.end()) log.replace() // it may live, on a machine that was cut off
    log.cut()
    if (!log.size) log.append(Buffer.from(packEntry('start', run.start, run.started))) // a server died while writing it
    if (!log.end()) {
      const seconds = secondsOf(run)
      const said = run.reason ? '' : lastErrors(run.id)
      const msg = said ? `${why}; the last that it said:\n${said}` : why
      if (run.reason) log.finish(packDone({ outcome: 'cancelled', reason: run.reason, seconds }))
      else log.finish(packEntry('error', { msg }) + packDone({ outcome: 'died', reason: msg, seconds }))
    }
    run.log = log.state()
    return log.end()!
  })
}

// ---- After a crash of the workers server

// Takes over what an earlier workers server left: runs that go on, and runs whose process died without a `done`. What
// belongs to none of them is ended and removed: once all logs could be looked at, else it is tried again.
function adoptAll(names?: string[]) {
  const isDone = attempt('take over what was left, and tries again', () => {
    names ??= readdirSync(RUNS) // once: what comes later is this server's own, such as the files of its spares
    const areAdopted = unknownRuns(names).map(adoptRun)
    if (areAdopted.includes(false)) throw new Error('some logs cannot be read')
    endProcesses(id => !running.has(id))
    for (const name of names) {
      const id = /^(.*)\.(stderr|stop|began|ndjson\.copy)$/.exec(name)?.[1]
      if (id && !running.has(id)) removeAll(join(RUNS, name))
    }
    attempt('tidy up', sweepFiles)
    return true
  })
  if (!isDone) setTimeout(adoptAll, 1000, names)
}

/** False when its log cannot be read at the moment: what cannot be read at all is left alone. */
function adoptRun(id: string): boolean {
  try {
    const run = readRun(id)
    const reason = readReason(id)
    if (isAlive(run)) {
      watchOver(run)
      console.log(`run ${id} adopted: ${run.start.method}, process ${run.start.pid}`)
      if (reason) cancelRun(run, reason) // that server was killed within the grace
    } else if (run.log.outcome) {
      keepRun(run)
      if (hasSideFiles(id)) tellEnd(id, showRun) // it ended while there was no server
    } else {
      running.set(id, run)
      run.reason = reason
      finishRun(run, 'ended without a result, while no workers server was running')
    }
    return true
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    const isPassing = code !== undefined && !isAbsence(error) // no descriptor left, a failing disk
    console.error(`cannot adopt ${logPath(id)}, ${isPassing ? 'but tries again' : 'which is left alone'}: ${message}`)
    return !isPassing
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
  setTimeout(() => process.exit(), 200) // ms, in which readers can still fetch the last lines
}
