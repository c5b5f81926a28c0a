// A list of any length in a bounded number of nodes: only the rows in sight exist. All rows have one height, the line
// height of the list in style.css; where they wrap, each has its own, which is known once it is drawn, and until then
// taken for that one. A screen reader hears through aria-activedescendant which one the keys have chosen.

import { element, make, redraw, set, setText } from './draw.js'

const SPARE = 8 // rows drawn above and below, so that scrolling shows no blank edge
const TALLEST = 8_000_000 // pixels; browsers cannot make an element much taller than 17 million

/** What a row says, part by part; `isWhole`: it need not be asked for again.
 * @typedef {{ level: string, texts: (string | Node)[], title?: string, isWhole?: boolean }} Row */
/** `parts`: classes of a row's parts; `keys`: besides those that move the selection; `moved`: a person has scrolled.
 * @typedef {{ parts: string[], describe: (n: number) => Row, choose: (n: number) => void,
 *   keys?: Record<string, () => void>, moved?: () => void }} Uses */

export class VirtualList {
  count = 0
  selected = -1
  top = 0 // the row at the upper edge, with a fraction
  following = false // stays at the end while rows are added
  wraps = false // rows are as high as their text
  /** @type {HTMLElement[]} */ rows = []
  stale = false // what is drawn is to be forgotten: a filter has changed which row is which
  #scrolled = 0
  #room = 0
  #first = 0 // the row in the first node
  /** of each node, where rows wrap @type {number[]} */ #heights = []
  #revealed = -1 // a row that is to come into sight

  constructor(/** @type {string} */ id, /** @type {Uses} */ uses) {
    const box = this.box = element(id, HTMLElement)
    this.uses = uses
    this.height = parseFloat(getComputedStyle(box).lineHeight)
    this.space = box.appendChild(make('div', 'space'))
    box.addEventListener('scroll', () => this.#scroll(), { passive: true })
    box.addEventListener('keydown', key => this.#press(key))
    box.addEventListener('click', click => this.#click(click))
    new ResizeObserver(() => { // asking for the height in each frame would cost a layout each time
      const { selected, isSeen } = this
      this.#room = box.clientHeight
      if (isSeen && this.#revealed < 0) this.#revealed = selected // what was chosen stays in sight
      redraw()
    }).observe(box)
  }

  get inSight() { return this.#below(this.top, this.#room) - this.top } // rows
  /** whether the selected row is in sight */
  get isSeen() { return this.selected > this.top - 1 && this.selected < this.top + this.inSight }
  get #tall() {
    const extra = this.wraps ? this.#heights.reduce((sum, height) => sum + Math.max(0, height - this.height), 0) : 0
    return Math.min(this.count * this.height + extra, TALLEST)
  }

  get #end() { return Math.max(0, this.#tall - this.#room) } // how far down the scroll bar goes, in pixels
  get #last() { return Math.max(0, this.#below(this.count, -this.#room)) } // the row at the upper edge then

  /** The row that stands so many pixels below another; both with a fraction. */
  #below(/** @type {number} */ row, /** @type {number} */ pixels) {
    if (!this.wraps) return row + pixels / this.height
    let n = Math.floor(row)
    let left = pixels + (row - n) * this.#heightOf(n)
    while (left < 0 && n > 0) left += this.#heightOf(--n)
    while (left >= this.#heightOf(n) && n < this.count) left -= this.#heightOf(n++)
    return n + left / this.#heightOf(n)
  }

  #heightOf(/** @type {number} */ n) { return (this.wraps && this.#heights[n - this.#first]) || this.height }

  draw(/** @type {number} */ count) {
    this.count = count
    this.#bringIntoSight()
    this.#writeRows(this.following ? this.#last : Math.min(this.top, this.#last))
    if (this.wraps) this.#heights = this.rows.map(row => row.offsetHeight)
    this.#bringIntoSight() // now that its height is known
    this.#revealed = -1
    set(this.space.style, 'height', `${this.#tall}px`)
    this.top = this.following ? this.#last : Math.min(this.top, this.#last)
    const scroll = this.#last ? this.top / this.#last * this.#end : 0
    if (Math.abs(this.#scrolled - scroll) >= 1) this.box.scrollTop = this.#scrolled = scroll
    this.#placeRows(scroll)
    this.stale = false
  }

  /** At the nearer edge, or, coming from far, a third below the upper one. */
  #bringIntoSight() {
    const n = this.#revealed
    if (n < 0) return
    const lowest = this.#below(n + 1, -this.#room)
    if (n < this.top - 2 || lowest > this.top + 2) this.top = this.#below(n, -this.#room / 3)
    else this.top = Math.min(n, Math.max(this.top, lowest))
    this.top = Math.max(0, this.top)
  }

  #writeRows(/** @type {number} */ top) {
    const first = Math.max(0, Math.floor(top) - SPARE)
    const wanted = Math.max(0, Math.min(this.count - first, Math.ceil(this.#room / this.height) + 2 * SPARE))
    this.#first = first
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

  #placeRows(/** @type {number} */ scroll) {
    let y = scroll - (this.top % 1) * this.#heightOf(Math.floor(this.top))
    for (let n = this.#first; n < Math.floor(this.top); n++) y -= this.#heightOf(n)
    this.rows.forEach((row, at) => {
      if (!row.hidden) set(row.style, 'transform', `translateY(${Math.round(y)}px)`)
      y += this.#heightOf(this.#first + at)
    })
  }

  #write(/** @type {HTMLElement} */ row, /** @type {number} */ n) {
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
    this.#revealed = n
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
    // Where a pixel of the scroll bar stands for more than one of the list, wheel and fingers still move by those.
    if ((isSqueezed || this.wraps) && Math.abs(moved) < this.#room) this.top = this.#below(this.top, moved)
    else this.top = this.#end ? this.#scrolled / this.#end * this.#last : 0
    if (this.#scrolled >= this.#end - 1) this.top = this.#last
    if (this.#scrolled <= 0) this.top = 0
    this.top = Math.max(0, Math.min(this.#last, this.top))
    this.following = this.top >= this.#last - 0.5
    this.uses.moved?.()
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
    if (!(row instanceof HTMLElement) || !row.dataset.n || dragged) return
    this.selected = Number(row.dataset.n) // it is in sight: nothing moves under the pointer
    this.following = false
    this.uses.choose(this.selected)
  }
}
