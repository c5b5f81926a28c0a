// The speed over time, small, beside the figures of the run in view: a slow-down that one figure hides.

import { element, elements, setAttribute, setText, slowPicture } from './draw.js'
import { inView } from './followed-runs.js'
import { amount, compact, elapsed } from './words.js'

const [WIDTH, HEIGHT] = [600, 100] // of the drawing, which is stretched to what there is
const FEWEST = 20 // times that something was told: less is no curve

const plot = element('plot', HTMLElement)
const [area, curve, line] = elements(SVGPathElement, 'plot-area', 'plot-curve', 'plot-line')
/** 0 to 1, where the pointer is; -1: elsewhere */
let pointer = -1

slowPicture(draw)

function draw() {
  const { pace, unit } = inView.plotted
  const { speeds } = pace
  const most = Math.max(...speeds, 0)
  const isCurve = pace.told >= FEWEST && speeds.length > 1 && most > 0
  plot.classList.toggle('empty', !isCurve) // its place stays
  const points = speeds.map((speed, at) => {
    return `${(at / (speeds.length - 1) * WIDTH).toFixed(1)} ${((1 - speed / most) * HEIGHT).toFixed(1)}`
  })
  setAttribute(curve, 'd', isCurve ? `M${points.join('L')}` : '')
  setAttribute(area, 'd', isCurve ? `M0 ${HEIGHT}L${points.join('L')}L${WIDTH} ${HEIGHT}z` : '')
  const at = Math.min(speeds.length - 1, Math.floor(pointer * speeds.length))
  const words = `Up to ${amount(most, unit, compact)}/s`
  const here = `${amount(speeds[at] ?? 0, unit, compact)}/s at ${elapsed((at + 0.5) * pace.step / 1000)}`
  setText(element('plot-words', HTMLElement), !isCurve ? 'Speed over time' : pointer < 0 ? words : here)
  setAttribute(line, 'd', isCurve && pointer >= 0 ? `M${pointer * WIDTH} 0V${HEIGHT}` : '')
}

plot.addEventListener('pointermove', ({ clientX }) => {
  const { left, width } = plot.getBoundingClientRect()
  pointer = Math.max(0, Math.min(0.9999, (clientX - left) / width))
  draw()
})
plot.addEventListener('pointerleave', () => {
  pointer = -1
  draw()
})
