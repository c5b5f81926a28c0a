// The list of runs at the side: what the server says of all runs, and what this page knows better, because it follows
// them or has not started them yet.

import { calmPicture, element, make, set, setText } from './draw.js'
import { OUTCOMES } from './entries.js'
import { inView, listed, runs } from './followed-runs.js'
import { day, duration, elapsed } from './words.js'

/** @import { Run } from './run-state.js' */
/** @typedef {{ id: string, title: string, state: string, about: string, part: number | undefined }} Item */

const items = element('runs', HTMLOListElement)
const more = element('more-runs', HTMLButtonElement)

let most = 50
/** @type {Map<string, HTMLLIElement>} */
const nodes = new Map()

calmPicture(() => {
  const early = [...runs.values()].filter(run => !run.listed && (run.start || run.call)).reverse()
  const wanted = [...early.map(fromRun), ...(listed ?? []).map(fromListed)]
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

/** @param {Run} run @returns {Item} */
function fromRun({ id, title, state, words, seconds, part, ended }) {
  const time = seconds === undefined ? '' : ` · ${ended ? duration(seconds) : elapsed(seconds)}`
  const far = part === undefined || ended ? '' : ` · ${Math.floor(part * 100)} %`
  return { id, title, state, about: words + far + time, part: ended ? undefined : part }
}

/** @param {import('./requests.js').Listed} run @returns {Item} */
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
  const [name, about, bar] = /** @type {[HTMLElement, HTMLElement, HTMLElement]} */ ([...link.children].slice(1))
  set(node.dataset, 'state', item.state)
  setText(name, item.title)
  setText(about, item.about)
  set(bar.style, 'scale', item.part === undefined ? '' : `${item.part.toFixed(3)} 1`)
  set(link, 'ariaCurrent', item.id === inView.id ? 'page' : null)
}

more.addEventListener('click', () => { most += 200 })
