// The ribbon beside the log: where along the whole log its warnings and errors stand. A click goes there.

import { element, setAttribute, slowPicture } from './draw.js'
import { LEVELS } from './entries.js'
import { inView } from './followed-runs.js'
import { revealEntry } from './log-view.js'

const PLACES = 500 // along the ribbon
const HEIGHT = 1000 // of the drawing, which is stretched to the height of the log
const NEAR = 0.015 // of the height: so far from a mark a click still means it
const [WARNING, ERROR] = [LEVELS.indexOf('warning'), LEVELS.indexOf('error')]

const ribbon = element('ribbon', SVGElement)

// No mark is so small that it could not be seen, and errors are as wide as the ribbon, warnings half of it: one error
// in a million entries shows, also among warnings without end.
slowPicture(() => {
  const levels = inView.store.levels.subarray(0, inView.store.count)
  setAttribute(element('ribbon-warnings', SVGPathElement), 'd', marks(levels, WARNING, 6, 'h6v4h-6z'))
  setAttribute(element('ribbon-errors', SVGPathElement), 'd', marks(levels, ERROR, 0, 'h12v6h-12z'))
})

/** A box for each place at which this level stands: a look at every byte, about a millisecond for a million entries.
 * @param {Uint8Array} levels @param {number} level @param {number} left @param {string} box */
function marks(levels, level, left, box) {
  const place = Math.ceil(levels.length / PLACES)
  let path = ''
  for (let at = levels.indexOf(level); at >= 0; at = levels.indexOf(level, at + place)) {
    at -= at % place
    path += `M${left} ${Math.round(at / levels.length * (HEIGHT - 6))}${box}`
  }
  return path
}

// What is meant by a click: the nearest error, if one is near by, else the nearest warning, else what stands there.
ribbon.addEventListener('click', ({ clientY }) => {
  const { levels, count } = inView.store
  const { top, height } = ribbon.getBoundingClientRect()
  const here = Math.max(0, Math.min(count - 1, Math.floor((clientY - top) / height * count)))
  for (const level of [ERROR, WARNING]) {
    for (let away = 0; away <= NEAR * count; away++) {
      const at = [here - away, here + away].find(at => levels[at] === level)
      if (at !== undefined) return revealEntry(at)
    }
  }
  revealEntry(here)
})
