// How fast something gets on, from the times in the entries, so that a page which reads the log later sees the same.

const MOST_STEPS = 120 // of the history; when they are full, two become one

export class Pace {
  /** a second: the mean so far, later that of the last seconds, as an estimate should not dance */
  speed = 0
  told = 0 // how often
  #began = 0 // in milliseconds since 1970, as all times here
  #last = 0
  #step = 100 // of the history
  /** what had been reached at the end of each step @type {number[]} */
  #reached = []
  #base = 0
  #time = 0
  #current = 0

  /** @param {number} time @param {number} current */
  add(time, current) {
    if (!this.#began) {
      this.#began = this.#time = time
      this.#base = this.#current = current
    }
    let at = Math.floor((time - this.#began) / this.#step)
    if (at < 0) return // the clock went back
    for (; at >= MOST_STEPS; at >>= 1) {
      const last = this.#reached.length - 1
      this.#reached = this.#reached.filter((_, step) => step % 2 === 1 || step === last)
      this.#step *= 2
    }
    this.told++
    this.#last = time
    while (this.#reached.length < at) this.#reached.push(this.#reached.at(-1) ?? this.#base) // nothing happened
    this.#reached[at] = current
    const seconds = (time - this.#time) / 1000
    if (seconds < 0.5) return
    if (current > this.#current) {
      const speed = (current - this.#current) / seconds
      const weight = Math.max(seconds / ((time - this.#began) / 1000), Math.min(0.5, 0.1 * seconds))
      this.speed += weight * (speed - this.speed)
    }
    this.#time = time
    this.#current = current
  }

  /** From its beginning to what was told last: when it is over, this says more than the last half second. */
  get mean() {
    const seconds = (this.#last - this.#began) / 1000
    return seconds > 0 ? ((this.#reached.at(-1) ?? 0) - this.#base) / seconds : 0
  }

  /** The speed at the end of each step, over about a second; the last step is not over yet. */
  get speeds() {
    const steps = Math.max(1, Math.round(1000 / this.#step))
    return this.#reached.slice(0, -1).map((reached, at) => {
      const before = this.#reached[at - steps] ?? this.#base
      return Math.max(0, reached - before) / Math.min(steps, at + 1) / this.#step * 1000
    })
  }
}
