// The picture under the hood: the path of the messages of the run in view, each hop lit while something passes, with
// the frames of the last one to read. The WebSocket's two directions are what was really sent; the hops behind it
// follow from them by protocol.ts. Closed, it costs nothing.

import { connection } from './connection.js'
import { element, make, picture, redraw, setText } from './draw.js'
import { inView } from './followed-runs.js'
import { clockAhead } from './requests.js'
import { bytes, count } from './words.js'

/** @typedef {import('./follow.js').Tap} Tap */
/** @typedef {import('./run-state.js').Run} Run */

const GLOW = 500 // milliseconds a hop stays lit
const READ = 400 // milliseconds between two changes of the frames: faster nobody reads
const LONGEST = 600 // characters of a frame

const hood = element('hood', HTMLDetailsElement)

/** In the order of a run's life. @type {[hop: string, title: string][]} */
const hops = [
  ['post', '1  browser → web server, HTTP'],
  ['request', '2  web server → workers server, REQ'],
  ['reply', '3  workers server → web server, REP'],
  ['fork', '4  workers server → task process, fork'],
  ['append', '5  task → its log, append'],
  ['publish', '6  task → proxy → web server, PUB and SUB'],
  ['socket', '7  web server → browser, WebSocket'],
  ['ack', '8  browser → web server, drawn up to here'],
  ['read', 'when something was missed: read the log from next'],
]
const frames = new Map(hops.map(([hop, title]) => [hop, makeFrames(hop, title)]))
const groups = new Map([...hood.querySelectorAll('.hop')].map(group => [group.getAttribute('data-hop') ?? '', group]))
/** when each hop was last passed @type {Map<string, number>} */
const passed = new Map()
/** what passed it last @type {Map<string, string>} */
let texts = new Map()
/** @type {Run | undefined} */
let run
let readAt = 0

picture(() => {
  if (!hood.open || !inView) return
  if (run !== inView) {
    run = inView
    texts = new Map()
    readAt = 0
  }
  const now = performance.now()
  for (const [hop, group] of groups) group.classList.toggle('lit', now - (passed.get(hop) ?? -GLOW) < GLOW)
  if (now - readAt < READ) return
  readAt = now
  knowBeginning(run)
  for (const [hop, frame] of frames) setText(frame, texts.get(hop) ?? 'nothing since this was opened')
  setText(element('hood-pid', SVGElement), run.start ? `process ${run.start.pid}` : 'tasks.ts')
  setText(element('hood-end', SVGElement), bytes(run.store.end))
})

/** @type {Tap} */
function tap(way, text, chunk) {
  if (!run) return
  if (way === 'out') {
    if (text.startsWith(`{"ack":"${run.id}"`)) pass('ack', text)
  } else if (chunk?.id === run.id) {
    const { id, position, next, entries } = chunk
    const line = cut(JSON.stringify(entries[0]))
    const lines = entries.length > 1 ? `… and ${count(entries.length - 1)} more lines` : ''
    pass('socket', text)
    // what comes from a run that is over, or long past, came out of the log
    const isLive = Date.now() - clockAhead - entries[0].time < 5000
    if (isLive) pass('publish', framed(id, position, line, lines))
    else pass('read', `["${id}", ${position}]\n→ ${line}\n${lines}`)
    if (isLive) pass('append', `at byte ${count(position)}, ${count(next - position)} bytes\n${line}\n${lines}`)
  }
  redraw()
  setTimeout(redraw, GLOW + 20)
}

/** @param {string} hop @param {string} text */
function pass(hop, text) {
  passed.set(hop, performance.now())
  texts.set(hop, cut(text))
}

/** The first four hops were passed before the log began; its first line tells what they carried.
 * @param {Run} run */
function knowBeginning({ id, start, call }) {
  if (!start || texts.has('post')) return
  const { method, args } = start
  const callId = call?.callId ?? ''
  const pid = String(start.pid)
  texts.set('post', cut(`POST /tasks\n${JSON.stringify({ id, method, args, callId })}`))
  texts.set('request', framed(method, callId, id, cut(JSON.stringify(args))))
  texts.set('reply', framed('', pid))
  texts.set('fork', `process ${pid}`)
}

/** One frame a line. @param {(string | number)[]} parts */
function framed(...parts) {
  return parts.filter((part, at) => part !== '' || at < 2).map(part => `[ ${part} ]`).join('\n')
}

const cut = (/** @type {string} */ text) => (text.length > LONGEST ? text.slice(0, LONGEST) + ' …' : text)

/** @param {string} hop @param {string} title */
function makeFrames(hop, title) {
  const card = make('figure')
  card.dataset.hop = hop
  const frame = make('pre')
  frame.tabIndex = 0
  card.append(make('figcaption', '', title), frame)
  element('hops', HTMLElement).append(card)
  return frame
}

hood.addEventListener('toggle', () => {
  connection.tap = hood.open ? tap : undefined
  readAt = 0
  redraw()
})
