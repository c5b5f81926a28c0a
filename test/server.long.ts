// The web server among faults, continued from server.test.ts: crowds of readers, and those that it waits long for, and its life on a machine of its own.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { suite, test, type TestContext } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { WebSocket } from 'ws'
import { Router } from 'zeromq'
import { App, Events, logOf, memoryOf, Reader, ROOT, startApp, tcpAddresses, until } from './app.ts'

suite('The web server', { concurrency: true, timeout: 600_000 }, () => {
  test('the web server is stopped for 10 s, and ZeroMQ drops what is above its high-water mark', async t => {
    const app = await startApp(t)
    const run = await app.start('tick', ['late'])
    const many = await app.start('murmur', ['early'])
    for (const { reader } of [run, many]) await reader.until(({ entries }) => entries.length > 20)
    await app.stall(app.server.process, run.id, many.id)
    app.letGo('early')
    await sleep(10_000)
    app.server.process.kill('SIGCONT')
    assert.equal((await many.outcome()).outcome, 'ok')
    app.letGo('late')
    assert.equal((await run.outcome()).outcome, 'ok')
  })

  // One after the other: this process does the work of 1,000 pages, and the server cuts off a page that it holds up too long.
  suite('with much to do', { concurrency: 1 }, () => {
    const app = new App({ PROCESS_LIMIT: '20', SPARES: '2' })
    test.before(() => app.startBoth())
    test.after(() => app.end())

    test('carries 1,000 pages on one run, and 1,000 more that arrive at once', async () => {
      const early = await Promise.all(Array.from({ length: 1000 }, () => app.follow('popular')))
      const run = await app.start('tick', ['popular'], { id: 'popular' })
      await run.reader.until(({ entries }) => entries.length > 5)
      const late = await Promise.all(Array.from({ length: 1000 }, () => app.follow('popular')))
      app.letGo('popular')
      await run.outcome()
      for (const reader of [...early, ...late]) {
        await reader.done()
        assert.deepEqual(reader.lines, run.reader.lines)
        reader.leave()
      }
    })

    test('holds little for pages that do not read, hurries no other, and goes on when they read again', async t => {
      const app = await startApp(t) // of its own: what others do at the same time takes memory, too
      const before = memoryOf(app.server)
      const pages = await Promise.all(Array.from({ length: 8 }, () => app.follow('large')))
      pages.forEach(({ socket }) => socket!.pause())
      const run = await app.start('flood', [200_000], { id: 'large' }) // about 18 MB, for each of them
      const clients = Array.from({ length: 8 }, () => new Events(app, 'large'))
      for (const client of clients) {
        await client.opened
        client.response!.pause()
      }
      assert.equal((await run.outcome()).outcome, 'ok')
      const grown = (memoryOf(app.server) - before) / 2 ** 20
      assert.ok(grown < 150, `the web server has grown by ${grown} MiB`)

      // If this took long, the server has taken them for gone: then they come back.
      pages.slice(1).forEach(page => page.leave())
      clients.slice(1).forEach(({ response }) => response!.destroy())
      const [page, client] = [pages[0]!, clients[0]!]
      page.socket!.resume()
      client.response!.resume()
      await page.done()
      for (; !client.reader.isDone; client.connect()) await client.closed
      assert.equal(page.next, run.reader.next)
      assert.equal(client.reader.next, run.reader.next)
    })

    test('sends nothing more of a run that a page has stopped in the middle of a catch-up, and all of it when it starts again', async () => {
      const run = await app.start('flood', [100_000], { id: 'stopped' })
      await run.outcome()
      let socket!: WebSocket
      for (let round = 0; round < 40; round++) {
        const stopAt = round % 2 && 1 + round % 7 // it stops at that piece, so that the next one is on its way
        let pieces = 0
        let late = 0
        let isStopped = false
        const stop = () => {
          socket.send(JSON.stringify({ stop: 'stopped' }))
          socket.ping()
        }
        socket?.terminate()
        socket = await app.connect()
        socket.on('pong', () => { isStopped = true }) // it has heard the stop: whatever is sent from here on is too much
        socket.on('message', text => {
          const { id, next } = JSON.parse(String(text))
          if (id !== 'stopped') return
          if (isStopped) late++
          if (++pieces === stopAt) stop()
          else socket.send(JSON.stringify({ ack: id, next }))
        })
        socket.send(JSON.stringify({ start: 'stopped' }))
        if (!stopAt) {
          await sleep(round / 8) // while it asks for the size, or for the first piece
          stop()
        }
        await once(socket, 'pong')
        await sleep(20) // time in which it could send more
        assert.equal(late, 0)
      }
      socket.removeAllListeners('message')
      const again = new Reader('stopped')
      again.attach(socket)
      await again.done()
      assert.deepEqual(again.lines, run.reader.lines)
      socket.terminate()
    })

    test('answers calls, and cancels, while 400 downloads are under way', async () => {
      const run = await app.start('flood', [6000], { id: 'downloaded' })
      await run.outcome()
      let underWay = 400
      const downloads = Array.from({ length: underWay }, () => app.request('GET', '/tasks/downloaded/log.ndjson').finally(() => underWay--))
      const polite = await app.start('polite')
      assert.equal((await polite.cancel()).status, 202)
      assert.ok(underWay > 0, 'some downloads are under way')
      assert.equal((await polite.outcome()).outcome, 'cancelled')
      for (const { status, body } of await Promise.all(downloads)) assert.deepEqual([status, body.length], [200, run.reader.next])
    })
  })

  test('works from a machine of its own: over tcp, with a folder that it shares with nobody', async t => {
    const addresses = tcpAddresses()
    const [here, there] = [new App(addresses), new App(addresses)]
    t.after(() => here.end())
    t.after(() => there.end())
    await there.startWorkers()
    await here.startServer()
    const run = await here.start('tick', ['go'])
    await run.reader.until(({ entries }) => entries.length > 10)
    const late = await here.follow(run.id)
    there.letGo('go')
    assert.equal((await late.done()).at(-1)!.type, 'done')
    await run.entries()
    for (const reader of [run.reader, late]) assert.equal(reader.lines.join('\n') + '\n', logOf(there, run.id))
  })

  test('cuts off pages and clients of events that have gone without a word', async t => {
    const app = await startApp(t, { PROCESS_LIMIT: '4' })
    const flood = async (count: number, id: string) => {
      assert.equal((await app.request('POST', '/tasks', { method: 'flood', args: [count], id, callId: id })).status, 202)
    }
    const id = 'forsaken'
    await flood(200_000, id) // more than the kernel holds for them
    const page = connect(Number(new URL(app.url).port), '127.0.0.1')
    t.after(() => page.destroy())
    page.on('error', () => {}).write(`GET /log HTTP/1.1\r\nHost: ${new URL(app.url).host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n`
      + 'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n')
    await once(page, 'data') // and never again: its process has been stopped
    page.pause()
    const start = Buffer.from(JSON.stringify({ start: id }))
    page.write(Buffer.concat([Buffer.from([0x81, 0x80 | start.length, 0, 0, 0, 0]), start]))
    const events = new Events(app, id)
    await events.opened
    events.response!.pause()
    // All of it has been sent, so what waits is less than a reader may have unacknowledged: how much the kernel holds varies.
    const short = [70_000, 80_000, 90_000].map(count => ({ count, id: `forsaken-${count}` }))
    for (const { count, id } of short) await flood(count, id)
    const clients = short.map(({ id }) => new Events(app, id))
    for (const client of clients) {
      await client.opened
      client.response!.pause()
    }

    const readers = async () => (await app.request('GET', '/health')).body.readers
    let most = 0
    await until(async () => {
      const now = await readers()
      most = Math.max(most, now)
      return most && !now
    })
    for (const client of [events, ...clients]) client.response!.destroy()
  })

  test('refuses nothing that waited for it while it was stopped: who is cut off comes again', async t => {
    const app = await startApp(t)
    const { port, host } = new URL(app.url)
    const clients = Array.from({ length: 10 }, () => connect(Number(port), '127.0.0.1').on('error', () => {}))
    const answers = clients.map(client => text(client).catch(() => '')) // cut off
    await Promise.all(clients.map(client => once(client, 'connect')))
    await app.request('GET', '/health') // they have been accepted
    const busy = connect(Number(port), '127.0.0.1').on('error', () => {}).resume()
    busy.write(`GET /nothing HTTP/1.1\r\nHost: ${host}\r\n\r\n`.repeat(20_000))
    await once(busy, 'data') // it is in the middle of something
    app.server.process.kill('SIGSTOP')
    for (const client of clients) client.write(`GET /tasks HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`)
    await sleep(16_000) // longer than it waits for the head of a request, and looks again
    app.server.process.kill('SIGCONT')
    for (const answer of await Promise.all(answers)) assert.match(answer, /^(HTTP\/1.1 200 [^]*)?$/)
    busy.destroy()
    assert.equal((await app.request('GET', '/tasks')).status, 200)
  })

  test('asks the next workers server what the one before has not answered, but starts nothing twice', async t => {
    const app = new App(tcpAddresses())
    t.after(() => app.end())
    await app.startServer()
    const before = await startRouter(t, app)
    const [list, start] = [app.request('GET', '/tasks'), app.request('POST', '/tasks', { method: 'process' })]
    const asked = new Set<string>()
    for await (const frames of before) if (asked.add(String(frames[2])).has('process') && asked.has('list')) break
    await before.unbind(app.env.REP_ADDR!)
    before.close()
    assert.equal((await start).status, 504)
    const next = await startRouter(t, app)
    for await (const [peer, empty, method] of next) {
      assert.notEqual(String(method), 'process')
      await next.send([peer!, empty!, '__RES__', '[]'])
      if (String(method) === 'list') break
    }
    assert.deepEqual((await list).body, [])
  })

  test('tells who comes back to a run whose log was removed meanwhile; who wants it from its beginning may be early', async t => {
    const app = await startApp(t, { KEEP_RUNS: '1', PROCESS_LIMIT: '8' })
    const run = await app.start('process', [3, 1])
    await run.outcome()
    const { next } = run.reader
    for (let others = 0; others < 2; others++) await (await app.start('process', [1, 0])).outcome()
    await until(async () => (await app.call('stat', '', '', JSON.stringify([[run.id]])))[1] === '{}')
    const [early, back, odd, never] = await Promise.all([
      app.follow(run.id), app.follow(run.id, next), app.follow(run.id, 7), app.follow('never', 1)])
    for (const reader of [back, odd, never]) {
      await reader.until(({ errors }) => errors.length > 0)
      assert.deepEqual(reader.errors, ['the log of this run is gone'])
    }
    assert.deepEqual([early.errors, early.entries], [[], []])
    for (const live of ['', '&live=sse', '&live=long-poll']) {
      for (const offset of ['-1', String(next)]) {
        const { status } = await app.request('GET', `/tasks/${run.id}/log?offset=${offset}${live}`)
        assert.equal(status, 404, offset + live)
      }
    }
    for (const reader of [early, back, odd, never]) reader.leave()

    const [over, going] = [await app.start('process', [3, 1]), await app.start('polite')] // and when a person removes it
    await Promise.all([over.outcome(), going.reader.until(({ entries }) => entries.length === 2)])
    for (const { id } of [over, going]) rmSync(join(app.runs, `${id}.ndjson`))
    const later = await app.follow(over.id, 7)
    for (const reader of [later, going.reader]) {
      await reader.until(({ errors }) => errors.length > 0)
      assert.match(reader.errors[0]!, /is gone|was removed/)
      reader.leave()
    }
  })

  test('says that its port is taken, and ends with exit code 1', async t => {
    const taken = createServer().listen(0, '127.0.0.1')
    t.after(() => taken.close())
    await once(taken, 'listening')
    const { port } = taken.address() as { port: number }
    const app = new App({ PORT: String(port) })
    t.after(() => app.end())
    const server = spawn(process.execPath, ['--import', './loader.js', 'server.ts'], { cwd: ROOT, env: { ...process.env, ...app.env } })
    let said = ''
    server.stderr.on('data', text => { said += text })
    const [code] = await once(server, 'close')
    assert.equal(code, 1)
    assert.match(said, new RegExp(`^longrun: cannot listen on 127.0.0.1:${port}: .*set PORT to another\\s*$`))
  })
})

/** In the place of a workers server: what the web server asks. */
async function startRouter(t: TestContext, app: App): Promise<Router> {
  const router = new Router({ linger: 0 })
  t.after(() => router.close())
  await router.bind(app.env.REP_ADDR!)
  return router
}
