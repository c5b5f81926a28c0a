// Who gets in, continued from access.test.ts: what takes longer, or needs servers of its own again and again.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import {
  chmodSync, chownSync, cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync,
  writeFileSync,
} from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { answersOn, app, CALL, exchange, frame, honest, hostLine, statuses, upgradeHead } from './access.ts'
import { App, ask, memoryOf, missing, port, ROOT, startServer } from './app.ts'

const noDisk = process.getuid?.() === 0 ? missing('unshare') : 'not root: a disk cannot be made here'

test('a runs folder that others can reach is refused, before anything is put into it', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'longrun-test-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const make = (name: string, mode = 0o700) => {
    mkdirSync(join(folder, name))
    chmodSync(join(folder, name), mode)
    return join(folder, name)
  }
  const refuses = (file: string, RUNS: string, why: RegExp) => assert.rejects(startServer(file, { ...app.env, RUNS }), why)
  symlinkSync(make('victim'), join(folder, 'link'))
  symlinkSync(folder, join(make('inner'), 'uploads'))
  writeFileSync(join(folder, 'file'), '')
  await Promise.all([
    refuses('server.ts', join(folder, 'link'), /not a folder of its own/),
    refuses('workers.ts', make('group', 0o750), /open to other users: set RUNS to/),
    refuses('server.ts', join(folder, 'inner'), /uploads is not a folder of its own/),
    refuses('server.ts', join(folder, 'file'), /cannot create the runs folder/),
    ...['/proc/x', '/proc/self/x/y', '/dev/null/x', join(folder, 'file', 'x', 'y')].flatMap(path => ['server.ts', 'workers.ts'].map(
      file => refuses(file, path, /cannot create the runs folder.*: E[A-Z]+: .*set RUNS to/))), // where no folder can be
  ])
  assert.deepEqual(readdirSync(join(folder, 'victim')), [])
  if (process.getuid?.() !== 0) return t.diagnostic('not root: a folder of another user cannot be made here')
  chownSync(make('other'), 65534, 65534)
  await refuses('workers.ts', join(folder, 'other'), /belongs to another user/)
})

test('a runs folder on a read-only disk is refused', { skip: noDisk }, async t => {
  const folder = mkdtempSync(join(tmpdir(), 'longrun-test-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const readOnly = ['unshare', '--mount', 'sh', '-c', 'mount -t tmpfs -o ro,mode=700 none "$RUNS" && exec "$@"', 'sh']
  for (const file of ['server.ts', 'workers.ts']) {
    await assert.rejects(startServer(file, { ...app.env, RUNS: folder }, ROOT, readOnly), /runs folder.*: EROFS: .*set RUNS to/)
  }
})

test('of the folder of the page, only the files that stood in it at start are served, and no links', async t => {
  const copy = mkdtempSync(join(tmpdir(), 'longrun-test-'))
  t.after(() => rmSync(copy, { recursive: true }))
  const rooms = ['settings.ts', 'log.ts', 'protocol.ts', 'readers.ts', 'access.ts', 'connections.ts', 'streams.ts', 'server.ts'] // all it needs
  for (const name of [...rooms, 'loader.js', 'package.json', 'public']) cpSync(join(ROOT, name), join(copy, name), { recursive: true })
  symlinkSync(join(ROOT, 'node_modules'), join(copy, 'node_modules'))
  symlinkSync('/etc/passwd', join(copy, 'public', 'passwd.html'))
  symlinkSync('/etc', join(copy, 'public', 'etc.html'))
  const other = new App({}, copy)
  t.after(() => other.end())
  await other.startServer()
  const style = join(copy, 'public', 'style.css')
  const wanted = readFileSync(style, 'utf8')
  rmSync(style)
  symlinkSync('/etc/passwd', style)
  writeFileSync(join(copy, 'public', 'late.html'), 'late')
  for (const path of ['/passwd.html', '/etc.html', '/etc.html/passwd', '/late.html']) assert.equal((await ask(other, 'GET', path)).status, 404, path)
  assert.equal((await ask(other, 'GET', '/style.css')).body, wanted)
})

test('who offers another protocol than a WebSocket is answered as if he had not', async () => {
  const offers = ['h2c', 'TLS/1.0', 'h2c, websocket', 'websockets', 'HTTP/2.0, SHTTP/1.3, IRC/6.9'].map(protocol =>
    `Connection: Upgrade, HTTP2-Settings\r\nUpgrade: ${protocol}\r\nHTTP2-Settings: AAMAAABkAAQBAAAAAAIAAAAA\r\n`)
  const post = (length: string, offer: string) =>
    `POST /tasks HTTP/1.1\r\n${hostLine(app)}${offer}Content-Type: application/json\r\n${length}\r\n`
  for (const offer of offers) {
    const seen = await exchange(app, [
      `GET /methods HTTP/1.1\r\n${hostLine(app)}${offer}\r\n`,
      `HEAD /tasks HTTP/1.1\r\n${offer}${hostLine(app)}\r\n`,
      post(`Content-Length: ${CALL.length}\r\n`, offer) + CALL,
      post('Transfer-Encoding: chunked\r\n', offer) + `${CALL.length.toString(16)}\r\n${CALL}\r\n0\r\n\r\n`,
      `GET /log HTTP/1.1\r\n${hostLine(app)}${offer.replace('Upgrade,', 'Upgrade, close,')}\r\n`,
    ].join(''))
    assert.deepEqual(statuses(seen), [200, 200, 202, 202, 404], `${offer}\n${seen}`)
    const twice = post('Content-Length: 2\r\nContent-Length: 2\r\n', offer) + '{}'
    assert.deepEqual(statuses(await exchange(app, twice)), [400])
  }

  // The body comes later, in parts; then the connection goes on, with more offers than an emitter has listeners.
  const socket = connect(port(app), '127.0.0.1')
  const answer = answersOn(socket)
  socket.write(post(`Content-Length: ${CALL.length}\r\n`, offers[0]!))
  for (const part of [CALL.slice(0, 5), CALL.slice(5)]) {
    await honest() // time in which it could be answered too early
    socket.write(part)
  }
  assert.match(await answer(), /^HTTP\/1.1 202 /)
  for (let round = 0; round < 20; round++) {
    socket.write(`GET /health HTTP/1.1\r\n${hostLine(app)}${offers[round % 2]}\r\n`)
    assert.match(await answer(), /^HTTP\/1.1 200 /)
  }
  socket.write(upgradeHead(app))
  assert.match(await answer(), /^HTTP\/1.1 101 /)
  socket.destroy()
  assert.doesNotMatch(app.server.output.join('\n'), /MaxListeners/)
  await honest()
})

test('a thousand requests of a client that reads nothing take the memory of one answer, and are all answered when it reads', async () => {
  const log = await app.start('flood', [100_000])
  await log.outcome()
  const lines = log.log()
  const offsets = Array.from({ length: 300 }, (_, at) => lines.indexOf('\n', at * 20_000) + 1)
  const before = memoryOf(app.server)
  const socket = connect(port(app), '127.0.0.1').pause()
  socket.write(offsets.map(offset => `GET /tasks/${log.id}/log?offset=${offset} HTTP/1.1\r\n${hostLine(app)}\r\n`).join(''))
  const others = ['/tasks', `/tasks/${log.id}/log.ndjson`, '/style.css', '/health', `/tasks/${log.id}/log?offset=now&live=sse`]
  const mixed = connect(port(app), '127.0.0.1').pause()
  mixed.write(Array.from({ length: 1000 }, (_, at) => `GET ${others[at % others.length]} HTTP/1.1\r\n${hostLine(app)}\r\n`).join(''))
  for (let round = 0; round < 20; round++) await app.request('GET', `/tasks/${log.id}/log?offset=0`) // behind all of them
  const more = memoryOf(app.server) - before
  assert.ok(more < 100e6, `${more / 1e6} MB more`)

  const next = answersOn(socket)
  for (const offset of offsets) {
    const answer = await next()
    const end = Number(/^stream-next-offset: (\d+)/im.exec(answer)![1])
    assert.ok(answer.endsWith(`\r\n\r\n[${lines.slice(offset, end - 1).replaceAll('\n', ',')}]`), `at ${offset}`)
  }
  socket.destroy()
  mixed.destroy()
})

test('behind an answer that is open for long, no more is read than a moment of it', async () => {
  const run = await app.start('polite') // says one thing, and then nothing, until it is cancelled
  for (const live of ['sse', 'long-poll']) {
    const before = memoryOf(app.server)
    const socket = connect(port(app), '127.0.0.1').on('error', () => {})
    socket.write(`GET /tasks/${run.id}/log?offset=now&live=${live} HTTP/1.1\r\n${hostLine(app)}\r\n`)
    const request = `GET /health HTTP/1.1\r\n${hostLine(app)}\r\n`
    for (let round = 0; round < 20; round++) {
      socket.write(request.repeat(20_000))
      await honest()
    }
    assert.ok(socket.writableLength > 1e6, 'most of it waits on the side of who sends it')
    assert.ok(memoryOf(app.server) - before < 100e6, `${(memoryOf(app.server) - before) / 1e6} MB more`)
    socket.destroy()
  }
  await run.cancel()
  await run.outcome()
})

test('who asks on and on without reading the answers is cut off, before they fill the memory', async () => {
  for (const question of [frame(1, Buffer.from('{"start":"!"}')), frame(9, Buffer.alloc(125))]) {
    const socket = connect(port(app), '127.0.0.1').on('error', () => {})
    const closed = new Promise(resolve => socket.once('close', resolve))
    socket.write(upgradeHead(app))
    await once(socket, 'readable') // from here on nothing is read
    const before = memoryOf(app.server)
    const questions = Buffer.concat(Array(2000).fill(question))
    let sent = 0
    while (!socket.destroyed && sent < 400e6) {
      sent += questions.length
      if (!socket.write(questions)) await Promise.race([new Promise(resolve => socket.once('drain', resolve)), closed])
    }
    assert.ok(socket.destroyed, `still open after ${sent} bytes`)
    assert.ok(memoryOf(app.server) - before < 150e6, `${(memoryOf(app.server) - before) / 1e6} MB more`)
  }
  await honest()
})
