// What README.md says, continued from readme.test.ts: the click that it shows, recorded again.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { ROOT } from './app.ts'
import { clickOf } from './readme.ts'
import { kindOf, recordedRows } from './record.ts'

const readme = readFileSync(join(ROOT, 'README.md'), 'utf8')

test('the README shows one click as it can be recorded', async t => {
  const rows = await recordedRows()
  if (!rows) return t.skip('this machine is too busy: the messages of one click always meet one another')
  assert.deepEqual(rows.map(kindOf).sort(), clickOf(readme).map(kindOf).sort())
})
