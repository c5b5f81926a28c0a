// What came out of a run, and what it found on the way. Warnings and errors that say where they were found are listed
// beside the log; with the source in which that is, if it is known. functions.js has better words for some functions.

import { calmPicture, element, elements, make, set, setLink, setText } from './draw.js'
import { cut, MORE_IN_LOG, placeOf, toText } from './entries.js'
import { inView as run } from './followed-runs.js'
import { revealEntry } from './log-view.js'
import { VirtualList } from './virtual-list.js'
import { count } from './words.js'

const LONGEST_RESULT = 20_000 // characters
const STACK = 5 // lines of it: the first ones tell

const [tiles, text, note] = elements(HTMLElement, 'tiles', 'result-text', 'result-note')
const [failure, source, findings] = elements(HTMLElement, 'failure', 'source', 'findings')
const file = element('file', HTMLAnchorElement)
const sourceList = new VirtualList(element('source-lines', HTMLElement), {
  parts: ['n', 'text'], describe: describeLine, choose: chooseLine,
})
const findingList = new VirtualList(element('findings-list', HTMLElement), {
  parts: ['level', 'where', 'text'], describe: describeFinding, choose: chooseFinding,
})

/** of the source @type {string[]} */
let lines = []
/** of which the result is shown @type {typeof run.done} */
let written

export function showResult() {
  for (const list of [sourceList, findingList]) Object.assign(list, { selected: -1, top: 0, stale: true })
}

calmPicture(() => {
  drawTiles(run.known?.summary?.figures(run.result, run) ?? [])
  drawFile()
  drawFailure()
  drawWords()
  drawSource(run.known?.source?.(run.args))
  drawFindings()
})

function drawFile() {
  const name = toText(run.result?.['file'])
  const isProduced = name.startsWith(`${run.id}.`) // any other that it may have named cannot be had
  setText(file, run.known?.download ?? 'Download the file')
  set(file, 'hidden', !isProduced && !run.known?.download) // from the beginning, so that nothing moves
  setLink(file, isProduced ? `files/${encodeURIComponent(name)}` : undefined)
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
  const stack = toText(error?.['stack']).split('\n').map(line => line.trim()).filter(line => line.startsWith('at '))
  setText(element('failure-stack', HTMLElement), stack.slice(0, STACK).join('\n'))
}

function drawWords() {
  const { done, ended, result } = run
  const summary = run.known?.summary
  const none = done?.outcome === 'ok' ? 'It returned nothing.' : `No result: ${done?.reason || 'see the log'}.`
  const waiting = ended ? 'Its log is still being read.' : summary?.waiting ?? 'What it returns is shown here.'
  set(text, 'hidden', !done || summary !== undefined || !failure.hidden)
  if (!text.hidden && done !== written) { // once: it may be large
    written = done
    const json = typeof done?.result === 'string' ? done.result : JSON.stringify(done?.result, null, 2) ?? none
    setText(text, cut(json, LONGEST_RESULT, MORE_IN_LOG))
  }
  setText(note, !done ? waiting : !summary || !failure.hidden ? '' : result ? summary.note(result) : none)
}

function drawTiles(/** @type {[name: string, figure: string][]} */ wanted) {
  if (tiles.textContent === wanted.flat().join('')) return
  const made = wanted.map(([name, figure]) => make('div', '', make('dt', '', name), make('dd', '', figure)))
  tiles.replaceChildren(...made)
}

function drawSource(/** @type {string | undefined} */ whole) {
  set(source, 'hidden', whole === undefined)
  if (whole === undefined) return
  lines = whole.split(/\r?\n/)
  sourceList.stale = true // there may be new findings
  sourceList.draw(lines.length)
}

function drawFindings() {
  const { known, findings: { length: n } } = run
  const isShown = n > 0 || known?.findings !== undefined
  set(findings, 'hidden', !isShown)
  if (!isShown) return
  setText(element('findings-title', HTMLElement), known?.findings ?? 'Found on the way')
  const chosen = run.findings[findingList.selected]
  const found = known?.counted && run.result ? run.count('warning') + run.count('error') : n
  const more = found > n ? `The first ${count(n)} of ${count(found)} are named; the rest are counted.` : ''
  const none = run.done ? known?.noFindings ?? '' : 'None so far.'
  setText(element('findings-note', HTMLElement), chosen ? toText(chosen.fields['msg']) : n ? more : none)
  findingList.draw(n)
}

function describeFinding(/** @type {number} */ n) {
  const { type = '', fields = {} } = run.findings[n] ?? {}
  const [title, code] = [toText(fields['msg']), toText(fields['code'])]
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
