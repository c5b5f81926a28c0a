// All that the page knows about single functions. Any other function has a form, a result and findings, too, made
// from what the server and the log say; these have better words for them. One of your own may stand here, and need not.

import { element } from './draw.js'
import { parseJson } from './requests.js'
import { count, printable, toText } from './words.js'
/** @import { Fields } from './words.js' */
/** One control of a form; `accept`: the files that it takes.
 * @typedef {{ label?: string, preset?: string, accept?: string, choices?: [words: string, value: unknown][] }} Field */
/** The result in figures, in place of all that was returned, and a note below them.
 * @typedef {{ figures: (result: Fields) => [string, string][], note: (result: Fields) => string }} Summary */
/** `heading`, `button`: of its form; `fields`: by parameter, one that is missing has the usual control; `sample`: a
 * file of the page; `filled`: parameters without a control; `complete`: what is called with what the form holds;
 * `name`: of a run, by its arguments but for files; `download`: words for its file; `findings`: heading of the warnings
 * and errors that say where they were found; `source`: the text in which that was; `counted`: also what is not logged.
 * @typedef {{ heading: string, button?: string, fields: Record<string, Field>, sample?: string, filled?: string[],
 *   complete?: (values: Fields) => { values: Fields, callId: string }, name?: (args: unknown[]) => string,
 *   summary?: Summary, download?: string, findings?: string, source?: (args: unknown[]) => string,
 *   counted?: (result: Fields) => { warning?: unknown, error?: unknown } }} Known */

/** @type {[words: string, value: unknown][]} */
const DELIMITERS = [['found from the first line', {}],
  ['comma', { delimiter: ',' }], ['semicolon', { delimiter: ';' }], ['tab', { delimiter: '\t' }]]
const SOURCE = element('example', HTMLTemplateElement).content.textContent ?? ''

/** What a first visitor is offered: it can be watched for a while. @type {{ method: string, values: Fields }} */
export const DEMO = { method: 'process', values: { steps: 120, delay: 100 } }

/** @type {Record<string, Known>} */
const known = {
  importCsv: {
    heading: 'Import a CSV file',
    button: 'Import',
    fields: { file: { accept: '.csv,.tsv,.txt' }, options: { label: 'Delimiter', choices: DELIMITERS } },
    sample: 'sample.csv',
    filled: ['name'],
    // A file that is being imported is not imported a second time meanwhile.
    complete: values => {
      const { name, size, lastModified } = /** @type {File} */ (values['file'])
      return { values: { ...values, name }, callId: `${name.slice(-150)} ${size} ${lastModified}` }
    },
    name: ([, name]) => toText(name) || 'CSV file',
    summary: {
      figures: ({ rows, rejected, columns }) => [
        ['Rows imported', figure(rows)], ['Rejected lines', figure(rejected)],
        ['Columns', figure(columns && /** @type {unknown[]} */ (columns).length)],
      ],
      note: ({ columns = [] }) => /** @type {unknown[]} */ (columns).map(toText).join(', '),
    },
    download: 'Download the rows',
    findings: 'Rejected lines',
    counted: ({ rejected }) => ({ warning: rejected }),
  },
  compile: {
    heading: 'Compile TypeScript',
    button: 'Compile',
    fields: { source: { label: 'Source', preset: SOURCE } },
    name: ([source]) => `compile: ${toText(source).trim().split('\n', 1)[0]}`,
    findings: 'Problems',
    counted: ({ errors, warnings }) => ({ error: errors, warning: warnings }),
    source: ([source]) => toText(source),
  },
  process: {
    heading: 'Count steps',
    fields: { steps: { preset: '120', label: 'Steps' }, delay: { preset: '100', label: 'Milliseconds between them' } },
  },
}

const LONGEST_TITLE = 60 // characters: the server cuts there

/** What the server's list calls a call that it has not listed yet. @param {import('./run-state.js').Call} call */
export function titleOf({ method, args }) {
  const inside = args.filter(arg => !(arg instanceof File)).map(arg => JSON.stringify(arg)).join(', ')
  return Array.from(`${method}(${inside})`).slice(0, LONGEST_TITLE).join('')
}

/** What people call a run, wherever it is named. @param {string} method @param {string} title in the server's list */
export function nameOf(method, title) {
  const isCut = title.length >= LONGEST_TITLE && !title.endsWith(')')
  const inside = title.slice(method.length + 1, isCut ? undefined : -1)
  const ends = ['', '"', '\\"'] // where it was cut, perhaps within a text, or behind a backslash in it
  const args = ends.map(end => parseJson(`[${inside}${end}]`)).find(Array.isArray)
  return printable(((args && knownFunction(method)?.name?.(args)) || title) + (isCut ? '…' : ''))
}

export const knownFunction = (/** @type {string} */ name) => (Object.hasOwn(known, name) ? known[name] : undefined)
/** Those that are known come first, in the order in which they stand here. */
export const rankOf = (/** @type {string} */ name) => (knownFunction(name) ? Object.keys(known).indexOf(name) : 99)
const figure = (/** @type {unknown} */ told) => (typeof told === 'number' ? count(told) : '–')
