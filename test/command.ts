// What command.test.ts and command.long.ts have in common: the app whose functions are programs, and what they have said.

import { join } from 'node:path'
import { after, before } from 'node:test'
import type { Entry } from '../log.ts'
import { App, missing, type Run } from './app.ts'

export const TASKS = join(import.meta.dirname, 'programs.ts')
export const KIB = 2 ** 10
export const noPython = missing('/usr/bin/python3')

/** What was said between `start` and `done`, by type and text. */
export async function said(run: Run): Promise<[string, unknown][]> {
  const between = (await run.entries()).slice(1, -1)
  return between.map(({ type, data }) => [type, (data as { msg?: unknown }).msg ?? data])
}

/** The texts of its log entries. */
export const lines = async (run: Run) => (await said(run)).filter(([type]) => type === 'log').map(([, msg]) => msg as string)

/** Until a run has said this in a log entry. */
export const hears = (run: Run, msg: string) => run.reader.until(({ entries }) =>
  entries.some(({ type, data }: Entry) => type === 'log' && data.msg === msg))

export const app = new App({
  TASKS, PROCESS_LIMIT: '8', DATABASE_URL: 'postgres://here', VIRTUAL_ENV: '/venv', PYTHONPATH: '/lib', CUDA_VISIBLE_DEVICES: '1',
})
before(() => app.startBoth())
after(() => app.end())
