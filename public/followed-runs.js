// The runs that this page follows, with all that their logs said, the one of them that is in view, and what the server
// says of all runs.

import { drawAnew, drawn, redraw } from './draw.js'
import { Connection } from './follow.js'
import { request } from './requests.js'
import { Run } from './run-state.js'
import { duration } from './words.js'
/** @import { Listed } from './requests.js' */

const MOST_UNDRAWN = 512 * 1024 // bytes of logs
const OUT_OF_VIEW = 1024 * 1024 // bytes of log kept of a run that nobody looks at
const LIST_PAUSE = 4000 // milliseconds between two questions for the list
const NEWEST = 4 // runs that are asked for then, as all of a thousand are 200 kB
const WHOLE_PAUSE = 600_000 // milliseconds until all are asked for again: some were removed

export const runs = /** @type {Map<string, Run>} */ (new Map())
export let inView = new Run('') // on the start view it is one without an id, of which nothing is known
const nothing = inView
/** the server's list of all runs; until it has told that, no run can be called unknown @type {Listed[] | undefined} */
export let listed
let wholeAt = 0 // when all of it was told last
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
  const run = runs.get(id) ?? new Run(id, call)
  if (runs.has(id)) return run
  runs.set(id, run)
  if (listed) run.compare(listedRun(id))
  followRun(run)
  return run
}

/** Also a run that the server would not carry before: it may have asked for its token. @param {Run} run */
export function followRun(run) {
  const refuse = (/** @type {string} */ why) => { run.refuse(why); redraw() }
  const options = { next: run.store.end, refuse }
  run.unfollow ??= connection.follow(run.id, (entries, next) => receive(run, entries, next), options)
}

/** What is not drawn yet is acknowledged only up to a bound: a page that cannot keep up is not drowned.
 * @param {Run} run @param {import('./words.js').Entry[]} entries @param {number} next */
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
/** What runs of one function have taken, in the middle; undefined when none has ended well. @param {string} method */
export function usualSeconds(method) {
  const all = listed?.filter(run => run.method === method && run.outcome === 'ok').slice(0, 20) ?? []
  return all.map(({ seconds = 0 }) => seconds).sort((one, other) => one - other)[all.length >> 1]
}

/** Asks for the newest runs, and others that went on; where that may leave a gap, for all. */
export async function fetchList(isWhole = !listed || Date.now() > wholeAt + WHOLE_PAUSE) {
  const answer = await request('GET', isWhole ? 'tasks' : `tasks?limit=${NEWEST}`)
  // the token has changed: what the server gives instead of the page asks for it
  if (answer.status === 401 && !isUnstarted()) location.reload()
  if (!answer.ok || !Array.isArray(answer.data)) return
  const newest = /** @type {Listed[]} */ (answer.data)
  if (isWhole || newest.length !== NEWEST) listed = newest
  else if (!listedRun(newest[NEWEST - 1]?.id ?? '')) return fetchList(true)
  else listed = [...newest, ...await olderThan(newest)]
  if (isWhole) wholeAt = Date.now()
  for (const run of runs.values()) {
    const known = listedRun(run.id)
    run.compare(known)
    if (run === inView || run.wantsNotice || !(run.isSettled || (run.done && known?.outcome))) continue
    runs.delete(run.id) // whoever opens it again reads it from its log
    run.unfollow?.()
  }
  redraw()
}

/** The listed runs but for the newest: what goes on changes, unless its log tells that here. */
async function olderThan(/** @type {Listed[]} */ newest) {
  const older = listed?.filter(({ id }) => !newest.some(run => run.id === id)) ?? []
  return Promise.all(older.map(async run => {
    const live = runs.get(run.id)
    if (run.outcome || (live?.start && !live.done)) return run
    const { ok, data } = await request('GET', `tasks/${run.id}`)
    return ok ? { ...data, result: undefined } : run // it may be large
  }))
}

/** Goes to another view, as a link would. @param {string} href */
export function goTo(href) {
  if (new URL(href, location.href).href !== location.href) history.pushState(null, '', href)
  dispatchEvent(new PopStateEvent('popstate'))
}

/** Whether a run that has not been started is waiting in this page: it would go with the page. */
const isUnstarted = () => [...runs.values()].some(({ state }) => state === 'uploading' || state === 'queued')

addEventListener('beforeunload', leaving => { if (isUnstarted()) leaving.preventDefault() })
setInterval(() => { if (!document.hidden) fetchList() }, LIST_PAUSE) // others start runs, too
document.addEventListener('visibilitychange', () => { if (!document.hidden) fetchList() })
