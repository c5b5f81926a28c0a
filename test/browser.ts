// Browsers that the machine has, driven by playwright-core (it brings none of its own); and what a person does with the
// page, in words that hold in each of them.

import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import type { TestContext } from 'node:test'
import { chromium, firefox, type Browser, type BrowserContextOptions, type Page } from 'playwright-core'

const PATIENCE = 60_000 // milliseconds until a wait is in vain; a busy machine needs them
const chromiumPath = find(
  process.env['CHROMIUM'],
  '/usr/bin/chromium-headless-shell', // the same browser without its own windows: a test takes half of the time
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
)
const firefoxPath = find(
  process.env['FIREFOX'],
  '/usr/bin/firefox-esr',
  '/usr/bin/firefox',
  '/Applications/Firefox.app/Contents/MacOS/firefox',
)

function find(...places: (string | undefined)[]) {
  return places.find(place => place && existsSync(place))
}

/** Why the tests of the page cannot run here, or false. Where everything has to be tested, it is an error. */
export const chromiumMissing = chromiumPath ? false : 'no Chromium found; CHROMIUM can name one'
if (chromiumMissing && process.env['CI']) throw new Error(chromiumMissing)

/** Why the tests in Firefox cannot run here, or false. */
export const firefoxMissing = firefoxPath ? false : 'no Firefox found; FIREFOX can name one'

/** Starts Chromium, without a window; it ends with this process at the latest. `args`: further ones of its command. */
export function startChromium(...args: string[]): Promise<Browser> {
  return chromium.launch({
    executablePath: chromiumPath,
    chromiumSandbox: process.getuid?.() !== 0, // it refuses to run as root
    args: ['--disable-gpu', '--disable-quic', ...args], // playwright itself sees to it that nothing calls home
    timeout: PATIENCE,
  })
}

/** Starts Firefox, without a window; it ends with this process at the latest. */
export function startFirefox(): Promise<Browser> {
  return firefox.launch({
    executablePath: firefoxPath,
    channel: 'moz-firefox', // an ordinary one, over WebDriver BiDi: playwright's own protocol needs a patched Firefox
    firefoxUserPrefs: { 'dom.events.testing.asyncClipboard': true }, // lets a page read what it has copied
    timeout: PATIENCE,
  })
}

/** Opens an address as another person would: with storage, cookies and rights of its own, until the test ends. */
export async function openPage(
  t: TestContext, browser: Browser, url: string, look: BrowserContextOptions = {},
): Promise<Page> {
  // without motion, which costs much where the picture is made without a graphics card
  const context = await browser.newContext({ reducedMotion: 'reduce', ...look })
  context.setDefaultTimeout(PATIENCE)
  await context.addInitScript('globalThis.__name = f => f') // in tsx, inner functions call it, also when sent to a page
  const page = await context.newPage()
  t.after(async () => {
    const errors = await page.pageErrors({ filter: 'all' })
    // Firefox counts what it says of a connection that was given up while it was made, by a reload perhaps.
    const thrown = errors.filter(({ message }) => !/^(Firefox can’t establish a|The) connection /.test(message))
    await context.close()
    assert.deepEqual(thrown, [], 'nothing was thrown in the page')
  })
  await page.goto(url)
  return page
}

/** Fills a form of the start view and submits it; resolves with the id of the run that is then in view. */
export async function start(page: Page, method: string, values: Record<string, string | number> = {}): Promise<string> {
  const form = page.locator(`form[data-method=${method}]`)
  for (const [name, value] of Object.entries(values)) {
    const field = form.locator(`[name=${name}]`)
    await field.clear() // in Firefox, fill() alone adds to what a number field holds
    await field.fill(String(value))
  }
  await form.locator('button.primary').click()
  await page.waitForURL(/\?run=/)
  return new URL(page.url()).searchParams.get('run')!
}

/** Until these words are in sight. */
export const sees = (page: Page, words: string) => page.getByText(words).filter({ visible: true }).first().waitFor()

/** Until an element is in sight that holds these words. */
export const has = (page: Page, selector: string, words: string | RegExp) =>
  page.locator(selector, { hasText: words }).waitFor()

/** Until the run in view is in this state. */
export const state = (page: Page, wanted: string) => page.locator(`#run[data-state=${wanted}]`).waitFor()

/** Until the foot of the log says exactly this, such as "62 entries". */
export const counts = (page: Page, wanted: string) => page.locator(`#log-count:text-is("${wanted}")`).waitFor()

/** Until the log in the page has more than that many entries. */
export const arrived = (page: Page, more: number) => page.waitForFunction(more => {
  const [, entries = '0'] = /([\d,]+) entr/.exec(document.querySelector('#log-count')?.textContent ?? '') ?? []
  return Number(entries.replaceAll(',', '')) > more
}, more)

/** What a button of the page copies. */
export async function copied(page: Page, button: string): Promise<string> {
  await page.evaluate(() => navigator.clipboard.writeText(''))
  await page.click(button)
  await page.locator(`${button}:text-is("Copied")`).waitFor()
  return page.evaluate(() => navigator.clipboard.readText())
}

/** The steps of a run of `process` or `tick`, from 0 on, in the order in which the page shows them. */
export async function steps(page: Page): Promise<number[]> {
  return [...(await copied(page, '#copy-log')).matchAll(/step (\d+) of/g)].map(([, step]) => Number(step) - 1)
}

/** What the console complains of: also what the page's policy blocked, and what could not be loaded. */
export async function complaints(page: Page): Promise<string[]> {
  const messages = await page.consoleMessages({ filter: 'all' })
  return messages.filter(message => message.type() === 'error')
    .map(message => `${message.text()} ${message.location().url}`)
}
