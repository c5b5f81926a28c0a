// What came out of a run, and what it found on the way. An import shows its counts, its rejected lines
// and the file to download; a compilation shows the source beside its diagnostics; any other run shows
// what it returned.

import { calmPicture, element, make, put, redraw, set } from './draw.js'
import { List } from './list.js'
import { reveal } from './log.js'
import { count, place } from './words.js'

/** @typedef {import('./run.js').Run} Run */
/** @typedef {import('./run.js').Finding} Finding */

const LONGEST_RESULT = 20_000 // characters

const work = element('work', HTMLElement)
const tiles = element('tiles', HTMLElement)
const text = element('result-text', HTMLElement)
const note = element('result-note', HTMLElement)
const file = element('file', HTMLAnchorElement)
const source = element('source', HTMLElement)
const findings = element('findings', HTMLElement)
const sourceList = new List(element('source-lines', HTMLElement), { fill: fillSource, choose: chooseSource })
const findingList = new List(element('findings-list', HTMLElement), { fill: fillFinding, choose: chooseFinding })

/** @type {Run | undefined} */
let run
/** @type {string[]} */
let lines = []
/** @type {Map<number, string>} the worst level found in each line of the source */
let marks = new Map()
let marked = 0

/** @param {Run | undefined} next */
export function showResult(next) {
  run = next
  lines = []
  marks = new Map()
  marked = 0
  for (const list of [sourceList, findingList]) Object.assign(list, { selected: -1, top: 0, stale: true })
}

calmPicture(() => {
  if (!run) return
  set(work.dataset, 'method', run.method ?? '')
  const draw = { importCsv: drawImport, compile: drawCompilation }[run.method ?? ''] ?? drawReturned
  draw(run)
})

/** @param {Run} run */
function drawImport(run) {
  const result = resultOf(run)
  drawTiles([
    ['Rows imported', shown(result?.rows)],
    ['Rejected lines', shown(result?.rejected, run.count('warning'))],
    ['Columns', Array.isArray(result?.columns) ? count(result.columns.length) : '–'],
  ])
  drawFile(run, 'Download the rows')
  set(file, 'hidden', false) // from the beginning, so that nothing moves when it can be used
  put(note, Array.isArray(result?.columns) ? result.columns.join(', ') : run.done ? noResult(run) : 'The rows can be downloaded when the import has ended.')
  show({ source: false, findings: true, text: '' })
  const rejected = typeof result?.rejected === 'number' ? result.rejected : run.findings.length
  drawFindings(run.count('error') ? 'Problems' : 'Rejected lines', run.done ? 'None: every line went in.' : 'None so far.',
    rejected > run.findings.length ? `The first ${count(run.findings.length)} of ${count(rejected)} are named; the rest are counted.` : '')
}

/** @param {Run} run */
function drawCompilation(run) {
  const result = resultOf(run)
  drawTiles([
    ['Errors', shown(result?.errors, run.count('error'))],
    ['Warnings', shown(result?.warnings, run.count('warning'))],
  ])
  set(file, 'hidden', true)
  put(note, run.done ? (result ? (result.errors ? 'Choose a problem to see its line.' : 'It compiles.') : noResult(run)) : 'The compiler is at work.')
  show({ source: true, findings: true, text: '' })
  if (!lines.length) lines = String(run.args[0] ?? '').split(/\r?\n/)
  for (; marked < run.findings.length; marked++) mark(run.findings[marked])
  sourceList.draw(lines.length)
  drawFindings('Problems', run.done ? 'None.' : 'None so far.', '')
}

/** @param {Run} run */
function drawReturned(run) {
  const { done } = run
  const result = done?.data.result
  const words = result === undefined ? '' : typeof result === 'string' ? result : JSON.stringify(result, null, 2)
  drawTiles([])
  set(file, 'hidden', !drawFile(run, 'Download the file'))
  put(note, '')
  const shown = !done ? 'What it returns is shown here.' : words || noResult(run)
  show({ source: false, findings: false, text: shown.length > LONGEST_RESULT ? shown.slice(0, LONGEST_RESULT) + '\n… (the whole log has all of it)' : shown })
}

/** Whether the run has produced a file; any other that it may have named cannot be had. @param {Run} run @param {string} words */
function drawFile(run, words) {
  const name = String(resultOf(run)?.file)
  const isProduced = name.startsWith(`${run.id}.`)
  put(file, words)
  file.toggleAttribute('data-off', !isProduced)
  if (isProduced) file.href = `files/${encodeURIComponent(name)}`
  else file.removeAttribute('href')
  return isProduced
}

/** @param {Run} run */
function noResult({ done }) {
  return done?.data.outcome === 'ok' ? 'It returned nothing.' : `No result: ${done?.data.reason ?? 'see the log'}.`
}

/** @param {Run} run @returns {Record<string, unknown> | undefined} */
function resultOf({ done }) {
  const result = done?.data.result
  return typeof result === 'object' && result ? /** @type {Record<string, unknown>} */ (result) : undefined
}

/** @param {unknown} final @param {number} [soFar] */
const shown = (final, soFar) => (typeof final === 'number' ? count(final) : soFar === undefined ? '–' : count(soFar))

/** @param {{ source: boolean, findings: boolean, text: string }} parts */
function show(parts) {
  set(source, 'hidden', !parts.source)
  set(findings, 'hidden', !parts.findings)
  set(text, 'hidden', !parts.text)
  put(text, parts.text)
}

/** @param {[string, string][]} wanted */
function drawTiles(wanted) {
  while (tiles.children.length < wanted.length) {
    const tile = make('div')
    tile.append(make('dt'), make('dd'))
    tiles.append(tile)
  }
  while (tiles.children.length > wanted.length) tiles.lastElementChild?.remove()
  wanted.forEach(([name, value], at) => {
    const [term, figure] = /** @type {[Element, Element]} */ (/** @type {unknown} */ (tiles.children[at]?.children))
    put(term, name)
    put(figure, value)
  })
}

/** @param {string} title @param {string} none @param {string} more */
function drawFindings(title, none, more) {
  const n = run?.findings.length ?? 0
  put(element('findings-title', HTMLElement), title)
  const chosen = run?.findings[findingList.selected]
  put(element('findings-note', HTMLElement), chosen ? String(chosen.data.msg) : n ? more : none)
  findingList.draw(n)
}

/** @param {HTMLElement} row @param {number} n */
function fillFinding(row, n) {
  const finding = run?.findings[n]
  if (!finding) return
  if (!row.firstChild) row.append(make('span', 'level'), make('span', 'where'), make('span', 'text'))
  const [level, where, words] = /** @type {[Element, Element, Element]} */ (/** @type {unknown} */ (row.children))
  row.dataset.level = finding.type
  put(level, finding.type)
  put(where, place(finding.data))
  put(words, String(finding.data.msg) + (finding.data.code ? `  ${finding.data.code}` : ''))
  row.title = String(finding.data.msg)
}

/** @param {number} n */
function chooseFinding(n) {
  const finding = run?.findings[n]
  if (!finding) return
  reveal(finding.n)
  const line = Number(finding.data.line)
  if (source.hidden || !line) return
  sourceList.selected = line - 1
  sourceList.reveal(line - 1)
}

/** @param {HTMLElement} row @param {number} n */
function fillSource(row, n) {
  if (!row.firstChild) row.append(make('span', 'n'), make('span', 'text'))
  const [number, words] = /** @type {[Element, Element]} */ (/** @type {unknown} */ (row.children))
  put(number, String(n + 1))
  put(words, lines[n] ?? '')
  row.dataset.level = marks.get(n + 1) ?? ''
}

/** @param {number} n */
function chooseSource(n) {
  const at = run?.findings.findIndex(finding => Number(finding.data.line) === n + 1) ?? -1
  if (at < 0) return
  findingList.selected = at
  findingList.reveal(at)
}

/** @param {Finding | undefined} finding */
function mark(finding) {
  const line = Number(finding?.data.line)
  if (!finding || !line) return
  if (marks.get(line) !== 'error') marks.set(line, finding.type)
  sourceList.stale = true
  redraw()
}
