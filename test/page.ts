// What page.test.ts and page.long.ts have in common: the browser and the app that serve all tests of such a file, and
// words for what the page shows of a run, to be compared with its log.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, type TestContext } from 'node:test'
import type { Browser, BrowserContextOptions, Page } from 'playwright-core'
import { App } from './app.ts'
import {
  arrived, chromiumMissing as skip, counts, openPage, sees, start, startChromium, state, steps,
} from './browser.ts'

export let browser: Browser
export let app: App
/** For files that a person has. */
export let folder = ''

before(async () => {
  if (skip) return
  folder = await mkdtemp(join(tmpdir(), 'longrun-page-'))
  app = new App({ PROCESS_LIMIT: '3', SPARES: '2' })
  await Promise.all([app.startBoth(), startChromium().then(started => { browser = started })])
})

after(async () => {
  await browser?.close()
  await app?.end()
  if (folder) await rm(folder, { recursive: true })
})

/** Opens the page, as another person would, and waits until it is connected. */
export async function open(t: TestContext, path = '/', look: BrowserContextOptions = {}) {
  const permissions = ['clipboard-read', 'clipboard-write']
  const page = await openPage(t, browser, app.url + path, { permissions, ...look })
  await sees(page, 'Connected')
  return page
}

/** What the file is that the page offers. */
export async function download(page: Page) {
  const link = await page.locator('#file[href]').getAttribute('href')
  return app.request('GET', new URL(link!, page.url()).pathname)
}

export const text = (page: Page, selector: string) => page.locator(selector).innerText()
export const rows = (page: Page, list: string) => page.locator(`${list} .row:not([hidden])`).allTextContents()
/** The lines of a run's log. */
export const lines = (id: string) => readFileSync(join(app.runs, `${id}.ndjson`), 'utf8').trimEnd().split('\n')
/** What the foot of the log says when all of a run has arrived: progress has its bar, and is left out of the log. */
export function whole(id: string) {
  const all = lines(id)
  const shown = all.filter(line => !line.startsWith('{"type":"progress"'))
  const [n, of] = [shown.length.toLocaleString('en'), all.length.toLocaleString('en')]
  return n === of ? `${n} entries` : `${n} of ${of} entries`
}
/** The numbers from 0 on, so many. */
export const upTo = (n: number) => Array.from({ length: n }, (_, step) => step)

/** The steps that a run of `tick` has made. */
export const stepsOf = (id: string) => upTo(lines(id).length - 2) // the others are its start and its end

/** Starts a run in the page, and the web server anew in its middle: the page says so, and shows all of the run. */
export async function outlivesServer(page: Page) {
  const id = await start(page, 'tick', { name: 'outlives' })
  await arrived(page, 10)
  await app.kill('server')
  await sees(page, 'Connection lost')
  await app.startServer()
  await sees(page, 'nothing is missing')
  app.letGo('outlives')
  await state(page, 'ok')
  assert.deepEqual(await steps(page), stepsOf(id))
  await counts(page, whole(id))
}
