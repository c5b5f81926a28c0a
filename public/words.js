// How numbers, sizes and times read: as a person would say them.

const figures = new Intl.NumberFormat('en')
const shortFigures = new Intl.NumberFormat('en', { notation: 'compact', maximumSignificantDigits: 3 })
/** @type {Intl.DateTimeFormatOptions} */
const minutes = { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' }
const clocks = new Intl.DateTimeFormat(undefined, { ...minutes, second: '2-digit' })
const days = new Intl.DateTimeFormat(undefined, { ...minutes, month: 'short', day: 'numeric' })

export const count = (/** @type {number} */ n) => figures.format(n)

/** For a figure that must not run into the next one. @param {number} n */
export const compact = n => (Math.abs(n) < 100_000 ? figures : shortFigures).format(n)

/** @param {number} n @param {string} one @param {string} [many] */
export const counted = (n, one, many = one + 's') => `${count(n)} ${n === 1 ? one : many}`

/** @param {number} n @param {string} [unit] @param {(n: number) => string} [format] */
export function amount(n, unit, format = count) {
  if (unit === 'bytes') return bytes(n)
  const figure = format(Math.abs(n) < 10 ? Math.round(n * 10) / 10 : Math.round(n))
  return unit ? `${figure} ${unit}` : figure
}

export function bytes(/** @type {number} */ n) {
  const step = Math.min(4, Math.max(0, Math.floor(Math.log10(Math.max(1, n)) / 3)))
  if (step === 0) return `${count(Math.round(n))} bytes`
  const value = n / 1000 ** step
  return `${value.toFixed(value < 10 ? 1 : 0)} ${['', 'kB', 'MB', 'GB', 'TB'][step]}`
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

/** @param {number} time */
export const clock = time => clocks.format(time) + '.' + String(Math.floor(time % 1000)).padStart(3, '0')

export const day = (/** @type {number} */ time) => (Date.now() - time < 12 * 3600_000 ? clocks : days).format(time)
