// What a run is to its caller: the contract over HTTP, WebSocket and ZeroMQ, and its limits. (Its log as a stream for
// outside programs is in stream.test.ts.)

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { rmSync, statSync, utimesSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import type { Entry } from '../log.ts'
import { App } from './app.ts'

suite('A run', () => {
  const app = new App({ PROCESS_LIMIT: '4', TIME_LIMIT: '100' })
  before(() => app.startBoth())
  after(() => app.end())

  test('reaches the page step by step, from start to done', async () => {
    const run = await app.start('process', [3, 20], { callId: 'first' })
    const [start, ...rest] = await run.entries()
    assert.deepEqual(start!.data, { method: 'process', args: [3, 20], callId: 'first', pid: run.pid, timeLimit: 100 })
    const [steps, progress] = ['msg', 'progress'].map(wanted => rest.filter(({ type }) => type === wanted).map(({ data }) => data))
    assert.deepEqual(steps, [0, 1, 2].map(step => ({ msg: `step ${step + 1} of 3`, process: run.pid, step })))
    assert.deepEqual(progress!.at(-1), { current: 3, total: 3, unit: 'steps' })
    assert.equal((await run.outcome()).outcome, 'ok')
    assert.deepEqual((await run.types()).filter(type => type !== 'progress'), ['start', 'msg', 'msg', 'msg', 'done'])
  })

  test('is the same for a reader that comes in the middle, after the end, or from a position on', async () => {
    const run = await app.start('tick', ['middle'])
    await run.reader.until(({ entries }) => entries.length > 4)
    const middle = await app.follow(run.id)
    await middle.until(({ entries }) => entries.length > 4)
    app.letGo('middle')
    const { entries } = run.reader
    await run.outcome()
    assert.deepEqual(await middle.done(), entries)
    assert.deepEqual(await (await app.follow(run.id)).done(), entries)
    const [first] = run.log().split('\n', 1)
    assert.deepEqual(await (await app.follow(run.id, first!.length + 1)).done(), entries.slice(1))
  })

  test('can be downloaded', async () => {
    const run = await app.start('process', [5, 1])
    await run.outcome()
    const { body, headers } = await app.request('GET', `/tasks/${run.id}/log.ndjson`)
    assert.equal(headers.get('content-type'), 'application/x-ndjson')
    assert.equal(headers.get('content-disposition'), `attachment; filename="${run.id}.ndjson"`)
    assert.equal(body, run.log())
    assert.deepEqual((await app.request('HEAD', `/tasks/${run.id}/log.ndjson`)).body, '')
    assert.equal((await app.request('GET', '/tasks/nobody/log.ndjson')).status, 404)
  })

  test('is refused when a number in its arguments would arrive as another, which is named, at any depth', async () => {
    const post = (body: string) => app.request('POST', '/tasks', Buffer.from(body), { 'content-type': 'application/json' })
    const names = (number: string) => new RegExp(`the number ${number.replace(/[.+]/g, '\\$&').slice(0, 40)}`)
    for (const number of [
      '1234567890123456789', '9007199254740992', '-9007199254740992', '9007199254740993', '1e400', '-1E+400', '1.5e309', '9'.repeat(400), `${'9'.repeat(400)}.5`,
    ]) {
      for (const args of [`[${number}]`, `[{"text":"\\"1, \\\\","id":[[ ${number} ]]}]`, `["1e400",{"a\\\\":${number}}]`, `[1,2,[${number},${number}0]]`]) {
        const { status, body } = await post(`{"method":"claim","args":${args}}`)
        assert.equal(status, 400, args)
        assert.match(body.errors[0], names(number))
        const [tag, payload] = await app.call('claim', '', randomUUID(), args)
        assert.equal(tag, '__ERROR__', args)
        assert.match(payload, names(number))
        assert.match(payload, /^invalid: invalid arguments/)
      }
      const integer = await post(`{"method":"process","args":[${number}]}`)
      assert.match(integer.body.errors[0], names(number), 'not just as one that is no whole number')
      for (const field of ['timeLimit', 'id', 'callId', 'other']) {
        const { status, body } = await post(`{"method":"process","args":[1],"${field}":${number}}`)
        assert.equal(status, 400, field)
        assert.match(body.errors[0], names(number))
      }
    }
    const held = '{"all":[9007199254740991,-9007199254740991,0,1e20,1e300,-1.5e-300,1e-400,0.1234567890123456789,12345678901234567890.5,1e+16],'
      + '"1e400":"1234567890123456789","quoted \\" 1e400 \\\\":"\\\\\\" 9007199254740993 \\n\\u0022"}'
    const { status, body } = await post(`{"method":"claim","args":[${held}]}`)
    assert.equal(status, 202, JSON.stringify(body))
    const byHttp = await app.follow(body.id)
    const id = randomUUID()
    assert.equal((await app.call('claim', '', id, `[${held}]`))[0], '')
    for (const reader of [byHttp, await app.follow(id)]) {
      const last = (await reader.done()).at(-1)!
      assert.deepEqual(last.type === 'done' && last.data.result, JSON.parse(held), 'decimals are rounded, as everywhere')
    }
  })

  test('may have arguments of a MiB, in UTF-8, and in whatever escapes they come: not one byte more', async () => {
    const post = (text: string) =>
      app.request('POST', '/tasks', Buffer.from(`{"method":"claim","args":[{"text":"${text}"}]}`), { 'content-type': 'application/json' })
    const most = 2 ** 20 - '[{"text":""}]'.length
    for (const [character, escaped] of [['x', '\\u0078'], ['ü', '\\u00fc'], ['€', '\\u20ac'], ['😀', '\\ud83d\\ude00'], ['\n', '\\n']] as const) {
      const bytes = Buffer.byteLength(JSON.stringify(character)) - 2
      const count = Math.floor(most / bytes)
      const pad = 'y'.repeat(most - count * bytes)
      const { status, body } = await post(escaped.repeat(count) + pad)
      assert.equal(status, 202, `${escaped}: ${JSON.stringify(body)}`)
      const last = (await (await app.follow(body.id)).done()).at(-1)!
      assert.ok(last.type === 'done' && (last.data.result as { text: string }).text === character.repeat(count) + pad, escaped)
      const more = await post(`${escaped.repeat(count)}${pad}y`)
      assert.deepEqual([more.status, more.body.errors], [400, ['invalid arguments: 1048577 bytes, at most 1048576 are allowed']], escaped)
    }
  })

  test('is refused with what is wrong, and the fitting status', async () => {
    const post = async (body: unknown) => (await app.request('POST', '/tasks', body))
    const used = await app.start('process', [1, 1])
    await used.outcome()
    await app.untilRunning()
    for (const [body, status, message] of [
      [{ method: 'nothing', args: [] }, 404, /unknown method nothing/],
      [{ method: 'unmarked', args: [] }, 404, /unknown method/],
      [{ method: '__proto__', args: [] }, 404, /unknown method/],
      [{ method: 'process', args: ['x'] }, 400, /steps: not a number/],
      [{ method: 'process', args: [1.5] }, 400, /steps: not a whole number/],
      [{ method: 'process', args: [-1] }, 400, /steps: not from 0/],
      [{ method: 'process', args: [1, 2, 3] }, 400, /3 given/],
      [{ method: 'process', args: {} }, 400, /args must be an array/],
      [{ method: 'importCsv', args: ['nobody'] }, 400, /no such upload/],
      [{ method: 'importCsv', args: ['../../etc/passwd'] }, 400, /no such upload/],
      [{ method: 'takes', args: ['a', 10, 1, true] }, 400, /integer: not from 1 to 9/],
      [{ method: 'takes', args: ['a', 1, 1, 1] }, 400, /boolean: not true or false/],
      [{ method: 'takes', args: ['a', 1, 1, true, []] }, 400, /object: not an object/],
      [{ method: 'takes', args: ['a'] }, 400, /integer: missing/],
      [{ method: 'process', id: 'a/b' }, 400, /invalid id/],
      [{ method: 'process', id: used.id }, 409, /already used/],
      [{ method: 'process', timeLimit: 'x' }, 400, /timeLimit/],
      [{ method: 'process', callId: 'ü'.repeat(257) }, 400, /at most 256 characters/],
      [[], 400, /JSON object/],
      [{}, 400, /method/],
    ] as [unknown, number, RegExp][]) {
      const answer = await post(body)
      assert.equal(answer.status, status, JSON.stringify(body))
      assert.match(answer.body.errors.join(), message)
    }
  })

  test('fills in defaults, and hands its arguments over as they are', async () => {
    const callId = '😀'.repeat(256)
    const run = await app.start('takes', ['ü\u0000"', 9, -0.5, false], { callId })
    assert.deepEqual((await run.outcome()).result, ['ü\u0000"', 9, -0.5, false, {}])
    assert.equal((await app.request('GET', `/tasks/${run.id}`)).body.callId, callId)
  })

  test('is in the list, newest first, with its outcome', async () => {
    const first = await app.start('process', [1, 1])
    await first.outcome()
    const second = await app.start('polite')
    const { body } = await app.request('GET', '/tasks')
    const [newest, next] = body
    assert.equal(newest.id, second.id)
    assert.equal(newest.outcome, undefined)
    assert.equal(next.id, first.id)
    assert.equal(next.outcome, 'ok')
    assert.equal(next.size, first.log().length)
    await second.cancel()
  })

  test('that has ended is unknown when somebody has removed its log', async () => {
    const run = await app.start('process', [3, 1])
    await run.outcome()
    await app.untilRunning()
    const { length } = app.workers.output
    rmSync(join(app.runs, `${run.id}.ndjson`))
    const statuses = async (method: string, ...paths: string[]) =>
      Promise.all(paths.map(async path => (await app.request(method, `/tasks/${run.id}${path}`)).status))
    assert.deepEqual(await statuses('GET', '', '/log', '/log?offset=7', '/log.ndjson'), [404, 404, 404, 404])
    assert.deepEqual(await statuses('DELETE', ''), [404])
    for (const method of ['show', 'cancel']) assert.match((await app.call(method, '', '', JSON.stringify([run.id])))[1], /^unknown: /)
    const list: { id: string }[] = (await app.request('GET', '/tasks')).body
    assert.ok(list.length && !list.some(({ id }) => id === run.id))
    assert.equal((await app.request('POST', '/tasks', { method: 'process', id: run.id })).status, 409)
    assert.deepEqual(app.workers.output.slice(length), [], 'and that is no error')
  })

  test('can be cancelled, once or twice; not after its end, and not when nobody knows it', async () => {
    const run = await app.start('polite')
    await run.reader.until(({ entries }) => entries.length > 1)
    assert.equal((await run.cancel()).status, 202)
    const done = await run.outcome()
    assert.equal(done.outcome, 'cancelled')
    assert.deepEqual(await run.types(), ['start', 'log', 'log', 'done'])
    const deaf = await app.start('deaf', [600])
    await deaf.reader.until(({ entries }) => entries.length > 1) // it can ignore signals now
    const answers = await Promise.all([deaf.cancel(), deaf.cancel()])
    assert.deepEqual(answers.map(({ status }) => status), [202, 202])
    const late = await run.cancel()
    assert.equal(late.status, 409)
    assert.match(late.body.errors[0], /not running/)
    assert.equal((await app.request('DELETE', '/tasks/nobody')).status, 404)
  })

  test('has a reader before it begins, from its beginning; one where no line begins is told so', async () => {
    const id = randomUUID()
    const whole = await app.follow(id)
    const run = await app.start('process', [3, 1], { id })
    await run.outcome()
    await whole.done()
    const torn = await app.follow(id, 10)
    await torn.until(({ errors }) => errors.length > 0)
    assert.deepEqual([torn.errors, torn.entries], [['invalid position: no line begins there'], []])
  })

  test('may be one huge entry', async () => {
    const run = await app.start('text', [2 ** 20])
    assert.equal((await run.outcome()).outcome, 'ok')
    assert.equal((run.reader.entries[1]!.data as string).length, 2 ** 20)
  })

  test('can be followed together with others on one socket, each kept apart', async () => {
    const socket = await app.connect()
    const ids = [randomUUID(), 'a', 'ab', 'constructor', '__proto__', 'toString']
    const heard = new Map(ids.map(id => [id, [] as Entry[]]))
    const done = new Promise<void>(resolve => socket.on('message', text => {
      const { id, entries } = JSON.parse(String(text))
      if (entries) heard.get(id)!.push(...entries)
      if ([...heard.values()].every(entries => entries.at(-1)?.type === 'done')) resolve()
    }))
    for (const id of ids) socket.send(JSON.stringify({ start: id }))
    for (const id of ids) {
      const run = await app.start('process', [3, 1], { id })
      await run.outcome()
    }
    await done
    for (const [id, entries] of heard) assert.deepEqual(entries, await (await app.follow(id)).done(), id)
    socket.terminate()
  })

  test('is known by what the API says: methods, health, the reserved names', async () => {
    const methods = (await app.request('GET', '/methods')).body
    assert.deepEqual(methods.find(({ name }: { name: string }) => name === 'process').parameters.map(({ name, default: value }: any) => [name, value]),
      [['steps', 10], ['delay', 100]])
    assert.ok(!methods.some(({ name }: { name: string }) => name === 'unmarked'))
    assert.deepEqual(Object.keys((await app.request('GET', '/health')).body), ['version', 'server', 'workers', 'running', 'limit', 'readers'])
    const run = await app.start('process', [1, 1])
    await run.outcome()
    const call = async (method: string, ...args: unknown[]) => {
      const [tag, payload] = await app.call(method, '', '', JSON.stringify(args))
      assert.equal(tag, '__RES__', payload)
      return payload
    }
    assert.equal(await call('read', run.id, 0), run.log())
    assert.equal(await call('read', run.id, run.log().length), '')
    assert.deepEqual(JSON.parse(await call('stat', [run.id, 'nobody'])), { [run.id]: { size: run.log().length, done: true } })
    assert.ok(JSON.parse(await call('list')).some(({ id }: { id: string }) => id === run.id))
    assert.ok(JSON.parse(await call('methods')).length > 3)
    assert.equal(JSON.parse(await call('ping')).limit, 4)
  })

  test('the process limit and one more: the last is refused as busy, each of the others delivers all its messages', async () => {
    await app.untilRunning()
    const runs = await Promise.all([1, 2, 3, 4].map(() => app.start('tick', ['limit'])))
    const refused = await app.request('POST', '/tasks', { method: 'process', args: [1, 1] })
    assert.equal(refused.status, 503)
    assert.ok(refused.headers.get('retry-after'))
    assert.deepEqual(await app.call('process', '', randomUUID(), '[1, 1]'), ['__BUSY__', 'the process limit of 4 is reached'])
    app.letGo('limit')
    for (const run of runs) assert.equal((await run.outcome()).outcome, 'ok')
    await app.untilRunning() // a place is a process: it is free when that has gone
    assert.equal((await (await app.start('process', [1, 1])).outcome()).outcome, 'ok', 'there is a place again')
  })

  test('the same call id twenty times at once: one runs, nineteen are refused', async () => {
    await app.untilRunning()
    const answers = await Promise.all(Array.from({ length: 20 }, () => app.call('tick', 'only once', randomUUID(), '["twenty"]')))
    assert.equal(answers.filter(([tag]) => tag === '').length, 1)
    assert.equal(answers.filter(([tag, message]) => tag === '__ERROR__' && /already running/.test(message)).length, 19)
    app.letGo('twenty')
  })

  test('an upload stays as long as somebody waits for a place with it', async () => {
    await app.untilRunning()
    const file = await app.upload('a,b\n1,2\n')
    const path = join(app.runs, 'uploads', file)
    const runs = await Promise.all([1, 2, 3, 4].map(() => app.start('tick', ['upload'])))
    utimesSync(path, 0, 0) // long ago
    assert.equal((await app.request('POST', '/tasks', { method: 'importCsv', args: [file] })).status, 503)
    assert.ok(Date.now() - statSync(path).mtimeMs < 60_000, 'asking for it again makes it new')
    app.letGo('upload')
    for (const run of runs) await run.outcome()
    await app.untilRunning()
    assert.equal((await (await app.start('importCsv', [file])).outcome()).outcome, 'ok')
  })
})
