// The page in Firefox: what a person does there most, once. All else is tested in Chromium.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import type { Browser } from 'playwright-core'
import { startApp } from './app.ts'
import {
  arrived, copied, counts, firefoxMissing as skip, has, openPage, sees, start, startFirefox, state, steps,
} from './browser.ts'

if (skip && process.env['CI']) throw new Error(skip)

let browser: Browser
before(async () => {
  if (!skip) browser = await startFirefox()
})
after(() => browser?.close())

test('Firefox can start, watch, reload and cancel a run, import a file, and stand a flood', { skip }, async t => {
  const app = await startApp(t)
  const page = await openPage(t, browser, app.url)
  await sees(page, 'Connected')

  await start(page, 'tick', { name: 'never' })
  await arrived(page, 10)
  await page.reload()
  await arrived(page, 40)
  await page.click('#cancel')
  await state(page, 'cancelled')
  const seen = await steps(page)
  assert.deepEqual(seen, seen.map((_, at) => at), 'each step once, in order')

  await page.click('#new')
  const file = { name: 'people.csv', mimeType: 'text/csv', buffer: Buffer.from('name,laps\nAda,12\nEmil\n') }
  await page.locator('form[data-method=importCsv] input[type=file]').setInputFiles(file)
  await start(page, 'importCsv')
  await state(page, 'ok')
  await has(page, '#tiles', /Rows imported1Rejected lines1/)

  await page.click('#new')
  await start(page, 'flood', { count: 200_000 })
  await counts(page, '200,002 entries')
  await state(page, 'ok')
  await page.press('#log-list', 'End')
  assert.match(await copied(page, '#entry-copy'), /"outcome": "ok"/)
})
