// The speed over time, small, behind its figure: a slow-down that one figure hides.

import { element, elements, setAttribute, setText, slowPicture } from './draw.js'
import { inView } from './followed-runs.js'
import { amount, compact } from './words.js'

const [WIDTH, HEIGHT] = [600, 100] // of the drawing, which is stretched to what there is
const FEWEST = 20 // times that something was told: less is no curve

const [area, curve] = elements(SVGPathElement, 'plot-area', 'plot-curve')

slowPicture(() => {
  const { pace, progress } = inView.step ?? {}
  const speeds = pace && pace.told >= FEWEST ? pace.speeds : []
  const most = Math.max(...speeds, 0)
  const points = speeds.map((speed, at) => {
    return `${(at / (speeds.length - 1) * WIDTH).toFixed(1)} ${((1 - speed / most) * HEIGHT).toFixed(1)}`
  })
  const isCurve = points.length > 1 && most > 0
  setAttribute(curve, 'd', isCurve ? `M${points.join('L')}` : '')
  setAttribute(area, 'd', isCurve ? `M0 ${HEIGHT}L${points.join('L')}L${WIDTH} ${HEIGHT}z` : '')
  const words = `Speed over time, up to ${amount(most, progress?.unit, compact)}/s`
  setText(element('plot-words', SVGElement), isCurve ? words : 'No speed over time yet')
})
