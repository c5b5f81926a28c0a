// A headless Chromium, driven over its DevTools protocol: one WebSocket, a handful of commands. Waits
// are for a condition in the page itself, seen by a MutationObserver, never for an amount of time.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { WebSocket } from 'ws'

const PATIENCE = 60_000
const places = [
  process.env['CHROMIUM'],
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
]
const binary = places.find(place => place && existsSync(place))

/** Why the tests of the page cannot run here, or false. Where everything has to be tested, it is an error. */
export const browserMissing = binary ? false : 'no Chromium found; CHROMIUM can name one'
if (browserMissing && process.env['CI']) throw new Error(browserMissing)

type Params = Record<string, unknown>
type Answer = { resolve: (result: any) => void; reject: (error: Error) => void }
type Look = { dark?: boolean; width?: number; height?: number; still?: boolean; print?: boolean }

export type Browser = Awaited<ReturnType<typeof startBrowser>>
export type Page = Awaited<ReturnType<Browser['open']>>

export async function startBrowser() {
  const profile = await mkdtemp(join(tmpdir(), 'longrun-browser-'))
  const chromium = spawn(binary ?? '', [
    '--headless',
    ...(process.getuid?.() === 0 ? ['--no-sandbox'] : []), // Chromium's sandbox refuses to run as root
    '--disable-gpu', '--disable-quic', '--disable-dev-shm-usage', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--disable-extensions', '--hide-scrollbars', '--mute-audio',
    '--remote-debugging-port=0', `--user-data-dir=${profile}`, 'about:blank',
  ], { stdio: ['ignore', 'ignore', 'pipe'] })
  const ended = once(chromium, 'exit')
  const kill = () => chromium.kill('SIGKILL')
  process.once('exit', kill) // tests that are given up leave no browser behind
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => process.exit(1))
  const protocol = await connect(await readAddress(chromium.stderr))

  async function open(url: string, look: Look = {}) {
    // a context of its own: another person's browser, with its own storage and cookies
    const { browserContextId } = await protocol.send('Target.createBrowserContext', {})
    const { targetId } = await protocol.send('Target.createTarget', { url: 'about:blank', browserContextId })
    return openPage(protocol, targetId, browserContextId, url, look)
  }

  async function close() {
    protocol.send('Browser.close', {}).catch(() => {}) // it may be gone before it answers
    const slow = setTimeout(kill, 5000)
    await ended
    clearTimeout(slow)
    process.off('exit', kill)
    protocol.close()
    await rm(profile, { recursive: true, force: true, maxRetries: 5 })
  }

  return { open, close }
}

async function readAddress(stderr: NodeJS.ReadableStream) {
  for await (const line of createInterface(stderr)) {
    const address = /DevTools listening on (ws:\S+)/.exec(line)?.[1]
    if (address) {
      stderr.resume() // or a full pipe would stop the browser
      return address
    }
  }
  throw new Error('Chromium ended before it was ready')
}

type Protocol = Awaited<ReturnType<typeof connect>>

async function connect(address: string) {
  const socket = new WebSocket(address, { maxPayload: 2 ** 28 })
  const answers = new Map<number, Answer>()
  const listeners = new Set<(sessionId: string, method: string, params: any) => void>()
  let last = 0
  socket.on('message', data => {
    const message = JSON.parse(String(data))
    if (message.id === undefined) return listeners.forEach(listener => listener(message.sessionId, message.method, message.params))
    const answer = answers.get(message.id)
    answers.delete(message.id)
    if (message.error) answer?.reject(new Error(message.error.message))
    else answer?.resolve(message.result)
  })
  socket.on('close', () => answers.forEach(answer => answer.reject(new Error('the browser is gone'))))
  await once(socket, 'open')

  const send = (method: string, params: Params, sessionId?: string) =>
    new Promise<any>((resolve, reject) => {
      answers.set(++last, { resolve, reject })
      socket.send(JSON.stringify({ id: last, method, params, sessionId }))
    })
  return { send, listeners, close: () => socket.terminate() }
}

async function openPage(protocol: Protocol, targetId: string, browserContextId: string, url: string, look: Look) {
  const { sessionId } = await protocol.send('Target.attachToTarget', { targetId, flatten: true })
  const send = (method: string, params: Params = {}) => protocol.send(method, params, sessionId)
  /** everything that went wrong in the page: exceptions, console errors, what the policy blocked */
  const troubles: string[] = []
  const listen = (session: string, method: string, params: any) => {
    if (session !== sessionId) return
    if (method === 'Runtime.exceptionThrown') troubles.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text)
    if (method === 'Log.entryAdded' && params.entry.level === 'error') troubles.push(`${params.entry.text} ${params.entry.url ?? ''}`)
  }
  protocol.listeners.add(listen)
  await Promise.all(['Page.enable', 'Runtime.enable', 'Log.enable', 'DOM.enable'].map(method => send(method)))
  await dress(look)
  await go(url)

  async function dress({ dark = false, width = 1280, height = 900, still = false, print = false }: Look) {
    await send('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile: width < 500 })
    await send('Emulation.setEmulatedMedia', {
      media: print ? 'print' : '',
      features: [
        { name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' },
        { name: 'prefers-reduced-motion', value: still ? 'reduce' : '' },
      ],
    })
  }

  async function go(url: string) {
    const loaded = event('Page.loadEventFired')
    const { errorText } = await send('Page.navigate', { url })
    if (errorText) throw new Error(`${url}: ${errorText}`)
    await loaded
  }

  async function reload() {
    const loaded = event('Page.loadEventFired')
    await send('Page.reload')
    await loaded
  }

  function event(name: string) {
    return new Promise<void>(resolve => {
      const wait = (session: string, method: string) => {
        if (session !== sessionId || method !== name) return
        protocol.listeners.delete(wait)
        resolve()
      }
      protocol.listeners.add(wait)
    })
  }

  /** Runs a function in the page; its arguments and its result travel as JSON. */
  async function run<A extends unknown[], R>(action: (...args: A) => R, ...args: A): Promise<Awaited<R>> {
    // the loader of these tests wraps inner functions in a helper of its own, which the page does not have
    const expression = `(() => { const __name = f => f; return (${action})(...${JSON.stringify(args)}) })()`
    const { result, exceptionDetails } = await send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true, userGesture: true })
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text)
    return result.value
  }

  /** Resolves with what the condition returns, as soon as that is true; looks at each change of the page. */
  async function until<A extends unknown[], R>(condition: (...args: A) => R, ...args: A): Promise<NonNullable<R>> {
    const expression = `new Promise((resolve, reject) => {
      const __name = f => f
      const look = () => {
        const seen = (${condition})(...${JSON.stringify(args)})
        if (!seen) return
        observer.disconnect()
        clearTimeout(limit)
        resolve(seen)
      }
      const observer = new MutationObserver(look)
      const limit = setTimeout(() => { observer.disconnect(); reject(new Error('waited in vain for ' + ${JSON.stringify(String(condition))} + '\\n' + document.body?.innerText.slice(-700))) }, ${PATIENCE})
      observer.observe(document, { subtree: true, childList: true, attributes: true, characterData: true })
      look()
    })`
    try {
      const { result, exceptionDetails } = await send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true })
      if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text)
      return result.value
    } catch (error) {
      // the page went on to another address meanwhile: the condition is to hold there
      if (/navigated|context was destroyed|find (default execution )?context/.test(String(error))) return until(condition, ...args)
      throw error
    }
  }

  const sees = (text: string) => until(text => document.body?.innerText.includes(text), text)

  async function click(selector: string) {
    // as a person would: when it is there, and nothing covers it
    const { x, y } = await until(selector => {
      const target = document.querySelector(selector)
      target?.scrollIntoView({ block: 'nearest' })
      const { left, top, width, height } = target?.getBoundingClientRect() ?? new DOMRect()
      const [x, y] = [left + width / 2, top + height / 2]
      return target?.contains(document.elementFromPoint(x, y)) ? { x, y } : undefined
    }, selector)
    for (const type of ['mousePressed', 'mouseReleased']) await send('Input.dispatchMouseEvent', { type, x, y, button: 'left', clickCount: 1 })
  }

  async function type(selector: string, text: string) {
    await run(selector => {
      const field = document.querySelector<HTMLInputElement>(selector)
      field?.focus()
      field?.select()
    }, selector)
    await send('Input.insertText', { text })
  }

  /** A key by its name ('Enter', 'Tab', 'w', …), perhaps with Shift. */
  async function press(key: string, shift = false) {
    const codes: Record<string, number> = { Enter: 13, Tab: 9, Escape: 27, End: 35, Home: 36, ArrowUp: 38, ArrowDown: 40, ' ': 32 }
    const text = key === 'Enter' ? '\r' : key.length === 1 ? key : undefined
    const common = { key, modifiers: shift ? 8 : 0, windowsVirtualKeyCode: codes[key] ?? key.toUpperCase().charCodeAt(0) }
    await send('Input.dispatchKeyEvent', { type: 'keyDown', ...common, ...(text && { text }) })
    await send('Input.dispatchKeyEvent', { type: 'keyUp', ...common })
  }

  async function chooseFile(selector: string, ...files: string[]) {
    const { root } = await send('DOM.getDocument')
    const { nodeId } = await send('DOM.querySelector', { nodeId: root.nodeId, selector })
    await send('DOM.setFileInputFiles', { nodeId, files })
  }

  async function drop(...files: string[]) {
    const data = { items: [], files, dragOperationsMask: 1 }
    for (const type of ['dragEnter', 'dragOver', 'drop']) await send('Input.dispatchDragEvent', { type, x: 300, y: 300, data })
  }

  async function screenshot(file: string) {
    const { data } = await send('Page.captureScreenshot', { format: 'png' })
    await writeFile(file, Buffer.from(data, 'base64'))
  }

  async function close() {
    protocol.listeners.delete(listen)
    await protocol.send('Target.disposeBrowserContext', { browserContextId })
  }

  return { go, reload, run, until, sees, click, type, press, chooseFile, drop, dress, screenshot, close, send, troubles }
}
