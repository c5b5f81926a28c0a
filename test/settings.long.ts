// Each bad setting ends its server at the start, with a sentence that says what to do.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { networkInterfaces } from 'node:os'
import { join, relative } from 'node:path'
import { test } from 'node:test'
import { App, ROOT, startApp, startServer, until } from './app.ts'

const IMPORT = `import { remote } from '${ROOT}/remote.ts'\n` // of a module of one's own
const TOKEN = 'a-long-token-of-letters'
const THEIRS = 'https://app.example.org' // the web application whose pages may follow runs

test('a bad setting of the workers server is a clear error at the start', async t => {
  const app = new App({})
  t.after(() => app.end())
  const module = (name: string, text: string) => {
    writeFileSync(join(app.runs, name), IMPORT + text)
    return join(app.runs, name)
  }
  for (const [env, message] of [
    [{ PROCESS_LIMIT: 'many' }, /PROCESS_LIMIT=many is not a whole number from 1/],
    [{ PROCESS_LIMIT: '0' }, /PROCESS_LIMIT=0/],
    [{ TIME_LIMIT: '-1' }, /TIME_LIMIT=-1/],
    [{ REP_ADDR: 'udp://x' }, /REP_ADDR=udp:\/\/x is neither/],
    [{ REP_ADDR: `ipc:///tmp/${'x'.repeat(120)}` }, /longer than 107 bytes/],
    [{ REP_ADDR: 'tcp://nonsense' }, /REP_ADDR=tcp:\/\/nonsense is neither/],
    [{ XSUB_ADDR: 'tcp://*:7000' }, /XSUB_ADDR=tcp:\/\/\*:7000 is neither/],
    [{ REP_ADDR: 'tcp://nowhere.invalid:7000' }, /cannot listen on tcp:\/\/nowhere/],
    [{ TASKS: '/nowhere.ts' }, /cannot load the remote functions, TASKS is \/nowhere.ts: .*Cannot find module/],
    [{ TASKS: module('unmarked.ts', 'export const x = () => {}') }, /unmarked.ts exports no remote function/],
    [{ TASKS: module('nameless.ts', "export default remote('', [], () => {})") }, /cannot be named default: export const/],
    [{ TASKS: module('wrong.ts', "export const x = remote('without parameters', () => {})") }, /remote\(\) takes a description, an array of parameters, and a function/],
    [{ RUNS: '/dev/null' }, /cannot create the runs folder/],
    [{ REP_ADDR: `ipc://${module('thesis.txt', '')}` }, /cannot listen on ipc:.*thesis\.txt: what stands there is no socket/],
    ...['http://localhost', 'localhost:80', '[::1]', '*'].map(HOST => [{ HOST }, /HOST=.* is no address, nor a name, of this machine/]),
    [{ REP_ADDR: 'ipc://@everybody' }, /REP_ADDR=ipc:\/\/@everybody is neither/],
    [{ XSUB_ADDR: 'ipc://both', XPUB_ADDR: 'ipc://both' }, /have to be three addresses/],
    ...['*', '.a.b', 'https://a.b', 'a.b/c', 'ä.b'].map(host => [{ ALLOWED_HOSTS: `c.d:80 ${host}` }, /ALLOWED_HOSTS has .*, which is not a host such as/]),
  ] as [Record<string, string>, RegExp][]) {
    await assert.rejects(startServer('workers.ts', { ...app.env, ...env }), message)
  }
  assert.equal(readFileSync(join(app.runs, 'thesis.txt'), 'utf8'), IMPORT, 'and nothing is lost')
  rmSync(join(app.runs, 'workers.pid'), { force: true })
  execFileSync('mkfifo', [join(app.runs, 'workers.pid')])
  await assert.rejects(startServer('workers.ts', app.env), /cannot write to .*workers.pid/)
})

test('pages of others are only allowed where there is a token, and by an origin as browsers say it', async t => {
  const app = new App({})
  t.after(() => app.end())
  const refused = (ALLOWED_ORIGINS: string, TOKEN: string, why: RegExp) =>
    assert.rejects(startServer('server.ts', { RUNS: app.runs, PORT: '0', ALLOWED_ORIGINS, TOKEN }), why)
  const odd = ['app.example.org', `${THEIRS}/`, `${THEIRS}/page`, '*', 'null', 'file://', 'https://A.b', 'ftp://a.b']
  await refused(THEIRS, '', /ALLOWED_ORIGINS needs a TOKEN/)
  for (const origin of odd) await refused(origin, TOKEN, /which is not an origin such as https:/)
})

test('parameters of a type that there is not, or whose default or choices are not of theirs, are refused at the start, and a module may offer our functions, too', async t => {
  const app = new App({})
  t.after(() => app.end())
  const tasks = join(app.runs, 'own.ts')
  for (const [text, message] of [
    [`export const x = remote('', [{ name: 'n', type: 'int', description: '' }], () => {})`, /parameter n: there is no type int, only string, text/],
    [`export const x = remote('', [{ name: 'n', type: 'toString', description: '' }], () => {})`, /there is no type toString/],
    [`export const x = remote('', [{ name: 'n', type: 'integer', description: '', default: 'x' }], () => {})`, /parameter n: 'x' is not a number/],
    [`export const x = remote('', [{ name: 'n', type: 'number', description: '', default: 0, min: 1 }], () => {})`, /parameter n: 0 is not from 1 to Infinity/],
    [`export const x = remote('', [{ name: 'n', type: 'string', description: '', choices: ['a'], default: 'b' }], () => {})`, /parameter n: 'b' is not one of a/],
    [`export const x = remote('', [{ name: 'n', type: 'integer', description: '', choices: ['1', '2'] }], () => {})`, /parameter n: '1' is not a number/],
    ['throw null', /cannot load the remote functions, TASKS is .*own.ts: Error: it threw null/],
    [`throw Object.assign(new Error('on purpose'), { code: 7 })`, /TASKS is .*own.ts: Error: on purpose/],
    ['process.exit()', /longrun: .*own.ts ended the process while it was loaded/],
  ] as const) {
    writeFileSync(tasks, IMPORT + text)
    await assert.rejects(new App({ ...app.env, TASKS: tasks }).startWorkers(), message)
  }
  const own = `export const greet = remote('greets', [], () => 'hello')\n`
  for (const [text, offered] of [
    [IMPORT + own, ['greet']],
    [`${IMPORT}${own}export * from '${relative(app.runs, join(ROOT, 'tasks.ts'))}'`, ['compile', 'greet', 'importCsv', 'process']],
  ] as const) {
    writeFileSync(tasks, text)
    app.env.TASKS = tasks
    await app.startWorkers()
    const methods = JSON.parse((await app.call('methods', '', '', '[]'))[1]) as { name: string }[]
    assert.deepEqual(methods.map(({ name }) => name).sort(), offered)
    await app.kill('workers', 'SIGTERM')
  }
})

test('beyond this machine a web server waits for the key of the workers server, and then says what to do', async t => {
  const far = new App({ REP_ADDR: 'tcp://192.0.2.1:7001', XPUB_ADDR: 'tcp://192.0.2.1:7002' })
  t.after(() => far.end())
  await assert.rejects(far.startServer(), /no key of the workers server: .*server\.public.*; start it first, or copy/)
})

const noIpv6 = !Object.values(networkInterfaces()).flat().some(found => found?.address === '::1') && 'no IPv6'

test('addresses, the one of the web server too, may be of IPv6', { skip: noIpv6 }, async t => {
  const probes = [1, 2, 3].map(() => createServer().listen(0, '::1'))
  await Promise.all(probes.map(probe => once(probe, 'listening')))
  const [REP_ADDR, XSUB_ADDR, XPUB_ADDR] = probes.map(probe => `tcp://[::1]:${(probe.address() as AddressInfo).port}`)
  for (const probe of probes) probe.close()
  const app = await startApp(t, { HOST: '::1', REP_ADDR: REP_ADDR!, XSUB_ADDR: XSUB_ADDR!, XPUB_ADDR: XPUB_ADDR! })
  const { status } = await app.request('POST', '/tasks', { method: 'process', args: [3, 1], id: 'six' })
  assert.equal(status, 202)
  await until(async () => (await app.request('GET', '/tasks/six')).body.outcome === 'ok')
})
