// The runs that this page follows, with all that their logs said, the one of them that is in view, and what the server
// says of all runs.

import { drawAnew, drawn, redraw } from './draw.js'
import { Connection } from './follow.js'
import { request } from './requests.js'
import { Run } from './run-state.js'
import { duration } from './words.js'

const MOST_UNDRAWN = 512 * 1024 // bytes of logs
const OUT_OF_VIEW = 1024 * 1024 // bytes of log kept of a run that nobody looks at
const LIST_PAUSE = 4000 // milliseconds between two questions for the list

/** @type {Map<string, Run>} */
export const runs = new Map()
/** on the start view it is one without an id, of which nothing is known */
export let inView = new Run('')
const nothing = inView
/** the server's list of all runs; until it has told that, no run can be called unknown
 * @type {import('./requests.js').Listed[] | undefined} */
export let listed
let undrawn = 0

export const connection = new Connection('./', {
  tell({ live, lost, workers }) {
    const note = lost ? `The connection was lost for ${duration((Date.now() - lost) / 1000)} and is back.` : ''
    if (live && workers) for (const run of runs.values()) run.rejoin(note)
    redraw()
  },
})

/** @param {string} id @param {import('./run-state.js').Call} [call] */
export function openRun(id, call) {
  const known = runs.get(id)
  if (known) return known
  const run = new Run(id, call)
  runs.set(id, run)
  if (listed) run.compare(listedRun(id))
  followRun(run)
  return run
}

/** Also a run that the server would not carry before: it may have asked for its token. @param {Run} run */
export function followRun(run) {
  run.unfollow ??= connection.follow(run.id, (entries, next) => receive(run, entries, next), {
    next: run.store.end,
    refuse(message) {
      run.refuse(message)
      redraw()
    },
  })
}

/** What is not drawn yet is acknowledged only up to a bound: a page that cannot keep up is not drowned.
 * @param {Run} run @param {import('./entries.js').Entry[]} entries @param {number} next */
function receive(run, entries, next) {
  undrawn += next - run.store.end
  run.receive(entries, next)
  if (run.done) drawAnew()
  const done = drawn().then(() => { undrawn = 0 })
  return undrawn > MOST_UNDRAWN ? done : undefined
}

export function setInView(run = nothing) {
  if (run !== inView) inView.store.keepTo(OUT_OF_VIEW)
  inView = run
}

export const listedRun = (/** @type {string} */ id) => listed?.find(run => run.id === id)

export const runningCall = (/** @type {string} */ callId) => listed?.find(run => run.callId === callId && !run.outcome)

export async function fetchList() {
  const over = new Set([...runs.values()].filter(({ done }) => done)) // the answer tells how they ended
  const answer = await request('GET', 'tasks')
  // the token has changed: what the server gives instead of the page asks for it
  if (answer.status === 401 && !isUnstarted()) location.reload()
  if (!answer.ok || !Array.isArray(answer.data)) return
  listed = answer.data
  for (const run of runs.values()) {
    run.compare(listedRun(run.id))
    if (run === inView || run.wantsNotice || !(run.isSettled || over.has(run))) continue
    runs.delete(run.id) // whoever opens it again reads it from its log
    run.unfollow?.()
  }
  redraw()
}

/** Goes to another view, as a link would. @param {string} href */
export function goTo(href) {
  history.pushState(null, '', href)
  dispatchEvent(new PopStateEvent('popstate'))
}

/** Whether a run that has not been started is waiting in this page: it would go with the page. */
const isUnstarted = () => [...runs.values()].some(({ state }) => state === 'uploading' || state === 'queued')

addEventListener('beforeunload', leaving => { if (isUnstarted()) leaving.preventDefault() })
setInterval(() => { if (!document.hidden) fetchList() }, LIST_PAUSE) // others start runs, too
document.addEventListener('visibilitychange', () => { if (!document.hidden) fetchList() })
