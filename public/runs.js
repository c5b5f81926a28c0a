// The runs that this page knows: those that it follows, with all that their logs said, and the list
// at the side, which is what the server says of all runs, with those of this browser told apart.

import { ask } from './api.js'
import { follow, unfollow } from './connection.js'
import { calmPicture, element, make, put, redraw, set } from './draw.js'
import { Run } from './run.js'
import { day, duration, elapsed, importedName, outcomes } from './words.js'

/** @typedef {import('./api.js').Listed} Listed */
/** @typedef {{ id: string, title: string, started: number }} Remembered */

const STORE = 'longrun.runs'
const MOST_REMEMBERED = 200
const LOOK = 4000 // milliseconds between two looks at the server's list, while something in it can change unseen
const OUT_OF_VIEW = 1024 * 1024 // bytes of log kept of a run that nobody looks at

const items = element('runs', HTMLOListElement)
const mine = element('mine', HTMLButtonElement)
const everyone = element('all', HTMLButtonElement)
const more = element('more-runs', HTMLButtonElement)

/** @type {Map<string, Run>} */
export const runs = new Map()
/** @type {Run | undefined} */
export let inView
/** @type {Listed[]} */
let listed = []
/** whether the server has told its list, so that an unknown run is known to be unknown */
export let listKnown = false
let remembered = recall()
let most = 50
/** runs after whose end the list was asked for @type {WeakSet<Run>} */
const seenDone = new WeakSet()

/** @param {string} id @param {import('./run.js').Call} [call] */
export function openRun(id, call) {
  const known = runs.get(id)
  if (known) return known
  const run = new Run(id, call)
  runs.set(id, run)
  follow(run) // before the call: connect first, then start
  return run
}

/** @param {Run | undefined} run */
export function setInView(run) {
  const left = inView
  inView = run
  if (left && left !== run) {
    left.chunks.keepTo(OUT_OF_VIEW)
    const { done, state, problem } = left
    if (done || state === 'unknown' || (state === 'refused' && !problem?.retry)) forget(left)
  }
}

/** A finished run is in its log: whoever opens it again reads it from there. @param {Run} run */
function forget(run) {
  runs.delete(run.id)
  unfollow(run)
}

/** Goes to another view, as a link would. @param {string} href */
export function go(href) {
  history.pushState(null, '', href)
  dispatchEvent(new PopStateEvent('popstate'))
}

export async function look() {
  for (const run of runs.values()) if (run.done) seenDone.add(run)
  const answer = await ask('GET', 'tasks')
  if (!answer.ok || !Array.isArray(answer.data)) return
  listed = answer.data
  listKnown = true
  for (const run of runs.values()) if (seenDone.has(run) && run !== inView) forget(run)
  redraw()
}

/** @param {string} id */
export const listedRun = id => listed.find(run => run.id === id)

/** @param {string} callId */
export const runningCall = callId => listed.find(run => run.callId === callId && !run.outcome)

/** @param {Run} run */
export function remember(run) {
  remembered = [{ id: run.id, title: run.title, started: Date.now() }, ...remembered.filter(({ id }) => id !== run.id)].slice(0, MOST_REMEMBERED)
  try {
    localStorage.setItem(STORE, JSON.stringify(remembered))
  } catch {
    // a private window: the list lasts as long as the page
  }
}

/** @returns {Remembered[]} */
function recall() {
  try {
    return JSON.parse(localStorage.getItem(STORE) ?? '[]')
  } catch {
    return []
  }
}

/** @typedef {{ id: string, title: string, state: string, about: string, part: number | undefined }} Item */

/** @returns {Item[]} */
function wantedItems() {
  const own = new Map(remembered.map(known => [known.id, known]))
  const known = new Set(listed.map(({ id }) => id))
  const early = [...runs.values()].filter(run => !known.has(run.id) && (run.start || own.has(run.id))).reverse().map(fromRun)
  const rest = listed
    .filter(({ id }) => everyone.ariaPressed === 'true' || own.has(id) || runs.has(id))
    .map(run => fromListed(run, own.get(run.id)?.title))
  return [...early, ...rest]
}

/** @param {Run} run @returns {Item} */
function fromRun(run) {
  const time = run.seconds === undefined ? '' : ` · ${run.done ? duration(run.seconds) : elapsed(run.seconds)}`
  const part = run.part === undefined || run.done ? '' : ` · ${Math.floor(run.part * 100)} %`
  return { id: run.id, title: run.title, state: run.state, about: run.words + part + time, part: run.done ? undefined : run.part }
}

/** @param {Listed} run @param {string} [title] @returns {Item} */
function fromListed(run, title) {
  const live = runs.get(run.id)
  if (live?.start) return fromRun(live)
  const state = run.outcome ?? 'running'
  const words = run.outcome ? outcomes[run.outcome] ?? run.outcome : 'Running'
  const time = run.seconds === undefined ? '' : ` · ${duration(run.seconds)}`
  return { id: run.id, title: title ?? importedName(run.callId) ?? run.method, state, about: `${words}${time} · ${day(run.started)}`, part: undefined }
}

/** @type {Map<string, HTMLLIElement>} */
const nodes = new Map()

calmPicture(() => {
  if ([...runs.values()].some(run => run.done && !seenDone.has(run))) look()
  const wanted = wantedItems()
  const drawn = wanted.slice(0, most)
  const ids = new Set(drawn.map(({ id }) => id))
  for (const [id, node] of nodes) {
    if (ids.has(id)) continue
    node.remove()
    nodes.delete(id)
  }
  drawn.forEach((item, at) => {
    const node = nodes.get(item.id) ?? makeItem(item.id)
    if (items.children[at] !== node) items.insertBefore(node, items.children[at] ?? null)
    drawItem(node, item)
  })
  set(more, 'hidden', wanted.length <= most)
  const none = element('no-runs', HTMLElement)
  set(none, 'hidden', wanted.length > 0)
  put(none, listed.length ? 'Nothing was started in this browser. Others did: see All.' : 'Nothing here yet. What you start is listed here, also after a reload.')
})

/** @param {string} id */
function makeItem(id) {
  const node = make('li')
  const link = make('a')
  link.href = `?run=${encodeURIComponent(id)}`
  link.dataset.go = ''
  const bar = make('span', 'mini')
  bar.append(make('span'))
  link.append(make('span', 'mark'), make('span', 'name'), make('span', 'about'), bar)
  node.append(link)
  nodes.set(id, node)
  return node
}

/** @param {HTMLLIElement} node @param {Item} item */
function drawItem(node, item) {
  const link = /** @type {HTMLAnchorElement} */ (node.firstElementChild)
  const [, name, about, bar] = /** @type {HTMLElement[]} */ (/** @type {unknown} */ (link.children))
  set(node.dataset, 'state', item.state)
  if (name) put(name, item.title)
  if (about) put(about, item.about)
  if (bar) set(bar, 'hidden', !['running', 'cancelling', 'uploading', 'asking'].includes(item.state))
  bar?.toggleAttribute('data-unknown', item.part === undefined)
  const inner = bar?.firstElementChild
  if (inner instanceof HTMLElement) set(inner.style, 'transform', `scaleX(${(item.part ?? 0.3).toFixed(3)})`)
  set(link, 'ariaCurrent', item.id === inView?.id ? 'page' : null)
}

for (const button of [mine, everyone]) {
  button.addEventListener('click', () => {
    mine.ariaPressed = String(button === mine)
    everyone.ariaPressed = String(button === everyone)
    look()
    redraw()
  })
}
more.addEventListener('click', () => { most += 200; redraw() })
// What this page follows, it knows; only of other runs does it have to ask.
setInterval(() => {
  const unseen = everyone.ariaPressed === 'true' || wantedItems().some(({ id, state }) => state === 'running' && !runs.has(id))
  if (!document.hidden && (unseen || !listKnown)) look()
}, LOOK)
addEventListener('storage', ({ key }) => { // another tab of this browser has started something
  if (key !== STORE) return
  remembered = recall()
  look()
})
document.addEventListener('visibilitychange', () => { if (!document.hidden) look() })
addEventListener('beforeunload', leaving => { // what has not been started lives in this page alone
  if ([...runs.values()].some(({ state }) => state === 'uploading' || state === 'queued')) leaving.preventDefault()
})
