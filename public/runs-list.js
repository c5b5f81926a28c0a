// The list of runs at the side: what the server says of all runs, and what this page knows better, because it follows
// them or has not started them yet.

import { calmPicture, element, make, partsOf, redraw, set, setText } from './draw.js'
import { OUTCOMES } from './entries.js'
import { forgetRun, inView, runs } from './followed-runs.js'
import { request } from './requests.js'
import { day, duration, elapsed } from './words.js'

/** @import { Listed } from './requests.js' */
/** @import { Run } from './run-state.js' */
/** @typedef {{ id: string, title: string, state: string, about: string, part: number | undefined }} Item */

const LIST_PAUSE = 4000 // milliseconds between two questions for the list

const items = element('runs', HTMLOListElement)
const more = element('more-runs', HTMLButtonElement)

/** until the server has told its list, no run is known to be unknown @type {Listed[] | undefined} */
let listed
let most = 50
/** runs after whose end the list was asked for @type {WeakSet<Run>} */
const seenDone = new WeakSet()
/** @type {Map<string, HTMLLIElement>} */
const nodes = new Map()

export async function fetchList() {
  for (const run of runs.values()) if (run.done) seenDone.add(run)
  const answer = await request('GET', 'tasks')
  if (!answer.ok || !Array.isArray(answer.data)) return
  listed = answer.data
  for (const run of runs.values()) if (seenDone.has(run) && run !== inView) forgetRun(run)
  redraw()
}

export const listedRun = (/** @type {string} */ id) => listed?.find(run => run.id === id)

export const runningCall = (/** @type {string} */ callId) => listed?.find(run => run.callId === callId && !run.outcome)

calmPicture(() => {
  if ([...runs.values()].some(run => run.done && !seenDone.has(run))) fetchList()
  if (listed) for (const run of runs.values()) run.listed = listedRun(run.id) ?? null
  if (inView && inView.listed === null && !inView.start && !inView.call && !inView.problem) sayUnknown(inView)
  const wanted = wantedItems()
  const shown = wanted.slice(0, most)
  for (const [id, node] of nodes) {
    if (shown.some(item => item.id === id)) continue
    node.remove()
    nodes.delete(id)
  }
  shown.forEach((item, at) => {
    const node = nodes.get(item.id) ?? makeItem(item.id)
    if (items.children[at] !== node) items.insertBefore(node, items.children[at] ?? null)
    drawItem(node, item)
  })
  set(more, 'hidden', wanted.length <= most)
  set(element('no-runs', HTMLElement), 'hidden', wanted.length > 0 || !listed)
})

function sayUnknown(/** @type {Run} */ run) {
  run.phase = 'unknown'
  run.problem = {
    kind: 'quiet',
    text: 'No run with this id is known here. It may have been removed, or not have begun: if it begins, it is shown.',
  }
}

/** @returns {Item[]} */
function wantedItems() {
  const early = [...runs.values()].filter(run => !run.listed && (run.start || run.call)).reverse()
  return [...early.map(fromRun), ...(listed ?? []).map(fromListed)]
}

/** @param {Run} run @returns {Item} */
function fromRun({ id, title, state, words, seconds, part, done }) {
  const time = seconds === undefined ? '' : ` · ${done ? duration(seconds) : elapsed(seconds)}`
  const far = part === undefined || done ? '' : ` · ${Math.floor(part * 100)} %`
  return { id, title, state, about: words + far + time, part: done ? undefined : part }
}

/** @param {Listed} run @returns {Item} */
function fromListed({ id, title, method, outcome, seconds, started }) {
  const live = runs.get(id)
  if (live?.start) return fromRun(live)
  const words = outcome ? OUTCOMES[outcome] ?? outcome : 'Running'
  const time = seconds === undefined ? '' : ` · ${duration(seconds)}`
  const about = `${words}${time} · ${day(started)}`
  return { id, title: title ?? method, state: outcome ?? 'running', about, part: undefined }
}

function makeItem(/** @type {string} */ id) {
  const bar = make('span', 'mini', make('span'))
  const link = make('a', '', make('span', 'mark'), make('span', 'name'), make('span', 'about'), bar)
  link.href = `?run=${encodeURIComponent(id)}`
  link.dataset.go = ''
  const node = make('li', '', link)
  nodes.set(id, node)
  return node
}

/** @param {HTMLLIElement} node @param {Item} item */
function drawItem(node, item) {
  const link = /** @type {HTMLAnchorElement} */ (node.firstElementChild)
  const [, name, about, bar] = partsOf(link)
  set(node.dataset, 'state', item.state)
  setText(name, item.title)
  setText(about, item.about)
  set(bar.style, 'scale', item.part === undefined ? '' : `${item.part.toFixed(3)} 1`)
  set(link, 'ariaCurrent', item.id === inView?.id ? 'page' : null)
}

more.addEventListener('click', () => { most += 200 })
setInterval(() => { if (!document.hidden) fetchList() }, LIST_PAUSE) // others start runs, too
document.addEventListener('visibilitychange', () => { if (!document.hidden) fetchList() })
