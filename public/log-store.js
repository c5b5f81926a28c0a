// A run's log as the page holds it: chunks, each with the position at which it stands in the log. Memory is bounded:
// chunks that have not been looked at for long are let go, and read from the log again when someone scrolls back to
// them. Only one byte an entry, its level, is kept of all. And filters: which of the entries pass one.

import { redraw } from './draw.js'
import { contains, LEVELS, levelOf } from './words.js'
/** @import { Entry } from './words.js' */
/** `first`: the index of its first entry
 * @typedef {{ position: number, next: number, first: number, count: number, entries?: Entry[] | undefined }} Chunk */

const CHUNK = 512 * 1024 // bytes; a read of the log gives no more
const KEEP = 16 * 1024 * 1024 // bytes of log kept as entries; in memory they are about four times that
const PAUSE = 1000 // milliseconds before a read that failed is tried again: the server may be down
const TURN = 8 // milliseconds of searching within one frame

export class LogStore {
  count = 0 // of entries
  end = 0 // the position at which the log ends, so far as it has come
  kept = 0 // bytes
  counts = LEVELS.map(() => 0) // of entries of each level
  levels = new Uint8Array(1024)
  /** @type {Chunk[]} */ chunks = []
  /** those with their entries, the longest unused first @type {Set<Chunk>} */ held = new Set()
  /** The one read again last, which stays until another is: let go before it is drawn, it would be read for ever.
   * @type {Chunk | undefined} */ #again
  #isReading = false

  constructor(/** @type {string} */ id) { this.id = id }

  append(/** @type {Entry[]} */ entries, /** @type {number} */ next) {
    let last = this.chunks.at(-1)
    if (!last || last.next - last.position >= CHUNK) {
      last = { position: this.end, next, first: this.count, count: 0, entries: [] }
      this.chunks.push(last)
    }
    if (this.count + entries.length > this.levels.length) {
      const levels = new Uint8Array(2 * (this.count + entries.length))
      levels.set(this.levels)
      this.levels = levels
    }
    for (const entry of entries) {
      const level = levelOf(entry)
      this.levels[this.count++] = level
      this.counts[level] = (this.counts[level] ?? 0) + 1
      last.entries?.push(entry)
    }
    last.count += entries.length
    this.kept += next - this.end
    this.end = last.next = next
    this.#use(last)
    this.keepTo(KEEP)
  }

  /** The entry, or undefined when it has to be loaded first. @param {number} n @returns {Entry | undefined} */
  get(n) {
    const chunk = this.chunkOf(n)
    if (chunk?.entries) this.#use(chunk)
    return chunk?.entries?.[n - chunk.first]
  }

  /** Reads what was let go again, one chunk at a time; redraws when it has come. @param {number} n */
  async load(n) {
    const chunk = this.chunkOf(n)
    if (this.#isReading || !chunk || chunk.entries) return
    this.#isReading = true
    chunk.entries = await this.entriesOf(chunk)
    this.#isReading = false
    this.#again = chunk
    this.kept += chunk.next - chunk.position
    this.#use(chunk)
    this.keepTo(KEEP)
    redraw()
  }

  /** For who goes through the whole log: what is not held is read again, and not kept. */
  async entriesOf(/** @type {Chunk} */ chunk) {
    for (;;) {
      const entries = chunk.entries ?? await readLog(this.id, chunk).catch(() => undefined)
      if (entries) return entries
      await new Promise(resolve => setTimeout(resolve, PAUSE))
    }
  }

  chunkOf(/** @type {number} */ n) {
    return n < this.count ? this.chunks.findLast(({ first }) => first <= n) : undefined
  }

  keepTo(/** @type {number} */ bytes) {
    for (const chunk of this.held) {
      if (this.kept <= bytes) return
      if (chunk === this.chunks.at(-1) || chunk === this.#again) continue // the last one still grows
      chunk.entries = undefined
      this.kept -= chunk.next - chunk.position
      this.held.delete(chunk)
    }
  }

  #use(/** @type {Chunk} */ chunk) {
    this.held.delete(chunk)
    this.held.add(chunk)
  }
}

/** A catch-up read gives a part of the log, which may end before the chunk or behind it. */
async function readLog(/** @type {string} */ id, /** @type {Chunk} */ { position, count }) {
  let entries = /** @type {Entry[]} */ ([])
  for (let next = String(position); entries.length < count; ) {
    const answer = await fetch(`tasks/${id}/log?offset=${next}`)
    const part = answer.ok ? await answer.json() : []
    if (!part.length) throw new Error(`log of ${id}: status ${answer.status}`)
    entries = entries.concat(part)
    next = answer.headers.get('stream-next-offset') ?? ''
  }
  return entries.slice(0, count)
}

/** Which entries of a log pass: their indexes, ascending, so far as the log has been gone through. */
export class Filter {
  /** @type {number[]} */ passed = []
  seen = 0 // entries that have been looked at
  #isReading = false

  /** @param {LogStore} store @param {boolean[]} levels that pass @param {RegExp} [query] that an entry has to fit */
  constructor(store, levels, query) {
    this.store = store
    this.levels = levels
    this.query = query
  }

  get isDone() { return this.seen === this.store.count }
  /** Goes on where it stopped. To look at levels alone takes no time; to search, a few milliseconds each frame. */
  go() {
    const until = performance.now() + TURN
    while (!this.isDone && !this.#isReading) {
      const chunk = /** @type {Chunk} */ (this.store.chunkOf(this.seen))
      if (!this.query || chunk.entries) this.#look(chunk, chunk.entries)
      else this.#read(chunk)
      if (this.query && performance.now() > until) return redraw()
    }
  }

  async #read(/** @type {Chunk} */ chunk) {
    this.#isReading = true
    this.#look(chunk, await this.store.entriesOf(chunk))
    this.#isReading = false
    redraw()
  }

  #look(/** @type {Chunk} */ { first, count }, /** @type {Entry[]=} */ entries) {
    for (; this.seen < first + count; this.seen++) {
      if (!this.levels[this.store.levels[this.seen] ?? 0]) continue
      const entry = entries?.[this.seen - first]
      if (!this.query || (entry && contains(entry, this.query))) this.passed.push(this.seen)
    }
  }

  /** How many pass before entry n: the place of the first at n or after it. @param {number} n */
  placeOf(n) {
    let low = 0
    for (let high = this.passed.length; low < high; ) {
      const middle = (low + high) >> 1
      if ((this.passed[middle] ?? 0) < n) low = middle + 1
      else high = middle
    }
    return low
  }

  /** Its place, or -1 where it does not pass. @param {number} n */
  indexOf(n) {
    const place = this.placeOf(n)
    return this.passed[place] === n ? place : -1
  }
}
