// What tasks.test.ts and tasks.long.ts have in common: the app with the functions that come with the project, and an import.

import { after, before } from 'node:test'
import { App } from './app.ts'

export const app = new App({ PROCESS_LIMIT: '12', SPARES: '2', TASKS: '' })
before(() => app.startBoth())
after(() => app.end())

/** Imports a file, and gives the rows that were produced, the warnings of lines as [line, msg], and the result. */
export async function importCsv(content: string | Buffer, options = {}, name?: string) {
  const run = await app.start('importCsv', [await app.upload(content), options, ...name ? [name] : []])
  const done = await run.outcome()
  const warnings = run.reader.entries.flatMap(({ type, data }) => type === 'warning' && data.line ? [[data.line, data.msg]] : [])
  const result = done.result as { rows: number; rejected: number; columns: string[]; file: string } | undefined
  const produced = result ? await app.request('GET', `/files/${result.file}`) : undefined
  const rows = produced?.body.split('\n').slice(0, -1).map((line: string) => JSON.parse(line)) as unknown[]
  return { run, done, result, warnings, rows, produced }
}
