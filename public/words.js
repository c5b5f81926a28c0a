// How entries, numbers, sizes and times read: as a person would say them, and what was written for a terminal as that
// would show it. A task may report anything that JSON can say, in any field: at worst there is an odd row.

/** @typedef {import('../log.ts').Entry} Entry */
/** @typedef {Record<string, unknown>} Fields */

export const MORE_IN_LOG = '\n… (the whole log has all of it)'
const DAY = 86_400_000 // milliseconds
const LONGEST_LINE = 2000 // of a row in the log; the whole text is one click away
const figures = new Intl.NumberFormat('en')
const shortFigures = new Intl.NumberFormat('en', { notation: 'compact', maximumSignificantDigits: 3 })
// In the language of the page, which is English, wherever it is read: "15 h 01 min 53 s" fits no column.
const dates = (/** @type {Intl.DateTimeFormatOptions} */ options) => new Intl.DateTimeFormat('en-GB', options)
const clocks = dates({ hour: '2-digit', minute: '2-digit', second: '2-digit', fractionalSecondDigits: 3 })
const days = dates({ day: 'numeric', month: 'short' })
const weekdays = dates({ weekday: 'long', day: 'numeric', month: 'long', year: 'numeric' })
const zones = dates({ timeZoneName: 'shortOffset' })

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
export const toNumber = (/** @type {unknown} */ value) => (Number.isFinite(value) ? Number(value) : undefined)

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

/** Frames of a stack that are Node's, or longrun's (installed, or in a clone), and not of what somebody wrote. */
export const FOREIGN =
  /((?:^ *at.*(?:node:|_modules\/longrun\/| (?:run|main) .*\/task\.ts| (?:run|start|Task)\S* .*\/remote\.ts).*\n?)+)/gm

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
  const shown = /** @type {string[]} */ ([])
  let at = 0
  for (const letter of line) {
    if (letter === '\b') at = Math.max(0, at - 1)
    else shown[at++] = letter
  }
  return shown.join('')
}

export const count = (/** @type {number} */ n) => figures.format(n)
/** For a figure that must not run into the next one. @param {number} n */
export const compact = n => (Math.abs(n) < 100_000 ? figures : shortFigures).format(n)
/** "3 errors". @param {number} n @param {string} one @param {string} [many] */
export const counted = (n, one, many = one + 's') => `${count(n)} ${n === 1 ? one : many}`
/** @param {number} n @param {string} [unit] @param {(n: number) => string} [format] */
export function amount(n, unit, format = count) {
  if (unit === 'bytes') return bytes(n)
  const figure = format(Math.abs(n) < 10 ? Math.round(n * 10) / 10 : Math.round(n))
  return unit ? `${figure} ${unit}` : figure
}

/** "13.9 of 41.5 MB". @param {number} current @param {number | undefined} total @param {string} unit */
export function reached(current, total, unit) {
  if (total === undefined) return amount(current, unit)
  const figure = unit === 'bytes' ? bytes(current, total).split(' ')[0] : amount(current)
  return `${figure} of ${amount(total, unit)}`
}

/** @param {number} n @param {number} [whole] in whose unit it is told */
export function bytes(n, whole = n) {
  const step = Math.min(5, Math.max(0, Math.floor(Math.log10(Math.max(1, whole)) / 3)))
  if (step === 0) return `${count(Math.round(n))} bytes`
  return `${(n / 1000 ** step).toFixed(whole / 1000 ** step < 100 ? 1 : 0)} ${['', 'kB', 'MB', 'GB', 'TB', 'PB'][step]}`
}

export function duration(/** @type {number} */ seconds) {
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`
  return seconds < 9.95 ? `${seconds.toFixed(1)} s` : elapsed(seconds)
}

/** Of what still goes on: whole seconds. @param {number} seconds */
export function elapsed(seconds) {
  const whole = Math.floor(seconds)
  if (whole < 60) return `${whole} s`
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, '0')} s`
  return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, '0')} min`
}

/** Rounded the more the longer it is: an estimate that changes with every glance is not calm. */
export function estimate(/** @type {number} */ seconds) {
  if (seconds < 5) return 'under 5 s'
  if (seconds < 60) return `about ${Math.ceil(seconds / 5) * 5} s`
  if (seconds < 3600) return `about ${Math.ceil(seconds / 60)} min`
  return `about ${(seconds / 3600).toFixed(1)} h`
}

/** The time of an entry: with its day where that is not the day on which its log began, and with its zone where the
 * clock was changed since then: an hour comes twice. @param {number} time @param {number} [since] when its log began */
export function clock(time, since = time) {
  const [at, began] = [new Date(time), new Date(since)]
  if (Number.isNaN(at.getTime())) return '–' // a task can say anything
  const day = at.toDateString() === began.toDateString() ? '' : `${days.format(at)}, `
  const isChanged = at.getTimezoneOffset() !== began.getTimezoneOffset()
  const zone = isChanged ? ` ${zones.formatToParts(at).find(({ type }) => type === 'timeZoneName')?.value}` : ''
  return day + clocks.format(at) + zone
}

/** The time since its log began. @param {number} time @param {number} [began] */
export function since(time, began = time) {
  const past = Number.isFinite(time) ? Math.max(0, time - began) : 0 // the clock may have gone back
  return `+${past < DAY ? '' : `${Math.floor(past / DAY)} d `}${new Date(past % DAY).toISOString().slice(11, 23)}`
}

/** With its day, where that is not today. @param {number} time */
export const minutes = time => clock(time, Date.now()).replace(/:\d\d\.\d+.*/, '')

/** The heading for all that happened on that day. @param {number} time */
export function dayOf(time) {
  const [day, before] = [new Date(time).toDateString(), new Date()]
  if (day === before.toDateString()) return 'Today'
  before.setDate(before.getDate() - 1)
  return day === before.toDateString() ? 'Yesterday' : weekdays.format(time)
}
