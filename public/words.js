// How entries and numbers read: one line of text for each kind of entry, and sizes, times and counts
// as a person would say them.

/** @typedef {import('../protocol.ts').Entry} Entry */

const LONGEST_LINE = 2000 // of a row in the log; the whole text is one click away
const figures = new Intl.NumberFormat('en')
const clocks = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' })
const days = new Intl.DateTimeFormat(undefined, { month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit', hourCycle: 'h23' })

/** @type {Record<string, string>} */
export const outcomes = { ok: 'Finished', error: 'Failed', cancelled: 'Cancelled', died: 'Died' }

/** @type {{ [T in Entry['type']]: (data: (Entry & { type: T })['data']) => string }} */
const lines = {
  start: data => `${signature(data.method, data.args)} started as process ${data.pid}`,
  msg: data => (typeof data === 'string' ? data : JSON.stringify(data)),
  progress: data => amount(data.current, data.unit) + (data.total === undefined ? '' : ` of ${amount(data.total, data.unit)}`),
  log: finding,
  warning: finding,
  error: finding,
  done: data => [outcomes[data.outcome] ?? data.outcome, `after ${duration(data.seconds)}`, data.reason && data.reason !== data.outcome && `(${data.reason})`].filter(Boolean).join(' '),
}

/** @param {Entry} entry */
export function describe(entry) {
  const line = /** @type {(data: unknown) => string} */ (lines[entry.type])(entry.data)
  return line.length > LONGEST_LINE ? line.slice(0, LONGEST_LINE) + ' …' : line
}

/** @typedef {{ msg: string, line?: unknown, column?: unknown, code?: unknown, file?: unknown }} Finding */

/** @param {Finding} data */
function finding(data) {
  return [place(data), data.code, data.msg].filter(Boolean).join('  ')
}

/** @param {Finding} data */
export function place({ line, column }) {
  if (line === undefined) return ''
  return column === undefined ? `line ${line}` : `line ${line}:${column}`
}

/** The name of the file that a page imports: an upload has none, but the call id tells.
 * @param {string} [callId] */
export const importedName = callId => /^(.+) \d+ \d+$/.exec(callId ?? '')?.[1]

/** The other end of importedName: a file that is being imported is not imported a second time meanwhile.
 * @param {File} file */
export const importId = ({ name, size, lastModified }) => `${name.slice(-150)} ${size} ${lastModified}`

/** @param {string} method @param {unknown} args */
export function signature(method, args) {
  const inside = Array.isArray(args) ? args.map(arg => JSON.stringify(arg)).join(', ') : ''
  return `${method}(${inside.length > 80 ? inside.slice(0, 79) + '…' : inside})`
}

/** @param {number} n */
export const count = n => figures.format(n)

/** @param {number} n @param {string} one @param {string} [many] */
export const counted = (n, one, many = one + 's') => `${count(n)} ${n === 1 ? one : many}`

/** @param {number} n @param {string} [unit] */
export function amount(n, unit) {
  if (unit === 'bytes') return bytes(n)
  const figure = count(n < 10 ? Math.round(n * 10) / 10 : Math.round(n))
  return unit ? `${figure} ${unit}` : figure
}

/** @param {number} n */
export function bytes(n) {
  const step = Math.min(4, Math.max(0, Math.floor(Math.log10(Math.max(1, n)) / 3)))
  if (step === 0) return `${count(Math.round(n))} bytes`
  const value = n / 1000 ** step
  return `${value.toFixed(value < 10 ? 1 : 0)} ${['', 'kB', 'MB', 'GB', 'TB'][step]}`
}

/** @param {number} seconds */
export function duration(seconds) {
  return seconds < 9.95 ? `${seconds.toFixed(1)} s` : elapsed(seconds)
}

/** Of what still goes on: whole seconds. @param {number} seconds */
export function elapsed(seconds) {
  const whole = Math.floor(seconds)
  if (whole < 60) return `${whole} s`
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, '0')} s`
  return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, '0')} min`
}

/** Rounded the more the longer it is: an estimate that changes with every glance is not calm. @param {number} seconds */
export function estimate(seconds) {
  if (seconds < 5) return 'under 5 s'
  if (seconds < 60) return `about ${Math.ceil(seconds / 5) * 5} s`
  if (seconds < 3600) return `about ${Math.ceil(seconds / 60)} min`
  return `about ${(seconds / 3600).toFixed(1)} h`
}

/** @param {number} time */
export const clock = time => clocks.format(time) + '.' + String(Math.floor(time % 1000)).padStart(3, '0')

/** @param {number} time */
export const day = time => (Date.now() - time < 12 * 3600_000 ? clocks.format(time) : days.format(time))
