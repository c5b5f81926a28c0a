// The ribbon beside the log: where along the whole log its warnings and errors stand. A click goes there.

import { element, setText } from './draw.js'
import { LEVELS } from './entries.js'
import { inView, slowPicture } from './followed-runs.js'
import { revealEntry } from './log-view.js'
import { MOST_MARKS } from './log-store.js'
import { count, counted } from './words.js'

/** @import { LogStore } from './log-store.js' */

const HEIGHT = 1000 // of the drawing, which is stretched to the height of the log
const NEAR = 0.015 // of the height: so far from a mark a click still means it

const ribbon = element('ribbon', SVGElement)
const words = element('ribbon-words', SVGElement)
const paths = /** @type {const} */ (['warning', 'error']).map(level => {
  return { level: LEVELS.indexOf(level), path: element(`ribbon-${level}s`, SVGPathElement) }
})

slowPicture(({ store }) => {
  for (const { level, path } of paths) path.setAttribute('d', pathOf(store, level))
  const [warnings, errors] = paths.map(({ level }) => store.counts[level] ?? 0)
  const first = store.levels.subarray(0, store.count).indexOf(LEVELS.indexOf('error'))
  const place = first < 0 ? '' : `, the first error is entry ${count(first + 1)}`
  setText(words, `${counted(errors ?? 0, 'error')} and ${counted(warnings ?? 0, 'warning')} along the log${place}`)
})

// Errors are as wide as the ribbon and warnings half of it, and no mark is so small that it could not be seen: one
// error in a million entries shows, also among warnings without end.
/** @param {LogStore} store @param {number} level */
function pathOf({ marks, markSize, count }, level) {
  const isError = level === LEVELS.indexOf('error')
  const box = isError ? 'h12v6h-12z' : 'h6v4h-6z'
  let path = ''
  for (let at = 0; at < MOST_MARKS && at * markSize < count; at++) {
    if (!((marks[at] ?? 0) & 1 << level)) continue
    path += `M${isError ? 0 : 6} ${Math.round(at * markSize / count * (HEIGHT - 6))}${box}`
  }
  return path
}

ribbon.addEventListener('click', click => {
  const { top, height } = ribbon.getBoundingClientRect()
  const at = (click.clientY - top) / height
  if (inView) revealEntry(nearest(inView.store, at))
})

/** The entry that is meant by a click: an error near by, else a warning, else what stands there.
 * @param {LogStore} store @param {number} at */
function nearest({ levels, count }, at) {
  const here = Math.max(0, Math.min(count - 1, Math.round(at * count)))
  const far = Math.ceil(NEAR * count)
  for (const { level } of paths.toReversed()) {
    for (let away = 0; away <= far; away++) {
      if (levels[here + away] === level && here + away < count) return here + away
      if (levels[here - away] === level) return here - away
    }
  }
  return here
}
