// Debian's Chromium (or another that is there), driven by playwright-core: it brings no browser of its own.

import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import type { TestContext } from 'node:test'
import { chromium, type Browser, type BrowserContextOptions, type Page } from 'playwright-core'

const PATIENCE = 60_000 // milliseconds until a wait is in vain; a busy machine needs them
const places = [
  process.env['CHROMIUM'],
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
]
const executablePath = places.find(place => place && existsSync(place))

/** Why the tests of the page cannot run here, or false. Where everything has to be tested, it is an error. */
export const browserMissing = executablePath ? false : 'no Chromium found; CHROMIUM can name one'
if (browserMissing && process.env['CI']) throw new Error(browserMissing)

/** Starts the browser, without a window; it ends with this process at the latest. */
export function startBrowser(): Promise<Browser> {
  return chromium.launch({
    executablePath,
    chromiumSandbox: process.getuid?.() !== 0, // the sandbox refuses to run as root
    args: ['--disable-gpu', '--disable-quic'], // playwright itself sees to it that nothing calls home
    timeout: PATIENCE,
  })
}

/** Opens an address as another person would: with storage, cookies and rights of its own, until the test ends. */
export async function openPage(t: TestContext, browser: Browser, url: string, look: BrowserContextOptions = {}): Promise<Page> {
  const context = await browser.newContext(look)
  context.setDefaultTimeout(PATIENCE)
  await context.addInitScript('globalThis.__name = f => f') // tsx names inner functions by it, also in those sent to a page
  const page = await context.newPage()
  t.after(async () => {
    const errors = await page.pageErrors({ filter: 'all' })
    await context.close()
    assert.deepEqual(errors, [], 'nothing was thrown in the page')
  })
  await page.goto(url)
  return page
}
