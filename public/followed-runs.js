// The runs that this page follows, with all that their logs said, and the one of them that is in view.

import { calmPicture, drawn, redraw } from './draw.js'
import { Connection } from './follow.js'
import { Run } from './run-state.js'
import { duration } from './words.js'

/** @import { Entry } from './entries.js' */
/** @import { Call } from './run-state.js' */

const MOST_UNDRAWN = 512 * 1024 // bytes of logs
const OUT_OF_VIEW = 1024 * 1024 // bytes of log kept of a run that nobody looks at
const DRAW_PAUSE = 500 // milliseconds between two drawings of a curve: in a flood there is more to do

/** @type {Map<string, Run>} */
export const runs = new Map()
/** @type {Run | undefined} */
export let inView
let undrawn = 0

export const connection = new Connection('./', {
  tell({ live, lost, workers }) {
    const note = lost ? `The connection was lost for ${duration((Date.now() - lost) / 1000)} and is back.` : ''
    if (live && workers) for (const run of runs.values()) run.rejoin(note)
    redraw()
  },
})

/** @param {string} id @param {Call} [call] */
export function openRun(id, call) {
  const known = runs.get(id)
  if (known) return known
  const run = new Run(id, call)
  runs.set(id, run)
  run.unfollow = connection.follow(id, (entries, next) => receive(run, entries, next), {
    refuse(message) {
      run.refuse(message)
      redraw()
    },
  })
  return run
}

/** What is not drawn yet is acknowledged only up to a bound: a page that cannot keep up is not drowned.
 * @param {Run} run @param {Entry[]} entries @param {number} next */
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
  run.unfollow()
}

/** What costs more than a figure: drawn twice a second while the run in view goes on.
 * @param {(run: Run) => void} draw */
export function slowPicture(draw) {
  /** @type {Run | undefined} */
  let drawn
  let drawnAt = 0
  calmPicture(() => {
    if (!inView || (inView === drawn && !inView.done && performance.now() - drawnAt < DRAW_PAUSE)) return
    drawn = inView
    drawnAt = performance.now()
    draw(inView)
  })
}

/** Goes to another view, as a link would. @param {string} href */
export function goTo(href) {
  history.pushState(null, '', href)
  dispatchEvent(new PopStateEvent('popstate'))
}

addEventListener('beforeunload', leaving => { // what has not been started lives in this page alone
  if ([...runs.values()].some(({ state }) => state === 'uploading' || state === 'queued')) leaving.preventDefault()
})
