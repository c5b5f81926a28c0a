// Which entries of a log pass a filter: their indexes, ascending, so far as the log has been gone through.

import { redraw } from './draw.js'
import { contains } from './entries.js'

/** @import { Chunk, LogStore } from './log-store.js' */

const TURN = 8 // milliseconds of searching within one frame

export class Filter {
  /** @type {number[]} */
  passed = []
  /** how many entries have been looked at */
  seen = 0
  #isReading = false

  /** @param {LogStore} store @param {boolean[]} levels that pass @param {RegExp} [query] what an entry has to contain */
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

  /** @param {Chunk} chunk @param {import('./entries.js').Entry[]} [entries] */
  #look({ first, count }, entries) {
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
