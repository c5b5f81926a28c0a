// How fast something gets on, from the times in the entries, so that a page which reads the log later sees the same.

/** What had been reached, and when: in milliseconds since 1970. @typedef {{ time: number, current: number }} Point */

export class Pace {
  /** a second: the mean so far, later that of the last seconds, as an estimate should not dance */
  speed = 0

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
