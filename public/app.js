// The page begins here: its connection, what can be started, which run the address names. Read draw.js first, and then,
// in the order of a click: forms, start-run, followed-runs, follow, run-state, run-head, log-view, result-view.

import { CALM, element, elements, picture, set, setText } from './draw.js'
import { connection, fetchList, goTo, inView, openRun, setInView } from './followed-runs.js'
import { offerMethods } from './forms.js'
import { showLog } from './log-view.js'
import { request } from './requests.js'
import { showResult } from './result-view.js'
import './run-head.js'
import './runs-list.js'
import { PASSING } from './start-run.js'
import './under-the-hood.js'

const [startSection, startProblem, runSection] = elements(HTMLElement, 'start', 'start-problem', 'run')
const [connectionBox, words, wait] = elements(HTMLElement, 'connection', 'connection-words', 'connection-wait')
const reconnect = element('reconnect', HTMLButtonElement)

picture(() => {
  const { live, lost, retryAt, workers, over, stranger } = connection
  const seconds = stranger ? 0 : Math.ceil((retryAt - Date.now()) / 1000)
  set(connectionBox.dataset, 'state', live ? (workers ? 'live' : 'workers') : lost || stranger ? 'lost' : 'connecting')
  setText(reconnect, stranger ? 'Load the page anew' : 'Try now')
  if (!live && stranger) setText(words, 'Something else answers here. Has a login run out?')
  else if (!live) setText(words, lost ? 'Connection lost, trying again' : 'Connecting')
  else if (!workers) setText(words, 'Workers server does not answer')
  else setText(words, over === 'WebSocket' ? 'Connected' : 'Connected, without WebSocket')
  setText(wait, !live && lost && seconds > 1 ? ` in ${seconds} s` : '') // apart: it would be read aloud every second
}, CALM, false)

function showAddress() {
  const address = new URLSearchParams(location.search)
  const id = address.get('run')
  const before = inView
  startSection.hidden = Boolean(id)
  runSection.hidden = !id
  setInView(id ? openRun(id) : undefined)
  if (before !== inView || !id) scrollTo(0, 0)
  showLog(Number(address.get('line')) || 0)
  showResult()
}

async function fetchMethods() {
  const answer = await request('GET', 'methods')
  startProblem.hidden = answer.ok
  if (answer.ok) return offerMethods(answer.data)
  setText(startProblem, `Nothing can be started at the moment. ${PASSING[answer.status] ?? answer.why}`)
  setTimeout(fetchMethods, 3000)
}

addEventListener('popstate', showAddress)
reconnect.addEventListener('click', () => (connection.stranger ? location.reload() : connection.connect()))
document.addEventListener('visibilitychange', () => { if (!document.hidden && !connection.live) connection.connect() })
document.addEventListener('click', click => {
  const link = click.target instanceof Element && click.target.closest('a[data-go]')
  if (!(link instanceof HTMLAnchorElement) || click.ctrlKey || click.metaKey || click.shiftKey || click.button) return
  click.preventDefault()
  goTo(link.href)
  if (link.id === 'new') element('forms', HTMLElement).querySelector('input')?.focus() // where it leads to is seen
})
addEventListener('keydown', ({ key, target }) => {
  const isTyping = target instanceof Element && target.matches('input, textarea, select')
  if (key === '?' && !isTyping) element('keys', HTMLDialogElement).showModal()
})

connection.connect()
showAddress()
fetchList()
fetchMethods()
