// What came out of a run, and, for functions that functions.js knows, what it found on the way: the warnings and errors
// that say where they were found, listed beside the log; with the source in which that is, if it is known.

import { CALM, element, elements, make, picture, set, setLink, setText } from './draw.js'
import { inView as run } from './followed-runs.js'
import { revealEntry } from './log-view.js'
import { VirtualList } from './virtual-list.js'
import { bytes, count, cut, framesOf, MORE_IN_LOG, placeOf, printable, toText } from './words.js'

const LONGEST_RESULT = 20_000 // characters
const MOST_TILES = 12
const LONGEST_FIELD = 300 // characters of one field, in its tile or cell
const MOST_ROWS = 200 // of a table
const STACK = 12 // lines of it and of its causes: the first ones tell
/** what has nothing in it, in JSON @type {Record<string, string>} */
const EMPTY = { undefined: 'nothing', null: 'nothing', '""': 'an empty text', '[]': 'an empty list', '{}': 'no fields' }

const [tiles, text, table, note] = elements(HTMLElement, 'tiles', 'result-text', 'result-table', 'result-note')
const [failure, source, findings] = elements(HTMLElement, 'failure', 'source', 'findings')
const file = element('file', HTMLAnchorElement)
const sourceList = new VirtualList('source-lines', { parts: ['n', 'text'], describe: describeLine, choose: chooseLine })
const findingList = new VirtualList('findings-list',
  { parts: ['level', 'where', 'text'], describe: describeFinding, choose: chooseFinding })

const sizes = /** @type {Map<string, string>} */ (new Map()) // of produced files, in words
let lines = /** @type {string[]} */ ([]) // of the source
let written = run.done // of which the result is shown
let empty = '' // what was returned, when there is nothing in it

export function showResult() {
  for (const list of [sourceList, findingList]) Object.assign(list, { selected: -1, top: 0, stale: true })
}

for (const draw of [drawFile, drawFailure, drawResult, drawSource, drawFindings]) picture(draw, CALM)

function drawFile() {
  const name = toText(run.result?.['file'])
  const isProduced = name.startsWith(`${run.id}.`) // any other that it may have named cannot be had
  if (isProduced && !sizes.has(name)) askForSize(name)
  setText(file, (run.known?.download ?? 'Download the file') + (sizes.get(name) ?? ''))
  set(file, 'hidden', !isProduced && !run.known?.download) // from the beginning, so that nothing moves
  setLink(file, isProduced ? `files/${encodeURIComponent(name)}` : undefined)
}

async function askForSize(/** @type {string} */ name) {
  sizes.set(name, '')
  const answer = await fetch(`files/${encodeURIComponent(name)}`, { method: 'HEAD' }).catch(() => undefined)
  if (answer?.ok) sizes.set(name, ` (${bytes(Number(answer.headers.get('content-length')))})`)
}

// What went wrong stands where the result would, with its causes and the place.
function drawFailure() {
  const { done, error } = run
  const isFailed = done?.outcome === 'error' || done?.outcome === 'died'
  set(failure, 'hidden', !isFailed)
  setText(element('result-title', HTMLElement), isFailed ? 'What went wrong' : 'Result')
  if (!isFailed) return
  const { msg, code } = error ?? {} // its causes are in its message
  const words = toText(msg) || done.reason || 'It did not say what.'
  const isCoded = code !== undefined && !words.includes(toText(code))
  setText(element('failure-words', HTMLElement), isCoded ? `${words} (${toText(code)})` : words)
  setText(element('failure-stack', HTMLElement), framesOf(error ?? {}).slice(1, 1 + STACK).join('\n'))
}

function drawResult() {
  const { done, ended, result, known } = run
  const isKnown = known?.findings !== undefined // and has its place from the beginning
  element('work', HTMLElement).toggleAttribute('data-known', isKnown)
  set(element('result', HTMLElement), 'hidden', !ended && !isKnown)
  const summary = known?.summary
  if (summary) drawTiles(summary.figures(result ?? {}))
  else if (done !== written || !done) writeResult(failure.hidden ? done?.result : undefined) // once: it may be large
  written = done
  set(text, 'hidden', !!summary || !text.textContent)
  set(table, 'hidden', !!summary || !table.firstChild)
  const isShown = !failure.hidden || (!summary && (tiles.firstChild || !text.hidden || !table.hidden || file.href))
  const none = done?.outcome === 'ok' ? `It returned ${empty}.` : `No result: ${done?.reason || 'see the log'}.`
  const waiting = ended ? 'Its log is still being read.' : 'What it returns is shown here.'
  setText(note, !done ? waiting : isShown ? '' : summary && result ? summary.note(result) : none)
}

/** What is flat as figures, or as a table; all else as it was written down. @param {unknown} result */
function writeResult(result) {
  const fields = Object.entries(isFlat(result) ? result : {}).filter(([name]) => name !== 'file' || !file.href)
  const inShort = (/** @type {unknown} */ value) => cut(toText(value), LONGEST_FIELD, MORE_IN_LOG)
  drawTiles(fields.map(([name, value]) =>
    [name.slice(0, 1).toUpperCase() + name.slice(1), Number.isInteger(value) ? count(Number(value)) : inShort(value)]))
  const rows = Array.isArray(result) && result.every(isFlat) ? result.slice(0, MOST_ROWS) : []
  const names = [...new Set(rows.flatMap(row => Object.keys(row)))]
  const lines = rows.map(row => make('tr', '', ...names.map(name => make('td', '', inShort(row[name])))))
  const head = make('tr', '', ...names.map(name => make('th', '', name)))
  const isCut = Array.isArray(result) && result.length > MOST_ROWS
  const caption = isCut ? [make('caption', '', `The first ${MOST_ROWS} of ${count(result.length)}`)] : []
  table.replaceChildren(...(names.length ? [make('table', '', ...caption, head, ...lines)] : []))
  const json = JSON.stringify(result, null, 2)
  empty = EMPTY[String(json)] ?? ''
  const whole = typeof result === 'string' ? result : json
  setText(text, empty || names.length || isFlat(result) ? '' : cut(whole, LONGEST_RESULT, MORE_IN_LOG))
}

/** @param {unknown} value @returns {value is import('./words.js').Fields} */
function isFlat(value) {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false
  const fields = Object.values(value)
  return fields.length <= MOST_TILES && fields.every(field => typeof field !== 'object' || field === null)
}

function drawTiles(/** @type {[name: string, figure: string][]} */ wanted) {
  if (tiles.textContent === wanted.flat().join('')) return
  tiles.replaceChildren(...wanted.map(([name, figure]) =>
    make('div', '', make('dt', '', name), make('dd', figure.length > 40 ? 'long' : '', figure))))
}

function drawSource() {
  const whole = run.known?.source?.(run.args)
  set(source, 'hidden', whole === undefined)
  if (whole === undefined) return
  lines = whole.split(/\r?\n/)
  sourceList.stale = true // there may be new findings
  sourceList.draw(lines.length)
}

function drawFindings() {
  const { known, findings: { length: n } } = run
  set(findings, 'hidden', !known?.findings) // elsewhere the log shows them, without the rest if one likes
  if (!known?.findings) return
  setText(element('findings-title', HTMLElement), known.findings)
  const chosen = run.findings[findingList.selected]
  const found = known.counted && run.result ? run.count('warning') + run.count('error') : n
  const more = found > n ? `The first ${count(n)} of ${count(found)} are named; the rest are counted.` : ''
  const none = run.done ? 'None.' : 'None so far.'
  setText(element('findings-note', HTMLElement), chosen ? toText(chosen.fields['msg']) : n ? more : none)
  findingList.draw(n)
}

function describeFinding(/** @type {number} */ n) {
  const { type = '', fields = {} } = run.findings[n] ?? {}
  const [title, code] = [printable(toText(fields['msg'])), toText(fields['code'])]
  return { level: type, title, texts: [type, placeOf(fields), [title, code].filter(Boolean).join('  ')] }
}

function chooseFinding(/** @type {number} */ n) {
  const finding = run.findings[n]
  if (!finding) return
  revealEntry(finding.n)
  if (source.hidden) return
  sourceList.selected = finding.line - 1
  sourceList.reveal(finding.line - 1)
}

function describeLine(/** @type {number} */ n) {
  const types = run.findings.filter(({ line }) => line === n + 1).map(({ type }) => type)
  return { level: types.includes('error') ? 'error' : types[0] ?? '', texts: [String(n + 1), lines[n] ?? ''] }
}

function chooseLine(/** @type {number} */ n) {
  findingList.select(run.findings.findIndex(({ line }) => line === n + 1))
}
