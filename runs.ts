// What is known of runs: which of them go on, and which have ended; what their logs say of them, for whoever asks; and
// how long what they leave is kept. workers.ts starts and ends them. Look for: Run, and the two Maps below it;
// logState; listRuns, and the other answers; keepRun.

import type { ChildProcess } from 'node:child_process'
import { existsSync, lstatSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { functions } from './load.ts'
import {
  blankForeign, goingOnFor, INVALID_ID, isId, logPath, withLog, type LogState, type RunLog, type Start,
} from './log.ts'
import { isBeingTold } from './processes.ts'
import { invalid, isPosition, RemoteError, type Call } from './protocol.ts'
import { attempt, FILES, KEEP_RUNS, removeAll, UPLOADS } from './settings.ts'

/** A run, from its call until its log is removed. Its state is derived: see the head of workers.ts. */
export type Run = {
  id: string
  start: Start
  title: string
  /** When its call came: in ms since 1970, as its log says; and by a clock that nobody sets. */
  started: number
  began: number
  /** Its process, or its launcher's, when it is a child of this server. */
  child?: ChildProcess
  /** Asked to end: why. */
  reason?: string
  /** Its process was seen to be done, and still there; or it has gone. */
  process?: 'exiting' | 'gone'
  /** What its log said when it was looked at last. */
  log: LogState
  timer?: NodeJS.Timeout
}

// The limit, the check for the same call and the clean stop are all the first Map.
/** Those that go on: from the first line of a run until all that it has started is gone. */
export const running = new Map<string, Run>()
/** Those that have ended, in the order of their ends. */
export const ended = new Map<string, Run>()

/** A run that is in neither of them yet. */
export function newRun(id: string, start: Start, child?: ChildProcess): Run {
  return { id, start, title: titleOf(start), started: Date.now(), began: performance.now(), child, log: { size: 0 } }
}

/** The method and its arguments, for people: cut, and without uploads, whose names say nothing. */
function titleOf({ method, args }: Start): string {
  const given = args.filter((_, index) => !isUpload(method, index)).map(value => JSON.stringify(value))
  return [...`${method}(${given.join(', ')})`.slice(0, 120)].slice(0, 60).join('') // no half of a surrogate pair
}

const isUpload = (method: string, index: number) => functions.get(method)?.parameters[index]?.type === 'file'

/** How long a run has been going on. */
export const secondsOf = ({ began }: Run): number => Math.round(performance.now() - began) / 1000

/** What its log says: read when that has grown, until it says how the run ended. Size 0: somebody has removed it. */
export function logState(run: Run): LogState {
  const size = statSync(logPath(run.id), { throwIfNoEntry: false })?.size ?? 0
  if (size === run.log.size || size && run.log.outcome) return run.log
  const state = size ? readLog(run.id, log => log.state()) : { size }
  if (state) run.log = state // else there is no descriptor left, say: it is looked at the next time
  return state ?? { size }
}

/** What `read` finds in the log of a run; undefined when it cannot be read, or something in it is not ours. */
function readLog<T>(id: string, read: (log: RunLog) => T): T | undefined {
  return attempt(`read the log of ${id}`, () => withLog(id, read))
}

// ---- Answers; they throw a RemoteError for arguments that are wrong

/** The runs, newest first: all, those of one call id and of what begins with it and a `/`, or only so many. */
export function listRuns(filter: unknown = {}) {
  const { callId, limit = Infinity } = (filter ?? {}) as { callId?: unknown; limit?: unknown }
  const isObject = typeof filter === 'object' && !Array.isArray(filter)
  const isNumber = limit === Infinity || isPosition(limit)
  if (!isObject || !isNumber || callId !== undefined && typeof callId !== 'string') {
    throw invalid('arguments', 'list takes [{"callId": TEXT, "limit": NUMBER}], or less')
  }
  const last = [...ended.values()].slice(Math.max(0, ended.size - KEEP_RUNS)) // the others are about to be removed
  const live = [...running.values()].filter(({ id }) => !ended.has(id)) // who has ended keeps its place a moment longer
  const all = [...last, ...live].sort((one, other) => other.began - one.began)
  const wanted = all.filter(({ start }) => callId === undefined || `${start.callId}/`.startsWith(`${callId}/`))
  const known = wanted.map(summary).filter(({ id, size }) => size || !ended.has(id)) // see findRun
  const progressOf = (id: string) => readLog(id, log => log.latest('progress')?.data)
  return known.slice(0, Number(limit)).map(run => run.outcome ? run : { ...run, progress: progressOf(run.id) })
}

/** What its call and its log say of a run. */
function summary(run: Run) {
  const { id, title, start: { method, callId, pid }, started } = run
  return { id, method, title, callId, pid, started, ...logState(run) }
}

/** The same with its step, its last progress and its reason; its result is cut out of the log as it stands there. */
export function showRun(id: unknown): Buffer {
  const run = knownRun(id)
  const { result, ...more } = readLog(run.id, log => {
    const { reason, result } = log.end() ?? {}
    return { progress: log.latest('progress')?.data, step: log.latest('step')?.data.name, reason, result }
  }) ?? {}
  const json = Buffer.from(JSON.stringify({ ...summary(run), ...more }))
  return result ? Buffer.concat([json.subarray(0, -1), Buffer.from(',"result":'), result, Buffer.from('}')]) : json
}

/** How long the logs of these runs are, and whether for good; a log that was removed is as unknown as its run. */
export function statRuns(ids: unknown) {
  if (!Array.isArray(ids)) throw invalid('arguments', 'stat takes [[id, …]]')
  const known = ids.map(findRun).filter(run => run !== undefined)
  const states = known.map(run => ({ id: run.id, ...logState(run) })).filter(({ size }) => size)
  return Object.fromEntries(states.map(({ id, size, outcome }) => [id, { size, done: outcome !== undefined }]))
}

const MAX_PART = 512 * 2 ** 10 // bytes: each part is a round trip for a reader that catches up

/** Whole lines from a position: at most MAX_PART bytes, or one longer line; none at the end. Throws a PositionError. */
export function readLines(id: unknown, position: unknown): Buffer {
  const run = knownRun(id)
  if (!isPosition(position)) throw invalid('position', 'not a whole number')
  const { size, outcome } = logState(run)
  if (!size) throw new RemoteError('unknown', `the log of ${run.id} was removed`)
  if (outcome && position > size) throw invalid('position', `the log has ended at ${size}`)
  const lines = blankForeign(withLog(run.id, log => log.lines(position, MAX_PART)))
  return outcome ? lines.subarray(0, size - position) : lines // nothing follows `done`, whoever has written there
}

/** Throws a RemoteError when there is none, or it has ended. */
export function runningRun(id: unknown): Run {
  const run = knownRun(id)
  if (logState(run).outcome) throw new RemoteError('conflict', `not running: ${run.id} has ended`)
  return run
}

function knownRun(id: unknown): Run {
  if (!isId(id)) throw new RemoteError('invalid', INVALID_ID)
  const run = findRun(id)
  if (!run) throw new RemoteError('unknown', `unknown run ${id}`)
  return run
}

/** What has ended is known as long as its log is there: somebody may have removed that. */
function findRun(id: string): Run | undefined {
  const run = ended.get(id)
  if (!run) return running.get(id)
  return logState(run).size ? run : undefined
}

// ---- What is kept

const AFTERLIFE = 2500 // ms in which readers can still fetch the end of a run that is not kept; they ask every 2000
const UPLOAD_AGE = 3600_000 // ms after which an upload that no run took, and nobody asked for, is removed

/** Keeps the log of a run that has ended until enough others have, and for a while at least: for its last readers. */
export function keepRun(run: Run) {
  // Without its arguments: of a thousand runs they may be a thousand times 1 MiB.
  ended.set(run.id, { ...run, start: { ...run.start, args: [] }, child: undefined })
  removeLater()
}

// Each run that ends has one other removed, AFTERLIFE later: so none goes sooner, and none that is too many stays.
function removeLater() { setTimeout(attempt, AFTERLIFE, 'remove the oldest run', removeOldest) }

function removeOldest() {
  const [oldest] = ended.values()
  if (!oldest || ended.size <= KEEP_RUNS) return
  if (running.has(oldest.id) || isBeingTold(oldest.id)) return removeLater() // what is told stands in its log
  ended.delete(oldest.id)
  removeAll(logPath(oldest.id))
  sweepFiles(oldest.id)
}

/**
 * Removes what runs, or this one, have produced that are not known any more, and the unfinished work of those that have
 * ended. A file is of the run whose id is its name up to the first point; without a point it may be somebody else's.
 */
export function sweepFiles(only?: string) {
  for (const name of readdirSync(FILES)) {
    const [id, end] = name.split('.')
    const isMeant = isId(id) && (only === undefined ? end !== undefined : id === only)
    if (!isMeant || running.has(id)) continue
    if (name === `${id}.part` || !existsSync(logPath(id))) removeAll(join(FILES, name))
  }
}

/** Removes what a run needs no more when it has ended: its uploads, and its unfinished work. */
export function removeWork({ id, start }: Run) {
  for (const file of [...uploadsOf(start), join(FILES, `${id}.part`)]) removeAll(file)
}

/** The paths of a call's uploads. */
export function uploadsOf({ method, args }: Pick<Call, 'method' | 'args'>): string[] {
  return args.filter((name, index) => isUpload(method, index) && isId(name)).map(name => join(UPLOADS, String(name)))
}

/** Removes old uploads, but for those of runs that go on. */
export function sweepUploads() {
  const taken = new Set([...running.values()].flatMap(({ start }) => uploadsOf(start)))
  for (const file of readdirSync(UPLOADS).map(name => join(UPLOADS, name))) {
    const written = statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? Infinity
    if (Date.now() - written > UPLOAD_AGE && !taken.has(file)) removeAll(file)
  }
}

// ---- What another server has left

/** The runs among these files of RUNS that are in neither Map yet: first whose log was written to longest ago. */
export function unknownRuns(names: string[]): string[] {
  const ids = names.flatMap(name => /^(.*)\.ndjson$/.exec(name)?.[1] ?? []).filter(id => isId(id) && !findRun(id))
  const logs = ids.map(id => ({ id, written: lstatSync(logPath(id), { throwIfNoEntry: false })?.mtimeMs ?? 0 }))
  return logs.sort((one, other) => one.written - other.written).map(({ id }) => id)
}

const CALL = '{"type":"start"' // how each log begins
const NO_CALL: Start = { method: '', args: [], callId: '', pid: 0, timeLimit: 0 }

/** A run that another server has called, as its log tells it. Throws when that is not there, or not ours. */
export function readRun(id: string): Run {
  const { begin, first, state } = withLog(id, log => {
    const begin = String(log.read(0, CALL.length))
    return { begin, first: begin === CALL ? log.first() : undefined, state: log.state() }
  })
  // Without a whole first line, its server died while it wrote the call.
  const { time: started, data } = first ?? { time: Date.now(), data: NO_CALL }
  const start = data as Start
  const isCall = CALL.startsWith(begin) && Number.isFinite(started) && Array.isArray(start?.args)
    && typeof start.method === 'string' && typeof start.callId === 'string' && Number.isFinite(start.pid)
  if (!isCall) throw new Error('it does not begin with a call')
  const goesOn = goingOnFor(id) ?? Math.max(0, Date.now() - started)
  return { ...newRun(id, start), started, began: performance.now() - goesOn, log: state }
}
