// What the page knows about one run, all of it from the entries of the run's log, plus what happened before the log
// began: the upload, the call, its refusal. Nothing here touches the screen.

import { knownFunction, nameOf, titleOf } from './functions.js'
import { keep, recall } from './kept.js'
import { LogStore } from './log-store.js'
import { clockAhead } from './requests.js'
import { amount, compact, counted, cut, fieldsOf, LEVELS, OUTCOMES, toNumber, toText } from './words.js'
/** @import { Entry, Fields } from './words.js' */
/** @import { Listed } from './requests.js' */
/** @typedef {{ n: number, type: string, line: number, fields: Fields }} Finding `n`: its entry's number */
/** @typedef {{ method: string, args: (unknown | File)[], callId: string }} Call */
/** @typedef {{ current: number, total: number | undefined, unit: string }} Progress */
/** What had been reached, and when: in milliseconds since 1970. @typedef {{ time: number, current: number }} Point */
/** A part of the work: the upload, what follows a step's entry, or, without a name, what is counted in one unit. `n`:
 * its first entry's number, -1 of an upload; `seconds`: how long it took, when it is over.
 * @typedef {{ name: string, n: number, began: number, pace?: Pace, progress?: Progress, seconds?: number }} Step */
/** What stands in the way: in words, with what can be done about it. `passes`: until the servers answer again.
 * @typedef {{ text: string, kind: 'error' | 'busy' | 'quiet', canRetry?: boolean, canWait?: boolean, other?: string,
 *   passes?: boolean }} Problem */

const UNKNOWN = 'No run with this id is known here: it was removed, or has not begun. When it begins, it is shown.'
const MOST_FINDINGS = 10_000 // listed beside the log; the log has them all
const MOST_STEPS = 12 // the last ones: a function may begin one for each of a million files

/** @type {Record<string, string>} */
const STATES = {
  uploading: 'Uploading', asking: 'Starting', full: 'No place is free', queued: 'Waiting to start',
  refused: 'Not started', unsure: 'No answer yet', unknown: 'Cannot be shown', joining: 'Waiting for its log',
  running: 'Running', cancelling: 'Cancelling', ...OUTCOMES,
}

export class Run {
  phase = 'joining' // on its way to a log, or to its end by a cancel; what else is known tells more: see `state`
  /** @type {Problem | undefined} */ problem
  /** @type {{ time: number, pid: unknown, callId: string } | undefined} */ start
  /** @type {{ outcome: string, result: unknown, reason: string, seconds: number } | undefined} */ done
  /** what the server's list says of it; null: nothing; undefined: it has not answered yet
   * @type {Listed | null | undefined} */ listed
  /** the last thing that went wrong @type {Fields | undefined} */ error
  /** @type {Step[]} */ steps = []
  /** warnings and errors that say where they were found @type {Finding[]} */ findings = []
  lastTime = 0 // of its last entry, in milliseconds since 1970, by the server's clock
  note = '' // what the log says about the connection
  wantsNotice = false
  attempt = new AbortController() // to start it
  /** stops following it @type {(() => void) | undefined} */ unfollow

  /** @param {string} id @param {Call} [call] given where the run is started, else its log tells */
  constructor(id, call) {
    this.id = id
    this.call = call
    this.method = call?.method ?? ''
    this.args = call?.args ?? []
    this.store = new LogStore(id)
  }

  /** @param {string} phase one of STATES @param {Problem} [problem] */
  become(phase, problem) {
    this.phase = phase
    this.problem = problem
  }

  receive(/** @type {Entry[]} */ entries, /** @type {number} */ next) {
    entries.forEach((entry, at) => {
      this.lastTime = entry.time
      if (LEVELS.includes(entry.type)) learn[entry.type]?.(this, entry, this.store.count + at)
    })
    this.store.append(entries, next)
  }

  beginStep(/** @type {string} */ name, /** @type {number} */ began, n = -1) {
    this.endStep(began)
    if (this.steps.push({ name, n, began }) > MOST_STEPS) this.steps.shift()
  }

  endStep(/** @type {number} */ time) {
    const step = this.steps.at(-1)
    if (step) step.seconds ??= Math.max(0, time - step.began) / 1000
  }

  /** Another unit is another part of the work, and one that begins again has another speed.
   * @param {Progress} progress @param {number} time @param {number} [n] */
  reach(progress, time, n) {
    const { unit, current } = this.progress ?? progress
    if (!this.step) this.beginStep('', this.start?.time ?? time, n)
    else if (unit !== progress.unit && !this.step.name) this.beginStep('', time, n)
    const step = /** @type {Step} */ (this.step)
    const point = { time, current: progress.current }
    if (!step.pace || unit !== progress.unit || progress.current < current) step.pace = new Pace(point)
    step.progress = progress
    step.pace.add(point)
    this.lastTime = time
  }

  /** The web server will not carry this run. @param {string} message */
  refuse(message) {
    this.unfollow = undefined
    if (this.phase === 'queued' || this.problem?.canRetry) return // it says already why
    const text = `${message.slice(0, 1).toUpperCase()}${message.slice(1)}.`
    if (this.call) this.problem = { text, kind: 'error' }
    else this.become('unknown', { text, kind: 'quiet' })
  }

  /** The servers answer again. @param {string} note about a connection that was lost */
  rejoin(note) {
    if (this.problem?.passes) this.problem = undefined
    if (note && this.start && !this.done) this.note = `${note} Going on at byte ${this.store.end}: nothing is missing.`
  }

  compare(/** @type {Listed | undefined} */ listed) {
    this.listed = listed ?? null
    if (!listed && !this.start && !this.call && !this.problem) this.become('unknown', { kind: 'quiet', text: UNKNOWN })
  }

  /** Whether it will never run, as far as can be known, and nothing of it could be lost. */
  get isSettled() { return this.state === 'unknown' || (this.state === 'refused' && !this.problem?.canRetry) }
  get ended() {
    const { outcome, seconds = 0 } = this.listed ?? {} // tells earlier than the log, while that is still being read
    return this.done ?? (outcome ? { outcome: toOutcome(outcome), seconds, reason: '', result: undefined } : undefined)
  }

  get state() {
    if (this.ended) return this.ended.outcome
    // what begins like a run that goes on may be the log of one that has ended: the list tells
    const isTrusted = this.start && (this.call || this.listed !== undefined || this.silence < 5)
    return this.phase === 'joining' && isTrusted ? 'running' : this.phase
  }

  /** Seconds since its last entry. */
  get silence() { return Math.max(0, (Date.now() - clockAhead - this.lastTime) / 1000) }
  /** How much of the log has been read, 0 to 1. */
  get read() { return this.listed?.size ? Math.min(1, this.store.end / this.listed.size) : 1 }
  get known() { return knownFunction(this.method) }
  get words() { return wordsOf(this.state, this.count('error')) }
  get title() {
    const method = this.method || this.listed?.method
    if (!method) return `Run ${this.id.slice(0, 8)}`
    return nameOf(method, this.listed?.title ?? (this.call ? titleOf(this.call) : method))
  }

  /** What it returned, if that has fields. @returns {Fields | undefined} */
  get result() { return this.done?.result instanceof Object ? /** @type {Fields} */ (this.done.result) : undefined }
  get stepNames() { return this.steps.filter(({ n }) => n >= 0).map(({ name }) => name) }
  /** Those that the last run of its function seen here took after these, if it began with the same.
   * @returns {Step[]} */
  get stepsToCome() {
    const [usual, names] = [recall(`steps of ${this.method}`), this.stepNames]
    const isAlike = !this.ended && Array.isArray(usual) && names.every((name, at) => name === usual[at])
    const next = isAlike ? usual.slice(names.length, names.length + 3) : [] // what it is at needs the room
    return next.map(name => ({ name: toText(name), n: -1, began: 0 }))
  }

  /** What it is at, or was at in the end: an upload that is over says nothing about the run. */
  get step() { return this.steps.findLast(({ n }) => n >= 0 || this.phase === 'uploading') }
  get progress() { return this.step?.progress }
  /** 0 to 1, or undefined while it cannot be known. */
  get part() { return this.ended?.outcome === 'ok' ? 1 : partOf(this.progress) }
  /** Whether its progress says what cannot be. */
  get isOdd() { return !this.ended && !!this.progress?.total && this.progress.current > this.progress.total }
  get seconds() {
    const since = this.start?.time ?? this.step?.began // or its upload
    return this.ended ? this.ended.seconds : since && Math.max(0, (Date.now() - clockAhead - since) / 1000)
  }

  /** Seconds, of what it is at. */
  get left() {
    const { current, total } = this.progress ?? { current: 0 }
    const speed = this.step?.pace?.speed
    return this.ended || this.isOdd || !total || !speed ? undefined : (total - current) / speed
  }

  get speed() {
    const speed = this.step?.pace?.[this.done ? 'mean' : 'speed'] ?? 0
    return this.progress && speed > 0 ? `${amount(speed, this.progress.unit, compact)}/s` : undefined
  }

  /** Those in the log, or more, where the list has counted them already, or the function what it did not name. */
  count(/** @type {'warning' | 'error'} */ level) {
    const counted = toNumber(this.result && this.known?.counted?.(this.result)[level])
    return Math.max(this.store.counts[LEVELS.indexOf(level)] ?? 0, counted ?? 0, this.listed?.[`${level}s`] ?? 0)
  }
}

/** 0 to 1, whatever was told. @param {{ current: number, total?: number | undefined } | undefined} progress */
export const partOf = progress =>
  (progress?.total ? Math.max(0, Math.min(1, progress.current / progress.total)) : undefined)

/** How fast something gets on, from the times in the entries: a page which reads the log later sees the same. */
class Pace {
  speed = 0 // a second: the mean so far, later that of the last seconds, as an estimate should not dance

  constructor(/** @type {Point} */ first) { this.first = this.measured = this.last = first }

  add(/** @type {Point} */ point) {
    if (point.time < this.first.time) return // the clock went back
    this.last = point
    const seconds = (point.time - this.measured.time) / 1000
    if (seconds < 0.5) return
    if (point.current > this.measured.current) {
      const weight = Math.max(seconds * 1000 / (point.time - this.first.time), Math.min(0.5, 0.1 * seconds))
      this.speed += weight * (speedBetween(this.measured, point) - this.speed)
    }
    this.measured = point
  }

  /** From its beginning to what was told last: when it is over, this says more than the last half second. */
  get mean() { return speedBetween(this.first, this.last) }
}

/** A second. @param {Point} from @param {Point} to */
const speedBetween = (from, to) =>
  (to.time > from.time ? (to.current - from.current) / (to.time - from.time) * 1000 : 0)

/** A run that ended well and found errors is told from one without. @param {string} state @param {number} errors */
export const wordsOf = (state, errors) =>
  (STATES[state] ?? state) + (state === 'ok' && errors ? ` with ${counted(errors, 'error')}` : '')

/** What is learnt from the kinds of entries that say more than a row in the log.
 * @type {Partial<Record<Entry['type'], (run: Run, entry: Entry, n: number) => void>>} */
const learn = {
  start(run, entry) {
    const { method, args, pid, callId } = fieldsOf(entry)
    run.method = toText(method)
    run.args = Array.isArray(args) ? args : []
    run.endStep(entry.time) // the upload
    run.start = { time: entry.time, pid, callId: toText(callId) }
    run.become('joining')
  },
  step: (run, entry, n) => run.beginStep(toText(fieldsOf(entry)['name']), entry.time, n),
  progress(run, entry, n) {
    const { current, total, unit } = fieldsOf(entry)
    const [reached, whole = 0] = [toNumber(current), toNumber(total)]
    if (reached === undefined) return // an odd row, and no more
    run.reach({ current: reached, total: whole > 0 ? whole : undefined, unit: toText(unit) }, entry.time, n)
  },
  warning: addFinding,
  error(run, entry, n) {
    run.error = fieldsOf(entry)
    addFinding(run, entry, n)
  },
  done(run, entry) {
    const { outcome, result, reason, seconds: took } = fieldsOf(entry)
    const seconds = Math.max(0, toNumber(took) ?? 0)
    run.endStep(entry.time)
    run.done = { outcome: toOutcome(outcome), result, reason: toText(reason), seconds }
    run.become('joining')
    if (run.done.outcome !== 'ok' || run.steps.length === MOST_STEPS) return // of which there may have been more
    keep(`steps of ${run.method}`, run.stepNames.filter(Boolean).map(name => cut(name, 80)))
  },
}

/** @param {Run} run @param {Entry} entry @param {number} n */
function addFinding({ findings }, entry, n) {
  const fields = fieldsOf(entry)
  const line = toNumber(fields['line'])
  if (line !== undefined && findings.length < MOST_FINDINGS) findings.push({ n, type: entry.type, line, fields })
}

const toOutcome = (/** @type {unknown} */ given) =>
  (Object.hasOwn(OUTCOMES, toText(given)) ? toText(given) : 'died')
