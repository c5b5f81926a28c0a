// Finding something in the log. The search marks the hits in the log as it stands, and goes from one to the next; all
// others can be left out. The ribbon shows where along the whole log warnings and errors stand; a click goes there.

import { CALM, element, elements, picture, redraw, set, setAttribute, setText, SLOW } from './draw.js'
import { inView as run } from './followed-runs.js'
import { chosen, filter, hits, isOnlyHits, levels, list, revealEntry, rows } from './log-view.js'
import { count, counted, LEVELS } from './words.js'

const PLACES = 500 // along the ribbon
const HEIGHT = 1000 // of the drawing, which is stretched to the height of the log
const NEAR = 0.015 // of the height: so far from a mark a click still means it
const [WARNING, ERROR] = [LEVELS.indexOf('warning'), LEVELS.indexOf('error')]
const ribbon = element('ribbon', SVGElement)
const search = element('search', HTMLInputElement)
const [hitCount, spoken] = elements(HTMLElement, 'hit-count', 'hit-spoken')
const [next, previous, onlyHits] = elements(HTMLButtonElement, 'next-hit', 'previous-hit', 'only-hits')
/** the hit to go to, which may not have been found yet @type {{ from: number, step: 1 | -1 } | undefined} */
let wanted
let said = ''

picture(goToHit)

picture(() => {
  set(onlyHits, 'ariaPressed', String(isOnlyHits))
  if (!hits) return
  const place = hits.indexOf(chosen)
  const at = place < 0 ? '' : `${count(place + 1)} of `
  setText(hitCount, at + counted(hits.passed.length, 'hit') + (hits.isDone ? '' : ' so far'))
}, CALM)

// Said once it is known, and not whenever a run that goes on has another one.
picture(() => {
  const asked = hits ? `${search.value} ${hits.indexOf(chosen)}` : ''
  if (asked === said || (hits && !hits.isDone)) return
  said = asked
  setText(spoken, hits ? hitCount.textContent ?? '' : '')
}, SLOW)

function searchFor(/** @type {string} */ words, only = isOnlyHits) {
  // what is searched for is meant as it is written, and without a look at upper and lower case
  const escaped = words.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&')
  filter(levels(), words ? new RegExp(`(${escaped})`, 'iu') : undefined, only && words !== '')
  wanted = undefined
}

/** From the chosen entry, or from the upper edge; round the end to the beginning. @param {1 | -1} step */
function jumpToHit(step) {
  const edge = step > 0 ? rows().passed[Math.ceil(list.top)] ?? 0 : run.store.count
  wanted = { from: chosen < 0 ? edge : chosen + Math.max(0, step), step }
  goToHit()
}

function goToHit() {
  if (!hits || !wanted) return
  const { from, step } = wanted
  const place = hits.placeOf(from)
  const isFound = step > 0 ? place < hits.passed.length : hits.seen >= from
  if (!isFound && !hits.isDone) return
  wanted = undefined
  const n = hits.passed[step > 0 ? place : place - 1] ?? hits.passed.at(step > 0 ? 0 : -1)
  if (n !== undefined) revealEntry(n)
  redraw()
}

search.addEventListener('input', () => searchFor(search.value))
search.addEventListener('keydown', ({ key, shiftKey }) => {
  if (key === 'Enter') jumpToHit(shiftKey ? -1 : 1)
  if (key === 'Escape') searchFor(search.value = '')
  if (key === 'Escape' || key === 'ArrowDown') list.box.focus()
})
next.addEventListener('click', () => jumpToHit(1))
previous.addEventListener('click', () => jumpToHit(-1))
onlyHits.addEventListener('click', () => searchFor(search.value, !isOnlyHits))
// The browser's own search would find only the rows in sight. Pressed a second time, it is the browser's all the same.
addEventListener('keydown', press => {
  if (!run.id || press.key !== 'f' || !(press.ctrlKey || press.metaKey) || press.shiftKey || press.altKey) return
  if (document.activeElement === search) return
  press.preventDefault()
  search.focus()
  search.select()
})

// No mark is so small that it could not be seen, and errors are as wide as the ribbon, warnings half of it: one error
// in a million entries shows, also among warnings without end.
picture(() => {
  const levels = run.store.levels.subarray(0, run.store.count)
  setAttribute(element('ribbon-warnings', SVGPathElement), 'd', marks(levels, WARNING, 6, 'h6v4h-6z'))
  setAttribute(element('ribbon-errors', SVGPathElement), 'd', marks(levels, ERROR, 0, 'h12v6h-12z'))
}, SLOW)

/** A box for each place at which this level stands: a look at every byte, about a millisecond for a million entries.
 * @param {Uint8Array} levels @param {number} level @param {number} left @param {string} box */
function marks(levels, level, left, box) {
  const place = Math.ceil(levels.length / PLACES)
  let path = ''
  for (let at = levels.indexOf(level); at >= 0; at = levels.indexOf(level, at + place)) {
    at -= at % place
    path += `M${left} ${Math.round(at / levels.length * (HEIGHT - 6))}${box}`
  }
  return path
}

// What is meant by a click: the nearest error, if one is near by, else the nearest warning, else what stands there.
ribbon.addEventListener('click', ({ clientY }) => {
  const { levels, count } = run.store
  const { top, height } = ribbon.getBoundingClientRect()
  const here = Math.max(0, Math.min(count - 1, Math.floor((clientY - top) / height * count)))
  for (const level of [ERROR, WARNING]) {
    for (let away = 0; away <= NEAR * count; away++) {
      const at = [here - away, here + away].find(at => levels[at] === level)
      if (at !== undefined) return revealEntry(at)
    }
  }
  revealEntry(here)
})
