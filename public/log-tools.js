// What stands around the rows of the log: which kinds are shown, how many there are, how they look, copying; and the
// chosen entry in full, beside the log or, where there is no room, over the half of it in which it does not stand.

import { CALM, element, elements, picture, pieces, set, setLink, setText, SLOW } from './draw.js'
import { inView as run } from './followed-runs.js'
import {
  choose, chosen, filterLevels, goal, headOf, jumpToProblem, levels, list, numberOf, rows, usual,
} from './log-view.js'
import { compact, count, counted, cut, describe, FOREIGN, fullText, LEVELS, MORE_IN_LOG } from './words.js'
/** @import { Entry } from './words.js' */

const LONGEST = 100_000 // characters of the chosen entry that are shown
/** by level, what can be left out: a beginning, a step and an end are always shown @type {(HTMLElement | null)[]} */
const chips = LEVELS.map(type => document.querySelector(`.chip[data-level=${type}]`))
const problems = LEVELS.map((type, level) => !chips[level] || type === 'warning' || type === 'error')
const [total, note, empty] = elements(HTMLElement, 'log-count', 'log-note', 'log-empty')
const [entryBox, entryTitle, entryText] = elements(HTMLElement, 'entry', 'entry-title', 'entry-text')
const [toEnd, nextProblem, onlyProblems] = elements(HTMLButtonElement, 'to-end', 'next-warning', 'only-problems')
const full = element('full', HTMLButtonElement)
const download = element('download', HTMLAnchorElement)
/** the chosen entry that is shown: it is not asked for again, as it may be let go meanwhile */
let drawn = { of: run, n: -1 }

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

function toggles(/** @type {string} */ id, /** @type {(isOn: boolean) => void} */ change) {
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

export function copies(/** @type {string} */ id, /** @type {() => string | Promise<string>} */ text) {
  const button = element(id, HTMLButtonElement)
  const words = button.textContent ?? ''
  button.addEventListener('click', async () => {
    const { clipboard } = navigator // missing where the page comes over plain HTTP from another machine
    // Trap: what is written some seconds after the click is refused. What was promised then is not.
    const told = Promise.resolve(text()).then(text => new Blob([text], { type: 'text/plain' }))
    const writing = clipboard?.write([new ClipboardItem({ 'text/plain': told })])
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
      const entry = /** @type {Entry} */ (entries[n - first])
      const [level = '', time] = headOf(entry)
      lines += `${time} ${level.padEnd(8)} ${describe(entry, Infinity)}\n`
    }
  }
  return lines.trimEnd()
})

chips.forEach((chip, level) => {
  chip?.addEventListener('click', () => filterLevels(levels().with(level, !levels()[level])))
})
onlyProblems.addEventListener('click', () => filterLevels(onlyProblems.ariaPressed === 'true' ? usual : problems))
nextProblem.addEventListener('click', () => jumpToProblem(1))
toEnd.addEventListener('click', () => {
  list.following = true
  list.box.focus()
})
copies('entry-copy', () => entryText.textContent ?? '')
copies('entry-link', () => new URL(`?run=${run.id}&line=${numberOf(chosen)}`, location.href).href)
element('entry-close', HTMLButtonElement).addEventListener('click', () => choose(-1))
