// The one rule. Whoever follows a run remembers one number: `next`, the position in the run's log that it wants next.
// Late, reconnected, restarted, overtaken, too slow: all of them are a reader whose `next` is not where a chunk begins.
// Look for: Reader.receive, which is the rule; Readers, which knows who follows which run, and asks how long the logs
// are. Who the clients are, and how they are reached, is not known here: each reader has a sink.

import { setImmediate as nextTurn } from 'node:timers/promises'
import { LF } from './log.ts'
import { limit, NO_LINES, RemoteError, type Chunk } from './protocol.ts'

const WINDOW = 2 ** 20 // bytes that a client may have unacknowledged; beyond, it gets nothing until it acknowledges
const JOINED = 64 * 2 ** 10 // bytes of chunks that become one; copying more costs more than it saves
const MAX_READS = 16 // reads of logs that are under way at once: calls must find a free socket, too
const COMMA = 44
const SILENCE = 1500 // ms without an answer to such a question after which nobody seems to be there

// ---- A reader

/** Where the chunks of a reader go: all that it knows of its client. */
export type Sink = {
  /** The next chunk. When the client has dealt with it, it is to be acknowledged: see Reader.acknowledge. */
  send(chunk: Chunk): void
  /** Whether so much waits for this client that nothing should be added, whatever it has acknowledged. */
  isFull(): boolean
  /** It has all that there will ever be. Called once. */
  finish(): void
  /** It will get no more: no line begins where it wants to go on, or the log is gone. */
  refuse(message: string): void
}

/** Reads a log from a position; an empty chunk when that is not wanted any more by the time that its turn comes. */
type Read = (position: number, isWanted: () => boolean) => Promise<Chunk>

/** One client that follows one run. Made by Readers.follow. */
export class Reader {
  readonly id: string

  // Positions in the log, in bytes. Always: acknowledged ≤ next ≤ seen.
  #acknowledged: number // the client has dealt with all before it
  #next: number // what it wants next: all before it has been sent
  #seen: number // the log is known to reach so far; chunks that arrive during a catch-up only move this
  #finalSize = Infinity // where the log ends for good, once that is known

  #isCatchingUp = false
  #isStopped = false
  #read: Read
  #sink: Sink

  constructor(id: string, next: number, sink: Sink, read: Read) {
    this.id = id
    this.#acknowledged = this.#next = this.#seen = next // what the client has must exist
    this.#read = read
    this.#sink = sink
  }

  get next() { return this.#next }
  /** Whether it has all that is known to exist. */
  get isUpToDate() { return this.#next === this.#seen }
  /** Whether it has all that there will ever be. */
  get isDone() { return this.#next >= this.#finalSize }

  /**
   * The one rule of this program: a chunk at `next` is sent, one before it is old, one beyond it means that something
   * was missed, and the log is read from `next`. An empty chunk only says how long the log is.
   */
  receive(chunk: Chunk) {
    const end = endOf(chunk)
    this.#seen = Math.max(this.#seen, end)
    if (this.#isStopped || end <= this.#next || this.#isCatchingUp) return // old, or the catch-up will come to it
    const fresh = partFrom(chunk, this.#next)
    if (fresh && !this.#isFull()) this.#send(fresh)
    else void this.#catchUp()
  }

  /** The client has dealt with everything before `position`. */
  acknowledge(position: number) {
    this.#acknowledged = Math.min(Math.max(position, this.#acknowledged), this.#next)
    void this.#catchUp()
  }

  /** The log ends at `size`, for good. */
  end(size: number) {
    this.#finalSize = size
    if (this.#next > size) this.refuse(`invalid position: the log has ended at ${size}`)
    else this.#finishIfDone()
  }

  /** It gets no more, and is told why. */
  refuse(message: string) {
    if (!this.#isStopped) this.#sink.refuse(message)
    this.stop()
  }

  /** Nothing more is sent, whatever is on its way. */
  stop() { this.#isStopped = true }

  #finishIfDone() {
    if (!this.isDone || this.#isStopped) return
    this.stop()
    this.#sink.finish()
  }

  #send(chunk: Chunk) {
    this.#next = endOf(chunk)
    this.#seen = Math.max(this.#seen, this.#next)
    this.#sink.send(chunk)
    this.#finishIfDone()
  }

  // Trap, the stopped browser (a closed laptop, a debugger): its connection stays open, and sending never fails; all
  // that is meant for it would pile up here. So it gets no more than WINDOW beyond what it has acknowledged.
  #isFull() { return this.#next - this.#acknowledged >= WINDOW || this.#sink.isFull() }

  // Chunks that arrive meanwhile only move `seen`, so the two cannot race: it goes on until `next` has come there. If
  // it ends before (the client is slow, or there is no answer), an acknowledgement or the next size starts it again.
  async #catchUp() {
    if (this.#isCatchingUp) return
    this.#isCatchingUp = true
    try {
      while (this.#next < this.#seen && !this.#isFull()) {
        const chunk = await this.#read(this.#next, () => !this.#isStopped)
        if (this.#isStopped || !chunk.lines.length) break
        this.#send(chunk)
      }
    } catch (error) {
      if (error instanceof RemoteError && error.kind !== 'failed') this.refuse(error.message)
    } finally {
      this.#isCatchingUp = false
    }
  }
}

// ---- All readers

/** How long a log is, in bytes; `done`: for good. */
export type Size = { size: number; done: boolean }

/** Where chunks, lines and sizes come from: what Readers needs from whoever uses it. */
export type Source = {
  /** From now on the chunks of this run are wanted: they are given to Readers.receive. */
  subscribe(id: string): void
  unsubscribe(id: string): void
  /** Whole lines of a log from a position, none at its end. Throws a RemoteError when it is refused. */
  read(id: string, position: number): Promise<Buffer>
  /** The sizes of those of these logs that exist. Throws when there is no answer, however long that takes. */
  stat(ids: string[]): Promise<Map<string, Size>>
  /** Whether questions for sizes are answered: told when it changes. */
  tell(isAnswering: boolean): void
}

/** The readers of one run, and the chunks that wait for the end of the turn. */
type Followed = { readers: Set<Reader>; waiting: Chunk[] }

/** Who follows which run. */
export class Readers {
  /** Whether questions for sizes are answered soon; undefined before the first. */
  isAnswering: boolean | undefined
  #source: Source
  #runs = new Map<string, Followed>()
  // Reads that wait for their turn or are under way, by run and position; each asker says whether it still wants it.
  #reads = new Map<string, { askers: (() => boolean)[]; chunk?: Promise<Chunk> }>()
  #limitReads = limit(MAX_READS)
  #wanted = new Set<string>() // logs whose size is asked for at the end of this turn
  #sizes?: Promise<Map<string, Size>> // the answer to that question
  #answered = -Infinity // when a question was answered last, in ms

  constructor(source: Source) { this.#source = source }

  get count() { return [...this.#runs.values()].reduce((sum, { readers }) => sum + readers.size, 0) }

  /** A new reader of a run, which need not exist yet: it gets the log from `next` on. Ends with `unfollow`. */
  follow(id: string, next: number, sink: Sink): Reader {
    const reader = new Reader(id, next, sink, (position, isWanted) => this.read(id, position, isWanted))
    const run = this.#runs.get(id) ?? { readers: new Set(), waiting: [] }
    // Trap, the slow joiner: until a subscription has taken effect, chunks pass us by, without a sign. How long the log
    // is tells whether there is something to catch up with; what comes after that answer is found by the next one.
    if (!this.#runs.has(id)) this.#source.subscribe(id)
    this.#runs.set(id, run)
    run.readers.add(reader)
    this.#checkSize(id)
    return reader
  }

  unfollow(reader: Reader) {
    reader.stop()
    const run = this.#runs.get(reader.id)
    if (!run?.readers.delete(reader) || run.readers.size) return
    this.#runs.delete(reader.id)
    this.#source.unsubscribe(reader.id)
  }

  // All of one turn of the event loop is joined: the more there is, the less each costs (20,000 entries for 25 readers
  // each: 0.55 s of processor time; 2.1 s when each goes alone).
  /** Takes what was published. */
  receive(chunk: Chunk) {
    // Trap, prefix topics: who subscribes to "first" gets "first2", too. So the whole id is compared.
    const run = this.#runs.get(chunk.id)
    if (!run) return
    const [first] = run.waiting
    // A chunk has no holes: what does not begin where the last one ended (after a gap, or old) begins a new one.
    const fits = first && chunk.position === endOf(run.waiting.at(-1)!) && endOf(chunk) - first.position <= JOINED
    if (!fits) passOn(run)
    if (!run.waiting.length) setImmediate(passOn, run)
    run.waiting.push(chunk)
    if (!chunk.lines.length) this.#checkSize(chunk.id) // the run has probably ended
  }

  /**
   * A chunk of a log, empty at its end. Whoever wants the same gets the same: one request for all.
   * Trap, who asks and leaves, again and again: its reads would hold up everyone else's. So each is looked at again
   * when its turn comes, and left out (an empty chunk) when none of its askers `isWanted` any more.
   */
  read(id: string, position: number, isWanted = () => true): Promise<Chunk> {
    const key = `${id} ${position}`
    const reading = this.#reads.get(key) ?? { askers: [] }
    this.#reads.set(key, reading)
    reading.askers.push(isWanted)
    return reading.chunk ??= this.#limitReads(async () => {
      try {
        const isLeft = !reading.askers.some(isWanted => isWanted())
        return { id, position, lines: isLeft ? NO_LINES : await this.#source.read(id, position) }
      } finally {
        this.#reads.delete(key)
      }
    })
  }

  /** How long a log is; undefined when there is none. All that are wanted in one turn share one request. */
  async size(id: string): Promise<Size | undefined> {
    this.#wanted.add(id)
    this.#sizes ??= nextTurn().then(() => {
      const ids = [...this.#wanted]
      this.#wanted.clear()
      this.#sizes = undefined
      return this.#askForSizes(ids)
    })
    return (await this.#sizes).get(id)
  }

  // Trap, the lost tail: what was lost shows as a gap when more follows; after the last chunk nothing does, and a run
  // that has ended would look as if it went on. So the sizes are asked for; that also tells whether anybody answers.
  /** Asks for the sizes of all logs that have not ended: when chunks may have been missed. */
  checkAll() {
    const unfinished = [...this.#runs].filter(([, { readers }]) => [...readers].some(({ isDone }) => !isDone))
    this.#askForSizes(unfinished.map(([id]) => id)).catch(() => {}) // asked again soon
  }

  #checkSize(id: string) { this.size(id).catch(() => {}) } // asked again soon

  async #askForSizes(ids: string[]): Promise<Map<string, Size>> {
    const asked = performance.now()
    const following = ids.flatMap(id => [...this.#runs.get(id)?.readers ?? []])
    const late = following.filter(({ next }) => next > 0) // what they have must exist; `next` moves until the answer
    // On a busy machine it may be answered yet; so it goes on waiting, while others are told.
    const timer = setTimeout(() => this.#answered <= asked && this.#tell(false), SILENCE) // no later one was answered
    try {
      const sizes = await this.#source.stat(ids)
      this.#answered = performance.now()
      this.#tell(true)
      for (const [id, { size, done }] of sizes) {
        for (const reader of this.#runs.get(id)?.readers ?? []) {
          reader.receive({ id, position: size, lines: NO_LINES })
          if (done) reader.end(size)
        }
      }
      for (const reader of late) if (!sizes.has(reader.id)) reader.refuse('the log of this run is gone')
      return sizes
    } finally {
      clearTimeout(timer)
    }
  }

  #tell(isAnswering: boolean) {
    const isNews = isAnswering !== (this.isAnswering ?? true) // that the first question is answered is none
    this.isAnswering = isAnswering
    if (isNews) this.#source.tell(isAnswering)
  }
}

function passOn({ readers, waiting }: Followed) {
  const [first, ...others] = waiting.splice(0)
  if (!first) return
  const lines = [first, ...others].map(({ lines }) => lines)
  const chunk = others.length ? { ...first, lines: Buffer.concat(lines) } : first
  for (const reader of readers) reader.receive(chunk)
}

// ---- Chunks

/** The position behind a chunk. */
export const endOf = ({ position, lines }: Chunk) => position + lines.length

/** The part of a chunk that begins at `position`; undefined when none of its lines begins there. */
function partFrom(chunk: Chunk, position: number): Chunk | undefined {
  const offset = position - chunk.position
  if (offset === 0) return chunk // the same, not a copy: what is made of it is shared by all readers
  const isLine = offset > 0 && chunk.lines[offset - 1] === LF
  return isLine ? { ...chunk, position, lines: chunk.lines.subarray(offset) } : undefined
}

// All readers of a chunk get the same bytes, so they are made once. No entry is parsed: line breaks become commas.
/** Makes a function that packs a chunk for clients: its lines as the elements of a JSON array, between two texts. */
export function oncePerChunk(around: (chunk: Chunk) => [head: string, foot: string]): (chunk: Chunk) => Buffer {
  const made = new WeakMap<Chunk, Buffer>()
  return chunk => {
    const known = made.get(chunk)
    if (known) return known
    const [head, foot] = around(chunk)
    const bytes = Buffer.concat([Buffer.from(head), chunk.lines.subarray(0, -1), Buffer.from(foot)])
    const elements = bytes.subarray(head.length, -foot.length)
    for (let at = elements.indexOf(LF); at >= 0; at = elements.indexOf(LF, at + 1)) elements[at] = COMMA
    made.set(chunk, bytes)
    return bytes
  }
}
