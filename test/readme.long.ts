// What README.md and REFERENCE.md say, continued from readme.test.ts: the click that is shown,
// recorded again, and a page.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { readmeBlocks, ROOT, startApp } from './app.ts'
import { chromiumMissing, has, openPage, startChromium } from './browser.ts'
import { ANYWHERE, clickOf } from './readme.ts'
import { kindOf, recordedRows } from './record.ts'

const TOKEN = 'a-token-of-this-test-alone'
const readme = readFileSync(join(ROOT, 'README.md'), 'utf8')

test('the README shows one click as it can be recorded', async t => {
  const rows = await recordedRows()
  if (!rows) return t.skip('this machine is too busy: the messages of one click always meet one another')
  assert.deepEqual(rows.map(kindOf).sort(), clickOf(readme).map(kindOf).sort())
})

test('a page of another origin shows a run, by the element and by follow.js, whatever it reports', { skip: chromiumMissing }, async t => {
  const [element, script] = ['key="KEY"', "'KEY'"].map(key => readmeBlocks('html').find(block => block.includes(key))!)
  assert.equal(element!.trim().split('\n').length, 3)
  let html = ''
  const application = createServer((_, response) => response.setHeader('Content-Type', 'text/html').end(html))
  await once(application.listen(0, '127.0.0.1'), 'listening')
  t.after(() => application.close())
  const origin = `http://127.0.0.1:${(application.address() as AddressInfo).port}`
  const own = await startApp(t, { TOKEN, ALLOWED_ORIGINS: origin })
  const every = [['progress', 1], ['msg', null], ['msg', { a: 1 }], ['log', 'words'], ['warning', 'careful', { line: 1 }], ['progress', 5, 20]]
  const call = { method: 'reports', args: [{ ...every }] }
  const { body: { id, key } } = await own.request('POST', '/tasks', call, { Authorization: `Bearer ${TOKEN}` })
  const filled = (block: string) => block.replaceAll(ANYWHERE, own.url).replaceAll(/(["'])ID\1/g, `"${id}"`).replace(/(["'])KEY\1/, `"${key}"`)
  html = `${filled(element!)}<main>${filled(script!)}</main>`.replace("'progress, output'", "'main progress, main output'")
  const browser = await startChromium()
  const page = await openPage(t, browser, origin)
  t.after(() => browser.close())
  for (const [words, bar] of [['main output', 'main progress'], ['longrun-run [part=words]', 'longrun-run progress']] as const) {
    await has(page, words, 'ok')
    assert.equal(await page.locator(bar).evaluate((bar: HTMLProgressElement) => bar.max), 20)
  }
})
