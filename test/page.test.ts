// The page, as a person uses it: real servers, a real browser. What the page shows is compared with the run's
// log, entry for entry. One browser and one app serve all tests here; each test opens pages of its own. (What takes
// longer, or is met more seldom, is in page.long.ts and form.long.ts.)

import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { arrived, chromiumMissing as skip, complaints, counts, has, sees, start, state, steps } from './browser.ts'
import { app, download, folder, lines, open, outlivesServer, rows, stepsOf, text, upTo, whole } from './page.ts'

test('a chosen CSV file is imported: the bar moves, bad lines are named, rows can be downloaded', { skip }, async t => {
  const bad = [7, 500, 12_345, 19_999] // lines of the file; the header is line 1
  const file = join(folder, 'people.csv')
  const wide = 'x'.repeat(2000) // so that the import takes a moment
  const row = (line: number) => (bad.includes(line) ? `${line},too few` : `${line},"Ada, ""the"" runner",${wide}`)
  await writeFile(file, ['number,name,note', ...upTo(20_000).map(at => row(at + 2)), ''].join('\n'))

  const page = await open(t)
  const seen = await page.locator('#bar').evaluateHandle(bar => {
    const seen = new Set<number>()
    new MutationObserver(() => seen.add((bar as HTMLProgressElement).value)).observe(bar, { attributes: true })
    return seen
  })
  await page.locator('form[data-method=importCsv] input[type=file]').setInputFiles(file)
  await sees(page, 'people.csv')
  const id = await start(page, 'importCsv')
  const produced = await download(page)
  assert.match(produced.headers.get('content-disposition') ?? '', /^attachment/)
  assert.equal(produced.body.trimEnd().split('\n').length, 19_996)

  assert.equal(await text(page, '#run-title'), 'people.csv')
  const moved = await seen.evaluate(seen => seen.size)
  assert.ok(moved >= 2, `the bar moved ${moved} times`)
  assert.deepEqual(await page.locator('#findings-list .where').allTextContents(), bad.map(line => `line ${line}`))
  await has(page, '#tiles', /Rows imported19,996Rejected lines4Columns3/)
  assert.equal(await text(page, '#warnings'), '4')
  assert.equal(await text(page, '#percent'), '100 %')
  assert.match(lines(id).at(-1)!, /"outcome":"ok"/)
  assert.deepEqual(await complaints(page), [])
})

test('a source with two errors: each problem is listed, and choosing one shows its line', { skip }, async t => {
  const page = await open(t)
  await start(page, 'compile', { source: 'const n: number = 1\nconst s: string = n\n\nn.nothing()\n' })
  await state(page, 'ok')
  await page.locator('#findings-list .row').nth(1).waitFor()
  const problems = await rows(page, '#findings-list')
  assert.equal(problems.length, 2)
  assert.match(problems[0]!, /line 2:7.*not assignable/)
  assert.match(problems[1]!, /line 4:3.*nothing/)
  await has(page, '#tiles', /Errors2/)

  await page.click('#findings-list .row:nth-child(2)')
  await has(page, '#source-lines [aria-selected=true]', 'n.nothing()')
  assert.deepEqual(await page.locator('#source-lines [data-level=error] .n').allTextContents(), ['2', '4'])
})

test('reloading in the middle, or opening the address elsewhere, shows the whole run', { skip }, async t => {
  const elsewhere = await app.start('process', [1, 0])
  await elsewhere.outcome()
  const page = await open(t)
  const id = await start(page, 'tick', { name: 'reloaded' })
  await arrived(page, 5)
  await page.reload()
  await arrived(page, 12)
  const other = await open(t, `/?run=${id}`)
  await arrived(other, 20)
  app.letGo('reloaded')
  await Promise.all([state(page, 'ok'), state(other, 'ok')])
  for (const reader of [page, other]) {
    assert.deepEqual(await steps(reader), stepsOf(id))
    await counts(reader, whole(id))
  }
  assert.equal(await page.locator('#runs .name').first().innerText(), 'tick("reloaded")', 'the list names it')
  await other.locator(`#runs a[href*="${elsewhere.id}"]`).waitFor()
})

test('cancelling says that it is cancelling, then how it ended', { skip }, async t => {
  const page = await open(t)
  await start(page, 'deaf', { seconds: 600 })
  await arrived(page, 1)
  await page.click('#cancel')
  await state(page, 'cancelling')
  assert.equal(await text(page, '#cancel'), 'Cancelling …')

  await page.click('#new')
  const id = await start(page, 'process', { steps: 100_000, delay: 50 })
  await arrived(page, 2)
  await page.click('#cancel')
  await state(page, 'cancelled')
  assert.equal(await text(page, '#state-words'), 'Cancelled')
  assert.match(lines(id).at(-1)!, /"outcome":"cancelled"/)
  await page.click('#change') // fills the form
  assert.equal(await page.locator('form[data-method=process] [name=delay]').inputValue(), '50')
  await start(page, 'process', { steps: 99_000 })
  await arrived(page, 1)
  await page.click('#cancel')
  await state(page, 'cancelled')
  await page.locator('#runs [data-state=cancelling]').waitFor({ state: 'detached' }) // the deaf one is killed meanwhile
})

test('when all places are taken, it offers to start as soon as one is free', { skip }, async t => {
  const page = await open(t)
  await page.waitForFunction(async () => !(await (await fetch('health')).json()).running, undefined, { polling: 100 })
  const taken = await Promise.all([1, 2, 3].map(() => app.start('forget')))
  await start(page, 'process', { steps: 3, delay: 1 })
  await sees(page, 'All places are taken')
  await page.click('#new') // what can still be started stays when one looks elsewhere
  await page.locator('form[data-method=process]').waitFor()
  await page.goBack()
  await sees(page, 'All places are taken')
  await page.click('#wait')
  await state(page, 'queued')
  await taken[0]!.cancel()
  await state(page, 'ok')
  assert.deepEqual(await steps(page), upTo(3))
  await Promise.all(taken.map(run => run.cancel()))
  await Promise.all(taken.map(run => run.outcome()))
})

test('what is refused is said, with the reason', { skip }, async t => {
  const page = await open(t)
  await start(page, 'takes', { string: 's', integer: 5, number: 1.5 })
  await state(page, 'ok')
  await page.locator('#result-text').waitFor() // the list may have told of the end before the log
  assert.deepEqual(JSON.parse(await text(page, '#result-text')), ['s', 5, 1.5, false, {}])

  await page.click('#new')
  await page.locator('form[data-method=process]').evaluate(form => { (form as HTMLFormElement).noValidate = true })
  await start(page, 'process', { steps: -1 })
  await sees(page, 'Refused: ')
  assert.equal(await text(page, '#state-words'), 'Not started')
})

test('the connection is lost and comes back: the log goes on, nothing is missing, and says so', { skip }, async t => {
  const page = await open(t)
  await outlivesServer(page)
})
