// A list of any length in a bounded number of nodes: only the rows in sight exist. All rows have one height, the line
// height of the list in style.css. Arrows, Page, Home and End move the selection; a screen reader hears it through
// aria-activedescendant.

import { make, redraw, set, setText } from './draw.js'

const SPARE = 8 // rows drawn above and below, so that scrolling shows no blank edge
const TALLEST = 8_000_000 // pixels; browsers cannot make an element much taller than 17 million

/** What a row says, part by part; `isWhole`: it need not be asked for again.
 * @typedef {{ level: string, texts: (string | Node)[], title?: string, isWhole?: boolean }} Row */
/** `parts`: the classes of a row's parts, from left to right; `keys`: what else is done with the keyboard.
 * @typedef {{ parts: string[], describe: (n: number) => Row, choose: (n: number) => void,
 *   keys?: Record<string, () => void> }} Uses */

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

  /** @param {HTMLElement} box @param {Uses} uses */
  constructor(box, uses) {
    this.box = box
    this.uses = uses
    this.height = parseFloat(getComputedStyle(box).lineHeight)
    this.space = box.appendChild(make('div', 'space'))
    box.tabIndex = 0
    box.role = 'listbox'
    box.addEventListener('scroll', () => this.#scroll(), { passive: true })
    box.addEventListener('keydown', key => this.#press(key))
    box.addEventListener('click', click => this.#click(click))
    new ResizeObserver(() => { // asking for the height in each frame would cost a layout each time
      this.#room = box.clientHeight
      redraw()
    }).observe(box)
  }

  get inSight() { return this.#room / this.height }

  get #tall() { return Math.min(this.count * this.height, TALLEST) }

  /** how far down the scroll bar goes, in pixels */
  get #end() { return Math.max(0, this.#tall - this.#room) }

  /** the row that stands at the upper edge then */
  get #last() { return Math.max(0, this.count - this.inSight) }

  draw(/** @type {number} */ count) {
    this.count = count
    set(this.space.style, 'height', `${this.#tall}px`)
    this.top = this.following ? this.#last : Math.min(this.top, this.#last)
    const scroll = this.#last ? this.top / this.#last * this.#end : 0
    if (Math.abs(this.#scrolled - scroll) >= 1) this.box.scrollTop = this.#scrolled = scroll
    this.#drawRows(scroll)
    this.stale = false
  }

  #drawRows(/** @type {number} */ scroll) {
    const first = Math.max(0, Math.floor(this.top) - SPARE)
    const wanted = Math.max(0, Math.min(this.count - first, Math.ceil(this.inSight) + 2 * SPARE))
    while (this.rows.length < wanted) {
      const row = make('div', 'row', ...this.uses.parts.map(part => make('span', part)))
      row.role = 'option'
      this.rows.push(this.space.appendChild(row))
    }
    this.rows.forEach((row, at) => {
      set(row, 'hidden', at >= wanted)
      if (this.stale) row.dataset.n = ''
      if (row.hidden) return
      const n = first + at
      set(row.style, 'transform', `translateY(${Math.round(scroll + (n - this.top) * this.height)}px)`)
      set(row, 'ariaSelected', String(n === this.selected))
      set(row, 'ariaSetSize', String(this.count))
      if (row.dataset.n === String(n)) return
      set(row, 'ariaPosInSet', String(n + 1))
      row.id = `${this.box.id}-${n}`
      this.#write(row, n)
    })
    const active = this.rows.find(row => !row.hidden && row.ariaSelected === 'true')
    this.box.setAttribute('aria-activedescendant', active?.id ?? '')
  }

  /** @param {HTMLElement} row @param {number} n */
  #write(row, n) {
    const { level, texts, title = '', isWhole = true } = this.uses.describe(n)
    row.dataset.n = isWhole ? String(n) : ''
    set(row.dataset, 'level', level)
    set(row, 'title', title)
    texts.forEach((text, at) => {
      const part = /** @type {Element} */ (row.children[at])
      if (typeof text !== 'string' || part.firstElementChild) part.replaceChildren(text)
      else setText(part, text)
    })
  }

  reveal(/** @type {number} */ n) {
    this.following = false
    const room = this.inSight
    if (n < this.top + 1 || n > this.top + room - 2) this.top = Math.max(0, n - room / 3)
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
    const isSqueezed = this.#tall === TALLEST
    // Where a pixel of the scroll bar stands for several rows, wheel and fingers still move by rows.
    if (isSqueezed && Math.abs(moved) < this.#room) this.top += moved / this.height
    else this.top = this.#end ? this.#scrolled / this.#end * this.#last : 0
    if (this.#scrolled >= this.#end - 1) this.top = this.#last
    if (this.#scrolled <= 0) this.top = 0
    this.top = Math.max(0, Math.min(this.#last, this.top))
    this.following = this.top >= this.#last - 0.5
    redraw()
  }

  #press(/** @type {KeyboardEvent} */ key) {
    if (key.ctrlKey || key.metaKey || key.altKey) return
    const from = this.selected >= 0 ? this.selected : Math.floor(this.top) - 1
    const page = Math.max(1, Math.floor(this.inSight) - 1)
    const to = (/** @type {number} */ n) => () => this.select(Math.max(0, Math.min(this.count - 1, n)))
    /** @type {Record<string, () => void>} */
    const keys = {
      ArrowDown: to(from + 1), ArrowUp: to(from - 1), PageDown: to(from + page), PageUp: to(from - page),
      Home: to(0), End: to(this.count - 1), Enter: to(from), ...this.uses.keys,
    }
    if (!keys[key.key]) return
    key.preventDefault()
    keys[key.key]?.()
    if (key.key === 'End') this.following = true
  }

  #click(/** @type {MouseEvent} */ click) {
    const row = click.target instanceof Element && click.target.closest('.row')
    const dragged = String(getSelection()) !== '' // someone is copying, not choosing
    if (row instanceof HTMLElement && row.dataset.n && !dragged) this.select(Number(row.dataset.n))
  }
}
