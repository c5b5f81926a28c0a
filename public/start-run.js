// From a call to a running run: upload, call, and what to do when the call is refused. The run is in view from the
// first moment, and its log is followed before it is called.

import { element, redraw } from './draw.js'
import { fetchList, followRun, goTo, listedRun, openRun, runningCall } from './followed-runs.js'
import { makeId, request, upload } from './requests.js'

/** @import { Answer } from './requests.js' */
/** @import { Call, Run } from './run-state.js' */

/** the names under which files have been uploaded @type {WeakMap<File, string>} */
const uploaded = new WeakMap()

export function startRun(/** @type {Call} */ call) {
  const run = openRun(makeId(), call)
  goTo(`?run=${run.id}`)
  element('main', HTMLElement).focus({ preventScroll: true }) // the button that had the focus has gone
  return callFor(run)
}

/** The same id on every attempt, and no id is ever used twice: a call whose answer was lost can be repeated without
 * running twice. @param {Run} run @returns {Promise<void>} */
async function callFor(run) {
  const { id, call } = run
  const phase = run.phase === 'queued' ? 'queued' : 'asking'
  const isStopped = () => run.phase === 'refused' // by a person, meanwhile
  run.phase = phase
  if (phase === 'asking') run.problem = undefined
  followRun(run)
  const files = (call?.args ?? []).filter(arg => arg instanceof File)
  const isUploaded = files.some(file => uploaded.has(file))
  const refusal = await uploadFiles(run, files)
  if (isStopped()) return
  run.phase = phase
  redraw()
  const args = call?.args.map(arg => (arg instanceof File ? uploaded.get(arg) : arg))
  const answer = refusal ?? await request('POST', 'tasks', { ...call, id, args })
  if (answer.ok || answer.status === 400) files.forEach(file => uploaded.delete(file)) // the run uses them up
  if (answer.status === 400 && isUploaded && !isStopped()) return callFor(run) // swept meanwhile? once more
  if (answer.ok) {
    run.phase = 'joining'
    run.problem = undefined
    fetchList()
  } else if (!run.start && !isStopped()) await explainRefusal(run, answer, refusal !== undefined)
  redraw()
}

/** Those that the server does not have yet.
 * @param {Run} run @param {File[]} files @returns {Promise<Answer | undefined>} what was said to one that failed */
async function uploadFiles(run, files) {
  for (const file of files.filter(file => !uploaded.has(file))) {
    run.phase = 'uploading'
    run.stopUpload = new AbortController()
    const answer = await upload(file, run.stopUpload.signal, (current, total) => {
      run.progress = { current, total, unit: 'bytes' }
      redraw()
    })
    run.progress = undefined
    if (!answer.ok) return answer
    uploaded.set(file, answer.data.file)
  }
}

const NO_ANSWER = 'The web server did not answer. The call may have arrived all the same: this page follows the run, '
  + 'and shows it if so. Trying again is safe, it cannot run twice.'
const NO_WORKERS = 'The workers server does not answer, so nothing was started. Is it running?'

/** What passes by itself, so that a run which waits goes on waiting. @type {Record<number, string>} */
export const PASSING = {
  0: 'The web server does not answer.',
  401: 'The server asks for its token: enter it in another tab.',
  503: 'All places are taken.',
  504: 'The workers server does not answer.',
}

/** @param {Run} run @param {Answer} answer @param {boolean} isUpload */
async function explainRefusal(run, answer, isUpload) {
  const { status, why } = answer
  const retry = () => callFor(run)
  const wait = () => waitForPlace(run, answer)
  if (run.phase === 'queued' && status in PASSING) return wait()
  run.phase = status === 0 && !isUpload ? 'unsure' : 'refused'
  const taken = `All places are taken: ${why}. It can start by itself when one is free.`
  if (isUpload) run.problem = { kind: 'error', retry, text: `The file could not be uploaded: ${why}` }
  else if (status === 0) run.problem = { kind: 'error', retry, text: NO_ANSWER }
  else if (status === 503) run.problem = { kind: 'busy', retry, wait, text: taken }
  else if (status === 504) run.problem = { kind: 'error', retry, text: NO_WORKERS }
  else if (status === 409) await pointToOther(run, why)
  else run.problem = { kind: 'error', text: `Refused: ${why}` }
}

/** @param {Run} run @param {Answer} answer */
function waitForPlace(run, { status, retryAfter }) {
  const text = `${PASSING[status]} This run starts as soon as it can; keep the page open.`
  run.phase = 'queued'
  run.problem = { kind: status === 503 ? 'quiet' : 'busy', text }
  clearTimeout(run.nextTry) // of a person who has stopped waiting, and waits again
  run.nextTry = setTimeout(() => run.phase === 'queued' && callFor(run), retryAfter * 1000)
}

/** Running already, or its id used: by a first attempt of this very call, if its answer was lost.
 * @param {Run} run @param {string} why */
async function pointToOther(run, why) {
  await fetchList()
  const other = run.call?.callId ? runningCall(run.call.callId)?.id : undefined
  if (listedRun(run.id)) run.phase = 'joining'
  else run.problem = { kind: 'busy', text: `This is already running: ${why}.`, ...(other && { other }) }
}

/** Whatever there is to cancel: the upload, the waiting for a place, the run. @param {Run} run */
export async function cancelRun(run) {
  if (run.state === 'uploading' || run.state === 'queued') {
    const text = run.state === 'queued' ? 'Stopped waiting.' : 'The upload was stopped.'
    run.stopUpload?.abort()
    run.phase = 'refused'
    run.problem = { kind: 'quiet', text, retry: () => callFor(run) }
  }
  if (run.state !== 'running') return
  run.cancelling = true
  run.problem = undefined
  const answer = await request('DELETE', `tasks/${run.id}`)
  if (answer.ok || run.done) return
  const what = answer.status === 0 ? 'Perhaps not cancelled' : 'Not cancelled'
  run.problem = { kind: 'error', text: `${what}: ${answer.why}.`, passes: true }
  run.cancelling = false
  redraw()
}
