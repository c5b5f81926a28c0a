// How both servers are started for good: by `npm start`; and installed in a project of one's own by `npx longrun`, with
// what a container gets, and as systemd would do it. What the README and the reference show is what runs here.

import assert from 'node:assert/strict'
import { execFile, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync,
} from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, before, suite, test, type TestContext } from 'node:test'
import { promisify } from 'node:util'
import { framesOf } from '../public/words.js'
import {
  App, bareEnvironment, gone, logOf, processesOf, readmeBlocks, ROOT, startProgram, until, type Server,
} from './app.ts'

// ---- npm start

// A terminal: what is written to `script` is typed there, and its end closes it.
const IN_TERMINAL = ['script', '--quiet', '--command', 'npm start', '/dev/null']

for (const [how, signal, command, stop] of [
  ['SIGTERM to npm', 'SIGTERM', ['npm', 'start'], npm => npm.kill('SIGTERM')],
  ['Ctrl-C', 'SIGINT', IN_TERMINAL, terminal => terminal.stdin!.write('\x03')],
  ['a closed terminal', 'SIGHUP', IN_TERMINAL, terminal => terminal.kill('SIGKILL')],
] as [string, string, string[], (started: Server['process']) => void][]) {
  test(`npm start runs both; ${how} ends both, with what they run, and leaves nothing`, async t => {
    const { app, program } = await startBoth(t, command)
    await app.start('process', [100_000, 10], { id: 'going-on' })
    stop(program.process)
    await program.exited
    for (const { pid } of processesOf(app.runs)) await gone(pid)
    const end = `"outcome":"cancelled","reason":"the workers server was stopped by ${signal}"`
    assert.match(logOf(app, 'going-on'), new RegExp(`${end}[^\\n]*\\n$`))
  })
}

test('started by nohup, both go on when the terminal is closed, and end by SIGTERM', async t => {
  const output = join(mkdtempSync(join(tmpdir(), 'longrun-test-')), 'output')
  t.after(() => rmSync(dirname(output), { recursive: true }))
  const app = new App({})
  t.after(() => app.end())
  const terminal = await startProgram(['script', '--quiet', '--command', `nohup npm start >${output} & cat`, '/dev/null'], app.env)
  const printed = () => readFileSync(output, 'utf8')
  await until(() => /longrun is at /.test(printed()), 'both servers are ready')
  app.url = /http:\/\/\S+:\d+/.exec(printed())![0]
  const run = await app.start('tick', ['go'])
  const processes = processesOf(app.runs)
  terminal.process.kill('SIGKILL')
  await gone(processes.find(({ command }) => command === 'cat')!.pid) // by the SIGHUP that all of them get
  app.letGo('go')
  assert.equal((await run.outcome()).outcome, 'ok')
  assert.equal((await app.request('GET', '/health')).status, 200)
  const start = processes.find(({ command }) => /^\S*node start\.js$/.test(command))!
  process.kill(start.pid, 'SIGTERM')
  for (const { pid } of processes) await gone(pid)
})

test('a server that refuses to start ends the other, and no run; npm start says so once, and by its exit code', async t => {
  const other = createServer().listen(0, '127.0.0.1')
  await once(other, 'listening')
  t.after(() => other.close())
  const { port } = other.address() as AddressInfo
  for (const [env, reason] of [
    [{ PORT: String(port) }, /cannot listen on .*; set PORT to another/],
    [{ TASKS: '/nowhere.ts' }, /cannot load the remote functions, TASKS is \/nowhere.ts/],
    [{ MAX_LOG: 'much' }, /MAX_LOG=much is not a whole number/],
  ] as [Record<string, string>, RegExp][]) {
    const app = new App({})
    t.after(() => app.end())
    await app.startBoth()
    const going = await app.start('tick', ['go'])
    await app.kill('workers')
    const program = await run('npm', ['start'], { cwd: ROOT, env: { ...bareEnvironment(), ...app.env, ...env } })
    assert.match(program.output, reason)
    assert.equal(program.output.match(/^longrun: /gm)?.length, 1, program.output)
    assert.doesNotMatch(program.output, /^ +at /m)
    assert.equal(program.code, 1)
    await until(() => !processesOf(app.runs).some(({ command }) => /start\.js|workers\.ts/.test(command)), 'it has ended')
    await app.startWorkers()
    app.letGo('go')
    assert.equal((await going.outcome()).outcome, 'ok', 'what goes on is not ended by a start that fails')
  }
})

test('a server that crashes has not refused to start: the other goes on', async t => {
  const crash = (app: App, name: string) => {
    const { pid } = processesOf(app.runs).find(({ command }) => command.endsWith(`/${name}.ts`))!
    process.kill(pid, 'SIGUSR2')
    return gone(pid)
  }
  for (const name of ['workers', 'server']) {
    const { app, program } = await startBoth(t, ['npm', 'start'], { NODE_OPTIONS: `--require ${ROOT}/test/mistake.cjs` })
    await crash(app, name)
    assert.ok(program.output.some(line => line.endsWith('Error: a mistake')))
    if (name === 'workers') assert.equal((await app.request('GET', '/health')).status, 503)
    else assert.equal((await app.call('ping', '', '', '[]'))[0], '__RES__')
    program.process.kill('SIGTERM')
    await program.exited
  }
})

test('Ctrl-C ends both while one of them still loads, and is no failure', async t => {
  for (const loading of ['workers', 'server']) {
    const app = new App({})
    t.after(() => app.end())
    const env = { ...bareEnvironment(), ...app.env }
    const program = spawn(process.execPath, ['start.js'], { cwd: ROOT, env, stdio: 'ignore' })
    const exited = once(program, 'exit')
    await until(() => processesOf(app.runs).some(({ command }) => command.endsWith(`/${loading}.ts`)), `${loading}.ts is there`)
    program.kill('SIGINT')
    assert.deepEqual(await exited, [0, null])
    assert.deepEqual(processesOf(app.runs), [])
  }
})

test('what somebody else has put into the folder of tsx is run by no server and no task', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'longrun-test-'))
  t.after(() => rmSync(folder, { recursive: true }))
  // As any TypeScript that tsx has run here before, by the same user.
  const env = { ...bareEnvironment(), TMPDIR: folder, NODE_COMPILE_CACHE: '' }
  const tsx = (...args: string[]) => run(process.execPath, args, { cwd: ROOT, env: { ...env, RUNS: join(folder, 'runs') } })
  const loads = "for (const room of ['settings', 'remote', 'tasks']) await import(`./${room}.ts`)"
  await tsx('--import', 'tsx', '--input-type=module', '--eval', loads)
  await tsx('--require', 'tsx/cjs', '--eval', loads.replace('await import', 'require'))
  const planted = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter(name => /^tsx-.*\//.test(name))
  assert.ok(planted.length > 6)
  for (const name of planted) {
    const source = readFileSync(join(folder, name), 'utf8')
    const words = source.replaceAll('counts: one message', 'planted').replaceAll(/token:\s?task\.id/g, "token:'planted'")
    writeFileSync(join(folder, name), words)
  }
  const { app, program } = await startBoth(t, ['npm', 'start'], { TMPDIR: folder, NODE_COMPILE_CACHE: '', TASKS: '' })
  const { body } = await app.request('GET', '/methods')
  assert.match(JSON.stringify(body), /counts: one message/)
  const steps = await app.start('process', [2, 1])
  assert.equal((await steps.outcome()).outcome, 'ok')
  assert.doesNotMatch(steps.log(), /planted/)
  program.process.kill('SIGTERM')
  await program.exited
})

test('npm run dev starts each server again when a file changes that it is made of, and ends also when one does not load', async t => {
  const copy = mkdtempSync(join(tmpdir(), 'longrun-test-'))
  t.after(() => rmSync(copy, { recursive: true }))
  const files = readdirSync(ROOT).filter(name => /\.(ts|js)$|^(package\.json|public)$/.test(name))
  for (const name of files) cpSync(join(ROOT, name), join(copy, name), { recursive: true })
  symlinkSync(join(ROOT, 'node_modules'), join(copy, 'node_modules'))
  const { program } = await startBoth(t, ['npm', 'run', 'dev'], { TASKS: '' }, copy)
  for (const [file, ready] of [['streams.ts', /longrun is at/], ['tasks.ts', /workers server ready/]] as const) {
    const starts = () => program.output.filter(line => ready.test(line)).length
    const before = starts()
    writeFileSync(join(copy, file), `${readFileSync(join(copy, file), 'utf8')}\n`)
    await until(() => starts() > before, `${file} has changed, and its server was started again`)
  }
  writeFileSync(join(copy, 'tasks.ts'), 'this is (no module')
  await until(() => program.output.some(line => line.startsWith('Failed running')), 'what is wrong is said')
  program.process.kill('SIGTERM')
  await program.exited
})

// ---- In a project of one's own

suite('Installed in a project of one\'s own,', () => {
  const folder = mkdtempSync(join(tmpdir(), 'longrun-test-'))
  const own = join(folder, 'own')
  const longrun = join(own, 'node_modules/longrun')
  const TARBALL = `longrun-${JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')).version}.tgz`
  after(() => rmSync(folder, { recursive: true }))
  const write = (name: string, text: string) => writeFileSync(join(own, name), text)
  const inOwn = (command: string, ...args: string[]) =>
    run(command, args, { cwd: own, env: { ...bareEnvironment(), ...QUICK, npm_config_offline: 'true' } })

  before(async () => { // as the README shows it; npm finds the packages that it needs there already
    const lines = readmeBlocks('sh').find(block => block.startsWith('npm pack'))!.trimEnd().split('\n')
    assert.equal(lines.length, 6)
    mkdirSync(own)
    cpSync(join(ROOT, 'node_modules'), join(own, 'node_modules'), { recursive: true, filter: path => !path.includes('.cache') })
    const [pack, , init, install, make, start] = lines as [string, string, string, string, string, string]
    const packed = await run('sh', ['-ec', `${pack.replace('npm pack', `npm pack --pack-destination ${folder}`)}`], { cwd: ROOT, env: bareEnvironment() })
    assert.equal(packed.code, 0, packed.output)
    for (const line of [init, install.replace('../longrun/', `${folder}/`), make]) {
      const { code, output } = await inOwn('sh', '-ec', line)
      assert.equal(code, 0, output)
    }
    assert.equal(start, 'npx longrun tasks.ts')
    assert.ok(!existsSync(join(ROOT, 'dist')), 'nothing that was built is left')
  })

  /** Both servers, by `npx longrun`; and they are ended. */
  async function withBoth(t: TestContext, module: string, act: (app: App) => Promise<void>, env: Record<string, string> = {}) {
    const { app, program } = await startBoth(t, ['npx', 'longrun', module], { TASKS: '', ...env }, own)
    await act(app)
    program.process.kill('SIGTERM')
    await program.exited
  }

  test('it runs the functions of that project, without a loader', async t => {
    await withBoth(t, 'tasks.ts', async app => {
      const disk = await app.start('disk')
      assert.equal((await disk.outcome()).outcome, 'ok')
      assert.match(disk.log(), /Filesystem/)
      assert.deepEqual(processesOf(app.runs).filter(({ command }) => /tsx|loader/.test(command)), [])
      const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
      assert.equal((await app.request('GET', '/health')).body.version, version)
      assert.equal((await inOwn('npx', 'longrun', '--version')).output.trim(), version)
    })
  })

  test("of a stack the author's frames can be told from longrun's, also those of a task.ts", async t => {
    write('task.ts', `import { remote } from 'longrun'\nexport const fails = remote('fails', [], async task => task.msg(1n))\n`)
    await withBoth(t, 'task.ts', async app => {
      const run = await app.start('fails')
      await run.outcome()
      const frames = framesOf(JSON.parse(run.log().split('\n').at(-3)!).data).filter(frame => frame.includes(own))
      assert.equal(frames.length, 1, frames.join('\n'))
      assert.match(frames[0]!, /\/own\/task\.ts:2:/)
    })
  })

  test('it says what is wrong with a command line, and which settings there are', async () => {
    const { output } = await inOwn('npx', 'longrun', '--help')
    for (const name of ['PORT', 'TASKS', 'TOKEN', 'MAX_UPLOAD']) assert.match(output, new RegExp(`^  ${name} `, 'm'))
    assert.ok(output.split('\n').length < 30)
    write('empty.ts', 'export const x = 1')
    for (const [args, reason] of [
      [['nowhere.ts'], /Cannot find module .*nowhere\.ts$/m], [['empty.ts'], /empty\.ts exports no remote function/],
      [['a.ts', 'b.ts'], /b\.ts is too much/], [['--sideways'], /--sideways/],
    ] as const) {
      const refused = await inOwn('npx', 'longrun', ...args)
      assert.match(refused.output, reason)
      assert.deepEqual([refused.code, refused.output.match(/^longrun: /gm)?.length], [1, 1], refused.output)
      assert.doesNotMatch(refused.output, /^ +at /m)
    }
  })

  test('it takes modules as people write them', async t => {
    mkdirSync(join(own, 'lib'), { recursive: true })
    write('lib/dep.ts', 'export enum Word { hello = "hello" }\nexport type Name = string\n')
    write('tsconfig.json', '{ "compilerOptions": { "paths": { "@lib/*": ["./lib/*"] }, "experimentalDecorators": true } }')
    const body = `greet = remote('greets', [{ name: 'name', type: 'string', description: '' }], (task, name) => \`\${hello} \${name}\`)\n`
    const plain = `const hello = 'hello'\nexport const ${body}`
    const longrun = `import { remote } from 'longrun'\n`
    for (const [name, text, type] of [
      ['typed.ts', `${longrun}const hello: string = 'hello'\nexport const ${body}`],
      ['typed.mts', `${longrun}const hello: string = 'hello'\nexport const ${body}`],
      ['typed.cts', `${longrun}const hello: string = 'hello'\nexport const ${body}`],
      ['plain.js', longrun + plain],
      ['plain.mjs', longrun + plain],
      ['required.cjs', `const { remote } = require('longrun')\nconst hello = 'hello'\nexports.${body}`],
      ['whole.cjs', `const { remote } = require('longrun')\nmodule.exports = { first: remote('is first', [], () => 1), ${body.replace(' =', ':').replace('${hello}', 'hello')}}`],
      ['enums.ts', `${longrun}import { Word, Name } from './lib/dep'\nconst hello: Name = Word.hello\nexport const ${body}`],
      ['paths.ts', `${longrun}import { Word } from '@lib/dep'\nconst hello = Word.hello\nexport const ${body}`],
      ['decorated.ts', `${longrun}const d = (_: unknown) => {}\n@d class Word { constructor(readonly text: string) {} }\nconst hello = new Word('hello').text\nexport const ${body}`],
      ['awaiting.ts', `${longrun}const hello: string = await Promise.resolve('hello')\nexport const ${body}`],
      ['common.ts', `${longrun}const hello: string = 'hello'\nexport const ${body}`, 'commonjs'],
    ] as [string, string, string?][]) {
      write(name, text)
      await inOwn('npm', 'pkg', 'set', `type=${type ?? 'module'}`)
      await withBoth(t, name, async app => {
        const greeting = await app.start('greet', ['Al'])
        const { outcome, reason, result } = await greeting.outcome()
        assert.deepEqual([outcome, result], ['ok', 'hello Al'], `${name}: ${reason}`)
      })
    }
    await inOwn('npm', 'pkg', 'set', 'type=module')
  })

  test('its types hold for others\' compilers, which find what is wrong in their files and nothing in ours', async () => {
    const parameters = `[{ name: 'count', type: 'integer', description: '' }, { name: 'how', type: 'string', description: '', choices: ['a', 'b'] }]`
    const source = (use: string) => `import { command, remote } from 'longrun'
import { follow } from 'longrun/follow.js'
export * from 'longrun/tasks.js'
export const count = remote('', ${parameters}, async (task, count, how) => { task.progress(${use}); return how })
export const list = command('', ${parameters}, ({ count }) => ['seq', count], { env: { A: 'b' } })
export const follower = follow('http://127.0.0.1/', 'id', entries => entries.forEach(({ type }) => type))
`
    const strict = ['--strict', '--exactOptionalPropertyTypes', '--noPropertyAccessFromIndexSignature',
      '--noUncheckedIndexedAccess', '--isolatedModules', '--verbatimModuleSyntax', '--noUnusedLocals', '--noEmit', '--ignoreConfig']
    for (const modules of [['--module', 'nodenext'], ['--module', 'esnext', '--moduleResolution', 'bundler']]) {
      write('typed.ts', source('count, 10'))
      assert.deepEqual(await inOwn('npx', 'tsc', ...strict, ...modules, 'typed.ts'), { code: 0, output: '' })
      for (const [use, error] of [['how', /how|string/], ['count.length', /length/], ["count, 'ten'", /number/]] as const) {
        write('typed.ts', source(use))
        const wrong = await inOwn('npx', 'tsc', ...strict, ...modules, 'typed.ts')
        assert.match(wrong.output, /^typed\.ts\(4,/)
        assert.match(wrong.output, error)
      }
    }
  })

  test('what it exports can be imported, and ends no process', async () => {
    const program = `
      const { remote, command, FILES } = await import('longrun')
      const { callRemote } = await import('longrun/protocol.js')
      const { importCsv } = await import('longrun/tasks.js')
      const { follow } = await import('longrun/follow.js')
      console.log([remote, command, callRemote, importCsv.run, follow].map(one => typeof one).join(), FILES)`
    const env = { ...bareEnvironment(), PROCESS_LIMIT: 'wrong', RUNS: '/nowhere' }
    const { output } = await run(process.execPath, ['--input-type=module', '--eval', program], { cwd: own, env })
    assert.equal(output.trim(), 'function,function,function,function,function /nowhere/files')
  })

  test('a run goes on while another version takes its place; that starts nothing before the workers server is restarted', async t => {
    write('slow.ts', `import { remote } from 'longrun'
import { existsSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
export const slow = remote('', [], async task => {
  for (let step = 0; !existsSync(process.env['RUNS'] + '/files/go'); step++) { task.msg({ step }); await sleep(50) }
})
`)
    const { app, program } = await startBoth(t, ['npx', 'longrun', 'slow.ts'], { TASKS: '', SPARES: '0' }, own)
    const slow = await app.start('slow')
    await slow.reader.until(({ entries }) => entries.length > 2)
    const manifest = readFileSync(join(longrun, 'package.json'), 'utf8')
    writeFileSync(join(longrun, 'package.json'), manifest.replace(/"version": ".*?"/, '"version": "2.0.1"'))
    const late = await app.start('slow')
    assert.match((await late.outcome()).reason!, /changed since the workers server was started: restart it/)
    const workers = processesOf(app.runs).find(({ command }) => command.endsWith('/workers.js'))!
    process.kill(workers.pid, 'SIGKILL')
    await gone(workers.pid)
    await until(() => program.output.some(line => line.endsWith(`and node ${longrun}/dist/workers.js starts it again`)), 'what to do is said')
    app.workers = await startProgram([process.execPath, join(longrun, 'dist/workers.js')], { ...app.env, TASKS: 'slow.ts' }, own)
    const next = await app.start('slow')
    app.letGo('go')
    for (const one of [slow, next]) assert.equal((await one.outcome()).outcome, 'ok')
    writeFileSync(join(longrun, 'package.json'), manifest)
    program.process.kill('SIGTERM')
    await program.exited
  })

  // ---- In a container

  test('what the Dockerfile copies and installs is all that it needs', async t => {
    const [dockerfile = ''] = readmeBlocks('dockerfile')
    const [context, image] = ['context', 'image'].map(name => join(folder, name)) as [string, string]
    mkdirSync(context)
    for (const name of ['package.json', 'package-lock.json']) { // as if the tarball had been installed from there
      writeFileSync(join(context, name), readFileSync(join(own, name), 'utf8').replaceAll('file:../', 'file:'))
    }
    cpSync(join(folder, TARBALL), join(context, TARBALL))
    writeFileSync(join(context, 'tasks.mjs'), "export * from 'longrun/tasks.js'\n")
    for (const [, names, to] of dockerfile.matchAll(/^COPY (.+) (\S+)$/gm)) {
      for (const name of names!.split(' ')) cpSync(join(context, name), join(image, to!, name))
    }
    const [, install] = /^RUN (npm .+)$/m.exec(dockerfile)!
    const installed = await run('sh', ['-c', install!], { cwd: image, env: { ...bareEnvironment(), ...QUICK } })
    assert.equal(installed.code, 0, installed.output)
    assert.doesNotMatch(installed.output.replaceAll(/^npm warn install-scripts.*$/gm, ''), /warn/i)

    const [, command] = /^CMD (.+)$/m.exec(dockerfile)!
    const { app, program } = await startBoth(t, JSON.parse(command!), { TASKS: '' }, image)
    const wrong = await app.start('compile', ['const n: number = "1"']) // by the compiler, which is a dependency, too
    assert.deepEqual((await wrong.outcome()).result, { errors: 1, warnings: 0 })

    const [, probe] = /^HEALTHCHECK CMD (.+)$/m.exec(dockerfile)!
    const [node, ...args] = JSON.parse(probe!) as string[]
    const health = async () => (await run(node!, args, { env: { ...bareEnvironment(), PORT: new URL(app.url).port } })).code
    assert.equal(await health(), 0)
    const [workers] = processesOf(app.runs).filter(({ command }) => command.endsWith('/workers.js'))
    process.kill(workers!.pid, 'SIGTERM')
    await until(async () => await health() === 1, 'the probe fails without a workers server')
    program.process.kill('SIGTERM')
    await program.exited
  })

  // ---- With systemd

  const units = readmeBlocks('ini').map(unit => unit.replaceAll('/usr/bin/node', process.execPath))
  const [workersUnit = '', serverUnit = '', both = ''] = units
  const setting = (unit: string, name: string) => new RegExp(`^${name}=(.*)$`, 'm').exec(unit)![1]!

  test('as systemd starts it, a restart leaves the runs going on, and TERM is the real stop, and no failure', async t => {
    const { RUNS, TASKS, ...env } = await makeSettings(t)
    assert.equal(RUNS, `/var/lib/${setting(both, 'StateDirectory')}`)
    assert.equal(dirname(TASKS!), setting(both, 'WorkingDirectory'))
    const app = new App(env)
    t.after(() => app.end())
    const startUnit = (unit: string) => startProgram(setting(unit, 'ExecStart').split(' '), app.env, own)
    app.workers = await startUnit(workersUnit)
    app.server = await startUnit(serverUnit)
    app.url = /http:\/\/\S+:\d+/.exec(app.server.ready)![0]
    const start = (method: string, id: string, ...args: unknown[]) =>
      app.request('POST', '/tasks', { method, id, args }, { Authorization: `Bearer ${env['TOKEN']}` })

    assert.equal((await start('tick', 'survivor', 'go')).status, 202)
    await until(() => logOf(app, 'survivor').split('\n').length > 3, 'it is on its way')
    assert.equal(setting(workersUnit, 'KillMode'), 'process')
    await app.kill('workers', setting(workersUnit, 'KillSignal') as NodeJS.Signals)
    app.workers = await startUnit(workersUnit)
    app.letGo('go')
    await until(() => /"outcome":"ok".*\n$/.test(logOf(app, 'survivor')), 'it has ended')

    assert.equal((await start('polite', 'stopped')).status, 202)
    assert.deepEqual(await app.kill('workers', 'SIGTERM'), [0, null]) // so `Restart=on-failure` lets it rest
    assert.match(logOf(app, 'stopped'), /"outcome":"cancelled"[^\n]*\n$/)
    assert.deepEqual(await app.kill('server', 'SIGTERM'), [0, null])
  })

  /** The settings in the file that the reference makes for the units. */
  async function makeSettings(t: TestContext): Promise<Record<string, string>> {
    const folder = mkdtempSync(join(tmpdir(), 'longrun-test-'))
    t.after(() => rmSync(folder, { recursive: true }))
    const file = setting(both, 'EnvironmentFile')
    const commands = readmeBlocks('sh').find(block => block.includes(file))!
    await run('sh', ['-c', commands.replace(/^useradd .*/, '').replace(file, join(folder, 'env'))])
    assert.equal(statSync(join(folder, 'env')).mode & 0o777, 0o600)
    const lines = readFileSync(join(folder, 'env'), 'utf8').trimEnd().split('\n')
    return Object.fromEntries(lines.map(line => line.split('=', 2)))
  }

  const systemdMissing = spawnSync('systemd-analyze', ['--version']).status !== 0 && 'systemd-analyze is missing'
  test('systemd finds nothing wrong with the units, and calls them closed', { skip: systemdMissing }, async () => {
    const files = units.map(unit => join(folder, 'units', /^# \/etc\/systemd\/system\/(\S+)$/m.exec(unit)![1]!))
    for (const [index, file] of files.entries()) {
      mkdirSync(dirname(file), { recursive: true })
      writeFileSync(file, units[index]!)
    }
    const services = files.filter(file => file.endsWith('.service'))
    const verdict = await run('systemd-analyze', ['verify', '--man=no', ...services])
    assert.deepEqual(verdict, { code: 0, output: '' })
    for (const service of services) { // of 100 points, of which a unit without any such setting has 92
      const { code, output } = await run('systemd-analyze', ['security', '--offline=true', '--threshold=25', service])
      assert.equal(code, 0, output)
    }
  })
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
