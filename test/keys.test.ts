// The key of a run: what it opens, for pages of somebody else's web application too, and what it does not, however it
// is tried. Then what else a web server among others has to get right: health probes, refusals that say what would be
// right, and a path of another application to live below.

import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { once } from 'node:events'
import type { OutgoingHttpHeaders } from 'node:http'
import { connect } from 'node:net'
import { text } from 'node:stream/consumers'
import { after, before, suite, test } from 'node:test'
import { WebSocket } from 'ws'
import { App, ask, port, until, UPGRADE, type RawAnswer } from './app.ts'

const TOKEN = 'a+long.Secret~of%letters/and=signs'
const THEIRS = 'https://app.example.org' // the web application whose pages may follow runs
const SAME_SITE = 'http://127.0.0.1:8000' // another one, on the same machine: its cookies are ours, too
const EVIL = 'https://evil.example'
const BEARER = { Authorization: `Bearer ${TOKEN}` }
const JSON_TYPE = { 'Content-Type': 'application/json' }
const ENTER = `/?token=${encodeURIComponent(TOKEN)}`
const EXPOSED = ['Stream-Next-Offset', 'Stream-Up-To-Date', 'Stream-Closed', 'Stream-Cursor', 'ETag']

const app = new App({ TOKEN, ALLOWED_ORIGINS: `${THEIRS}, ${SAME_SITE}`, PROCESS_LIMIT: '16' })
let key = '' // of the run `own`, which has ended and has produced a file, as has the run `other`
before(async () => {
  await app.startBoth()
  key = (await start('own', 'produce', [10])).key
  await start('other', 'produce', [10])
  for (const id of ['own', 'other']) await get(`/tasks/${id}/log?offset=-1&live=sse`, BEARER) // until its end
})
after(() => app.end())

/** What a browser gets for the token, and sends from then on. */
const cookie = async () => (await get(ENTER)).headers['set-cookie']![0]!.split(';')[0]!

const get = (path: string, headers: OutgoingHttpHeaders = {}) => ask(app, 'GET', path, headers)

async function start(id: string, method: string, args: unknown[] = []): Promise<{ id: string; key: string }> {
  const call = JSON.stringify({ id, method, args })
  const { status, body } = await ask(app, 'POST', '/tasks', { ...BEARER, ...JSON_TYPE }, call)
  assert.equal(status, 202, body)
  return JSON.parse(body)
}

const hmac = (secret: string, text: string) => createHmac('sha256', secret).update(text).digest('hex')
const keyOf = (id: string) => hmac(TOKEN, id)

/** Knocks at all doors that the key of a run opens. */
const doors = (id: string, key: string, headers: OutgoingHttpHeaders = {}): Promise<RawAnswer[]> => Promise.all([
  get(`/tasks/${id}/log?key=${key}`, headers),
  ask(app, 'HEAD', `/tasks/${id}/log?key=${key}`, headers),
  get(`/tasks/${id}/log?offset=-1&live=sse&key=${key}`, headers),
  get(`/tasks/${id}/log.ndjson?key=${key}`, headers),
  get(`/files/${id}.txt?key=${key}`, headers),
  ask(app, 'DELETE', `/tasks/${id}?key=${key}`, headers),
  get(`/log?run=${id}&key=${key}`, { ...headers, ...UPGRADE }),
])
const OPENED = [200, 200, 200, 200, 200, 409, 101] // it has ended: there is nothing to cancel
const SHUT = Array(7).fill(401)
const statuses = (answers: RawAnswer[]) => answers.map(({ status }) => status)
/** The code with which a WebSocket is closed. */
async function closing(path: string, headers: Record<string, string>): Promise<number> {
  const socket = new WebSocket(app.url.replace('http', 'ws') + path, { headers })
  socket.on('open', () => socket.send('{"start":"own"}')).on('message', text => assert.fail(`told ${text}`))
  return (await once(socket, 'close'))[0]
}
const corsOf = ({ headers }: RawAnswer) => Object.keys(headers).filter(name => name.startsWith('access-control'))

suite('The key of a run', () => {
  test('comes with the answer to its start, where there is a token; who has that can make it, too', async t => {
    assert.equal(key, keyOf('own'))
    assert.match(key, /^[0-9a-f]{64}$/)
    const open = new App({ SPARES: '0' })
    t.after(() => open.end())
    await open.startBoth()
    const { body } = await open.request('POST', '/tasks', { method: 'process', args: [1, 0] })
    assert.deepEqual(Object.keys(body), ['id', 'pid'])
  })

  test('opens its log, its files, its end, and a socket for it', async () => {
    assert.deepEqual(statuses(await doors('own', key)), OPENED)
    const going = await start('going', 'polite')
    assert.equal((await ask(app, 'DELETE', `/tasks/going?key=${going.key}`)).status, 202)
    const { body } = await get(`/tasks/going/log?offset=-1&live=sse&key=${going.key}`)
    assert.match(body, /"outcome":"cancelled"/)
  })

  test('opens nothing else', async () => {
    for (const path of ['/', '/app.js', '/tasks', '/methods', '/nothing', '/files/', '/tasks/own/log/']) {
      for (const query of [`key=${key}`, `run=own&key=${key}`]) {
        assert.equal((await get(`${path}?${query}`)).status, 401, `${path}?${query}`)
      }
    }
    const call = JSON.stringify({ id: 'mine', method: 'process' })
    assert.equal((await ask(app, 'POST', `/tasks?run=own&key=${key}`, JSON_TYPE, call)).status, 401)
    assert.equal((await ask(app, 'POST', `/files?run=own&key=${key}`, {}, 'x')).status, 401)
    assert.equal((await get(`/log?key=${key}`, UPGRADE)).status, 401)
    const health = await get(`/health?run=own&key=${key}`)
    assert.deepEqual([health.status, health.body], [200, ''])
    const list: { id: string }[] = JSON.parse((await get('/tasks', BEARER)).body)
    assert.ok(!list.some(({ id }) => id === 'mine'), 'nothing was started')
  })

  test('opens a socket that follows this run alone', async () => {
    const socket = new WebSocket(`${app.url.replace('http', 'ws')}/log?run=own&key=${key}`)
    await once(socket, 'open')
    const heard: { id?: string; error?: string; entries?: { type: string }[] }[] = []
    socket.on('message', text => heard.push(JSON.parse(String(text))))
    const others = ['other', 'ow', 'own2', '__proto__']
    for (const id of [...others, 'own']) socket.send(JSON.stringify({ start: id }))
    await until(() => heard.some(({ entries }) => entries?.at(-1)?.type === 'done'))
    socket.terminate()
    const refusals = heard.filter(({ error }) => error).map(({ id, error }) => [id, error])
    assert.deepEqual(refusals, others.map(id => [id, 'the key of run own opens no other']))
    assert.deepEqual([...new Set(heard.filter(({ entries }) => entries).map(({ id }) => id))], ['own'])
  })

  test('is refused for another run, in part, in another form, or beside the right one', async () => {
    const wrong = [
      '', 'x', keyOf('other'), keyOf('ow'), keyOf('own2'), keyOf(''), key.slice(0, -1), `${key}0`, `${key}%20`, '%00',
      key.toUpperCase(), Buffer.from(key, 'hex').toString('base64url'), hmac('own', TOKEN), hmac('', 'own'),
      'undefined', encodeURIComponent(TOKEN), `x&key=${key}`, `&key=${key}`, '%5Bobject%20Object%5D', 'x'.repeat(9000),
    ]
    for (const given of wrong) {
      const [mine, nobodys] = await Promise.all([doors('own', given), doors('nobody', given)])
      assert.deepEqual(statuses(mine), SHUT, given)
      assert.deepEqual(statuses(nobodys), SHUT, given)
      assert.deepEqual(mine.map(({ body }) => body), nobodys.map(({ body }) => body), 'whether the run exists or not')
    }
    assert.deepEqual(statuses(await doors('own', 'wrong', BEARER)), SHUT, 'whatever else is there')
    assert.deepEqual(statuses(await doors('nobody', keyOf('nobody'))), [404, 404, 404, 404, 404, 404, 101])
  })

  test('is no token, and the token is no key', async () => {
    const Cookie = (await cookie()).replace(/=.*/, `=${key}`)
    const tries: [path: string, headers: OutgoingHttpHeaders][] = [
      ['/tasks', { Authorization: `Bearer ${key}` }], ['/tasks', { Cookie }], [`/?token=${key}`, {}],
      ['/tasks/own/log', { Authorization: `Bearer ${key}` }], ['/tasks/own/log', { Cookie }],
      ['/tasks/own/log', { Cookie: `key=${key}` }], [`/tasks/own/log?token=${encodeURIComponent(TOKEN)}`, {}],
    ]
    for (const [path, headers] of tries) assert.equal((await get(path, headers)).status, 401, path)
  })

  test('is never printed, nor is the token', () => {
    const printed = [...app.server.output, ...app.workers.output].join('\n')
    for (const secret of [TOKEN, key, keyOf('other')]) assert.ok(!printed.includes(secret))
  })
})

suite('A page of another web application', () => {
  test('may follow, cancel and download by key, and reads every answer', async () => {
    for (const Origin of [THEIRS, SAME_SITE]) {
      const answers = await doors('own', key, { Origin })
      assert.deepEqual(statuses(answers), OPENED)
      const more = await Promise.all([
        get(`/tasks/own/log?key=${key}`, { Origin, 'If-None-Match': String(answers[0]!.headers.etag) }),
        get(`/tasks/own/log?offset=7&key=${key}`, { Origin }),
        get(`/tasks/own/log?offset=now&live=long-poll&key=${key}`, { Origin }),
        get(`/files/own.txt?key=${key}`, { Origin, Range: 'bytes=1-2' }),
        get(`/files/own.txt?key=${key}`, { Origin, Range: 'bytes=99-' }),
        get(`/files/own.csv?key=${key}`, { Origin }),
        ask(app, 'PUT', `/tasks/own/log?key=${key}`, { Origin }),
        get('/tasks/own/log?key=wrong', { Origin }),
        get('/tasks/own/log', { Origin }),
      ])
      assert.deepEqual(statuses(more), [304, 400, 204, 206, 416, 404, 405, 401, 401])
      for (const { about, headers } of [...answers.slice(0, -1), ...more]) {
        assert.equal(headers['access-control-allow-origin'], Origin, about)
        assert.equal(headers['access-control-allow-credentials'], undefined, about)
        assert.equal(headers.vary, 'Origin', about)
        const exposed = String(headers['access-control-expose-headers'])
        for (const name of EXPOSED) assert.ok(exposed.includes(name), `${name} of ${about}`)
      }
    }
  })

  test('gets in by a key alone, not by the cookie that a browser sends along, nor by the token', async () => {
    const Cookie = await cookie()
    for (const credentials of [{ Cookie }, BEARER, { ...BEARER, Cookie }]) {
      const headers = { Origin: SAME_SITE, ...credentials }
      for (const path of ['/tasks/own/log', '/tasks/own/log.ndjson', '/files/own.txt']) {
        assert.equal((await get(path, headers)).status, 401, path)
      }
      assert.equal((await ask(app, 'DELETE', '/tasks/own', headers)).status, 401)
      assert.equal((await get('/log?run=own', { ...headers, ...UPGRADE })).status, 401)
      const closed = await Promise.all([
        ...['/', '/app.js', '/tasks', '/methods', ENTER, `/tasks?key=${key}`].map(path => get(path, headers)),
        ask(app, 'POST', '/tasks', { ...headers, ...JSON_TYPE }, '{"method":"process"}'),
        ask(app, 'POST', '/files', headers, 'x'),
      ])
      for (const answer of closed) assert.deepEqual([answer.status, corsOf(answer)], [403, []], answer.about)
      assert.equal(await closing('/log', headers), 4403)
    }
  })

  test('that was not allowed gets nothing, even with a key, but can read that it is refused', async () => {
    const foreign = [
      'http://app.example.org', `${THEIRS}:444`, `${THEIRS}.evil.example`, EVIL, 'null', '', '*', '__proto__',
      'https://APP.example.org', `${THEIRS}/`, `${THEIRS}, ${SAME_SITE}`, 'http://127.0.0.1',
      `http://user@${new URL(app.url).host}`,
    ]
    for (const Origin of foreign) {
      for (const headers of [{ Origin }, { Origin, Host: 'evil.example' }]) {
        const [mine, nobodys] = await Promise.all([doors('own', key, headers), doors('nobody', keyOf('nobody'), headers)])
        assert.deepEqual(statuses(mine), [...Array(6).fill(403), 101], Origin)
        assert.deepEqual(mine.map(({ body }) => body), nobodys.map(({ body }) => body), 'whether the run exists or not')
        for (const answer of mine.slice(0, -1)) {
          assert.deepEqual(corsOf(answer), ['access-control-allow-origin'], Origin)
          assert.equal(answer.headers['access-control-allow-origin'], '*')
          if (!answer.about.startsWith('HEAD')) assert.deepEqual(Object.keys(JSON.parse(answer.body)), ['errors'])
        }
      }
      assert.equal(await closing(`/log?run=own&key=${key}`, { Origin }), 4403, Origin)
    }
    const twice = await get(`/tasks/own/log?key=${key}`, { Origin: [THEIRS, EVIL] as never })
    assert.deepEqual([twice.status, twice.headers['access-control-allow-origin']], [403, '*'])
  })

  test('may ask beforehand without a key, for these addresses alone', async () => {
    const asks = (path: string, Origin: string) => ask(app, 'OPTIONS', path, {
      Origin, 'Access-Control-Request-Method': 'DELETE', 'Access-Control-Request-Headers': 'if-none-match',
    })
    for (const path of ['/tasks/own', '/tasks/own/log?offset=-1', '/tasks/nobody/log.ndjson', '/files/own.txt']) {
      const { status, body, headers } = await asks(path, THEIRS)
      assert.deepEqual([status, body, headers['access-control-allow-origin']], [204, '', THEIRS], path)
      assert.equal(headers['access-control-allow-methods'], 'GET, HEAD, DELETE')
      assert.match(String(headers['access-control-allow-headers']), /If-None-Match/)
      const refused = await asks(path, EVIL)
      assert.deepEqual([refused.status, corsOf(refused)], [403, ['access-control-allow-origin']], path)
    }
    for (const path of ['/tasks', '/files', '/methods', '/', '*']) {
      const refused = await asks(path, THEIRS)
      assert.deepEqual([refused.status, corsOf(refused)], [403, []], path)
    }
  })

  test('gets the modules that follow runs, as anybody does, and no other file', async () => {
    for (const headers of [{}, { Origin: THEIRS }, { Origin: EVIL }, { Origin: 'null' }]) {
      const [follow, element] = await Promise.all([get('/follow.js', headers), get('/longrun-run.js', headers)])
      for (const answer of [follow, element]) {
        assert.deepEqual([answer.status, answer.headers['access-control-allow-origin']], [200, '*'])
        assert.equal(answer.headers['content-type'], 'text/javascript; charset=utf-8')
      }
      assert.doesNotMatch(follow.body, /^\s*import\b/m, 'it stands alone')
      assert.deepEqual(element.body.match(/^import\b.*$/mg), ["import { follow } from './follow.js'"])
    }
    for (const path of ['/follow.js', '/longrun-run.js']) assert.equal((await get(path, { Host: 'evil.example' })).status, 403)
    assert.equal((await get('/app.js', { Origin: THEIRS })).status, 403)
  })

  test('is told whether its key is wrong, or missing', async () => {
    const because = async (query: string, headers = {}) => {
      const { status, body } = await get(`/tasks/own/log${query}`, headers)
      return [status, JSON.parse(body).errors[0]]
    }
    assert.deepEqual(await because('', { Origin: THEIRS }), [401, 'the key of that run is needed: ?key=KEY'])
    for (const wrong of ['', 'x', keyOf('other')]) {
      for (const headers of [{ Origin: THEIRS }, {}]) {
        assert.deepEqual(await because(`?key=${wrong}`, headers), [401, 'this is not the key of that run'])
      }
    }
    assert.match((await because(''))[1], /^a token is needed/)
  })
})

suite('Among other servers', () => {
  test('it answers health probes whatever their Host, by a status alone; who has the token is told more', async t => {
    const own = new App({ TOKEN, SPARES: '0' })
    t.after(() => own.end())
    await own.startServer()
    const probe = async (headers: OutgoingHttpHeaders = {}) => {
      const { status, body } = await ask(own, 'GET', '/health', headers)
      return [status, body]
    }
    assert.deepEqual(await probe(), [503, ''], 'there is no workers server yet')
    await own.startWorkers()
    await until(async () => (await probe())[0] === 200)
    const Host = 'evil.example'
    for (const headers of [{}, { Host: '10.0.0.7' }, { Host: '' }, { Host, ...BEARER }, { Origin: EVIL, ...BEARER }]) {
      assert.deepEqual(await probe(headers), [200, ''], JSON.stringify(headers))
    }
    for (const line of ['GET /health HTTP/1.1', 'GET /health HTTP/1.0', 'HEAD /health HTTP/1.1']) {
      const socket = connect(port(own), '127.0.0.1')
      socket.write(`${line}\r\nConnection: close\r\n\r\n`)
      assert.match(await text(socket), /^HTTP\/1.1 200 OK\r\n[^]*\r\n\r\n$/, line)
    }
    assert.equal((await ask(own, 'POST', '/health')).status, 401)
    const [status, body] = await probe(BEARER)
    assert.equal(status, 200)
    assert.deepEqual(Object.keys(JSON.parse(String(body))), ['version', 'server', 'workers', 'running', 'limit', 'readers'])

    own.workers.process.kill('SIGSTOP')
    const began = performance.now()
    assert.deepEqual(await probe(), [200, ''], 'it is told from the last answer')
    assert.ok(performance.now() - began < 1000, 'nobody was asked')
    await until(async () => (await probe())[0] === 503)
    own.workers.process.kill('SIGCONT')
    await until(async () => (await probe())[0] === 200)
  })

  test('it says which setting would let a refused Host or Origin in', async () => {
    const because = async (headers: OutgoingHttpHeaders) => JSON.parse((await get('/tasks', headers)).body).errors[0]
    assert.match(await because({ Host: 'longrun.example.org' }), /set ALLOWED_HOSTS=longrun\.example\.org$/)
    const foreign = await because({ Origin: 'https://new.example.org' })
    assert.match(foreign, /set ALLOWED_HOSTS=new\.example\.org; .*set ALLOWED_ORIGINS=https:\/\/new\.example\.org$/)
    assert.match(await because({ Origin: THEIRS }), /may only follow, cancel and download runs, each by its key/)
    assert.doesNotMatch(await because({ Origin: 'null' }), /ALLOWED/)
  })

  test('it may be shown below a path: its form, its redirect and its cookie stay there', async () => {
    const below = { '/': './', '/index.html': './', '/tasks/own/log': '../../', '/files/a.txt': '../' }
    for (const [path, up] of Object.entries(below)) {
      const { status, body } = await get(path, { Accept: 'text/html' })
      assert.equal(status, 401)
      assert.ok(body.includes(`<form action="${up}">`), path)
    }
    const { headers } = await get(`${ENTER}&run=own`)
    assert.equal(headers.location, './?run=own')
    assert.doesNotMatch(String(headers['set-cookie']), /path/i)
    assert.equal((await get(`/?token=${TOKEN.replace('%', '%25')}`)).status, 303, 'its + may stand as it is')
  })
})
