// What is let out to pages of others, in a real browser: <longrun-run> and follow.js, from another origin, by key, below a
// strict Content-Security-Policy. (What a browser's pages share where no WebSocket gets through is in element.long.ts.)

import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { complaints, chromiumMissing as skip } from './browser.ts'
import { app, bar, BEARER, element, ended, heard, open, startRun, whole, words } from './element.ts'

suite('<longrun-run>, in a page of another origin,', { skip }, () => {
  test('shows how far a run is and how it ended, by its key, below a strict policy', async t => {
    const run = await startRun('process', [30, 20])
    const { page, sockets } = await open(t, element(run))
    await words(page, /^ok$/)
    await ended(page)
    assert.deepEqual(await bar(page), [30, 30])
    assert.deepEqual(await heard(page), { entries: whole(run), done: [whole(run).at(-1).data] })
    assert.equal(await page.locator('longrun-run [part=cancel]').isVisible(), false)
    assert.equal(sockets.length, 1)
    assert.deepEqual(await complaints(page), [], 'the policy has blocked nothing')
  })

  test('whose policy forbids the WebSocket, shows it over HTTP, without waiting for heartbeats that do not come', async t => {
    const run = await startRun('process', [5, 0])
    const { page, sockets } = await open(t, element(run), '/http-alone', 'setInterval = () => 1') // nobody looks for them
    await words(page, 'ok')
    assert.deepEqual((await heard(page)).entries, whole(run))
    assert.deepEqual(sockets, [])
  })

  test('cancels its run: by its key, and without one in a page of its own server', async t => {
    const run = await startRun('polite', [])
    const { page } = await open(t, element(run))
    await words(page, /./)
    await page.locator('longrun-run [part=cancel]').click()
    await words(page, /^cancelled/)
    assert.equal((await heard(page)).done.length, 1)

    const { id } = await startRun('lingers', [{ one: ['log', '\x1b[1;31mworking\x1b[0m\x1b[K'] }])
    await page.goto(`${app.url}/?token=${BEARER.authorization.slice('Bearer '.length)}`)
    await page.evaluate(async () => {
      await import(new URL('longrun-run.js', location.href).href)
      document.body.append(document.createElement('longrun-run'))
    })
    assert.equal(await page.locator('longrun-run [part=cancel]').isVisible(), false, 'there is nothing to cancel yet')
    await page.locator('longrun-run').evaluate((element, id) => element.setAttribute('run', id), id)
    await words(page, /^working$/)
    await page.route(`**/tasks/${id}`, async route => {
      const response = await route.fetch()
      await words(page, /^cancelled/)
      await route.fulfill({ response }) // that it was asked to end is heard after its end
    })
    await Promise.all([page.waitForResponse(`**/tasks/${id}`), page.locator('longrun-run [part=cancel]').click()])
    await words(page, /^cancelled/)
  })

  test('shows another run when its attributes say so, and its bar and words begin anew', async t => {
    const [first, second] = [await startRun('process', [5, 0]), await startRun('tick', ['second'])]
    const { page } = await open(t, element(first))
    await ended(page)
    await page.locator('longrun-run').evaluate((element, { id, key }) => {
      element.setAttribute('run', id)
      element.setAttribute('key', key)
    }, second)
    await words(page, /^step \d+ of many$/)
    assert.equal(await page.locator('longrun-run progress').getAttribute('value'), null)
    app.letGo('second')
    await words(page, 'ok')
    assert.deepEqual((await heard(page)).entries, [...whole(first), ...whole(second)])
  })

  test('says why it shows nothing: a wrong key; and follows when it gets the right one', async t => {
    const run = await startRun('process', [5, 0])
    const { page } = await open(t, element({ ...run, key: 'wrong' }))
    await words(page, 'this is not the key of that run')
    await page.locator('longrun-run').evaluate((element, key) => element.setAttribute('key', key), run.key)
    await words(page, 'ok')
    assert.deepEqual((await heard(page)).entries, whole(run))
  })
})
