// Who gets in, and what becomes of those who try: each test attacks the running system as an outsider would, and
// the next honest request is served all the same.

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { readdirSync, readFileSync, statSync, symlinkSync, watch, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { WebSocket } from 'ws'
import { Dealer, Publisher, Request } from 'zeromq'
import {
  app, CALL, collect, converse, cookieName, exchange, frame, guarded, honest, hostLine, JSON_TYPE, MAX_UPLOAD, NAME,
  rawOf, runsOf, statuses, TOKEN, upgradeHead,
} from './access.ts'
import { App, ask, port, ROOT, startServer, UPGRADE } from './app.ts'

// These take as long as the server's patience: begun here, looked at last.
const post = `POST /tasks HTTP/1.1\r\n${hostLine(app)}Content-Type: application/json\r\n`
const slow = [
  '', 'GET / HT', `GET / HTTP/1.1\r\n${hostLine(app)}X: `, `${post}Content-Length: 100\r\n\r\n{`,
  `${post}Transfer-Encoding: chunked\r\n\r\n5\r\n{`, `PUT / HTTP/1.1\r\n${hostLine(app)}Content-Length: 100\r\n\r\n{`,
].map(begun => exchange(app, begun))

// ---- Foreign pages

test('a page of another origin can neither read, nor post, nor open the WebSocket', async () => {
  const own = port(app)
  const foreign = [
    'http://evil.example', `http://evil.example:${own}`, 'null', '', 'file://', 'chrome-extension://abc', 'http://127.0.0.1',
    `http://127.0.0.1:${own + 1}`, `http://127.0.0.1:${own}1`, `http://evil.example@127.0.0.1:${own}`,
    `http://127.0.0.1:${own}@evil.example`, `http://127.0.0.1.:${own}`, `http://localhost.evil.example:${own}`,
    `http://2130706433:${own}`, `http://0x7f000001:${own}`, `http://127.1:${own}`, `http://127.0.0.2:${own}`,
    `http://[::ffff:127.0.0.1]:${own}`, `http://127.0.0.1:${own}/`, `http://127.0.0.1:${own} http://evil.example`,
    `ftp://127.0.0.1:${own}`, `127.0.0.1:${own}`, '*', '__proto__',
  ]
  for (const Origin of foreign) {
    const answers = await Promise.all([
      ask(app, 'GET', '/', { Origin }), ask(app, 'GET', '/tasks', { Origin }), ask(app, 'GET', '/tasks/a/log', { Origin }),
      ask(app, 'POST', '/tasks', { Origin, ...JSON_TYPE }, CALL), ask(app, 'OPTIONS', '/tasks', { Origin }),
      ask(app, 'POST', '/files', { Origin }, 'x'), ask(app, 'DELETE', '/tasks/a', { Origin }),
    ])
    assert.deepEqual(answers.map(({ status }) => status), Array(7).fill(403), Origin)
    for (const { about, headers } of answers) {
      const isOfRun = about.includes('/tasks/a') // which keys open: such a refusal may be read, there is nothing else in it
      const cors = Object.entries(headers).filter(([name]) => name.startsWith('access-control'))
      assert.deepEqual(cors, isOfRun ? [['access-control-allow-origin', '*']] : [], about)
    }
  }
  const twice = await exchange(app, `GET /tasks HTTP/1.1\r\n${hostLine(app)}Origin: http://127.0.0.1:${own}\r\nOrigin: http://evil.example\r\nConnection: close\r\n\r\n`)
  assert.deepEqual(statuses(twice), [403])
  assert.deepEqual(await runsOf(app), [], 'nothing was started')
})

test('a name of another is no name of this server, which defeats DNS rebinding', async () => {
  const own = port(app)
  const foreign = [
    'evil.example', `evil.example:${own}`, '127.0.0.1', 'localhost', `127.0.0.1:${own + 1}`, `127.0.0.1:0${own}`, `localhost.:${own}`,
    `user@127.0.0.1:${own}`, `127.0.0.1:${own}.evil.example`, `127.1:${own}`, `0.0.0.0:${own}`, `[::ffff:7f00:1]:${own}`, `::1:${own}`,
    `http://127.0.0.1:${own}`, `127.0.0.1:${own}/`, `127.0.0.1:${own}, evil.example`, ' ', '[', ':', `:${own}`, '__proto__', 'constructor',
  ]
  for (const Host of foreign) {
    const answers = await Promise.all([ask(app, 'GET', '/', { Host }), ask(app, 'POST', '/tasks', { Host, ...JSON_TYPE }, CALL), ask(app, 'GET', '/log', { Host, ...UPGRADE })])
    assert.deepEqual(answers.map(({ status }) => status), [403, 403, 403], Host)
  }
  assert.deepEqual(statuses(await exchange(app, 'GET / HTTP/1.1\r\nConnection: close\r\n\r\n')), [400], 'no Host')
  assert.deepEqual(statuses(await exchange(app, 'GET / HTTP/1.0\r\n\r\n')), [400], 'no Host, in HTTP/1.0')
  for (const both of [`${hostLine(app)}Host: evil.example\r\n`, `Host: evil.example\r\n${hostLine(app)}`, hostLine(app) + hostLine(app)]) {
    assert.deepEqual(statuses(await exchange(app, `GET / HTTP/1.1\r\n${both}Connection: close\r\n\r\n`)), [403], both)
  }
})

test('the own names are let in, in any spelling, and with https behind a proxy', async () => {
  for (const name of [`127.0.0.1:${port(app)}`, `localhost:${port(app)}`, `LocalHost:${port(app)}`, `[::1]:${port(app)}`]) {
    assert.equal((await ask(app, 'GET', '/tasks', { Host: name, Origin: `http://${name.toLowerCase()}` })).status, 200, name)
    assert.equal((await ask(app, 'GET', '/log', { Host: name, Origin: `http://${name.toLowerCase()}`, ...UPGRADE })).status, 101, name)
  }
  for (const name of [NAME, 'other.example.org']) {
    const headers = { Host: name, Origin: `https://${name}`, Authorization: `Bearer ${TOKEN}` }
    assert.equal((await ask(guarded, 'GET', '/tasks', headers)).status, 200, name)
    assert.equal((await ask(guarded, 'GET', '/log', { ...headers, ...UPGRADE })).status, 101, name)
    assert.equal((await ask(guarded, 'GET', '/tasks', { ...headers, Origin: `https://${name}.evil.example` })).status, 403, name)
  }
})

test('what a form or a script without leave can post starts nothing: it must be application/json', async () => {
  const types = [
    undefined, '', 'text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x', 'application/jsonx',
    'text/plain; application/json', 'application/json, text/plain', 'application/ json', 'text/json',
  ]
  for (const type of types) {
    const { status } = await ask(app, 'POST', '/tasks', type === undefined ? {} : { 'Content-Type': type }, CALL)
    assert.equal(status, 415, type)
  }
  assert.equal((await ask(app, 'POST', '/files', { 'Content-Type': 'multipart/form-data; boundary=x' }, 'x')).status, 415)
  assert.deepEqual(await runsOf(app), [], 'nothing was started')
})

test('a page of another origin is told that it is refused: its WebSocket is closed with 4403, and nothing is read', async () => {
  const run = await app.start('process', [2, 0])
  await run.outcome()
  const own = port(app)
  for (const [Origin, Host] of [['http://evil.example'], ['null'], [`http://127.0.0.1:${own + 1}`], [`http://127.0.0.1:${own}`, 'evil.example']]) {
    for (const query of ['', `?run=${run.id}`, `?run=${run.id}&key=x`]) {
      const socket = new WebSocket(`ws://127.0.0.1:${own}/log${query}`, { headers: { Origin, ...Host && { Host } } })
      let messages = 0
      socket.on('message', () => { messages++ }).on('open', () => {
        for (const text of [`{"start":"${run.id}"}`, 'x'.repeat(10), Buffer.alloc(2 ** 17)]) socket.send(text)
        rawOf(socket).write(frame(3, Buffer.from('no such opcode'), 0xf0))
      })
      const [code, reason] = await once(socket.on('error', () => {}), 'close')
      assert.deepEqual([code, String(reason), messages], [4403, 'pages of this origin are refused: see ALLOWED_ORIGINS and ALLOWED_HOSTS', 0])
    }
  }
  await honest()
})

// ---- Other machines, other users

test('without a token it listens for this machine alone, and refuses to listen for others', async () => {
  const outside = Object.values(networkInterfaces()).flat().filter(found => found && !found.internal && found.family === 'IPv4')
  for (const found of outside) await assert.rejects(once(connect(port(app), found!.address), 'connect'), /ECONNREFUSED/)
  await Promise.all([
    ...['0.0.0.0', '127.evil.example'].map(HOST =>
      assert.rejects(startServer('server.ts', { ...app.env, HOST }), /reached from other machines: set TOKEN/, HOST)),
    assert.rejects(startServer('server.ts', { ...app.env, TOKEN: 'with a line\nbreak' }), /TOKEN may have/),
  ])
})

test('with a token, nothing is given to who does not have it, not even the page', async () => {
  const paths = ['/', '/index.html', '/app.js', '/tasks', '/methods', '/tasks/a/log', '/tasks/a/log.ndjson', '/files/a.txt', '/nothing']
  for (const path of paths) assert.equal((await ask(guarded, 'GET', path)).status, 401, path)
  assert.equal((await ask(guarded, 'POST', '/tasks', JSON_TYPE, CALL)).status, 401)
  assert.equal((await ask(guarded, 'POST', '/files', {}, 'x')).status, 401)
  assert.equal((await ask(guarded, 'DELETE', '/tasks/a')).status, 401)
  const upgrade = await ask(guarded, 'GET', '/log', UPGRADE)
  assert.equal(upgrade.status, 401)
  assert.equal(upgrade.headers['www-authenticate'], 'Bearer')

  const cookie = await cookieName()
  const wrong = [
    '', 'x', TOKEN.slice(0, -1), `${TOKEN}x`, ` ${TOKEN}`, TOKEN.toLowerCase(), 'undefined', 'null', '*', encodeURIComponent(TOKEN), `${TOKEN},${TOKEN}`,
  ]
  for (const token of wrong) {
    const tries = [
      { Authorization: `Bearer ${token}` }, { Cookie: `${cookie}=${token}` }, { Cookie: `x=1; ${cookie}=${token}` }, { Cookie: `x${cookie}=${TOKEN}` },
      { Cookie: `longrun=${TOKEN}` }, { Cookie: `${cookie}x=${TOKEN}` }, { Cookie: `x=${cookie}=${TOKEN}` },
      { Authorization: `Basic ${Buffer.from(`longrun:${TOKEN}`).toString('base64')}` }, { Authorization: TOKEN }, { 'X-Token': TOKEN },
    ]
    const answers = await Promise.all([...tries.map(headers => ask(guarded, 'GET', '/tasks', headers)), ask(guarded, 'GET', `/?token=${encodeURIComponent(token)}`)])
    assert.deepEqual(answers.map(({ status }) => status), Array(tries.length + 1).fill(401), token)
  }
  const twice = `Authorization: Bearer ${TOKEN}\r\nAuthorization: Bearer ${TOKEN}\r\n`
  assert.deepEqual(statuses(await exchange(guarded, `GET /tasks HTTP/1.1\r\n${hostLine(guarded)}${twice}Connection: close\r\n\r\n`)), [401])
  for (const path of [`/tasks?token=${TOKEN}`, `//?token=${TOKEN}`, `/index.html?token=${TOKEN}`]) {
    assert.equal((await ask(guarded, 'GET', path)).status, 401, path)
  }
  assert.deepEqual(await runsOf(guarded), [], 'nothing was started')
})

test('a browser shows the token once, in a form, and gets a cookie that no script and no other site can use', async () => {
  const form = await ask(guarded, 'GET', '/', { Accept: 'text/html,*/*' })
  assert.equal(form.status, 401)
  assert.match(form.body, /<input[^>]+name="token"/)
  assert.doesNotMatch(form.body, /This is not the token/)
  assert.match((await ask(guarded, 'GET', '/?token=wrong', { Accept: 'text/html' })).body, /<input[^>]+name="token"[^]*This is not the token/)

  const entered = await ask(guarded, 'GET', `/?run=a%26b&token=${encodeURIComponent(TOKEN)}&line=3`)
  assert.equal(entered.status, 303)
  assert.equal(entered.headers.location, './?run=a%26b&line=3')
  const name = await cookieName()
  assert.deepEqual(entered.headers['set-cookie'], [`${name}=${TOKEN}; HttpOnly; SameSite=Strict`])
  const typed = await ask(guarded, 'GET', `/?token=${TOKEN}`) // its + as it is, which stands for a blank there
  assert.deepEqual([typed.status, typed.headers.location], [303, './'])
  for (const [proto, isSecure] of [
    ['https', true], ['HTTPS', true], ['https, http', true], [' Https ,http,http', true], ['https,https', true],
    ['http', false], ['http, https', false], ['', false], ['httpsx', false],
  ] as const) {
    const proxied = await ask(guarded, 'GET', `/?token=${encodeURIComponent(TOKEN)}`, { Host: NAME, 'X-Forwarded-Proto': proto })
    assert.equal(String(proxied.headers['set-cookie']).endsWith('; Secure'), isSecure, String(proto))
  }
  assert.equal((await ask(guarded, 'GET', `/?token=${encodeURIComponent(TOKEN)}`, { Host: 'evil.example' })).status, 403)

  const Cookie = `theme=dark; ${name}=${TOKEN}`
  assert.equal((await ask(guarded, 'GET', '/', { Cookie })).status, 200)
  assert.equal((await ask(guarded, 'GET', '/log', { Cookie, ...UPGRADE })).status, 101)
  assert.equal((await ask(guarded, 'POST', '/tasks', { Cookie, ...JSON_TYPE, Origin: 'http://evil.example' }, CALL)).status, 403)
  const foreign = await guarded.connect({ Cookie, Origin: `http://127.0.0.1:${port(guarded) + 1}` })
  assert.equal((await once(foreign, 'close'))[0], 4403)
})

test('two servers on one host do not log each other out: a browser keeps the cookies of both, and sends both to both', async t => {
  const other = new App({ SPARES: '0', TOKEN: `${TOKEN}-of-another` })
  t.after(() => other.end())
  await other.startServer()
  const jar = new Map<string, string>() // of a browser: cookies know no ports
  const visit = async (app: App, path: string) => {
    const answer = await ask(app, 'GET', path, { Cookie: [...jar].map(pair => pair.join('=')).join('; ') })
    const [name, value] = answer.headers['set-cookie']?.[0]!.split(';')[0]!.split(/=(.*)/s) ?? []
    if (name) jar.set(name, value!)
    return answer.status
  }
  assert.equal(await visit(guarded, `/?token=${encodeURIComponent(TOKEN)}`), 303)
  assert.equal(await visit(other, '/'), 401, 'the token of one does not open the other')
  assert.equal(await visit(other, `/?token=${encodeURIComponent(TOKEN)}-of-another`), 303)
  for (const app of [guarded, other, guarded]) assert.equal(await visit(app, '/'), 200)
  assert.equal(jar.size, 2)
})

test('a task does not get the token', async () => {
  const headers = { Authorization: `Bearer ${TOKEN}`, ...JSON_TYPE }
  const started = await ask(guarded, 'POST', '/tasks', headers, JSON.stringify({ id: 'looks', method: 'environment' }))
  assert.equal(started.status, 202)
  const events = await ask(guarded, 'GET', '/tasks/looks/log?offset=-1&live=sse', headers)
  assert.match(events.body, /"outcome":"ok",.*"result":\["/)
  assert.doesNotMatch(events.body, /"TOKEN"/)
  const waits = JSON.parse((await ask(guarded, 'POST', '/tasks', headers, JSON.stringify({ id: 'waits', method: 'polite' }))).body)
  assert.ok(!readFileSync(`/proc/${waits.pid}/environ`, 'utf8').includes(TOKEN))
  await ask(guarded, 'DELETE', '/tasks/waits', headers)
  await ask(guarded, 'GET', '/tasks/waits/log?offset=-1&live=sse', headers) // ends with the run
  assert.ok(![...guarded.server.output, ...guarded.workers.output].join('\n').includes(TOKEN), 'nor is it printed')
})

test('logs, uploads and sockets are for the own user alone', async () => {
  const run = await app.start('produce', [3])
  await run.outcome()
  const upload = await app.upload('x')
  const mode = (...path: string[]) => (statSync(join(app.runs, ...path)).mode & 0o777).toString(8)
  assert.deepEqual([mode(), mode('uploads'), mode('files')], ['700', '700', '700'])
  assert.deepEqual([mode(`${run.id}.ndjson`), mode('uploads', upload), mode('files', `${run.id}.txt`)], ['600', '600', '600'])
  for (const name of ['rep.sock', 'xsub.sock', 'xpub.sock']) assert.match(mode(name), /00$/, name)
})

test('a second web server on the same port says so, and the first is unharmed', async () => {
  const second = startServer('server.ts', { ...app.env, PORT: String(port(app)) })
  await assert.rejects(second, /cannot listen on 127.0.0.1:\d+: .*EADDRINUSE.*; set PORT to another/)
  await honest()
})

// ---- Other runs

test('a follower of one run gets nothing of another whose id begins the same, nor everything by the empty id', async () => {
  const seen: { id?: string; error?: string }[] = []
  const socket = await app.connect()
  socket.on('message', text => seen.push(JSON.parse(String(text))))
  for (const id of ['', 'a', 'abc', '*', 'a*', 'a\0', '../a']) socket.send(JSON.stringify({ start: id }))
  const run = await app.start('flood', [2000], { id: 'ab' })
  await run.outcome()
  const own = await app.start('process', [1, 0], { id: 'a' })
  await own.outcome()
  while (!JSON.stringify(seen).includes('"done"')) await once(socket, 'message')
  socket.close()
  const ids = new Set(seen.filter(({ id, error }) => id !== undefined && !error).map(({ id }) => id))
  assert.deepEqual([...ids], ['a'])
  assert.equal(seen.filter(({ error }) => error?.startsWith('invalid id')).length, 5)
  for (const path of ['/tasks//log', '/tasks//log.ndjson', '/tasks/*/log']) assert.equal((await ask(app, 'GET', path)).status, 404, path)
})

test('whoever can publish can publish rubbish, and the readers of runs do not notice', async () => {
  const socket = new Publisher({ linger: 0 })
  socket.connect(`ipc://${app.runs}/xsub.sock`)
  const run = await app.start('process', [30, 20], { id: 'disturbed' })
  await run.reader.until(({ entries }) => entries.length > 0) // who is there first with a position is believed
  const rubbish: (string | Buffer)[][] = [
    [''], ['disturbed'], ['disturbed', '0'], ['disturbed', '0', 'no line break'], ['disturbed', '-1', '\n'], ['disturbed', 'NaN', '\n'],
    ['disturbed', '1e99', '\n'], ['disturbed', '0', '{}\n', 'more'], ['disturbed', String(2 ** 52), ''], ['disturb', '0', '\n'],
    ['disturbed', '99999999', '{"forged":true}\n'], [Buffer.alloc(10_000), Buffer.alloc(10_000), Buffer.alloc(10_000)], ['disturbed', '0', '\n'],
  ]
  while (!run.reader.isDone) {
    for (const frames of rubbish) await socket.send(frames)
    const seen = run.reader.entries.length
    await run.reader.until(({ isDone, entries }) => isDone || entries.length > seen)
  }
  socket.close()
  assert.equal((await run.outcome()).outcome, 'ok')
})

test('names that every object has are run ids like others, and methods like none', async () => {
  for (const id of ['__proto__', 'constructor']) {
    const run = await app.start('process', [2, 0], { id })
    assert.equal((await run.outcome()).outcome, 'ok', id)
    assert.equal((await ask(app, 'GET', `/tasks/${id}/log.ndjson`)).body, run.log())
    assert.ok((await runsOf(app)).includes(id))
    const { status } = await ask(app, 'POST', '/tasks', JSON_TYPE, JSON.stringify({ method: id }))
    assert.equal(status, 404, id)
  }
  for (const method of ['unmarked', 'default', 'remote', 'Task', 'RunLog', 'list', 'read', 'ping', '../tasks', 'process\0', '']) {
    const { status, body } = await ask(app, 'POST', '/tasks', JSON_TYPE, JSON.stringify({ method }))
    assert.ok(status === 404 || status === 400, `${method}: ${status} ${body}`)
  }
  for (const id of ['', '.', '..', 'a/b', '../a', 'a.b', 'ä', 'a\0', 'a'.repeat(65), null, 1, {}, ['a'], { toString: 1 }]) {
    const { status } = await ask(app, 'POST', '/tasks', JSON_TYPE, JSON.stringify({ method: 'process', id }))
    assert.equal(status, 400, String(JSON.stringify(id)))
  }
})

// ---- Paths and files

test('no path leads anywhere but to the page and the API', async () => {
  const paths = [
    '/%', '/%00', '//', '///', '/..', '/../server.ts', '/..%2fserver.ts', '/%2e%2e/server.ts', '/..%5cserver.ts', '/..\\server.ts',
    '/.', '/./index.html', '//index.html', '/index.html/', '/index.html%00', '/index.html.', '/INDEX.HTML', '/index.html;x', '/public/index.html',
    '/server.ts', '/package.json', '/.git/config', '/__proto__', '/constructor', '/toString', '*', 'index.html', '?', '#', '/#', '',
    '//evil.example/', '/\\evil.example', 'http:', `http://127.0.0.1:${port(app) + 1}/`, 'http://evil.example/',
    `http://localhost:${port(app)}/`, `http://x@127.0.0.1:${port(app)}/`, `https://127.0.0.1:${port(app)}/`, `/http://127.0.0.1:${port(app)}/`, 'file:///etc/passwd',
    '/files/', '/files/..', '/files/../a.ndjson', '/files/..%2fa.ndjson', '/files/.htaccess', '/files/a', '/files/a.part', '/files/a.b.c',
    '/files/a.TXT', '/files/a.txt/', '/files/%61.txt', '/tasks/../log', '/tasks/a/../b/log', '/tasks/a%2fb/log', '/tasks/a/log/',
    '/tasks/a.ndjson', `/tasks/${'a'.repeat(65)}/log`, '/uploads/a', '/runs/a.ndjson', `/${'a'.repeat(10_000)}`, '/log', '/\u00e9',
  ]
  for (const path of paths) {
    const answer = await exchange(app, `GET ${path} HTTP/1.1\r\n${hostLine(app)}Connection: close\r\n\r\n`)
    assert.match(answer, /^HTTP\/1.1 40[04] /, path)
    assert.doesNotMatch(answer, /longrun<\/title>|root:/, path)
  }
  const own = `//127.0.0.1:${port(app)}` // as a proxy is asked
  for (const [whole, body] of [[`http:${own}/tasks?callId=http:${own}/`, /\r\n\[\]$/], [`HTTP:${own}/tasks?limit=0`, /\r\n\[\]$/], [`http:${own}?a`, /<\/html>\n$/]] as const) {
    const answer = await exchange(app, `GET ${whole} HTTP/1.1\r\n${hostLine(app)}Connection: close\r\n\r\n`)
    assert.deepEqual([statuses(answer), body.test(answer)], [[200], true], whole)
  }
  assert.deepEqual(statuses(await exchange(app, 'GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n')), [403])
  await honest()
})

test('files are only given as attachments, and only those that runs produced', async () => {
  const run = await app.start('produce', [10])
  await run.outcome()
  const upload = await app.upload('<script>alert(1)</script>')
  const files = join(app.runs, 'files')
  for (const name of ['page.html', 'image.svg']) writeFileSync(join(files, name), '<script>alert(1)</script>')
  writeFileSync(join(files, 'half.part'), 'x')
  symlinkSync('/etc/passwd', join(files, 'passwd.txt'))
  symlinkSync(join(app.runs, `${run.id}.ndjson`), join(files, 'log.txt'))

  for (const name of [`${run.id}.txt`, 'page.html', 'image.svg']) {
    const { status, headers } = await ask(app, 'GET', `/files/${name}`)
    assert.equal(status, 200)
    assert.equal(headers['content-type'], 'application/octet-stream')
    assert.equal(headers['content-disposition'], `attachment; filename="${name}"`)
  }
  const log = await ask(app, 'GET', `/tasks/${run.id}/log.ndjson`)
  assert.equal(log.headers['content-type'], 'application/x-ndjson')
  assert.equal(log.headers['content-disposition'], `attachment; filename="${run.id}.ndjson"`)
  for (const name of ['half.part', 'passwd.txt', 'log.txt', upload, `${upload}.part`, `${run.id}.ndjson`]) {
    assert.equal((await ask(app, 'GET', `/files/${name}`)).status, 404, name)
  }
})

test('an upload that breaks off, or is too large, leaves no file', async () => {
  const uploads = join(app.runs, 'uploads')
  const before = readdirSync(uploads)
  const changes = watch(uploads)
  for (const length of [`Content-Length: ${MAX_UPLOAD}`, 'Transfer-Encoding: chunked']) {
    const socket = connect(port(app), '127.0.0.1').on('error', () => {})
    socket.write(`POST /files HTTP/1.1\r\n${hostLine(app)}${length}\r\n\r\n1000\r\n${'x'.repeat(2000)}`)
    while (readdirSync(uploads).length === before.length) await once(changes, 'change')
    socket.resetAndDestroy()
    while (readdirSync(uploads).length > before.length) await once(changes, 'change')
  }
  changes.close()
  // The client is still sending when the refusal comes, and must be able to read it.
  for (let round = 0; round < 5; round++) {
    assert.equal((await app.request('POST', '/files', Buffer.alloc(100 * MAX_UPLOAD))).status, 413)
  }
  const chunks = `${(MAX_UPLOAD / 2).toString(16)}\r\n${'x'.repeat(MAX_UPLOAD / 2)}\r\n`.repeat(3)
  assert.deepEqual(statuses(await exchange(app, `POST /files HTTP/1.1\r\n${hostLine(app)}Transfer-Encoding: chunked\r\n\r\n${chunks}`)), [413])
  assert.deepEqual(readdirSync(uploads), before)
  assert.equal(statSync(join(uploads, await app.upload('x'.repeat(MAX_UPLOAD)))).size, MAX_UPLOAD)
})

// ---- HTTP

test('every answer forbids what could make a page of it, and tells nobody where it came from', async () => {
  const run = await app.start('produce', [1])
  await run.outcome()
  const large = Buffer.alloc(2 ** 21)
  const answers = await Promise.all([
    ask(app, 'GET', '/'), ask(app, 'HEAD', '/'), ask(app, 'GET', '/app.js'), ask(app, 'GET', '/methods'), ask(app, 'GET', '/tasks'),
    ask(app, 'GET', '/health'), ask(app, 'GET', `/tasks/${run.id}/log.ndjson`), ask(app, 'GET', `/files/${run.id}.txt`),
    ...['', '?offset=-1&live=long-poll', '?offset=-1&live=sse', '?offset=7'].map(query => ask(app, 'GET', `/tasks/${run.id}/log${query}`)),
    ask(guarded, 'GET', '/health'), ask(guarded, 'GET', '/follow.js'), ask(guarded, 'GET', '/longrun-run.js'), ask(app, 'GET', `/files/${run.id}.txt`, { Range: 'bytes=9-' }),
    ask(app, 'GET', '/nothing'), ask(app, 'PUT', '/tasks'), ask(app, 'POST', '/tasks', {}, CALL), ask(app, 'POST', '/tasks', JSON_TYPE, '{'),
    ask(app, 'POST', '/tasks', JSON_TYPE, large), ask(app, 'POST', '/files', {}, large), ask(app, 'DELETE', `/tasks/${run.id}`), ask(app, 'GET', '/tasks/x/log'),
    ask(app, 'POST', '/tasks', JSON_TYPE, JSON.stringify({ method: 'process', id: run.id })), ask(app, 'GET', '/', { Host: 'evil.example' }),
    ask(guarded, 'GET', '/'), ask(guarded, 'GET', '/', { Accept: 'text/html' }), ask(guarded, 'GET', `/?token=${encodeURIComponent(TOKEN)}`),
    ask(app, 'GET', '/elsewhere', UPGRADE), ask(app, 'GET', '/tasks', { Origin: 'http://evil.example' }), ask(guarded, 'GET', '/log', UPGRADE),
    ask(app, 'GET', '/log', { ...UPGRADE, 'Sec-WebSocket-Key': 'x' }), ask(app, 'GET', '/log', { ...UPGRADE, 'Sec-WebSocket-Version': '1' }),
    ask(app, 'POST', '/log', UPGRADE), ask(app, 'GET', '/log', { ...UPGRADE, Upgrade: 'h2c' }), ask(app, 'GET', '/', { 'X-Long': 'x'.repeat(20_000) }),
    ask(app, 'GET', '/', { Expect: 'the-unexpected' }), ask(app, 'GET', '/', { 'If-None-Match': '*' }),
  ])
  const seen = new Set(answers.map(({ status }) => status))
  assert.deepEqual([...seen].sort((a, b) => a - b), [200, 303, 304, 400, 401, 403, 404, 405, 409, 413, 415, 416, 431])
  for (const { status, headers, about } of answers) {
    const policy = String(headers['content-security-policy'])
    assert.match(policy, /default-src 'none'.*script-src 'self';.*frame-ancestors 'none'/, `${about} ${status}`)
    assert.doesNotMatch(policy, /unsafe|\*|http/)
    assert.equal(headers['x-content-type-options'], 'nosniff', about)
    assert.equal(headers['x-frame-options'], 'DENY', about)
    assert.equal(headers['referrer-policy'], 'no-referrer', about)
    assert.equal(headers['cross-origin-resource-policy'], /\/(follow|longrun-run)\.js$/.test(about) ? 'cross-origin' : 'same-origin', about)
    assert.match(String(headers['cache-control']), /^(private, )?no-(store|cache)$/, about)
    assert.equal(headers.vary, 'Origin', about)
    assert.equal(headers.server ?? headers['x-powered-by'], undefined, about)
  }
})

test('the page holds nothing that the policy forbids, and writes no text as markup', () => {
  const folder = join(ROOT, 'public')
  for (const name of readdirSync(folder)) {
    const text = readFileSync(join(folder, name), 'utf8')
    if (name.endsWith('.html')) assert.doesNotMatch(text, /<script(?![^>]*\ssrc=)|<style|\sstyle=|\son[a-z]+=|javascript:|(src|href)="(https?:)?\/\//, name)
    if (name.endsWith('.svg')) assert.doesNotMatch(text, /<script|\son[a-z]+=|javascript:/, name)
    if (name.endsWith('.js')) assert.doesNotMatch(text, /innerHTML|outerHTML|insertAdjacentHTML|document\.write|srcdoc|\beval\(|new Function|DOMParser/, name)
  }
})

test('only the methods that a path has are answered, and none grants anything to other sites', async () => {
  const headers = { 'Access-Control-Request-Method': 'POST', 'X-HTTP-Method-Override': 'DELETE' }
  for (const [method, path, status, allow] of [
    ['OPTIONS', '/tasks', 405, 'GET, HEAD, POST'], ['OPTIONS', '*', 404], ['TRACE', '/', 405, 'GET, HEAD'], ['PUT', '/index.html', 405, 'GET, HEAD'],
    ['PATCH', '/tasks/a', 405, 'GET, HEAD, DELETE'], ['DELETE', '/', 405, 'GET, HEAD'], ['POST', '/', 405, 'GET, HEAD'], ['PROPFIND', '/', 405, 'GET, HEAD'], ['GET', '/tasks/nobody', 404],
    ['HEAD', '/tasks', 200], ['HEAD', '/', 200], ['HEAD', '/tasks/nobody', 404], ['MERGE', '/files', 405, 'POST'],
  ] as const) {
    const answer = await ask(app, method, path, { ...headers, 'X-Secret': 'echo' })
    assert.equal(answer.status, status, `${method} ${path}`)
    assert.equal(answer.headers.allow, allow, `${method} ${path}`)
    assert.doesNotMatch(JSON.stringify(answer), /access-control|echo/i)
  }
  assert.equal(await exchange(app, `CONNECT 127.0.0.1:22 HTTP/1.1\r\n${hostLine(app)}\r\n`), '')
  assert.match(await exchange(app, `HEAD /tasks HTTP/1.1\r\n${hostLine(app)}Connection: close\r\n\r\n`), /\r\n\r\n$/, 'no body')
})

test('no request hides another in its body', async () => {
  const hidden = `DELETE /tasks/hidden HTTP/1.1\r\n${hostLine(app)}\r\n`
  const post = `POST /tasks HTTP/1.1\r\n${hostLine(app)}Content-Type: text/plain\r\n`
  const shapes = [
    `${post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${hidden}`,
    `${post}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n${hidden}`,
    `${post}Content-Length: 0\r\nContent-Length: 5\r\n\r\n${hidden}`,
    `${post}Content-Length: 0, 5\r\n\r\n${hidden}`,
    `${post}Content-Length: +0\r\n\r\n${hidden}`,
    `${post}Content-Length: -1\r\n\r\n${hidden}`,
    `${post}Content-Length: 0x0\r\n\r\n${hidden}`,
    `${post}Content-Length : 0\r\n\r\n${hidden}`,
    `${post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n${hidden}`,
    `${post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n${hidden}`,
    `${post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n${hidden}`,
    `${post}Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n0\r\n\r\n${hidden}`,
    `${post}Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n${hidden}`,
    `${post}X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n${hidden}`,
    `${post}X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${hidden}`,
    `${post}Transfer-Encoding: chunked\r\n\r\n0;\n\r\n${hidden}`,
    `${post}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n${hidden}`,
    `${post}Transfer-Encoding: chunked\r\n\r\n1;${'x'.repeat(20_000)}\r\na\r\n0\r\n\r\n${hidden}`,
    `${post}Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n${hidden}`,
    `GET / HTTP/1.1\r\n${hostLine(app)}Content-Length: ${hidden.length}\r\n\r\n${hidden}`.replace('GET /', 'GET /nothing'),
    `GET /nothing HTTP/1.1\n${hostLine(app)}\n${hidden}`,
    `GET /nothing HTTP/1.1\r\n${hostLine(app)}X\0: y\r\n\r\n${hidden}`,
    `GET /nothing HTTP/1.1\r\n${hostLine(app)}no colon\r\n\r\n${hidden}`,
    `GET /nothing HTTP/9.9\r\n${hostLine(app)}\r\n${hidden}`,
    `GET /nothing\r\n\r\n${hidden}`,
    `GET /elsewhere HTTP/1.1\r\n${hostLine(app)}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n${hidden}`,
  ]
  await Promise.all(shapes.map(async shape => {
    const answer = await exchange(app, shape + `GET /closes HTTP/1.1\r\n${hostLine(app)}Connection: close\r\n\r\n`)
    assert.doesNotMatch(answer, /unknown run hidden/, shape)
    assert.ok(statuses(answer).every(status => status >= 400), `${shape}\n${answer}`)
  }))
  await honest()
})

test('what is sent at once is answered one after the other: requests, offers, a WebSocket; rubbish ends the connection', async () => {
  const get = (path: string, headers = '') => `GET ${path} HTTP/1.1\r\n${hostLine(app)}${headers}\r\n`
  const offer = 'Connection: Upgrade\r\nUpgrade: h2c\r\n'
  const run = await app.start('process', [2, 0])
  await run.outcome()
  const log = `/tasks/${run.id}/log`
  for (const last of [get('/nowhere'), get('/nowhere', offer), upgradeHead(app).replace('/log', '/nowhere')]) {
    const requests = [get('/tasks'), get('/style.css'), get(`${log}.ndjson`), get(log, offer), get('/health'), get(`${log}?offset=7`)]
    const answer = await exchange(app, requests.join('') + last.replace('Host', 'Connection: close\r\nHost'))
    assert.deepEqual(statuses(answer), [200, 200, 200, 200, 200, 400, 404])
  }
  const opened = await converse(app, get('/tasks').repeat(2) + upgradeHead(app), /"beat"/)
  assert.deepEqual(statuses(opened), [200, 200, 101])

  const events = await exchange(app, get(`${log}?offset=-1&live=sse`) + get('/tasks'))
  assert.deepEqual(statuses(events), [200], 'a body that ends with its connection is the last')
  assert.ok(!statuses(await exchange(app, `${get('/tasks').repeat(2)}rubbish\r\n\r\n`)).includes(400))
  await honest()
})

test('huge heads and bodies are refused, and compressed ones are not unpacked', async () => {
  const lines = (count: number) => Array.from({ length: count }, (_, index) => `X${index}: y\r\n`).join('')
  const heads = [`X: ${'x'.repeat(20_000)}\r\n`, `X: ${'x'.repeat(2_000_000)}\r\n`, lines(10_000), `Cookie: ${'a=b; '.repeat(10_000)}\r\n`]
  for (const head of heads) {
    assert.match(await exchange(app, `GET / HTTP/1.1\r\n${hostLine(app)}${head}Connection: close\r\n\r\n`), /^HTTP\/1.1 431 [^]*\r\nConnection: close\r\n\r\n\{\"errors\"/)
  }
  assert.match(await exchange(app, `GET /${'a'.repeat(200_000)} HTTP/1.1\r\n${hostLine(app)}\r\n`), /^HTTP\/1.1 4/)
  assert.equal((await app.request('POST', '/tasks', Buffer.alloc(7_000_000, 'x'), { 'content-type': 'application/json' })).status, 413)
  assert.equal((await ask(app, 'POST', '/tasks', JSON_TYPE, `{"method":"text","args":${'['.repeat(500_000)}${']'.repeat(500_000)}}`)).status, 400)
  assert.equal((await ask(app, 'POST', '/tasks', { ...JSON_TYPE, 'Content-Encoding': 'gzip' }, gzipSync(Buffer.alloc(50_000_000)))).status, 400)
  for (const coding of ['Content-Encoding: gzip', 'Content-Encoding: identity, br', 'Content-Encoding: X-GZIP', 'Transfer-Encoding: gzip, chunked']) {
    const head = `POST /files HTTP/1.1\r\n${hostLine(app)}Connection: close\r\n${coding}\r\n`
    assert.deepEqual(statuses(await exchange(app, head + (/^Transfer/.test(coding) ? '\r\n1\r\nx\r\n0\r\n\r\n' : 'Content-Length: 1\r\n\r\nx'))), [400], coding)
  }
  assert.equal((await ask(app, 'POST', '/files', { 'Content-Encoding': 'Identity' }, 'x')).status, 201)
  for (const body of ['', 'null', '1', '[]', '"x"', '{', '{}', '{"method":1}', '{"method":"process","args":{}}', '{"method":"process","callId":1}',
    '{"method":"process","timeLimit":-1}', '{"method":"process","timeLimit":"1"}', '{"method":"process","timeLimit":1e99}', '{"__proto__":{"method":"process"}}',
    '\xff\xfe', '{"method":"process","callId":"\xff"}', '{"method":"process","args":[1e999,0]}', '{"method":"process","args":[1,0,0,0]}', `{"method":"${'x'.repeat(2000)}"}`, `{"method":"process","callId":"${'x'.repeat(300)}"}`]) {
    const { status } = await ask(app, 'POST', '/tasks', JSON_TYPE, Buffer.from(body, 'latin1'))
    assert.equal(status, 400, body)
  }
  await honest()
})

test('a client that reads only when it has sent everything gets its refusal', async () => {
  const part = 'x'.repeat(50_000)
  const post = (path: string) => `POST ${path} HTTP/1.1\r\n${hostLine(app)}Connection: close\r\nContent-Type: application/json\r\n`
  const [length, chunked] = ['Content-Length: 7000000\r\n\r\n', 'Transfer-Encoding: chunked\r\n\r\n']
  const chunk = `${part.length.toString(16)}\r\n${part}\r\n`
  for (const [head, piece, last, status] of [
    [`GET / HTTP/1.1\r\n${hostLine(app)}X: `, part, '', 431],
    [post('/tasks') + length, part, '', 413], [post('/tasks') + chunked, chunk, '0\r\n\r\n', 413],
    [post('/files') + length, part, '', 413], [post('/files') + chunked, chunk, '0\r\n\r\n', 413],
    [post('/nowhere') + chunked, chunk, '0\r\n\r\n', 404],
  ] as const) {
    const socket = connect(port(app), '127.0.0.1').pause()
    socket.write(head)
    for (let count = 0; count < 140; count++) if (!socket.write(piece)) await once(socket, 'drain')
    socket.write(last)
    assert.deepEqual(statuses(await text(socket)), [status], head)
  }
})

test('a client that resets its connection in the middle of anything harms nobody', async () => {
  const offer = upgradeHead(app).replace('websocket', 'h2c')
  const beginnings = [
    'G', `GET / HTTP/1.1\r\n${hostLine(app)}`, `POST /tasks HTTP/1.1\r\n${hostLine(app)}Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{`,
    `GET /health HTTP/1.1\r\n${hostLine(app)}\r\n`.repeat(20), `GET /tasks/any/log?offset=-1&live=sse HTTP/1.1\r\n${hostLine(app)}\r\n`, upgradeHead(app),
    offer, `GET /tasks HTTP/1.1\r\n${hostLine(app)}\r\n${offer}`, offer.replace('\r\n\r\n', '\r\nContent-Length: 99\r\n\r\nx'), offer.repeat(5),
    upgradeHead(app) + '\x81', upgradeHead(app).replace('/log', '/elsewhere'), `POST /files HTTP/1.1\r\n${hostLine(app)}Content-Length: 99\r\n\r\nx`,
  ]
  await Promise.all(beginnings.map(async beginning => {
    for (let round = 0; round < 5; round++) {
      const socket = connect(port(app), '127.0.0.1').on('error', () => {})
      await once(socket, 'connect')
      socket.write(beginning)
      if (round % 2) await new Promise(setImmediate)
      socket.resetAndDestroy()
    }
  }))
  await honest()
})

// ---- WebSocket

test('a malformed WebSocket message is told what is wrong, or closes its own socket with the right code', async () => {
  const nested = `${'['.repeat(30_000)}${']'.repeat(30_000)}`
  const closing: [bytes: Buffer, code: number][] = [
    ...['', 'x', '{', 'null', '1', '"start"', '[]', '{}', '{"start":null}', '{"start":1}', '{"start":["a"]}', '{"start":{}}', '{"start":{"toString":1}}',
      `{"start":${nested}}`, nested, '{"start":"a","next":-1}', '{"start":"a","next":1.5}', '{"start":"a","next":"0"}', '{"start":"a","next":1e99}',
      '{"start":"a","next":null}', '{"ack":{"toString":1}}', '{"stop":{"toString":1}}', '{"stop":true}', '{"__proto__":{"start":"a"}}',
    ].map((text): [Buffer, number] => [frame(1, Buffer.from(text)), 1008]),
    [frame(2, Buffer.from('{"start":"a"}')), 1008], // binary
    [frame(1, Buffer.from([0x22, 0xff, 0xfe, 0x22])), 1007], // not UTF-8
    [frame(1, Buffer.alloc(2 ** 20, 'x')), 1009],
    [frame(1, Buffer.alloc(2 ** 16 + 1, 'x')), 1009],
    [Buffer.concat([frame(1, Buffer.alloc(60_000, 'x'), 0), frame(0, Buffer.alloc(60_000, 'x'))]), 1009], // in two parts
    [frame(1, gzipSync('x'), 0xc0), 1002], // compressed, which was not agreed on
    [frame(3, Buffer.from('x')), 1002], [frame(0, Buffer.from('x')), 1002], [frame(9, Buffer.alloc(126)), 1002], [frame(8, Buffer.from([0])), 1002],
    [Buffer.from([0x81, 0x01, 0x78]), 1002], // not masked
    [Buffer.from([0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), 1009],
    [Buffer.from('GET / HTTP/1.1\r\n\r\n'), 1002],
  ]
  for (const [bytes, code] of closing) {
    const socket = await app.connect()
    rawOf(socket).write(bytes)
    assert.equal((await once(socket, 'close'))[0], code, bytes.subarray(0, 60).toString('latin1'))
  }
  const socket = await app.connect({ 'Sec-WebSocket-Extensions': 'permessage-deflate' })
  assert.equal(socket.extensions, '', 'compression is not agreed on')
  const errors = collect(socket, message => message.error)
  for (const text of ['{"ack":"unknown","next":7}', '{"stop":"unknown"}', '{"start":"../x"}', '{"start":"early"}', '{"start":"unknown","next":9007199254740991}']) socket.send(text)
  assert.deepEqual(await errors(2), ['invalid id: 1 to 64 of A-Z a-z 0-9 _ - are allowed', 'the log of this run is gone'])
  assert.equal(socket.readyState, WebSocket.OPEN)
  socket.close()
  await honest()
})

// ---- ZeroMQ

test('a malformed request to the workers server is refused, and the next is served, thirty times out of thirty', async () => {
  const id = () => `malformed-${randomUUID()}`
  const args = (json: string | Buffer): (string | Buffer)[] => ['process', '', id(), json]
  const bad: (string | Buffer)[][] = [
    [''], ['', ''], ['', '', ''], ['', '', '', ''], ['', '', '', '', ''], Array(6).fill('x'), Array(1000).fill('x'), [Buffer.alloc(10_000_000)],
    args(Buffer.alloc(10_000_000)), args(`["${'x'.repeat(2 ** 21)}"]`), args('['.repeat(100_000)), args('['.repeat(100_000) + ']'.repeat(100_000)), args('{}'),
    args('null'), args(''), args('"x"'), args('[1,"x"]'), args('[-1]'), args('[1,0,0]'), args('\0'), args('["\0"]'), args(Buffer.from([0xff])), args('[{"toString":1}]'),
    [Buffer.from([0xff, 0xfe]), '', id(), '[]'], ['process\0', '', id(), '[]'], ['__proto__', '', id(), '[]'], ['constructor', '', id(), '[]'],
    ['toString', '', id(), '[]'], ['unmarked', '', id(), '[]'], ['process', '', '', '[]'], ['process', '', '../x', '[]'], ['process', '', 'a\0', '[]'],
    ['process', '', 'x'.repeat(65), '[]'], ['process', 'x'.repeat(257), id(), '[]'], ['process', Buffer.from([0xc3]), id(), '[]'],
    ...['-1', 'x', '1e99', 'Infinity', '0x10', '99999999', ' ', '1\0'].map(limit => ['process', '', id(), '[]', limit]),
    ...['[]', '[null]', '["nobody"]', '[{"toString":1}]', '[["a"]]', '["../x"]'].flatMap(args => [['read', '', '', args], ['cancel', '', '', args]]),
    ['read', '', '', '["a",-1]'], ['read', '', '', '["a",{"valueOf":1}]'], ['read', '', '', '["a",1]'], ['stat', '', '', '[]'], ['stat', '', '', '["a"]'],
  ]
  await app.start('process', [1, 0], { id: `base-${randomUUID()}` }).then(run => run.outcome())
  for (const frames of bad) assert.equal((await app.call(...frames))[0], '__ERROR__', String(frames.map(frame => String(frame).slice(0, 30))))
  assert.equal((await app.call('stat', '', '', '[["__proto__",null,{"toString":1},["a"],"../x"]]'))[0], '__RES__')

  for (let round = 0; round < 30; round++) {
    const dealer = new Dealer({ linger: 0 }) // no REQ: it sends frames as it likes
    dealer.connect(`ipc://${app.runs}/rep.sock`)
    for (const frames of [[''], ['x'], ['x', 'ping', '', '', '[]'], ['', ''], ['', '', 'ping'], Array(20).fill('')]) await dealer.send(frames)
    const gone = new Request({ linger: 0 }) // dies before its reply
    gone.connect(`ipc://${app.runs}/rep.sock`)
    await gone.send(['list', '', '', '[]'])
    gone.close()
    const raw = ['rep', 'xsub', 'xpub'].map(name => connect(join(app.runs, `${name}.sock`)).on('error', () => {}))
    for (const socket of raw) socket.write(round % 2 ? 'GET / HTTP/1.1\r\nHost: x\r\n\r\n' : Buffer.from(Array.from({ length: 99 }, (_, index) => index * round)))
    assert.equal((await app.call('ping', '', '', '[]'))[0], '__RES__', `round ${round}`)
    dealer.close()
    raw.forEach(socket => socket.destroy())
  }
  const [, list] = await app.call('list', '', '', '[]')
  assert.doesNotMatch(list, /malformed-/, 'none of them became a run')
  assert.deepEqual(app.workers.output.filter(line => /error/i.test(line)), [], 'and none was unforeseen')
  await honest()
})

// ---- Patience

test('a request whose head or body never comes is given up, and others are served meanwhile', async () => {
  for (const answer of await Promise.all(slow)) assert.match(answer, /^(HTTP\/1.1 4\d\d [\s\S]*)?$/)
  await honest()
})

test('an offer of another protocol opens no door: names and the token are asked for', async () => {
  const offer = { Connection: 'Upgrade', Upgrade: 'h2c' }
  assert.equal((await ask(guarded, 'GET', '/tasks', offer)).status, 401)
  assert.equal((await ask(guarded, 'GET', '/tasks', { ...offer, Authorization: `Bearer ${TOKEN}` })).status, 200)
  assert.equal((await ask(guarded, 'POST', '/tasks', { ...offer, ...JSON_TYPE }, CALL)).status, 401)
  assert.equal((await ask(app, 'POST', '/tasks', { ...offer, ...JSON_TYPE, Origin: 'http://evil.example' }, CALL)).status, 403)
  assert.equal((await ask(app, 'GET', '/', { ...offer, Host: 'evil.example' })).status, 403)
})

test('one socket can follow a thousand runs, and no more, and leaves none behind', async () => {
  const readers = async () => (await app.request('GET', '/health')).body.readers
  const before = await readers()
  const socket = await app.connect()
  const errors = collect(socket, message => message.error)
  for (let index = 0; index < 10_000; index++) socket.send(JSON.stringify({ start: `one-of-many-${index}` }))
  assert.deepEqual([...new Set(await errors(9000))], ['one socket may follow 1000 runs'])
  assert.equal(await readers(), before + 1000)
  for (let index = 0; index < 500; index++) socket.send(JSON.stringify({ stop: `one-of-many-${index}` }))
  socket.send('{"start":"!"}') // its answer comes when the others have been dealt with
  await errors(9001)
  assert.equal(await readers(), before + 500)
  socket.terminate()
  while (await readers() > before); // each question lets the server go on
  await honest()
})
