// Forms of the page, and what a person starts by them: continued from page.test.ts, as page.long.ts is.

import assert from 'node:assert/strict'
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { startApp } from './app.ts'
import { chromiumMissing as skip, complaints, has, openPage, sees, start, state, steps } from './browser.ts'
import { browser, folder, open, text, upTo } from './page.ts'

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
