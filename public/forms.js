// The forms of the start view, one for each function: made from what the server says of its parameters, with the
// better words of functions.js where it has some. Out of a form comes a call.

import { elements, make } from './draw.js'
import { toText } from './entries.js'
import { goTo } from './followed-runs.js'
import { FOR_DROPPED_FILES, knownFunction, rankOf } from './functions.js'
import { startRun } from './start-run.js'

/** @import { Fields } from './entries.js' */
/** @import { Field } from './functions.js' */
/** @import { Method, Parameter } from './requests.js' */
/** @import { Run } from './run-state.js' */
/** @typedef {HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement} Control */

/** @type {Record<string, string>} */
const INPUT_TYPES = { number: 'number', integer: 'number', boolean: 'checkbox', file: 'file' }

const [forms, problem, dropping] = elements(HTMLElement, 'forms', 'start-problem', 'dropping')
/** @type {Map<string, Method>} */
const methods = new Map()
/** @type {WeakMap<Element, Parameter>} */
const parameterOf = new WeakMap()

export function offerMethods(/** @type {Method[]} */ offered) {
  methods.clear()
  for (const method of offered) methods.set(method.name, method)
  forms.replaceChildren(...offered.toSorted((one, other) => rankOf(one.name) - rankOf(other.name)).map(makeForm))
}

/** @param {Run} run */
export const canRepeat = ({ method, phase, start }) => methods.has(method) && (!!start || phase !== 'refused')

/** Goes to the form of the run's function, with what the run was called with. @param {Run} run */
export function fillForm({ method, args, call }) {
  goTo('./')
  const form = [...forms.children].find(child => child instanceof HTMLFormElement && child.dataset.method === method)
  if (!(form instanceof HTMLFormElement)) return
  const given = call?.args ?? args
  methods.get(method)?.parameters.forEach(({ name }, at) => {
    const control = form.elements.namedItem(name)
    if (control && given[at] !== undefined) fillControl(/** @type {Control} */ (control), given[at])
  })
  const [first] = form.elements
  if (first instanceof HTMLElement) first.focus() // which scrolls there
}

/** A file can be given again only where it was chosen. @param {Control} control @param {unknown} value */
function fillControl(control, value) {
  const type = parameterOf.get(control)?.type
  if (control instanceof HTMLInputElement && type === 'boolean') control.checked = value === true
  else if (type === 'object') control.value = JSON.stringify(value)
  else if (type !== 'file') control.value = toText(value)
  else if (value instanceof File && control instanceof HTMLInputElement) {
    const files = new DataTransfer()
    files.items.add(value)
    control.files = files.files
    showChoice(control)
  }
}

function makeForm(/** @type {Method} */ { name, description, parameters }) {
  const known = knownFunction(name)
  const controls = parameters.filter(parameter => !known?.filled?.includes(parameter.name))
    .map(parameter => makeControl(parameter, known?.fields[parameter.name] ?? {}))
  const buttons = make('div', 'buttons', make('button', 'primary', known?.button ?? 'Start'))
  if (known?.sample) buttons.append(makeSampleButton(known.sample))
  const about = make('p', 'soft', known?.about ?? description)
  const form = make('form', 'card', make('h2', '', known?.heading ?? name), about, ...controls, buttons)
  form.dataset.method = name
  return form
}

/** @param {Parameter} parameter @param {Field} field */
function makeControl(parameter, field) {
  const { name, type, description, default: preset } = parameter
  const isLong = type === 'text' || type === 'object'
  const control = field.choices ? makeChoice(field.choices) : make(isLong ? 'textarea' : 'input')
  if (control instanceof HTMLInputElement) dressInput(control, parameter, field)
  control.spellcheck = false
  if (type === 'text') Object.assign(control, { rows: 9 })
  const value = field.preset ?? (type === 'object' ? JSON.stringify(preset) : preset)
  if (value !== undefined && type !== 'boolean' && type !== 'file') control.value = String(value)
  control.name = name
  control.required = preset === undefined && !['boolean', 'string', 'text'].includes(type)
  parameterOf.set(control, parameter)
  if (type === 'file') return makeDrop(/** @type {HTMLInputElement} */ (control))
  const about = description && !field.label ? [make('small', '', description)] : []
  return make('label', type === 'text' ? 'grow' : '', field.label ?? name, control, ...about)
}

function makeDrop(/** @type {HTMLInputElement} */ input) {
  const label = make('label', 'drop', input)
  showChoice(input)
  return label
}

/** @param {HTMLInputElement} input @param {Parameter} parameter @param {Field} field */
function dressInput(input, { type, default: preset, min, max }, { accept }) {
  if (accept) input.accept = accept
  input.type = INPUT_TYPES[type] ?? 'text'
  if (type === 'number') input.step = 'any'
  if (type === 'boolean') input.checked = preset === true
  if (min !== undefined) input.min = String(min)
  if (max !== undefined) input.max = String(max)
}

function makeChoice(/** @type {[words: string, value: unknown][]} */ choices) {
  return make('select', '', ...choices.map(([words, value]) => new Option(words, JSON.stringify(value))))
}

function showChoice(/** @type {HTMLInputElement} */ input) {
  const name = input.files?.[0]?.name
  const more = name ? 'press the button below' : 'or drop it anywhere on this page'
  input.nextElementSibling?.remove()
  input.after(make('span', 'drop-words', name ?? 'Choose a file', make('small', '', more)))
}

function makeSampleButton(/** @type {{ file: string, words: string }} */ { file, words }) {
  const button = make('button', '', words)
  button.type = 'button'
  button.id = 'sample'
  button.addEventListener('click', async () => {
    const answer = await fetch(file).catch(() => undefined)
    problem.hidden = answer?.ok === true
    problem.textContent = 'The web server does not give the sample file.'
    if (answer?.ok) startWithFile(new File([await answer.blob()], file, { lastModified: 0 }))
  })
  return button
}

/** @param {HTMLFormElement} form @returns {Fields | undefined} undefined when something in it cannot be sent */
function readForm(form) {
  /** @type {Fields} */
  const values = {}
  for (const element of form.elements) {
    const parameter = parameterOf.get(element)
    if (!parameter) continue
    const control = /** @type {Control} */ (element)
    try {
      values[parameter.name] = readControl(control, parameter)
    } catch (error) {
      control.setCustomValidity(`Not JSON: ${error instanceof Error ? error.message : error}`)
      control.reportValidity()
      return
    }
  }
  return values
}

/** Throws a SyntaxError for what is not JSON and should be. @param {Control} control @param {Parameter} parameter */
function readControl(control, { type, default: preset }) {
  if (control instanceof HTMLInputElement && type === 'file') return control.files?.[0]
  if (control instanceof HTMLInputElement && type === 'boolean') return control.checked
  if (control.value.trim() === '' && preset !== undefined) return preset
  if (type === 'object') return JSON.parse(control.value)
  return type === 'number' || type === 'integer' ? Number(control.value) : control.value
}

/** @param {string} name @param {Fields} given */
function startWith(name, given) {
  const { values, callId } = knownFunction(name)?.complete?.(given) ?? { values: given, callId: '' }
  const parameters = methods.get(name)?.parameters ?? []
  return startRun({ method: name, args: parameters.map(parameter => values[parameter.name]), callId })
}

function startWithFile(/** @type {File} */ file) {
  const { method, values } = FOR_DROPPED_FILES
  if (methods.has(method)) startWith(method, { ...values, file })
}

forms.addEventListener('submit', submit => {
  submit.preventDefault()
  const form = /** @type {HTMLFormElement} */ (submit.target)
  const values = readForm(form)
  if (values) startWith(form.dataset.method ?? '', values)
})
forms.addEventListener('input', ({ target }) => {
  if (target instanceof HTMLTextAreaElement) target.setCustomValidity('')
})
forms.addEventListener('change', ({ target }) => {
  if (target instanceof HTMLInputElement && target.type === 'file') showChoice(target)
})

const hasFiles = (/** @type {DragEvent} */ drag) => drag.dataTransfer?.types.includes('Files') ?? false
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
  for (const file of drag.dataTransfer?.files ?? []) startWithFile(file)
})
