// The page, as a person uses it: real servers, a real browser. What the page shows is compared with the run's
// log, entry for entry. One browser and one app serve all tests here; each test opens pages of its own. (What takes
// longer, or is met more seldom, is in page.long.ts.)

import assert from 'node:assert/strict'
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import type { Page } from 'playwright-core'
import { startApp } from './app.ts'
import {
  arrived, chromiumMissing as skip, complaints, counts, has, openPage, sees, start, state, steps,
} from './browser.ts'
import { app, browser, folder, lines, open, outlivesServer, rows, text, upTo, whole } from './page.ts'

/** What the file is that the page offers. */
async function download(page: Page) {
  const link = await page.locator('#file[href]').getAttribute('href')
  return app.request('GET', new URL(link!, page.url()).pathname)
}

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

test('one click imports the sample file; a file dropped anywhere is imported at once', { skip }, async t => {
  const page = await open(t)
  await page.click('#sample')
  await page.locator('#file[href]').waitFor()
  await has(page, '#tiles', /Rejected lines6/)

  const file = join(folder, 'dropped.csv')
  await writeFile(file, 'a;b\n1;2\n3;4\n')
  await page.locator('body').drop({ files: file })
  await has(page, '#run-title', 'dropped.csv')
  await has(page, '#tiles', /Rows imported2R/)
  for (const name of ['sample.csv', 'dropped.csv']) await page.locator('#runs li', { hasText: name }).first().waitFor()
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
  const id = await start(page, 'process', { steps: 60, delay: 30 })
  await arrived(page, 5)
  await page.reload()
  await arrived(page, 12)
  const other = await open(t, `/?run=${id}`)
  await Promise.all([state(page, 'ok'), state(other, 'ok')])
  for (const reader of [page, other]) {
    assert.deepEqual(await steps(reader), upTo(60))
    await counts(reader, whole(id))
  }
  assert.equal(await page.locator('#runs .name').first().innerText(), 'process(60, 30)', 'the list names it')
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
  const id = await start(page, 'process', { steps: 1000, delay: 50 })
  await arrived(page, 2)
  await page.click('#cancel')
  await state(page, 'cancelled')
  assert.equal(await text(page, '#state-words'), 'Cancelled')
  assert.match(lines(id).at(-1)!, /"outcome":"cancelled"/)
  await page.click('#change') // fills the form
  assert.equal(await page.locator('form[data-method=process] [name=delay]').inputValue(), '50')
  await start(page, 'process', { steps: 500 })
  await arrived(page, 1)
  await page.click('#cancel')
  await state(page, 'cancelled')
  await page.locator('#runs [data-state=cancelling]').waitFor({ state: 'detached' }) // the deaf one is killed meanwhile
})

test('when all places are taken, it offers to start as soon as one is free', { skip }, async t => {
  const page = await open(t)
  await page.waitForFunction(async () => !(await (await fetch('health')).json()).running, undefined, { polling: 100 })
  const taken = await Promise.all([1, 2, 3].map(() => app.start('process', [1000, 50])))
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
  await page.locator('form[data-method=takes]').evaluate(form => { form.dataset['method'] = 'toString' })
  await start(page, 'toString')
  await sees(page, 'Refused: ')
  assert.equal(await text(page, '#state-words'), 'Not started')
})

test('the connection is lost and comes back: the log goes on, nothing is missing, and says so', { skip }, async t => {
  const page = await open(t)
  await outlivesServer(page, 150)
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

test('everything works with the keyboard alone', { skip }, async t => {
  const page = await open(t)
  const isFocused = (selector: string) => page.locator(`${selector}:focus`).count()
  const reach = async (selector: string, key: string) => {
    for (let presses = 0; !(await isFocused(selector)); presses++) {
      assert.ok(presses < 60, `${selector} is reached with ${key}`)
      await page.keyboard.press(key)
    }
  }
  await page.locator('form[data-method=process]').waitFor()
  await page.keyboard.press('Tab')
  await page.keyboard.press('Enter') // skips the list of runs
  await reach('form[data-method=process] [name=steps]', 'Tab')
  const outline = await page.locator(':focus').evaluate(field => getComputedStyle(field).outlineStyle)
  assert.equal(outline, 'solid', 'and its focus is visible')
  await page.keyboard.press('Enter')
  await state(page, 'running')
  await reach('#log-list', 'Tab')
  await page.keyboard.press('Home')
  await sees(page, 'Entry 1, start')
  const active = await page.locator('#log-list').getAttribute('aria-activedescendant')
  await has(page, `[id="${active}"]`, 'started as process')
  await page.keyboard.press('Escape')
  await page.locator('#entry').waitFor({ state: 'hidden' })
  await page.keyboard.press('/')
  assert.ok(await isFocused('#search'))
  await reach('#cancel', 'Shift+Tab')
  await page.keyboard.press('Enter')
  await state(page, 'cancelled')
})

test('a screen reader hears the state, and not the flood', { skip }, async t => {
  const page = await open(t)
  await start(page, 'process', { steps: 5, delay: 20 })
  await has(page, '#status[role=status]', /^process\(5, 20\): Finished$/)
  assert.equal(await page.getByRole('log').getAttribute('aria-live'), 'off')
  assert.equal(await page.getByRole('progressbar').getAttribute('id'), 'bar')
})

test('a server with a token asks for it, then shows the page', { skip }, async t => {
  const guarded = await startApp(t, { TOKEN: 'open-sesame-open', SPARES: '0' })
  const page = await openPage(t, browser, guarded.url)
  await page.fill('input[name=token]', 'not-the-right-one')
  await page.keyboard.press('Enter')
  await sees(page, 'This is not the token')
  await page.waitForURL(address => !address.href.includes('not-the-right-one')) // nor does it stay in the history
  await page.fill('input[name=token]', 'open-sesame-open')
  await page.keyboard.press('Enter')
  await sees(page, 'Connected')
  assert.equal(new URL(page.url()).search, '')
  await page.locator('form[data-method=process]').waitFor()
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

test('a run has one name, wherever it is named', { skip }, async t => {
  const file = join(folder, 'with a "quoted" name, and a long one, so that it has to be cut somewhere.csv')
  await writeFile(file, 'a,b\n1,2\n')
  const page = await open(t)
  await page.locator('body').drop({ files: file })
  await has(page, '#tiles', /Rows imported1R/)
  await page.locator('#runs [aria-current]').waitFor()
  const names = async () => [
    await text(page, '#run-title'), await text(page, '#runs [aria-current] .name'), /· (.*) ·/.exec(await page.title())?.[1],
  ]
  const [name] = await names()
  assert.match(name!, /^with a "quoted" name, and a long/)
  assert.deepEqual(await names(), [name, name, name])
  await page.reload()
  await has(page, '#tiles', /Rows imported1R/)
  assert.deepEqual(await names(), [name, name, name])
})

test('a file that cannot be read any more is named, instead of a connection', { skip }, async t => {
  const file = join(folder, 'removed.csv')
  await writeFile(file, 'a,b\n1,2\n')
  const page = await open(t)
  await page.locator('form[data-method=importCsv] input[type=file]').setInputFiles(file)
  await sees(page, '8 bytes')
  await rm(file)
  await start(page, 'importCsv')
  await sees(page, 'removed.csv cannot be read')
  assert.ok(await page.locator('#retry').isHidden(), 'to try it again would not help')
  await page.click('#change')
  await page.locator('form[data-method=importCsv]').waitFor()
})

test('running again is one click; a file that is missing after a reload is named', { skip }, async t => {
  const page = await open(t)
  const id = await start(page, 'process', { steps: 7, delay: 1 })
  await state(page, 'ok')
  await page.reload()
  await page.click('#again')
  await page.waitForURL(address => address.searchParams.get('run') !== id)
  await state(page, 'ok')
  assert.deepEqual(await steps(page), upTo(7))

  await page.click('#new')
  await page.click('#sample')
  await page.locator('#file[href]').waitFor()
  await page.reload()
  await page.click('#again')
  await has(page, '.drop', 'Choose it again for sample.csv')
})

test('what a function returns is shown as figures or as a table, where it is flat', { skip }, async t => {
  const results = [
    [{ rows: 12345, kind: 'all' }, '#tiles', /^Rows12,345Kindall$/],
    [{ 0: { id: 1, name: 'Ada' } }, '#result-text', /Ada/],
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

test('a parameter may be called as anything, and offer what to choose from', { skip }, async t => {
  const page = await open(t)
  await page.fill('form[data-method=awkward] [name=elements]', 'some')
  await page.selectOption('form[data-method=awkward] [name=size]', '16')
  await start(page, 'awkward')
  await state(page, 'ok')
  const args = ['some', ...Array(9).fill(''), 'two', 16]
  await page.locator('#result-text').waitFor()
  assert.deepEqual(JSON.parse(await text(page, '#result-text')), { given: args })
  await page.click('#change')
  assert.equal(await page.locator('form[data-method=awkward] [name=elements]').inputValue(), 'some')
  assert.equal(await page.locator('form[data-method=awkward] [name=size]').inputValue(), '16')
})

// ---- At a glance

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

test('what cannot be sent is said at the field; what is left blank has its default', { skip }, async t => {
  const page = await open(t)
  await page.fill('form[data-method=takes] [name=string]', 's')
  await page.fill('form[data-method=takes] [name=integer]', '3')
  await page.fill('form[data-method=takes] [name=number]', '1')
  await page.fill('form[data-method=takes] [name=object]', '{ not JSON')
  await page.click('form[data-method=takes] button.primary')
  const field = page.locator('form[data-method=takes] [name=object]')
  assert.match(await field.evaluate(field => (field as HTMLTextAreaElement).validationMessage), /^Not JSON/)
  const needed = page.locator('form[data-method=claim] [name=result]')
  await needed.fill('  ')
  await page.click('form[data-method=claim] button.primary')
  assert.match(await needed.evaluate(field => (field as HTMLTextAreaElement).validationMessage), /^Not JSON/)
  await start(page, 'takes', { object: '' })
  await state(page, 'ok')
  await page.locator('#result-text').waitFor() // the list may have told of the end before the log
  assert.deepEqual(JSON.parse(await text(page, '#result-text')), ['s', 3, 1, false, {}])
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
