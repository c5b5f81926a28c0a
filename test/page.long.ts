// The page, continued from page.test.ts: what takes longer, or is met more seldom; and whether anybody is kept out by
// it, in each of its states.

import assert from 'node:assert/strict'
import { mkdir, readdir, rm, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import axe from 'axe-core'
import type { Page } from 'playwright-core'
import { App, ROOT, startApp } from './app.ts'
import {
  arrived, chromiumMissing as skip, complaints, copied, counts, has, openPage, sees, start, state, steps,
} from './browser.ts'
import { app, browser, download, folder, lines, open, outlivesServer, rows, stepsOf, text, upTo, whole } from './page.ts'

test('a run that nobody knows is said to be unknown, and shown when it begins', { skip }, async t => {
  const page = await open(t, '/?run=not-begun')
  await state(page, 'unknown')
  for (const part of ['.meter', '#cancel']) assert.ok(await page.locator(part).isHidden(), part)
  await app.start('process', [3, 1], { id: 'not-begun' })
  await state(page, 'ok')
  assert.deepEqual(await steps(page), upTo(3))
  assert.ok(await page.locator('.meter').isVisible())
  const wrong = await open(t, '/?run=bad%20id')
  await state(wrong, 'unknown')
})

test('an upload that was swept while its import waited is uploaded again', { skip }, async t => {
  const file = join(folder, 'swept.csv')
  await writeFile(file, 'a,b\n1,2\n')
  const sweep = async () => {
    const uploads = await readdir(join(app.runs, 'uploads'))
    assert.ok(uploads.length, 'there is an upload')
    await Promise.all(uploads.map(name => rm(join(app.runs, 'uploads', name))))
  }
  const page = await open(t)
  await page.waitForFunction(async () => !(await (await fetch('health')).json()).running, undefined, { polling: 100 })
  const taken = await Promise.all([1, 2, 3].map(() => app.start('forget')))
  await page.locator('body').drop({ files: file })
  await sees(page, 'All places are taken')
  await has(page, '#runs [aria-current] .about', /^No place is free$/) // how far its upload was says nothing of the run
  assert.match(await page.title(), /^… · swept\.csv/)
  await sweep()
  await Promise.all([page.waitForResponse('**/files'), page.click('#retry')])
  await sees(page, 'All places are taken')
  await page.click('#wait')
  await state(page, 'queued')
  await Promise.all([page.waitForResponse('**/files'), sweep()])
  await state(page, 'queued') // it keeps its place in the queue
  await has(page, '#runs [aria-current] .about', /^Waiting to start$/)
  assert.match(await page.title(), /^… · swept\.csv/)
  await Promise.all(taken.map(run => run.cancel()))
  await has(page, '#tiles', /Rows imported1R/)
})

test('what is already running is not started twice: the page goes to that run', { skip }, async t => {
  const file = join(folder, 'once.csv')
  await writeFile(file, 'a,b\n1,2\n')
  await utimes(file, 1, 1)
  const first = await app.start('forget', [], { callId: 'once.csv 8 1000' }) // name, size and time of the file
  const page = await open(t)
  await page.locator('body').drop({ files: file })
  await sees(page, 'already running')
  await page.click('#other')
  await page.waitForURL(`**/?run=${first.id}`)
  await state(page, 'running')
  await first.cancel()
  await state(page, 'cancelled')
})

test('when the workers server does not answer, the page says so, and nothing is started later', { skip }, async t => {
  const page = await open(t)
  const id = await start(page, 'tick', { name: 'unanswered' })
  await state(page, 'running')
  await app.kill('workers')
  await sees(page, 'Workers server does not answer')
  await page.click('#new')
  await start(page, 'process', { steps: 1, delay: 1 })
  await sees(page, 'nothing was started')
  await app.startWorkers()
  await sees(page, 'Connected')
  await page.click('#retry')
  await state(page, 'ok')
  app.letGo('unanswered')
  await page.click(`#runs a[href*="${id}"]`)
  await state(page, 'ok')
  await counts(page, whole(id))
  assert.deepEqual(await steps(page), stepsOf(id))
})

test('while the workers server is away, figures are pale, and the page says what still holds', { skip }, async t => {
  const own = await startApp(t, { SPARES: '0' })
  const run = await own.start('process', [10_000, 20])
  const page = await openPage(t, browser, `${own.url}/?run=${run.id}`)
  await has(page, '#left', /^about/)
  await own.kill('workers')
  await has(page, '#hint', /^The run goes on, and its log is kept/)
  await has(page, '#left', /^–$/)
  assert.ok(Number(await page.locator('#percent').evaluate(figure => getComputedStyle(figure).opacity)) < 1)
  await own.startWorkers()
  await has(page, '#left', /^about/)
  await run.cancel()
  await run.outcome()
})

test('asking what is new costs little, however many runs have ended', { skip }, async t => {
  const own = new App({ SPARES: '0', PROCESS_LIMIT: '9' })
  t.after(() => own.end())
  const [began, callId] = [Date.now() - 86_400_000, 'call '.repeat(10)]
  for (const n of upTo(1000)) {
    const call = { method: 'process', args: [n, 1], callId: callId + n, pid: 1, timeLimit: 0 }
    const start = { type: 'start', time: began + n, data: call }
    const done = { type: 'done', time: began + n + 9, data: { outcome: 'ok', seconds: 0.009, errors: 1 } }
    await writeFile(join(own.runs, `old-${n}.ndjson`), `${JSON.stringify(start)}\n${JSON.stringify(done)}\n`)
  }
  await own.startBoth()
  const run = await own.start('process', [100_000, 50])
  const page = await openPage(t, browser, own.url)
  await has(page, '#runs .day', /^Yesterday$/)
  await page.locator('#runs li', { hasText: /Finished with 1 error/ }).first().waitFor()
  const costs: number[] = []
  page.on('response', async answer => {
    if (/\/tasks(\?|\/[^/]+$)/.test(answer.url())) costs.push((await answer.body()).length)
  })
  await page.locator(`#runs a[href*="${run.id}"] .about`, { hasText: /Running/ }).waitFor()
  let last = run
  for (const _ of upTo(5)) { // then it is not among the newest
    last = await own.start('process', [1, 0])
    await last.outcome()
  }
  await page.locator(`#runs a[href*="${last.id}"] .about`, { hasText: /Finished/ }).waitFor()
  costs.length = 0
  await run.cancel()
  await page.locator(`#runs a[href*="${run.id}"] .about`, { hasText: /Cancelled/ }).waitFor()
  t.diagnostic(`answers of ${costs} bytes`)
  assert.ok(costs.length > 0 && costs.every(cost => cost < 1500))

  await page.fill('#filter', 'process(77,')
  await page.waitForFunction(() => document.querySelectorAll('#runs a').length === 1)
  await page.click('#runs a')
  await has(page, '#run-title', /^process\(77, ?1\)$/)
  await page.reload()
  await page.waitForFunction(() => document.querySelectorAll('#runs a').length === 1)
})

test('a flood leaves the page responsive and small, and every entry can be looked at', { skip }, async t => {
  const page = await open(t)
  const waits = await page.evaluateHandle(() => {
    const waits: number[] = []
    document.addEventListener('click', click => waits.push(performance.now() - click.timeStamp))
    return waits
  })
  await start(page, 'flood', { count: 200_000 })
  while (await page.locator('#run[data-state=ok]').count() === 0) await page.click('#times', { force: true }) // at once
  await counts(page, '200,002 entries')
  const sorted = (await waits.jsonValue()).sort((a, b) => a - b)
  const [median = 0, worst = 0] = [sorted[sorted.length >> 1], sorted.at(-1)]
  t.diagnostic(`${sorted.length} clicks answered after ${median.toFixed(1)} ms, at worst ${worst.toFixed(1)} ms`)
  assert.ok(median < 1000, 'a click is answered at once, also where ten others want the processor')
  const nodes = await page.locator('*').count()
  assert.ok(nodes < 1500, `${nodes} nodes`)

  await page.press('#log-list', 'Home') // let go meanwhile, so read from the log again
  await page.keyboard.press('ArrowDown')
  await has(page, '#entry-title', /^Entry 2,/)
  await has(page, '#entry-text', '"step": 0,')
  await page.keyboard.press('End')
  await has(page, '#entry-title', /^Entry 200,002/)
  await page.fill('#search', '"step":123456,')
  await page.press('#search', 'Enter')
  await has(page, '#hit-count', '1 of 1 hit')
  await page.locator('#log-list mark:text-is(\'"step":123456,\')').waitFor()
})

test('the log follows the end, stays put when one scrolls up, and goes back with one click', { skip }, async t => {
  const page = await open(t, '/', { viewport: { width: 1280, height: 700 } })
  const id = await start(page, 'tick', { name: 'scrolled' })
  await arrived(page, 40)
  await page.locator('#log-list').evaluate(list => { list.scrollTop = 0 })
  await page.locator('#to-end').waitFor()
  const put = await rows(page, '#log-list')
  await has(page, '#to-end', /\(([6-9]\d|\d{3}) below/)
  assert.deepEqual((await rows(page, '#log-list')).slice(0, 10), put.slice(0, 10))
  await page.click('#to-end')
  app.letGo('scrolled')
  await state(page, 'ok')
  await sees(page, `step ${stepsOf(id).length} of many`)
  await page.locator('#to-end').waitFor({ state: 'hidden' })
})

test('levels can be left out, and a link leads to a line', { skip }, async t => {
  const run = await app.start('crash', ['the end', 500])
  await run.outcome()
  const page = await open(t, `/?run=${run.id}&line=250`)
  await sees(page, 'Entry 250, log')
  await has(page, '#entry-text', 'entry 248')
  await page.click('.chip[data-level=log]')
  await counts(page, '3 of 503 entries')
  await page.click('#next-warning')
  await sees(page, 'Entry 502, error')
  assert.equal(await copied(page, '#entry-link'), `${app.url}/?run=${run.id}&line=502`)
})

test('in a background tab the run goes on: title, and a notification if it was asked for', { skip }, async t => {
  const page = await open(t)
  const notices = await page.evaluateHandle(() => {
    const notices: string[] = []
    class Notification {
      static requestPermission() { return Promise.resolve('granted') }
      constructor(title: string) { notices.push(title) }
    }
    // frames stop in a hidden tab
    Object.defineProperty(document, 'hidden', { get: () => document.documentElement.dataset['away'] !== undefined })
    const frame = requestAnimationFrame
    const requestFrame: typeof frame = callback => (document.hidden ? 0 : frame(callback))
    Object.assign(globalThis, { Notification, requestAnimationFrame: requestFrame })
    return notices
  })
  const turn = (away: boolean) => page.evaluate(away => {
    document.documentElement.toggleAttribute('data-away', away)
    document.dispatchEvent(new Event('visibilitychange'))
  }, away)
  const titled = (words: string) =>
    page.waitForFunction(words => document.title.startsWith(words), words, { polling: 100 }) // needs no frames

  await start(page, 'flood', { count: 50_000 })
  await titled('✓ · flood')
  assert.deepEqual(await notices.jsonValue(), [], 'nobody asked')
  await page.click('#new')
  const id = await start(page, 'tick', { name: 'noticed' })
  await state(page, 'running')
  await page.click('#notify')
  await has(page, '#notify', 'Will notify')
  await turn(true)
  app.letGo('noticed')
  await titled('✓ · tick')
  assert.deepEqual(await notices.jsonValue(), ['tick("noticed"): Finished'])
  await turn(false)
  await state(page, 'ok')
  await counts(page, whole(id))
})

test('under the hood, the path lights up, and the frames can be read', { skip }, async t => {
  const page = await open(t)
  const id = await start(page, 'process', { steps: 100_000, delay: 50 })
  await page.click('#hood summary')
  await page.waitForFunction(() => ['publish', 'ack'].every(hop => document.querySelector(`.hop[data-hop=${hop}].lit`)))
  await has(page, 'figure[data-hop=publish]', /"step":/)
  await has(page, 'figure[data-hop=ack]', /"ack":/)
  const frame = (hop: string) => page.locator(`figure[data-hop=${hop}] pre`).innerText()
  assert.equal(await frame('request'), `[ process ]\n[  ]\n[ ${id} ]\n[ [100000,50] ]`)
  const position = Number(/\n\[ (\d+) \]\n/.exec(await frame('publish'))?.[1])
  const before = Buffer.from(lines(id).join('\n') + '\n').subarray(0, position)
  assert.ok(before.length === position && before.at(-1) === 10, 'a line begins at that position')
  assert.match(await frame('ack'), new RegExp(`^{"ack":"${id}","next":\\d+}$`))
  await page.click('#cancel')
  await state(page, 'cancelled')
})

test('nothing jumps while a run goes on and ends, at any width', { skip }, async t => {
  const file = join(folder, 'still.csv')
  await writeFile(file, ['a,b', ...upTo(100_000).map(at => (at % 5000 ? `${at},2` : `${at}`)), ''].join('\n'))
  for (const [width, height] of [[390, 844], [820, 1180], [1280, 800], [1920, 1080]] as const) {
    const page = await open(t, '/', { viewport: { width, height } })
    await page.locator('#runs a, #no-runs:not(:empty)').first().waitFor()
    const shifts = await page.evaluateHandle(() => {
      const shifts: number[] = []
      new PerformanceObserver(list => { // what a person did moves things in the half second after it
        const seen = list.getEntries() as (PerformanceEntry & { value: number; hadRecentInput: boolean })[]
        shifts.push(...seen.filter(({ hadRecentInput }) => !hadRecentInput).map(({ value }) => value))
      }).observe({ type: 'layout-shift' })
      return shifts
    })
    for (const method of ['process', 'compile', 'parts', 'importCsv']) {
      await page.click('#new')
      if (method === 'importCsv') await page.locator('form input[type=file]').first().setInputFiles(file)
      await start(page, method, method === 'process' ? { steps: 60, delay: 20 } : method === 'parts' ? { name: `still-${width}` } : {})
      if (method === 'parts') app.letGo(`still-${width}`)
      await state(page, 'ok')
      await page.locator('#log-list .row[data-level=done]:not([hidden])').waitFor()
      const sum = (await shifts.evaluate(shifts => shifts.splice(0))).reduce((sum, shift) => sum + shift, 0)
      assert.ok(sum < 0.05, `${method} at ${width} pixels: a layout shift of ${sum}`)
    }
  }
})

/** The numbers of those rows of the log that are wholly in sight. */
const inSight = (page: Page) => page.locator('#log-list').evaluate(list => {
  const box = list.getBoundingClientRect()
  const rows = [...list.querySelectorAll('.row:not([hidden])')].map(row => [row, row.getBoundingClientRect()] as const)
  return rows.filter(([, { top, bottom }]) => top >= box.top - 1 && bottom <= box.bottom + 1)
    .map(([row]) => Number(row.querySelector('.n')?.textContent)).sort((a, b) => a - b)
})

test('what is chosen stays where it was clicked, stands beside the log, and has an address', { skip }, async t => {
  const run = await app.start('flood', [100])
  await run.outcome()
  for (const [width, height] of [[390, 844], [1280, 800]] as const) {
    const page = await open(t, `/?run=${run.id}`, { viewport: { width, height } })
    await counts(page, '102 entries')
    const row = page.locator('#log-list .row:not([hidden])', { hasText: '"step":94' })
    await row.scrollIntoViewIfNeeded()
    const before = { scroll: await page.evaluate(() => scrollY), box: await row.boundingBox() }
    await row.click()
    await has(page, '#entry-title', 'Entry 96, msg')
    await page.waitForURL(/&line=96$/)
    assert.equal(await page.evaluate(() => scrollY), before.scroll)
    assert.ok((await inSight(page)).includes(96))
    assert.equal((await row.boundingBox())?.y, before.box?.y)
    await row.click() // nothing lies over it
    await page.reload()
    await has(page, '#entry-title', 'Entry 96, msg')
    await has(page, '#log-list [aria-selected=true]', '"step":94')
    await page.click('#entry-close')
    await page.waitForURL(url => !url.search.includes('line'))
  }
  const page = await open(t)
  await start(page, 'compile')
  await page.click('#findings-list .row >> nth=1')
  await page.locator('#source-lines [aria-selected=true]').waitFor()
  assert.equal(await page.evaluate(() => scrollY), 0, 'a problem, and beside it its line')
})

test('filters and searches keep the place, also in a large log', { skip }, async t => {
  const run = await app.start('flood', [300_000])
  await run.outcome()
  const page = await open(t, `/?run=${run.id}`)
  await counts(page, '300,002 entries')
  await page.fill('#search', '"step":200000,')
  await page.press('#search', 'Enter')
  await has(page, '#entry-title', 'Entry 200,002')
  const seen = await inSight(page)
  await page.press('#search', 'Escape')
  await page.click('.chip[data-level=msg]')
  await counts(page, '2 of 300,002 entries')
  await page.click('.chip[data-level=msg]')
  await counts(page, '300,002 entries')
  await page.waitForFunction(() => document.querySelector('#log-list [aria-selected=true]'))
  assert.deepEqual(await inSight(page), seen)
})

test('a log of huge entries is read once: they open, are searched and copied', { skip }, async t => {
  const run = await app.start('huge')
  await run.outcome()
  const page = await openPage(t, browser, app.url, { permissions: ['clipboard-read', 'clipboard-write'] })
  let reads = 0
  page.on('request', request => { if (request.url().includes('/log?')) reads++ })
  await page.goto(`${app.url}/?run=${run.id}`)
  await counts(page, '5 entries')
  await page.click('#log-list .row >> nth=2')
  await has(page, '#entry-text', /^x{100}/)
  await page.fill('#search', 'AFTER')
  await has(page, '#hit-count', /2 hits$/) // its end contains it, too
  await page.press('#search', 'Enter')
  await has(page, '#entry-text', /^after$/)
  assert.ok((await copied(page, '#copy-log')).length > 15 * 2 ** 20)
  assert.ok(reads < 6, `${reads} reads`)
})

test('the log has room: wrapped, and on the full screen 25 rows of 100 characters', { skip }, async t => {
  const run = await app.start('reports', [{ ...upTo(60).map(at => ['log', `${at} ${'word '.repeat(at % 40)}`]) }])
  await run.outcome()
  const page = await open(t, `/?run=${run.id}`, { viewport: { width: 1280, height: 800 } })
  await counts(page, '62 entries')
  await page.click('#full')
  await page.waitForFunction(() => innerHeight - document.querySelector('#log-list')!.clientHeight < 200)
  await page.locator('#log-list .row[data-level=done]').waitFor()
  assert.ok((await inSight(page)).length >= 25)
  const { width } = (await page.locator('#log-list .row:not([hidden]) .text').first().boundingBox())!
  assert.ok(width / 7.9 > 100, `${width} pixels of text`)
  await page.setViewportSize({ width: 600, height: 500 })
  await page.click('#wrap')
  await page.press('#log-list', 'End')
  const wholeRows = () => page.locator('#log-list .row:not([hidden]) .text')
    .evaluateAll(texts => texts.every(text => text.scrollWidth <= text.clientWidth))
  assert.ok(await wholeRows())
  assert.equal((await inSight(page)).at(-1), 62, 'the last row is in sight')
  await page.press('#log-list', 'Home')
  await page.waitForFunction(() => document.querySelector('#log-list [aria-posinset="1"][aria-selected=true]'))
  assert.equal((await inSight(page))[0], 1)
  await page.keyboard.press('Escape') // the entry
  await page.keyboard.press('Escape') // the full screen
  await page.locator('#run-title').waitFor()
})

test('how one looks at a log stays: for the next run, and over a reload', { skip }, async t => {
  const runs = await Promise.all([1, 2].map(() => app.start('crash', ['the end', 5])))
  await Promise.all(runs.map(run => run.outcome()))
  const page = await open(t, `/?run=${runs[0]!.id}`)
  await counts(page, '8 entries')
  await page.click('#wrap')
  await page.click('#times')
  await has(page, '.row[data-level=done] .time', /^\d\d:\d\d:\d\d\.\d{3}$/)
  await page.click('#times')
  await page.click('.chip[data-level=log]')
  const isAsBefore = async () => {
    await counts(page, '3 of 8 entries')
    await has(page, '.row[data-level=start] .time', /^\+00:00:00\.000$/) // since the beginning
    await page.locator('#wrap[aria-pressed=true]').waitFor()
  }
  await isAsBefore()
  await page.reload()
  await isAsBefore()
  await page.click(`#runs a[href*="${runs[1]!.id}"]`)
  await isAsBefore()
  await page.click('#times')
  await page.click('#wrap')
  await page.click('.chip[data-level=log]')
  await page.reload()
  await counts(page, '8 entries')
  assert.ok(await page.locator('.row[data-level=start] .time').isHidden())
  await page.locator('#wrap[aria-pressed=false]').waitFor()
})

test('where a browser keeps nothing, or keeps what makes no sense, the page does all the same', { skip }, async t => {
  const run = await app.start('parts', ['kept'])
  app.letGo('kept')
  await run.outcome()
  const look = async (page: Page) => {
    await page.goto(`${app.url}/?run=${run.id}`)
    await has(page, '#log-count', /entries/)
    for (const button of ['#times', '#wrap', '.chip[data-level=log]']) {
      const before = await page.getAttribute(button, 'aria-pressed')
      await page.click(button)
      await page.locator(`${button}:not([aria-pressed=${before}])`).waitFor()
    }
    await page.reload()
    await has(page, '#log-count', /entries/)
  }
  for (const broken of [
    () => Object.defineProperty(globalThis, 'localStorage', { get() { throw new Error('not allowed') } }),
    () => { Storage.prototype.setItem = () => { throw new Error('full') } },
  ]) {
    const page = await openPage(t, browser, app.url)
    await page.addInitScript(broken)
    await look(page)
    await counts(page, whole(run.id)) // as on a first visit
  }
  const page = await open(t)
  for (const odd of ['not JSON', 'null', '"__proto__"', '{"length":-1}', '[null,7,{}]']) {
    await page.evaluate(odd => {
      const names = ['times', 'wrap', 'filter', 'levels left out', 'steps of parts']
      for (const name of names) localStorage.setItem(`longrun ${name}`, odd)
    }, odd)
    await look(page)
  }
})

test('an error is read as it was written: line breaks, causes, and frames of others pale', { skip }, async t => {
  const run = await app.start('explain', ['cause', 'error'])
  await run.outcome()
  const page = await open(t, `/?run=${run.id}`)
  await state(page, 'ok')
  await page.click('#next-warning')
  await has(page, '#entry-text', 'inside')
  const told = await page.locator('#entry-text').innerText()
  assert.match(told, /^outside: inside.*\n\nError: outside\n +at .*functions\.ts[^]*\n\nCaused by: inside[^]*Error: inside\n +at /)
  await page.locator('#entry-text .foreign', { hasText: 'task.ts' }).first().waitFor()
})

test("of a stack the frames of an author's task.ts are shown, and longrun's are pale", { skip }, async t => {
  const TASKS = join(folder, 'task.ts')
  await writeFile(TASKS, `import { remote } from '${join(ROOT, 'remote.ts')}'
    export const fails = remote('fails', [], async task => { await null; work(task) })
    const work = task => task.msg(1n)`)
  const own = await startApp(t, { TASKS })
  const run = await own.start('fails')
  await run.outcome()
  const page = await openPage(t, browser, `${own.url}?run=${run.id}`)
  await has(page, '#failure-stack', 'task.ts:3')
  const shown = (await text(page, '#failure-stack')).split('\n').filter(frame => frame.includes('task.ts'))
  assert.deepEqual(shown.map(frame => frame.replace(TASKS, '')), ['at work (:3:31)', 'at Object.run (:2:74)'])
  await page.click('#next-warning')
  await has(page, '#entry-text .foreign', `at async run (${join(ROOT, 'task.ts')}`)
})

test('a search in a run that goes on is told once, and not at each of its entries', { skip }, async t => {
  const page = await open(t)
  await start(page, 'process', { steps: 100_000, delay: 20 })
  await arrived(page, 3)
  const said = await page.locator('#hit-spoken[role=status]').evaluateHandle(found => {
    const said: string[] = []
    new MutationObserver(() => said.push(found.textContent ?? '')).observe(found, { childList: true, characterData: true, subtree: true })
    return said
  })
  await page.fill('#search', 'step')
  await has(page, '#hit-spoken', /hits/)
  await has(page, '#hit-count', /^[5-9]\d hits/)
  assert.equal((await said.jsonValue()).length, 1)
  await page.click('#cancel')
})

test('the page fits the screen from phone to desk, and keeps still when asked to', { skip }, async t => {
  const run = await app.start('crash', ['x'.repeat(3000), 3])
  await run.outcome()
  const page = await open(t, `/?run=${run.id}`)
  for (const width of [320, 390, 640, 768, 1440, 2560]) { // 640: a desk at 200 %
    await page.setViewportSize({ width, height: 844 })
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `at ${width} pixels`)
  }
  assert.equal(await page.evaluate(() => document.getAnimations().length), 0)
})

// Some rules look at colours: in the dark, the others would say the same again.
const colours = ['color-contrast', 'link-in-text-block']
const looks = [
  { colorScheme: 'light', width: 1280 },
  { colorScheme: 'dark', width: 1280, runOnly: colours },
  { colorScheme: 'light', width: 320 },
] as const

/** What axe-core finds wrong with the page as it stands, in each look. */
async function barriers(page: Page, when: string): Promise<string[]> {
  const found: string[] = []
  const isThere = await page.evaluate(() => 'axe' in globalThis)
  if (!isThere) await page.evaluate(axe.source) // not as a script element: the page's policy forbids those
  for (const { colorScheme, width, ...rules } of looks) {
    await page.emulateMedia({ colorScheme })
    await page.setViewportSize({ width, height: 900 })
    const { violations } = await page.evaluate(rules =>
      (globalThis as unknown as { axe: typeof axe }).axe.run({ resultTypes: ['violations'], ...rules }), rules)
    for (const { help, nodes } of violations) {
      found.push(...nodes.map(({ target }) => `${when}, ${colorScheme}, ${width} pixels: ${help}: ${target.join(' ')}`))
    }
  }
  return found
}

test('in no state and no look does axe-core find a barrier', { skip }, async t => {
  const guarded = await startApp(t, { TOKEN: 'open-sesame-open', PROCESS_LIMIT: '1', SPARES: '0' })
  const page = await openPage(t, browser, guarded.url)
  const found: string[] = []
  const check = async (when: string) => found.push(...await barriers(page, when))
  await check('asked for a token')
  await page.fill('input[name=token]', 'open-sesame-open')
  await page.keyboard.press('Enter')
  await page.locator('form[data-method=process]').waitFor()
  await check('nothing started yet')

  const id = await start(page, 'process', { steps: 100_000, delay: 50 })
  await arrived(page, 10)
  await check('running')
  await page.press('#log-list', 'Home')
  await sees(page, 'Entry 1, start')
  await check('an entry is open')
  await page.click('#hood summary')
  await has(page, 'figure[data-hop=ack]', /"ack":/)
  await check('under the hood is open')
  await page.click('.chip[data-level=msg]')
  await has(page, '#log-count', /^1 of/)
  await check('a level is left out')
  await page.keyboard.press('Control+f')
  await page.fill('#search', 'nowhere')
  await page.click('#only-hits')
  await has(page, '#log-count', /^0 of/)
  await check('searched in vain')
  await page.fill('#search', 'process')
  await has(page, '#log-count', /^1 of/)
  await check('searched and found')
  await page.click('#full')
  await check('the log has the whole screen')
  await page.click('#full')

  await page.click('#new')
  await page.setViewportSize({ width: 1280, height: 900 })
  await start(page, 'crash', { msg: 'on purpose', count: 3 })
  await sees(page, 'All places are taken')
  await check('all places are taken')
  await page.click('#wait')
  await state(page, 'queued')
  await check('waiting for a place')
  await page.click(`#runs a[href*="${id}"]`)
  await page.click('#cancel')
  await state(page, 'cancelled')
  await check('cancelled')
  await page.click('#runs [data-state=error] a')
  await state(page, 'error')
  await check('ended with an error')

  await page.click('#new')
  await start(page, 'compile', { source: 'const n: string = 1\n' })
  await state(page, 'ok')
  await page.click('#findings-list .row')
  await check('a source and its problems')
  await page.click('#new')
  await check('some runs in the list')
  await page.click('#sample')
  await page.locator('#file[href]').waitFor()
  await check('imported, with rejected lines')

  await page.goto(`${guarded.url}/?run=unheard-of`)
  await state(page, 'unknown')
  await check('unknown')
  await page.click('#new')
  await start(page, 'process', { steps: 100_000, delay: 50 })
  await arrived(page, 10)
  await guarded.kill('server')
  await sees(page, 'Connection lost')
  await has(page, '#hint', /^The run goes on/)
  await check('the connection is lost, and figures are pale')
  assert.deepEqual(found, [])
})

test('progress that cannot be is never shown as more than all, or less than nothing', { skip }, async t => {
  const told = [[[-5, 10], '0 %'], [[20, 10], '100 %'], [[5, 10], '50 %'], [['7', 10], '4']] as const
  for (const [progress, percent] of told) {
    const run = await app.start('reports', [{ one: ['progress', ...progress], two: ['throw'] }]) // ends with an error
    await run.outcome()
    const page = await open(t, `/?run=${run.id}`)
    await has(page, '#percent', new RegExp(`^${percent}$`)) // what is no number is no progress: the entries are counted
  }
})

test('a run that has ended says so at once, while its log is still being read', { skip }, async t => {
  const run = await app.start('flood', [300_000])
  await run.outcome()
  const page = await openPage(t, browser, app.url)
  await page.addInitScript(() => {
    const states = new Set<string>()
    Object.assign(globalThis, { states })
    new MutationObserver(() => states.add(document.querySelector<HTMLElement>('#run')?.dataset['state'] ?? ''))
      .observe(document, { subtree: true, attributes: true, attributeFilter: ['data-state'] })
  })
  await page.goto(`${app.url}/?run=${run.id}`)
  await counts(page, '300,002 entries')
  const states = await page.evaluate(() => [...(globalThis as unknown as { states: Set<string> }).states])
  assert.ok(states.includes('ok') && !states.includes('running'), `was ${states}`)
})

test('where nothing says how much is left, it says when the last entry came, and what is usual', { skip }, async t => {
  app.letGo('early')
  await (await app.start('tick', ['early'])).outcome()
  const again = await app.start('tick', ['later'])
  const other = await open(t, `/?run=${again.id}`)
  await has(other, '#hint', /^usually [\d.]+ m?s$/)
  app.letGo('later')
  await again.outcome()
  const run = await app.start('polite')
  const page = await open(t, `/?run=${run.id}`)
  await page.locator('dt:text-is("Last entry") + dd', { hasText: /^[2-9] s ago$/ }).waitFor()
  await page.click('#cancel')
  await state(page, 'cancelled')
  await page.locator('dt:text-is("Ended") + dd', { hasText: /^\d\d:\d\d:\d\d$/ }).waitFor()
  assert.equal(await page.locator('body:focus').count(), 0, 'the focus is not lost with the button')
})

test('more than all is not told as nearly done', { skip }, async t => {
  const page = await open(t)
  const run = await app.start('lingers', [{ one: ['progress', 10, 20], two: ['progress', 30, 20, 'steps'] }])
  await page.goto(`${app.url}/?run=${run.id}`)
  await has(page, '#steps', /30 of 20 steps/)
  await page.locator('#percent[data-pale]').waitFor()
  await page.locator('dt:text-is("Last entry") + dd').waitFor()
  await run.cancel()
  await state(page, 'cancelled')
})

test('an upload shows how much of it is there, and stays as a part of the work', { skip }, async t => {
  const file = join(folder, 'large.csv')
  await writeFile(file, `a,b\n${'1,2\n'.repeat(12_500_000)}`)
  const page = await open(t)
  const seen = await page.locator('#steps').evaluateHandle(steps => {
    const seen = new Set<string>()
    new MutationObserver(() => seen.add(steps.textContent ?? ''))
      .observe(steps, { subtree: true, childList: true, characterData: true })
    return seen
  })
  await page.locator('form[data-method=importCsv] input[type=file]').setInputFiles(file)
  await sees(page, '50.0 MB')
  await start(page, 'importCsv')
  await has(page, '#tiles', /Rows imported12,500,000/)
  await has(page, '#steps', /upload ✓ [\d.]+ m?s/)
  await has(page, '#file', /\(\d+ MB\)/)
  const told = await seen.evaluate(seen => [...seen])
  assert.ok(told.some(words => /^upload [\d.]+ of 50\.0 MB/.test(words)), `it said ${told.slice(0, 20)}`)
})

test('the time of a run is told with its day, and the same wherever it is read', { skip }, async t => {
  const began = new Date(2026, 1, 3, 23, 59, 58).getTime()
  const entries = [
    { type: 'start', time: began, data: { method: 'process', args: [1, 1], callId: '', pid: 1, timeLimit: 0 } },
    { type: 'done', time: began + 5000, data: { outcome: 'ok', seconds: 5 } },
  ]
  const own = new App({ SPARES: '0' })
  t.after(() => own.end())
  await writeFile(join(own.runs, 'night.ndjson'), entries.map(entry => `${JSON.stringify(entry)}\n`).join(''))
  await own.startBoth()
  for (const locale of ['fr-CA', 'ar-EG', 'fa-IR', 'my-MM', 'en-US']) {
    const page = await openPage(t, browser, `${own.url}/?run=night`, { locale })
    await page.locator('dt:text-is("Ended") + dd:text-is("4 Feb, 00:00:03")').waitFor()
    await has(page, '#run-about', /3 Feb, 23:59/)
    await has(page, '#runs .day', /^Tuesday,? 3 February 2026$/)
  }
})

test('the keys are shown, and a click on what one is at is seen', { skip }, async t => {
  const page = await open(t)
  await page.locator('form[data-method=process]').waitFor()
  await page.click('#new')
  await page.locator('#forms :focus').waitFor()
  await page.locator('body').press('?') // it is typed into the field, or opens the keys
  await page.locator('.brand').focus()
  await page.keyboard.press('?')
  await sees(page, 'next, previous warning or error')
  await page.keyboard.press('Escape')
  await page.locator('#keys').waitFor({ state: 'hidden' })
  await page.click('#demo') // what a first visitor is shown to press
  await has(page, '#log-list', 'step 1 of 120')
  await page.click('#cancel')
  await state(page, 'cancelled')
})

test('on a phone the run in view is in sight in the list, its parts are read in whole, and what is pressed is large enough', { skip }, async t => {
  const runs = await Promise.all(upTo(6).map(() => app.start('produce', [1]).catch(() => undefined)))
  await Promise.all(runs.map(run => run?.outcome()))
  const page = await open(t, '/', { viewport: { width: 390, height: 844 } })
  await page.locator('#runs a').nth(2).waitFor()
  const last = page.locator('#runs a').last()
  const href = await last.getAttribute('href')
  await page.goto(app.url + `/${href}`)
  await page.waitForFunction(() => {
    const { left = -1, right = 1e9 } = document.querySelector('#runs [aria-current]')?.getBoundingClientRect() ?? {}
    return left >= 0 && right <= innerWidth
  })
  const small = await page.locator('header :is(button, a, summary), .side :is(button, a), #share').evaluateAll(found =>
    found.filter(one => one.checkVisibility() && one.getBoundingClientRect().height < 24).map(one => one.outerHTML))
  assert.deepEqual(small, [])
  await page.click('#new')
  await page.click('#sample')
  await state(page, 'ok')
  await has(page, '#steps', /^upload.*columns.*rows/s)
  const isWhole = await page.locator('#steps').evaluate(steps => {
    const box = steps.getBoundingClientRect()
    return [...steps.children].map(step => step.getBoundingClientRect()).map(({ left, bottom }) => left >= box.left && bottom <= box.bottom)
  })
  assert.deepEqual(isWhole, [true, true, true])
})

test('what a program writes for a terminal is read as a terminal shows it', { skip }, async t => {
  const told = {
    '\x1b[1;31mred\x1b[0m': 'red', ' 10 %\r 20 %\r\n': ' 20 %↵', 'a\r\nb': 'a↵b',
    'bold\x1b(B\x1b[m': 'bold', '\x1b[38:2::255:0:0mred': 'red', '\x1b7a\x1b8\x1b=b\x1b>': 'ab', '\x1b[>4;2m\x1b[<ua': 'a',
    '10%\b\b\b20%': '20%', '|\b/\b-': '-', '\x9b31mred': 'red', 'a\x1bPq#0\x1b\\b': 'ab', 'a\x1b]0;title\x07b': 'ab',
    '\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\': 'link', 'photo\u202egnp.exe': 'photo\\u202egnp.exe', '': '',
  }
  const run = await app.start('reports', [{ ...Object.keys(told).map(text => ['log', text]) }])
  await run.outcome()
  const page = await open(t, `/?run=${run.id}`, { viewport: { width: 1280, height: 1200 } })
  await counts(page, `${Object.keys(told).length + 2} entries`)
  const shown = (await page.locator('#log-list .row:not([hidden]) .text').allTextContents()).slice(1, -1)
  assert.deepEqual(shown, Object.values(told))
})

test('an error among very many entries is seen beside the log, and a click goes to the nearest', { skip }, async t => {
  const entries = upTo(8002).map(at => ([5000, 5200].includes(at) ? ['error', 'a rare one'] : ['warning', 'one of many']))
  const run = await app.start('reports', [{ ...entries }])
  await run.outcome()
  const page = await open(t, `/?run=${run.id}`)
  await page.locator('#ribbon-errors:not([d=""])').waitFor()
  const { height } = (await page.locator('#ribbon').boundingBox())!
  for (const [place, title] of [
    [5201, 'Entry 5,202, error'], [5060, 'Entry 5,002, error'], [5150, 'Entry 5,202, error'], [2000, /Entry (1,9|2,0)\d\d, warning/],
  ] as const) {
    await page.click('#ribbon', { position: { x: 6, y: (place + 0.5) / 8004 * height } })
    await has(page, '#entry-title', title)
  }
  await page.click('#entry-close')
  assert.equal(await page.locator('#log-list:focus').count(), 1, 'closing it gives the focus back to the log')
})

test('an entry of a kind that nobody foresaw is shown as a message', { skip }, async t => {
  const run = await app.start('flood', [3])
  await run.outcome()
  const page = await openPage(t, browser, app.url)
  await page.routeWebSocket(/\/log$/, socket => {
    const server = socket.connectToServer()
    server.onMessage(message => {
      const told = JSON.parse(String(message))
      const odd = [['log'], { toString: 1 }, 'constructor', null, 7].map(type => ({ type, time: 0, data: 'odd' }))
      told.entries?.splice(1, 0, ...odd)
      socket.send(JSON.stringify(told))
    })
  })
  await page.goto(`${app.url}/?run=${run.id}`)
  await state(page, 'ok')
  await counts(page, '10 entries')
  assert.equal(await page.locator('#log-list .row .text', { hasText: /^odd$/ }).count(), 5)
  assert.deepEqual(await complaints(page), [])
})

test('a copy has all entries that are shown, also those that have to be read again', { skip }, async t => {
  const run = await app.start('flood', [300_000])
  await run.outcome()
  const page = await open(t, `/?run=${run.id}`)
  await counts(page, '300,002 entries')
  assert.equal((await copied(page, '#copy-log')).split('\n').length, 300_002)
})

test('where no WebSocket gets through, the page follows over HTTP, and says so', { skip }, async t => {
  const page = await open(t)
  await page.addInitScript(() => {
    class WebSocket {
      onclose?: () => void
      constructor() { setTimeout(() => this.onclose?.()) }
      close() {}
    }
    Object.assign(globalThis, { WebSocket })
  })
  await page.reload()
  await sees(page, 'Connected, without WebSocket')
  await outlivesServer(page)
})

test('where the system sets the colours, what is pressed, chosen and current is told by lines', { skip }, async t => {
  const run = await app.start('crash', ['on purpose', 5])
  await run.outcome()
  const page = await open(t, `/?run=${run.id}`, { forcedColors: 'active' })
  await counts(page, '8 entries')
  await page.click('.chip[data-level=msg]')
  await page.press('#log-list', 'End')
  const styleOf = (selector: string, property: string) => page.locator(selector).first()
    .evaluate((found, property) => getComputedStyle(found).getPropertyValue(property), property)
  await page.waitForFunction(() => { // the browser may learn a moment later that the system sets the colours
    const widthOf = (pressed: boolean) =>
      getComputedStyle(document.querySelector(`.chip[aria-pressed=${pressed}]`)!).borderTopWidth
    return widthOf(true) !== widthOf(false)
  })
  for (const chosen of ['#log-list .row[aria-selected=true]', '#runs a[aria-current]']) {
    assert.equal(await styleOf(chosen, 'outline-style'), 'solid', chosen)
  }
  assert.equal(await styleOf('.bar', 'border-top-style'), 'solid')
  assert.equal(await styleOf('#log-list .row[data-level=log]', 'border-left-width'), '0px', 'only problems have a mark')
  assert.notEqual(await styleOf('#log-list .row[data-level=error]', 'border-left-width'), '0px')
})

test('the second window lists what the first one has started, with a title', { skip }, async t => {
  const first = await open(t)
  const second = await first.context().newPage()
  await second.goto(app.url)
  await sees(second, 'Connected')
  const id = await start(first, 'process', { steps: 7, delay: 1 })
  await second.locator(`#runs a[href*="${id}"] .name`, { hasText: /^process\(7, ?1\)$/ }).waitFor()
})

test('notices that a browser refuses to make change nothing else', { skip }, async t => {
  const page = await open(t)
  await page.evaluate(() => {
    class Notification {
      static requestPermission() { return Promise.resolve('granted') }
      constructor() { throw new TypeError('Illegal constructor') } // as in Chrome on Android
    }
    Object.assign(globalThis, { Notification })
  })
  await start(page, 'tick', { name: 'refused' })
  await page.click('#notify')
  await has(page, '#notify', 'Will notify')
  app.letGo('refused')
  await state(page, 'ok')
  await page.click('#new') // drawing and acknowledging go on
  await start(page, 'flood', { count: 50_000 })
  await counts(page, '50,002 entries')

  await page.evaluate(() => { Notification.requestPermission = () => Promise.reject(new Error('not in this frame')) })
  await page.click('#new')
  await start(page, 'tick', { name: 'blocked' })
  await page.click('#notify')
  await has(page, '#notify', 'Notify me')
  await page.evaluate(() => Object.assign(Notification, { permission: 'denied' }))
  await has(page, '#notify', 'Notices blocked')
  app.letGo('blocked')
  await state(page, 'ok')
  assert.deepEqual(await complaints(page), [])
})

test('two figures for the same thing are the same, or words say why not', { skip }, async t => {
  const file = join(folder, 'rejected.csv')
  await writeFile(file, ['a,b', ...upTo(3000).map(at => (at % 100 ? `${at}` : `${at},2`)), ''].join('\n'))
  const page = await open(t)
  const seen = await page.evaluateHandle(() => {
    const seen = new Set<string>()
    const figure = (name: string) => document.evaluate(`//dt[.="${name}"]/../dd`, document).iterateNext()?.textContent
    new MutationObserver(() => seen.add(`${figure('Warnings')}, ${figure('Rejected lines')}`))
      .observe(document.querySelector('#run')!, { subtree: true, childList: true, characterData: true })
    return seen
  })
  await page.locator('body').drop({ files: file })
  await has(page, '#tiles', /Rejected lines2,970/)
  await has(page, '#warnings', '2,970')
  await sees(page, 'The first 1,000 of 2,970 are named; the rest are counted.')
  await has(page, '#log-count', /entries/)
  for (const pair of await seen.evaluate(seen => [...seen])) {
    const [, warnings, rejected] = /^([\d,]+), (.+)$/.exec(pair) ?? []
    assert.ok(!rejected || rejected === '–' || rejected.replace(' or more', '') === warnings, pair)
  }
})

test('a run that waits for a place goes on waiting, and says for what, while no server answers', { skip }, async t => {
  const own = await startApp(t, { PROCESS_LIMIT: '1', SPARES: '0' })
  const file = join(folder, 'patient.csv')
  await writeFile(file, 'a,b\n1,2\n')
  const taken = await own.start('process', [10_000, 50])
  const page = await openPage(t, browser, own.url)
  await sees(page, 'Connected')
  await page.locator('body').drop({ files: file })
  await page.click('#wait')
  const waits = 'This run starts as soon as it can'
  await sees(page, `All places are taken. ${waits}`)
  await own.kill('workers')
  await sees(page, `The workers server does not answer. ${waits}`)
  await own.startWorkers()
  await sees(page, `All places are taken. ${waits}`)
  await own.kill('server')
  await sees(page, `The web server does not answer. ${waits}`)

  const token = 'open-sesame-open'
  own.env['TOKEN'] = token // it is started anew, with a token: what waits must not be lost when the page is opened anew
  await own.startServer()
  await sees(page, `The server asks for its token: enter it in another tab. ${waits}`)
  const tab = await page.context().newPage()
  await tab.goto(`${own.url}/?token=${token}`)
  await sees(tab, 'Connected')
  await sees(page, `All places are taken. ${waits}`)
  await own.request('DELETE', `/tasks/${taken.id}`, undefined, { authorization: `Bearer ${token}` })
  await has(page, '#tiles', /Rows imported1R/)
  const { body } = await own.request('GET', '/tasks', undefined, { authorization: `Bearer ${token}` })
  assert.deepEqual(body.map(({ method }: { method: string }) => method), ['importCsv', 'process'], 'it ran once')

  await own.kill('server')
  own.env['TOKEN'] = `${token}-again`
  await own.startServer()
  await page.locator('input[name=token]').waitFor() // nothing waits any more: the page itself asks for it
})

test('a double click on what starts a run again does not cancel it', { skip }, async t => {
  const first = await app.start('tick', ['twice'])
  app.letGo('twice')
  await first.outcome()
  const page = await open(t, `/?run=${first.id}`, { viewport: { width: 1280, height: 800 } })
  await state(page, 'ok')
  await rm(join(app.runs, 'files', 'twice'))
  await page.locator('#again').waitFor()
  const { x, y, width, height } = (await page.locator('#again').boundingBox())!
  await page.mouse.click(x + width / 2, y + height / 2)
  await state(page, 'running')
  const under = await page.evaluate(([x, y]) => document.elementFromPoint(x!, y!)?.id, [x + width / 2, y + height / 2])
  assert.equal(under, 'cancel', 'what stands there now')
  await page.mouse.down({ clickCount: 2 })
  await page.mouse.up({ clickCount: 2 })
  app.letGo('twice')
  await state(page, 'ok')
})

test('what a proxy says in the place of the server is taken for no answer', { skip }, async t => {
  const page = await open(t)
  await page.locator('form[data-method=process]').waitFor()
  let said = 502
  let body = '<h1>Bad Gateway</h1>'
  await page.route('**/tasks', route => {
    if (route.request().method() !== 'POST') return route.continue()
    return route.fulfill({ status: said, contentType: 'text/html', body })
  })
  await start(page, 'process', { steps: 2, delay: 1 })
  await state(page, 'unsure')
  await sees(page, 'The call may have arrived all the same')
  for ([said, body] of [[503, body], [504, body], [200, body], [200, '{"ok":true}'], [200, 'null'], [201, '"welcome"']] as const) {
    await Promise.all([page.waitForResponse(answer => answer.request().method() === 'POST'), page.click('#retry')])
    await state(page, 'unsure')
  }
  said = 413 // this one is a refusal
  await page.click('#retry')
  await sees(page, 'Refused: the answer has the status 413')
  await page.unroute('**/tasks')
  await page.route('**/methods', route => route.fulfill({ json: { ok: true } }))
  await page.goto(app.url)
  await sees(page, 'Nothing can be started at the moment. The web server does not answer.')
  await page.unroute('**/methods')
  await page.locator('form[data-method=process]').waitFor()
})

test('a run whose file cannot be uploaded again for the moment keeps waiting, too', { skip }, async t => {
  const own = await startApp(t, { PROCESS_LIMIT: '1', SPARES: '0' })
  const taken = await own.start('process', [10_000, 50])
  const page = await openPage(t, browser, own.url)
  await sees(page, 'Connected')
  const file = join(folder, 'again.csv')
  await writeFile(file, 'a,b\n1,2\n')
  await page.locator('body').drop({ files: file })
  await page.click('#wait')
  await page.route('**/files', route => route.abort())
  await rm(join(own.runs, 'uploads'), { recursive: true })
  await sees(page, 'The web server does not answer. This run starts as soon as it can')
  await page.unroute('**/files')
  await mkdir(join(own.runs, 'uploads'), { mode: 0o700 })
  await sees(page, 'All places are taken. This run starts as soon as it can')
  await taken.cancel()
  await has(page, '#tiles', /Rows imported1R/)
})

test('what a task of one\'s own has produced can be downloaded, too', { skip }, async t => {
  const run = await app.start('produce', [10])
  await run.outcome()
  const page = await open(t, `/?run=${run.id}`)
  await sees(page, 'Download the file')
  assert.equal((await download(page)).body, 'x'.repeat(10))

  const other = await app.start('claim', [{ file: '../somewhere.txt' }])
  await other.outcome()
  await page.goto(`${app.url}/?run=${other.id}`)
  await sees(page, 'somewhere.txt')
  assert.ok(await page.locator('#file').isHidden(), 'what it has not produced cannot be downloaded')
  assert.deepEqual(await complaints(page), [])
})

test('a screen reader hears the state, and not the flood', { skip }, async t => {
  const page = await open(t)
  await start(page, 'process', { steps: 5, delay: 20 })
  await has(page, '#status[role=status]', /^process\(5, 20\): Finished$/)
  assert.equal(await page.getByRole('log').getAttribute('aria-live'), 'off')
  assert.equal(await page.getByRole('progressbar').getAttribute('id'), 'bar')
})

test('a run that ended well and found errors looks neither like a success nor like a failure', { skip }, async t => {
  const page = await open(t)
  const id = await start(page, 'compile')
  await state(page, 'ok')
  await has(page, '#state-words', 'Finished with 2 errors')
  assert.match(await page.title(), /^! · /)
  const listed = page.locator('#runs li', { has: page.locator(`a[href*="${id}"]`) })
  await listed.locator('.about', { hasText: /^Finished with 2 errors/ }).waitFor()
  const colourOf = (part: string) => page.locator(part).evaluate(found => getComputedStyle(found).color)
  const colours = await Promise.all(['#state', '#errors'].map(colourOf))
  assert.notEqual(colours[0], colours[1], 'it is not as red as an error')
})

test('what a function returns is shown as figures or as a table, where it is flat', { skip }, async t => {
  const results = [
    [{ rows: 12345, kind: 'all' }, '#tiles', /^Rows12,345Kindall$/],
    [{ 0: { id: 1, name: 'Ada' } }, '#result-text', /Ada/],
    [{ name: 'photo\u202egnp.exe', said: '\x1b[31mred\x1b[0m' }, '#tiles', /^Namephoto\\u202egnp\.exeSaidred$/],
    [{ in: { name: 'photo\u202egnp.exe' } }, '#result-text', /photo\\u202egnp\.exe/],
    [{ text: 'x'.repeat(5000) }, '#tiles', /^Textx{300}\n… \(the whole log has all of it\)$/],
  ] as const
  const page = await open(t)
  for (const [result, place, words] of results) {
    const run = await app.start('claim', [result])
    await run.outcome()
    await page.goto(`${app.url}/?run=${run.id}`)
    await has(page, place, words)
  }
  const table = await app.start('returns', ['rows'])
  await table.outcome()
  await page.goto(`${app.url}/?run=${table.id}`)
  await has(page, '#result-table tr:nth-of-type(3)', /^2Emil$/)
  for (const [what, words] of [['undefined', 'It returned nothing.'], ['empty', 'It returned an empty text.']] as const) {
    const run = await app.start('returns', [what])
    await run.outcome()
    await page.goto(`${app.url}/?run=${run.id}`)
    await has(page, '#result-note', words)
  }
})

test('whatever a task reports, in any field, is one odd row, and the rest is shown as ever', { skip }, async t => {
  const odd: unknown[] = [
    { toString: 'x' }, null, [[]], { msg: { msg: null } }, -1, '', true, '\u202e', { length: 1e9 },
  ]
  const entries = odd.flatMap(what => [
    ['warning', what, { line: what, column: what, code: what, file: what }],
    ['error', what], ['log', what], ['msg', what], ['progress', what, what, what],
  ])
  const progress = [[-5, 10], [20, 10], ['7', 10], [1, 0], [1, -1], [null, null], [3, 4, 'steps']]
  const run = await app.start('reports', [{ ...[...entries, ...progress.map(told => ['progress', ...told])] }])
  await run.outcome()
  const page = await open(t, `/?run=${run.id}`)
  await state(page, 'ok')
  await page.click('.chip[data-level=progress]')
  await counts(page, `${lines(run.id).length} entries`)
  assert.equal(await text(page, '#percent'), '100 %')
  assert.deepEqual(await complaints(page), [])
})

test('a run that fails shows what went wrong where its result would stand', { skip }, async t => {
  const page = await open(t)
  await start(page, 'crash', { msg: 'the database does not answer', count: 2 })
  await has(page, '#failure', 'the database does not answer')
  await has(page, '#failure-stack', /^at .*functions\.ts/)
  assert.equal(await text(page, '#result-title'), 'What went wrong')
})

test('Ctrl-F finds all that an entry contains, and steps through the hits', { skip }, async t => {
  const hidden = `${'x'.repeat(2500)}needle`
  const run = await app.start('reports', [{
    a: ['warning', 'one', { file: 'needle.csv' }], b: ['error', 'two', { stack: 'at needle' }], c: ['log', hidden],
    d: ['log', 'no'], e: ['msg', { deep: { NEEDLE: 1 } }], f: ['log', 'İstanbul needle'],
  }])
  await run.outcome()
  const page = await open(t, `/?run=${run.id}`)
  await counts(page, '8 entries')
  await page.keyboard.press('Control+f')
  await page.keyboard.type('needle')
  await has(page, '#hit-count', '6 hits') // the call contains it, too
  await counts(page, '8 entries') // in the log as it stands
  await page.keyboard.press('Enter')
  await has(page, '#hit-count', '1 of 6 hits')
  await page.keyboard.press('Shift+Enter')
  await has(page, '#hit-count', '6 of 6 hits')
  await has(page, '#entry-title', 'Entry 7')
  await page.locator('.row mark:text-is("needle")').last().waitFor()
  await page.click('#only-hits')
  await counts(page, '6 of 8 entries')
  await page.locator('#log-list [aria-selected=true] mark').first().waitFor() // what was chosen stays
  await page.press('#search', 'Escape')
  await counts(page, '8 entries')
  await page.locator('#log-list mark').first().waitFor({ state: 'detached' })
})

test('any page can follow runs by follow.js: each entry once, all over one WebSocket', { skip }, async t => {
  const runs = await Promise.all([1, 2].map(() => app.start('process', [20, 10])))
  const page = await open(t)
  const sockets: string[] = []
  page.on('websocket', socket => sockets.push(socket.url()))
  const seen = await page.evaluate(async ids => {
    const { follow } = await import(new URL('follow.js', location.href).href)
    return Promise.all(ids.map(id => new Promise<object[]>(resolve => {
      const seen: object[] = []
      follow('./', id, async (entries: { type: string }[]) => {
        await new Promise(resolve => setTimeout(resolve, 5))
        seen.push(...entries)
        if (entries.at(-1)?.type === 'done') resolve(seen)
      })
    })))
  }, runs.map(({ id }) => id))
  assert.deepEqual(seen, runs.map(({ id }) => lines(id).map(line => JSON.parse(line))))
  assert.equal(sockets.length, 1)
})

test('a run in steps shows each with its time, how far it is, and its part of the log', { skip }, async t => {
  const page = await open(t)
  const id = await start(page, 'parts', { name: 'parted' })
  await page.locator('#steps li', { hasText: /^test 12 of 30$/ }).waitFor()
  assert.match(await text(page, '#steps'), /^build ✓ \d+ ms\s+test 12 of 30$/)
  assert.equal(await text(page, '#percent'), '40 %')
  await page.click('#steps button:text("test")')
  await has(page, '#log-list [aria-selected=true]', 'test')
  app.letGo('parted')
  await state(page, 'ok')
  await has(page, '#steps', /deploy ✓ [\d.]+ m?s$/)
  const sent = lines(id).map(line => JSON.parse(line)).filter(({ data }) => data.unit === 'bytes')
  const real = 19 / ((sent.at(-1).time - sent[0].time) / 1000) // MB in a second
  const [, speed] = /^([\d.]+) MB\/s$/.exec(await text(page, '#speed')) ?? []
  assert.ok(Math.abs(Number(speed) / real - 1) < 0.1, `${speed} of ${real} MB/s: of what it did last, not of all`)

  await page.reload()
  await page.click('#new')
  await start(page, 'parts', { name: 'parted again' }) // those to come are known by now
  await page.locator('#steps li', { hasText: /^test 12 of 30$/ }).waitFor()
  assert.match(await text(page, '#steps'), /^build ✓ \d+ ms\s+test 12 of 30\s+deploy$/)
  assert.ok(await page.locator('#steps [data-state=coming]').isDisabled())
  await page.click('#cancel')
  await state(page, 'cancelled')
  await page.locator('#steps [data-state=coming]').waitFor({ state: 'detached' })
})

test('text from a task stays text', { skip }, async t => {
  const page = await open(t)
  const nasty = '<script>document.title = "owned"</script><img src=x onerror="document.title = \'owned\'">'
  await start(page, 'crash', { msg: nasty, count: 2 })
  await state(page, 'error')
  await has(page, '#log-list', nasty)
  assert.equal(await page.locator('main :is(script, img)').count(), 0)
  assert.match(await page.title(), /^✕ · crash/)
  assert.equal(await text(page, '#errors'), '1')
  assert.deepEqual(await complaints(page), [])
})
