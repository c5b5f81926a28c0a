// What stands around the rows of the log: which kinds are shown, how many there are, how they look, and copying.

import { calmPicture, element, elements, make, set, setLink, setText } from './draw.js'
import { describe, LEVELS } from './entries.js'
import { inView as run } from './followed-runs.js'
import { chosen, filterLevels, headOf, jumpToProblem, levels, list, rows, usual } from './log-view.js'
import { compact, count, counted } from './words.js'

/** @import { Entry } from './entries.js' */
/** @import { Filter } from './log-filter.js' */
/** @import { Chunk, LogStore } from './log-store.js' */

/** What can be left out; a beginning, a step and an end are always shown. @type {Entry['type'][]} */
const OPTIONAL = ['error', 'warning', 'log', 'msg', 'progress']

const problems = LEVELS.map(type => !OPTIONAL.slice(2).includes(type))
const [total, note, empty, printed] = elements(HTMLElement, 'log-count', 'log-note', 'log-empty', 'log-printed')
const [toEnd, nextProblem, onlyProblems] = elements(HTMLButtonElement, 'to-end', 'next-warning', 'only-problems')
const full = element('full', HTMLButtonElement)
const download = element('download', HTMLAnchorElement)
const chips = new Map(OPTIONAL.map(type => [LEVELS.indexOf(type), makeChip(type)]))

calmPicture(() => {
  const { store: { count: all, counts }, read, ended, start } = run
  const { passed, seen, isDone } = rows()
  chips.forEach((chip, level) => {
    setText(/** @type {Element} */ (chip.lastElementChild), compact(counts[level] ?? 0))
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
  setText(printed, `Only the rows in sight are printed, of ${entries}. All of them: ${download.href}`)
  set(empty, 'hidden', passed.length > 0)
  setText(empty, all === 0 ? 'Nothing yet.' : isDone ? 'No entry matches.' : 'Searching …')
  const below = Math.round(passed.length - list.top - list.inSight)
  set(toEnd, 'hidden', list.following || below < 1)
  setText(toEnd, `↓ To the end (${count(Math.max(0, below))} below)`)
})

function makeChip(/** @type {Entry['type']} */ type) {
  const level = LEVELS.indexOf(type)
  const chip = make('button', 'chip', make('span', 'level', type), make('span', 'of'))
  Object.assign(chip, { type: 'button', title: 'Shows these, or leaves them out; with Alt, leaves out all others' })
  chip.dataset.level = type
  chip.addEventListener('click', ({ altKey }) => filterLevels(levels().map((isShown, at) => {
    return altKey && chips.has(at) ? at === level : isShown !== (at === level)
  })))
  element('levels', HTMLElement).append(chip)
  return chip
}

/** @param {string} id of a button @param {(isOn: boolean) => void} change */
function toggles(id, change) {
  const button = element(id, HTMLButtonElement)
  button.addEventListener('click', () => {
    button.ariaPressed = String(button.ariaPressed !== 'true')
    change(button.ariaPressed === 'true')
  })
}

toggles('times', isOn => list.box.toggleAttribute('data-times', isOn))
toggles('wrap', isOn => {
  if (list.isSeen && !list.following) list.reveal(list.selected)
  list.box.toggleAttribute('data-wraps', isOn)
  Object.assign(list, { wraps: isOn, stale: true })
})
let scrolled = 0
toggles('full', isOn => {
  if (isOn) scrolled = scrollY
  document.documentElement.toggleAttribute('data-full', isOn)
  if (!isOn) scrollTo(0, scrolled)
})
const leaveFull = () => { if (full.ariaPressed === 'true') full.click() }
addEventListener('popstate', leaveFull)
addEventListener('keydown', ({ key, target }) => {
  if (key === 'Escape' && chosen < 0 && !(target instanceof HTMLInputElement)) leaveFull()
}, true) // before the list closes the chosen entry by the same key

/** @param {string} id of a button @param {() => string | Promise<string>} text what it copies */
export function copies(id, text) {
  const button = element(id, HTMLButtonElement)
  const words = button.textContent ?? ''
  button.addEventListener('click', async () => {
    const { clipboard } = navigator // missing where the page comes over plain HTTP from another machine
    const told = text()
    // Trap: what is written some seconds after the click is refused. What was promised then is not.
    const writing = typeof told === 'string' ? clipboard?.writeText(told) : clipboard?.write([new ClipboardItem({
      'text/plain': told.then(text => new Blob([text], { type: 'text/plain' })),
    })])
    button.textContent = await writing?.then(() => true, () => false) ? 'Copied' : 'Not allowed here'
    setTimeout(() => { button.textContent = words }, 1500)
  })
}

copies('copy-log', () => {
  const { chunks } = run.store
  const isHeld = chunks.every(({ entries }) => entries)
  if (!isHeld) return readLines(run.store, rows())
  return chunks.flatMap(chunk => linesOf(rows(), chunk, chunk.entries)).join('\n') // at once
})

/** @param {LogStore} store @param {Filter} filter */
async function readLines(store, filter) {
  /** @type {string[]} */
  const lines = []
  for (const chunk of store.chunks) lines.push(...linesOf(filter, chunk, await store.entriesOf(chunk)))
  return lines.join('\n')
}

/** Of those that pass. @param {Filter} filter @param {Chunk} chunk @param {Entry[]} [entries] */
function linesOf(filter, { first, count }, entries = []) {
  return filter.passed.slice(filter.placeOf(first), filter.placeOf(first + count)).map(n => {
    const entry = /** @type {Entry} */ (entries[n - first])
    const [level = '', time] = headOf(entry)
    return `${time} ${level.padEnd(8)} ${describe(entry, Infinity)}`
  })
}

onlyProblems.addEventListener('click', () => filterLevels(onlyProblems.ariaPressed === 'true' ? usual : problems))
nextProblem.addEventListener('click', () => jumpToProblem(1))
toEnd.addEventListener('click', () => {
  list.following = true
  list.box.focus()
})
