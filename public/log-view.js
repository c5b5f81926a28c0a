// The log of the run in view: which of its entries are rows, which one is chosen, and where in it one is. What stands
// around the rows is in log-tools.js.

import { element, picture, pieces } from './draw.js'
import { inView as run } from './followed-runs.js'
import { Filter } from './log-store.js'
import { VirtualList } from './virtual-list.js'
import { clock, describe, LEVELS, toText } from './words.js'
/** @import { Entry } from './words.js' */

/** the levels that are shown at first: the bar shows the progress, in the log it is noise */
export const usual = LEVELS.map(level => level !== 'progress')

export const list = new VirtualList(element('log-list', HTMLElement), {
  parts: ['n', 'time', 'level', 'text'],
  describe: describeRow,
  choose: row => choose(rows().passed[row] ?? -1),
  keys: {
    w: () => jumpToProblem(1),
    W: () => jumpToProblem(-1),
    '/': () => element('search', HTMLInputElement).focus(),
    Escape: () => choose(-1),
    t: () => element('times', HTMLButtonElement).click(),
  },
  moved: () => { goal = place = undefined },
})

/** what has a number for people: not what is left out at first, or they would miss some */
let numbered = new Filter(run.store, usual)
let ofLevels = numbered
/** those that contain what is searched for @type {Filter | undefined} */
export let hits
export let isOnlyHits = false // the others are left out
export let chosen = -1 // index of an entry, or none
/** Where to go as soon as the log has come and been gone through that far: to the entry with this number, which is
 * chosen then; or to entry `n`, so many rows below the upper edge.
 * @type {{ number: number } | { n: number, below: number } | undefined} */
export let goal
/** what was in sight before filters were changed: where one is until one goes elsewhere @type {typeof goal} */
let place

/** Begins anew, for another run. @param {number} number of the entry to go to, 0: none */
export function showLog(number) {
  numbered = new Filter(run.store, usual)
  chosen = -1
  goal = number > 0 ? { number } : undefined
  place = undefined
  list.following = !goal
  list.top = 0
  element('search', HTMLInputElement).value = ''
  filter(usual)
}

export const rows = () => (isOnlyHits && hits ? hits : ofLevels)
/** of those levels that are shown, by their numbers */
export const levels = () => ofLevels.levels

picture(() => {
  goThrough()
  list.selected = rows().indexOf(chosen)
  list.draw(rows().passed.length)
})

function goThrough() {
  for (const filter of new Set([numbered, ofLevels, hits])) filter?.go()
  if (!goal) return
  if ('n' in goal) {
    if (rows().seen <= goal.n) return
    list.top = Math.max(0, rows().placeOf(goal.n) - goal.below)
    goal = undefined
  } else if (numbered.passed.length >= goal.number) revealEntry(numbered.passed[goal.number - 1] ?? 0)
}

/** @param {boolean[]} shown by level @param {RegExp} [query] what is marked @param {boolean} [onlyHits] */
export function filter(shown, query, onlyHits = false) {
  if (!list.following && !goal && list.count) { // what was in sight stays where it was
    const row = list.isSeen ? list.selected : Math.ceil(list.top)
    goal = place ??= { n: rows().passed[row] ?? 0, below: row - list.top }
  }
  ofLevels = shown === usual ? numbered : new Filter(run.store, shown)
  hits = query && new Filter(run.store, shown, query)
  isOnlyHits = onlyHits
  list.stale = true
  goThrough() // a key that is pressed before the next frame must find its row
}

export const filterLevels = (/** @type {boolean[]} */ shown) => filter(shown, hits?.query, isOnlyHits)
/** What people call an entry, from 1. @param {number} n */
export const numberOf = n => numbered.placeOf(n + 1)
/** @param {number} n index of an entry, -1: none */
export function choose(n) {
  const isFocused = element('entry', HTMLElement).contains(document.activeElement)
  if (n < 0 && isFocused) list.box.focus() // what is hidden loses the focus
  place = undefined
  chosen = n
}

/** Chooses entry n, also when the filter would not show it. @param {number} n */
export function revealEntry(n) {
  const level = run.store.levels[n] ?? 0
  if (!levels()[level]) filterLevels(levels().map((isShown, at) => isShown || at === level))
  if (rows().indexOf(n) < 0) filter(levels(), hits?.query) // it is no hit
  goal = undefined
  choose(n)
  list.reveal(rows().indexOf(n))
}

/** Shows the part of the log that begins with entry n. @param {number} n */
export function showEntry(n) {
  choose(rows().indexOf(n) < 0 ? -1 : n)
  list.following = false
  goal = { n, below: 0 }
}

/** From the chosen entry, or from an end; round the other to the first. @param {1 | -1} step */
export function jumpToProblem(step) {
  const { count, levels } = run.store
  const from = chosen >= 0 ? chosen : step > 0 ? -1 : count
  for (let i = 1; i <= count; i++) {
    const n = (((from + step * i) % count) + count) % count
    const level = LEVELS[levels[n] ?? 0]
    if (level === 'warning' || level === 'error') return revealEntry(n)
  }
}

/** Its level and time. A level is what a task calls it, if that is a word. @param {Entry} entry */
export const headOf = ({ type, time }) => [toText(type).slice(0, 20), clock(time, run.start?.time)]

function describeRow(/** @type {number} */ row) {
  const n = rows().passed[row] ?? 0
  const number = numbered.indexOf(n) < 0 ? '' : String(numberOf(n))
  const entry = run.store.get(n)
  if (!entry) {
    run.store.load(n) // redraws when it is there
    return { level: '', texts: [number, '', '', '…'], isWhole: false }
  }
  const [level = '', time = ''] = headOf(entry)
  const text = list.wraps ? describe(entry) : describe(entry).replaceAll('\n', '↵')
  return { level, texts: [number, time, level, hits?.query?.test(text) ? pieces(text, hits.query, 'mark') : text] }
}
