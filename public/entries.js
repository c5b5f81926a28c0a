// How an entry reads, whatever it holds. A task may report anything that JSON can say, in any field: the worst that may
// come of it is an odd row, so nothing here trusts what it is given.

import { amount, duration } from './words.js'

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

/** @param {unknown} value */
export const toText = value => (typeof value === 'string' ? value : value === undefined ? '' : JSON.stringify(value))

/** @param {unknown} value */
export const toNumber = value => (typeof value === 'number' && Number.isFinite(value) ? value : undefined)

/** The line of a row in the log. @param {Entry} entry */
export const describe = entry => cut(wholeLine(entry), LONGEST_LINE)

function wholeLine(/** @type {Entry} */ entry) {
  return withoutTerminal(lines[LEVELS[levelOf(entry)] ?? 'msg'](fieldsOf(entry), entry.data))
}

/** Whether an entry contains what is searched for, in its row or in what the row leaves out.
 * @param {Entry} entry @param {RegExp} query */
export function contains(entry, query) {
  return query.test(wholeLine(entry)) || (entry.type !== 'msg' && query.test(JSON.stringify(entry.data)))
}

/** All that an entry says. @param {Entry} entry */
export function fullText(entry) {
  const { msg, ...others } = fieldsOf(entry)
  const message = typeof msg === 'string' && Object.keys(others).length === 0 ? msg : entry.data
  return typeof message === 'string' ? withoutTerminal(message) : JSON.stringify(message, null, 2)
}

/** @param {string} text @param {number} longest @param {string} [rest] in place of what was cut off */
export const cut = (text, longest, rest = ' …') => (text.length > longest ? text.slice(0, longest) + rest : text)

/** @param {Fields} fields @param {unknown} data */
function describeProgress({ current, total, unit }, data) {
  const [reached, whole] = [toNumber(current), toNumber(total)]
  if (reached === undefined) return toText(data)
  return amount(reached, toText(unit)) + (whole === undefined ? '' : ` of ${amount(whole, toText(unit))}`)
}

/** @param {Fields} fields @param {unknown} data */
function describeNote(fields, data) {
  return [placeOf(fields), toText(fields['code']), toText(fields['msg'])].filter(Boolean).join('  ') || toText(data)
}

function describeEnd(/** @type {Fields} */ { outcome, reason, seconds }) {
  const words = [OUTCOMES[toText(outcome)] ?? toText(outcome), `after ${duration(toNumber(seconds) ?? 0)}`]
  if (reason && reason !== outcome) words.push(`(${toText(reason)})`)
  return words.join(' ')
}

/** Where a warning or an error was found; empty when it does not say. @param {Fields} fields */
export function placeOf({ line, column }) {
  if (line === undefined) return ''
  return column === undefined ? `line ${toText(line)}` : `line ${toText(line)}:${toText(column)}`
}

/** @param {string} method @param {unknown} args */
export function signature(method, args) {
  const inside = Array.isArray(args) ? args.map(arg => JSON.stringify(arg)).join(', ') : ''
  return `${method}(${cut(inside, 79, '…')})`
}

// Programs of the command line colour their text and write over it; in a log only the last word counts.
const ESCAPES = /\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])/g

function withoutTerminal(/** @type {string} */ text) {
  if (!/[\x1b\r]/.test(text)) return text
  return text.replace(ESCAPES, '').replace(/\r+$/gm, '').replace(/^.*\r/gm, '')
}
