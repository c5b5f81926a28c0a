// What the pages of one browser share where no WebSocket gets through, and what they say of those who answer in the server's
// place.

import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import type { Browser, Page } from 'playwright-core'
import { App, until } from './app.ts'
import { chromiumMissing as skip, openPage, sees, startChromium, state } from './browser.ts'
import { Gate } from './gate.ts'

suite('Where no WebSocket gets through,', { skip }, () => {
  const app = new App({ PROCESS_LIMIT: '20', SPARES: '2' })
  let browser: Browser
  let between: Gate
  before(async () => {
    if (skip) return
    await Promise.all([app.startBoth(), startChromium().then(started => { browser = started })])
    between = await new Gate(app).start()
  })
  after(async () => {
    await browser?.close()
    between?.end()
    await app.end()
  })

  test('a browser without AbortSignal.any and AbortSignal.timeout follows all the same', async t => {
    const run = await app.start('process', [10, 10])
    const page = await openPage(t, browser, 'about:blank')
    await page.addInitScript(() => {
      Object.assign(AbortSignal, { any: undefined })
      Object.defineProperty(navigator, 'locks', { value: undefined })
    })
    await page.goto(`${between.url}?run=${run.id}`)
    await sees(page, 'Connected, without WebSocket')
    await state(page, 'ok')
  })

  test('a page whose proxy asks for another login says so, and is loaded anew by a click', async t => {
    const run = await app.start('tick', ['login'])
    const page = await openPage(t, browser, `${between.url}?run=${run.id}`)
    await sees(page, 'Connected, without WebSocket')
    await state(page, 'running')
    between.instead = (_, response) => response.writeHead(200, { 'Content-Type': 'text/html' }).end('<h1>Please log in</h1>')
    t.after(() => { between.instead = undefined })
    await sees(page, 'Something else answers here')
    await page.click('#reconnect:text("Load the page anew")')
    await sees(page, 'Please log in')
    between.instead = undefined // the login has succeeded
    await page.reload()
    await sees(page, 'Connected, without WebSocket')
    app.letGo('login')
    await state(page, 'ok')
    await run.outcome()
  })

  test('ten tabs of one browser all load, all follow their runs, and can cancel them', async t => {
    const context = await browser.newContext()
    t.after(() => context.close())
    const runs = []
    const pages: Page[] = []
    for (let tab = 0; tab < 10; tab++) {
      const run = await app.start('tick', [`tab-${tab}`])
      const page = await context.newPage()
      page.setDefaultTimeout(60_000)
      await page.goto(`${between.url}?run=${run.id}`)
      await state(page, 'running')
      runs.push(run)
      pages.push(page)
    }
    await until(() => between.waits === 3, 'three of them to wait')
    await pages[0]!.click('#cancel')
    await state(pages[0]!, 'cancelled')
    for (let tab = 1; tab < 10; tab++) app.letGo(`tab-${tab}`)
    await Promise.all(pages.slice(1).map(page => state(page, 'ok')))
    assert.equal(between.mostWaits, 3)
    await Promise.all(runs.map(run => run.outcome()))
  })
})
