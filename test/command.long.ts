// Programs as functions, continued from command.test.ts: what is met more seldom, and where the machine is against them: a
// full disk, endless output, no /proc, no workers server.

import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { inspect } from 'node:util'
import { App, bareEnvironment, gone, memoryOf, missing, processesOf, ROOT, startApp, until } from './app.ts'
import { app, hears, KIB, lines, noPython, said, TASKS } from './command.ts'

const MIB = 2 ** 20

test('a program that prints without end, in one line or in many, stays small, and can be cancelled', async t => {
  const app = await startApp(t, { TASKS, MAX_LOG: String(MIB) })
  for (const endless of ['yes', 'yes >&2', `tr '\\0' x < /dev/zero`, `yes '{' | tr -d '\\n'`, `yes | tr '\\n' '\\r'`]) {
    const run = await app.start('sh', [`echo begin; ${endless}`])
    await run.reader.until(({ entries }) => entries.length > 1)
    const task = { process: { pid: run.pid } } as Parameters<typeof memoryOf>[0]
    const ends = Date.now() + 3000
    let most = 0
    while (Date.now() < ends) {
      most = Math.max(most, memoryOf(task))
      await new Promise(resolve => setTimeout(resolve, 100))
    }
    assert.ok(most < 400 * MIB, `${endless}: ${most / MIB} MiB`)
    await run.cancel()
    assert.equal((await run.outcome()).outcome, 'cancelled', endless)
    assert.ok(run.log().length <= MIB)
  }
})

test('what is printed on a full disk fails the run as an entry does, once', async t => {
  const disk = mkdtempSync(join(tmpdir(), 'longrun-disk-'))
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=2m,mode=0700', 'tmpfs', disk], { stdio: 'ignore' })
  } catch {
    rmSync(disk, { recursive: true })
    return t.skip('a small tmpfs cannot be mounted here')
  }
  const app = new App({ TASKS, RUNS: join(disk, 'runs') })
  t.after(() => app.end().finally(() => {
    execFileSync('umount', ['-l', disk])
    rmSync(disk, { recursive: true })
  }))
  await app.startBoth()
  const run = await app.start('js', [`
    process.on('exit', () => console.log('leaving'))
    process.stdout.write('no end')
    process.stderr.write('nor here')
    for (let i = 0; ; i++) console.error('a line of it', i)`])
  assert.match((await run.outcome()).reason!, /ENOSPC/)
  assert.deepEqual((await run.types()).slice(-3), ['log', 'error', 'done'])
})

test('a program of an adopted run is asked to end with all that it has started', async t => {
  const app = await startApp(t, { TASKS })
  const run = await app.start('sh', ['sleep 1000 & echo $!; sleep 1001; echo on'])
  const { entries } = await run.reader.until(({ entries }) => entries.length > 1)
  app.workers.process.kill('SIGKILL')
  await app.workers.exited
  await app.startWorkers()
  await run.cancel()
  assert.deepEqual([(await run.outcome()).outcome, await run.types()], ['cancelled', ['start', 'log', 'done']])
  await gone(Number((entries[1]!.data as { msg: string }).msg))
})

test('without /proc, as on a Mac, the workers server says where it runs, and how to bring it up there', t => {
  const runs = mkdtempSync(join(tmpdir(), 'longrun-proc-'))
  t.after(() => rmSync(runs, { recursive: true }))
  const hidden = ['--mount', 'sh', '-c', 'mount -t tmpfs none /proc && exec "$@"', 'sh']
  const { status, stderr } = spawnSync('unshare', [...hidden, process.execPath, '--import', 'tsx', 'workers.ts'], {
    cwd: ROOT, env: { ...bareEnvironment(), RUNS: runs }, encoding: 'utf8',
  })
  if (/unshare|mount:/.test(stderr)) return t.skip('mounts cannot be made here')
  const [sentence, ...lines] = stderr.trimEnd().split('\n')
  assert.deepEqual([status, lines.length], [1, 2])
  assert.match(sentence!, /^longrun: it runs on Linux/)
  const reference = readFileSync(join(ROOT, 'REFERENCE.md'), 'utf8')
  for (const line of lines) assert.ok(reference.includes(`\n${line}\n`), line)
})

suite('A program', { concurrency: 3 }, () => {
  test('goes on when the workers server is killed in the middle, and every step arrives', { skip: noPython }, async t => {
    const own = await startApp(t, { TASKS })
    const run = await own.start('python', [`
import json, os, sys, time
for step in range(40):
    print(json.dumps({"type": "msg", "data": step}))
    while step == 10 and not os.path.exists(os.environ["TASK_FILES"] + "/go"): time.sleep(0.02)
`])
    await run.reader.until(({ entries }) => entries.length > 11)
    own.workers.process.kill('SIGKILL')
    await own.workers.exited
    own.letGo('go')
    await own.startWorkers()
    assert.equal((await run.outcome()).outcome, 'ok')
    assert.deepEqual((await said(run)).map(([, step]) => step), Array.from({ length: 40 }, (_, step) => step))
  })

  test('below a launcher stays in the group that the engine knows, and ends with its run', async t => {
    const own = await startApp(t, { TASKS, LAUNCH: 'nice -n 1' })
    const run = await own.start('sh', ['cut -d " " -f 5 /proc/$$/stat; sleep 1000 & echo $!; echo ready; wait'])
    await hears(run, 'ready')
    await run.cancel()
    const [group, pid] = (await lines(run)).map(Number)
    assert.equal(group, run.pid)
    assert.deepEqual([(await run.outcome()).outcome, await run.types()], ['cancelled', ['start', 'log', 'log', 'log', 'done']])
    await gone(pid!)
  })

  test('that ignores SIGTERM is killed after the grace, with all that it has started', { skip: missing('setsid') }, async () => {
    const run = await app.start('sh', [`trap '' TERM; env -i sleep 1000 & echo $!; setsid sleep 1001 & echo ready; while :; do sleep 1; done`])
    await hears(run, 'ready')
    const [pid] = await run.reader.until(() => true).then(({ entries }) => entries.slice(1).map(({ data }) => Number((data as { msg: string }).msg)).filter(Boolean))
    await run.cancel()
    assert.equal((await run.outcome()).outcome, 'cancelled')
    await gone(pid!)
    await until(() => !processesOf(app.runs).some(({ command }) => /^sleep 100[01]/.test(command)))
  })

  test('draws a bar for a terminal: of what comes at once, the last is an entry', { skip: noPython }, async () => {
    const run = await app.start('sh', [`printf 'begin\\n\\r10%%\\r20%%\\r30%%\\r'; echo 40%; echo 'end'; printf '1\\r2\\r3'`])
    assert.deepEqual((await lines(run)).filter(line => line !== '30%'), ['begin', '40%', 'end', '2', '3'])
    const cleared = await app.start('sh', [`printf '50%%\\r\\r60%%\\r\\r'; echo; printf '70%%\\r   \\r'`])
    assert.deepEqual((await lines(cleared)).filter(line => line !== '50%'), ['60%', '', '70%'])
    const bar = await app.start('python', [`
import time
begin = time.monotonic()
for step in range(1000): print(f"{step} of 1000", end="\\r"); time.sleep(0.001)
print('{"type":"result","data":%f}' % (time.monotonic() - begin))`])
    const shown = await lines(bar)
    assert.equal(shown.at(-1), '999 of 1000')
    const seconds = (await bar.outcome()).result as number
    assert.ok(shown.length > 1 && shown.length <= seconds * 10 + 1, `${shown.length} in ${seconds} s`)
  })

  test('may say an entry or a result of megabytes in one line; of other lines, 64 KiB are one entry', { skip: noPython }, async () => {
    const run = await app.start('python', [`
import json
print(json.dumps({"type": "msg", "data": "x" * 2**21}))
print("{" + "y" * 200_000)
print("€" * 100_000)
print("z" * 65536)
print("a" * 65536 + '{"type":"result","data":"forged"}')
print(json.dumps({"type": "result", "data": "r" * 100_000}))`])
    const all = await said(run)
    assert.deepEqual(all[0], ['msg', 'x'.repeat(2 ** 21)])
    const texts = all.slice(1).map(([, msg]) => msg as string)
    assert.ok(texts.every(text => Buffer.byteLength(text) <= 64 * KIB))
    assert.equal(texts.join(''), `{${'y'.repeat(200_000)}${'€'.repeat(100_000)}${'z'.repeat(65536)}${'a'.repeat(65536)}{"type":"result","data":"forged"}`)
    assert.ok(texts.includes('z'.repeat(65536)))
    assert.equal((await run.outcome()).result, 'r'.repeat(100_000))
  })

  test('is told when a line that begins as an entry is too long for one: it comes in parts', { skip: noPython }, async () => {
    for (const [text, count] of [['r', 20 * 2 ** 20], ['é', 9 * 2 ** 20]] as const) {
      const run = await app.start('python', [`
import json
line = json.dumps({"type": "result", "data": "${text}" * ${count}}, ensure_ascii=False)
print(line)`])
      const { outcome, warnings, result } = await run.outcome()
      assert.deepEqual([outcome, warnings, result], ['ok', 1, undefined])
      assert.match((await said(run)).find(([type]) => type === 'warning')!.join(), /more than 16777216 bytes/)
      assert.ok((await lines(run)).join('') === `{"type": "result", "data": "${text.repeat(count)}"}`)
    }
  })

  test('may say as much as it can: its last lines are not lost', async () => {
    const run = await app.start('sh', ['seq 300000; seq 300001 300005 >&2'])
    assert.deepEqual((await lines(run)).map(Number).sort((a, b) => a - b), Array.from({ length: 300_005 }, (_, i) => i + 1))
  })

  test('is not held up by what it says on stderr', { skip: noPython }, async () => {
    const run = await app.start('python', [`import sys; sys.stderr.write(("e" * 99 + "\\n") * 20_000); print("through")`])
    const all = await lines(run)
    assert.deepEqual([all.length, all.includes('through')], [20_001, true])
  })

  test('may end its lines in any way, cut its bytes anywhere, and begin with a byte order mark, as on Windows', { skip: noPython }, async () => {
    const run = await app.start('python', [`
import sys, time
text = "\\ufeff{\\"type\\":\\"msg\\",\\"data\\":1}\\n \\t{\\"type\\":\\"msg\\",\\"data\\":2}\\n . {\\"type\\":\\"msg\\"}\\none\\r\\ntwo\\n\\nfünf €uro 😀\\r\\n{\\"type\\":\\"msg\\",\\"data\\":\\"😀\\"}\\r\\nlast".encode()
for byte in text: sys.stdout.buffer.write(bytes([byte])); sys.stdout.buffer.flush(); time.sleep(0.002)
for part in ["\\n" + "a" * 65536 + "  ", '{"type":"result","data":"forged"}']: sys.stdout.write(part); sys.stdout.flush(); time.sleep(0.1)`])
    const begun = [['msg', 1], ['msg', 2], ['log', ' . {"type":"msg"}']]
    const all = await said(run)
    assert.deepEqual(all, [...begun, ['log', 'one'], ['log', 'two'], ['log', ''], ['log', 'fünf €uro 😀'], ['msg', '😀'], ['log', 'last'], ...all.slice(-5)])
    assert.deepEqual([all.slice(-5).map(([, text]) => text).join(''), (await run.outcome()).result], [`${'a'.repeat(65536)}  {"type":"result","data":"forged"}`, undefined])
  })

  test('may print what is no UTF-8', async () => {
    const run = await app.start('sh', [`printf 'a\\377b\\000c\\n\\303'`])
    assert.deepEqual(await lines(run), ['a\ufffdb\0c', '\ufffd'])
  })

  test('that does not exist, has no folder, or cannot be started is named', async () => {
    for (const [method, reason] of [
      ['missing', /^cannot start \/no\/such\/program: there is no such program/],
      ['nowhere', /^cannot start true: there is no such program, or no folder \/no\/such\/folder/],
      ['tooMuch', /^cannot start true: spawn E2BIG/],
    ] as const) {
      const { outcome, reason: said } = await (await app.start(method)).outcome()
      assert.equal(outcome, 'error')
      assert.match(said!, reason)
    }
    for (const program of [`'ls'`, 'null', '{}', '[]', '[""]']) {
      const { outcome, reason } = await (await app.start('js', [`return runCommand(task, ${program})`])).outcome()
      assert.deepEqual([outcome, reason], ['error', 'a program is an array: its name, then its arguments'])
    }
    for (const [program, options, reason] of [
      [['echo', undefined], {}, /^cannot start echo: undefined is neither a text nor a number$/],
      [['echo', { a: 1 }], {}, /^cannot start echo: { a: 1 } is neither a text nor a number$/],
      [['/etc/passwd'], {}, /^cannot start \/etc\/passwd: it may not be executed \(chmod \+x\), or is a folder/],
      [['/etc'], {}, /^cannot start \/etc: it may not be executed/],
      [['true'], { cwd: '/etc/passwd' }, /^cannot start true: there is no such program, or no folder \/etc\/passwd/],
      [['sh', '-c', 'echo >&2; exit 3'], {}, /^sh ended with exit code 3$/],
    ] as const) {
      const wrong = await app.start('js', [`return runCommand(task, ${inspect(program)}, ${inspect(options)})`])
      assert.match((await wrong.outcome()).reason!, reason)
    }
    const script = await app.start('sh', ['echo "#!/no/such/shell" > $TASK_FILES/$TASK_ID.x; chmod +x $TASK_FILES/$TASK_ID.x; echo $TASK_FILES/$TASK_ID.x'])
    const [path] = await lines(script)
    const { reason: why } = await (await app.start('js', [`return runCommand(task, [${JSON.stringify(path)}])`])).outcome()
    assert.match(why!, /^cannot start \/.*\.x: there is no such program, or no interpreter of it/)
    const nul = await (await app.start('sh', ['a\0b'])).outcome()
    assert.match(nul.reason!, /^cannot start sh: .*null bytes/)
    const full = await app.start('js', [`
      for (let open; open !== null;) try { open = require('fs').openSync('/dev/null') } catch { open = null }
      const failed = await Promise.all([1, 2].map(() => runCommand(task, ['true']).catch(error => error)))
      task.msg(failed.map(({ message }) => message))
      throw failed[0]`])
    assert.match((await full.outcome()).reason!, /^cannot start true: spawn true EMFILE/)
    assert.deepEqual((await said(full))[0], ['msg', ['cannot start true', 'cannot start true']])
  })

  test('that dies at once when it is cancelled leaves its children the time to tidy up', { skip: noPython }, async () => {
    const run = await app.start('sh', [`
/usr/bin/python3 -c '
import signal, sys, time
def end(*_): time.sleep(0.3); print("saved"); sys.exit()
signal.signal(signal.SIGTERM, end)
print("ready")
while True: time.sleep(1)'
echo on`])
    await hears(run, 'ready')
    await run.cancel()
    assert.deepEqual([(await run.outcome()).outcome, await lines(run)], ['cancelled', ['ready', 'saved']])
  })

  test('is not waited for when all that is left of it is dead, and nobody asks for that', { skip: noPython }, async () => {
    const run = await app.start('js', [`
      await runCommand(task, ['/usr/bin/python3', '-c', \`
import os, time
if os.fork() == 0:
    if os.fork() > 0:
        os.setsid()
        print("ready")
time.sleep(1000)\`]).catch(() => task.msg('tidied up'))`])
    await hears(run, 'ready')
    await run.cancel()
    assert.deepEqual(await said(run), [['log', 'ready'], ['msg', 'tidied up']])
  })

  test('may tidy up when it is cancelled; what it returns and what goes wrong then is told', { skip: noPython }, async () => {
    const tidy = (end: string) => `
import json, signal, sys, time
def end(*_): print("tidying up"); ${end}
signal.signal(signal.SIGTERM, end)
print("ready")
while True: time.sleep(1)`
    const fine = await app.start('python', [tidy(`print('{"type":"result","data":"half"}'); sys.exit()`)])
    const wrong = await app.start('python', [tidy(`sys.exit("could not tidy up")`)])
    for (const run of [fine, wrong]) {
      await hears(run, 'ready')
      await run.cancel()
    }
    const { outcome, result } = await fine.outcome()
    assert.deepEqual([outcome, result, await lines(fine)], ['cancelled', 'half', ['ready', 'tidying up']])
    assert.equal((await wrong.outcome()).outcome, 'cancelled')
    assert.match((await said(wrong)).at(-1)!.join(': '), /^error: \/usr\/bin\/python3 ended with exit code 1; the last that it said:\ncould not tidy up$/)
  })

  test('that ends by SIGTERM when it is cancelled is cancelled, with what it has started, and is no error', async () => {
    for (const script of ['echo ready; sleep 1000; echo on', 'echo ready; sleep 1000 & wait', 'trap "exit 143" TERM; echo ready; sleep 1000', 'exec sh -c "echo ready; sleep 1000"']) {
      const run = await app.start('sh', [script])
      await hears(run, 'ready')
      await run.cancel()
      assert.deepEqual([(await run.outcome()).outcome, (await run.types()).includes('error')], ['cancelled', false], script)
      assert.deepEqual((await lines(run)).filter(line => line !== 'Terminated'), ['ready'], 'and what a shell says')
    }
  })

  test('may never read what it gets, or close it', async () => {
    for (const code of ['true', 'exec <&-; sleep 0.1']) assert.equal((await (await app.start('sh', [code])).outcome()).outcome, 'ok')
    const run = await app.start('js', [`
      task.args = { more: 'than a pipe takes'.repeat(2 ** 16) }
      return runCommand(task, ['true'])`])
    assert.equal((await run.outcome()).outcome, 'ok')
  })
})

suite('What is printed', () => {
  test('without end has half of the log: entries have the rest, one entry tells how many lines were dropped, and the run is fine', { skip: noPython }, async t => {
    const own = await startApp(t, { TASKS, MAX_LOG: '20000' })
    for (const [method, code] of [
      ['js', `for (let i = 0; i < 5000; i++) console.log('line', i); for (let i = 0; i < 40; i++) task.msg({ i, text: 'x'.repeat(100) }); return 'fine'`],
      ['python', `
import json
for i in range(5000): print("line", i)
for i in range(40): print(json.dumps({"type": "msg", "data": {"i": i, "text": "x" * 100}}))
print(json.dumps({"type": "result", "data": "fine"}))`],
    ]) {
      const run = await own.start(method!, [code])
      const { outcome, result } = await run.outcome()
      assert.deepEqual([outcome, result], ['ok', 'fine'])
      assert.equal((await run.types()).filter(type => type === 'msg').length, 40)
      const printed = await lines(run)
      const kept = printed.filter(line => line.startsWith('line'))
      assert.ok(kept.length > 100)
      assert.deepEqual(printed.slice(kept.length), [`${5000 - kept.length} printed lines were dropped: prints have the first half of a log, 10000 bytes`])
    }
    const later = await own.start('js', [`
      for (let i = 0; i < 50; i++) task.msg('x'.repeat(100))
      for (let i = 0; i < 5000; i++) console.log('line', i)
      for (let i = 0; i < 50; i++) task.msg('x'.repeat(100))
      return 'fine'`])
    assert.equal((await later.outcome()).result, 'fine')
    assert.equal((await later.types()).filter(type => type === 'msg').length, 100)
    const full = await own.start('js', [`for (let i = 0; i < 5000; i++) console.log('line', i); for (;;) task.msg('x'.repeat(100))`])
    assert.match((await full.outcome()).reason!, /the log of a run may have 20000 bytes/)
  })
})
