// The chosen entry in full, beside the log or, where there is no room, over the half of it in which
// it does not stand; and its number in the address.

import { element, elements, picture, pieces, set, setText, slowPicture } from './draw.js'
import { cut, FOREIGN, fullText, LEVELS, MORE_IN_LOG } from './entries.js'
import { inView as run } from './followed-runs.js'
import { copies } from './log-tools.js'
import { choose, chosen, goal, headOf, list, numberOf } from './log-view.js'
import { count } from './words.js'

const LONGEST = 100_000 // characters of it that are shown

const [box, title, text] = elements(HTMLElement, 'entry', 'entry-title', 'entry-text')
/** what is shown: it is not asked for again, as its entry may be let go meanwhile */
let drawn = { of: run, n: -1 }

picture(() => {
  set(box, 'hidden', chosen < 0 || LEVELS[run.store.levels[chosen] ?? 0] === 'step') // its row says it all
  const place = (list.selected - list.top) / list.inSight
  if (Math.abs(place - 0.5) > 0.1) box.toggleAttribute('data-above', place > 0.5) // where it lies over the log
  if (box.hidden || (drawn.of === run && drawn.n === chosen)) return
  const entry = run.store.get(chosen)
  setText(title, ['Entry ' + count(numberOf(chosen)), ...(entry ? headOf(entry) : [])].join(', '))
  text.replaceChildren(entry ? pieces(cut(fullText(entry), LONGEST, MORE_IN_LOG), FOREIGN, 'span', 'foreign') : 'Reading …')
  text.scrollTop = 0
  if (entry) drawn = { of: run, n: chosen }
  else run.store.load(chosen) // redraws when it is there
})

slowPicture(() => {
  const address = new URL(location.href)
  const line = chosen < 0 ? null : String(numberOf(chosen))
  if (goal || address.searchParams.get('line') === line) return
  address.searchParams.delete('line')
  if (line) address.searchParams.set('line', line)
  history.replaceState(null, '', address)
})

copies('entry-copy', () => text.textContent ?? '')
copies('entry-link', () => new URL(`?run=${run.id}&line=${numberOf(chosen)}`, location.href).href)
element('entry-close', HTMLButtonElement).addEventListener('click', () => choose(-1))
