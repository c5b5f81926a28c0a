// A list of any length in a bounded number of nodes: only the rows in sight exist. All rows have one height, the line
// height of the list in style.css. Arrows, Page, Home and End move the selection; a screen reader hears it through
// aria-activedescendant.

import { redraw, set } from './draw.js'

const SPARE = 8 // rows drawn above and below, so that scrolling shows no blank edge
const TALLEST = 8_000_000 // pixels; browsers cannot make an element much taller than 17 million
let lists = 0

export class VirtualList {
  count = 0
  selected = -1
  /** the row at the upper edge, with a fraction */
  top = 0
  /** stays at the end while rows are added */
  following = false
  /** @type {HTMLElement[]} */
  rows = []
  /** forget what is drawn, after a filter changed which row is which */
  stale = false
  #scrolled = 0
  #room = 0

  /** `fill` returns false when the row is not complete yet. @param {HTMLElement} box
   * @param {{ fill: (row: HTMLElement, n: number) => void | boolean, choose: (n: number) => void }} uses */
  constructor(box, uses) {
    this.box = box
    this.uses = uses
    this.number = ++lists
    this.height = parseFloat(getComputedStyle(box).lineHeight)
    this.space = box.appendChild(document.createElement('div'))
    this.space.className = 'space'
    box.tabIndex = 0
    box.setAttribute('role', 'listbox')
    box.addEventListener('scroll', () => this.#scroll(), { passive: true })
    box.addEventListener('keydown', key => this.#press(key))
    box.addEventListener('click', click => this.#click(click))
    new ResizeObserver(() => { // asking for the height in each frame would cost a layout each time
      this.#room = box.clientHeight
      redraw()
    }).observe(box)
  }

  get inSight() {
    return this.#room / this.height
  }

  draw(/** @type {number} */ count) {
    this.count = count
    const tall = Math.min(count * this.height, TALLEST)
    set(this.space.style, 'height', `${tall}px`)
    const last = Math.max(0, count - this.inSight)
    this.top = this.following ? last : Math.min(this.top, last)
    const scroll = this.#toPixels(this.top)
    if (Math.abs(this.#scrolled - scroll) >= 1) this.box.scrollTop = this.#scrolled = scroll
    this.#drawRows(scroll)
    this.stale = false
  }

  #drawRows(/** @type {number} */ scroll) {
    const first = Math.max(0, Math.floor(this.top) - SPARE)
    const wanted = Math.max(0, Math.min(this.count - first, Math.ceil(this.inSight) + 2 * SPARE))
    while (this.rows.length < wanted) this.rows.push(this.space.appendChild(this.#makeRow()))
    this.rows.forEach((row, at) => {
      set(row, 'hidden', at >= wanted)
      if (this.stale) row.dataset.n = ''
      if (row.hidden) return
      const n = first + at
      const y = `translateY(${Math.round(scroll + (n - this.top) * this.height)}px)`
      set(row.style, 'transform', y)
      const selected = String(n === this.selected)
      if (row.getAttribute('aria-selected') !== selected) row.setAttribute('aria-selected', selected)
      set(row, 'ariaSetSize', String(this.count))
      if (row.dataset.n === String(n)) return
      set(row, 'ariaPosInSet', String(n + 1))
      row.dataset.n = this.uses.fill(row, n) === false ? '' : String(n)
      row.id = `row-${this.number}-${n}`
    })
    const active = this.rows.find(row => !row.hidden && row.getAttribute('aria-selected') === 'true')
    if (active) this.box.setAttribute('aria-activedescendant', active.id)
    else this.box.removeAttribute('aria-activedescendant')
  }

  #makeRow() {
    const row = document.createElement('div')
    row.className = 'row'
    row.setAttribute('role', 'option')
    return row
  }

  reveal(/** @type {number} */ n) {
    this.following = false
    const room = this.inSight
    if (n < this.top + 1 || n > this.top + room - 2) this.top = Math.max(0, n - room / 3)
    redraw()
  }

  select(/** @type {number} */ n) {
    if (n < 0 || n >= this.count) return
    this.selected = n
    this.reveal(n)
    this.uses.choose(n)
  }

  #scroll() {
    this.#room = this.box.clientHeight // when that has grown, the browser scrolls by itself
    const moved = this.box.scrollTop - this.#scrolled // sub-pixel when it is only our own doing, rounded
    if (Math.abs(moved) < 1) return
    this.#scrolled = this.box.scrollTop
    const last = Math.max(0, this.count - this.inSight)
    const squeezed = this.count * this.height > TALLEST
    // Where a pixel of the scroll bar stands for several rows, wheel and fingers still move by rows.
    if (squeezed && Math.abs(moved) < this.#room) this.top += moved / this.height
    else this.top = this.#toRow(this.box.scrollTop)
    if (this.box.scrollTop >= this.#ends().end - 1) this.top = last
    if (this.box.scrollTop <= 0) this.top = 0
    this.top = Math.max(0, Math.min(last, this.top))
    this.following = this.top >= last - 0.5
    redraw()
  }

  #toPixels(/** @type {number} */ row) {
    const { last, end } = this.#ends()
    return last ? (row / last) * end : 0
  }

  #toRow(/** @type {number} */ pixels) {
    const { last, end } = this.#ends()
    return end ? (pixels / end) * last : 0
  }

  #ends() {
    return {
      last: Math.max(0, this.count - this.inSight),
      end: Math.max(0, Math.min(this.count * this.height, TALLEST) - this.#room),
    }
  }

  #press(/** @type {KeyboardEvent} */ key) {
    if (key.ctrlKey || key.metaKey || key.altKey) return
    const from = this.selected >= 0 ? this.selected : Math.floor(this.top) - 1
    const page = Math.max(1, Math.floor(this.inSight) - 1)
    /** @type {Record<string, number>} */
    const targets = {
      ArrowDown: from + 1, ArrowUp: from - 1, PageDown: from + page, PageUp: from - page,
      Home: 0, End: this.count - 1, Enter: from,
    }
    const n = targets[key.key]
    if (n === undefined) return
    key.preventDefault()
    this.select(Math.max(0, Math.min(this.count - 1, n)))
    if (key.key === 'End') this.following = true
  }

  #click(/** @type {MouseEvent} */ click) {
    const row = click.target instanceof Element && click.target.closest('.row')
    const dragged = String(getSelection()) !== '' // someone is copying, not choosing
    if (row instanceof HTMLElement && row.dataset.n && !dragged) this.select(Number(row.dataset.n))
  }
}
