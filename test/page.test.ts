// The page, as a person uses it: real servers, a real browser. What the page shows is compared with the run's
// log, entry for entry. One browser and one app serve all tests here; each test opens pages of its own.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test, type TestContext } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { App, startApp } from './app.ts'
import { browserMissing, startBrowser, type Browser, type Page } from './browser.ts'

const skip = browserMissing
let browser: Browser
let app: App
let folder = ''

before(async () => {
  if (skip) return
  folder = await mkdtemp(join(tmpdir(), 'longrun-page-'))
  app = new App({ PROCESS_LIMIT: '3', SPARES: '2' })
  await Promise.all([app.startWorkers().then(() => app.startServer()), startBrowser().then(started => { browser = started })])
})

after(async () => {
  await browser?.close()
  await app?.end()
  if (folder) await rm(folder, { recursive: true })
})

/** Without motion, which costs much where the picture is made without a graphics card. */
async function open(t: TestContext, path = '/', look: { height?: number } = {}) {
  const page = await browser.open(app.url + path, { still: true, ...look })
  t.after(() => page.close())
  await page.sees('Connected')
  return page
}

/** Fills a form of the start view and submits it; resolves with the id of the run that is then in view. */
async function start(page: Page, method: string, values: Record<string, string | number> = {}) {
  const form = `form[data-method=${method}]`
  await page.until(form => document.querySelector(form)?.checkVisibility(), form)
  for (const [name, value] of Object.entries(values)) await page.type(`${form} [name=${name}]`, String(value))
  await page.click(`${form} button.primary`)
  return runInView(page)
}

const runInView = (page: Page) => page.until(() => new URLSearchParams(location.search).get('run'))
const state = (page: Page, wanted: string) => page.until(wanted => document.querySelector<HTMLElement>('#run')?.dataset.state === wanted, wanted)
const text = (page: Page, selector: string) => page.run(selector => document.querySelector(selector)?.textContent ?? '', selector)
const rows = (page: Page, list: string) => page.run(list => [...document.querySelectorAll(`${list} .row:not([hidden])`)].map(row => row.textContent ?? ''), list)
const lines = (id: string) => readFileSync(join(app.runs, `${id}.ndjson`), 'utf8').trimEnd().split('\n')

/** What the log in the page holds, by its own Copy button. */
async function copied(page: Page) {
  await page.run(() => {
    Object.defineProperty(navigator, 'clipboard', { configurable: true, value: { writeText: async (text: string) => { document.body.dataset.copied = text } } })
    delete document.body.dataset.copied
  })
  await page.click('#copy-log')
  return (await page.until(() => document.body.dataset.copied)).split('\n')
}

/** The steps of a run of `process`, in the order in which the page shows them. */
async function steps(page: Page) {
  return (await copied(page)).flatMap(line => /"step":(\d+)/.exec(line)?.[1] ?? []).map(Number)
}

const counts = (page: Page, wanted: string) => page.until(wanted => document.querySelector('#log-count')?.textContent === wanted, wanted)
/** Until the log in the page has more than that many entries. */
const arrived = (page: Page, more: number) => page.until(more => Number(/([\d,]+) entr/.exec(document.querySelector('#log-count')?.textContent ?? '')?.[1]?.replaceAll(',', '')) > more, more)
const upTo = (n: number) => Array.from({ length: n }, (_, step) => step)

test('a CSV file chosen in the page is imported: the bar moves, bad lines are named, the rows can be downloaded', { skip }, async t => {
  const bad = [7, 500, 12_345, 19_999] // lines of the file; the header is line 1
  const file = join(folder, 'people.csv')
  const row = (line: number) => (bad.includes(line) ? `${line},too few` : `${line},"Ada, ""the"" runner",${'x'.repeat(2000)}`) // wide, so that the import takes a moment
  await writeFile(file, ['number,name,note', ...Array.from({ length: 20_000 }, (_, at) => row(at + 2))].join('\n') + '\n')

  const page = await open(t)
  await page.run(() => {
    const seen = new Set<number>()
    Object.assign(globalThis, { seen })
    const bar = document.querySelector<HTMLProgressElement>('#bar')!
    new MutationObserver(() => seen.add(bar.value)).observe(bar, { attributes: true })
  })
  await page.chooseFile('form[data-method=importCsv] input[type=file]', file)
  await page.sees('people.csv')
  await page.click('form[data-method=importCsv] button.primary')
  const id = await runInView(page)
  await page.until(() => document.querySelector<HTMLAnchorElement>('#file')?.href)

  assert.equal(await text(page, '#run-title'), 'people.csv')
  const moved = await page.run(() => (globalThis as unknown as { seen: Set<number> }).seen.size)
  assert.ok(moved >= 2, `the bar moved ${moved} times`)
  assert.deepEqual(await page.run(() => [...document.querySelectorAll('#findings-list .where')].map(where => where.textContent)), bad.map(line => `line ${line}`))
  assert.match(await text(page, '#tiles'), /Rows imported19,996Rejected lines4Columns3/)
  assert.equal(await text(page, '#warnings'), '4')
  assert.equal(await text(page, '#percent'), '100 %')

  const link = await page.run(() => document.querySelector<HTMLAnchorElement>('#file')!.href)
  const produced = await app.request('GET', new URL(link).pathname)
  assert.match(produced.headers.get('content-disposition') ?? '', /^attachment/)
  assert.equal(produced.body.trimEnd().split('\n').length, 19_996)
  assert.match(lines(id).at(-1)!, /"outcome":"ok"/)
  assert.deepEqual(page.troubles, [])
})

test('what a task of one\'s own has produced can be downloaded, too', { skip }, async t => {
  const run = await app.start('produce', [10])
  await run.outcome()
  const page = await open(t, `/?run=${run.id}`)
  await page.sees('Download the file')
  const link = await page.run(() => document.querySelector<HTMLAnchorElement>('#file')!.href)
  assert.equal((await app.request('GET', new URL(link).pathname)).body, 'x'.repeat(10))

  const other = await app.start('claim', [{ file: '../somewhere.txt' }])
  await other.outcome()
  await page.go(`${app.url}/?run=${other.id}`)
  await page.sees('somewhere.txt')
  assert.ok(await page.run(() => document.querySelector<HTMLElement>('#file')!.hidden), 'what it has not produced cannot be downloaded')
  assert.deepEqual(page.troubles, [])
})

test('one click imports the sample file; a file dropped anywhere is imported at once', { skip }, async t => {
  const page = await open(t)
  await page.click('#sample')
  await page.until(() => document.querySelector<HTMLAnchorElement>('#file')?.href)
  assert.match(await text(page, '#tiles'), /Rejected lines6/)

  const file = join(folder, 'dropped.csv')
  await writeFile(file, 'a;b\n1;2\n3;4\n')
  await page.drop(file)
  await page.until(() => document.querySelector('#run-title')?.textContent === 'dropped.csv')
  await page.until(() => /Rows imported2R/.test(document.querySelector('#tiles')?.textContent ?? ''))
  await page.until(() => document.querySelectorAll('#runs li').length === 2) // both are in the list
  assert.deepEqual(page.troubles, [])
})

test('a source with two errors: each problem is listed, and choosing one shows its line', { skip }, async t => {
  const page = await open(t)
  await start(page, 'compile', { source: 'const n: number = 1\nconst s: string = n\n\nn.nothing()\n' })
  await state(page, 'ok')
  await page.until(() => document.querySelectorAll('#findings-list .row:not([hidden])').length === 2)
  const problems = await rows(page, '#findings-list')
  assert.match(problems[0]!, /line 2:7.*not assignable/)
  assert.match(problems[1]!, /line 4:3.*nothing/)
  assert.match(await text(page, '#tiles'), /Errors2/)

  await page.click('#findings-list .row:nth-child(2)')
  await page.until(() => document.querySelector('#source-lines [aria-selected=true]')?.textContent?.includes('n.nothing()'))
  assert.deepEqual(await page.run(() => [...document.querySelectorAll<HTMLElement>('#source-lines [data-level=error] .n')].map(n => n.textContent)), ['2', '4'])
})

test('reloading in the middle, or opening the address elsewhere, shows the whole run', { skip }, async t => {
  const elsewhere = await app.start('process', [1, 0])
  await elsewhere.outcome()
  const page = await open(t)
  const id = await start(page, 'process', { steps: 60, delay: 30 })
  await arrived(page, 5)
  await page.reload()
  await arrived(page, 12)
  const other = await open(t, `/?run=${id}`)
  await Promise.all([state(page, 'ok'), state(other, 'ok')])
  for (const reader of [page, other]) {
    assert.deepEqual(await steps(reader), upTo(60))
    await counts(reader, '62 entries')
  }
  assert.equal(await page.run(() => document.querySelector('#runs .name')?.textContent), 'process(60, 30)', 'the list names it')
  await other.until(id => document.querySelector(`#runs a[href*="${id}"]`), elsewhere.id)
})

test('a run that nobody knows is said to be unknown, and shown when it begins', { skip }, async t => {
  const page = await open(t, '/?run=not-begun')
  await state(page, 'unknown')
  assert.ok(await page.run(() => !document.querySelector('.meter')?.checkVisibility() && !document.querySelector('#cancel')?.checkVisibility()))
  await app.start('process', [3, 1], { id: 'not-begun' })
  await state(page, 'ok')
  assert.deepEqual(await steps(page), upTo(3))
  assert.ok(await page.run(() => document.querySelector('.meter')?.checkVisibility()))
  const wrong = await open(t, '/?run=bad%20id')
  await state(wrong, 'unknown')
})

test('cancelling says that it is cancelling, then how it ended', { skip }, async t => {
  const page = await open(t)
  await start(page, 'deaf', { seconds: 600 })
  await arrived(page, 1)
  await page.click('#cancel')
  await state(page, 'cancelling')
  assert.equal(await text(page, '#cancel'), 'Cancelling …')

  await page.click('#new')
  const id = await start(page, 'process', { steps: 1000, delay: 50 })
  await arrived(page, 2)
  await page.click('#cancel')
  await state(page, 'cancelled')
  assert.equal(await text(page, '#state-words'), 'Cancelled')
  assert.match(lines(id).at(-1)!, /"outcome":"cancelled"/)
  await page.click('#again')
  await page.until(id => !location.search.includes(id), id)
  await arrived(page, 1)
  await page.click('#cancel')
  await state(page, 'cancelled')
  await page.until(() => !document.querySelector('#runs [data-state=cancelling]')) // the deaf one is killed meanwhile
})

test('when all places are taken, it offers to start as soon as one is free', { skip }, async t => {
  while ((await app.request('GET', '/health')).body.running) await sleep(20)
  const taken = await Promise.all([1, 2, 3].map(() => app.start('process', [1000, 50])))
  const page = await open(t)
  await start(page, 'process', { steps: 3, delay: 1 })
  await page.sees('All places are taken')
  await page.click('#new') // what can still be started stays when one looks elsewhere
  await page.until(() => document.querySelector('form[data-method=process]')?.checkVisibility())
  await page.run(() => history.back())
  await page.sees('All places are taken')
  await page.click('#wait')
  await state(page, 'queued')
  await taken[0]!.cancel()
  await state(page, 'ok')
  assert.deepEqual(await steps(page), upTo(3))
  await Promise.all(taken.map(run => run.cancel()))
  await Promise.all(taken.map(run => run.outcome()))
})

test('what is already running is not started twice: the page goes to that run', { skip }, async t => {
  const callId = 'once.csv 8 1'
  const first = await app.start('process', [1000, 50], { callId })
  const page = await open(t)
  await page.run(() => document.querySelector('#dropping')!.dispatchEvent(Object.assign(new Event('drop', { bubbles: true }), {
    dataTransfer: { types: ['Files'], files: [new File(['a,b\n1,2\n'], 'once.csv', { lastModified: 1 })] },
  })))
  await page.sees('already running')
  await page.click('#other')
  await page.until(id => location.search.includes(id), first.id)
  await state(page, 'running')
  await first.cancel()
  await state(page, 'cancelled')
})

test('what is refused is said, with the reason', { skip }, async t => {
  const page = await open(t)
  await start(page, 'takes', { string: 's', integer: 5, number: 1.5 })
  await state(page, 'ok')
  assert.deepEqual(JSON.parse(await text(page, '#result-text')), ['s', 5, 1.5, false, {}])

  await page.click('#new')
  await page.run(() => { document.querySelector<HTMLElement>('form[data-method=takes]')!.dataset.method = 'toString' })
  await page.click('form[data-method=toString] button.primary')
  await page.sees('Refused: ')
  assert.equal(await text(page, '#state-words'), 'Not started')
})

test('the connection is lost and comes back: the log goes on, nothing is missing, and says so', { skip }, async t => {
  const page = await open(t)
  const id = await start(page, 'process', { steps: 150, delay: 30 })
  await arrived(page, 10)
  await app.kill('server')
  await page.sees('Connection lost')
  await app.startServer()
  await page.sees('nothing is missing')
  await state(page, 'ok')
  assert.deepEqual(await steps(page), upTo(150))
  await counts(page, `${lines(id).length} entries`)
})

test('when the workers server does not answer, the page says so, and nothing is started later', { skip }, async t => {
  const page = await open(t)
  const id = await start(page, 'process', { steps: 200, delay: 30 })
  await state(page, 'running')
  await app.kill('workers')
  await page.sees('Workers server does not answer')
  await page.click('#new')
  await start(page, 'process', { steps: 1, delay: 1 })
  await page.sees('nothing was started')
  await app.startWorkers()
  await page.sees('Connected')
  await page.click('#retry')
  await state(page, 'ok')
  await page.run(id => document.querySelector<HTMLElement>(`#runs a[href*="${id}"]`)?.click(), id)
  await counts(page, '202 entries')
  assert.deepEqual(await steps(page), upTo(200))
})

test('a flood leaves the page responsive and small, and every entry can be looked at', { skip }, async t => {
  const page = await open(t)
  await page.run(() => {
    const waits: number[] = []
    Object.assign(globalThis, { waits })
    document.addEventListener('click', click => waits.push(performance.now() - click.timeStamp))
  })
  await start(page, 'flood', { count: 200_000 })
  while (!(await page.run(() => document.querySelector<HTMLElement>('#run')?.dataset.state === 'ok'))) await page.click('#times')
  await counts(page, '200,002 entries')
  const waits = await page.run(() => (globalThis as unknown as { waits: number[] }).waits.sort((a, b) => a - b))
  const [median = 0, worst = 0] = [waits[waits.length >> 1], waits.at(-1)]
  t.diagnostic(`${waits.length} clicks in the flood: answered after ${median.toFixed(1)} ms, at worst ${worst.toFixed(1)} ms`)
  assert.ok(median < 1000, 'a click is answered at once, also where ten others want the processor')
  const nodes = await page.run(() => document.querySelectorAll('*').length)
  assert.ok(nodes < 1500, `${nodes} nodes`)

  await page.run(() => document.querySelector<HTMLElement>('#log-list')!.focus())
  await page.press('Home') // let go meanwhile, so read from the log again
  await page.press('ArrowDown')
  await page.until(() => document.querySelector('#entry-title')?.textContent?.startsWith('Entry 2,') && document.querySelector('#entry-text')?.textContent?.includes('"step": 0,'))
  await page.press('End')
  await page.until(() => document.querySelector('#entry-title')?.textContent?.startsWith('Entry 200,002'))
  await page.type('#search', '"step":123456,')
  await counts(page, '1 of 200,002 entries')
  await page.until(() => document.querySelector('#log-list mark')?.textContent === '"step":123456,')
})

test('text from a task stays text', { skip }, async t => {
  const page = await open(t)
  const nasty = '<script>document.title = "owned"</script><img src=x onerror="document.title = \'owned\'">'
  await start(page, 'crash', { msg: nasty, count: 2 })
  await state(page, 'error')
  await page.until(nasty => document.querySelector('#log-list')?.textContent?.includes(nasty), nasty)
  assert.equal(await page.run(() => document.querySelectorAll('main script, main img').length), 0)
  assert.match(await page.run(() => document.title), /^✕ · crash/)
  assert.equal(await text(page, '#errors'), '1')
  assert.deepEqual(page.troubles, [])
})

test('the log follows the end, stays put when one scrolls up, and goes back with one click', { skip }, async t => {
  const page = await open(t, '/', { height: 700 })
  await start(page, 'process', { steps: 120, delay: 30 })
  await arrived(page, 40)
  await page.run(() => { document.querySelector('#log-list')!.scrollTop = 0 })
  await page.until(() => document.querySelector('#to-end')?.checkVisibility())
  const put = await rows(page, '#log-list')
  await page.until(() => Number(/\((\d+) below/.exec(document.querySelector('#to-end')?.textContent ?? '')?.[1]) >= 60)
  assert.deepEqual((await rows(page, '#log-list')).slice(0, 10), put.slice(0, 10))
  await page.click('#to-end')
  await page.sees('"step":119')
  await page.until(() => !document.querySelector('#to-end')?.checkVisibility())
})

test('levels can be left out, and a link leads to a line', { skip }, async t => {
  const run = await app.start('crash', ['the end', 500])
  await run.outcome()
  const page = await open(t, `/?run=${run.id}&line=250`)
  await page.sees('Entry 250, log')
  assert.match(await text(page, '#entry-text'), /entry 248/)
  await page.click('.chip[data-level=log]')
  await counts(page, '3 of 503 entries')
  await page.click('#next-warning')
  await page.sees('Entry 502, error')
  await page.run(() => Object.defineProperty(navigator, 'clipboard', { configurable: true, value: { writeText: async (text: string) => { document.body.dataset.copied = text } } }))
  await page.click('#entry-link')
  assert.equal(await page.until(() => document.body.dataset.copied), `${app.url}/?run=${run.id}&line=502`)
})

test('everything works with the keyboard alone', { skip }, async t => {
  const page = await open(t)
  await page.until(() => document.querySelector('form[data-method=process]')?.checkVisibility())
  const focused = () => page.run(() => document.activeElement?.id || document.activeElement?.getAttribute('name') || document.activeElement?.textContent || '')
  for (let tabs = 0; (await focused()) !== 'steps'; tabs++) {
    assert.ok(tabs < 30, 'the field is reached with the Tab key')
    await page.press('Tab')
  }
  assert.equal(await page.run(() => getComputedStyle(document.activeElement!).outlineStyle), 'solid', 'and its focus is visible')
  await page.press('Enter')
  await state(page, 'running')
  for (let tabs = 0; (await focused()) !== 'log-list'; tabs++) {
    assert.ok(tabs < 30, 'the log is reached with the Tab key')
    await page.press('Tab')
  }
  await page.press('Home')
  await page.sees('Entry 1, start')
  await page.until(() => document.getElementById(document.activeElement?.getAttribute('aria-activedescendant') ?? '')?.textContent?.includes('started as process'))
  await page.press('Escape')
  await page.until(() => document.querySelector<HTMLElement>('#entry')!.hidden)
  await page.press('/')
  assert.equal(await focused(), 'search')
  for (let tabs = 0; (await focused()) !== 'cancel'; tabs++) {
    assert.ok(tabs < 60, 'the button is reached with Shift and Tab')
    await page.press('Tab', true)
  }
  await page.press('Enter')
  await state(page, 'cancelled')
})

test('a screen reader hears the state, and not the flood', { skip }, async t => {
  const page = await open(t)
  await start(page, 'process', { steps: 5, delay: 20 })
  await page.until(() => document.querySelector('#status')?.textContent === 'process(5, 20): Finished')
  assert.deepEqual(await page.run(() => [
    document.querySelector('[role=log]')?.getAttribute('aria-live'),
    document.querySelector('#status')?.getAttribute('role'),
    document.querySelector('#bar')?.tagName,
  ]), ['off', 'status', 'PROGRESS'])
})

test('in a background tab the run goes on: title, and a notification if it was asked for', { skip }, async t => {
  const page = await open(t)
  await page.run(() => {
    const notices: string[] = []
    Object.assign(globalThis, { notices, Notification: class { static requestPermission() { return Promise.resolve('granted') } constructor(title: string) { notices.push(title) } } })
    // frames stop in a hidden tab
    Object.defineProperty(document, 'hidden', { configurable: true, get: () => document.documentElement.dataset.away !== undefined })
    const frame = requestAnimationFrame
    globalThis.requestAnimationFrame = callback => (document.hidden ? 0 : frame(callback))
  })
  await start(page, 'flood', { count: 50_000 })
  await page.until(() => document.title.startsWith('✓ · flood'))
  assert.deepEqual(await page.run(() => (globalThis as unknown as { notices: string[] }).notices), [], 'nobody asked')
  await page.click('#new')
  const id = await start(page, 'tick', { name: 'noticed' })
  await state(page, 'running')
  await page.click('#notify')
  await page.until(() => document.querySelector('#notify')?.textContent === 'Will notify')
  await page.run(() => {
    document.documentElement.dataset.away = ''
    document.dispatchEvent(new Event('visibilitychange'))
  })
  app.letGo('noticed')
  await page.until(() => document.title.startsWith('✓ · tick'))
  assert.deepEqual(await page.run(() => (globalThis as unknown as { notices: string[] }).notices), ['tick("noticed"): Finished'])
  await page.run(() => {
    delete document.documentElement.dataset.away
    document.dispatchEvent(new Event('visibilitychange'))
  })
  await state(page, 'ok')
  await counts(page, `${lines(id).length} entries`)
})

test('under the hood, the path lights up, and the frames can be read', { skip }, async t => {
  const page = await open(t)
  const id = await start(page, 'process', { steps: 1000, delay: 50 })
  await page.click('#hood summary')
  await page.until(() => document.querySelector('.hop[data-hop=publish].lit') && document.querySelector('.hop[data-hop=ack].lit'))
  await page.until(() => /"step":/.test(document.querySelector('figure[data-hop=publish]')?.textContent ?? ''))
  await page.until(() => /"ack":/.test(document.querySelector('figure[data-hop=ack]')?.textContent ?? ''))
  const frames = await page.run(() => Object.fromEntries([...document.querySelectorAll<HTMLElement>('figure[data-hop]')].map(hop => [hop.dataset.hop, hop.querySelector('pre')?.textContent ?? ''])))
  assert.equal(frames['request'], `[ process ]\n[  ]\n[ ${id} ]\n[ [1000,50] ]`)
  const position = Number(/\n\[ (\d+) \]\n/.exec(frames['publish'] ?? '')?.[1])
  assert.ok(lines(id).some((_, at, all) => Buffer.byteLength(all.slice(0, at).join('\n') + '\n') === position), 'a line begins at that position')
  assert.match(frames['ack'] ?? '', new RegExp(`^{"ack":"${id}","next":\\d+}$`))
  await page.click('#cancel')
  await state(page, 'cancelled')
})

test('nothing jumps while a run goes on and ends', { skip }, async t => {
  const run = await app.start('process', [80, 20])
  const page = await open(t, `/?run=${run.id}`)
  await arrived(page, 10)
  await page.run(() => {
    const shifts: number[] = []
    Object.assign(globalThis, { shifts })
    new PerformanceObserver(list => {
      for (const shift of list.getEntries()) shifts.push((shift as PerformanceEntry & { value: number }).value)
    }).observe({ type: 'layout-shift' })
  })
  await state(page, 'ok')
  const shifts = await page.run(() => (globalThis as unknown as { shifts: number[] }).shifts)
  assert.ok(shifts.reduce((sum, shift) => sum + shift, 0) < 0.01, `layout shifts: ${shifts}`)
})

test('the page fits the screen from phone to desk, and keeps still when asked to', { skip }, async t => {
  const run = await app.start('crash', ['x'.repeat(3000), 3])
  await run.outcome()
  const page = await open(t, `/?run=${run.id}`)
  for (const width of [390, 768, 1440]) {
    await page.dress({ width, height: 844, still: true })
    assert.ok(await page.run(() => document.documentElement.scrollWidth <= innerWidth), `at ${width} pixels`)
  }
  assert.equal(await page.run(() => document.getAnimations().length), 0)
})

test('a server with a token asks for it, then shows the page', { skip }, async t => {
  const guarded = await startApp(t, { TOKEN: 'open-sesame', SPARES: '0' })
  const page = await browser.open(guarded.url)
  t.after(() => page.close())
  await page.until(() => document.querySelector<HTMLInputElement>('input[name=token]')?.checkVisibility())
  await page.type('input[name=token]', 'open-sesame')
  await page.press('Enter')
  await page.sees('Connected')
  assert.equal(await page.run(() => location.search), '')
  await page.until(() => document.querySelector('form[data-method=process]')?.checkVisibility())
})
