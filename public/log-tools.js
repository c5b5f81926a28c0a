// What stands around the rows of the log: which kinds are shown, how many there are, how they look, and copying.

import { calmPicture, element, elements, set, setLink, setText } from './draw.js'
import { describe, LEVELS } from './entries.js'
import { inView as run } from './followed-runs.js'
import { chosen, filterLevels, headOf, jumpToProblem, levels, list, rows, usual } from './log-view.js'
import { compact, count, counted } from './words.js'
/** @import { Entry } from './entries.js' */

/** by level, what can be left out: a beginning, a step and an end are always shown @type {(HTMLElement | null)[]} */
const chips = LEVELS.map(type => document.querySelector(`.chip[data-level=${type}]`))
const problems = LEVELS.map((type, level) => !chips[level] || type === 'warning' || type === 'error')
const [total, note, empty] = elements(HTMLElement, 'log-count', 'log-note', 'log-empty')
const [toEnd, nextProblem, onlyProblems] = elements(HTMLButtonElement, 'to-end', 'next-warning', 'only-problems')
const full = element('full', HTMLButtonElement)
const download = element('download', HTMLAnchorElement)

calmPicture(() => {
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
  set(empty, 'hidden', passed.length > 0)
  setText(empty, all === 0 ? 'Nothing yet.' : isDone ? 'No entry matches.' : 'Searching …')
  const below = Math.round(passed.length - list.top - list.inSight)
  set(toEnd, 'hidden', list.following || below < 1)
  setText(toEnd, `↓ To the end (${count(Math.max(0, below))} below)`)
})

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
