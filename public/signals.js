// What can be seen of the run while its tab is in the background: progress and outcome in the title and
// the icon, and a notification at its end if one was asked for.

import { afterDrawing, element } from './draw.js'
import { inView, runs } from './runs.js'

/** @typedef {import('./run.js').Run} Run */

const icon = element('favicon', HTMLLinkElement)
const own = icon.href
const colours = /** @type {Record<string, string>} */ ({ ok: '#1f9d61', error: '#d93a3a', died: '#d93a3a', cancelled: '#7a8294', unknown: '#7a8294', refused: '#d93a3a' })
const marks = /** @type {Record<string, string>} */ ({ ok: '✓', error: '✕', died: '✕', cancelled: '–', unknown: '–', refused: '✕' })
const drawings = /** @type {Record<string, string>} */ ({ ok: 'M10 16.5l4.5 4.5 8-9.5', error: 'M11 11l10 10M21 11 11 21', died: 'M11 11l10 10M21 11 11 21', cancelled: 'M10 16h12', unknown: 'M10 16h12', refused: 'M16 9v9M16 22.5v.5' })

afterDrawing(() => {
  const title = inView ? [mark(inView), inView.title, 'longrun'].filter(Boolean).join(' · ') : 'longrun'
  if (document.title !== title) document.title = title
  const href = inView ? draw(inView) : own
  if (icon.href !== href) icon.href = href
  for (const run of runs.values()) if (run.done && run.wantsNotice) tell(run)
})

/** @param {Run} run */
function mark(run) {
  return marks[run.state] ?? (run.part === undefined ? '…' : `${Math.floor(run.part * 100)} %`)
}

/** @param {Run} run */
function draw(run) {
  const drawing = drawings[run.state]
  const colour = colours[run.state] ?? '#3b6cf0'
  const around = 2 * Math.PI * 12
  const part = Math.floor((run.part ?? 0.25) * 50) / 50 // 50 pictures are enough
  const inner = drawing
    ? `<circle cx="16" cy="16" r="15" fill="${colour}"/><path d="${drawing}" stroke="#fff"/>`
    : `<circle cx="16" cy="16" r="12" stroke="#8a93a6" stroke-opacity=".4"/><circle cx="16" cy="16" r="12" stroke="${colour}" stroke-dasharray="${part * around} 99" transform="rotate(-90 16 16)"/>`
  return 'data:image/svg+xml,' + encodeURIComponent(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32" fill="none" stroke-width="${drawing ? 3.5 : 6}">${inner}</svg>`)
}

/** @param {Run} run */
function tell(run) {
  run.wantsNotice = false
  const notice = new Notification(`${run.title}: ${run.words}`, { body: run.done?.data.reason ?? '', tag: run.id, icon: own })
  notice.onclick = () => { focus(); notice.close() }
}
