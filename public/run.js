// What the page knows about one run, all of it from the entries of the run's log, plus what happened
// before the log began: the upload, the call, its refusal. Nothing here touches the screen.

import { clockAhead } from './api.js'
import { Chunks, LEVELS } from './chunks.js'
import { bytes, count, counted, duration, importedName, outcomes, signature } from './words.js'

/** @typedef {import('../protocol.ts').Entry} Entry */
/** @typedef {Entry & { type: 'warning' | 'error' }} Trouble */
/** @typedef {Trouble & { n: number }} Finding with the number of its entry */
/** @typedef {{ method: string, args: (unknown | File)[], callId?: string }} Call */
/** @typedef {'uploading' | 'asking' | 'queued' | 'refused' | 'unsure' | 'unknown' | 'joining' | 'running' | 'cancelling' | 'ok' | 'error' | 'cancelled' | 'died'} State */

const MOST_FINDINGS = 10_000 // listed beside the log; the log has them all

/** @type {Record<State, string>} */
const words = {
  uploading: 'Uploading',
  asking: 'Starting',
  queued: 'Waiting for a free place',
  refused: 'Not started',
  unsure: 'No answer yet',
  unknown: 'Cannot be shown',
  joining: 'Waiting for its log',
  running: 'Running',
  cancelling: 'Cancelling',
  .../** @type {Record<'ok' | 'error' | 'cancelled' | 'died', string>} */ (outcomes),
}

export class Run {
  next = 0
  /** @type {'uploading' | 'asking' | 'queued' | 'refused' | 'unsure' | 'unknown' | 'joining'} before the log begins */
  phase = 'joining'
  cancelling = false
  wantsNotice = false
  /** @type {{ text: string, kind: 'error' | 'busy' | 'quiet', retry?: () => void, wait?: () => void, other?: string } | undefined} */
  problem
  /** @type {Entry & { type: 'start' } | undefined} */
  start
  /** @type {Entry & { type: 'done' } | undefined} */
  done
  /** @type {{ current: number, total?: number | undefined, unit?: string | undefined } | undefined} */
  progress
  /** @type {Finding[]} */
  findings = []
  /** what the log says about the connection */
  note = ''
  pace = new Pace()

  /** @param {string} id @param {Call} [call] given where the run is started, else its log tells */
  constructor(id, call) {
    this.id = id
    this.call = call
    this.chunks = new Chunks(id)
  }

  /** @param {Entry[]} entries @param {number} next */
  receive(entries, next) {
    entries.forEach((entry, at) => /** @type {(run: Run, entry: Entry, n: number) => void} */ (learn[entry.type])(this, entry, this.chunks.count + at))
    this.chunks.append(entries, next)
    this.next = next
  }

  /** The web server will not carry this run. @param {string} error */
  refuse(error) {
    this.problem = { text: error, kind: 'error' }
    if (!this.call) this.phase = 'unknown'
  }

  /** @param {number} seconds */
  rejoin(seconds) {
    if (!this.start || this.done) return
    this.note = `The connection was lost for ${duration(seconds)} and is back. Continued from byte ${this.next}: nothing is missing.`
  }

  /** @returns {State} */
  get state() {
    if (this.done) return this.done.data.outcome
    if (this.cancelling) return 'cancelling'
    return this.start ? 'running' : this.phase
  }

  get words() {
    return words[this.state]
  }

  get method() {
    return this.start?.data.method ?? this.call?.method
  }

  /** @returns {unknown[]} */
  get args() {
    return /** @type {unknown[]} */ (this.start?.data.args ?? this.call?.args ?? [])
  }

  get title() {
    const name = importedName(this.start?.data.callId ?? this.call?.callId)
    if (name) return name
    if (this.method === 'compile') return `compile ${counted(String(this.args[0]).split('\n').length, 'line')}`
    return this.method ? signature(this.method, this.args) : `Run ${this.id.slice(0, 8)}`
  }

  /** 0 to 1, or undefined while it cannot be known. */
  get part() {
    if (this.done) return this.done.data.outcome === 'ok' ? 1 : this.#reached
    return this.#reached
  }

  get #reached() {
    return this.progress?.total ? Math.min(1, this.progress.current / this.progress.total) : undefined
  }

  get seconds() {
    if (this.done) return this.done.data.seconds
    return this.start && Math.max(0, (Date.now() - clockAhead - this.start.time) / 1000)
  }

  get left() {
    const { progress, pace } = this
    if (this.done || !progress?.total || !pace.speed) return
    return Math.max(0, progress.total - progress.current) / pace.speed
  }

  /** @param {'warning' | 'error'} level */
  count(level) {
    return this.chunks.counts[LEVELS.indexOf(level)] ?? 0
  }
}

/** Every kind of entry, and what is learnt from it: a kind that is missing here does not compile.
 * @type {{ [T in Entry['type']]: (run: Run, entry: Entry & { type: T }, n: number) => void }} */
const learn = {
  start: (run, entry) => { run.start = entry; run.problem = undefined },
  msg: () => {},
  progress: (run, { time, data }) => { run.progress = data; run.pace.add(time, data.current) },
  log: () => {},
  warning: find,
  error: find,
  done: (run, entry) => { run.done = entry; run.cancelling = false; run.problem = undefined },
}

/** @param {Run} run @param {Trouble} entry @param {number} n */
function find(run, entry, n) {
  if (run.findings.length < MOST_FINDINGS) run.findings.push({ ...entry, n })
}

/** Speed from the times in the entries, so that a page which reads the log later sees the same: the mean so
 * far, later that of the last seconds. An estimate should not dance. */
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

/** @param {Run} run */
export function speedOf(run) {
  const { progress, pace } = run
  if (!progress) return
  // at the end, the whole divided by the time says more than the last half second
  const speed = run.done ? progress.current / Math.max(run.done.data.seconds, 0.001) : pace.speed
  if (!speed) return
  return progress.unit === 'bytes' ? `${bytes(speed)}/s` : `${speed < 10 ? speed.toFixed(1) : count(Math.round(speed))}${progress.unit ? ' ' + progress.unit : ''}/s`
}
