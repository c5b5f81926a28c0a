// What element.test.ts and element.long.ts have in common: an application at another origin, whose pages show runs, a browser
// for them, and words for what is seen.

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { after, before, type TestContext } from 'node:test'
import type { Browser, Page } from 'playwright-core'
import { App, logOf } from './app.ts'
import { has, openPage, chromiumMissing as skip, startChromium } from './browser.ts'

const TOKEN = 'a-token-of-this-test-alone'
export const BEARER = { authorization: `Bearer ${TOKEN}` }

export let browser: Browser
export let app: App
export let origin = '' // of somebody else's application
let html = '' // its page
const application = createServer((request, response) => {
  const sockets = request.url === '/http-alone' ? '' : app.url.replace('http', 'ws')
  const policy = `default-src 'none'; script-src 'self' ${app.url}; connect-src ${app.url} ${sockets}`
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

export type Started = { id: string; key: string }

export async function startRun(method: string, args: unknown[], id = randomUUID()): Promise<Started> {
  const { status, body } = await app.request('POST', '/tasks', { method, args, id }, BEARER)
  assert.equal(status, 202, JSON.stringify(body))
  return body
}

export const whole = ({ id }: Started) => logOf(app, id).trimEnd().split('\n').map(line => JSON.parse(line))
export const heard = (page: Page) => page.evaluate(() => (globalThis as unknown as { heard: { entries: object[]; done: object[] } }).heard)
export const ended = (page: Page) => page.waitForFunction(() => (globalThis as unknown as { heard: { done: object[] } }).heard.done.length)
export const words = (page: Page, text: string | RegExp) => has(page, 'longrun-run [part=words]', text)
export const bar = (page: Page) => page.locator('longrun-run progress').evaluate((bar: HTMLProgressElement) => [bar.value, bar.max])
export const element = ({ id, key }: Started, server = `${app.url}/`) =>
  `<longrun-run server="${server}" run="${id}" key="${key}"></longrun-run>`
const script = () => `<script type="module" src="${app.url}/longrun-run.js"></script>`

/** Opens the application's page with this in it, after an own script; counts its WebSockets to longrun. */
export async function open(t: TestContext, body: string, path = '/', first = '') {
  html = script() + body
  const page = await openPage(t, browser, 'about:blank')
  const sockets: string[] = []
  page.on('websocket', socket => sockets.push(socket.url()))
  await page.addInitScript(first)
  await page.goto(origin + path)
  return { page, sockets }
}
