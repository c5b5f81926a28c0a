// The head of the run in view: its name and state, how far it is, what went wrong with its start, and what can be done
// with it. Everything is drawn from the run; nothing else is remembered here.

import { calmPicture, element, redraw, set, setText } from './draw.js'
import { inView } from './followed-runs.js'
import { canRepeat } from './forms.js'
import { copies, showLog } from './log-view.js'
import { showResult } from './result-view.js'
import { cancelRun, repeatRun } from './start-run.js'
import { amount, count, counted, day, duration, elapsed, estimate } from './words.js'

/** @typedef {import('./run-state.js').Run} Run */

const TALKING = 10_000 // milliseconds between two announcements to a screen reader, unless the state changes

const section = element('run', HTMLElement)
const bar = element('bar', HTMLProgressElement)
const status = element('status', HTMLElement)
const cancel = element('cancel', HTMLButtonElement)
const repeat = element('again', HTMLButtonElement)
const notify = element('notify', HTMLButtonElement)
const problem = element('problem', HTMLElement)
const wait = element('wait', HTMLButtonElement)
const retry = element('retry', HTMLButtonElement)
const other = element('other', HTMLAnchorElement)
const download = element('download', HTMLAnchorElement)

let saidState = ''
let saidAt = 0
let leftAt = 0
const ended = ['ok', 'error', 'cancelled', 'died', 'refused', 'unknown']

/** @param {Run | undefined} run @param {number} [line] */
export function showRun(run, line) {
  section.hidden = !run
  saidState = ''
  leftAt = 0
  showLog(run, line)
  showResult(run)
  redraw()
}

calmPicture(() => {
  if (!inView) return
  drawName(inView)
  drawMeter(inView)
  drawProblem(inView)
  announce(inView)
})

/** @param {Run} run */
function drawName(run) {
  set(section.dataset, 'state', run.state)
  const reason = run.done?.reason.split('\n', 1)[0] ?? ''
  const isTelling = reason && reason !== 'cancelled' && reason.length < 100
  setText(element('state-words', HTMLElement), isTelling ? `${run.words}: ${reason}` : run.words)
  setText(element('run-title', HTMLElement), run.title)
  const about = [run.method, run.start && day(run.start.time), run.start && `process ${run.start.pid}`, run.id]
  setText(element('run-about', HTMLElement), about.filter(Boolean).join(' · '))
  const { state } = run
  set(cancel, 'hidden', ended.includes(state))
  set(cancel, 'disabled', state === 'cancelling' || state === 'joining' || state === 'asking' || state === 'unsure')
  setText(cancel, state === 'cancelling' ? 'Cancelling …' : state === 'queued' ? 'Stop waiting' : 'Cancel')
  set(repeat, 'hidden', cancel.hidden === false || !canRepeat(run))
  set(notify, 'hidden', cancel.hidden || !('Notification' in window))
  const blocked = !notify.hidden && Notification.permission === 'denied'
  set(notify, 'disabled', blocked)
  set(notify, 'ariaPressed', String(run.wantsNotice))
  setText(notify, blocked ? 'Notices blocked' : run.wantsNotice ? 'Will notify' : 'Notify me')
  if (!download.href.includes(run.id)) download.href = `tasks/${run.id}/log.ndjson`
  download.toggleAttribute('data-off', !run.start)
}

/** @param {Run} run */
function drawMeter(run) {
  const { part, progress, seconds, state } = run
  // without the attribute it is indeterminate (it runs, nobody knows how far), and its property is 0 then, too
  const value = part ?? (ended.includes(state) ? 0 : undefined)
  if (value === undefined) bar.removeAttribute('value')
  else if (bar.getAttribute('value') !== String(value)) bar.setAttribute('value', String(value))
  const reached = progress && amount(progress.current, progress.unit)
  setText(element('percent', HTMLElement), part === undefined ? (reached ?? '–') : `${Math.floor(part * 100)} %`)
  const time = run.done ? duration : elapsed
  setText(element('elapsed', HTMLElement), seconds === undefined ? '–' : time(seconds))
  drawLeft(run)
  setText(element('speed', HTMLElement), run.speed ?? '–')
  for (const level of /** @type {const} */ (['warning', 'error'])) {
    const figure = element(level + 's', HTMLElement)
    setText(figure, count(run.count(level)))
    if (figure.parentElement) set(figure.parentElement.dataset, 'some', String(run.count(level) > 0))
  }
}

/** @param {Run} run */
function drawLeft(run) {
  const { left, seconds } = run
  const known = left !== undefined && (seconds ?? 0) > 1.5
  const words = run.done ? '–' : known ? estimate(left) : '–'
  if (!run.done && Date.now() - leftAt < 1000) return
  leftAt = Date.now()
  setText(element('left', HTMLElement), words)
}

/** @param {Run} run */
function drawProblem({ problem: trouble }) {
  set(problem, 'hidden', !trouble)
  if (!trouble) return
  problem.dataset.kind = trouble.kind
  setText(element('problem-words', HTMLElement), trouble.text)
  set(wait, 'hidden', !trouble.wait)
  set(retry, 'hidden', !trouble.retry)
  set(other, 'hidden', !trouble.other)
  if (trouble.other) other.href = `?run=${trouble.other}`
}

/** The log is silent for screen readers; this line speaks at each change of state, else seldom.
 * @param {Run} run */
function announce(run) {
  if (run.state === saidState && Date.now() - saidAt < TALKING) return
  saidState = run.state
  saidAt = Date.now()
  const far = run.part === undefined || run.done ? '' : `, ${Math.floor(run.part * 100)} percent`
  const [warnings, errors] = [run.count('warning'), run.count('error')]
  const found = (warnings ? `, ${counted(warnings, 'warning')}` : '') + (errors ? `, ${counted(errors, 'error')}` : '')
  setText(status, `${run.title}: ${run.words}${far}${found}`)
}

cancel.addEventListener('click', () => inView && cancelRun(inView))
repeat.addEventListener('click', () => inView && repeatRun(inView))
wait.addEventListener('click', () => inView?.problem?.wait?.())
retry.addEventListener('click', () => inView?.problem?.retry?.())
notify.addEventListener('click', async () => {
  const run = inView
  if (!run) return
  run.wantsNotice = !run.wantsNotice && (await Notification.requestPermission()) === 'granted'
  redraw()
})
copies(element('share', HTMLButtonElement), () => location.href.replace(/&line=.*/, ''))

// Elapsed time moves on while nothing arrives.
setInterval(() => {
  if (inView && !inView.done) redraw()
}, 500)
