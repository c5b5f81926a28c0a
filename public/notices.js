// What can be seen of the run while its tab is in the background: progress and outcome in the title, and a
// notification at its end if one was asked for.

import { afterDrawing } from './draw.js'
import { inView, runs } from './followed-runs.js'

/** @typedef {import('./run-state.js').Run} Run */

/** @type {Record<string, string>} */
const MARKS = { ok: '✓', error: '✕', died: '✕', cancelled: '–', unknown: '–', refused: '✕' }

afterDrawing(() => {
  const title = inView ? `${markOf(inView)} · ${inView.title} · longrun` : 'longrun'
  if (document.title !== title) document.title = title
  for (const run of runs.values()) if (run.done && run.wantsNotice) notify(run)
})

function markOf(/** @type {Run} */ run) {
  return MARKS[run.state] ?? (run.part === undefined ? '…' : `${Math.floor(run.part * 100)} %`)
}

function notify(/** @type {Run} */ run) {
  run.wantsNotice = false
  try {
    const notice = new Notification(`${run.title}: ${run.words}`, { body: run.done?.reason ?? '', tag: run.id })
    notice.onclick = () => { focus(); notice.close() }
  } catch {
    // Chrome on Android has the constructor, and throws: the title tells all the same
  }
}
