// How an entry reads, whatever it holds. A task may report anything that JSON can say, in any field: the worst that may
// come of it is an odd row. What a program writes for a terminal is read as a terminal would show it.

import { duration, reached } from './words.js'

/** @typedef {import('../log.ts').Entry} Entry */
/** @typedef {Record<string, unknown>} Fields */

export const MORE_IN_LOG = '\n… (the whole log has all of it)'
const LONGEST_LINE = 2000 // of a row in the log; the whole text is one click away

/** Every kind of entry, and how it reads on one line: a kind that is missing here does not compile.
 * @type {Record<Entry['type'], (fields: Fields, data: unknown) => string>} */
const lines = {
  start: ({ method, args, pid }) => `${signature(toText(method), args)} started as process ${toText(pid)}`,
  msg: ({ msg }, data) => (typeof msg === 'string' && msg ? msg : toText(data)),
  progress: describeProgress,
  log: describeNote,
  warning: describeNote,
  error: describeNote,
  step: ({ name }) => toText(name),
  done: describeEnd,
}

/** The kinds, each with a number: its place in here. */
export const LEVELS = /** @type {Entry['type'][]} */ (Object.keys(lines))

/** @type {Record<string, string>} */
export const OUTCOMES = { ok: 'Finished', error: 'Failed', cancelled: 'Cancelled', died: 'Died' }

/** What is of no kind that the page knows is shown as a message. @param {Entry} entry */
export const levelOf = ({ type }) => LEVELS.indexOf(LEVELS.includes(type) ? type : 'msg')

/** @param {Entry} entry @returns {Fields} */
export const fieldsOf = ({ data }) => (typeof data === 'object' && data ? /** @type {any} */ (data) : {})
export const toText = (/** @type {unknown} */ told) => (typeof told === 'string' ? told : JSON.stringify(told) ?? '')
export const toNumber = (/** @type {unknown} */ value) =>
  (typeof value === 'number' && Number.isFinite(value) ? value : undefined)

/** The line of a row in the log. @param {Entry} entry */
export const describe = (entry, longest = LONGEST_LINE) =>
  cut(printable(lines[LEVELS[levelOf(entry)] ?? 'msg'](fieldsOf(entry), entry.data)), longest)

/** Whether an entry contains what is searched for, in its row or in what the row leaves out.
 * @param {Entry} entry @param {RegExp} query */
export const contains = (entry, query) =>
  query.test(describe(entry, Infinity)) || (entry.type !== 'msg' && query.test(JSON.stringify(entry.data)))

/** All that an entry says: a note as text, with real line breaks; anything else as JSON. @param {Entry} entry */
export function fullText(entry) {
  const { type, data } = entry
  const isNote = lines[type] === describeNote && typeof fieldsOf(entry)['msg'] === 'string'
  return printable(isNote ? noteText(fieldsOf(entry)) : typeof data === 'string' ? data : JSON.stringify(data, null, 2))
}

/** The message, its details, the stack, and the same of each cause. @param {Fields} fields @returns {string} */
function noteText({ msg, stack, cause, errors, ...details }) {
  const told = Object.entries(details).map(([name, value]) =>
    `${name}: ${typeof value === 'string' ? value : JSON.stringify(value, null, 2)}`)
  const causes = [cause ?? [], errors ?? []].flat().map(cause => 'Caused by: ' + (
    typeof cause === 'object' && cause ? noteText(/** @type {any} */ (cause)) : toText(cause)))
  return [toText(msg), told.join('\n'), toText(stack), ...causes].filter(Boolean).join('\n\n')
}

/** Where an error came from, and each of its causes: the lines of their stacks that somebody wrote.
 * @param {Fields} fields @returns {string[]} */
export function framesOf({ msg, stack, cause, errors }) {
  const [head = '', ...frames] = toText(stack ?? msg).replace(FOREIGN, '').split(/\n *(?=at )/)
  const causes = [cause ?? [], errors ?? []].flat().map(cause => framesOf(/** @type {any} */ (Object(cause))))
  return [`Caused by: ${head}`, ...frames.map(frame => frame.trim()), ...causes.flat()]
}

/** Frames of a stack that are longrun's or Node's, and not of what somebody wrote. */
export const FOREIGN = /((?:^ *at .*(?:node:internal|[/(](?:task|remote)\.ts:\d+).*\n?)+)/gm

/** @param {string} text @param {number} longest @param {string} [rest] in place of what was cut off */
export const cut = (text, longest, rest = ' …') => (text.length > longest ? text.slice(0, longest) + rest : text)

function describeProgress(/** @type {Fields} */ { current, total, unit }, /** @type {unknown} */ data) {
  const n = toNumber(current)
  return n === undefined ? toText(data) : reached(n, toNumber(total), toText(unit))
}

function describeNote(/** @type {Fields} */ fields, /** @type {unknown} */ data) {
  const { code, msg } = fields
  return [placeOf(fields), toText(code), toText(msg)].filter(Boolean).join('  ') || (msg === '' ? '' : toText(data))
}

function describeEnd(/** @type {Fields} */ { outcome, reason, seconds }) {
  const why = reason && reason !== outcome ? ` (${toText(reason)})` : ''
  return `${OUTCOMES[toText(outcome)] ?? toText(outcome)} after ${duration(toNumber(seconds) ?? 0)}${why}`
}

/** Where a warning or an error was found; empty when it does not say. @param {Fields} fields */
export const placeOf = ({ line, column }) =>
  (line === undefined ? '' : `line ${toText(line)}` + (column === undefined ? '' : `:${toText(column)}`))

export function signature(/** @type {string} */ method, /** @type {unknown} */ args) {
  const inside = Array.isArray(args) ? args.map(arg => JSON.stringify(arg)).join(', ') : ''
  return `${method}(${cut(inside, 79, '…')})`
}

// What a terminal does not show: colours and other sequences; titles and device strings, with their contents; controls.
// What stands between \x80 and \x9f may be a letter that was read in the wrong encoding: only whole sequences go.
const HIDDEN = new RegExp([
  /\x1b\[[0-?]*[ -/]*[@-~]?|\x9b[0-?]*[ -/]*[@-~]/, // CSI: colours, the cursor, modes
  /\x1b\][^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?|\x9d[^\x07\x9c\n]*[\x07\x9c]/, // OSC: titles, links
  /(?:\x1b[PX^_]|[\x90\x98\x9e\x9f])[^]*?(?:\x1b\\|\x9c)/, // DCS, SOS, PM, APC
  /\x1b[ -/]*[0-~]?/, // character sets, keypad, save and restore
  /[\x00-\x07\x0e-\x1f\x7f]/,
].map(({ source }) => source).join('|'), 'g')
const ODD = /[\x00-\x08\x0d-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/

/** A text as a terminal shows it: what was written over is gone. Characters that turn the direction of what follows,
 * with which a name can be made to look like another, are shown by their codes. @param {string} text */
export function printable(text) {
  if (!ODD.test(text)) return text
  const kept = text.replace(HIDDEN, '').replace(/\r+$/gm, '').replace(/^.*\r/gm, '').replace(/^.*\x08.*$/gm, typed)
  return kept.replace(/[\u202a-\u202e\u2066-\u2069]/g, turn => `\\u${turn.charCodeAt(0).toString(16)}`)
}

/** A line with its backspaces applied: each takes the cursor one place back, and what is written there is replaced. */
function typed(/** @type {string} */ line) {
  /** @type {string[]} */
  const shown = []
  let at = 0
  for (const letter of line) {
    if (letter === '\b') at = Math.max(0, at - 1)
    else shown[at++] = letter
  }
  return shown.join('')
}
