// A run's log as the page holds it: pieces, each with the position at which it stands in the log.
// Memory is bounded: pieces that have not been looked at for long are let go, and when someone scrolls
// back to them they are read from the log again. Only one byte an entry, its level, is kept of all.

import { redraw } from './draw.js'

/** @typedef {import('../protocol.ts').Entry} Entry */
/** @typedef {{ position: number, next: number, first: number, count: number, entries: Entry[] | undefined, loading: boolean }} Chunk */

const CHUNK = 256 * 1024 // bytes; also what one look back reads
const KEEP = 16 * 1024 * 1024 // bytes of log kept as entries; in memory they are about four times that

/** Every kind of entry: one that is missing here does not compile. @type {Record<Entry['type'], true>} */
const KINDS = { start: true, msg: true, progress: true, log: true, warning: true, error: true, done: true }
/** The kinds, each with a number: its place in here. */
export const LEVELS = /** @type {Entry['type'][]} */ (Object.keys(KINDS))

export class Chunks {
  count = 0
  end = 0
  kept = 0
  /** how many entries of each level */
  counts = LEVELS.map(() => 0)
  levels = new Uint8Array(1024)
  /** @type {Chunk[]} */
  all = []
  /** @type {Set<Chunk>} those with their entries, the longest unused first */
  held = new Set()

  /** @param {string} id */
  constructor(id) {
    this.id = id
  }

  /** @param {Entry[]} entries @param {number} next */
  append(entries, next) {
    this.#index(entries)
    const last = this.all.at(-1)
    if (last?.entries && last.next - last.position < CHUNK) {
      for (const entry of entries) last.entries.push(entry)
      last.count += entries.length
      last.next = next
    } else {
      this.all.push({ position: this.end, next, first: this.count, count: entries.length, entries, loading: false })
    }
    this.count += entries.length
    this.kept += next - this.end
    this.end = next
    this.#use(this.all[this.all.length - 1])
    this.keepTo(KEEP)
  }

  /** The entry, or undefined while it is being read again. @param {number} n @returns {Entry | undefined} */
  get(n) {
    const chunk = this.chunkOf(n)
    if (!chunk?.entries) {
      if (chunk) this.load(chunk)
      return
    }
    this.#use(chunk)
    return chunk.entries[n - chunk.first]
  }

  /** @param {number} n */
  chunkOf(n) {
    let low = 0
    let high = this.all.length - 1
    while (low < high) {
      const middle = (low + high + 1) >> 1
      if ((this.all[middle]?.first ?? 0) <= n) low = middle
      else high = middle - 1
    }
    return n < this.count ? this.all[low] : undefined
  }

  /** Redraws when it has arrived. @param {Chunk} chunk */
  async load(chunk) {
    if (chunk.loading) return
    chunk.loading = true
    try {
      chunk.entries = await readLog(this.id, chunk.position, chunk.next)
      this.kept += chunk.next - chunk.position
      this.#use(chunk)
      this.keepTo(KEEP)
      chunk.loading = false
    } catch {
      setTimeout(() => { chunk.loading = false; redraw() }, 1000) // not at once again: the server may be down
    }
    redraw()
  }

  /** @param {number} bytes */
  keepTo(bytes) {
    for (const chunk of this.held) {
      if (this.kept <= bytes) return
      if (chunk === this.all.at(-1)) continue // it still grows
      chunk.entries = undefined
      this.kept -= chunk.next - chunk.position
      this.held.delete(chunk)
    }
  }

  /** @param {Chunk | undefined} chunk */
  #use(chunk) {
    if (!chunk) return
    this.held.delete(chunk)
    this.held.add(chunk)
  }

  /** @param {Entry[]} entries */
  #index(entries) {
    if (this.count + entries.length > this.levels.length) {
      const levels = new Uint8Array(2 * (this.count + entries.length))
      levels.set(this.levels)
      this.levels = levels
    }
    let n = this.count
    for (const entry of entries) {
      const level = LEVELS.indexOf(entry.type)
      this.levels[n++] = level
      this.counts[level] = (this.counts[level] ?? 0) + 1
    }
  }
}

/** The route gives the log from a position to its end, so stop reading when the piece is complete.
 * @param {string} id @param {number} position @param {number} next @returns {Promise<Entry[]>} */
async function readLog(id, position, next) {
  const answer = await fetch(`tasks/${id}/log?from=${position}`)
  if (!answer.ok || !answer.body) throw new Error(`log of ${id}: status ${answer.status}`)
  const bytes = new Uint8Array(next - position)
  const reader = answer.body.getReader()
  for (let at = 0; at < bytes.length; ) {
    const { value } = await reader.read()
    if (!value) throw new Error(`log of ${id} ended early`)
    bytes.set(value.subarray(0, bytes.length - at), at)
    at += value.length
  }
  reader.cancel().catch(() => {}) // we have what we came for
  return new TextDecoder().decode(bytes).trimEnd().split('\n').map(line => JSON.parse(line))
}
