// The page begins here: what can be started, which run the address names, and whether the servers
// answer. Everything is drawn by draw.js, so look there first (picture, calmPicture, redraw); then, in the
// order of a click: start.js (form, upload, call), connection.js (the messages), run.js (what they say),
// view.js, log.js and results.js (what a person sees).

import { ask } from './api.js'
import { connect, connection } from './connection.js'
import { calmPicture, element, put, redraw, set } from './draw.js'
import './hood.js'
import { inView, listedRun, listKnown, look, go, openRun, setInView } from './runs.js'
import './signals.js'
import { offer } from './start.js'
import { view } from './view.js'

const startSection = element('start', HTMLElement)
const startProblem = element('start-problem', HTMLElement)
const state = element('connection', HTMLElement)
const reconnect = element('reconnect', HTMLButtonElement)

/** Shows what the address names. */
function show() {
  const address = new URLSearchParams(location.search)
  const id = address.get('run')
  startSection.hidden = Boolean(id)
  const before = inView
  setInView(id ? openRun(id) : undefined)
  if (before !== inView || !id) scrollTo(0, 0)
  view(inView, Number(address.get('line')) || 0)
}

async function learnMethods() {
  const answer = await ask('GET', 'methods')
  startProblem.hidden = answer.ok
  if (answer.ok) return offer(answer.data)
  put(startProblem, answer.status === 0 ? 'The web server does not answer.' : answer.status === 504 ? 'The workers server does not answer, so nothing can be started at the moment.' : answer.errors.join('; '))
  setTimeout(learnMethods, 3000)
}

calmPicture(() => {
  const { words, kind, wait = '' } = connectionState()
  set(state.dataset, 'state', kind)
  put(element('connection-words', HTMLElement), words)
  put(element('connection-wait', HTMLElement), wait) // not in the words: a screen reader would read every second of it
  set(reconnect, 'hidden', connection.live || !connection.lost)
  if (inView && listKnown && !inView.start && !inView.call && !inView.problem && !listedRun(inView.id)) {
    inView.phase = 'unknown'
    inView.problem = { kind: 'quiet', text: 'No run with this id is known here. It may have been removed, or not have begun: if it begins, it is shown.' }
    redraw()
  }
})

function connectionState() {
  if (!connection.live) {
    const seconds = Math.max(0, Math.ceil((connection.retryAt - Date.now()) / 1000))
    return { kind: 'lost', words: connection.lost ? 'Connection lost, trying again' : 'Connecting', wait: connection.lost && seconds > 1 ? ` in ${seconds} s` : '' }
  }
  if (!connection.workers) return { kind: 'workers', words: 'Workers server does not answer' }
  return { kind: 'live', words: 'Connected' }
}

addEventListener('popstate', show)
addEventListener('locked', () => {
  element('layout', HTMLElement).hidden = true
  state.hidden = true
  element('token', HTMLElement).hidden = false
  const run = element('token-run', HTMLInputElement)
  run.value = new URLSearchParams(location.search).get('run') ?? ''
  run.disabled = !run.value
  element('token-field', HTMLElement).focus()
})
reconnect.addEventListener('click', connect)
document.addEventListener('click', click => {
  const link = click.target instanceof Element && click.target.closest('a[data-go]')
  if (!(link instanceof HTMLAnchorElement) || click.ctrlKey || click.metaKey || click.shiftKey || click.button) return
  click.preventDefault()
  go(link.href)
})
setInterval(() => { if (!connection.live) redraw() }, 1000)

connect()
show()
look()
learnMethods()
