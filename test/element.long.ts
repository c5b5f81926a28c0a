// What is let out to pages of others, continued from element.test.ts; what the pages of one browser share where no WebSocket
// gets through, and what they say of those who answer in the server's place.

import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import type { Page } from 'playwright-core'
import { App, until } from './app.ts'
import { openPage, sees, chromiumMissing as skip, state } from './browser.ts'
import { app, BEARER, browser, element, ended, heard, open, origin, startRun, whole, words } from './element.ts'
import { Gate } from './gate.ts'

suite('<longrun-run>, in a page of another origin,', { skip }, () => {
  test('takes every kind of entry: no total, odd totals, no text, null, nothing that anybody foresaw', async t => {
    const odd: unknown[][] = [
      ['progress', 3], ['progress', 3, 10], ['progress', 20, 10], ['progress', -5, 10], ['progress', 5, 0], ['progress', '7', 10],
      ['progress', { toString: 1 }, { valueOf: 1 }], ['progress', null, null], ['msg', null], ['msg', ''], ['msg', { msg: { deep: [1] } }],
      ['msg', [1, [2]]], ['msg', 'x'.repeat(100_000)], ['msg', false], ['log', 'words'], ['warning', 'careful', { line: 3 }],
    ]
    const run = await startRun('reports', [{ ...odd }])
    const { page } = await open(t, element(run))
    await ended(page)
    await words(page, 'ok')
    assert.deepEqual((await heard(page)).entries, whole(run))
    for (const one of [odd[0]!, odd[6]!, odd[8]!, odd[10]!]) {
      const single = await startRun('reports', [{ one, two: ['throw'] }])
      await page.locator('longrun-run').evaluate((element, { id, key }) => {
        element.setAttribute('key', key)
        element.setAttribute('run', id)
      }, single)
      await words(page, /^error: /)
    }
    assert.equal((await heard(page)).done.length, 5)
  })

  test('makes one connection, however its attributes are set, and goes on when it is moved, removed and put back', async t => {
    const run = await startRun('tick', ['moved'])
    const { page, sockets } = await open(t, '<div id="here"></div><div id="there"></div>')
    await page.waitForFunction(() => customElements.get('longrun-run'))
    await page.evaluate(({ id, key, url }) => {
      const element = document.createElement('longrun-run')
      document.querySelector('#here')!.append(element)
      element.setAttribute('key', key)
      element.setAttribute('run', id)
      element.setAttribute('server', url)
    }, { ...run, url: `${app.url}/` })
    await words(page, /^step \d+ of many$/)
    await page.evaluate(() => document.querySelector('#there')!.append(document.querySelector('longrun-run')!))
    await page.evaluate(() => document.querySelector('longrun-run')!.setAttribute('run', document.querySelector('longrun-run')!.getAttribute('run')!))
    const count = (await heard(page)).entries.length
    await page.waitForFunction(count => (globalThis as unknown as { heard: { entries: object[] } }).heard.entries.length > count, count)
    assert.equal(sockets.length, 1)
    await page.evaluate(() => {
      const element = document.querySelector('longrun-run')!
      element.remove()
      Object.assign(globalThis, { element })
    })
    await until(async () => (await app.request('GET', '/health', undefined, BEARER)).body.readers === 0, 'nobody to follow it')
    await page.evaluate(() => document.body.append((globalThis as unknown as { element: Element }).element))
    app.letGo('moved')
    await ended(page)
    assert.deepEqual(await heard(page), { entries: whole(run), done: [whole(run).at(-1).data] }, 'each once')
    await page.evaluate(() => document.querySelector('#here')!.append((globalThis as unknown as { element: Element }).element))
    assert.equal(sockets.length, 2)
    assert.equal((await heard(page)).done.length, 1)
  })

  test('gets its looks from the page', async t => {
    const run = await startRun('process', [1, 0])
    const { page } = await open(t, element(run))
    await words(page, 'ok')
    const parts = await page.locator('longrun-run').evaluate(element => [...element.shadowRoot!.children].map(child => child.getAttribute('part')))
    assert.deepEqual(parts, ['bar', 'words', 'cancel'])
  })
})

suite('follow(), in a page of another origin,', { skip }, () => {
  /** What follow() says to a page that asks for this run. */
  const refusal = (page: Page, url: string, id: string, key?: string) => page.evaluate(async ({ url, id, key, from }) => {
    const { follow } = await import(`${from}/follow.js`)
    return new Promise<string[]>(resolve => follow(url, id, () => {}, { key, refuse: (...told: string[]) => resolve(told) }))
  }, { url, id, key, from: app.url })

  test('is told why it gets nothing, each time by a code beside the words', async t => {
    const run = await startRun('process', [5, 0])
    const { page } = await open(t, '')
    assert.deepEqual(await refusal(page, app.url, run.id, 'wrong'), ['this is not the key of that run', 'key'])
    assert.deepEqual(await refusal(page, app.url, run.id), ['the key of that run is needed: ?key=KEY', 'key'])
    assert.deepEqual((await refusal(page, app.url, 'no id'))[1], 'refused')
  })

  for (const isBlocked of [false, true]) {
    test(`whose origin is not allowed, is told so${isBlocked ? ' where no WebSocket gets through' : ''}`, async t => {
      const run = await startRun('process', [5, 0])
      const page = await openPage(t, browser, 'about:blank')
      if (isBlocked) await page.routeWebSocket('**', socket => socket.close())
      await page.goto(origin.replace('127.0.0.1', 'localhost'))
      const [message, code] = await refusal(page, app.url, run.id, run.key)
      assert.equal(code, 'origin')
      assert.match(message!, /ALLOWED_ORIGINS/)
    })
  }
})

suite('Where no WebSocket gets through,', { skip }, () => {
  const app = new App({ PROCESS_LIMIT: '20', SPARES: '2' })
  let between: Gate
  before(async () => {
    if (skip) return
    await app.startBoth()
    between = await new Gate(app).start()
  })
  after(async () => {
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
