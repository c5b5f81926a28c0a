// What the page knows about one run, all of it from the entries of the run's log, plus what happened before the log
// began: the upload, the call, its refusal. Nothing here touches the screen.

import { fieldsOf, LEVELS, OUTCOMES, signature, toNumber, toText } from './entries.js'
import { knownFunction } from './functions.js'
import { LogStore } from './log-store.js'
import { clockAhead } from './requests.js'
import { amount } from './words.js'

/** @typedef {import('./entries.js').Entry} Entry */
/** @typedef {import('./entries.js').Fields} Fields */
/** @typedef {{ n: number, type: 'warning' | 'error', line: number, fields: Fields }} Finding `n`: its entry's number */
/** @typedef {{ method: string, args: (unknown | File)[], callId: string }} Call */
/** @typedef {'uploading' | 'asking' | 'queued' | 'refused' | 'unsure' | 'unknown' | 'joining'} Phase */
/** @typedef {Phase | 'running' | 'cancelling' | 'ok' | 'error' | 'cancelled' | 'died'} State */
/** What stands in the way: in words, with what can be done about it.
 * @typedef {{ text: string, kind: 'error' | 'busy' | 'quiet', retry?: () => void, wait?: () => void,
 *   other?: string }} Problem */

const MOST_FINDINGS = 10_000 // listed beside the log; the log has them all

/** @type {Record<string, string>} */
const STATES = {
  uploading: 'Uploading',
  asking: 'Starting',
  queued: 'Waiting for a free place',
  refused: 'Not started',
  unsure: 'No answer yet',
  unknown: 'Cannot be shown',
  joining: 'Waiting for its log',
  running: 'Running',
  cancelling: 'Cancelling',
  ...OUTCOMES,
}

export class Run {
  /** before the log begins @type {Phase} */
  phase = 'joining'
  cancelling = false
  wantsNotice = false
  /** @type {Problem | undefined} */
  problem
  /** @type {{ time: number, method: string, args: unknown[], pid: unknown } | undefined} */
  start
  /** @type {{ outcome: State, result: unknown, reason: string, seconds: number } | undefined} */
  done
  /** @type {{ current: number, total: number | undefined, unit: string } | undefined} */
  progress
  /** warnings and errors that say where they were found @type {Finding[]} */
  findings = []
  /** what the log says about the connection */
  note = ''
  pace = new Pace()

  /** @param {string} id @param {Call} [call] given where the run is started, else its log tells */
  constructor(id, call) {
    this.id = id
    this.call = call
    this.store = new LogStore(id)
  }

  /** @param {Entry[]} entries @param {number} next */
  receive(entries, next) {
    let n = this.store.count
    for (const entry of entries) learn[entry.type]?.(this, entry, n++)
    this.store.append(entries, next)
  }

  /** The web server will not carry this run. @param {string} message */
  refuse(message) {
    this.problem = { text: message, kind: 'error' }
    if (!this.call) this.phase = 'unknown'
  }

  /** @param {string} note */
  rejoin(note) {
    if (!this.start || this.done) return
    this.note = `${note} Continued from byte ${this.store.end}: nothing is missing.`
  }

  /** @returns {State} */
  get state() {
    if (this.done) return this.done.outcome
    if (this.cancelling) return 'cancelling'
    return this.start ? 'running' : this.phase
  }

  get words() {
    return STATES[this.state] ?? this.state
  }

  get method() {
    return this.start?.method ?? this.call?.method ?? ''
  }

  get args() {
    return this.start?.args ?? this.call?.args ?? []
  }

  get title() {
    if (!this.method) return `Run ${this.id.slice(0, 8)}`
    return knownFunction(this.method)?.title?.(this.args) ?? signature(this.method, this.args)
  }

  /** What it returned, if that has fields. @returns {Fields | undefined} */
  get result() {
    const result = this.done?.result
    return typeof result === 'object' && result ? /** @type {Fields} */ (result) : undefined
  }

  /** 0 to 1, or undefined while it cannot be known. */
  get part() {
    if (this.done?.outcome === 'ok') return 1
    return this.progress?.total ? Math.max(0, Math.min(1, this.progress.current / this.progress.total)) : undefined
  }

  get seconds() {
    if (this.done) return this.done.seconds
    return this.start && Math.max(0, (Date.now() - clockAhead - this.start.time) / 1000)
  }

  get left() {
    const { progress, pace } = this
    if (this.done || !progress?.total || !pace.speed) return
    return Math.max(0, progress.total - progress.current) / pace.speed
  }

  get speed() {
    const { progress, pace, done } = this
    if (!progress) return
    // at the end, the whole divided by the time says more than the last half second
    const speed = done ? progress.current / Math.max(done.seconds, 0.001) : pace.speed
    return speed > 0 ? `${amount(speed, progress.unit)}/s` : undefined
  }

  /** @param {'warning' | 'error'} level */
  count(level) {
    return this.store.counts[LEVELS.indexOf(level)] ?? 0
  }
}

/** What is learnt from the kinds of entries that say more than a row in the log.
 * @type {Partial<Record<Entry['type'], (run: Run, entry: Entry, n: number) => void>>} */
const learn = {
  start(run, entry) {
    const { method, args, pid } = fieldsOf(entry)
    run.start = { time: entry.time, method: toText(method), args: Array.isArray(args) ? args : [], pid }
    run.problem = undefined
  },
  progress(run, entry) {
    const { current, total, unit } = fieldsOf(entry)
    const reached = toNumber(current)
    if (reached === undefined) return // an odd row, and no more
    const whole = toNumber(total)
    run.progress = { current: reached, total: whole && whole > 0 ? whole : undefined, unit: toText(unit) }
    run.pace.add(entry.time, reached)
  },
  warning: find,
  error: find,
  done(run, entry) {
    const { outcome, result, reason, seconds } = fieldsOf(entry)
    const known = Object.hasOwn(OUTCOMES, toText(outcome)) ? /** @type {State} */ (outcome) : 'died'
    run.done = { outcome: known, result, reason: toText(reason), seconds: Math.max(0, toNumber(seconds) ?? 0) }
    run.cancelling = false
    run.problem = undefined
  },
}

/** @param {Run} run @param {Entry} entry @param {number} n */
function find(run, entry, n) {
  const fields = fieldsOf(entry)
  const line = toNumber(fields['line'])
  const type = entry.type === 'error' ? 'error' : 'warning'
  if (line !== undefined && run.findings.length < MOST_FINDINGS) run.findings.push({ n, type, line, fields })
}

/** Speed from the times in the entries, so that a page which reads the log later sees the same: the mean so far, later
 * that of the last seconds. An estimate should not dance. */
class Pace {
  speed = 0
  #began = 0
  #time = 0
  #current = 0

  /** @param {number} time @param {number} current */
  add(time, current) {
    const seconds = (time - this.#time) / 1000
    if (this.#time && seconds < 0.5) return
    if (this.#time && current > this.#current) {
      const speed = (current - this.#current) / seconds
      const weight = Math.max(seconds / ((time - this.#began) / 1000), Math.min(0.5, 0.1 * seconds))
      this.speed += weight * (speed - this.speed)
    }
    this.#began ||= time
    this.#time = time
    this.#current = current
  }
}
