// The log of a run as a Durable Stream, as outside programs see it who know nothing of ours: by the letter of the
// protocol (for reads, what its own conformance tests look at), by curl, and by the official client for TypeScript.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { get, type IncomingMessage } from 'node:http'
import { connect } from 'node:net'
import { text } from 'node:stream/consumers'
import { after, before, suite, test } from 'node:test'
import { stream } from '@durable-streams/client'
import type { Entry } from '../log.ts'
import { type Answer, App, missing, onEvents, type Run, startApp, until } from './app.ts'

type Control = { streamNextOffset: string; streamCursor?: string; upToDate?: boolean; streamClosed?: boolean }

const app = new App({ PROCESS_LIMIT: '16' })
before(() => app.startBoth())
after(() => app.end())

suite('The log of a run is a stream', { concurrency: true, timeout: 300_000 }, () => {
  let ended: Run // of five steps
  let quiet: Run // says one thing, and then nothing, until it is cancelled
  let size = 0
  before(async () => {
    ended = await app.start('process', [5, 1])
    quiet = await app.start('polite')
    await ended.outcome()
    await quiet.reader.until(({ entries }) => entries.length === 2)
    size = ended.log().length
  })

  const read = (run: { id: string }, query = '', headers: Record<string, string> = {}): Promise<Answer> =>
    app.request('GET', `/tasks/${run.id}/log${query}`, undefined, headers)
  const entriesOf = (run: Run): Entry[] => run.log().trim().split('\n').map(line => JSON.parse(line))
  const offset = (position: number) => String(position).padStart(16, '0')
  const sayings = ({ headers }: Answer) =>
    ['next-offset', 'up-to-date', 'closed'].map(name => headers.get(`stream-${name}`))

  suite('read to catch up', { concurrency: true }, () => {
    test('from its beginning: an array of entries, by -1, by 0, and without an offset', async () => {
      for (const query of ['', '?offset=-1', '?offset=0', `?offset=${offset(0)}`, '?offset=-1&unknown=parameter']) {
        const answer = await read(ended, query)
        assert.equal(answer.status, 200)
        assert.deepEqual(answer.body, entriesOf(ended), query)
        assert.deepEqual(sayings(answer), [offset(size), 'true', 'true'])
        assert.equal(answer.headers.get('content-type'), 'application/json')
        assert.equal(answer.headers.get('cache-control'), 'private, no-cache')
        assert.equal(answer.headers.get('x-content-type-options'), 'nosniff')
        assert.equal(answer.headers.get('cross-origin-resource-policy'), 'same-origin')
        assert.equal(answer.headers.get('transfer-encoding'), null, 'in one write, with its length')
      }
    })

    test('from a position on, and at its end: nothing, and that this is all', async () => {
      const second = ended.log().indexOf('\n') + 1
      assert.deepEqual((await read(ended, `?offset=${second}`)).body, entriesOf(ended).slice(1))
      const atEnd = await read(ended, `?offset=${offset(size)}`)
      assert.deepEqual([atEnd.status, atEnd.body], [200, []])
      assert.deepEqual(sayings(atEnd), [offset(size), 'true', 'true'])
    })

    test('while the run goes on: up to date, not closed, and gone on with from the offset that was told', async () => {
      const run = await app.start('tick', ['catch-up'])
      await run.reader.until(({ entries }) => entries.length > 3)
      const first = await read(run)
      assert.equal(first.headers.get('stream-closed'), null)
      app.letGo('catch-up')
      await run.outcome()
      const rest = await read(run, `?offset=${first.headers.get('stream-next-offset')}`)
      assert.deepEqual([...first.body, ...rest.body], entriesOf(run))
      assert.deepEqual(sayings(await read(quiet)), [offset(quiet.log().length), 'true', null])
    })

    test('in parts when it is long: offsets grow as text, and only the last part is the end', async () => {
      const run = await app.start('flood', [30_000])
      await run.outcome()
      const entries: Entry[] = []
      const offsets = ['']
      let parts = 0
      for (let next = '-1', isClosed = false; !isClosed; parts++) {
        const part = await read(run, `?offset=${next}`)
        next = part.headers.get('stream-next-offset')!
        isClosed = part.headers.get('stream-closed') === 'true'
        assert.equal(part.headers.get('stream-up-to-date'), isClosed ? 'true' : null)
        assert.ok(next > offsets.at(-1)!)
        offsets.push(next)
        entries.push(...part.body)
      }
      assert.ok(parts > 2)
      assert.deepEqual(entries, entriesOf(run))
    })

    test('not at all by what is no offset, where no line begins, and beyond the end when it is final', async () => {
      const wrong = [
        '', '0,1', '0%201', '-2', '-0', '+0', '1.0', '1e2', '0x0', 'NaN', 'Now', 'tail', '9007199254740993', '%00',
        '0'.repeat(17), '0&offset=0', 'now&offset=now', '-1&offset=-1', '1', String(size - 1), String(size + 1),
        '9007199254740991',
      ]
      for (const given of wrong) {
        for (const live of ['', '&live=long-poll', '&live=sse']) {
          const { status, body } = await read(ended, `?offset=${given}${live}`)
          assert.equal(status, 400, given + live)
          assert.equal(typeof body.errors[0], 'string')
        }
      }
    })

    test('beyond the end of a run that goes on as at its end: a shared folder may show it late', async () => {
      const ahead = offset(quiet.log().length + 100)
      const answer = await read(quiet, `?offset=${ahead}`)
      assert.deepEqual([answer.status, answer.body, sayings(answer)], [200, [], [ahead, 'true', null]])
    })

    test('at its end by now, or by HEAD, without anything of before', async () => {
      for (const [run, closed] of [[ended, 'true'], [quiet, null]] as const) {
        const now = await read(run, '?offset=now')
        assert.deepEqual([now.status, now.body], [200, []])
        assert.equal(now.headers.get('etag'), null)
        const head = await app.request('HEAD', `/tasks/${run.id}/log`)
        assert.deepEqual([head.status, head.body, head.headers.get('content-length')], [200, '', null])
        for (const answer of [now, head]) {
          assert.deepEqual(sayings(answer), [offset(run.log().length), 'true', closed])
          assert.equal(answer.headers.get('cache-control'), 'no-store')
          assert.equal(answer.headers.get('content-type'), 'application/json')
        }
      }
    })

    test('not again by who has it: the tag changes with what is added, and with the end', async () => {
      const tag = (await read(ended)).headers.get('etag')!
      for (const known of [tag, `W/${tag}`, `"other", ${tag}`, `"other",W/${tag} , "more"`, '*']) {
        const answer = await read(ended, '', { 'if-none-match': known })
        assert.deepEqual([answer.status, answer.body], [304, ''], known)
        assert.deepEqual(sayings(answer), [offset(size), 'true', 'true'])
        assert.equal(answer.headers.get('etag'), tag)
      }
      for (const other of ['"other"', tag.slice(1, -1), `"${tag}"`]) {
        assert.equal((await read(ended, '', { 'if-none-match': other })).status, 200, other)
      }
      const run = await app.start('polite')
      await run.reader.until(({ entries }) => entries.length === 2)
      const before = (await read(run)).headers.get('etag')!
      assert.equal((await read(run, '', { 'if-none-match': before })).status, 304)
      await run.cancel()
      await run.outcome()
      const after = await read(run, '', { 'if-none-match': before })
      assert.equal(after.status, 200)
      assert.notEqual(after.headers.get('etag'), before)
      assert.equal(after.headers.get('stream-closed'), 'true')
    })

    test('only by who asks for something that there is, in a way that there is', async () => {
      for (const query of ['', '?offset=now', '?offset=-1&live=long-poll', '?offset=now&live=sse']) {
        const { status, headers } = await read({ id: 'nobody' }, query)
        assert.deepEqual([status, headers.get('x-content-type-options')], [404, 'nosniff'], query)
      }
      assert.equal((await app.request('HEAD', '/tasks/nobody/log')).status, 404)
      for (const query of ['?live=sse', '?live=long-poll', '?offset=-1&live=', '?offset=-1&live=yes']) {
        assert.equal((await read(ended, query)).status, 400, query)
      }
      for (const method of ['PUT', 'POST', 'DELETE', 'PATCH']) { // only the task writes
        const { status, headers } = await app.request(method, `/tasks/${ended.id}/log`)
        assert.deepEqual([status, headers.get('allow')], [405, 'GET, HEAD'], method)
      }
    })
  })

  suite('waited for by long-poll', { concurrency: true }, () => {
    const poll = (run: { id: string }, query: string) => read(run, `?live=long-poll&offset=${query}`)

    test('is answered at once with what there is', async () => {
      for (const [run, closed] of [[ended, 'true'], [quiet, null]] as const) {
        const answer = await poll(run, '-1')
        assert.deepEqual([answer.status, answer.body], [200, entriesOf(run)])
        assert.deepEqual(sayings(answer), [offset(run.log().length), 'true', closed])
        assert.match(answer.headers.get('stream-cursor')!, /^\d+$/)
        assert.equal(answer.headers.get('cache-control'), 'no-store')
      }
    })

    test('is answered with the next entry as soon as it is there, each once until the end', async () => {
      const run = await app.start('tick', ['polled'])
      const entries: Entry[] = []
      let polls = 0
      for (let next = '-1', isClosed = false; !isClosed; polls++) {
        if (polls === 10) app.letGo('polled')
        const part = await poll(run, next)
        if (part.status === 200) entries.push(...part.body)
        next = part.headers.get('stream-next-offset')!
        isClosed = part.headers.get('stream-closed') === 'true'
      }
      assert.deepEqual(entries, entriesOf(run))
    })

    test('says after a while that there is nothing new', async () => {
      const answers = await Promise.all([poll(quiet, String(quiet.log().length)), poll(quiet, 'now')])
      for (const answer of answers) {
        assert.deepEqual([answer.status, answer.body], [204, ''])
        assert.deepEqual(sayings(answer), [offset(quiet.log().length), 'true', null])
        assert.match(answer.headers.get('stream-cursor')!, /^\d+$/)
      }
    })

    test('says at once that nothing will come any more', async () => {
      for (const given of [offset(size), 'now']) {
        const began = performance.now()
        const answer = await poll(ended, given)
        assert.deepEqual([answer.status, ...sayings(answer)], [204, offset(size), 'true', 'true'])
        assert.ok(performance.now() - began < 10_000)
      }
    })

    test('by now waits for what is new, and gives nothing of before', async t => {
      const own = await startApp(t, { SPARES: '0' }) // its readers are counted
      const run = await own.start('polite')
      await run.reader.until(({ entries }) => entries.length === 2)
      const waiting = own.request('GET', `/tasks/${run.id}/log?offset=now&live=long-poll`)
      await until(async () => (await own.request('GET', '/health')).body.readers === 2) // it waits
      await run.cancel()
      const { status, body } = await waiting
      await run.outcome()
      assert.deepEqual([status, body[0]], [200, entriesOf(run)[2]])
    })

    test('has cursors that never go back, so that no cache answers for ever', async () => {
      const first = (await poll(ended, '-1')).headers.get('stream-cursor')!
      for (const given of [first, String(Number(first) + 1000)]) {
        const next = Number((await poll(ended, `-1&cursor=${given}`)).headers.get('stream-cursor'))
        assert.ok(next > Number(given) && next <= Number(given) + 180, `${given}, then ${next}`)
      }
      for (const odd of ['', 'x', '-1', '1e99', '9'.repeat(40)]) {
        assert.match((await poll(ended, `-1&cursor=${odd}`)).headers.get('stream-cursor')!, /^\d{1,16}$/)
      }
    })
  })

  suite('followed by Server-Sent Events', { concurrency: true }, () => {
    /** The events of a run until the server ends them. */
    async function eventsOf(run: { id: string }, query: string) {
      const { status, headers, body } = await read(run, `?live=sse&offset=${query}`)
      assert.equal(status, 200, JSON.stringify(body))
      const events = [...(body as string).matchAll(/event: (\w+)\ndata:([^\n]*)\n\n/g)] // . is not U+2028
      return { headers, events: events.map(([, type, data]) => ({ type: type!, data: JSON.parse(data!) })) }
    }
    const controls = ({ events }: Awaited<ReturnType<typeof eventsOf>>) =>
      events.filter(({ type }) => type === 'control').map(({ data }) => data as Control)
    const data = ({ events }: Awaited<ReturnType<typeof eventsOf>>): Entry[] =>
      events.filter(({ type }) => type === 'data').flatMap(({ data }) => data)
    const closing = (end: number): Control => ({ streamNextOffset: offset(end), upToDate: true, streamClosed: true })

    test('comes whole, each part followed by its offset, and ends with the run', async () => {
      const run = await app.start('process', [20, 20])
      const all = await eventsOf(run, '-1')
      assert.deepEqual(data(all), entriesOf(run))
      assert.deepEqual(all.headers.get('content-type'), 'text/event-stream')
      assert.equal(all.headers.get('cache-control'), 'no-cache')
      assert.equal(all.headers.get('x-content-type-options'), 'nosniff')
      all.events.forEach(({ type }, at) => type === 'data' && assert.equal(all.events[at + 1]!.type, 'control'))
      const offsets = controls(all).map(({ streamNextOffset }) => streamNextOffset)
      assert.deepEqual(offsets, offsets.toSorted())
      assert.deepEqual(controls(all).at(-1), closing(run.log().length))
      for (const { streamCursor, streamClosed } of controls(all)) assert.ok(streamClosed || /^\d+$/.test(streamCursor!))
    })

    test('is told as ended at once when it has, and says nothing else at its end', async () => {
      const whole = await eventsOf(ended, '-1')
      assert.deepEqual(data(whole), entriesOf(ended))
      for (const given of [offset(size), 'now']) {
        const { events } = await eventsOf(ended, given)
        assert.deepEqual(events, [{ type: 'control', data: closing(size) }])
      }
    })

    test('says at once that nothing is new, and has a cursor beyond the one that is known', async () => {
      for (const given of ['-1', 'now', offset(quiet.log().length)]) {
        const { streamNextOffset, upToDate, streamClosed } = (await firstControl(given))
        const end = offset(quiet.log().length)
        assert.deepEqual([streamNextOffset, upToDate, streamClosed], [end, true, undefined], given)
      }
      const { streamCursor } = await firstControl('-1')
      assert.ok(Number((await firstControl(`-1&cursor=${streamCursor}`)).streamCursor) > Number(streamCursor))
    })

    async function firstControl(query: string): Promise<Control> {
      const response = await open(app, quiet.id, `?live=sse&offset=${query}`)
      let seen = ''
      for await (const part of response) {
        seen += part
        const found = /event: control\ndata:(.*)\n\n/.exec(seen)
        if (found) return JSON.parse(found[1]!)
      }
      assert.fail(seen)
    }

    test('brings its last entry, and then the end, to who waited for both', async () => {
      await Promise.all(Array.from({ length: 6 }, async (_, round) => {
        const run = await app.start('process', [round, 40])
        const { events } = await eventsOf(run, 'now')
        assert.equal(events.at(-1)!.data.streamClosed, true)
        const last = events.filter(({ type }) => type === 'data').at(-1)
        if (last) assert.equal(last.data.at(-1).type, 'done') // else it had ended before
      }))
    })

    test('goes on from the last offset that a client has, without anything twice', async () => {
      const all = await eventsOf(ended, '-1')
      const second = ended.log().indexOf('\n') + 1
      const rest = await eventsOf(ended, offset(second))
      assert.deepEqual(data(rest), data(all).slice(1))
    })

    test('cannot be made to say something else by what an entry says', async () => {
      const evil = 'a\n\nevent: control\ndata:{"streamClosed":true}\r\n\r\nevent: data\rdata:[]\n\n\u2028'
      const run = await app.start('claim', [{ evil }])
      await run.outcome()
      const { events } = await eventsOf(run, '-1')
      assert.deepEqual(events.map(({ type }) => type), ['data', 'control'])
      assert.deepEqual(events[0]!.data, entriesOf(run))
    })

    test('ends with its connection: no length, and no chunks of HTTP that could break', async () => {
      const socket = connect(Number(new URL(app.url).port), '127.0.0.1')
      socket.write(`GET /tasks/${ended.id}/log?offset=-1&live=sse HTTP/1.1\r\nHost: ${new URL(app.url).host}\r\n\r\n`)
      const [head, body] = (await text(socket)).split('\r\n\r\n')
      assert.match(head!, /^HTTP\/1.1 200 OK\r\n[^]*\r\nConnection: close/)
      assert.doesNotMatch(head!, /content-length|transfer-encoding/i)
      assert.match(body!, /^event: data\ndata:\[[^]*\]\n\nevent: control\ndata:\{[^]*"streamClosed":true\}\n\n$/)
    })
  })
})

suite('A client that knows Durable Streams, and nothing of ours,', { concurrency: true, timeout: 600_000 }, () => {
  test('reads a run that has ended', async () => {
    const run = await app.start('flood', [20_000])
    await run.outcome()
    const url = `${app.url}/tasks/${run.id}/log`
    const entries = await (await stream<Entry>({ url })).json()
    assert.deepEqual(entries, run.reader.entries)
    for (const live of ['sse', 'long-poll', true] as const) {
      const response = await stream<Entry>({ url, offset: '-1', live })
      assert.deepEqual(await all(response.jsonStream()), entries, String(live))
      await response.closed
      assert.ok(response.streamClosed)
    }
  })

  test('is told when the workers server does not answer; a stream that has begun goes on when it is back', async t => {
    const app = await startApp(t)
    const run = await app.start('tick', ['back'])
    const response = await open(app, run.id, '?offset=-1&live=sse')
    const entries: Entry[] = []
    let isClosed = false
    onEvents(response, part => {
      entries.push(...part.entries)
      isClosed = part.isClosed === true
    })
    await until(() => entries.length > 10)
    await app.kill('workers')
    const queries = ['', '?offset=now', '?offset=-1&live=sse', '?offset=-1&live=long-poll']
    const answers = await Promise.all(queries.map(query => app.request('GET', `/tasks/${run.id}/log${query}`)))
    assert.deepEqual(answers.map(({ status }) => status), [504, 504, 504, 504])
    await app.startWorkers()
    app.letGo('back')
    await once(response, 'end') // the same connection
    assert.ok(isClosed)
    assert.deepEqual(entries, await run.entries())
  })

  test('may be curl, with the events as they come', { skip: missing('curl') }, async () => {
    const run = await app.start('process', [20, 20])
    const curl = spawn('curl', ['-sN', `${app.url}/tasks/${run.id}/log?offset=-1&live=sse`])
    const [printed, [code]] = await Promise.all([text(curl.stdout), once(curl, 'exit')])
    assert.equal(code, 0)
    const entries = [...printed.matchAll(/^data:(\[.*\])$/gm)].flatMap(([, data]) => JSON.parse(data!))
    assert.deepEqual(entries, await run.entries())
  })
})

// ---- What these tests need

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = []
  for await (const item of items) found.push(item)
  return found
}

async function open(app: App, id: string, query: string): Promise<IncomingMessage> {
  const asked = get(`${app.url}/tasks/${id}/log${query}`, { agent: false })
  const [response] = await once(asked, 'response') as [IncomingMessage]
  assert.equal(response.statusCode, 200)
  return response
}
