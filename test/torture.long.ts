// A short random fault run (for a long one: npm run torture), and the proof that it would notice.

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { describe, Follower, makePlan, torture, type Step } from './torture.ts'

test('nothing is lost in a random fault run', async () => {
  const summary = await torture({ seed: 232, seconds: 6, patience: 240 }) // some runs have begun before its first fault of a server
  assert.deepEqual(summary.problems, [], describe(summary))
  assert.ok(summary.started > 0 && summary.entries > 0, describe(summary))
})

test('the same seed makes the same plan', () => {
  assert.deepEqual(makePlan(7, 60), makePlan(7, 60))
  assert.notDeepEqual(makePlan(7, 60), makePlan(8, 60))
})

test('a web server that never catches up is found out', async () => {
  const env = { NODE_OPTIONS: `--require ${join(import.meta.dirname, 'mistake.cjs')}`, TASK_MISTAKE: 'no catch-up' }
  const plan = [
    { at: 0, what: 'a run starts', pick: 0, ms: 10_001 }, // one entry every 10 ms, for 10 s, and a page that follows it
    { at: 1000, what: 'a connection breaks', pick: 0, ms: 0 },
    { at: 2000, what: 'a client of events comes', pick: 0, ms: 0 },
  ] satisfies Step[]
  const { problems } = await torture({ seed: 7, seconds: 2, plan, patience: 3, env })
  assert.ok(problems.some(problem => /^a reader of run-0/.test(problem)), problems.join('\n'))
})

test('a hole, an overlap, a wrong byte and an entry after done are found out', t => {
  const folder = mkdtempSync(join(tmpdir(), 'longrun-test-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const log = join(folder, 'log')
  const entries = [0, 1, 2, 3].map(data => ({ type: 'msg', time: 1, data }) as const)
  const done = { type: 'done', time: 1, data: { outcome: 'ok', seconds: 0 } } as const
  const lines = [...entries, done].map(entry => `${JSON.stringify(entry)}\n`)
  const [one] = lines.map(line => line.length) as [number]
  writeFileSync(log, lines.join(''))
  const told = (read: (follower: Follower) => void) => {
    const problems: string[] = []
    read(new Follower('x', log, problem => problems.push(problem)))
    return problems.map(problem => problem.replace('a reader of x: ', ''))
  }

  assert.deepEqual(told(x => { x.take({ next: 2 * one, entries: entries.slice(0, 2) }); x.take({ next: 4 * one, entries: entries.slice(2) }) }), [])
  assert.deepEqual(told(x => x.take({ next: 2 * one, entries: entries.slice(1, 2) })), [`a hole from 0 to ${one}`])
  assert.deepEqual(told(x => [1, 2].forEach(() => x.take({ next: one, entries: entries.slice(0, 1) }))), [`an overlap from 0 to ${one}`])
  assert.deepEqual(told(x => x.take({ next: one, entries: entries.slice(1, 2) })), ['what it got at 0 is not what the log says'])
  assert.deepEqual(told(x => {
    x.take({ next: lines.join('').length, entries: [...entries, done] })
    x.take({ next: lines.join('').length, entries: [] })
  }), [`got entries at ${lines.join('').length}, after done`])
})
