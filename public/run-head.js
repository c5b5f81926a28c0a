// The head of the run in view: its name and state, how far it is and since when nothing has come, what went wrong with
// its start, and what can be done with it; in a background tab the title, and a notice at its end if one was asked for.
// Everything is drawn from the run; all that is remembered here is what was said last.

import { calmPicture, element, elements, redraw, set, setAttribute, setText, slowPicture } from './draw.js'
import { connection, inView as run, runs } from './followed-runs.js'
import { canRepeat, fillForm } from './forms.js'
import { copies } from './log-view.js'
import { cancelRun } from './start-run.js'
import { amount, clock, compact, counted, day, duration, elapsed, estimate } from './words.js'

const TALKING = 10_000 // milliseconds between two announcements to a screen reader, unless the state changes
const SILENT = 10 // seconds without an entry after which an estimate of what is left means nothing
/** of the states in which it is over, in the title @type {Record<string, string>} */
const MARKS = { ok: '✓', error: '✕', died: '✕', cancelled: '–', unknown: '–', refused: '✕' }

const [section, status, problem] = elements(HTMLElement, 'run', 'status', 'problem')
const [cancel, repeat, notify] = elements(HTMLButtonElement, 'cancel', 'again', 'notify')
const [wait, retry] = elements(HTMLButtonElement, 'wait', 'retry')
const other = element('other', HTMLAnchorElement)
const bar = element('bar', HTMLProgressElement)

const canNotify = 'Notification' in window
let isBlocked = false
let saidState = ''
let saidAt = 0
let leftAt = ''

slowPicture(() => { isBlocked = canNotify && Notification.permission === 'denied' }) // another process is asked

calmPicture(() => {
  drawName()
  drawButtons()
  drawMeter()
  drawProblem()
  announce()
})

function drawName() {
  set(section.dataset, 'state', run.state)
  const reason = run.done?.reason.split('\n', 1)[0] ?? ''
  const isTelling = run.state === 'cancelled' && reason && reason !== 'cancelled' && reason.length < 100
  setText(element('state-words', HTMLElement), isTelling ? `${run.words}: ${reason}` : run.words)
  setText(element('run-title', HTMLElement), run.title)
  const about = [run.method, run.start && day(run.start.time)].filter(Boolean).join(' · ')
  setText(element('run-about', HTMLElement), about || 'Details')
  setText(element('run-details', HTMLElement), `${run.start ? `process ${run.start.pid}, ` : ''}id ${run.id}`)
}

function drawButtons() {
  const { state } = run
  const isOver = state in MARKS
  // what is hidden loses the focus, and with it the place of someone who has no mouse
  if (isOver && document.activeElement === cancel) element('main', HTMLElement).focus({ preventScroll: true })
  set(cancel, 'hidden', isOver)
  set(cancel, 'disabled', ['cancelling', 'joining', 'asking', 'unsure'].includes(state))
  setText(cancel, state === 'cancelling' ? 'Cancelling …' : state === 'queued' ? 'Stop waiting' : 'Cancel')
  set(repeat, 'hidden', !isOver || !canRepeat(run))
  set(notify, 'hidden', isOver || !canNotify)
  set(notify, 'disabled', isBlocked)
  set(notify, 'ariaPressed', String(run.wantsNotice))
  setText(notify, isBlocked ? 'Notices blocked' : run.wantsNotice ? 'Will notify' : 'Notify me')
}

function drawMeter() {
  const { part, seconds, ended, speed } = run
  // without the attribute it is indeterminate (it runs, nobody knows how far), and its property is 0 then, too
  const value = part ?? (run.state in MARKS || run.state === 'queued' ? 0 : undefined)
  if (value === undefined) bar.removeAttribute('value')
  else setAttribute(bar, 'value', String(value))
  drawReached()
  drawFact('elapsed', ended ? 'Took' : 'Elapsed', seconds === undefined ? '–' : (ended ? duration : elapsed)(seconds))
  drawLeft()
  drawFact('speed', 'Speed', speed ?? '–')
  set(element('speed-fact', HTMLElement), 'hidden', run.start !== undefined && !run.progress)
  for (const level of /** @type {const} */ (['warning', 'error'])) {
    const figure = element(level + 's', HTMLElement)
    setText(figure, compact(run.count(level)))
    figure.toggleAttribute('data-some', run.count(level) > 0)
  }
}

/** @param {string} id @param {string} name @param {string} value */
function drawFact(id, name, value) {
  const figure = element(id, HTMLElement)
  setText(figure, value)
  if (figure.previousElementSibling) setText(figure.previousElementSibling, name)
}

function drawReached() {
  const { part, progress, start, store } = run
  if (part !== undefined) drawFact('percent', 'Progress', `${Math.floor(part * 100)} %`)
  else if (progress) drawFact('percent', 'Progress', amount(progress.current, progress.unit, compact))
  else drawFact('percent', start ? 'Entries' : 'Progress', start ? compact(store.count) : '–')
}

// When it will be done; where that is not known, whether it still moves; in the end, when it was.
function drawLeft() {
  const { left, seconds = 0, start, ended, progress, silence } = run
  if (ended) return drawFact('left', 'Ended', start ? clock(start.time + seconds * 1000).slice(0, 8) : '–')
  const second = `${run.id} ${Math.floor(Date.now() / 1000)}`
  if (second === leftAt) return // an estimate that dances is none
  leftAt = second
  const isMoving = progress?.total !== undefined && silence < SILENT
  if (isMoving) drawFact('left', 'Left', left === undefined || seconds < 1.5 ? '–' : estimate(left))
  else if (!start || !connection.live || run.read < 1) drawFact('left', start ? 'Last entry' : 'Left', '–')
  else drawFact('left', 'Last entry', silence < 1.5 ? 'just now' : `${elapsed(silence)} ago`)
}

function drawProblem() {
  const { problem: trouble } = run
  set(problem, 'hidden', !trouble)
  if (!trouble) return
  problem.dataset.kind = trouble.kind
  setText(element('problem-words', HTMLElement), trouble.text)
  set(wait, 'hidden', !trouble.wait)
  set(retry, 'hidden', !trouble.retry)
  set(other, 'hidden', !trouble.other)
  if (trouble.other) other.href = `?run=${trouble.other}`
}

// The log is silent for screen readers; this line speaks at each change of state, else seldom.
function announce() {
  const state = `${run.id} ${run.state}`
  if (state === saidState && Date.now() - saidAt < TALKING) return
  saidState = state
  saidAt = Date.now()
  const far = run.part === undefined || run.ended ? '' : `, ${Math.floor(run.part * 100)} percent`
  const [warnings, errors] = [run.count('warning'), run.count('error')]
  const found = (warnings ? `, ${counted(warnings, 'warning')}` : '') + (errors ? `, ${counted(errors, 'error')}` : '')
  setText(status, `${run.title}: ${run.words}${far}${found}`)
}

calmPicture(() => {
  const far = run.part === undefined ? '…' : `${Math.floor(run.part * 100)} %`
  set(document, 'title', run.id ? `${MARKS[run.state] ?? far} · ${run.title} · longrun` : 'longrun')
  for (const run of runs.values()) if (run.done && run.wantsNotice) giveNotice(run)
})

function giveNotice(/** @type {import('./run-state.js').Run} */ run) {
  run.wantsNotice = false
  try {
    const notice = new Notification(`${run.title}: ${run.words}`, { body: run.done?.reason ?? '', tag: run.id })
    notice.onclick = () => { focus(); notice.close() }
  } catch {
    // Chrome on Android has the constructor, and throws: the title tells all the same
  }
}

cancel.addEventListener('click', () => cancelRun(run))
repeat.addEventListener('click', () => fillForm(run))
wait.addEventListener('click', () => run.problem?.wait?.())
retry.addEventListener('click', () => run.problem?.retry?.())
notify.addEventListener('click', async () => {
  const asking = run
  const permission = await Notification.requestPermission().catch(() => 'denied') // a frame may not even ask
  asking.wantsNotice = !asking.wantsNotice && permission === 'granted'
  redraw()
})
copies('share', () => location.href.replace(/&line=.*/, ''))
