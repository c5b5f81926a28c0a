// What a person is told about the connection to the servers.

import { calmPicture, element, redraw, set, setText } from './draw.js'
import { connection } from './followed-runs.js'

const reconnect = element('reconnect', HTMLButtonElement)

calmPicture(() => {
  const { words, kind, wait = '' } = describeConnection()
  set(element('connection', HTMLElement).dataset, 'state', kind)
  setText(element('connection-words', HTMLElement), words)
  setText(element('connection-wait', HTMLElement), wait) // not in the words: a screen reader would read every second
  set(reconnect, 'hidden', connection.live || !connection.lost)
})

function describeConnection() {
  const { live, lost, retryAt, workers, over } = connection
  if (live && !workers) return { kind: 'workers', words: 'Workers server does not answer' }
  if (live) return { kind: 'live', words: over === 'WebSocket' ? 'Connected' : 'Connected, without WebSocket' }
  if (!lost) return { kind: 'lost', words: 'Connecting' }
  const seconds = Math.ceil((retryAt - Date.now()) / 1000)
  return { kind: 'lost', words: 'Connection lost, trying again', wait: seconds > 1 ? ` in ${seconds} s` : '' }
}

reconnect.addEventListener('click', () => connection.connect())
document.addEventListener('visibilitychange', () => {
  if (!document.hidden && !connection.live) connection.connect()
})
setInterval(() => { if (!connection.live) redraw() }, 1000)
