// What stands around the rows of the log: chips, counts and buttons; the chosen entry, beside the rows or over the half
// of them in which it does not stand; the search; the ribbon, with the places of warnings and errors in the whole log.

import { CALM, element, elements, picture, pieces, redraw, set, setAttribute, setLink, setText, SLOW } from './draw.js'
import { inView as run } from './followed-runs.js'
import { keep, recall } from './kept.js'
import {
  choose, chosen, filter, filterLevels, goal, headOf, hits, isOnlyHits, jumpToProblem, levels, list, numberOf,
  revealEntry, rows, usual,
} from './log-view.js'
import { compact, count, counted, cut, describe, FOREIGN, fullText, LEVELS, MORE_IN_LOG } from './words.js'

const LONGEST = 100_000 // characters of the chosen entry that are shown
const PLACES = 500 // along the ribbon
const HEIGHT = 1000 // of the drawing, which is stretched to the height of the log
const NEAR = 0.015 // of the height: so far from a mark a click still means it
const [WARNING, ERROR] = [LEVELS.indexOf('warning'), LEVELS.indexOf('error')]

const ribbon = element('ribbon', SVGElement)
/** by level, what can be left out: a beginning, a step and an end are always shown @type {(HTMLElement | null)[]} */
const chips = LEVELS.map(type => document.querySelector(`.chip[data-level=${type}]`))
const problems = LEVELS.map((_, level) => !chips[level] || level === WARNING || level === ERROR)
const [total, note, empty] = elements(HTMLElement, 'log-count', 'log-note', 'log-empty')
const [entryBox, entryTitle, entryText] = elements(HTMLElement, 'entry', 'entry-title', 'entry-text')
const [toEnd, nextProblem, onlyProblems] = elements(HTMLButtonElement, 'to-end', 'next-warning', 'only-problems')
const download = element('download', HTMLAnchorElement)
const search = element('search', HTMLInputElement)
const [hitCount, spoken] = elements(HTMLElement, 'hit-count', 'hit-spoken')
const [next, previous, onlyHits, full] = elements(HTMLButtonElement, 'next-hit', 'previous-hit', 'only-hits', 'full')
let drawn = { of: run, n: -1 } // the chosen entry that is shown: not asked for again, as it may be let go meanwhile
/** the hit to go to, which may not have been found yet @type {{ from: number, step: 1 | -1 } | undefined} */
let wanted
let [said, scrolled] = ['', 0] // of a search, to a screen reader; where the page was before the full screen

picture(() => {
  const { store: { count: all, counts }, read, ended, start } = run
  const { passed, seen, isDone } = rows()
  chips.forEach((chip, level) => {
    if (!chip?.lastElementChild) return
    setText(chip.lastElementChild, compact(counts[level] ?? 0))
    set(chip, 'ariaPressed', String(levels()[level]))
    set(chip.dataset, 'empty', String(!counts[level]))
  })
  set(onlyProblems, 'ariaPressed', String(String(levels()) === String(problems)))
  set(nextProblem, 'disabled', run.count('warning') + run.count('error') === 0)
  const entries = counted(all, 'entry', 'entries')
  const part = `${count(passed.length)} of ${entries}` + (isDone ? '' : `, searched ${count(seen)}`)
  setText(total, all === 0 ? '' : passed.length === all ? entries : part)
  setText(note, run.note || (ended && read < 1 ? `Reading its log, ${Math.floor(read * 100)} %` : ''))
  setLink(download, start ? `tasks/${run.id}/log.ndjson` : undefined)
  setText(empty, passed.length ? '' : all === 0 ? 'Nothing yet.' : isDone ? 'No entry matches.' : 'Searching …')
  const below = Math.round(passed.length - list.top - list.inSight)
  set(toEnd, 'hidden', list.following || below < 1)
  setText(toEnd, `↓ To the end (${count(Math.max(0, below))} below)`)
}, CALM)

picture(() => {
  set(entryBox, 'hidden', chosen < 0 || LEVELS[run.store.levels[chosen] ?? 0] === 'step') // its row says it all
  const place = (list.selected - list.top) / list.inSight
  if (Math.abs(place - 0.5) > 0.1) entryBox.toggleAttribute('data-above', place > 0.5) // where it lies over the log
  if (entryBox.hidden || (drawn.of === run && drawn.n === chosen)) return
  const entry = run.store.get(chosen)
  setText(entryTitle, ['Entry ' + count(numberOf(chosen)), ...(entry ? headOf(entry) : [])].join(', '))
  const shown = entry && pieces(cut(fullText(entry), LONGEST, MORE_IN_LOG), FOREIGN, 'span', 'foreign')
  entryText.replaceChildren(shown ?? 'Reading …')
  entryText.scrollTop = 0
  if (entry) drawn = { of: run, n: chosen }
  else run.store.load(chosen) // redraws when it is there
})

picture(() => {
  const address = new URL(location.href)
  const line = chosen < 0 ? null : String(numberOf(chosen))
  if (goal || address.searchParams.get('line') === line) return
  address.searchParams.delete('line')
  if (line) address.searchParams.set('line', line)
  history.replaceState(null, '', address)
}, SLOW)

/** A button that goes from state to state, and is found in the same on the next visit.
 * @param {string} id @param {(state: string) => void} change @param {string[]} states of `aria-pressed` */
function toggles(id, change, states = ['false', 'true']) {
  const button = element(id, HTMLButtonElement)
  const press = (/** @type {string} */ state) => change(button.ariaPressed = state)
  button.addEventListener('click', () => {
    press(states[states.indexOf(button.ariaPressed ?? '') + 1] ?? 'false')
    keep(id, button.ariaPressed)
  })
  press(states.find(state => state === recall(id)) ?? 'false')
}

toggles('times', state => {
  list.box.dataset['times'] = state // by the clock, or since the beginning
  list.stale = true
}, ['false', 'true', 'mixed'])
toggles('wrap', state => {
  if (list.isSeen && !list.following) list.reveal(list.selected)
  list.box.toggleAttribute('data-wraps', state === 'true')
  Object.assign(list, { wraps: state === 'true', stale: true })
})
full.addEventListener('click', () => {
  if (full.ariaPressed === 'false') scrolled = scrollY
  full.ariaPressed = String(document.documentElement.toggleAttribute('data-full'))
  if (full.ariaPressed === 'false') scrollTo(0, scrolled)
})
const leaveFull = () => { if (full.ariaPressed === 'true') full.click() }
addEventListener('popstate', leaveFull)
addEventListener('keydown', ({ key, target }) => {
  if (key === 'Escape' && chosen < 0 && !(target instanceof HTMLInputElement)) leaveFull()
}, true) // before the list closes the chosen entry by the same key

export function copies(/** @type {string} */ id, /** @type {() => string | Promise<string>} */ text) {
  const button = element(id, HTMLButtonElement)
  const words = button.textContent ?? ''
  button.addEventListener('click', async () => {
    // Trap: what is written some seconds after the click is refused. What was promised then is not.
    const told = Promise.resolve(text()).then(text => new Blob([text], { type: 'text/plain' }))
    const writing = navigator.clipboard?.write([new ClipboardItem({ 'text/plain': told })]) // missing over plain HTTP
    button.textContent = await writing?.then(() => true, () => false) ? 'Copied' : 'Not allowed here'
    setTimeout(() => { button.textContent = words }, 1500)
  })
}

copies('copy-log', async () => {
  const [{ store }, filter] = [run, rows()]
  let lines = ''
  for (const chunk of store.chunks) {
    const { first, count } = chunk
    const entries = await store.entriesOf(chunk)
    for (const n of filter.passed.slice(filter.placeOf(first), filter.placeOf(first + count))) {
      const entry = /** @type {import('./words.js').Entry} */ (entries[n - first])
      const [level = '', time] = headOf(entry)
      lines += `${time} ${level.padEnd(8)} ${describe(entry, Infinity)}\n`
    }
  }
  return lines.trimEnd()
})

chips.forEach((chip, level) =>
  chip?.addEventListener('click', () => filterLevels(levels().with(level, !levels()[level]))))
onlyProblems.addEventListener('click', () => filterLevels(onlyProblems.ariaPressed === 'true' ? usual : problems))
nextProblem.addEventListener('click', () => jumpToProblem(1))
toEnd.addEventListener('click', () => {
  list.following = true
  list.box.focus()
})
copies('entry-copy', () => entryText.textContent ?? '')
copies('entry-link', () => new URL(`?run=${run.id}&line=${numberOf(chosen)}`, location.href).href)
element('entry-close', HTMLButtonElement).addEventListener('click', () => choose(-1))

picture(goToHit)
picture(drawHits, CALM)

function drawHits() {
  set(onlyHits, 'ariaPressed', String(isOnlyHits))
  if (!hits) return
  const place = hits.indexOf(chosen)
  const at = place < 0 ? '' : `${count(place + 1)} of `
  setText(hitCount, at + counted(hits.passed.length, 'hit') + (hits.isDone ? '' : ' so far'))
}

// Said once it is known, and not whenever a run that goes on has another one.
picture(() => {
  const asked = hits ? `${search.value} ${hits.indexOf(chosen)}` : ''
  if (asked === said || (hits && !hits.isDone)) return
  said = asked
  drawHits() // it may not have been due
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
