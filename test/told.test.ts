// What an application hears of the runs that it has started: one run by its address, and a command at its end.

import assert from 'node:assert/strict'
import { createHmac, randomBytes } from 'node:crypto'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { after, before, suite, test } from 'node:test'
import { App, gone, readmeBlocks, type Run, startApp, until } from './app.ts'
import { LISTENER } from './told.ts'

const TOKEN = 'a-token-for-the-application'

suite('An application', { concurrency: 4 }, () => {
  const heard = mkdtempSync(join(tmpdir(), 'longrun-heard-'))
  writeFileSync(join(heard, 'listener'), LISTENER)
  const app = new App({ PROCESS_LIMIT: '16', ON_DONE: `sh  ${join(heard, 'listener')}`, HEARD: heard })
  before(() => app.startBoth())
  after(() => app.end().finally(() => rmSync(heard, { recursive: true })))

  const show = async (id: string) => (await app.request('GET', `/tasks/${id}`)).body
  /** What the command has heard of a run: the line of JSON, and the token of its environment. */
  async function hears(id: string): Promise<any> {
    await until(() => existsSync(join(heard, id)), `the end of ${id} is told`)
    const [json, token] = readFileSync(join(heard, id), 'utf8').split('\n')
    return { ...JSON.parse(json!), token }
  }

  test('is told where a run is when it starts one, and sees there what the list says, and how far it is', async () => {
    const { status, headers } = await app.request('POST', '/tasks', { method: 'tick', args: ['show'], id: 'shown', callId: 'ada/1' })
    assert.deepEqual([status, headers.get('location')], [202, 'tasks/shown'])
    const reported = await app.start('reports', [{ 1: ['step', 'build'], 2: ['progress', 3, 9, 'files'], 3: ['step', 'test'], 4: ['warning', 'w'], 5: ['error', 'e'], 6: ['error', 'f'] }])
    await reported.outcome()
    const { outcome, step, progress, errors, warnings, seconds } = await show(reported.id)
    assert.deepEqual({ outcome, step, progress, errors, warnings, seconds: typeof seconds },
      { outcome: 'ok', step: 'test', progress: { current: 3, total: 9, unit: 'files' }, errors: 2, warnings: 1, seconds: 'number' })
    const listed = (await app.request('GET', '/tasks')).body.find(({ id }: { id: string }) => id === 'shown')
    const shown = await show('shown')
    assert.deepEqual([shown.id, shown.method, shown.callId, shown.outcome], ['shown', 'tick', 'ada/1', undefined])
    assert.deepEqual(Object.keys(listed).filter(name => !(name in shown)), [], 'all that the list says')
    app.letGo('show')
    assert.equal((await app.request('HEAD', '/tasks/shown')).status, 200)
    assert.equal((await app.request('GET', '/tasks/nobody')).status, 404)
  })

  test('is told no progress that lies far behind', async () => {
    const run = await app.start('reports', [{ 1: ['progress', 1, 2], 2: ['msg', 'x'.repeat(70_000)] }])
    await run.outcome()
    assert.ok(!('progress' in await show(run.id)))
  })

  test('lists the runs of one call id and of what begins with it, and only so many', async () => {
    const ids = async (query: string) => (await app.request('GET', `/tasks?${query}`)).body.map(({ callId }: { callId: string }) => callId)
    for (const callId of ['who?', 'who', 'alice/1', 'alice/2', 'alicia', 'alice']) {
      await (await app.start('process', [1, 0], { callId })).outcome()
      assert.deepEqual(await ids(`callId=${encodeURIComponent(callId)}&limit=2`), [callId, ...callId === 'alice' ? ['alice/2'] : []])
    }
    assert.deepEqual(await ids('callId=alice'), ['alice', 'alice/2', 'alice/1'])
    assert.deepEqual(await ids('callId=alice%2F2'), ['alice/2'])
    assert.deepEqual(await ids('callId=alice&limit=2'), ['alice', 'alice/2'])
    for (const query of ['callId=who?', 'callId=who%3F', 'limit=9&callId=who?&x=?']) assert.deepEqual(await ids(query), ['who?'], query)
    assert.deepEqual(await ids('limit=0'), [])
    for (const limit of ['007', '1000000000', '9007199254740991']) assert.deepEqual(await ids(`callId=who&limit=${limit}`), ['who'], limit)
    for (const limit of ['', 'x', '-1', '1.5', '1e3', '9007199254740992', '9'.repeat(400)]) {
      const { status, body } = await app.request('GET', `/tasks?limit=${limit}`)
      assert.deepEqual([status, body.errors], [400, ['limit must be a whole number in digits, at most 9007199254740991']], limit)
    }
    for (const args of ['[]', '[null]', '[{}]', '[{"limit":9007199254740991}]']) assert.equal((await app.call('list', '', '', args))[0], '__RES__', args)
    for (const args of ['[{"limit":"x"}]', '[{"limit":-1}]', '[{"callId":1}]', '[5]', '["x"]', '[[]]', '[true]']) assert.match((await app.call('list', '', '', args))[1], /^invalid: /)
  })

  test('hears of each end, whoever has brought it about, what is told of the run', async () => {
    const runs: [string, Run][] = [
      ['ok', await app.start('takes', ['€', 1, 1, true])], ['error', await app.start('crash', ['no'])], ['died', await app.start('exit', [3])],
    ]
    const cancelled = await app.start('polite')
    await cancelled.reader.until(({ entries }) => entries.length > 1)
    await cancelled.cancel()
    for (const [outcome, run] of [...runs, ['cancelled', cancelled] as const]) {
      const { token, ...told } = await hears(run.id)
      assert.deepEqual([told.outcome, token], [outcome, ''])
      assert.deepEqual(told, await show(run.id))
    }
  })

  test('is not waited for: one that fails is told in the terminal, one that does not read or hangs holds nobody up', async () => {
    for (const id of ['one-hangs', 'two-hangs', 'a-deaf', 'it-fails']) await (await app.start('text', [100_000], { id })).outcome()
    for (let at = 0; at < 4; at++) await hears((await app.start('process', [1, 0])).id)
    await until(() => app.workers.output.some(line => /it-fails: ON_DONE=.* failed: exit code 3/.test(line)), 'its failure is told')
    assert.ok(app.workers.output.includes('no such user'))
    for (const id of ['one-hangs', 'two-hangs']) {
      const pid = Number(readFileSync(join(heard, `${id}.pid`), 'utf8'))
      process.kill(-pid, 'SIGKILL')
    }
  })
})

test('a run that ended while no workers server ran is told when one starts, once; with ids that look like options, too', async t => {
  const heard = mkdtempSync(join(tmpdir(), 'longrun-heard-'))
  writeFileSync(join(heard, 'listener'), LISTENER)
  const app = new App({ ON_DONE: `sh ${join(heard, 'listener')}`, HEARD: heard, TOKEN, SPARES: '0' })
  t.after(() => app.end().finally(() => rmSync(heard, { recursive: true })))
  await app.startWorkers()
  const call = (method: string, id: string, ...args: unknown[]) => app.call(method, '', id, JSON.stringify(args))
  const log = (id: string) => readFileSync(join(app.runs, `${id}.ndjson`), 'utf8')
  const [, pid] = await call('tick', '-e', 'go')
  await call('tick', 'dies', 'never')
  await until(() => log('-e').includes('"msg"') && log('dies').includes('"msg"'), 'both go on')
  await app.kill('workers')
  process.kill(JSON.parse(log('dies').split('\n')[0]!).data.pid, 'SIGKILL')
  app.letGo('go')
  await gone(Number(pid))
  await app.startWorkers()
  for (const [id, outcome] of [['-e', 'ok'], ['dies', 'died']] as const) {
    await until(() => existsSync(join(heard, id)), `the end of ${id} is told`)
    const [json, token] = readFileSync(join(heard, id), 'utf8').split('\n')
    assert.deepEqual([JSON.parse(json!).outcome, token], [outcome, TOKEN])
  }
  await app.kill('workers', 'SIGTERM')
  await app.startWorkers()
  await call('process', 'last', 1, 0)
  await until(() => existsSync(join(heard, 'last')), 'the next end is told')
  assert.equal(readFileSync(join(heard, '-e.count'), 'utf8'), '\n', 'once')
})

test('the webhook of the reference is signed as Standard Webhooks say, and comes again until it is taken', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'longrun-webhook-'))
  const [webhook] = readmeBlocks('js').filter(block => block.includes('webhook-signature'))
  assert.ok(webhook!.trimEnd().split('\n').length <= 25)
  writeFileSync(join(folder, 'webhook.mjs'), webhook!)
  const secret = randomBytes(32)
  const taken = new Promise<any>(resolve => {
    const statuses = [503, 204]
    const server = createServer(async (request, response) => {
      const body = await text(request)
      const { 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': signature } = request.headers
      const right = createHmac('sha256', secret).update(`${id}.${timestamp}.${body}`).digest('base64')
      assert.ok(Math.abs(Date.now() / 1000 - Number(timestamp)) < 300)
      const status = signature === `v1,${right}` ? statuses.shift()! : 401
      response.writeHead(status).end()
      if (status === 204) resolve({ ...JSON.parse(body), id })
    }).listen(0, '127.0.0.1', async () => {
      const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
      const app = await startApp(t, { SPARES: '0', ON_DONE: `${process.execPath} ${folder}/webhook.mjs`, WEBHOOK_URL: url, WEBHOOK_SECRET: `whsec_${secret.toString('base64')}` })
      await (await app.start('takes', ['€', 1, 1, true], { id: 'hooked' })).outcome()
    })
    t.after(() => server.close())
    t.after(() => rmSync(folder, { recursive: true }))
  })
  const { id, outcome, result } = await taken
  assert.deepEqual([id, outcome, result], ['run_hooked', 'ok', ['€', 1, 1, true, {}]])
})
