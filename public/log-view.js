// The log of the run in view: which of its entries are rows, which one is chosen, and where in it one is. What stands
// around the rows is in log-tools.js.

import { element, picture, pieces } from './draw.js'
import { inView as run } from './followed-runs.js'
import { keep, recall } from './kept.js'
import { Filter } from './log-store.js'
import { VirtualList } from './virtual-list.js'
import { clock, describe, LEVELS, since, toText } from './words.js'

/** the levels that are shown at first: the bar shows the progress, in the log it is noise */
export const usual = LEVELS.map(level => level !== 'progress')

export const list = new VirtualList('log-list', {
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

let numbered = new Filter(run.store, usual) // for people, who would miss the others: they are left out at first
let ofLevels = numbered
/** those that contain what is searched for @type {Filter | undefined} */
export let hits
export let isOnlyHits = false // the others are left out
export let chosen = -1 // index of an entry, or none
/** Where to go once the log has come that far: to the entry with this number, which is chosen then; or to entry `n`, so
 * many rows below the upper edge. @type {{ number: number } | { n: number, below: number } | undefined} */
export let goal
/** what was in sight before filters were changed: where one is until one goes elsewhere @type {typeof goal} */
let place

/** Begins anew, for another run. @param {number} number of the entry to go to, 0: none */
export function showLog(number) {
  numbered = new Filter(run.store, usual)
  chosen = -1
  goal = number > 0 ? { number } : undefined
  place = undefined
  Object.assign(list, { following: !goal, top: 0 })
  element('search', HTMLInputElement).value = ''
  const left = recall('levels left out')
  filter(Array.isArray(left) ? LEVELS.map(type => !left.includes(type)) : usual)
}

export const rows = () => (isOnlyHits && hits ? hits : ofLevels)
export const levels = () => ofLevels.levels // which are shown, by their numbers

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

/** As a person wants it, also for the next run, and the next visit. @param {boolean[]} shown by level */
export function filterLevels(shown) {
  filter(shown, hits?.query, isOnlyHits)
  keep('levels left out', LEVELS.filter((_, level) => !shown[level]))
}

/** What people call an entry, from 1. @param {number} n */
export const numberOf = n => numbered.placeOf(n + 1)
export function choose(/** @type {number} */ n) { // -1: none
  const isFocused = element('entry', HTMLElement).contains(document.activeElement)
  if (n < 0 && isFocused) list.box.focus() // what is hidden loses the focus
  place = undefined
  chosen = n
}

/** Chooses entry n, also when the filter would not show it. @param {number} n */
export function revealEntry(n) {
  const level = run.store.levels[n] ?? 0
  if (!levels()[level]) filter(levels().map((isShown, at) => isShown || at === level), hits?.query, isOnlyHits)
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

/** Its level and time. A level is what a task calls it, if that is a word. @param {import('./words.js').Entry} entry */
export const headOf = ({ type, time }, told = clock) => [toText(type).slice(0, 20), told(time, run.start?.time)]

function describeRow(/** @type {number} */ row) {
  const n = rows().passed[row] ?? 0
  const number = numbered.indexOf(n) < 0 ? '' : String(numberOf(n))
  const entry = run.store.get(n)
  if (!entry) {
    run.store.load(n) // redraws when it is there
    return { level: '', texts: [number, '', '', '…'], isWhole: false }
  }
  const [level = '', time = ''] = headOf(entry, list.box.dataset['times'] === 'mixed' ? since : clock)
  const text = list.wraps ? describe(entry) : describe(entry).replaceAll('\n', '↵')
  return { level, texts: [number, time, level, hits?.query?.test(text) ? pieces(text, hits.query, 'mark') : text] }
}
