// Clients of Durable Streams, continued from stream.test.ts: each way to follow a run, through each fault of the servers.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { get } from 'node:http'
import { connect } from 'node:net'
import { text } from 'node:stream/consumers'
import { suite, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { stream } from '@durable-streams/client'
import type { Entry } from '../log.ts'
import { type App, logOf, missing, startApp, until } from './app.ts'

suite('A client that knows Durable Streams, and nothing of ours,', { concurrency: true, timeout: 600_000 }, () => {
  for (const live of ['sse', 'long-poll'] as const) {
    test(`follows a run by ${live} while the web server is killed, twice, and started again`, async t => {
      const app = await startApp(t)
      const run = await app.start('tick', ['go'])
      const client = await follow(app, run.id, live)
      for (const seen of [20, 200]) {
        await until(() => client.entries.length > seen)
        await app.kill('server')
        await app.startServer()
      }
      app.letGo('go')
      await client.ended
      assert.deepEqual(client.entries, await run.entries())
      assert.equal(client.lines(), logOf(app, run.id))
    })

    test(`follows a run by ${live} while the workers server is killed, and started again`, async t => {
      const app = await startApp(t)
      const run = await app.start('tick', ['go'])
      const client = await follow(app, run.id, live)
      await until(() => client.entries.length > 20)
      await app.kill('workers')
      await app.startWorkers()
      app.letGo('go')
      await client.ended
      assert.equal(client.lines(), logOf(app, run.id))
      assert.equal(client.entries.at(-1)!.type, 'done')
    })

    test(`follows a flood by ${live}, with the web server stopped in the middle`, async t => {
      const app = await startApp(t)
      const run = await app.start('murmur', ['go'])
      const client = await follow(app, run.id, live)
      await until(() => client.entries.length > 100)
      await app.stall(app.server.process, run.id)
      app.letGo('go')
      app.server.process.kill('SIGCONT')
      await client.ended
      assert.equal(client.lines(), logOf(app, run.id))
    })
  }

  test('may be curl: one long-poll after the other, from the offset that the last one told', { skip: missing('curl') }, async t => {
    const app = await startApp(t)
    const run = await app.start('tick', ['go'])
    const printed = text(spawn('sh', ['-c', `
      offset=-1
      until grep -qi '^stream-closed: true' head 2>/dev/null; do
        curl -s --retry 99 --retry-delay 1 --retry-all-errors -D head -o body "$URL?offset=$offset&live=long-poll" &&
          { cat body; : > body; offset=$(sed -n 's/^stream-next-offset: \\([0-9]*\\).*/\\1/Ip' head); }
      done`], { cwd: app.runs, env: { ...process.env, URL: `${app.url}/tasks/${run.id}/log` } }).stdout)
    await run.reader.until(({ entries }) => entries.length > 30)
    await app.kill('server')
    await app.startServer()
    app.letGo('go')
    await run.entries()
    assert.deepEqual(JSON.parse(`[${(await printed).replaceAll('][', '],[')}]`).flat(), await run.entries())
  })
})

/** The official client, as its documentation shows it; it comes again by itself. */
async function follow(app: App, id: string, live: 'sse' | 'long-poll') {
  const entries: Entry[] = []
  const url = `${app.url}/tasks/${id}/log`
  const response = await stream<Entry>({ url, offset: '-1', live, sseResilience: { logWarnings: false } })
  async function take() {
    for await (const entry of response.jsonStream()) entries.push(entry)
    assert.ok(response.streamClosed, 'it has learned of the end')
  }
  return { entries, ended: take(), lines: () => entries.map(entry => `${JSON.stringify(entry)}\n`).join('') }
}

suite('The log of a run is a stream that', () => {
  test('leaves no reader behind when its client goes, and neither does a long-poll', async t => {
    const own = await startApp(t) // its readers are counted
    const run = await own.start('polite')
    const readers = async () => (await own.request('GET', '/health')).body.readers
    const host = new URL(own.url)
    for (const query of ['?offset=now&live=sse', '?offset=now&live=long-poll']) {
      const address = `${own.url}/tasks/${run.id}/log${query}`
      const clients = Array.from({ length: 20 }, () => get(address, { agent: false }).on('error', () => {}))
      await until(async () => await readers() === 21)
      clients.forEach(client => client.destroy())
      await until(async () => await readers() === 1)
      // Some go while the server looks whether there is something for them.
      for (let round = 0; round < 20; round++) {
        const early = connect(Number(host.port), host.hostname).on('error', () => {})
        await once(early, 'connect')
        early.write(`GET /tasks/${run.id}/log${query} HTTP/1.1\r\nHost: ${host.host}\r\n\r\n`)
        await sleep(round / 5)
        early.resetAndDestroy()
      }
      await until(async () => await readers() === 1)
    }
  })
})
