// From a call to a running run: upload, call, and what to do when the call is refused. The run is in view from the
// first moment, and its log is followed before it is called.

import { element, redraw } from './draw.js'
import { fetchList, goTo, listedRun, openRun, runningCall } from './followed-runs.js'
import { makeId, request, upload } from './requests.js'

/** @import { Refused } from './requests.js' */
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
  run.problem = undefined
  const { id, call, phase } = run
  const files = (call?.args ?? []).filter(arg => arg instanceof File)
  const isUploaded = files.some(file => uploaded.has(file))
  const args = await uploadFiles(run)
  if (!args) return
  run.phase = phase === 'queued' ? 'queued' : 'asking'
  redraw()
  const answer = await request('POST', 'tasks', { ...call, id, args })
  if (answer.ok || answer.status === 400) files.forEach(file => uploaded.delete(file)) // the run uses them up
  if (answer.status === 400 && isUploaded) return callFor(run) // swept meanwhile? once more, with new ones
  if (answer.ok) {
    run.phase = 'joining'
    run.problem = undefined
    fetchList()
  } else if (!run.start) await explainRefusal(run, answer)
  redraw()
}

/** @param {Run} run @returns {Promise<unknown[] | undefined>} the arguments, or nothing when the upload failed */
async function uploadFiles(run) {
  const args = []
  for (const arg of run.call?.args ?? []) {
    const name = arg instanceof File ? uploaded.get(arg) ?? await uploadFile(run, arg) : arg
    if (arg instanceof File && !name) return
    args.push(name)
  }
  return args
}

/** @param {Run} run @param {File} file @returns {Promise<string | undefined>} */
async function uploadFile(run, file) {
  const stop = run.stopUpload = new AbortController()
  run.phase = 'uploading'
  redraw()
  const answer = await upload(file, stop.signal, (current, total) => {
    run.progress = { current, total, unit: 'bytes' }
    redraw()
  })
  run.progress = undefined
  if (answer.ok) {
    uploaded.set(file, answer.data.file)
    return answer.data.file
  }
  run.phase = 'refused'
  const retry = () => callFor(run)
  run.problem = stop.signal.aborted
    ? { kind: 'quiet', text: 'The upload was stopped.', retry }
    : { kind: 'error', text: `The file could not be uploaded: ${reasons(answer)}`, retry }
  redraw()
}

const NO_ANSWER = 'The web server did not answer. The call may have arrived all the same: this page follows the run, '
  + 'and shows it if so. Trying again is safe, it cannot run twice.'
const NOT_TOLD = 'The web server did not answer, so the run may not have been told.'
const NO_WORKERS = 'The workers server does not answer, so nothing was started. Is it running?'

/** @param {Run} run @param {Refused} answer */
async function explainRefusal(run, answer) {
  const { status } = answer
  const why = reasons(answer)
  const taken = `All places are taken: ${why}. It can start by itself when one is free.`
  const retry = () => callFor(run)
  const wait = () => waitForPlace(run, answer)
  if (status === 503 && run.phase === 'queued') return wait()
  run.phase = status === 0 ? 'unsure' : 'refused'
  if (status === 0) run.problem = { kind: 'error', retry, text: NO_ANSWER }
  else if (status === 503) run.problem = { kind: 'busy', retry, wait, text: taken }
  else if (status === 504) run.problem = { kind: 'error', retry, text: NO_WORKERS }
  else if (status === 409) await pointToOther(run, why)
  else run.problem = { kind: 'error', text: `Refused: ${why}` }
}

/** @param {Run} run @param {Refused} answer */
function waitForPlace(run, answer) {
  run.phase = 'queued'
  run.problem = { kind: 'quiet', text: 'All places are taken. This run starts when one is free; keep the page open.' }
  setTimeout(() => run.phase === 'queued' && callFor(run), answer.retryAfter * 1000)
  redraw()
}

/** Running already, or its id used: by a first attempt of this very call, if its answer was lost.
 * @param {Run} run @param {string} why */
async function pointToOther(run, why) {
  await fetchList()
  if (listedRun(run.id)) {
    run.phase = 'joining'
    return
  }
  const other = run.call?.callId ? runningCall(run.call.callId)?.id : undefined
  run.problem = { kind: 'busy', text: `This is already running: ${why}.`, ...(other && { other }) }
}

const reasons = (/** @type {Refused} */ answer) => answer.errors.join('; ')

/** Whatever there is to cancel: the upload, the waiting for a place, the run. @param {Run} run */
export async function cancelRun(run) {
  run.stopUpload?.abort()
  if (run.phase === 'queued' && !run.start) {
    run.phase = 'refused'
    run.problem = { kind: 'quiet', text: 'Stopped waiting.', retry: () => callFor(run) }
  }
  if (run.state === 'running') {
    run.cancelling = true
    run.problem = undefined
    redraw()
    const answer = await request('DELETE', `tasks/${run.id}`)
    if (!answer.ok && !run.done) {
      const text = answer.status === 0 ? NOT_TOLD : `Not cancelled: ${reasons(answer)}`
      run.problem = { kind: 'error', text, passes: true }
      run.cancelling = false
    }
  }
  redraw()
}
