// The head of the run in view: its name and state, how far it is and since when nothing has come, what went wrong with
// its start, and what can be done with it; in a background tab the title, and a notice at its end if one was asked for.

import { CALM, element, elements, make, picture, redraw, set, setAttribute, setText, SLOW } from './draw.js'
import { connection, inView as run, runs, usualSeconds } from './followed-runs.js'
import { canRepeat, fillForm, repeatRun } from './forms.js'
import { tried } from './kept.js'
import { copies } from './log-tools.js'
import { showEntry } from './log-view.js'
import { attempt, cancelRun } from './start-run.js'
import { clock, compact, counted, duration, elapsed, estimate, minutes, reached } from './words.js'

const TALKING = 10_000 // milliseconds between two announcements to a screen reader, unless the state changes
const SILENT = 10 // seconds without an entry after which an estimate of what is left means nothing
/** of the states in which it is over, in the title, with the ring's colour @type {Record<string, [string, string]>} */
const MARKS = {
  ok: ['✓', '#177a48'], flawed: ['!', '#c98a12'], error: ['✕', '#c02b2b'], died: ['✕', '#c02b2b'],
  cancelled: ['–', '#8a93a6'], unknown: ['–', '#8a93a6'], refused: ['✕', '#c02b2b'], full: ['…', '#8a93a6'],
}

const [section, status, problem, steps] = elements(HTMLElement, 'run', 'status', 'problem', 'steps')
const [cancel, repeat, change, notify] = elements(HTMLButtonElement, 'cancel', 'again', 'change', 'notify')
const [wait, retry] = elements(HTMLButtonElement, 'wait', 'retry')
const [other, bar] = [element('other', HTMLAnchorElement), element('bar', HTMLProgressElement)]

const canNotify = 'Notification' in window
let [isBlocked, saidState, saidAt] = [false, '', 0]

picture(() => { isBlocked = canNotify && Notification.permission === 'denied' }, SLOW) // another process is asked
const pictures = [drawName, drawButtons, drawMeter, drawLeft, drawHint, drawSteps, drawProblem, announce]
for (const draw of pictures) picture(draw, CALM)

const isFlawed = () => run.state === 'ok' && run.count('error') > 0
const isOver = () => run.state in MARKS
const isUnheard = () => !run.ended && (!connection.live || !connection.workers)

function drawName() {
  set(section.dataset, 'state', run.state)
  section.toggleAttribute('data-flawed', isFlawed())
  const reason = run.done?.reason.split('\n', 1)[0] ?? ''
  const isTelling = run.state === 'cancelled' && reason && reason !== 'cancelled' && reason.length < 100
  setText(element('state-words', HTMLElement), isTelling ? `${run.words}: ${reason}` : run.words)
  setText(element('run-title', HTMLElement), run.title)
  const method = run.title.startsWith(`${run.method}(`) ? '' : run.method
  const about = [method, run.start && minutes(run.start.time)].filter(Boolean).join(' · ')
  setText(element('run-about', HTMLElement), about || 'Details')
  setText(element('run-details', HTMLElement), `${run.start ? `process ${run.start.pid}, ` : ''}id ${run.id}`)
}

function drawButtons() {
  const { state, wantsNotice } = run
  // what is hidden loses the focus, and with it the place of someone who has no mouse
  if (isOver() && document.activeElement === cancel) element('main', HTMLElement).focus({ preventScroll: true })
  set(cancel, 'hidden', isOver())
  set(cancel, 'disabled', ['cancelling', 'joining', 'asking', 'unsure'].includes(state))
  setText(cancel, state === 'cancelling' ? 'Cancelling …' : state === 'queued' ? 'Stop waiting' : 'Cancel')
  set(repeat, 'hidden', !isOver() || !run.start || !canRepeat(run))
  set(change, 'hidden', !isOver() || !canRepeat(run))
  set(notify, 'hidden', isOver() || !canNotify)
  set(notify, 'disabled', isBlocked)
  set(notify, 'ariaPressed', String(wantsNotice))
  setText(notify, isBlocked ? 'Notices blocked' : wantsNotice ? 'Will notify' : 'Notify me')
}

// A figure that is not known for sure is pale: that of the last entry while nothing is heard, or of a log half read.
function drawMeter() {
  const { part, progress, step, start, store, seconds, ended, done, speed, isOdd } = run
  set(section.dataset, 'unheard', String(isUnheard()))
  // without the attribute it is indeterminate (it runs, nobody knows how far), and its property is 0 then, too
  const value = part ?? (isOver() || run.state === 'queued' ? 0 : undefined)
  setAttribute(bar, 'value', value?.toString())
  const name = !ended && step?.name || 'Progress'
  if (part !== undefined) drawFact('percent', name, `${Math.floor(part * 100)} %`, isOdd)
  else if (progress) drawFact('percent', name, reached(progress.current, undefined, progress.unit))
  else drawFact('percent', start ? 'Entries' : 'Progress', start ? compact(store.count) : '–')
  drawFact('elapsed', ended ? 'Took' : 'Elapsed', seconds === undefined ? '–' : (ended ? duration : elapsed)(seconds))
  drawFact('speed', done ? 'Mean speed' : 'Speed', ended && !done ? '–' : speed ?? '–')
  set(element('speed-fact', HTMLElement).style, 'visibility', start && !progress ? 'hidden' : '') // its place stays
  for (const level of /** @type {const} */ (['warning', 'error'])) {
    const figure = element(`${level}s`, HTMLElement)
    setText(figure, compact(run.count(level)))
    figure.toggleAttribute('data-some', run.count(level) > 0)
    figure.toggleAttribute('data-pale', !!ended && !done && run.listed?.[`${level}s`] === undefined)
  }
}

/** @param {string} id @param {string} name @param {string} value @param {boolean} [isPale] */
function drawFact(id, name, value, isPale = false) {
  const figure = element(id, HTMLElement)
  setText(figure, value)
  figure.toggleAttribute('data-pale', isPale)
  if (figure.previousElementSibling) setText(figure.previousElementSibling, name)
}

// When it will be done; where that is not known, whether it still moves; in the end, when it was.
function drawLeft() {
  const { left, seconds = 0, start, ended, progress, step, isOdd, silence } = run
  const end = start && clock(start.time + seconds * 1000, start.time).replace(/\.\d+/, '') // in whole seconds
  if (ended) return drawFact('left', 'Ended', end ?? '–')
  const isMoving = progress?.total !== undefined && !isOdd && silence < SILENT
  const name = step?.name ? `Left of ${step.name}` : 'Left'
  if (isMoving) drawFact('left', name, left === undefined || seconds < 1.5 || isUnheard() ? '–' : estimate(left))
  else if (!start || isUnheard() || run.read < 1) drawFact('left', start ? 'Last entry' : 'Left', '–')
  else drawFact('left', 'Last entry', silence < 1.5 ? 'just now' : `${elapsed(silence)} ago`)
}

// What the figures do not say.
function drawHint() {
  const { ended, done, state, start, progress, method } = run
  const usual = start && !ended && !progress?.total ? usualSeconds(method) : undefined
  let words = usual === undefined ? '' : `usually ${duration(usual)}`
  const back = connection.live ? 'the workers server answers' : 'the connection is back'
  if (state === 'cancelling') words = 'What does not end by itself is killed after a while.'
  if (start && isUnheard()) words = `The run goes on, and its log is kept: what is missing here comes when ${back}.`
  if (ended && !done) words = `Its log is still being read: ${Math.floor(run.read * 100)} %`
  setText(element('hint', HTMLElement), words)
}

// One for each part of the work; those that the log tells of lead there, and those to come are pale.
function drawSteps() {
  const all = [...run.steps, ...run.stepsToCome]
  while (steps.children.length > all.length) steps.lastElementChild?.remove()
  all.forEach(({ name, n, began, progress, seconds }, at) => {
    const item = steps.children[at] ?? steps.appendChild(make('li', '', make('button', 'step')))
    const button = /** @type {HTMLButtonElement} */ (item.firstElementChild)
    const isLast = at === run.steps.length - 1 && n >= 0
    const state = seconds !== undefined ? (isLast && run.ended ? run.state : 'ok') : began ? 'running' : 'coming'
    const far = progress ? reached(progress.current, progress.total, progress.unit) : ''
    const took = seconds === undefined ? '' : `${MARKS[state]?.[0]} ${duration(seconds)}`
    Object.assign(button.dataset, { state, n })
    set(button, 'disabled', n < 0)
    set(button, 'title', state === 'coming' ? 'To come, if it goes on as the last time' : '')
    setText(button, `${name || far} ${took || (name && far)}`.trim())
  })
}

function drawProblem() {
  const { kind = '', text = '', canWait, canRetry, other: otherRun } = run.problem ?? {}
  set(problem, 'hidden', !text)
  set(problem.dataset, 'kind', kind)
  setText(element('problem-words', HTMLElement), text)
  set(wait, 'hidden', !canWait)
  set(retry, 'hidden', !canRetry)
  set(other, 'hidden', !otherRun && run.state !== 'unknown')
  setText(other, otherRun ? 'Go to that run' : 'To the first page')
  setAttribute(other, 'href', otherRun ? `?run=${otherRun}` : './')
}

// The log is silent for screen readers; this line speaks at each change of state, else seldom.
function announce() {
  const state = `${run.id} ${run.state}`
  if (state === saidState && Date.now() - saidAt < TALKING) return
  ;[saidState, saidAt] = [state, Date.now()]
  const far = run.part === undefined || run.ended ? '' : `, ${Math.floor(run.part * 100)} percent`
  const [warnings, errors] = [run.count('warning'), isFlawed() ? 0 : run.count('error')]
  const found = (warnings ? `, ${counted(warnings, 'warning')}` : '') + (errors ? `, ${counted(errors, 'error')}` : '')
  setText(status, `${run.title}: ${run.words}${far}${found}`)
}

// In a background tab, the title, and a ring beside it.
picture(() => {
  const far = run.part === undefined ? '…' : `${Math.floor(run.part * 100)} %`
  const [mark, colour] = MARKS[isFlawed() ? 'flawed' : run.state] ?? [far, '#3b6cf0']
  set(document, 'title', run.id ? `${mark} · ${run.title} · longrun` : 'longrun')
  const circle = '<circle cx="16" cy="16" r="12" fill="none" stroke-width="6" transform="rotate(-90 16 16)"'
  const arc = `stroke="${colour}" stroke-dasharray="${Math.round((run.part ?? 0.3) * 16) * 4.7} 76"/>`
  const rings = `${circle} stroke="#8a93a655"/>${circle} ${arc}`
  const ring = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">${rings}</svg>`
  setAttribute(element('icon', HTMLLinkElement), 'href', `data:image/svg+xml,${encodeURIComponent(ring)}`)
  for (const run of runs.values()) if (run.done && run.wantsNotice) giveNotice(run)
}, CALM, false)

function giveNotice(/** @type {import('./run-state.js').Run} */ run) {
  run.wantsNotice = false
  tried(() => { // Chrome on Android has the constructor, and throws: the title tells all the same
    const notice = new Notification(`${run.title}: ${run.words}`, { body: run.done?.reason ?? '', tag: run.id })
    notice.onclick = () => { focus(); notice.close() }
  })
}

steps.addEventListener('click', ({ target }) => {
  if (target instanceof HTMLButtonElement) showEntry(Number(target.dataset['n']))
})
const deeds = /** @type {const} */ ([
  [cancel, cancelRun], [repeat, repeatRun], [change, fillForm], [retry, attempt], [wait, () => attempt(run, true)],
])
// Of a double click the second would fall on what has come to stand there, as Cancel does where Run again was.
for (const [button, act] of deeds) button.addEventListener('click', ({ detail }) => detail < 2 && act(run))
notify.addEventListener('click', async () => {
  const asking = run
  const permission = await Notification.requestPermission().catch(() => 'denied') // a frame may not even ask
  asking.wantsNotice = !asking.wantsNotice && permission === 'granted'
  redraw()
})
copies('share', () => location.href.replace(/&line=.*/, ''))
