// A run, from the inside: the program of the process that runs one remote function, once, from its first line to
// `done`. Nobody imports it. Below the call of main() stand functions only: a `const` there would not be defined yet
// when they run. Look for: run, what it does from the first line of the log on; waitForRun, how it gets one.

import { randomUUID } from 'node:crypto'
import { setMaxListeners } from 'node:events'
import { readlinkSync, rmSync, statSync } from 'node:fs'
import { basename, join } from 'node:path'
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'
import { stripVTControlCharacters } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { functions, loadFunctions } from './load.ts'
import {
  describeError, isId, logPath, packDone, packEntry, readReason, RunLog, withLog, type Note, type Outcome,
} from './log.ts'
import { cutLines } from './prints.ts'
import { MAX_CHUNK, NO_LINES, openPublisher, type Chunk } from './protocol.ts'
import { Task, withDefaults } from './remote.ts'
import { attempt, printWithoutWaiting, refuseToStart, RUN_MARK, UPLOADS } from './settings.ts'

const SHOW_TIME = 60_000 // ms until a launched process gives up waiting for its log to show on a shared file system

// Before Node 24, V8's best compiler takes up what has run for a moment: in eight new processes at once, it takes the
// cores from them for milliseconds. Told to wait for what is hot, it leaves the p99 of eight runs of 5,000 entries a
// second at 5 ms, not 7 (on Node 22 at 4, not 12), and does not slow down a run that computes.
const node = parseInt(process.versions.node)
if (node < 24) setFlagsFromString(node < 22 ? '--interrupt-budget=1000000' : '--invocation-count-for-turbofan=45000')

void main(process.argv[2])

/**
 * Loads and connects everything, and only then runs: a process without an id is a spare, and gets its run over IPC when
 * that comes, in this moment perhaps; a launched one has no such channel, and its id as an argument.
 */
async function main(id: string | undefined) {
  printWithoutWaiting()
  setInterval(() => {}, 2 ** 30) // a function may wait for nothing but task.signal, which keeps no process alive
  // What it says on stderr goes to a file, from which it is quoted if the process dies; and to the terminal, too, where
  // the author of a function looks for it: by stdout's write as it is now, as logPrints would log the copy.
  copyOutput(process.stderr, process.stdout.write.bind(process.stdout))
  const assigned = id ?? waitForRun()
  const loaded = await loadFunctions().catch(error => error as Error)
  // Trap, the slow joiner: what a PUB sends before its connection stands is dropped without an error. So a run that
  // begins at once may lose its first entries; here that is a gap like any other, and read from the log.
  const publish = openPublisher()
  if (!id) rehearse(publish)
  await nextTurn() // its run may have come meanwhile
  process.send?.('ready', undefined, undefined, () => {}) // an error here: the server has gone, `disconnect` follows
  if (id) await waitForLog(id)
  void run(new RunLog(await assigned, 'open'), loaded, publish)
}

/** Calls the function that the first line of the log names, and writes and publishes what becomes of it. */
async function run(log: RunLog, loaded: string | Error, publish: (chunk: Chunk) => void) {
  const start = log.first()
  if (start?.type !== 'start' || log.end()) process.exit() // it was ended before it began
  const { method, args } = start.data
  const began = performance.now()
  const waited = Math.max(0, Date.now() - start.time) // since its call, for this process to be ready
  const abort = new AbortController()
  setMaxListeners(0, abort.signal) // else Node warns of the eleventh thing that a function waits for at once
  const task = new Task(log.id, abort.signal, log.size, write)
  const logLastPrints = logPrints(task)
  process.title = `longrun ${method}`
  process.on('SIGTERM', () => abort.abort())
  process.on('uncaughtException', fail) // unhandled rejections too
  process.on('exit', () => { // a function that calls process.exit() loses nothing that it reported
    logLastPrints()
    task.flush()
    task.isExiting = true
    for (const output of [process.stdout, process.stderr]) copyOutput(output, logLastPrints) // of others' handlers
  })

  try {
    if (loaded instanceof Error) throw loaded
    const called = functions.get(method)!
    const values = withDefaults(called, args)
    task.args = Object.fromEntries(called.parameters.map(({ name, type }, index) =>
      [name, type === 'file' ? join(UPLOADS, String(values[index])) : values[index]]))
    const result = await called.run(task, ...values)
    end(abort.signal.aborted ? 'cancelled' : 'ok', result)
  } catch (error) {
    fail(error) // the function's, or its result cannot be written
  }

  function write(lines: Buffer) {
    try {
      log.append(lines) // always the log first: who has seen a position can read it
    } catch (error) {
      return fail(error) // the disk is full: what could not be logged is not published
    }
    publishLines(lines)
  }

  function publishLines(lines: Buffer) {
    // The fence: others have ended the run, and put a copy in the place of its log, see RunLog.replace.
    if (log.isRemoved) process.exit(1)
    const sent = lines.length > MAX_CHUNK ? NO_LINES : lines // whoever follows reads the others from the log
    publish({ id: log.id, position: log.size - sent.length, lines: sent })
  }

  function fail(error: unknown) {
    const isAsked = abort.signal.aborted
    // A cancelled function ends by the AbortError of what it awaited, which is no error of its own; any other is told.
    const isOwn = !isAsked || !(error instanceof Error && error.name === 'AbortError')
    const note = isOwn ? describeError(error) : undefined
    end(isAsked ? 'cancelled' : 'error', undefined, note)
  }

  function end(outcome: Outcome, result?: unknown, error?: Note) {
    logLastPrints()
    const reason = outcome !== 'cancelled' ? error?.msg : attempt('read why', () => readReason(log.id)) ?? 'cancelled'
    const seconds = Math.round(waited + performance.now() - began) / 1000 // by a clock that nobody sets
    const errors = task.counts.error + Number(error !== undefined) || undefined
    const done = packDone({ outcome, reason, seconds, errors, warnings: task.counts.warning || undefined, result })
    if (outcome === 'ok' || result !== undefined) task.reserve(done) // throws as packDone does: then `fail` ends it
    if (!task.close()) { // an exit handler threw
      console.error(error?.stack ?? error?.msg)
      process.exit(1)
    }
    publishLines(log.finish((error ? packEntry('error', error) : '') + done))
    process.send?.('done', undefined, undefined, () => {})
    // As any process does: its exit handlers run (temporary folders, locks). The workers server ends what it started.
    process.exit(outcome === 'ok' ? 0 : 1)
  }
}

// ---- How a process gets its run

/** Waits until this spare gets a run, whose id it returns. The process ends when its server does before that. */
function waitForRun(): Promise<string> {
  return new Promise(resolve => {
    const take = (id: string) => resolve(process.env[RUN_MARK] = id)
    process.on('message', (id: string) => id && take(id)) // the first one, as a spare is started, is a rehearsal, too
    // A spare ends with its server; a run goes on without it: the next one adopts it.
    // Trap: what a server has sent that died while this process was loading is not there any more. But the file to
    // which stderr goes has the name of the run, and no point in it, since before the run's log began.
    const leave = () => {
      const name = process.env[RUN_MARK] ?? basename(readlinkSync('/proc/self/fd/2'), '.stderr')
      if (isId(name)) take(name)
      else process.exit()
    }
    if (process.connected) process.once('disconnect', leave)
    else leave()
  })
}

/**
 * Goes the way of a run once, on a log that nobody sees: what V8 runs for the first time takes it five times as long.
 * A launch takes 4.8 ms by that in place of 5.8, and a spare at most 1 ms more to load.
 */
function rehearse(publish: (chunk: Chunk) => void) {
  try {
    withLog(`uploads/${randomUUID()}`, log => { // if it is killed in this moment, that is swept as an old upload
      rmSync(logPath(log.id))
      log.append(Buffer.from(packEntry('start', {})))
      log.first()
      log.end()
      const { signal } = new AbortController()
      setMaxListeners(0, signal)
      const task = new Task(log.id, signal, log.size, lines => {
        log.append(lines)
        publish({ id: log.id, position: 0, lines }) // nobody has subscribed to that
      })
      cutLines(line => task.print('log', { msg: line }))(Buffer.from('\n'))
      packDone({ outcome: 'ok', seconds: 0 })
      task.close()
    }, 'create')
  } catch {} // the disk is full: its run will tell
}

/** A log begins before its run is told to anyone; but another machine may see it later. */
async function waitForLog(id: string) {
  const deadline = performance.now() + SHOW_TIME
  while (!statSync(logPath(id), { throwIfNoEntry: false })?.size) {
    const mend = 'is RUNS the same folder on this machine?'
    if (performance.now() > deadline) refuseToStart(`there is no ${logPath(id)}: ${mend}`)
    await sleep(20)
  }
}

// ---- What it prints

/** From now on, what this process prints is logged, a line each; returns what logs a last line without an end. */
function logPrints(task: Task): () => void {
  const print = (line: string) => task.print('log', { msg: stripVTControlCharacters(line) }) // without its colours
  const takes = [process.stdout, process.stderr].map(output => copyOutput(output, cutLines(print)))
  return () => takes.forEach(take => take())
}

/** Gives all that is written to an output to `take` as well, which it returns. */
function copyOutput<T extends (bytes: Buffer) => unknown>(output: NodeJS.WriteStream, take: T): T {
  const write = output.write.bind(output)
  output.write = (text: string | Uint8Array, ...others: any[]) => {
    const isWritten = write(text, ...others)
    take(Buffer.from(text as string, others[0])) // the encoding means nothing where there are bytes
    return isWritten
  }
  return take
}
