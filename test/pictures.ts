// Makes the README's pictures anew: the page in the middle of a real import, light and dark. Run: npm run pictures

import { createWriteStream } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { Page } from 'playwright-core'
import { App, ROOT } from './app.ts'
import { has, start, startChromium, state } from './browser.ts'

const ROWS = 4_000_000 // 300 MB: long enough for a speed, and for a time that is left
const BLOCK = 10_000 // rows written at once
const CITIES = ['Bremen', 'Kraków', 'Lisboa', 'Oslo', 'Torino']

const folder = await mkdtemp(join(tmpdir(), 'longrun-pictures-'))
const app = new App({ TASKS: join(ROOT, 'tasks.ts') })
const [browser] = await Promise.all([startChromium(), app.startBoth()])
try {
  const file = join(folder, 'orders-2026.csv')
  await pipeline(Readable.from(orders()), createWriteStream(file))
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 }, reducedMotion: 'reduce' })
  // A browser without a window refuses all notices; a person's asks.
  await page.addInitScript(() => Object.defineProperty(Notification, 'permission', { value: 'default' }))
  page.setDefaultTimeout(120_000)
  await page.goto(app.url)
  await earlierRuns(page)
  await page.locator('form[data-method=importCsv] input[type=file]').setInputFiles(file)
  await start(page, 'importCsv')
  await page.mouse.move(0, 0) // nothing is shown as if pointed at
  await state(page, 'running')
  await page.waitForFunction(() => (document.querySelector<HTMLProgressElement>('#bar')?.value ?? 0) > 0.4)
  for (const colorScheme of ['light', 'dark'] as const) {
    await page.emulateMedia({ colorScheme })
    await page.screenshot({ path: join(ROOT, `.github/page-${colorScheme}.png`) })
  }
} finally {
  await browser.close()
  await app.end()
  await rm(folder, { recursive: true })
}

/** What the list at the side shows: a run that has ended well, one that was cancelled, one that found errors. */
async function earlierRuns(page: Page) {
  await start(page, 'process', { steps: 20, delay: 10 })
  await state(page, 'ok')
  await page.click('#new')
  await start(page, 'process', { steps: 1000, delay: 100 })
  await has(page, '#log-count', /entries/)
  await page.click('#cancel')
  await state(page, 'cancelled')
  await page.click('#new')
  await start(page, 'compile')
  await state(page, 'ok')
  await page.click('#new')
}

/** A CSV file, a block at a time; about one line in 5,000 is wrong, the same ones each time. */
function* orders() {
  yield 'order,customer,city,date,total\n'
  let random = 1
  for (let first = 1; first <= ROWS; first += BLOCK) {
    let block = ''
    for (let order = first; order < first + BLOCK; order++) {
      random = (Math.imul(random, 1664525) + 1013904223) >>> 0
      const customer = `"Customer number ${random % 100_000}, Ltd."`
      const city = CITIES[random % CITIES.length]
      const rest = `2026-0${1 + random % 9}-${10 + random % 18},${random % 1000}.50`
      const wrong = Math.floor(random / 2 ** 16) % 10_000
      if (wrong === 0) block += `${order},${customer},${city}\n`
      else if (wrong === 1) block += `${order},Customer "number" ${order},${city},${rest}\n`
      else block += `${order},${customer},${city},${rest}\n`
    }
    yield block
  }
}
