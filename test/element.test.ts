// What is let out to pages of others, in a real browser: <longrun-run> and follow.js, from another origin, by key, below a
// strict Content-Security-Policy. (What a browser's pages share where no WebSocket gets through is in element.long.ts.)

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { after, before, suite, test, type TestContext } from 'node:test'
import type { Browser, Page } from 'playwright-core'
import { App, logOf, until } from './app.ts'
import { chromiumMissing as skip, complaints, has, openPage, startChromium } from './browser.ts'

const TOKEN = 'a-token-of-this-test-alone'
const BEARER = { authorization: `Bearer ${TOKEN}` }

let browser: Browser
let app: App
let origin = '' // of somebody else's application
let html = '' // its page
const application = createServer((request, response) => {
  const policy = `default-src 'none'; script-src 'self' ${app.url}; connect-src ${app.url} ${app.url.replace('http', 'ws')}`
  response.setHeader('Content-Security-Policy', policy)
  if (request.url === '/page.js') return response.setHeader('Content-Type', 'text/javascript').end(SCRIPT)
  response.setHeader('Content-Type', 'text/html').end(`<!doctype html><script src="page.js"></script>${html}`)
})

/** Writes down what comes out of elements. */
const SCRIPT = `
  heard = { entries: [], done: [] }
  document.addEventListener('entries', ({ detail }) => heard.entries.push(...detail))
  document.addEventListener('done', ({ detail }) => heard.done.push(detail))
`

before(async () => {
  if (skip) return
  await once(application.listen(0), 'listening')
  origin = `http://127.0.0.1:${(application.address() as AddressInfo).port}`
  app = new App({ TOKEN, ALLOWED_ORIGINS: origin, PROCESS_LIMIT: '20', SPARES: '2' })
  await Promise.all([app.startBoth(), startChromium().then(started => { browser = started })])
})

after(async () => {
  await browser?.close()
  application.close()
  await app?.end()
})

type Started = { id: string; key: string }

async function startRun(method: string, args: unknown[], id = randomUUID()): Promise<Started> {
  const { status, body } = await app.request('POST', '/tasks', { method, args, id }, BEARER)
  assert.equal(status, 202, JSON.stringify(body))
  return body
}

const whole = ({ id }: Started) => logOf(app, id).trimEnd().split('\n').map(line => JSON.parse(line))
const heard = (page: Page) => page.evaluate(() => (globalThis as unknown as { heard: { entries: object[]; done: object[] } }).heard)
const ended = (page: Page) => page.waitForFunction(() => (globalThis as unknown as { heard: { done: object[] } }).heard.done.length)
const words = (page: Page, text: string | RegExp) => has(page, 'longrun-run [part=words]', text)
const bar = (page: Page) => page.locator('longrun-run progress').evaluate((bar: HTMLProgressElement) => [bar.value, bar.max])
const element = ({ id, key }: Started, server = `${app.url}/`) =>
  `<longrun-run server="${server}" run="${id}" key="${key}"></longrun-run>`
const script = () => `<script type="module" src="${app.url}/longrun-run.js"></script>`

/** Opens the application's page with this in it; counts its WebSockets to longrun. */
async function open(t: TestContext, body: string) {
  html = script() + body
  const page = await openPage(t, browser, 'about:blank')
  const sockets: string[] = []
  page.on('websocket', socket => sockets.push(socket.url()))
  await page.goto(origin)
  return { page, sockets }
}

suite('<longrun-run>, in a page of another origin,', { skip }, () => {
  test('shows how far a run is and how it ended, by its key, below a strict policy', async t => {
    const run = await startRun('process', [30, 20])
    const { page, sockets } = await open(t, element(run))
    await words(page, /^ok$/)
    await ended(page)
    assert.deepEqual(await bar(page), [30, 30])
    assert.deepEqual(await heard(page), { entries: whole(run), done: [whole(run).at(-1).data] })
    assert.equal(await page.locator('longrun-run [part=cancel]').isVisible(), false)
    assert.equal(sockets.length, 1)
    assert.deepEqual(await complaints(page), [], 'the policy has blocked nothing')
  })

  test('cancels its run', async t => {
    const run = await startRun('polite', [])
    const { page } = await open(t, element(run))
    await words(page, /./)
    await page.locator('longrun-run [part=cancel]').click()
    await words(page, /^cancelled/)
    assert.equal((await heard(page)).done.length, 1)
  })

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

  test('shows another run when its attributes say so, and its bar and words begin anew', async t => {
    const [first, second] = [await startRun('process', [5, 0]), await startRun('tick', ['second'])]
    const { page } = await open(t, element(first))
    await ended(page)
    await page.locator('longrun-run').evaluate((element, { id, key }) => {
      element.setAttribute('run', id)
      element.setAttribute('key', key)
    }, second)
    await words(page, /^step \d+ of many$/)
    assert.equal(await page.locator('longrun-run progress').getAttribute('value'), null)
    app.letGo('second')
    await words(page, 'ok')
    assert.deepEqual((await heard(page)).entries, [...whole(first), ...whole(second)])
  })

  test('says why it shows nothing: a wrong key; and follows when it gets the right one', async t => {
    const run = await startRun('process', [5, 0])
    const { page } = await open(t, element({ ...run, key: 'wrong' }))
    await words(page, 'this is not the key of that run')
    await page.locator('longrun-run').evaluate((element, key) => element.setAttribute('key', key), run.key)
    await words(page, 'ok')
    assert.deepEqual((await heard(page)).entries, whole(run))
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
    assert.deepEqual((await refusal(page, app.url, run.id))[1], 'origin')
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
