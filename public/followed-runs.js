// The runs that this page follows, with all that their logs said, and the one of them that is in view.

import { connection, onRejoin } from './connection.js'
import { drawn, redraw } from './draw.js'
import { Run } from './run-state.js'

const MOST_UNDRAWN = 512 * 1024 // bytes of logs
const OUT_OF_VIEW = 1024 * 1024 // bytes of log kept of a run that nobody looks at

/** @type {Map<string, Run>} */
export const runs = new Map()
/** @type {Run | undefined} */
export let inView
let undrawn = 0
/** @type {WeakMap<Run, () => void>} */
const stops = new WeakMap()

/** @param {string} id @param {import('./run-state.js').Call} [call] */
export function openRun(id, call) {
  const known = runs.get(id)
  if (known) return known
  const run = new Run(id, call)
  runs.set(id, run)
  stops.set(run, connection.follow(id, (entries, next) => receive(run, entries, next), { refuse }))
  return run

  function refuse(/** @type {string} */ message) {
    run.refuse(message)
    redraw()
  }
}

/** What is not drawn yet is acknowledged only up to a bound: a page that cannot keep up is not drowned.
 * @param {Run} run @param {import('./entries.js').Entry[]} entries @param {number} next */
function receive(run, entries, next) {
  undrawn += next - run.store.end
  run.receive(entries, next)
  const done = drawn().then(() => { undrawn = 0 })
  return undrawn > MOST_UNDRAWN ? done : undefined
}

export function setInView(/** @type {Run | undefined} */ run) {
  const left = inView
  inView = run
  if (!left || left === run) return
  left.store.keepTo(OUT_OF_VIEW)
  const { done, state, problem } = left
  if (done || state === 'unknown' || (state === 'refused' && !problem?.retry)) forgetRun(left)
}

/** A finished run is in its log: whoever opens it again reads it from there. @param {Run} run */
export function forgetRun(run) {
  runs.delete(run.id)
  stops.get(run)?.()
}

/** Goes to another view, as a link would. @param {string} href */
export function goTo(href) {
  history.pushState(null, '', href)
  dispatchEvent(new PopStateEvent('popstate'))
}

onRejoin(note => {
  for (const run of runs.values()) run.rejoin(note)
})
addEventListener('beforeunload', leaving => { // what has not been started lives in this page alone
  if ([...runs.values()].some(({ state }) => state === 'uploading' || state === 'queued')) leaving.preventDefault()
})
