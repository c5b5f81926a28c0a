// From a filled form, or a dropped file, to a running run: upload, call, and what to do when the call
// is refused. The run is in view from the first moment, and its log is followed before it is called.

import { ask, makeId, upload } from './api.js'
import { element, make, redraw } from './draw.js'
import { go, listedRun, look, openRun, remember, runningCall } from './runs.js'
import { importId } from './words.js'

/** @typedef {import('./run.js').Run} Run */
/** @typedef {import('./run.js').Call} Call */
/** @typedef {import('./api.js').Method} Method */
/** @typedef {import('./api.js').Parameter} Parameter */
/** @typedef {import('./api.js').Refused} Refused */

const forms = element('forms', HTMLElement)
/** @type {Map<string, Method>} */
const methods = new Map()
/** the names under which files have been uploaded @type {WeakMap<File, string>} */
const uploaded = new WeakMap()
/** @type {WeakMap<Run, AbortController>} */
const uploads = new WeakMap()

/** @param {Call} call */
export function start(call) {
  const run = openRun(makeId(), call)
  remember(run)
  go(`?run=${run.id}`)
  element('main', HTMLElement).focus({ preventScroll: true }) // the button that had the focus has gone
  return begin(run)
}

/** The same id on every attempt, and no id is ever used twice: a call whose answer was lost can be
 * repeated without running twice. @param {Run} run */
async function begin(run) {
  run.problem = undefined
  const args = await sendFiles(run)
  if (!args) return
  if (run.phase !== 'queued') run.phase = 'asking'
  redraw()
  const { id, call } = run
  const answer = await ask('POST', 'tasks', { id, method: call?.method, args, callId: call?.callId ?? '' })
  if (answer.ok) {
    run.phase = 'joining'
    run.problem = undefined
    look()
  } else if (!run.start) await refused(run, answer)
  redraw()
}

/** @param {Run} run @returns {Promise<unknown[] | undefined>} the arguments, or nothing when the upload failed */
async function sendFiles(run) {
  const args = []
  for (const arg of run.call?.args ?? []) {
    const name = arg instanceof File ? uploaded.get(arg) ?? await sendFile(run, arg) : arg
    if (arg instanceof File && !name) return
    args.push(name)
  }
  return args
}

/** @param {Run} run @param {File} file @returns {Promise<string | undefined>} */
async function sendFile(run, file) {
  const stop = new AbortController()
  uploads.set(run, stop)
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
  const { aborted } = stop.signal
  run.problem = { kind: aborted ? 'quiet' : 'error', text: aborted ? 'The upload was stopped.' : `The file could not be uploaded: ${reasons(answer)}`, retry: () => begin(run) }
  redraw()
}

/** @param {Run} run @param {Refused} answer */
async function refused(run, answer) {
  const retry = () => begin(run)
  const why = reasons(answer)
  if (answer.status === 503) return run.phase === 'queued' ? waitOn(run, answer) : offerToWait(run, answer)
  run.phase = answer.status === 0 ? 'unsure' : 'refused'
  if (answer.status === 0) run.problem = { kind: 'error', retry, text: 'The web server did not answer. The call may have arrived all the same: this page follows the run, and shows it if so. Trying again is safe, it cannot run twice.' }
  else if (answer.status === 504) run.problem = { kind: 'error', retry, text: 'The workers server does not answer, so nothing was started. Is it running?' }
  else if (answer.status === 409) await goToOther(run, why)
  else run.problem = { kind: 'error', text: `Refused: ${why}` }
}

/** @param {Run} run @param {Refused} answer */
function offerToWait(run, answer) {
  run.phase = 'refused'
  run.problem = {
    kind: 'busy',
    text: `All places are taken: ${reasons(answer)}. It can start by itself when one is free.`,
    wait: () => waitOn(run, answer),
    retry: () => begin(run),
  }
}

/** @param {Run} run @param {Refused} answer */
function waitOn(run, answer) {
  run.phase = 'queued'
  run.problem = { kind: 'quiet', text: 'All places are taken. This run starts when one is free; keep the page open.' }
  setTimeout(() => run.phase === 'queued' && begin(run), answer.retryAfter * 1000)
  redraw()
}

/** Running already, or its id used: by a first attempt of this very call, if its answer was lost.
 * @param {Run} run @param {string} why */
async function goToOther(run, why) {
  await look()
  if (listedRun(run.id)) {
    run.phase = 'joining'
    return
  }
  const other = run.call?.callId ? runningCall(run.call.callId)?.id : undefined
  run.problem = { kind: 'busy', text: `This is already running: ${why}.`, ...(other && { other }) }
}

/** @param {Refused} answer */
const reasons = answer => answer.errors.join('; ')

/** Cancel, whatever there is to cancel. @param {Run} run */
export async function stop(run) {
  uploads.get(run)?.abort()
  if (run.phase === 'queued' && !run.start) {
    run.phase = 'refused'
    run.problem = { kind: 'quiet', text: 'Stopped waiting.', retry: () => begin(run) }
  }
  if (run.state === 'running') {
    run.cancelling = true
    run.problem = undefined
    redraw()
    const answer = await ask('DELETE', `tasks/${run.id}`)
    if (!answer.ok && !run.done) {
      run.cancelling = false
      run.problem = { kind: 'error', text: answer.status === 0 ? 'The web server did not answer, so the run may not have been told.' : `Not cancelled: ${reasons(answer)}` }
    }
  }
  redraw()
}

/** @param {Run} run */
export function canRepeat(run) {
  if (run.phase === 'refused' && !run.start) return false
  return Boolean(run.method) && (run.call !== undefined || !methods.get(run.method ?? '')?.parameters.some(({ type }) => type === 'file'))
}

/** @param {Run} run */
export function again(run) {
  const files = run.call?.args.filter(arg => arg instanceof File) ?? []
  for (const file of files) uploaded.delete(file) // the first run has used it up
  return start(run.call ?? { method: run.method ?? '', args: run.args })
}

/** @param {File} file @param {unknown} [options] */
export function importFile(file, options = {}) {
  return start({ method: 'importCsv', args: [file, options], callId: importId(file) })
}

/** @param {Method[]} offered */
export function offer(offered) {
  for (const method of offered) methods.set(method.name, method)
  const standing = [...forms.querySelectorAll('form')]
  for (const form of standing) form.hidden = !methods.has(form.dataset.method ?? '')
  for (const method of offered) {
    if (!standing.some(form => form.dataset.method === method.name)) forms.append(makeForm(method))
  }
}

/** @param {Method} method */
function makeForm(method) {
  const form = make('form', 'card')
  form.dataset.method = method.name
  const buttons = make('div', 'buttons')
  buttons.append(make('button', 'primary', 'Start'))
  form.append(make('h2', '', method.name), make('p', 'soft', method.description), ...method.parameters.map(makeControl), buttons)
  return form
}

/** @param {Parameter} parameter */
function makeControl(parameter) {
  const label = make('label', '', parameter.name)
  const { name, type, description, default: preset, min, max } = parameter
  const control = type === 'text' || type === 'object' ? make('textarea') : make('input')
  if (control instanceof HTMLInputElement) control.type = { number: 'number', integer: 'number', boolean: 'checkbox', file: 'file' }[type] ?? 'text'
  if (control instanceof HTMLInputElement && type === 'number') control.step = 'any'
  if (control instanceof HTMLInputElement && type === 'boolean') control.checked = preset === true
  else if (preset !== undefined) control.value = type === 'object' ? JSON.stringify(preset) : String(preset)
  if (control instanceof HTMLInputElement && min !== undefined) control.min = String(min)
  if (control instanceof HTMLInputElement && max !== undefined) control.max = String(max)
  control.name = name
  control.dataset.type = type
  control.required = preset === undefined && type !== 'boolean' && type !== 'string' && type !== 'text'
  label.append(control)
  if (description) label.append(make('small', '', description))
  return label
}

/** @param {HTMLFormElement} form @returns {(unknown | File)[]} the arguments, in the order of the controls */
function readArguments(form) {
  return [...form.elements].flatMap(control => {
    if (control instanceof HTMLInputElement && control.dataset.type) return [readInput(control)]
    if (control instanceof HTMLTextAreaElement || control instanceof HTMLSelectElement) return [readText(control)]
    return []
  })
}

/** @param {HTMLInputElement} input */
function readInput(input) {
  switch (input.dataset.type) {
    case 'file': return input.files?.[0]
    case 'boolean': return input.checked
    case 'number':
    case 'integer': return input.valueAsNumber
    default: return input.value
  }
}

/** @param {HTMLTextAreaElement | HTMLSelectElement} control */
function readText(control) {
  if (control.dataset.type !== 'object') return control.value
  control.setCustomValidity('')
  try {
    return JSON.parse(control.value)
  } catch (error) {
    control.setCustomValidity(`Not JSON: ${error instanceof Error ? error.message : error}`)
    control.reportValidity()
    throw error
  }
}

forms.addEventListener('submit', submit => {
  submit.preventDefault()
  const form = /** @type {HTMLFormElement} */ (submit.target)
  const method = form.dataset.method ?? ''
  const args = readArguments(form)
  const [file] = args
  if (method === 'importCsv' && file instanceof File) importFile(file, args[1])
  else start({ method, args })
})
forms.addEventListener('input', ({ target }) => {
  if (target instanceof HTMLTextAreaElement) target.setCustomValidity('')
})
forms.addEventListener('change', ({ target }) => {
  if (target instanceof HTMLInputElement && target.type === 'file') showChoice(target)
})

/** @param {HTMLInputElement} input */
function showChoice(input) {
  const words = input.parentElement?.querySelector('.drop-words')
  const file = input.files?.[0]
  if (!words) return
  words.replaceChildren(file ? file.name : 'Choose a file', make('small', '', file ? 'press Import' : 'or drop it anywhere on this page'))
  input.parentElement?.toggleAttribute('data-chosen', Boolean(file))
}

element('sample', HTMLButtonElement).addEventListener('click', async () => {
  const answer = await fetch('sample.csv').catch(() => undefined)
  const problem = element('start-problem', HTMLElement)
  problem.hidden = answer?.ok === true
  problem.textContent = 'The web server does not give the sample file.'
  if (answer?.ok) importFile(new File([await answer.blob()], 'sample.csv', { lastModified: 0 }))
})

const dropping = element('dropping', HTMLElement)
/** @param {DragEvent} drag */
const hasFiles = drag => drag.dataTransfer?.types.includes('Files') ?? false
addEventListener('dragover', drag => {
  if (!hasFiles(drag)) return
  drag.preventDefault() // or the browser would leave the page and open the file
  dropping.dataset.on = ''
})
addEventListener('dragleave', drag => {
  if (!drag.relatedTarget) delete dropping.dataset.on
})
addEventListener('drop', drag => {
  if (!hasFiles(drag)) return
  drag.preventDefault()
  delete dropping.dataset.on
  for (const file of drag.dataTransfer?.files ?? []) importFile(file)
})
