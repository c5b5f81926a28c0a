// What the page knows about one run, all of it from the entries of the run's log, plus what happened before the log
// began: the upload, the call, its refusal. Nothing here touches the screen.

import { fieldsOf, LEVELS, OUTCOMES, signature, toNumber, toText } from './entries.js'
import { knownFunction } from './functions.js'
import { LogStore } from './log-store.js'
import { Pace } from './pace.js'
import { clockAhead } from './requests.js'
import { amount, compact } from './words.js'

/** @import { Entry, Fields } from './entries.js' */
/** @typedef {{ n: number, type: 'warning' | 'error', line: number, fields: Fields }} Finding `n`: its entry's number */
/** @typedef {{ method: string, args: (unknown | File)[], callId: string }} Call */
/** @typedef {'uploading' | 'asking' | 'queued' | 'refused' | 'unsure' | 'unknown' | 'joining'} Phase */
/** @typedef {'ok' | 'error' | 'cancelled' | 'died'} Outcome */
/** @typedef {Phase | 'running' | 'cancelling' | Outcome} State */
/** What stands in the way: in words, with what can be done about it. `passes`: until the servers answer again.
 * @typedef {{ text: string, kind: 'error' | 'busy' | 'quiet', retry?: () => void, wait?: () => void, other?: string,
 *   passes?: boolean }} Problem */

const UNKNOWN = 'No run with this id is known here: it was removed, or has not begun. When it begins, it is shown.'
const MOST_FINDINGS = 10_000 // listed beside the log; the log has them all

/** @type {Record<string, string>} */
const STATES = {
  uploading: 'Uploading',
  asking: 'Starting',
  queued: 'Waiting to start',
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
  /** @type {{ time: number, pid: unknown } | undefined} */
  start
  /** @type {{ outcome: Outcome, result: unknown, reason: string, seconds: number } | undefined} */
  done
  /** what the server's list says of it; null: nothing; undefined: it has not answered yet
   * @type {import('./requests.js').Listed | null | undefined} */
  listed
  /** the last thing that went wrong @type {Fields | undefined} */
  error
  /** @type {{ current: number, total: number | undefined, unit: string } | undefined} */
  progress
  /** warnings and errors that say where they were found @type {Finding[]} */
  findings = []
  /** what the log says about the connection */
  note = ''
  /** @type {AbortController | undefined} */
  stopUpload
  /** while it waits @type {ReturnType<typeof setTimeout> | undefined} */
  nextTry
  /** stops following it @type {(() => void) | undefined} */
  unfollow
  pace = new Pace()
  entryPace = new Pace()
  /** of its last entry, in milliseconds since 1970, by the server's clock */
  lastTime = 0

  /** @param {string} id @param {Call} [call] given where the run is started, else its log tells */
  constructor(id, call) {
    this.id = id
    this.call = call
    this.method = call?.method ?? ''
    this.args = call?.args ?? []
    this.store = new LogStore(id)
  }

  /** @param {Entry[]} entries @param {number} next */
  receive(entries, next) {
    let n = this.store.count
    for (const entry of entries) {
      if (entry.time !== this.lastTime) this.entryPace.add(entry.time, n) // many entries share a millisecond in a flood
      this.lastTime = entry.time
      if (LEVELS.includes(entry.type)) learn[entry.type]?.(this, entry, n)
      n++
    }
    this.store.append(entries, next)
  }

  /** The web server will not carry this run. @param {string} message */
  refuse(message) {
    this.unfollow = undefined
    const isWaiting = this.phase === 'queued' || this.problem?.retry // and says why
    if (!isWaiting) this.problem = { text: message, kind: 'error' }
    if (!this.call) this.phase = 'unknown'
  }

  /** The servers answer again. @param {string} note about a connection that was lost */
  rejoin(note) {
    if (this.problem?.passes) this.problem = undefined
    if (note && this.start && !this.done) this.note = `${note} Going on at byte ${this.store.end}: nothing is missing.`
  }

  /** @param {import('./requests.js').Listed | undefined} listed by the server, if it is */
  compare(listed) {
    this.listed = listed ?? null
    if (listed || this.start || this.call || this.problem) return
    this.phase = 'unknown'
    this.problem = { kind: 'quiet', text: UNKNOWN }
  }

  /** Whether it will never run, as far as can be known, and nothing of it could be lost. */
  get isSettled() { return this.state === 'unknown' || (this.state === 'refused' && !this.problem?.retry) }

  get ended() {
    if (this.done) return this.done
    if (!this.listed?.outcome) return // the list tells earlier than the log, while that is still being read
    return { outcome: toOutcome(this.listed.outcome), seconds: this.listed.seconds ?? 0, reason: '', result: undefined }
  }

  /** @returns {State} */
  get state() {
    if (this.ended) return this.ended.outcome
    if (this.cancelling) return 'cancelling'
    // what begins like a run that goes on may be the log of one that has ended: the list tells
    return this.start && (this.call || this.listed !== undefined || this.silence < 5) ? 'running' : this.phase
  }

  /** Seconds since its last entry. */
  get silence() { return Math.max(0, (Date.now() - clockAhead - this.lastTime) / 1000) }

  /** How much of the log has been read, 0 to 1. */
  get read() { return this.listed?.size ? Math.min(1, this.store.end / this.listed.size) : 1 }

  get known() { return knownFunction(this.method) }

  get words() { return STATES[this.state] ?? this.state }

  get title() {
    if (!this.method) return `Run ${this.id.slice(0, 8)}`
    return this.known?.title?.(this.args) ?? signature(this.method, this.args)
  }

  /** What it returned, if that has fields. @returns {Fields | undefined} */
  get result() {
    const result = this.ended?.result
    return typeof result === 'object' && result ? /** @type {Fields} */ (result) : undefined
  }

  /** 0 to 1, or undefined while it cannot be known. */
  get part() {
    if (this.ended?.outcome === 'ok') return 1
    return this.progress?.total ? Math.max(0, Math.min(1, this.progress.current / this.progress.total)) : undefined
  }

  get seconds() {
    if (this.ended) return this.ended.seconds
    return this.start && Math.max(0, (Date.now() - clockAhead - this.start.time) / 1000)
  }

  get left() {
    const { progress, pace } = this
    if (this.ended || !progress?.total || !pace.speed) return
    return Math.max(0, progress.total - progress.current) / pace.speed
  }

  get speed() {
    const { progress, pace, done } = this
    if (!progress) return
    // at the end, the whole divided by the time says more than the last half second
    const speed = done ? progress.current / Math.max(done.seconds, 0.001) : pace.speed
    return speed > 0 ? `${amount(speed, progress.unit, compact)}/s` : undefined
  }

  /** What the plot shows: the progress, or the entries where there is none. */
  get plotted() {
    const { progress, pace, entryPace } = this
    return progress ? { pace, unit: progress.unit } : { pace: entryPace, unit: 'entries' }
  }

  /** Those in the log, or more, where the function has counted what it did not name.
   * @param {'warning' | 'error'} level */
  count(level) {
    const counted = toNumber(this.result && this.known?.counted?.(this.result)[level])
    return Math.max(this.store.counts[LEVELS.indexOf(level)] ?? 0, counted ?? 0)
  }
}

/** What is learnt from the kinds of entries that say more than a row in the log.
 * @type {Partial<Record<Entry['type'], (run: Run, entry: Entry, n: number) => void>>} */
const learn = {
  start(run, entry) {
    const { method, args, pid } = fieldsOf(entry)
    run.method = toText(method)
    run.args = Array.isArray(args) ? args : []
    run.start = { time: entry.time, pid }
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
  warning: addFinding,
  error(run, entry, n) {
    run.error = fieldsOf(entry)
    addFinding(run, entry, n)
  },
  done(run, entry) {
    const { outcome, result, reason, seconds } = fieldsOf(entry)
    const took = Math.max(0, toNumber(seconds) ?? 0)
    run.done = { outcome: toOutcome(outcome), result, reason: toText(reason), seconds: took }
    run.cancelling = false
    run.problem = undefined
  },
}

/** @param {Run} run @param {Entry} entry @param {number} n */
function addFinding(run, entry, n) {
  const fields = fieldsOf(entry)
  const line = toNumber(fields['line'])
  const type = entry.type === 'error' ? 'error' : 'warning'
  if (line !== undefined && run.findings.length < MOST_FINDINGS) run.findings.push({ n, type, line, fields })
}

/** @param {unknown} given @returns {Outcome} */
const toOutcome = given => (Object.hasOwn(OUTCOMES, toText(given)) ? /** @type {any} */ (given) : 'died')
