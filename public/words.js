// How numbers, sizes and times read: as a person would say them.

const figures = new Intl.NumberFormat('en')
const shortFigures = new Intl.NumberFormat('en', { notation: 'compact', maximumSignificantDigits: 3 })
// In the language of the page, which is English, wherever it is read: "15 h 01 min 53 s" fits no column.
const dates = (/** @type {Intl.DateTimeFormatOptions} */ options) => new Intl.DateTimeFormat('en-GB', options)
const clocks = dates({ hour: '2-digit', minute: '2-digit', second: '2-digit', fractionalSecondDigits: 3 })
const days = dates({ day: 'numeric', month: 'short' })
const weekdays = dates({ weekday: 'long', day: 'numeric', month: 'long', year: 'numeric' })
const zones = dates({ timeZoneName: 'shortOffset' })

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
  const step = Math.min(4, Math.max(0, Math.floor(Math.log10(Math.max(1, whole)) / 3)))
  if (step === 0) return `${count(Math.round(n))} bytes`
  const value = n / 1000 ** step
  return `${value.toFixed(whole / 1000 ** step < 100 ? 1 : 0)} ${['', 'kB', 'MB', 'GB', 'TB'][step]}`
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

/** As clock(), in whole seconds. @param {number} time @param {number} since */
export const wholeSeconds = (time, since) => clock(time, since).replace(/\.\d+/, '')
/** With its day, where that is not today. @param {number} time */
export const minutes = time => clock(time, Date.now()).replace(/:\d\d\.\d+.*/, '')

/** The heading for all that happened on that day. @param {number} time */
export function dayOf(time) {
  const [day, before] = [new Date(time).toDateString(), new Date()]
  if (day === before.toDateString()) return 'Today'
  before.setDate(before.getDate() - 1)
  return day === before.toDateString() ? 'Yesterday' : weekdays.format(time)
}
