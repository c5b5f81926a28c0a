// The path of the messages of the run in view: each hop is lit while something passes, with the frames of the last one.
// The WebSocket's two directions are what was really sent; the hops behind it follow from them by protocol.ts.

import { CALM, drawAnew, element, picture, redraw, setText } from './draw.js'
import { connection, inView } from './followed-runs.js'
import { clockAhead } from './requests.js'
import { bytes, count, cut } from './words.js'

const GLOW = 500 // milliseconds a hop stays lit, or until the next drawing
const LONGEST = 600 // characters of a frame

const hood = element('hood', HTMLDetailsElement)
const hops = hood.querySelectorAll('[data-hop]') // each in the picture, and below it with a frame
const passed = /** @type {Map<string | null, { text: string, at: number }>} */ (new Map()) // each hop last, and when
let run = inView

picture(() => {
  if (!hood.open) return
  if (run !== inView) passed.clear()
  run = inView
  knowBeginning()
  for (const hop of hops) {
    const { text = 'nothing since this was opened', at = -GLOW } = passed.get(hop.getAttribute('data-hop')) ?? {}
    const frame = hop.querySelector('pre')
    if (frame) setText(frame, text)
    else hop.classList.toggle('lit', performance.now() - at < GLOW)
  }
  setText(element('hood-pid', SVGElement), run.start ? `process ${run.start.pid}` : 'tasks.ts')
  setText(element('hood-end', SVGElement), bytes(run.store.end))
}, CALM)

/** @type {import('./follow.js').Tap} */
function tap(way, text, chunk) {
  redraw()
  if (way === 'out' && text.startsWith(`{"ack":"${run.id}"`)) pass('ack', text)
  if (chunk?.id !== run.id) return
  const { id, position, next, entries } = chunk
  const more = entries.length > 1 ? `\n… and ${count(entries.length - 1)} more lines` : ''
  const lines = cut(JSON.stringify(entries[0]), LONGEST) + more
  // what comes from a run that is over, or long past, came out of the log
  const isLive = Date.now() - clockAhead - (entries[0]?.time ?? 0) < 5000
  pass('socket', text)
  if (isLive) pass('append', `at byte ${count(position)}, ${count(next - position)} bytes\n${lines}`)
  if (isLive) pass('publish', framed(id, position, lines))
  else pass('read', `["${id}", ${position}]\n→ ${lines}`)
}

const pass = (/** @type {string} */ hop, /** @type {string} */ text, at = performance.now()) =>
  passed.set(hop, { text: cut(text, LONGEST), at })

// The first four hops were passed before the log began; its first line tells what they carried.
function knowBeginning() {
  const { id, start, call, method, args } = run
  if (!start || passed.has('post')) return
  const callId = call?.callId ?? start.callId
  pass('post', `POST /tasks\n${JSON.stringify({ id, method, args, callId })}`, -GLOW)
  pass('request', framed(method, callId, id, cut(JSON.stringify(args), LONGEST)), -GLOW)
  pass('reply', framed('', String(start.pid)), -GLOW)
  pass('fork', `process ${start.pid}`, -GLOW)
}

/** One frame a line. */
const framed = (/** @type {(string | number)[]} */ ...parts) => parts.map(part => `[ ${part} ]`).join('\n')

hood.addEventListener('toggle', () => { connection.tap = hood.open ? tap : undefined; drawAnew() })
