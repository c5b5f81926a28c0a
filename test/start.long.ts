// How both servers are started for good: by `npm start`, in a copy that has what a container gets, and as systemd would
// do it. The README shows the Dockerfile and the units; what stands there is what runs here.

import assert from 'node:assert/strict'
import { execFile, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { promisify } from 'node:util'
import {
  App, bareEnvironment, gone, logOf, processesOf, readmeBlocks, ROOT, startProgram, until, type Server,
} from './app.ts'

// ---- npm start

// A terminal: what is written to `script` is typed there, and its end closes it.
const IN_TERMINAL = ['script', '--quiet', '--command', 'npm start', '/dev/null']

for (const [how, command, stop] of [
  ['SIGTERM to npm', ['npm', 'start'], npm => npm.kill('SIGTERM')],
  ['Ctrl-C', IN_TERMINAL, terminal => terminal.stdin!.write('\x03')],
  ['a closed terminal', IN_TERMINAL, terminal => terminal.kill('SIGKILL')],
] as [string, string[], (started: Server['process']) => void][]) {
  test(`npm start runs both; ${how} ends both, with what they run, and leaves nothing`, async t => {
    const { app, program } = await startBoth(t, command)
    await app.start('process', [100_000, 10], { id: 'going-on' })
    stop(program.process)
    await program.exited
    for (const { pid } of processesOf(app.runs)) await gone(pid)
    assert.match(logOf(app, 'going-on'), /"outcome":"cancelled"[^\n]*\n$/)
  })
}

test('a server that refuses to start ends the other, and npm start says so by its exit code', async t => {
  const other = createServer().listen(0, '127.0.0.1')
  await once(other, 'listening')
  t.after(() => other.close())
  const { port } = other.address() as AddressInfo
  for (const [env, reason] of [
    [{ PORT: String(port) }, /cannot listen on .*; set PORT to another/],
    [{ TASKS: '/nowhere.ts' }, /cannot load the remote functions/],
  ] as [Record<string, string>, RegExp][]) {
    const app = new App(env)
    t.after(() => app.end())
    const program = await run('npm', ['start'], { cwd: ROOT, env: { ...bareEnvironment(), ...app.env } })
    assert.match(program.output, reason)
    assert.equal(program.code, 1)
    assert.deepEqual(processesOf(app.runs), [])
  }
})

// ---- In a container

test('what the Dockerfile of the README copies and installs is all that npm start needs', async t => {
  const [dockerfile = ''] = readmeBlocks('dockerfile')
  const rooms = readdirSync(ROOT).filter(file => file.endsWith('.ts'))
  const copy = mkdtempSync(join(tmpdir(), 'longrun-test-'))
  t.after(() => rmSync(copy, { recursive: true }))
  for (const [, names, to] of dockerfile.matchAll(/^COPY (.+) (\S+)$/gm)) {
    const files = names!.split(' ').flatMap(name => name === '*.ts' ? rooms : name)
    for (const name of files) cpSync(join(ROOT, name), join(copy, to === './' ? name : to!), { recursive: true })
  }
  const [, install] = /^RUN (npm .+)$/m.exec(dockerfile)!
  const installed = await run('sh', ['-c', install!], { cwd: copy, env: { ...bareEnvironment(), ...QUICK } })
  assert.equal(installed.code, 0, installed.output)
  assert.doesNotMatch(installed.output, /warn/i)

  const { scripts } = JSON.parse(readFileSync(join(copy, 'package.json'), 'utf8'))
  const [, command] = /^CMD (.+)$/m.exec(dockerfile)!
  assert.equal(scripts.start, `exec ${JSON.parse(command!).join(' ')}`)
  const { app, program } = await startBoth(t, ['npm', 'start'], { TASKS: '' }, copy)
  const wrong = await app.start('compile', ['const n: number = "1"']) // by the compiler, which is a dependency, too
  assert.deepEqual((await wrong.outcome()).result, { errors: 1, warnings: 0 })

  const [, probe] = /^HEALTHCHECK CMD (.+)$/m.exec(dockerfile)!
  const [node, ...args] = (JSON.parse(probe!) as string[]).map(arg => arg.replace('http://127.0.0.1:8080', app.url))
  const health = async () => (await run(node!, args, { env: bareEnvironment() })).code
  assert.equal(await health(), 0)
  const [workers] = processesOf(app.runs).filter(({ command }) => command.endsWith(' workers.ts'))
  process.kill(workers!.pid, 'SIGTERM')
  await until(async () => await health() === 1)
  program.process.kill('SIGTERM')
  await program.exited
})

// ---- With systemd

const units = readmeBlocks('ini')
  .map(unit => unit.replaceAll('/usr/bin/node', process.execPath).replaceAll('/opt/longrun', ROOT))
const [workersUnit = '', serverUnit = ''] = units
const setting = (unit: string, name: string) => new RegExp(`^${name}=(.*)$`, 'm').exec(unit)![1]!

test('the units of the README: a restart leaves the runs going on, TERM is the real stop, and no failure', async t => {
  const { RUNS, ...env } = await makeSettings(t)
  assert.equal(RUNS, `/var/lib/${setting(workersUnit, 'StateDirectory')}`)
  const app = new App(env)
  t.after(() => app.end())
  const startUnit = (unit: string) =>
    startProgram(setting(unit, 'ExecStart').split(' '), app.env, setting(unit, 'WorkingDirectory'))
  app.workers = await startUnit(workersUnit)
  app.server = await startUnit(serverUnit)
  app.url = /http:\/\/\S+:\d+/.exec(app.server.ready)![0]
  const start = (method: string, id: string, ...args: unknown[]) =>
    app.request('POST', '/tasks', { method, id, args }, { Authorization: `Bearer ${env['TOKEN']}` })

  assert.equal((await start('tick', 'survivor', 'go')).status, 202)
  assert.equal(setting(workersUnit, 'KillMode'), 'process')
  await app.kill('workers', setting(workersUnit, 'KillSignal') as NodeJS.Signals)
  app.workers = await startUnit(workersUnit)
  app.letGo('go')
  await until(() => logOf(app, 'survivor').endsWith('\n') && logOf(app, 'survivor').includes('"outcome":"ok"'))

  assert.equal((await start('polite', 'stopped')).status, 202)
  assert.deepEqual(await app.kill('workers', 'SIGTERM'), [0, null]) // so `Restart=on-failure` lets it rest
  assert.match(logOf(app, 'stopped'), /"outcome":"cancelled"[^\n]*\n$/)
  assert.deepEqual(await app.kill('server', 'SIGTERM'), [0, null])
})

/** The settings in the file that the README makes for the units. */
async function makeSettings(t: TestContext): Promise<Record<string, string>> {
  const folder = mkdtempSync(join(tmpdir(), 'longrun-test-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const file = setting(workersUnit, 'EnvironmentFile')
  const commands = readmeBlocks('sh').find(block => block.includes(file))!
  await run('sh', ['-c', commands.replace(/^useradd .*/, '').replace(file, join(folder, 'env'))])
  assert.equal(statSync(join(folder, 'env')).mode & 0o777, 0o600)
  const lines = readFileSync(join(folder, 'env'), 'utf8').trimEnd().split('\n')
  return Object.fromEntries(lines.map(line => line.split('=', 2)))
}

const systemdMissing = spawnSync('systemd-analyze', ['--version']).status !== 0 && 'systemd-analyze is missing'
test('systemd finds nothing wrong with the units', { skip: systemdMissing }, async t => {
  const folder = mkdtempSync(join(tmpdir(), 'longrun-test-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const files = units.map(unit => join(folder, /^# \/etc\/systemd\/system\/(\S+)$/m.exec(unit)![1]!))
  files.forEach((file, index) => writeFileSync(file, units[index]!))
  const verdict = await run('systemd-analyze', ['verify', '--man=no', ...files])
  assert.deepEqual(verdict, { code: 0, output: '' })
})

// ---- What the tests need

/** What npm can do without when it installs for a test. */
const QUICK = {
  npm_config_prefer_offline: 'true', npm_config_audit: 'false', npm_config_fund: 'false',
  npm_config_update_notifier: 'false',
}

/** Runs a command to its end. */
async function run(command: string, args: string[], options = {}): Promise<{ code: number; output: string }> {
  try {
    const { stdout, stderr } = await promisify(execFile)(command, args, options)
    return { code: 0, output: stdout + stderr }
  } catch (error) {
    const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string }
    return { code, output: stdout + stderr }
  }
}

/** Starts both servers by one command; resolves when both are ready. */
async function startBoth(t: TestContext, command: string[], env: Record<string, string> = {}, folder = ROOT) {
  const app = new App(env)
  t.after(() => app.end())
  const program = await startProgram(command, app.env, folder)
  const printed = () => program.output.join('\n')
  await until(() => /longrun is at /.test(printed()) && /workers server ready/.test(printed()))
  app.url = /http:\/\/\S+:\d+/.exec(printed())![0]
  return { app, program }
}
