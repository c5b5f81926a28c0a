// The list of runs at the side: what the server says of all runs, and what this page knows better, because it follows
// them or has not started them yet.

import { CALM, element, make, picture, set, setText } from './draw.js'
import { inView, listed, runs } from './followed-runs.js'
import { nameOf } from './functions.js'
import { keep, recall } from './kept.js'
import { partOf, Run, wordsOf } from './run-state.js'
import { compact, dayOf, duration, elapsed, minutes, toText } from './words.js'
/** @import { Listed } from './requests.js' */
/** @typedef {ReturnType<typeof toItem>} Item */

const items = element('runs', HTMLOListElement)
const more = element('more-runs', HTMLButtonElement)
const filter = element('filter', HTMLInputElement)

let most = 50
const nodes = /** @type {Map<string, HTMLLIElement>} */ (new Map()) // headings by their days, runs by their ids
let scrolledTo = ''

picture(() => {
  const early = [...runs.values()].filter(run => !run.listed && (run.start || run.call)).reverse()
  const all = [...early, ...(listed ?? [])]
  const words = filter.value.toLowerCase()
  const wanted = (words ? all : all.slice(0, most + 1)).map(toItem) // a thousand would take longer than the rest
    .filter(item => `${item.title} ${aboutOf(item)}`.toLowerCase().includes(words))
  const shown = new Map(wanted.slice(0, most).map(item => [item.id, item]))
  const keys = new Set([...shown].flatMap(([id, { time }]) => [` ${dayOf(time)}`, id])) // no id begins with a blank
  for (const [key, node] of nodes) if (!keys.has(key) && nodes.delete(key)) node.remove()
  Array.from(keys).forEach((key, at) => {
    const item = shown.get(key)
    const node = nodes.get(key) ?? (item ? makeItem(key) : make('li', 'day', key.trim()))
    nodes.set(key, node)
    if (items.children[at] !== node) items.insertBefore(node, items.children[at] ?? null)
    if (item) drawItem(node, item)
  })
  set(more, 'hidden', wanted.length <= most)
  const none = words ? 'No run fits.' : 'Nothing here yet. What is started on this server is listed here.'
  setText(element('no-runs', HTMLElement), wanted.length > 0 || !listed ? '' : none)
  if (scrolledTo === inView.id || !nodes.has(inView.id)) return
  scrolledTo = inView.id
  nodes.get(inView.id)?.scrollIntoView({ block: 'nearest', inline: 'nearest' })
}, CALM, false)

function toItem(/** @type {Run | Listed} */ told) {
  const run = told instanceof Run ? told : runs.get(told.id)
  if (run && (run.start || run === told)) {
    const { id, title, state, seconds, part, ended, start } = run
    const [errors, warnings] = [run.count('error'), run.count('warning')]
    return { id, title, time: start?.time ?? Date.now(), state, isOver: !!ended, errors, warnings, seconds, part }
  }
  const listed = /** @type {Listed} */ (told)
  const { id, title, method, started, outcome, seconds, errors = 0, warnings = 0, progress } = listed
  const known = { id, title: nameOf(method, title ?? method), time: started, errors, warnings, seconds }
  return { ...known, state: outcome ?? 'running', isOver: outcome !== undefined, part: partOf(progress) }
}

function aboutOf(/** @type {Item} */ { state, isOver, errors, warnings, seconds, part, time }) {
  const told = [wordsOf(state, errors)]
  if (part !== undefined && !isOver) told.push(`${Math.floor(part * 100)} %`)
  if (seconds !== undefined) told.push((isOver ? duration : elapsed)(seconds))
  if (errors && state !== 'ok') told.push(`✕ ${compact(errors)}`)
  if (warnings) told.push(`▲ ${compact(warnings)}`)
  if (isOver) told.push(minutes(time).replace(/.*, /, '')) // its day is the heading
  return told.join(' · ')
}

function makeItem(/** @type {string} */ id) {
  const bar = make('span', 'mini', make('span'))
  const link = make('a', '', make('span', 'mark'), make('span', 'name'), make('span', 'about'), bar)
  link.href = `?run=${encodeURIComponent(id)}`
  link.dataset.go = ''
  return make('li', '', link)
}

function drawItem(/** @type {HTMLLIElement} */ node, /** @type {Item} */ item) {
  const { id, title, state, isOver, errors, part } = item
  const link = /** @type {HTMLAnchorElement} */ (node.firstElementChild)
  const [name, about, bar] = /** @type {[HTMLElement, HTMLElement, HTMLElement]} */ ([...link.children].slice(1))
  set(node.dataset, 'state', state)
  node.toggleAttribute('data-flawed', state === 'ok' && errors > 0)
  setText(name, title)
  setText(about, aboutOf(item))
  set(bar.style, 'scale', part === undefined || isOver ? '' : `${part.toFixed(3)} 1`)
  set(link, 'ariaCurrent', id === inView.id ? 'page' : null)
}

more.addEventListener('click', () => { most += 200 })
filter.value = toText(recall('filter') ?? '')
filter.addEventListener('input', () => keep('filter', filter.value))
