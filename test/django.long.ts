// A web application of somebody else, with users and pages of its own, at another origin: django_app.py, which the
// README shows, against the real system, in a real browser.

import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { after, before, test, type TestContext } from 'node:test'
import type { Browser, Page } from 'playwright-core'
import { App, bareEnvironment, logOf, readmeBlocks, until } from './app.ts'
import { chromiumMissing, has, openPage, startChromium } from './browser.ts'
import { Gate } from './gate.ts'

const DJANGO_APP = join(import.meta.dirname, 'django_app.py')
const TOKEN = 'a-long-token-of-letters+signs'
const python = ['/usr/bin/python3', 'python3'].find(path => spawnSync(path, ['-c', 'import django']).status === 0)
const djangoMissing = !python && 'Python 3 with Django is missing: apt install python3-django'
if (djangoMissing && process.env['CI']) throw new Error(djangoMissing)
const skip = djangoMissing || chromiumMissing

/** What the application answers when a run was started. */
type Started = { id: string; pid: number; key: string }

let browser: Browser
let longrun: App
let between: Gate // a proxy before it
let django: { url: string; end(): Promise<void> }

before(async () => {
  if (skip) return
  const port = await freePort() // longrun must know it before the application starts, which must know longrun's
  longrun = new App({ TOKEN, ALLOWED_ORIGINS: `http://127.0.0.1:${port}` })
  await longrun.startBoth()
  between = await new Gate(longrun, true).start()
  ;[django, browser] = await Promise.all([startDjango(port), startChromium()])
})

after(async () => {
  await browser?.close()
  await django?.end()
  between?.end()
  await longrun?.end()
})

test('the README shows the application as it is', () => {
  const application = readFileSync(DJANGO_APP, 'utf8')
  const view = readmeBlocks('python').filter(block => block.includes('request.session'))
  const page = readmeBlocks('html').filter(block => block.includes('csrf_token'))
  assert.deepEqual([view.length, page.length], [1, 1])
  for (const block of [...view, ...page]) assert.ok(application.includes(block.trimEnd()), block)
})

test('a user starts a run in it, and sees it live; the page, loaded again, goes on to the end', { skip }, async t => {
  const page = await logIn(t, 'ada')
  const { id } = await startRun(page, 40)
  await moves(page, 5)
  await page.reload()
  await moves(page, 20)
  await ends(page, 'ok')
  assert.deepEqual(await bar(page), [40, 40])
  assert.deepEqual(await heard(page), entriesOf(id), 'each once, and in order')
  await page.reload()
  await ends(page, 'ok')
  assert.deepEqual(await heard(page), entriesOf(id))
})

test('where no WebSocket gets through, it follows over HTTP, from another origin, too', { skip }, async t => {
  const page = await logIn(t, 'ada')
  await page.routeWebSocket('**', socket => socket.close())
  const { id } = await startRun(page, 60)
  await moves(page, 5)
  await ends(page, 'ok')
  assert.deepEqual(await heard(page), entriesOf(id))
})

test('its user sees why a start is refused, cancels a run, and sees why one died', { skip }, async t => {
  const page = await logIn(t, 'ada')
  await startRun(page, 1000)
  await moves(page, 1)
  await page.click('text=Start')
  await has(page, PROBLEM, 'already running: the call ada')
  await page.click('[part=cancel]')
  await ends(page, 'cancelled')
  await startRun(page, 10 ** 9, 400)
  await has(page, PROBLEM, /steps.*100000000/)

  const { pid } = await startRun(page, 1000)
  await moves(page, 1)
  process.kill(pid, 'SIGKILL')
  await ends(page, 'died: killed by SIGKILL')
})

test('its user is told when longrun is down, and when a proxy answers in its place', { skip }, async t => {
  const page = await logIn(t, 'bob')
  const said = { 'Content-Type': 'text/html' }
  for (const status of [200, 403, 502]) {
    between.instead = (_, response) => response.writeHead(status, said).end('<h1>Another page</h1>')
    await startRun(page, 2, status === 200 ? 502 : status)
    await has(page, PROBLEM, status === 200 ? 'longrun does not answer' : `longrun answers with status ${status}`)
  }
  between.instead = (_, response) => response.destroy()
  await startRun(page, 2, 502)
  await has(page, PROBLEM, 'longrun does not answer')
  between.instead = undefined
  await startRun(page, 2)
  await ends(page, 'ok')
  assert.equal(await page.locator(PROBLEM).textContent(), '')
})

test('another user sees nothing of it, whatever he knows but its key', { skip }, async t => {
  const ada = await logIn(t, 'ada')
  const hers = await startRun(ada, 1000)
  const bob = await logIn(t, 'bob')
  assert.equal(await bob.locator('#run').textContent(), 'null')
  const his = await startRun(bob, 2)
  await ends(bob, 'ok')

  for (const key of ['', his.key, TOKEN, hers.key.slice(0, -1)]) {
    const query = `?key=${encodeURIComponent(key)}`
    for (const path of [hers.id, `${hers.id}/log`, `${hers.id}/log.ndjson`, 'nobody/log']) {
      const method = path === hers.id ? 'DELETE' : 'GET'
      assert.equal(await statusOf(bob, method, `tasks/${path}${query}`), 401, `${method} ${path}${query}`)
    }
    assert.equal(await opens(bob, `log${query}&run=${hers.id}`), false, `WebSocket ${query}`)
  }
  assert.equal(await refusal(bob, hers.id, his.key), 'this is not the key of that run')
  for (const path of ['', 'tasks', 'methods', 'health']) {
    assert.equal(await statusOf(bob, 'GET', path), 'not told', path)
  }
  assert.equal(await statusOf(bob, 'GET', `tasks/${his.id}/log?key=${his.key}`), 200, 'his own he sees')
  assert.equal(await opens(bob, `log?key=${his.key}&run=${his.id}`), true)

  await ada.click('[part=cancel]')
  await ends(ada, 'cancelled')
})

test('the cookie of longrun lets in no page of it, although both are one site', { skip }, async t => {
  const page = await logIn(t, 'ada')
  await page.context().addCookies([{ name: 'longrun', value: TOKEN, url: longrun.url, sameSite: 'Strict' }])
  const { id, key } = await startRun(page, 2)
  await ends(page, 'ok')
  assert.equal(await opens(page, 'log'), false)
  assert.equal(await opens(page, `log?run=${id}`), false)
  for (const path of ['tasks', `tasks/${id}/log`, `tasks/${id}/log?key=${key}`]) {
    assert.equal(await statusOf(page, 'GET', path, 'include'), 'not told', path)
  }
})

// ---- What the tests need

/** A port that nobody listens on. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

/** The application, when it answers. */
async function startDjango(port: number) {
  const folder = mkdtempSync(join(tmpdir(), 'longrun-django-'))
  const env = { ...bareEnvironment(), TMPDIR: folder, LONGRUN: between.url, TOKEN, NO_PROXY: '*' }
  const server = spawn(python!, [DJANGO_APP, String(port)], { env, stdio: ['ignore', 'ignore', 'pipe'] })
  const kill = () => server.kill('SIGKILL') // when this file is ended by its time-out
  process.once('exit', kill)
  const complaints = text(server.stderr)
  const exited = once(server, 'exit')
  const url = `http://127.0.0.1:${port}/`
  await until(async () => { // it prints its address before it listens there
    if (server.exitCode !== null) throw new Error(await complaints)
    return fetch(url).catch(() => false)
  })
  return {
    url,
    async end() {
      kill()
      await exited
      process.off('exit', kill)
      rmSync(folder, { recursive: true })
    },
  }
}

/** Opens the application as this user, in a browser of his own. */
async function logIn(t: TestContext, name: string): Promise<Page> {
  const page = await openPage(t, browser, django.url)
  await page.addInitScript(() => {
    const heard: object[] = []
    Object.assign(globalThis, { heard })
    document.addEventListener('entries', event => heard.push(...(event as CustomEvent).detail))
  })
  await page.fill('[name=username]', name)
  await page.fill('[name=password]', name)
  await page.click('button')
  await page.locator('longrun-run').waitFor()
  return page
}

/** Clicks, as a user does; resolves with what the application has answered to the page. */
async function startRun(page: Page, steps: number, status = 200): Promise<Started> {
  await page.fill('[name=steps]', String(steps))
  const [answer] = await Promise.all([page.waitForResponse('**/start'), page.click('text=Start')])
  assert.equal(answer.status(), status)
  return answer.json()
}

/** Until the bar has come so far. */
const moves = (page: Page, step: number) =>
  page.waitForFunction(step => document.querySelector('longrun-run')!.shadowRoot!.querySelector('progress')!.value >= step, step)

/** Until the page says that the run has ended in this way. */
const ends = (page: Page, outcome: string) => has(page, 'longrun-run [part=words]', outcome)

/** Where the application says why nothing was started. */
const PROBLEM = 'p > output'

const bar = (page: Page) => page.locator('longrun-run progress').evaluate((bar: HTMLProgressElement) => [bar.value, bar.max])

/** The entries that the element has told the page. */
const heard = (page: Page) => page.evaluate(() => (globalThis as unknown as { heard: object[] }).heard)

const entriesOf = (id: string) => logOf(longrun, id).trimEnd().split('\n').map(line => JSON.parse(line))

/** What a script of a page gets when it asks longrun, without the cookies that the browser has, or with them. */
const statusOf = (page: Page, method: string, path: string, credentials: RequestCredentials = 'omit') =>
  page.evaluate(async ([url, method, credentials]) => {
    const answer = await fetch(url, { method, credentials }).catch(() => undefined)
    return answer?.status ?? 'not told'
  }, [`${longrun.url}/${path}`, method, credentials] as const)

/** Whether a script of a page gets something over a WebSocket. */
const opens = (page: Page, path: string): Promise<boolean> =>
  page.evaluate(url => new Promise<boolean>(resolve => {
    const socket = new WebSocket(url)
    socket.onmessage = () => resolve(true) // the server speaks first
    socket.onclose = () => resolve(false)
  }), `${longrun.url.replace('http', 'ws')}/${path}`)

/** What follow() tells a page that asks for this run with this key. */
const refusal = (page: Page, id: string, key: string): Promise<string> =>
  page.evaluate(async ([url, id, key]) => {
    const { follow } = await import(`${url}follow.js`)
    return new Promise<string>(refuse => follow(url, id, () => refuse('it was shown'), { key, refuse }))
  }, [`${longrun.url}/`, id, key] as const)
