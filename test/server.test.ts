// The web server among faults: it dies, stops, is cut off, and its readers are slow, many, or gone. They get every
// entry all the same, once, in order. (What malformed requests do is in access.test.ts.)

import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { type IncomingMessage, request } from 'node:http'
import { connect, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { App, Events, logOf, missing, Reader, until } from './app.ts'

suite('The web server', { concurrency: true, timeout: 600_000 }, () => {
  suite('brings every entry to its reader once, although', { concurrency: 1 }, () => {
    const app = new App({})
    let line: Line
    test.before(async () => { line = await startWithLine(app) })
    test.after(() => {
      line.end()
      return app.end()
    })

    test('the web server is killed, twice, and started again', async () => {
      const { reader, ...run } = await app.start('tick', ['killed'])
      const events = new Events(app, run.id)
      for (const seen of [20, 60]) {
        await reader.until(({ entries }) => entries.length > seen)
        await app.kill('server')
        await events.closed
        await app.startServer()
        events.connect()
      }
      app.letGo('killed')
      await reader.done()
      for (; !events.isClosed; events.connect()) await events.closed
      assert.deepEqual(events.reader.entries, reader.entries)
      assert.equal(reader.lines.join('\n') + '\n', logOf(app, run.id))
    })

    test('no message of it, not even the last, reaches the web server, or the connection breaks in the middle', async () => {
      line.cut()
      const silent = await app.start('process', [20, 10])
      assert.equal((await silent.outcome()).outcome, 'ok')
      assert.equal(silent.reader.entries.filter(({ type }) => type === 'msg').length, 20)

      line.mend()
      const run = await app.start('tick', ['cut'])
      await run.reader.until(({ entries }) => entries.length > 20)
      line.cut()
      await run.reader.until(({ entries }) => entries.length > 100)
      line.mend()
      app.letGo('cut')
      assert.equal((await run.outcome()).outcome, 'ok')
    })
  })

  // One after the other: some look at what is in a folder, others at what is sent within milliseconds.
  suite('with much to do', { concurrency: 1 }, () => {
    const app = new App({ PROCESS_LIMIT: '20', MAX_UPLOAD: '100000' })
    test.before(() => app.startBoth())
    test.after(() => app.end())

    test('sends no more than a window to a page that does not say what it has rendered', async () => {
      const run = await app.start('flood', [40_000], { id: 'unrendered' })
      await run.outcome()
      const socket = await app.connect()
      let size = 0
      let pieces: { next: number }[] = []
      socket.on('message', text => {
        const piece = JSON.parse(String(text))
        if (piece.id !== 'unrendered') return
        size += String(text).length
        pieces.push(piece)
      })
      socket.send(JSON.stringify({ start: 'unrendered' }))
      await until(() => size > 2 ** 19)
      await (await app.start('process', [10, 10])).outcome() // time in which it could send more
      assert.ok(size < 2 * 2 ** 20, `${size} bytes were sent`)
      const reader = new Reader('unrendered', pieces.at(-1)!.next)
      reader.attach(socket)
      assert.equal((await reader.done()).at(-1)!.type, 'done')
      socket.terminate()
    })

    test('serves files that runs produced in ranges, so that a download that was cut off is gone on with', async () => {
      const run = await app.start('produce', [1000])
      await run.outcome()
      const path = `/files/${run.id}.txt`
      writeFileSync(join(app.runs, path), '0123456789')
      const part = async (range: string, headers = {}) => {
        const answer = await app.request('GET', path, undefined, { range, ...headers })
        return [answer.status, answer.body, answer.headers.get('content-range')]
      }
      const whole = await app.request('GET', path)
      assert.deepEqual([whole.status, whole.body, whole.headers.get('accept-ranges')], [200, '0123456789', 'bytes'])
      for (const [range, bytes, place] of [
        ['bytes=0-3', '0123', '0-3'], ['bytes=4-', '456789', '4-9'], ['bytes=-3', '789', '7-9'], ['bytes=9-9', '9', '9-9'],
        ['bytes=5-99', '56789', '5-9'], ['bytes=-99', '0123456789', '0-9'], ['Bytes=0-0', '0', '0-0'],
      ] as const) assert.deepEqual(await part(range), [206, bytes, `bytes ${place}/10`], range)
      for (const range of ['bytes=10-', 'bytes=99-100', 'bytes=-0']) {
        const [status, , place] = await part(range)
        assert.deepEqual([status, place], [416, 'bytes */10'], range)
      }
      for (const range of ['bytes=3-2', 'bytes=-', 'bytes=0-1,4-5', 'lines=0-1', 'bytes=a-b', 'bytes=0x1-2']) {
        assert.deepEqual(await part(range), [200, '0123456789', null], range)
      }
      const tag = whole.headers.get('etag')!
      assert.deepEqual(await part('bytes=4-', { 'if-range': tag }), [206, '456789', 'bytes 4-9/10'])
      for (const known of [tag, `W/${tag}`, `"other", ${tag}`, '*']) {
        assert.deepEqual(await part('bytes=4-', { 'if-none-match': known }), [304, '', null], known)
      }
      assert.equal((await part('bytes=4-', { 'if-none-match': '"other"' }))[0], 206)
      const head = await app.request('HEAD', path, undefined, { range: 'bytes=4-' })
      assert.deepEqual([head.status, head.headers.get('content-length')], [200, '10'])
      writeFileSync(join(app.runs, path), 'another file')
      assert.deepEqual(await part('bytes=4-', { 'if-range': tag }), [200, 'another file', null])
      writeFileSync(join(app.runs, path), '')
      assert.deepEqual([(await app.request('GET', path)).body, (await part('bytes=0-'))[0]], ['', 416])
    })

    test('lets curl go on with a download after it was cut off', { skip: missing('curl') }, async t => {
      const run = await app.start('produce', [20_000_000])
      await run.outcome()
      const file = join(app.runs, 'downloaded')
      const download = (...options: string[]) =>
        spawn('curl', ['-sS', '-C', '-', ...options, '-o', file, `${app.url}/files/${run.id}.txt`], { stdio: 'inherit' })
      const slow = download('--limit-rate', '1M')
      t.after(() => slow.kill())
      await until(() => (statSync(file, { throwIfNoEntry: false })?.size ?? 0) > 100_000)
      slow.kill()
      await once(slow, 'exit')
      const { size } = statSync(file)
      assert.ok(size < 20_000_000)
      assert.deepEqual(await once(download(), 'exit'), [0, null])
      assert.equal(statSync(file).size, 20_000_000)
    })

    test('keeps nothing of an upload that breaks off, or is too large', async () => {
      const uploads = join(app.runs, 'uploads')
      const broken = request(`${app.url}/files`, { method: 'POST', headers: { 'content-length': 50_000 } })
      broken.on('error', () => {}).write(Buffer.alloc(20_000))
      await until(() => readdirSync(uploads).length > 0)
      broken.destroy()
      await until(() => readdirSync(uploads).length === 0)

      assert.equal((await app.request('POST', '/files', Buffer.alloc(100_001))).status, 413)
      const endless = request(`${app.url}/files`, { method: 'POST', headers: { 'transfer-encoding': 'chunked' } })
      endless.on('error', () => {}).end(Buffer.alloc(200_000))
      const [response] = await once(endless, 'response') as [IncomingMessage]
      assert.equal(response.statusCode, 413)
      await until(() => readdirSync(uploads).length === 0)
      await app.upload(Buffer.alloc(100_000))
    })

    test('takes what is no file in their folder for missing, a FIFO or a folder, and goes on with files', { skip: missing('mkfifo') }, async () => {
      execFileSync('mkfifo', [join(app.runs, 'files/pipe.txt')])
      mkdirSync(join(app.runs, 'files/folder.txt'))
      const run = await app.start('produce', [10])
      await run.outcome()
      for (const name of ['pipe.txt', 'folder.txt']) {
        const answers = await Promise.all(Array.from({ length: 8 }, () => app.request('GET', `/files/${name}`)))
        assert.deepEqual(answers.map(({ status, body }) => [status, body.errors]), Array(8).fill([404, [`there is no file ${name}`]]))
      }
      await app.upload('x')
      assert.equal((await app.request('GET', `/files/${run.id}.txt`)).status, 200)
      assert.doesNotMatch(app.server.output.join('\n'), /Error/)
    })
  })

  suite('with others missing', { concurrency: 1 }, () => {
    const app = new App({ SPARES: '0' })
    test.before(() => app.startServer())
    test.after(() => app.end())

    test('answers a call with 504 while the workers server does not run, and the call is not executed later', async () => {
      assert.equal((await app.request('POST', '/tasks', { method: 'process', args: [1, 1] })).status, 504)
      assert.equal((await app.request('GET', '/health')).status, 503)
      await app.startWorkers()
      assert.equal((await (await app.start('process', [1, 1], { id: 'first' })).outcome()).outcome, 'ok')

      await app.kill('workers') // now with connections that were open
      const calls = [1, 2, 3].map(() => app.request('POST', '/tasks', { method: 'process', args: [1, 1] }))
      assert.deepEqual((await Promise.all(calls)).map(({ status }) => status), [504, 504, 504])
      await app.startWorkers()
      assert.equal((await (await app.start('process', [1, 1], { id: 'second' })).outcome()).outcome, 'ok')
      const { body } = await app.request('GET', '/tasks')
      assert.deepEqual(body.map(({ id }: { id: string }) => id), ['second', 'first'])
    })

    test('waits for a workers server that is busy to read a log or to cancel, but not to start a run', async () => {
      const run = await app.start('polite')
      await run.reader.until(({ entries }) => entries.length === 2)
      app.workers.process.kill('SIGSTOP')
      const [list, log] = [app.request('GET', '/tasks'), app.request('GET', `/tasks/${run.id}/log`)]
      const refused = await app.request('POST', '/tasks', { method: 'process', args: [1, 1] })
      assert.equal(refused.status, 504)
      await run.reader.until(({ workers }) => workers.includes(false))
      const cancel = run.cancel()
      app.workers.process.kill('SIGCONT')
      assert.deepEqual([(await list).status, (await log).body.length, (await cancel).status], [200, 2, 202])
      assert.equal((await run.outcome()).outcome, 'cancelled')
    })
  })
})

// ---- What these tests need

/** The line from the workers server to the web server's SUB socket, through this process: it can be cut, and mended. */
type Line = { cut(): void; mend(): void; end(): void }

/** Starts both servers of an app with such a line between them. */
async function startWithLine(app: App): Promise<Line> {
  const near = join(app.runs, 'near.sock')
  const open = new Set<Socket>()
  let whole = true
  const exchange = createServer(socket => {
    if (!whole) return void socket.destroy()
    const onward = connect(join(app.runs, 'xpub.sock'))
    for (const [from, to] of [[socket, onward], [onward, socket]] as const) {
      open.add(from)
      from.on('error', () => {}).on('close', () => to.destroy()).pipe(to)
    }
  })
  await app.startWorkers()
  exchange.listen(near)
  await once(exchange, 'listening')
  app.env.XPUB_ADDR = `ipc://${near}`
  await app.startServer()
  return {
    cut() {
      whole = false
      open.forEach(socket => socket.destroy())
    },
    mend() { whole = true },
    end() { exchange.close() },
  }
}
