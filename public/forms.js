// The forms of the start view, one for each function: made from what the server says of its parameters, with the
// better words of functions.js where it has some. Out of a form comes a call.

import { elements, make } from './draw.js'
import { toText } from './entries.js'
import { goTo } from './followed-runs.js'
import { knownFunction, rankOf } from './functions.js'
import { startRun } from './start-run.js'

/** @import { Field } from './functions.js' */
/** @import { Method, Parameter } from './requests.js' */
/** @import { Run } from './run-state.js' */
/** @typedef {HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement} Control */

/** @type {Record<string, string>} */
const INPUT_TYPES = { number: 'number', integer: 'number', boolean: 'checkbox', file: 'file' }

const [forms, problem, dropping] = elements(HTMLElement, 'forms', 'start-problem', 'dropping')
/** the forms by the names of their functions @type {Map<string, { form: HTMLFormElement, parameters: Parameter[] }>} */
const offered = new Map()

export function offerMethods(/** @type {Method[]} */ methods) {
  offered.clear()
  for (const method of methods.toSorted((one, other) => rankOf(one.name) - rankOf(other.name))) {
    offered.set(method.name, { form: makeForm(method), parameters: method.parameters })
  }
  forms.replaceChildren(...Array.from(offered.values(), ({ form }) => form))
}

/** @param {Run} run */
export const canRepeat = ({ method, phase, start }) => offered.has(method) && (!!start || phase !== 'refused')

/** Goes to the form of the run's function, with what the run was called with. @param {Run} run */
export function fillForm({ method, args, call }) {
  const { form, parameters = [] } = offered.get(method) ?? {}
  goTo('./')
  parameters.forEach((parameter, at) => {
    const control = /** @type {Control | null | undefined} */ (form?.elements.namedItem(parameter.name))
    if (control) fillControl(control, parameter, (call?.args ?? args)[at])
  })
  const [first] = form?.elements ?? []
  if (first instanceof HTMLElement) first.focus() // which scrolls there
}

function makeForm(/** @type {Method} */ { name, description, parameters }) {
  const known = knownFunction(name)
  const controls = parameters.filter(parameter => !known?.filled?.includes(parameter.name))
    .map(parameter => makeControl(parameter, known?.fields[parameter.name] ?? {}))
  const buttons = make('div', 'buttons', make('button', 'primary', known?.button ?? 'Start'))
  if (known?.sample) buttons.append(makeSampleButton(name, known.sample))
  const about = make('p', 'soft', known?.about ?? description)
  const form = make('form', 'card', make('h2', '', known?.heading ?? name), about, ...controls, buttons)
  form.dataset.method = name
  return form
}

/** @param {Parameter} parameter @param {Field} field */
function makeControl(parameter, { label, preset, accept = '', choices }) {
  const { name, type, description, default: usual, min = '', max = '' } = parameter
  const isLong = type === 'text' || type === 'object'
  const options = choices?.map(([words, value]) => new Option(words, JSON.stringify(value)))
  const control = options ? make('select', '', ...options) : make(isLong ? 'textarea' : 'input')
  const required = usual === undefined && !['boolean', 'string', 'text'].includes(type)
  Object.assign(control, { name, required, spellcheck: false })
  if (type === 'text') Object.assign(control, { rows: 9 })
  if (control instanceof HTMLInputElement) {
    const step = type === 'number' ? 'any' : ''
    Object.assign(control, { type: INPUT_TYPES[type] ?? 'text', step, accept, min: String(min), max: String(max) })
    if (type === 'file') control.addEventListener('change', () => showChoice(control))
  }
  if (type === 'object') control.addEventListener('input', () => control.setCustomValidity(whyNotJson(control)))
  fillControl(control, parameter, preset ?? usual)
  if (type === 'file') return make('label', 'drop', control, describeChoice())
  const about = description && !label ? [make('small', '', description)] : []
  return make('label', type === 'text' ? 'grow' : '', label ?? name, control, ...about)
}

/** A file can be given again only where it was chosen.
 * @param {Control} control @param {Parameter} parameter @param {unknown} value */
function fillControl(control, { type }, value) {
  if (value === undefined) return
  control.setCustomValidity('')
  if (control instanceof HTMLInputElement && type === 'boolean') control.checked = value === true
  else if (type !== 'file') control.value = toText(value)
  else if (value instanceof File && control instanceof HTMLInputElement) {
    const files = new DataTransfer()
    files.items.add(value)
    control.files = files.files
    showChoice(control)
  }
}

function describeChoice(name = '') {
  const more = name ? 'press the button below' : 'or drop it anywhere on this page'
  return make('span', 'drop-words', name || 'Choose a file', make('small', '', more))
}

function showChoice(/** @type {HTMLInputElement} */ input) {
  input.nextElementSibling?.replaceWith(describeChoice(input.files?.[0]?.name))
}

/** What the browser says at the field, before anything is sent. @param {Control} control */
function whyNotJson({ value, required }) {
  try {
    if (required || value.trim()) JSON.parse(value)
    return ''
  } catch (error) {
    return `Not JSON: ${error instanceof Error ? error.message : error}`
  }
}

/** @param {string} method @param {{ file: string, words: string }} sample */
function makeSampleButton(method, { file, words }) {
  const button = make('button', '', words)
  Object.assign(button, { type: 'button', id: 'sample' })
  button.addEventListener('click', async () => {
    const answer = await fetch(file).catch(() => undefined)
    problem.hidden = answer?.ok === true
    problem.textContent = 'The web server does not give the sample file.'
    if (answer?.ok) startWithFile(new File([await answer.blob()], file, { lastModified: 0 }), method)
  })
  return button
}

/** @param {FormDataEntryValue | null} given null: not ticked, or without a control @param {Parameter} parameter */
function readField(given, { type, default: usual }) {
  if (type === 'boolean') return given !== null
  if (typeof given !== 'string') return given?.name ? given : undefined
  if (given.trim() === '' && usual !== undefined) return usual
  if (type === 'object') return JSON.parse(given)
  return type === 'number' || type === 'integer' ? Number(given) : given
}

/** @param {string} method @param {(parameter: Parameter) => unknown} read */
function startWith(method, read) {
  const parameters = offered.get(method)?.parameters ?? []
  const given = Object.fromEntries(parameters.map(parameter => [parameter.name, read(parameter)]))
  const { values, callId } = knownFunction(method)?.complete?.(given) ?? { values: given, callId: '' }
  startRun({ method, args: parameters.map(({ name }) => values[name]), callId })
}

/** All else is as usual then. @param {File} file @param {string} [method] else the first that takes a file */
function startWithFile(file, method = [...offered.keys()].find(takesFile)) {
  if (method) startWith(method, ({ type, default: usual }) => (type === 'file' ? file : usual))
}

const takesFile = (/** @type {string} */ method) => offered.get(method)?.parameters.some(({ type }) => type === 'file')

forms.addEventListener('submit', submit => {
  submit.preventDefault()
  const form = /** @type {HTMLFormElement} */ (submit.target)
  const fields = new FormData(form)
  startWith(form.dataset.method ?? '', parameter => readField(fields.get(parameter.name), parameter))
})

const hasFiles = (/** @type {DragEvent} */ drag) => drag.dataTransfer?.types.includes('Files') ?? false
addEventListener('dragover', drag => {
  if (!hasFiles(drag)) return
  drag.preventDefault() // or the browser would leave the page and open the file
  dropping.hidden = false
})
addEventListener('dragleave', drag => { dropping.hidden ||= !drag.relatedTarget })
addEventListener('drop', drag => {
  if (!hasFiles(drag)) return
  drag.preventDefault()
  dropping.hidden = true
  for (const file of drag.dataTransfer?.files ?? []) startWithFile(file)
})
