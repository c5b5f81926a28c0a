// Behind a reverse proxy: real nginx, with the blocks that the README shows, under a name of its own and below a path
// of another application. What programs and a browser get through it, and that nothing of it goes elsewhere.

import assert from 'node:assert/strict'
import { execFile, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import type { OutgoingHttpHeaders } from 'node:http'
import { request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, before, suite, test } from 'node:test'
import { connect as connectTls } from 'node:tls'
import { promisify } from 'node:util'
import type { Browser } from 'playwright-core'
import { WebSocket } from 'ws'
import { App, ask, missing, onEvents, ownAddress, port, Reader, readmeBlocks, ROOT, until, UPGRADE } from './app.ts'
import { chromiumMissing, openPage, sees, start, startChromium, state } from './browser.ts'

const TOKEN = 'a-long.Token+of/letters=and~signs'
const JSON_TYPE = { 'Content-Type': 'application/json' }
const FORMS = [
  { form: 'under a name of its own', name: 'longrun.example.org', path: '/' },
  { form: 'below a path of another application', name: 'app.example.org', path: '/longrun/' },
]

const nginx = (process.env['PATH'] ?? '').split(':').concat('/usr/sbin')
  .map(folder => join(folder, 'nginx')).find(path => existsSync(path))
const noNginx = !nginx && 'nginx is not installed: apt install nginx-light'
if (noNginx && process.env['CI']) throw new Error(noNginx)
const skip = noNginx || missing('openssl') || missing('curl')

const app = new App({ TOKEN, ALLOWED_HOSTS: FORMS.map(({ name }) => name).join() })
const folder = mkdtempSync(join(tmpdir(), 'longrun-proxy-'))
const [key, certificate, elsewhere] = ['key.pem', 'certificate.pem', 'elsewhere.log'].map(name => join(folder, name))
const address = { host: ownAddress(), port: 8443 } // where nginx listens
let browser: Browser | undefined
let endNginx = async () => {}
const said: string[] = [] // by nginx, on stderr

before(async () => {
  if (skip) return
  await app.startBoth()
  const names = FORMS.map(({ name }) => `DNS:${name}`).join()
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes',
    '-days', '1', '-subj', '/CN=localhost', '-addext', `subjectAltName=${names}`, '-keyout', key!, '-out', certificate!,
  ], { stdio: 'ignore' })
  endNginx = await startNginx()
  const resolve = `--host-resolver-rules=MAP *.example.org ${address.host}:${address.port}`
  if (!chromiumMissing) browser = await startChromium(resolve)
})

after(async () => {
  await browser?.close()
  await endNginx()
  if (!skip) await app.end()
  rmSync(folder, { recursive: true })
})

for (const { form, name, path } of FORMS) {
  suite(`${form}, nginx`, { skip }, () => {
    const own: OutgoingHttpHeaders = { Origin: `https://${name}` } // and the cookie, when it was given
    const through = (method: string, target: string, headers: OutgoingHttpHeaders = {}, body?: string | Buffer) =>
      ask(tls(name), method, path + target, { Host: name, ...headers }, body)
    const startRun = async (method: string, args: unknown[] = []): Promise<{ id: string; key: string }> => {
      const call = JSON.stringify({ method, args })
      const { status, body } = await through('POST', 'tasks', { ...own, ...JSON_TYPE }, call)
      assert.equal(status, 202, body)
      return JSON.parse(body)
    }

    before(async () => {
      const { status, headers } = await through('GET', `?token=${TOKEN}`) // as it is: the + would be a blank
      assert.equal(status, 303)
      own.Cookie = headers['set-cookie']![0]!.split(';')[0]
    })

    test('asks for the token, and gives a cookie that stays there', async () => {
      assert.equal((await through('GET', '')).status, 401)
      assert.equal((await through('GET', '?token=wrong')).status, 401)
      const { headers } = await through('GET', `?token=${encodeURIComponent(TOKEN)}&run=a`)
      assert.equal(new URL(headers.location!, `https://${name}${path}`).href, `https://${name}${path}?run=a`)
      assert.match(String(headers['set-cookie']), /^longrun-[0-9a-f]{8}=\S+; HttpOnly; SameSite=Strict; Secure$/)
      assert.ok(headers['set-cookie']![0]!.includes(`=${TOKEN};`))
    })

    test('carries the page with its headers, and lets no foreign page in', async () => {
      const page = await through('GET', '', own)
      assert.equal(page.body, readFileSync(join(ROOT, 'public', 'index.html'), 'utf8'))
      assert.match(String(page.headers['content-security-policy']), /default-src 'none'/)
      const foreign = { ...own, Origin: 'https://evil.example' }
      assert.equal((await through('POST', 'tasks', { ...foreign, ...JSON_TYPE }, '{"method":"process"}')).status, 403)
      const createConnection = () => connectTls(tls(name))
      const socket = new WebSocket(`wss://${name}${path}log`, { headers: foreign, createConnection })
      assert.equal((await once(socket, 'close'))[0], 4403)
    })

    test('carries uploads that are larger than it allows by itself', async () => {
      const upload = await through('POST', 'files', own, Buffer.alloc(5_000_000))
      assert.equal(upload.status, 201, upload.body)
    })

    test('keeps nothing back: the WebSocket, events and long-polls tell at once what a run says', async () => {
      const createConnection = () => connectTls(tls(name))
      const socket = new WebSocket(`wss://${name}${path}log`, { headers: own, createConnection })
      await once(socket, 'open')
      const { id } = await startRun('polite') // says one thing, and then nothing for a minute
      const reader = new Reader(id)
      reader.attach(socket)
      await reader.until(({ entries }) => entries.length === 2)

      const log = `tasks/${id}/log?offset=`
      const headers = { Host: name, ...own }
      const events = request({ ...tls(name), path: `${path}${log}-1&live=sse`, headers, agent: false }).end()
      const [response] = await once(events, 'response')
      let seen = 0
      onEvents(response, ({ entries }) => { seen += entries.length })
      await until(() => seen === 2)

      const poll = through('GET', `${log}${String(reader.next).padStart(16, '0')}&live=long-poll`, own)
      assert.equal((await through('DELETE', `tasks/${id}`, own)).status, 202)
      assert.match((await poll).body, /cleaning up/)
      await reader.done()
      await until(() => seen === reader.entries.length)
      socket.terminate()
    })

    test('lets a page of the same origin follow one run by its key, without a cookie of longrun', async () => {
      const { id, key } = await startRun('process', [1, 0])
      const Origin = `https://${name}`
      assert.equal((await through('GET', `tasks/${id}/log?key=${key}`, { Origin })).status, 200)
      assert.equal((await through('GET', `log?run=${id}&key=${key}`, { ...UPGRADE, Origin })).status, 101)
      for (const target of [`tasks/${id}/log`, `tasks/${id}/log?key=${key.slice(1)}`, `tasks?key=${key}`]) {
        assert.equal((await through('GET', target, { Origin })).status, 401, target)
      }
    })

    test('shows a person the page, and all that it asks for stays there', { skip: chromiumMissing }, async t => {
      const base = `https://${name}${path}`
      const page = await openPage(t, browser!, base, { ignoreHTTPSErrors: true })
      const asked: string[] = []
      page.on('request', asking => asked.push(asking.url()))
      page.on('websocket', socket => asked.push(socket.url().replace('wss:', 'https:')))
      await page.fill('[name=token]', TOKEN)
      await page.click('button')
      await sees(page, 'Connected')
      assert.equal(page.url(), base)
      const id = await start(page, 'process', { steps: 3, delay: 1 })
      await state(page, 'ok')
      assert.equal(page.url(), `${base}?run=${id}`)

      await page.click('#new')
      await page.click('#sample') // an upload, and a run that produces a file
      await page.locator('#file[href]').waitFor()
      const [download] = await Promise.all([page.waitForEvent('download'), page.click('#file')])
      assert.match(readFileSync(await download.path(), 'utf8'), /^\{/)
      await page.reload()
      await state(page, 'ok')

      // Another person follows a link, and one to what is no page: the token leads to where it belongs.
      for (const link of [`?run=${id}`, `tasks/${id}/log`]) {
        const other = await openPage(t, browser!, base + link, { ignoreHTTPSErrors: true })
        await other.fill('[name=token]', TOKEN)
        await other.click('button')
        await sees(other, 'Connected')
        assert.equal(other.url(), link.startsWith('?') ? base + link : base)
      }
      const [cookie] = await page.context().cookies()
      assert.deepEqual([cookie!.path, cookie!.secure, cookie!.httpOnly], [path.replace(/(.)\/$/, '$1'), true, true])
      assert.ok(asked.length > 20)
      assert.deepEqual(asked.filter(url => !url.startsWith(base)), [])
      assert.equal(readFileSync(elsewhere!, 'utf8'), '', 'nothing of it has reached the other application')
    })
  })
}

test('neither the token nor a key stands in its logs, whatever becomes of the request', { skip }, async () => {
  const call = JSON.stringify({ method: 'process', args: [1, 0] })
  const headers = { Authorization: `Bearer ${TOKEN}`, ...JSON_TYPE }
  const { id, key } = JSON.parse((await ask(tls(FORMS[0]!.name), 'POST', '/tasks', { Host: FORMS[0]!.name, ...headers }, call)).body)
  const paths = [`?token=${encodeURIComponent(TOKEN)}`, `?token=${TOKEN}`, `tasks/${id}/log?key=${key}`, `log?run=${id}&key=${key}`, `nothing?key=${key}`]
  const visitAll = async () => {
    for (const { name, path } of FORMS) {
      for (const target of paths) await ask(tls(name), 'GET', path + target, { Host: name, Referer: `https://${name}${path}${target}` })
    }
    await ask(tls('app.example.org'), 'GET', `/longrun?token=${TOKEN}`, { Host: 'app.example.org' })
  }
  await visitAll()
  await app.kill('server')
  await visitAll() // 502
  await app.startServer()
  const logs = [elsewhere!, ...['access.log', 'error.log'].map(name => join(folder, name))].map(path => readFileSync(path, 'utf8'))
  assert.match(logs[1]!, new RegExp(`"GET /longrun/tasks/${id}/log HTTP/1.1" 200 `))
  assert.match(logs[1]!, /"GET \/longrun\/ HTTP\/1.1" 502 /)
  for (const secret of [TOKEN, encodeURIComponent(TOKEN), key]) assert.ok(![...logs, ...said].join('').includes(secret), secret)
})

test('the path without its slash leads to the page', { skip }, async () => {
  const { status, headers } = await ask(tls('app.example.org'), 'GET', '/longrun', { Host: 'app.example.org' })
  assert.equal(status, 301)
  assert.equal(new URL(headers.location!).pathname, '/longrun/')
})

test('health probes need neither the token nor a Host of ours, directly and through nginx', { skip }, async t => {
  const nginxAt = ['--cacert', certificate!, '--connect-to', `::${address.host}:${address.port}`]
  const probes = [
    [], ['-H', 'Host:'], ['-0', '-H', 'Host:'], ['-H', 'Host: balancer'], ['-I', '-H', 'Host: 10.0.0.7:80'],
    ['-H', 'Origin: https://evil.example'],
  ].map(how => [...how, `${app.url}/health`])
  for (const { name, path } of FORMS) probes.push([...nginxAt, `https://${name}${path}health`])
  for (const probe of probes) assert.equal(await curl(...probe), '200 0', probe.join(' '))
  await app.kill('workers')
  t.after(() => app.startWorkers())
  for (const probe of probes) await until(async () => await curl(...probe) === '503 0')
})

// ---- What the tests need

/** Where nginx is, for who asks for this name. */
const tls = (name: string) => ({ ...address, protocol: 'https:', servername: name, ca: readFileSync(certificate!) })

/** The status of the answer, and the size of its body. */
async function curl(...args: string[]): Promise<string> {
  const format = ['-s', '-o', join(folder, 'body'), '-w', '%{http_code} %{size_download}']
  return (await promisify(execFile)('curl', [...format, ...args])).stdout
}

/** Starts nginx with both blocks, each in its place; resolves, when it is ready, with what ends it. */
async function startNginx() {
  const [own, below] = readmeBlocks('nginx').map(block => block
    .replace(/(ssl_certificate\s+)\S+;/, `$1${certificate};`).replace(/(ssl_certificate_key\s+)\S+;/, `$1${key};`)
    .replace('listen 443 ssl;', `listen ${address.host}:${address.port} ssl;`)
    .replaceAll('/var/log/nginx', folder).replaceAll('http://127.0.0.1:8080', `http://127.0.0.1:${port(app)}`))
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map(name => `${name}_temp_path ${folder}/${name};`)
  const user = process.getuid?.() === 0 ? 'user root;' : '' // its workers must reach this folder
  writeFileSync(elsewhere!, '')
  writeFileSync(join(folder, 'nginx.conf'), `
    daemon off; ${user} pid ${folder}/pid; error_log stderr notice; events {}
    http {
      access_log off;
      ${temporary.join('\n')}
      ${own}
      server {
        listen ${address.host}:${address.port} ssl;
        server_name app.example.org;
        ssl_certificate ${certificate};
        ssl_certificate_key ${key};
        location / { access_log ${elsewhere}; return 404; } # the other application
        ${below}
      }
    }`)
  const proxy = spawn(nginx!, ['-p', folder, '-c', join(folder, 'nginx.conf')], { stdio: ['ignore', 'ignore', 'pipe'] })
  process.once('exit', () => proxy.kill()) // when this file is ended by its time-out
  const exited = once(proxy, 'exit')
  const lines: string[] = []
  for await (const line of createInterface(proxy.stderr)) {
    lines.push(line)
    if (line.includes('start worker process')) break
  }
  assert.match(lines.at(-1)!, /start worker process/, lines.join('\n'))
  proxy.stderr.on('data', text => said.push(String(text)))
  return async () => {
    proxy.kill('SIGTERM')
    await exited
  }
}
