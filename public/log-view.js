// The log of the run in view: which of its entries are shown (levels, search), the list of them, and the one that was
// chosen, in full.

import { calmPicture, element, elements, make, picture, redraw, set, setLink, setText } from './draw.js'
import { contains, cut, describe, fullText, LEVELS, MORE_IN_LOG, toText } from './entries.js'
import { inView as run } from './followed-runs.js'
import { VirtualList } from './virtual-list.js'
import { clock, count, counted } from './words.js'

/** @import { Entry } from './entries.js' */

const SCAN = 8 // milliseconds of filtering within one frame
const LONGEST_TEXT = 100_000 // characters of one entry shown in full, or copied
const COPIED = 20_000 // entries

const parts = ['n', 'time', 'level', 'text']
/** @type {Record<string, () => void>} */
const keys = {
  w: () => jumpToWarning(1),
  W: () => jumpToWarning(-1),
  '/': () => search.focus(),
  Escape: closeEntry,
  t: () => times.click(),
}
const list = new VirtualList(element('log-list', HTMLElement), { parts, describe: describeRow, choose, keys })
const search = element('search', HTMLInputElement)
const box = element('entry', HTMLElement)
const [toEnd, times] = elements(HTMLButtonElement, 'to-end', 'times')
const download = element('download', HTMLAnchorElement)
/** the levels that can be left out; a beginning and an end are always shown
 * @type {Map<Entry['type'], HTMLButtonElement>} */
const chips = new Map(LEVELS.filter(level => !['start', 'done'].includes(level)).map(level => [level, makeChip(level)]))

let wanted = LEVELS.map(level => level !== 'progress') // the bar shows these; in the log they are noise
/** @type {RegExp | undefined} */
let query
/** the numbers of the entries shown, ascending, so far as they have been scanned @type {number[]} */
let shown = []
let scanned = 0
let chosen = -1
let wantedLine = -1
/** @type {Entry | undefined} the entry that is shown in full */
let drawnEntry

/** @param {number} line to go to when it has arrived, from 1; 0: none */
export function showLog(line) {
  chosen = -1
  wantedLine = line - 1
  search.value = ''
  wanted = LEVELS.map(level => level !== 'progress')
  list.following = wantedLine < 0
  list.top = 0
  refilter()
}

picture(() => {
  scan()
  if (wantedLine >= 0 && wantedLine < run.store.count) revealEntry(wantedLine)
  list.selected = chosen < 0 ? -1 : rowOf(chosen)
  list.draw(shown.length)
  drawChoice()
})

calmPicture(() => {
  chips.forEach((chip, type) => {
    const level = LEVELS.indexOf(type)
    const of = run.store.counts[level] ?? 0
    setText(/** @type {Element} */ (chip.lastElementChild), count(of))
    set(chip, 'ariaPressed', String(wanted[level]))
    set(chip.dataset, 'empty', String(of === 0))
  })
  const all = run.store.count
  const entries = counted(all, 'entry', 'entries')
  const part = `${count(shown.length)} of ${entries}` + (scanned < all ? `, searched ${count(scanned)}` : '')
  setText(element('log-count', HTMLElement), all === 0 ? '' : shown.length === all ? entries : part)
  const reading = run.read < 1 ? `Reading its log, ${Math.floor(run.read * 100)} %` : ''
  setText(element('log-note', HTMLElement), run.note || (run.ended ? reading : ''))
  setLink(download, run.start ? `tasks/${run.id}/log.ndjson` : undefined)
  const empty = element('log-empty', HTMLElement)
  set(empty, 'hidden', shown.length > 0)
  setText(empty, all === 0 ? 'Nothing yet.' : scanned < all ? 'Searching …' : 'No entry matches.')
  const below = Math.round(shown.length - list.top - list.inSight)
  set(toEnd, 'hidden', list.following || below < 1)
  setText(toEnd, `↓ To the end (${count(Math.max(0, below))} below)`)
  set(element('next-warning', HTMLButtonElement), 'disabled', run.count('warning') + run.count('error') === 0)
  const at = list.selected >= 0 ? `${count(list.selected + 1)} of ` : ''
  setText(element('hit-count', HTMLElement), at + counted(shown.length, 'hit') + (scanned < all ? ' so far' : ''))
})

/** Goes on where it stopped, a few milliseconds each frame. */
function scan() {
  const { store } = run
  const until = performance.now() + SCAN
  while (scanned < store.count) {
    const chunk = store.chunkOf(scanned)
    if (!chunk) return
    if (query && !chunk.entries) return void store.load(chunk) // redraws when it is there
    const end = chunk.first + chunk.count
    for (; scanned < end; scanned++) {
      if (!wanted[store.levels[scanned] ?? 0]) continue
      const entry = chunk.entries?.[scanned - chunk.first]
      if (!query || (entry && contains(entry, query))) shown.push(scanned)
    }
    if (performance.now() > until) return redraw()
  }
}

/** From the chosen one, or from the upper edge; round the end to the beginning. @param {1 | -1} step */
function jumpToHit(step) {
  if (!shown.length) return
  const from = list.selected >= 0 ? list.selected + step : step > 0 ? Math.floor(list.top) : shown.length - 1
  list.select((from + shown.length) % shown.length)
}

function refilter() {
  // what is searched for is meant as it is written, and without a look at upper and lower case
  query = search.value ? new RegExp(search.value.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&'), 'iu') : undefined
  scanned = 0
  shown = []
  list.stale = true
  scan() // a key that is pressed before the next frame must find its row
  if (chosen >= 0 && !query) list.reveal(rowFrom(chosen)) // what was chosen, or its place, stays in sight
}

/** What a task calls it, if that is a word. @param {Entry} entry */
const levelText = ({ type }) => toText(type).slice(0, 20)

/** The row that shows entry n, or -1. @param {number} n */
function rowOf(n) {
  const row = rowFrom(n)
  return shown[row] === n ? row : -1
}

/** The first row at entry n or after it. @param {number} n */
function rowFrom(n) {
  let low = 0
  let high = shown.length
  while (low < high) {
    const middle = (low + high) >> 1
    if ((shown[middle] ?? 0) < n) low = middle + 1
    else high = middle
  }
  return low
}

function describeRow(/** @type {number} */ at) {
  const n = shown[at] ?? 0
  const entry = run.store.get(n)
  if (!entry) return { level: '', texts: [String(n + 1), '', '', '…'], isWhole: false }
  const level = levelText(entry)
  return { level, texts: [String(n + 1), clock(entry.time), level, marked(describe(entry).replaceAll('\n', '↵'))] }
}

/** With what was searched for marked. @param {string} text */
function marked(text) {
  const hit = query?.exec(text)
  if (!hit) return text
  const end = hit.index + hit[0].length
  return make('span', '', text.slice(0, hit.index), make('mark', '', hit[0]), text.slice(end))
}

function choose(/** @type {number} */ row) {
  chosen = shown[Math.min(row, shown.length - 1)] ?? -1 // the row may be of the filter before
}

/** Shows entry n, also when the filter would not. @param {number} n */
export function revealEntry(n) {
  wantedLine = -1
  chosen = n
  const level = run.store.levels[n] ?? 0
  if (!wanted[level] || query) {
    wanted[level] = true
    search.value = ''
    refilter()
  }
  list.reveal(rowFrom(n))
}

function drawChoice() {
  const entry = chosen < 0 ? undefined : run.store.get(chosen)
  const opened = box.hidden && entry
  set(box, 'hidden', !entry)
  if (!entry || entry === drawnEntry && !opened) return
  drawnEntry = entry
  setText(element('entry-title', HTMLElement), `Entry ${count(chosen + 1)}, ${levelText(entry)}, ${clock(entry.time)}`)
  setText(element('entry-text', HTMLElement), cut(fullText(entry), LONGEST_TEXT, MORE_IN_LOG))
  if (opened) box.scrollIntoView({ block: 'nearest' })
}

/** From the chosen entry, or from an end; round the other to the first. @param {1 | -1} step */
function jumpToWarning(step) {
  const { count, levels } = run.store
  const from = chosen >= 0 ? chosen : step > 0 ? -1 : count
  for (let i = 1; i <= count; i++) {
    const n = (((from + step * i) % count) + count) % count
    const level = LEVELS[levels[n] ?? 0]
    if (level === 'warning' || level === 'error') return revealEntry(n)
  }
}

function makeChip(/** @type {Entry['type']} */ type) {
  const level = LEVELS.indexOf(type)
  const chip = make('button', 'chip', make('span', 'level', type), make('span', 'of'))
  chip.type = 'button'
  chip.dataset.level = type
  chip.addEventListener('click', () => { wanted[level] = !wanted[level]; refilter() })
  element('levels', HTMLElement).append(chip)
  return chip
}

/** @param {string} id of a button @param {() => string | Promise<string>} text */
export function copies(id, text) {
  const button = element(id, HTMLButtonElement)
  const words = button.textContent ?? ''
  button.addEventListener('click', async () => {
    // missing where the page comes over plain HTTP from another machine
    const copied = await navigator.clipboard?.writeText(await text()).then(() => true, () => false)
    button.textContent = copied ? 'Copied' : 'Not allowed here'
    setTimeout(() => { button.textContent = words }, 1500)
  })
}

copies('entry-copy', () => element('entry-text', HTMLElement).textContent ?? '')
copies('entry-link', () => new URL(`?run=${run.id}&line=${chosen + 1}`, location.href).href)
copies('copy-log', async () => {
  const from = run
  const all = shown.length
  const lines = []
  for (const n of shown.slice(-COPIED)) {
    const entry = await from.store.fetch(n)
    if (entry) lines.push(`${clock(entry.time)} ${levelText(entry).padEnd(8)} ${describe(entry)}`)
  }
  const copied = `Copied ${count(lines.length)} of ${count(all)} entries, the last ones. “Whole log” has all.`
  if (lines.length < all) from.note = copied
  redraw()
  return lines.join('\n')
})
element('entry-close', HTMLButtonElement).addEventListener('click', closeEntry)
element('next-warning', HTMLButtonElement).addEventListener('click', () => jumpToWarning(1))
toEnd.addEventListener('click', () => {
  list.following = true
  list.box.focus()
})
search.addEventListener('input', refilter)
search.addEventListener('keydown', ({ key, shiftKey }) => {
  if (key === 'Enter') jumpToHit(shiftKey ? -1 : 1)
  if (key === 'Escape') {
    search.value = ''
    refilter()
  }
  if (key === 'Escape' || key === 'ArrowDown') list.box.focus()
})
element('next-hit', HTMLButtonElement).addEventListener('click', () => jumpToHit(1))
element('previous-hit', HTMLButtonElement).addEventListener('click', () => jumpToHit(-1))
// The browser's own search would find only the rows in sight. Pressed a second time, it is the browser's all the same.
addEventListener('keydown', press => {
  if (!run.id || press.key !== 'f' || !(press.ctrlKey || press.metaKey) || press.shiftKey || press.altKey) return
  if (document.activeElement === search) return
  press.preventDefault()
  search.focus()
  search.select()
})
times.addEventListener('click', () => { times.ariaPressed = String(times.ariaPressed !== 'true') })

function closeEntry() {
  if (box.contains(document.activeElement)) list.box.focus() // what is hidden loses the focus
  chosen = -1
}
