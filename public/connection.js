// The page's own connection to the web server: follow.js, and what a person is told about it.

import { calmPicture, element, redraw, set, setText } from './draw.js'
import { Connection } from './follow.js'
import { duration } from './words.js'

const state = element('connection', HTMLElement)
const reconnect = element('reconnect', HTMLButtonElement)

/** Those who want to know that the servers answer again. @type {((note: string) => void)[]} */
const listeners = []

export const connection = new Connection('./', {
  tell({ live, lost, workers }) {
    const note = lost ? `The connection was lost for ${duration((Date.now() - lost) / 1000)} and is back.` : ''
    if (live && workers) for (const listen of listeners) listen(note)
    redraw()
  },
})

/** @param {(note: string) => void} listen called with a note when the connection was lost, else with an empty one */
export const onRejoin = listen => listeners.push(listen)

calmPicture(() => {
  const { words, kind, wait = '' } = describeConnection()
  set(state.dataset, 'state', kind)
  setText(element('connection-words', HTMLElement), words)
  setText(element('connection-wait', HTMLElement), wait) // not in the words: a screen reader would read every second
  set(reconnect, 'hidden', connection.live || !connection.lost)
})

function describeConnection() {
  const { live, lost, retryAt, workers, over } = connection
  if (!live) {
    const seconds = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000))
    if (!lost) return { kind: 'lost', words: 'Connecting' }
    return { kind: 'lost', words: 'Connection lost, trying again', wait: seconds > 1 ? ` in ${seconds} s` : '' }
  }
  if (!workers) return { kind: 'workers', words: 'Workers server does not answer' }
  return { kind: 'live', words: over === 'WebSocket' ? 'Connected' : 'Connected, without WebSocket' }
}

reconnect.addEventListener('click', () => connection.connect())
document.addEventListener('visibilitychange', () => {
  if (!document.hidden && !connection.live) connection.connect()
})
setInterval(() => { if (!connection.live) redraw() }, 1000)
