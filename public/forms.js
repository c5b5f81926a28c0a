// The forms of the start view, one for each function: made from what the server says of its parameters, with the
// better words of functions.js where it has some. Out of a form comes a call.

import { element, elements, make, set } from './draw.js'
import { goTo } from './followed-runs.js'
import { DEMO, knownFunction, rankOf } from './functions.js'
import { parseJson } from './requests.js'
import { startRun } from './start-run.js'
import { bytes, toText } from './words.js'
/** @import { Method, Parameter } from './requests.js' */
/** @import { Run } from './run-state.js' */
/** @typedef {HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement} Control */

/** @type {Record<string, string>} */
const INPUT_TYPES = { number: 'number', integer: 'number', boolean: 'checkbox', file: 'file' }

const demo = element('demo', HTMLButtonElement)
const [forms, problem, dropping] = elements(HTMLElement, 'forms', 'start-problem', 'dropping')
/** what is offered, by the names of the functions. Trap: a form has its fields as properties, in place of its own, so a
 * parameter may be called `elements` or `append`: nothing is asked of a form that has some.
 * @type {Map<string, { parameters: Parameter[], controls: Map<string, Control> }>} */
const offered = new Map()

export function offerMethods(/** @type {Method[]} */ methods) {
  forms.replaceChildren(...methods.toSorted((one, other) => rankOf(one.name) - rankOf(other.name)).map(makeForm))
  set(demo, 'hidden', !offered.has(DEMO.method))
}

export const canRepeat = (/** @type {Run} */ { method }) => offered.has(method)

/** At once; where a file is missing, as a page keeps none over a reload, by the form that names it. @param {Run} run */
export function repeatRun(run) {
  const args = run.call?.args ?? run.args
  const parameters = offered.get(run.method)?.parameters ?? []
  const isMissing = parameters.some(({ type }, at) => type === 'file' && args[at] && !(args[at] instanceof File))
  if (isMissing) return fillForm(run)
  startRun({ method: run.method, args, callId: run.call?.callId ?? run.start?.callId ?? '' })
}

/** Goes to the form of the run's function, with what the run was called with. @param {Run} run */
export function fillForm({ method, args, call, title }) {
  const { parameters = [], controls } = offered.get(method) ?? {}
  goTo('./')
  parameters.forEach((parameter, at) => {
    const control = controls?.get(parameter.name)
    if (control) fillControl(control, parameter, (call?.args ?? args)[at], title)
  })
  controls?.values().next().value?.focus() // which scrolls there
}

function makeForm(/** @type {Method} */ { name, description, parameters }) {
  const known = knownFunction(name)
  const controls = /** @type {Map<string, Control>} */ (new Map())
  offered.set(name, { parameters, controls })
  const labels = parameters.filter(parameter => !known?.filled?.includes(parameter.name))
    .map(parameter => makeControl(parameter, known?.fields[parameter.name] ?? {}, controls))
  const buttons = make('div', 'buttons', make('button', 'primary', known?.button ?? 'Start'))
  if (known?.sample) buttons.append(makeSampleButton(name, known.sample))
  const form = make('form', 'card', make('h2', '', known?.heading ?? name), make('p', 'soft', description))
  form.dataset.method = name
  form.addEventListener('submit', submit => {
    submit.preventDefault()
    const fields = new FormData(form)
    startWith(name, parameter => readField(fields.get(parameter.name), parameter))
  })
  form.append(...labels, buttons)
  return form
}

/** @param {Parameter} parameter @param {import('./functions.js').Field} field @param {Map<string, Control>} controls */
function makeControl(parameter, { label, preset, accept = '', choices }, controls) {
  const { name, type, description, default: usual, min = '', max = '' } = parameter
  const chosen = choices ?? parameter.choices?.map(choice => /** @type {const} */ ([String(choice), choice]))
  const options = chosen?.map(([words, value]) => new Option(words, JSON.stringify(value)))
  const isLong = type === 'text' || type === 'object'
  const control = options ? make('select', '', ...options) : make(isLong ? 'textarea' : 'input')
  const required = usual === undefined && !['boolean', 'string', 'text'].includes(type)
  controls.set(name, control)
  Object.assign(control, { name, required, spellcheck: false })
  if (type === 'text') Object.assign(control, { rows: 9 })
  if (control instanceof HTMLInputElement) {
    const step = type === 'number' ? 'any' : ''
    Object.assign(control, { type: INPUT_TYPES[type] ?? 'text', step, accept, min, max })
    if (type === 'file') {
      const drop = make('label', 'drop', control, make('span', 'drop-words'))
      control.addEventListener('change', () => showChoice(control))
      showChoice(control)
      return drop
    }
  }
  if (type === 'object') control.addEventListener('input', () => control.setCustomValidity(whyNotJson(control)))
  fillControl(control, parameter, preset ?? usual)
  const about = description && !label ? [make('small', '', description)] : []
  return make('label', type === 'text' ? 'grow' : '', label ?? name, control, ...about)
}

/** A file can be given again only where it was chosen.
 * @param {Control} control @param {Parameter} parameter @param {unknown} value @param {string} [title] of its run */
function fillControl(control, { type }, value, title) {
  if (value === undefined) return
  control.setCustomValidity('')
  if (control instanceof HTMLSelectElement) control.value = JSON.stringify(value)
  else if (control instanceof HTMLInputElement && type === 'boolean') control.checked = value === true
  else if (type !== 'file') control.value = toText(value)
  else if (control instanceof HTMLInputElement) {
    const files = new DataTransfer()
    if (value instanceof File) files.items.add(value)
    control.files = files.files
    showChoice(control, title)
  }
}

/** @param {HTMLInputElement} input @param {string} [title] of a run for which it was chosen before a reload */
function showChoice(input, title) {
  const [file] = input.files ?? []
  const more = file ? `${bytes(file.size)}, press the button below` : 'or drop it anywhere on this page'
  const words = file?.name ?? (title ? `Choose it again for ${title}` : 'Choose a file')
  input.nextElementSibling?.replaceChildren(words, make('small', '', more))
}

/** What the browser says at the field, before anything is sent. @param {Control} control */
const whyNotJson = ({ value, required }) => ((required || value.trim()) && parseJson(value) === undefined
  ? 'Not JSON: names and texts stand in double quotes, and no comma behind the last' : '')

function makeSampleButton(/** @type {string} */ method, /** @type {string} */ file) {
  const button = make('button', '', 'Try the sample file')
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
function readField(given, { type, choices, default: usual }) {
  if (type === 'boolean') return given !== null
  if (typeof given !== 'string') return given?.name ? given : undefined
  if (given.trim() === '' && usual !== undefined) return usual
  if (type === 'object' || choices) return JSON.parse(given)
  return type === 'number' || type === 'integer' ? Number(given) : given
}

function startWith(/** @type {string} */ method, /** @type {(parameter: Parameter) => unknown} */ read) {
  const parameters = offered.get(method)?.parameters ?? []
  const given = Object.fromEntries(parameters.map(parameter => [parameter.name, read(parameter)]))
  const { values, callId } = knownFunction(method)?.complete?.(given) ?? { values: given, callId: '' }
  startRun({ method, args: parameters.map(({ name }) => values[name]), callId })
}

/** All else is as usual then. @param {File} file @param {string} [given] else the first function that takes a file */
function startWithFile(file, given) {
  const method = given ?? [...offered].find(([, { parameters }]) => parameters.some(({ type }) => type === 'file'))?.[0]
  if (method) startWith(method, ({ type, default: usual }) => (type === 'file' ? file : usual))
}

demo.addEventListener('click', () => startWith(DEMO.method, ({ name, default: usual }) => DEMO.values[name] ?? usual))

for (const what of /** @type {const} */ (['dragover', 'drop'])) {
  addEventListener(what, drag => {
    if (!drag.dataTransfer?.types.includes('Files')) return
    drag.preventDefault() // or the browser would leave the page and open the file
    dropping.hidden = what === 'drop'
    if (what === 'drop') for (const file of drag.dataTransfer.files) startWithFile(file)
  })
}
addEventListener('dragleave', drag => { dropping.hidden ||= !drag.relatedTarget })
