// The head of the run in view: its name and state, how far it is and since when nothing has come, what went wrong with
// its start, and what can be done with it; in a background tab the title, and a notice at its end if one was asked for.
// Everything is drawn from the run; all that is remembered here is what was said last.

import { calmPicture, element, elements, framePicture, make, redraw, set, setAttribute, setText, slowPicture } from './draw.js'
import { connection, inView as run, runs, usualSeconds } from './followed-runs.js'
import { canRepeat, fillForm, repeatRun } from './forms.js'
import { copies, revealEntry } from './log-view.js'
import { attempt, cancelRun } from './start-run.js'
import { compact, counted, duration, elapsed, estimate, minutes, reached, seconds as time } from './words.js'

/** @import { Run, Step } from './run-state.js' */

const TALKING = 10_000 // milliseconds between two announcements to a screen reader, unless the state changes
const SILENT = 10 // seconds without an entry after which an estimate of what is left means nothing
const MOST_STEPS = 12 // in sight
/** of the states in which it is over, in the title @type {Record<string, string>} */
const MARKS = { ok: '✓', error: '✕', died: '✕', cancelled: '–', unknown: '–', refused: '✕', full: '…' }
const GRACE = 'What has not ended by itself after 5 s is killed.'
const GOES_ON = 'The run goes on, and its log is kept: what is missing here comes when'

const [section, status, problem, steps] = elements(HTMLElement, 'run', 'status', 'problem', 'steps')
const [cancel, repeat, change, notify] = elements(HTMLButtonElement, 'cancel', 'again', 'change', 'notify')
const [wait, retry] = elements(HTMLButtonElement, 'wait', 'retry')
const other = element('other', HTMLAnchorElement)
const bar = element('bar', HTMLProgressElement)
const icon = element('icon', HTMLLinkElement)

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
  drawSteps()
  drawProblem()
  announce()
})

const isFlawed = () => run.state === 'ok' && run.count('error') > 0

function drawName() {
  set(section.dataset, 'state', run.state)
  section.toggleAttribute('data-flawed', isFlawed())
  const reason = run.done?.reason.split('\n', 1)[0] ?? ''
  const isTelling = run.state === 'cancelled' && reason && reason !== 'cancelled' && reason.length < 100
  setText(element('state-words', HTMLElement), isTelling ? `${run.words}: ${reason}` : run.words)
  setText(element('run-title', HTMLElement), run.title)
  const isNamed = run.title.startsWith(`${run.method}(`)
  const about = [isNamed ? '' : run.method, run.start && minutes(run.start.time)].filter(Boolean).join(' · ')
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
  set(repeat, 'hidden', !isOver || !run.start || !canRepeat(run))
  set(change, 'hidden', !isOver || !canRepeat(run))
  set(notify, 'hidden', isOver || !canNotify)
  set(notify, 'disabled', isBlocked)
  set(notify, 'title', isBlocked ? 'The browser forbids it: the sign beside the address leads to what this page may do' : '')
  set(notify, 'ariaPressed', String(run.wantsNotice))
  setText(notify, isBlocked ? 'Notices blocked' : run.wantsNotice ? 'Will notify' : 'Notify me')
}

function drawMeter() {
  const { part, seconds, ended, done, speed, isOdd } = run
  // without the attribute it is indeterminate (it runs, nobody knows how far), and its property is 0 then, too
  const value = part ?? (run.state in MARKS || run.state === 'queued' ? 0 : undefined)
  if (value === undefined) bar.removeAttribute('value')
  else setAttribute(bar, 'value', String(value))
  const isUnheard = !ended && (!connection.live || !connection.workers)
  set(section.dataset, 'unheard', String(isUnheard)) // figures are pale: they are those of the last entry
  drawReached(isOdd)
  drawFact('elapsed', ended ? 'Took' : 'Elapsed', seconds === undefined ? '–' : (ended ? duration : elapsed)(seconds))
  drawLeft(isUnheard)
  drawFact('speed', done ? 'Mean speed' : 'Speed', ended && !done ? '–' : speed ?? '–')
  set(element('speed-fact', HTMLElement), 'hidden', run.start !== undefined && !run.progress)
  for (const level of /** @type {const} */ (['warning', 'error'])) {
    const known = run.count(level)
    const isSoFar = !!ended && !done && run.listed?.[`${level}s`] === undefined
    const figure = drawFact(`${level}s`, level === 'error' ? 'Errors' : 'Warnings', compact(known), isSoFar)
    figure.toggleAttribute('data-some', known > 0)
  }
  drawHint()
}

/** @param {string} id @param {string} name @param {string} value @param {boolean} [isPale] not known for sure */
function drawFact(id, name, value, isPale = false) {
  const figure = element(id, HTMLElement)
  setText(figure, value)
  figure.toggleAttribute('data-pale', isPale)
  if (figure.previousElementSibling) setText(figure.previousElementSibling, name)
  return figure
}

function drawReached(/** @type {boolean} */ isOdd) {
  const { part, progress, step, ended, start, store } = run
  const name = step?.name && !ended ? step.name : 'Progress'
  if (part !== undefined) drawFact('percent', name, `${Math.floor(part * 100)} %`, isOdd)
  else if (progress) drawFact('percent', name, reached(progress.current, undefined, progress.unit))
  else drawFact('percent', start ? 'Entries' : 'Progress', start ? compact(store.count) : '–')
}

// When it will be done; where that is not known, whether it still moves; in the end, when it was.
function drawLeft(/** @type {boolean} */ isUnheard) {
  const { left, seconds = 0, start, ended, progress, isOdd, silence } = run
  if (ended) return drawFact('left', 'Ended', start ? time(start.time + seconds * 1000, start.time) : '–')
  const second = `${run.id} ${isUnheard} ${Math.floor(Date.now() / 1000)}`
  if (second === leftAt) return // an estimate that dances is none
  leftAt = second
  const isMoving = progress?.total !== undefined && !isOdd && silence < SILENT
  if (isMoving) drawFact('left', 'Left', left === undefined || seconds < 1.5 || isUnheard ? '–' : estimate(left))
  else if (!start || isUnheard || run.read < 1) drawFact('left', start ? 'Last entry' : 'Left', '–')
  else drawFact('left', 'Last entry', silence < 1.5 ? 'just now' : `${elapsed(silence)} ago`)
}

// One sentence on what the figures do not say.
function drawHint() {
  const { ended, done, state, start, progress } = run
  const usual = start && !ended && !progress?.total ? usualSeconds(run.method) : undefined
  let words = usual === undefined ? '' : `usually ${duration(usual)}`
  if (state === 'cancelling') words = GRACE
  if (ended && !done) words = `Its log is still being read: ${Math.floor(run.read * 100)} %`
  else if (start && !ended && connection.live && !connection.workers) words = `${GOES_ON} the workers server answers.`
  else if (start && !ended && connection.lost && !connection.live) words = `${GOES_ON} the connection is back.`
  setText(element('hint', HTMLElement), words)
}

// One item for each part of the work; those that the log tells of lead there.
function drawSteps() {
  const shown = run.steps.slice(-MOST_STEPS)
  while (steps.children.length > shown.length) steps.lastElementChild?.remove()
  shown.forEach((step, at) => {
    const item = steps.children[at] ?? steps.appendChild(make('li', '', make('button', 'step')))
    const button = /** @type {HTMLButtonElement} */ (item.firstElementChild)
    const isLast = at === shown.length - 1
    const state = isLast && run.ended && step.n >= 0 ? run.state : 'ok'
    set(button, 'type', 'button')
    set(button, 'disabled', step.n < 0)
    set(button.dataset, 'state', step.seconds === undefined ? 'running' : state)
    set(button.dataset, 'n', String(step.n))
    setText(button, wordsFor(step, MARKS[state] ?? ''))
  })
}

/** @param {Step} step @param {string} mark of its end */
function wordsFor({ name, progress, seconds }, mark) {
  const far = progress && reached(progress.current, progress.total, progress.unit)
  if (seconds === undefined) return [name, far].filter(Boolean).join(' ')
  return `${name || far} ${mark} ${duration(seconds)}`
}

function drawProblem() {
  const { problem: trouble } = run
  set(problem, 'hidden', !trouble)
  if (!trouble) return
  problem.dataset.kind = trouble.kind
  setText(element('problem-words', HTMLElement), trouble.text)
  set(wait, 'hidden', !trouble.canWait)
  set(retry, 'hidden', !trouble.canRetry)
  set(other, 'hidden', !trouble.other && run.state !== 'unknown')
  setText(other, trouble.other ? 'Go to that run' : 'To the first page')
  other.href = trouble.other ? `?run=${trouble.other}` : './'
}

// The log is silent for screen readers; this line speaks at each change of state, else seldom.
function announce() {
  const state = `${run.id} ${run.state}`
  if (state === saidState && Date.now() - saidAt < TALKING) return
  saidState = state
  saidAt = Date.now()
  const far = run.part === undefined || run.ended ? '' : `, ${Math.floor(run.part * 100)} percent`
  const [warnings, errors] = [run.count('warning'), isFlawed() ? 0 : run.count('error')]
  const found = (warnings ? `, ${counted(warnings, 'warning')}` : '') + (errors ? `, ${counted(errors, 'error')}` : '')
  setText(status, `${run.title}: ${run.words}${far}${found}`)
}

// In a background tab, the title and a ring beside it.
framePicture(() => {
  const far = run.part === undefined ? '…' : `${Math.floor(run.part * 100)} %`
  const mark = isFlawed() ? '!' : MARKS[run.state] ?? far
  set(document, 'title', run.id ? `${mark} · ${run.title} · longrun` : 'longrun')
  setAttribute(icon, 'href', run.id && run.start ? ring(run.part ?? 0.3) : 'favicon.svg')
  for (const run of runs.values()) if (run.done && run.wantsNotice) giveNotice(run)
})

/** @type {Record<string, string>} */
const COLOURS = { ok: '#177a48', error: '#c02b2b', died: '#c02b2b', cancelled: '#8a93a6' }

/** @param {number} part 0 to 1 */
function ring(part) {
  const colour = isFlawed() ? '#c98a12' : COLOURS[run.state] ?? '#3b6cf0'
  const circle = '<circle cx="16" cy="16" r="12" fill="none" stroke-width="6" transform="rotate(-90 16 16)"'
  const arc = `${circle} stroke="${colour}" stroke-dasharray="${Math.round(part * 75.4)} 76"/>`
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">${circle} stroke="#8a93a655"/>${arc}</svg>`
  return `data:image/svg+xml,${encodeURIComponent(svg)}`
}

function giveNotice(/** @type {Run} */ run) {
  run.wantsNotice = false
  try {
    const notice = new Notification(`${run.title}: ${run.words}`, { body: run.done?.reason ?? '', tag: run.id })
    notice.onclick = () => { focus(); notice.close() }
  } catch {
    // Chrome on Android has the constructor, and throws: the title tells all the same
  }
}

cancel.addEventListener('click', () => cancelRun(run))
steps.addEventListener('click', ({ target }) => target instanceof HTMLElement && revealEntry(Number(target.dataset.n ?? 0)))
repeat.addEventListener('click', () => repeatRun(run))
change.addEventListener('click', () => fillForm(run))
wait.addEventListener('click', () => attempt(run, true))
retry.addEventListener('click', () => attempt(run))
notify.addEventListener('click', async () => {
  const asking = run
  const permission = await Notification.requestPermission().catch(() => 'denied') // a frame may not even ask
  asking.wantsNotice = !asking.wantsNotice && permission === 'granted'
  redraw()
})
copies('share', () => location.href.replace(/&line=.*/, ''))
