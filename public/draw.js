// How anything gets onto the screen: state changes at any rate, and is drawn at most once a frame. Whoever changes
// something calls redraw(); after what a person did, that is called anyway. What is drawn is changed in place.

import { printable } from './words.js'

/** Milliseconds between two drawings of words and figures: in a flood, the browser does not lay out the whole page in
 * every frame. They are drawn in a background tab, too: a screen reader may speak. */
export const CALM = 100
export const SLOW = 500 // milliseconds between two drawings of what costs more than a figure

const pictures = /** @type {{ draw: () => void, pause: number, isOfRun: boolean, drawnAt: number }[]} */ ([])
const waiting = /** @type {(() => void)[]} */ ([]) // for everything to be drawn
const view = element('run', HTMLElement)
const channel = new MessageChannel()
let asked = false // for a frame that has not come yet
let rested = 0 // when the pause after a long frame is over
/** until the next change of those figures that were not due @type {ReturnType<typeof setTimeout> | undefined} */
let later

/** Draws in the frames in which something changed, while the page is visible, and a run is, if it is `isOfRun`. */
export const picture = (/** @type {() => void} */ draw, pause = 0, isOfRun = true) =>
  pictures.push({ draw, pause, isOfRun, drawnAt: -SLOW })

/** Draws what has changed; resolves when that has happened. @returns {Promise<void>} */
export function drawn() {
  redraw()
  return new Promise(resolve => waiting.push(resolve))
}

export function redraw() {
  if (asked) return
  asked = true
  // A background tab gets no frames, and its timers are slowed to one a minute in the end. Waiting for either would
  // stop the acknowledgements, and with them the run's chunks. A message channel is not slowed.
  if (document.hidden) channel.port1.postMessage(0)
  else if (performance.now() < rested) setTimeout(requestAnimationFrame, rested - performance.now(), drawAll)
  else requestAnimationFrame(drawAll)
}

/** Draws everything in the next frame, pauses or not: what is in view is another run, or has ended. */
export function drawAnew() {
  for (const picture of pictures) picture.drawnAt = -SLOW
  redraw()
}

function drawAll() {
  asked = false
  clearTimeout(later)
  const began = performance.now()
  const seen = pictures.filter(({ isOfRun }) => !isOfRun || !view.hidden)
  for (const picture of seen) { // the calm ones in one frame: the page changes its layout once
    if (began - picture.drawnAt < picture.pause || (document.hidden && picture.pause !== CALM)) continue
    picture.drawnAt = began
    try {
      picture.draw()
    } catch (error) {
      reportError(error) // a mistake in one picture must not stop the others, nor the acknowledgements
    }
  }
  if (seen.some(({ pause, drawnAt }) => pause === CALM && drawnAt !== began)) later = setTimeout(redraw, CALM)
  for (const resolve of waiting.splice(0)) resolve()
  if (!document.hidden) channel.port1.postMessage(began)
}

// A frame that took long, its layout and painting included, is followed by a pause as long: in the heaviest flood half
// of the time is left for clicks.
channel.port2.onmessage = ({ data: began }) => {
  if (began) rested = 2 * performance.now() - began
  else drawAll()
}
document.addEventListener('visibilitychange', () => {
  asked = false // a frame asked for before the tab was hidden may never come
  redraw()
})

for (const deed of ['click', 'input', 'keydown']) addEventListener(deed, redraw)
addEventListener('popstate', drawAnew)
setInterval(redraw, SLOW + 20) // the time since something happened moves on while nothing does; no frame is too early

/** The element with this id, which stands in index.html.
 * @template {Element} T @param {string} id @param {new () => T} kind @returns {T} */
export function element(id, kind) {
  const found = document.getElementById(id)
  if (!(found instanceof kind)) throw new Error(`index.html has no ${kind.name} with the id ${id}`)
  return found
}

/** Several of them. @template {Element} T @template {string[]} Ids
 * @param {new () => T} kind @param {Ids} ids @returns {{ [At in keyof Ids]: T }} */
export const elements = (kind, ...ids) => /** @type {any} */ (ids.map(id => element(id, kind)))

/** Changes a property only when it differs: the same text written again costs a layout, and ends a selection.
 * @template T @template {keyof T} K @param {T} target @param {K} property @param {T[K]} value */
export function set(target, property, value) {
  if (target[property] !== value) target[property] = value
}

export const setText = (/** @type {Node} */ to, /** @type {string} */ text) => set(to, 'textContent', printable(text))
/** @param {Element} target @param {string} name @param {string | undefined} value undefined: none */
export function setAttribute(target, name, value) {
  if (value === undefined) target.removeAttribute(name)
  else if (target.getAttribute(name) !== value) target.setAttribute(name, value)
}

/** A link that leads nowhere yet is no link: Enter would still follow it. */
export function setLink(/** @type {HTMLAnchorElement} */ link, /** @type {string | undefined} */ href) {
  setAttribute(link, 'href', href)
  set(link, 'ariaDisabled', href === undefined ? 'true' : null)
}

/** @template {keyof HTMLElementTagNameMap} K
 * @param {K} name @param {string} [className] @param {(string | Node)[]} inside */
export function make(name, className, ...inside) {
  const made = document.createElement(name)
  if (className) made.className = className
  made.append(...inside.map(part => (typeof part === 'string' ? printable(part) : part)))
  return made
}

/** A text with what a pattern finds in elements of their own; the pattern is one group.
 * @param {string} text @param {RegExp} pattern @param {keyof HTMLElementTagNameMap} name @param {string} [className] */
export const pieces = (text, pattern, name, className) =>
  make('span', '', ...text.split(pattern).map((part, at) => (at % 2 ? make(name, className, part) : part)))
