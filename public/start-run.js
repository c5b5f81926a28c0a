// From a call to a running run: upload, call, and what to do when the call is refused. The run is in view from the
// first moment, and its log is followed before it is called.

import { element, redraw } from './draw.js'
import { fetchList, followRun, goTo, listed, listedRun, openRun } from './followed-runs.js'
import { clockAhead, makeId, request, upload } from './requests.js'
/** @import { Answer } from './requests.js' */
/** @import { Call, Run } from './run-state.js' */

const uploaded = /** @type {WeakMap<File, string>} */ (new WeakMap()) // under which names

export function startRun(/** @type {Call} */ call) {
  const run = openRun(makeId(), call)
  goTo(`?run=${run.id}`)
  element('main', HTMLElement).focus({ preventScroll: true }) // the button that had the focus has gone
  return attempt(run)
}

/** What passes by itself, so that a run which waits goes on waiting. @type {Record<number, string>} */
export const PASSING = {
  0: 'The web server does not answer.',
  401: 'The server asks for its token: enter it in another tab.',
  503: 'All places are taken.',
  504: 'The workers server does not answer.',
}

/** The same id on every attempt, and no id is ever used twice: a call whose answer was lost can be repeated without
 * running twice. A new attempt ends the one before. @param {Run} run @param {boolean} [waits] for a free place */
export async function attempt(run, waits = false) {
  run.attempt.abort()
  run.attempt = new AbortController()
  const { signal } = run.attempt
  if (!waits) run.become('asking')
  for (;;) {
    followRun(run) // each time: the server may have asked for its token
    const answer = await uploadAndCall(run, signal)
    if (signal.aborted) return // by a person, meanwhile
    if (answer.ok && !run.start) run.become('joining')
    if (answer.ok || run.start) return fetchList()
    if (!waits || !(answer.status in PASSING)) return explainRefusal(run, answer)
    const text = `${PASSING[answer.status]} This run starts as soon as it can; keep the page open.`
    run.become('queued', { kind: answer.status === 503 ? 'quiet' : 'busy', text })
    redraw()
    await new Promise(resolve => setTimeout(resolve, answer.retryAfter * 1000))
    if (signal.aborted) return
  }
}

/** @param {Run} run @param {AbortSignal} signal @returns {Promise<Answer>} */
async function uploadAndCall(run, signal) {
  const { id, call, phase } = run
  const given = call?.args ?? []
  const files = given.filter(arg => arg instanceof File)
  const missing = files.filter(file => !uploaded.has(file))
  if (missing.length) run.steps = []
  for (const file of missing) {
    const answer = await uploadFile(run, file, signal)
    if (!answer.ok) return answer
  }
  if (missing.length && !signal.aborted) run.become(phase)
  redraw()
  const args = given.map(arg => (arg instanceof File ? uploaded.get(arg) : arg))
  const answer = await request('POST', 'tasks', { ...call, id, args })
  if (answer.ok || answer.status === 400) files.forEach(file => uploaded.delete(file)) // the run uses them up
  const isSwept = answer.status === 400 && missing.length < files.length && !signal.aborted
  return isSwept ? uploadAndCall(run, signal) : answer
}

async function uploadFile(/** @type {Run} */ run, /** @type {File} */ file, /** @type {AbortSignal} */ signal) {
  const now = () => Date.now() - clockAhead
  run.become('uploading')
  run.beginStep('upload', now())
  const answer = await upload(file, signal, (current, total) => run.reach({ current, total, unit: 'bytes' }, now()))
  run.endStep(now())
  if (answer.ok) uploaded.set(file, answer.data.file)
  const why = answer.isUnreadable ? `${file.name} ${UNREADABLE}` : `The file could not be uploaded: ${answer.why}`
  return { ...answer, why, isUpload: true }
}

const UNREADABLE = 'cannot be read: removed, changed, a folder, or held by another program. Choose it again, or a copy.'
const NO_ANSWER = 'The web server did not answer. The call may have arrived all the same: this page follows the run, '
  + 'and shows it if so. Trying again is safe, it cannot run twice.'
const NO_WORKERS = 'The workers server does not answer, so nothing was started. Is it running?'

async function explainRefusal(/** @type {Run} */ run, /** @type {Answer} */ { status, why, isUpload, isUnreadable }) {
  const taken = `All places are taken: ${why}. It can start by itself when one is free.`
  if (isUpload) run.become('refused', { kind: 'error', canRetry: !isUnreadable, text: why })
  else if (status === 0) run.become('unsure', { kind: 'error', canRetry: true, text: NO_ANSWER })
  else if (status === 503) run.become('full', { kind: 'busy', canRetry: true, canWait: true, text: taken })
  else if (status === 504) run.become('refused', { kind: 'error', canRetry: true, text: NO_WORKERS })
  else if (status === 409) await pointToOther(run, why)
  else run.become('refused', { kind: 'error', text: `Refused: ${why}` })
  redraw()
}

/** Running already, or its id used: by a first attempt of this very call, if its answer was lost. */
async function pointToOther(/** @type {Run} */ run, /** @type {string} */ why) {
  await fetchList(true)
  const other = listed?.find(other => run.call?.callId && other.callId === run.call.callId && !other.outcome)?.id
  if (listedRun(run.id)) run.become('joining')
  else run.become('refused', { kind: 'busy', text: `This is already running: ${why}.`, ...(other && { other }) })
}

/** Whatever there is to cancel: the upload, the waiting for a place, the run. @param {Run} run */
export async function cancelRun(run) {
  if (run.state === 'uploading' || run.state === 'queued') {
    run.attempt.abort()
    const text = run.state === 'queued' ? 'Stopped waiting.' : 'The upload was stopped.'
    return run.become('refused', { kind: 'quiet', canRetry: true, text })
  }
  if (run.state !== 'running') return
  run.become('cancelling')
  const answer = await request('DELETE', `tasks/${run.id}`)
  if (answer.ok || run.done) return
  const what = answer.status === 0 ? 'Perhaps not cancelled' : 'Not cancelled'
  run.become('joining', { kind: 'error', text: `${what}: ${answer.why}.`, passes: true })
  redraw()
}
