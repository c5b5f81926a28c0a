// The remote functions that come with the project, and an example of how to write your own: a module exports what
// remote() gives, under the name by which it is called; TASKS names the module. A function reports through `task`, ends
// early when task.signal aborts, and returns its result; to fail, it throws.

import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { mkdir, open, rename, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { readHeader, readRows } from './csv.ts'
import { FILES, remote, UPLOADS, type Task } from './remote.ts'

const countSteps = remote('counts: one message per step', [
  { name: 'steps', type: 'integer', description: 'how many messages', default: 10, min: 0, max: 100_000_000 },
  { name: 'delay', type: 'integer', description: 'milliseconds between them', default: 100, min: 0, max: 86_400_000 },
], async (task, steps, delay) => {
  const progress = steadyProgress(task, steps, 'steps')
  for (let step = 0; step < steps; step++) {
    task.msg({ msg: `step ${step + 1} of ${steps}`, process: process.pid, step })
    progress(step + 1)
    if (delay) await sleep(delay, undefined, { signal: task.signal })
    else if (step % 1000 === 999) await nextTurn(undefined, { signal: task.signal })
  }
})
export { countSteps as process } // its name in the article that this project comes from; in here, it is Node's own

export const importCsv = remote('turns a CSV file into JSON lines, and names the lines that are wrong', [
  { name: 'file', type: 'file', description: 'CSV in UTF-8; its first line names the columns' },
  { name: 'options', type: 'object', description: 'delimiter: a comma, a semicolon, a tab or a bar', default: {} },
  { name: 'name', type: 'string', description: 'what people call the file', default: '' },
], async (task, upload, { delimiter, ...others }, name) => {
  for (const option in others) throw new Error(`unknown option '${option}'`)
  const file = `${task.id}.ndjson`
  const unfinished = join(FILES, `${task.id}.part`) // is removed with the run, however that ends
  const csv = await open(join(UPLOADS, upload))
  const output = await open(unfinished, 'wx', 0o600)
  task.step('columns')
  const header = await readHeader(csv, delimiter)
  task.log(name ? `${name}: ${header.summary}` : header.summary)
  for (const doubt of header.doubts) task.warning(doubt)
  const { counts, report } = boundedReports(task)
  const progress = steadyProgress(task, header.size, 'bytes')
  let rows = 0
  task.step('rows')
  for await (const part of readRows(csv, header, (msg, line) => report('warning', msg, { line }))) {
    task.signal.throwIfAborted()
    progress(part.position)
    await output.writeFile(part.json)
    rows += part.rows
  }
  progress(header.size)
  await Promise.all([csv.close(), output.close()]) // an error ends this process, and closes them, too
  await rename(unfinished, join(FILES, file)) // whoever finds this name finds the whole file
  return { rows, rejected: counts.warning, columns: header.columns, file }
})

export const compile = remote('checks a TypeScript source that stands alone', [
  { name: 'source', type: 'text', description: 'TypeScript; nothing that it imports is read' },
], async (task, source) => {
  const { counts, report } = boundedReports(task)
  task.step('check')
  const folder = join(FILES, `${task.id}.part`) // is removed with the run, however that ends
  await mkdir(folder)
  const name = randomUUID() // see reportDiagnostics
  await writeFile(join(folder, `${name}.ts`), source)
  const options = { cwd: folder, signal: task.signal, killSignal: 'SIGKILL', maxBuffer: Infinity } as const
  const ended = promisify(execFile)(compilerPath(), [`${name}.ts`, ...COMPILER_ARGUMENTS], options)
  const { code = 0, signal, stdout, stderr } = await ended.catch(error => error)
  task.signal.throwIfAborted()
  reportDiagnostics(stdout, name, report)
  // Exit codes 1 and 2 mean that the source has errors; a crash is 2 as well, but says so on stderr.
  if (signal || code > 2 || stderr || (code && !counts.error)) {
    throw new Error(`the compiler failed (${signal ?? `exit code ${code}`}) ${stderr.slice(0, 2000)}`)
  }
  return { errors: counts.error, warnings: counts.warning }
})

// ---- What they share

const PROGRESS_PAUSE = 50 // milliseconds from one entry of progress to the next: what a page can show
const REPORT_LIMIT = 1000 // reports of a run that become entries

/** Reports progress, no more often than a page can show it, and its end. */
function steadyProgress(task: Task, total: number, unit: string) {
  let reported = -Infinity // by a clock that nobody sets
  return (current: number) => {
    if (current < total && performance.now() - reported < PROGRESS_PAUSE) return
    task.progress(current, total, unit)
    reported = performance.now()
  }
}

type Report = (type: 'warning' | 'error', msg: string, details?: Parameters<Task['warning']>[1]) => void

/** Counts every report, and makes entries of the first thousand: others would only flood the log and every page. */
function boundedReports(task: Task) {
  const counts = { warning: 0, error: 0 }
  const report: Report = (type, msg, details) => {
    counts[type]++
    const count = counts.warning + counts.error
    if (count <= REPORT_LIMIT) task[type](msg, details)
    if (count === REPORT_LIMIT + 1) task.log(`these were the first ${REPORT_LIMIT}: the rest is only counted`)
  }
  return { counts, report }
}

// ---- The compiler

const COMPILER_ARGUMENTS = [
  '--noEmit', '--strict', '--target', 'es2023', '--lib', 'es2023,dom', '--skipLibCheck', '--pretty', 'false',
  '--module', 'esnext', '--moduleDetection', 'force', '--locale', 'en',
  // Nothing is read but the source and the compiler's own libraries; the last keeps an import from telling of a file.
  '--ignoreConfig', '--noResolve', '--types', '', '--moduleSuffixes', '.none',
]

/** The compiler itself: the command `tsc` is a wrapper, and killing it would leave the compiler running. */
function compilerPath(): string {
  const typescript = createRequire(import.meta.url).resolve('typescript/package.json')
  const platform = `@typescript/typescript-${process.platform}-${process.arch}/package.json`
  return join(dirname(createRequire(typescript).resolve(platform)), 'lib', 'tsc')
}

// A diagnostic begins with its place and code, and goes on in the lines that do not.
const DIAGNOSTIC = /^\((\d+),(\d+)\): (error|warning) (TS\d+): ([^]*)/

// Trap: a message may quote a type of the source, with lines in it that look like diagnostics. So the source's file has
// a name that nobody knew when it was written: they cannot begin with it.
function reportDiagnostics(output: string, name: string, report: Report) {
  const [general, ...diagnostics] = `\n${output.trimEnd()}`.split(`\n${name}.ts`)
  if (general?.trim()) report('error', general.trim())
  for (const diagnostic of diagnostics) {
    const [, line, column, type, code, msg] = DIAGNOSTIC.exec(diagnostic) ?? []
    if (!msg) throw new Error(`the compiler said: ${diagnostic.slice(0, 2000)}`)
    const place = { line: Number(line), column: Number(column), file: 'source.ts' }
    report(type === 'warning' ? 'warning' : 'error', msg.replaceAll(name, 'source'), { ...place, code })
  }
}
