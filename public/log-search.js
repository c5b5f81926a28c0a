// The search in the log: it marks the hits in the log as it stands, and goes from one to the next; what is no hit can be
// left out.

import { calmPicture, element, elements, picture, redraw, set, setText, slowPicture } from './draw.js'
import { inView as run } from './followed-runs.js'
import { chosen, filter, hits, isOnlyHits, levels, list, revealEntry, rows } from './log-view.js'
import { count, counted } from './words.js'

const search = element('search', HTMLInputElement)
const [hitCount, spoken] = elements(HTMLElement, 'hit-count', 'hit-spoken')
const [next, previous, onlyHits] = elements(HTMLButtonElement, 'next-hit', 'previous-hit', 'only-hits')
/** the hit to go to, which may not have been found yet @type {{ from: number, step: 1 | -1 } | undefined} */
let wanted
let said = ''

picture(goToHit)

calmPicture(() => {
  set(onlyHits, 'ariaPressed', String(isOnlyHits))
  if (!hits) return
  const place = hits.indexOf(chosen)
  const at = place < 0 ? '' : `${count(place + 1)} of `
  setText(hitCount, at + counted(hits.passed.length, 'hit') + (hits.isDone ? '' : ' so far'))
})

// Said once it is known, and not whenever a run that goes on has another one.
slowPicture(() => {
  const asked = hits ? `${search.value} ${hits.indexOf(chosen)}` : ''
  if (asked === said || (hits && !hits.isDone)) return
  said = asked
  setText(spoken, hits ? hitCount.textContent ?? '' : '')
})

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
