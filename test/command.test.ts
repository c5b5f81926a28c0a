// Programs in any language as functions, and what functions print: real Python, real shells, and programs that do all
// that they should not.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import type { Entry } from '../log.ts'
import { App, gone, missing, processesOf, ROOT, startApp, until, type Run } from './app.ts'

const TASKS = join(import.meta.dirname, 'programs.ts')
const KIB = 2 ** 10
const noPython = missing('/usr/bin/python3')

/** What was said between `start` and `done`, by type and text. */
async function said(run: Run): Promise<[string, unknown][]> {
  const between = (await run.entries()).slice(1, -1)
  return between.map(({ type, data }) => [type, (data as { msg?: unknown }).msg ?? data])
}

/** The texts of its log entries. */
const lines = async (run: Run) => (await said(run)).filter(([type]) => type === 'log').map(([, msg]) => msg as string)

/** Until a run has said this in a log entry. */
const hears = (run: Run, msg: string) => run.reader.until(({ entries }) =>
  entries.some(({ type, data }: Entry) => type === 'log' && data.msg === msg))

suite('A program', { concurrency: 3 }, () => {
  const app = new App({ TASKS, PROCESS_LIMIT: '8', DATABASE_URL: 'postgres://here', VIRTUAL_ENV: '/venv', PYTHONPATH: '/lib', CUDA_VISIBLE_DEVICES: '1' })
  before(() => app.startBoth())
  after(() => app.end())

  test('in Python is followed live: its progress, its lines, its result', { skip: noPython }, async () => {
    const run = await app.start('python', [`
import json, os, time
for step in range(1, 4):
    print(json.dumps({"type": "progress", "data": {"current": step, "total": 3, "unit": "steps"}}))
    print("step", step)
    while not os.path.exists(os.environ["TASK_FILES"] + f"/live{step}"): time.sleep(0.02)
print(json.dumps({"type": "result", "data": {"steps": 3}}))`])
    for (const step of [1, 2, 3]) {
      await hears(run, `step ${step}`)
      assert.equal(run.reader.entries.filter(({ type }) => type === 'progress').length, step)
      app.letGo(`live${step}`)
    }
    assert.deepEqual((await said(run)).slice(-2), [['progress', { current: 3, total: 3, unit: 'steps' }], ['log', 'step 3']])
    const { outcome, result } = await run.outcome()
    assert.deepEqual([outcome, result], ['ok', { steps: 3 }])
  })

  test('gets its arguments by name as one line on stdin, then the end; an upload is a path', { skip: noPython }, async () => {
    const file = await app.upload('a,b\n')
    const run = await app.start('takes', [file])
    const { result } = await run.outcome()
    assert.deepEqual(result, [{ file: join(app.runs, 'uploads', file), steps: 3, code: '' }, 1, '', 'a,b\n'])
  })

  test('may never read what it gets, or close it', async () => {
    for (const code of ['true', 'exec <&-; sleep 0.1']) assert.equal((await (await app.start('sh', [code])).outcome()).outcome, 'ok')
    const run = await app.start('js', [`
      task.args = { more: 'than a pipe takes'.repeat(2 ** 16) }
      return runCommand(task, ['true'])`])
    assert.equal((await run.outcome()).outcome, 'ok')
  })

  test('says entries as lines of JSON, of any type and with all their details', { skip: noPython }, async () => {
    const entries = [
      { type: 'msg', data: [1, { two: null }] }, { type: 'progress', data: { current: 1 } }, { type: 'step', data: { name: 'build' } },
      { type: 'log', data: { msg: 'ünï' } }, { type: 'warning', data: { msg: 'careful', line: 3, file: 'x' } },
      { type: 'error', data: { msg: 'wrong', code: 'E1' } }, { type: 'msg', data: null },
    ]
    const script = entries.map(entry => ` ${JSON.stringify(entry)} `).join('\n')
    const run = await app.start('python', [`print('''${script}''')`])
    assert.deepEqual((await run.entries()).slice(1, -1).map(({ type, data }) => ({ type, data })), entries)
    const { outcome, errors, warnings } = await run.outcome()
    assert.deepEqual([outcome, errors, warnings], ['ok', 1, 1], 'the exit code decides')
  })

  test('says a log entry by every other line, and can say neither start nor done', async () => {
    const odd = [
      '{"type":"done","data":{"outcome":"ok","seconds":1}}', '{"type":"start","data":{}}', '{"type":"msg"}', '{"type":"log","data":"text"}',
      '{"type":"log","data":{"msg":1}}', '{"type":"progress","data":{"current":"1"}}', '{"type":"progress","data":{"current":1e999}}',
      '{"type":"progress","data":null}', '{"type":"progress","data":{"current":1,"total":"2"}}', '{"type":"step","data":{}}', '{"type":["msg"],"data":1}',
      '{"type":"__proto__","data":1}', '{"type":"toString","data":1}', '[{"type":"msg","data":1}]', '{"type":"msg","data":1', 'null', '17', '"text"', '',
      `{"type":"msg","data":${'['.repeat(20_000)}${']'.repeat(20_000)}}`, 'ps: {"type":"msg","data":1}',
    ]
    const file = await app.upload(`${odd.join('\n')}\n`)
    const run = await app.start('sh', [`cat "$RUNS/uploads/${file}"; echo and to stderr >&2`])
    assert.deepEqual((await lines(run)).sort(), [...odd, 'and to stderr'].sort())
    assert.deepEqual(new Set(await run.types()), new Set(['start', 'log', 'done']))
    assert.equal((await run.outcome()).result, undefined)
  })

  test('fails by its exit code, whatever it has printed, with the last that it said on stderr', async () => {
    const run = await app.start('sh', [`echo '{"type":"result","data":1}'; seq 2000 >&2; echo 'no such table: users' >&2; exit 3`])
    const { outcome, reason } = await run.outcome()
    assert.equal(outcome, 'error')
    assert.match(reason!, /^sh ended with exit code 3; the last that it said:\n[^]*\n2000\nno such table: users$/)
    assert.ok(reason!.length < 3000)
    const killed = await app.start('sh', ['kill -9 $$'])
    assert.deepEqual((await killed.outcome()).reason, 'sh ended by SIGKILL')
    const terminated = await app.start('sh', ['kill -15 $$'])
    assert.deepEqual((await terminated.outcome()).reason, 'sh ended by SIGTERM', 'which was not ours')
  })

  test('is taken at its word as REFERENCE has it: what it can print, and what may surprise', { skip: noPython }, async () => {
    const reference = readFileSync(join(ROOT, 'REFERENCE.md'), 'utf8')
    const rows = [...reference.split('| it prints |')[1]!.split('\n\n')[0]!.matchAll(/^\| `(\{"type".*?\})` \|/gm)].map(([, json]) => json!)
    assert.equal(rows.length, 5)
    const run = await app.start('python', [`print(${JSON.stringify(rows.join('\n'))})`])
    const [progress, step, warning, msg, result] = rows.map(row => JSON.parse(row))
    assert.deepEqual((await run.entries()).slice(1, -1).map(({ type, data }) => ({ type, data })), [progress, step, warning, msg])
    assert.deepEqual((await run.outcome()).result, result.data)
    assert.equal((await (await app.start('sh', ['echo lost > /dev/stderr'])).outcome()).outcome, 'error')
    const surprises = await app.start('js', [`
      await runCommand(task, ['sh', '-c', 'echo to stderr >&2'])
      await runCommand(task, ['sh', '-c', 'script -qec "test -t 1 && echo a terminal" /dev/null < /dev/null'])
      const late = runCommand(task, ['sh', '-c', '(echo at once; sleep 1000) | stdbuf -oL grep at'])
      await new Promise(resolve => task.signal.addEventListener('abort', resolve))
      await late`])
    await hears(surprises, 'at once')
    await surprises.cancel()
    assert.deepEqual((await lines(surprises)).slice(0, 2), ['to stderr', 'a terminal'])
    assert.equal((await surprises.outcome()).outcome, 'cancelled')
  })

  test('may tell per cent', async () => {
    const run = await app.start('trains', ['echo epoch 40 %; echo epoch 45/0'])
    assert.deepEqual(await said(run), [['progress', { current: 40, total: 100, unit: '%' }], ['progress', { current: 45 }]])
  })

  test('returns the last result that it prints', async () => {
    const run = await app.start('sh', [`for i in 1 2 3; do echo '{"type":"result","data":'$i'}'; done`])
    assert.deepEqual([(await run.outcome()).result, await run.types()], [3, ['start', 'done']])
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
    const nul = await (await app.start('sh', ['a\0b'])).outcome()
    assert.match(nul.reason!, /^cannot start sh: .*null bytes/)
  })

  test('may end its lines in any way, and cut its bytes anywhere', { skip: noPython }, async () => {
    const run = await app.start('python', [`
import sys, time
text = "one\\r\\ntwo\\n\\nfünf €uro 😀\\r\\n{\\"type\\":\\"msg\\",\\"data\\":\\"😀\\"}\\r\\nlast".encode()
for byte in text: sys.stdout.buffer.write(bytes([byte])); sys.stdout.buffer.flush(); time.sleep(0.002)`])
    assert.deepEqual(await said(run), [['log', 'one'], ['log', 'two'], ['log', ''], ['log', 'fünf €uro 😀'], ['msg', '😀'], ['log', 'last']])
  })

  test('may print what is no UTF-8', async () => {
    const run = await app.start('sh', [`printf 'a\\377b\\000c\\n\\303'`])
    assert.deepEqual(await lines(run), ['a\ufffdb\0c', '\ufffd'])
  })

  test('draws a bar for a terminal: of what comes at once, the last is an entry', { skip: noPython }, async () => {
    const run = await app.start('sh', [`printf 'begin\\n\\r10%%\\r20%%\\r30%%\\r'; echo 40%; echo 'end'; printf '1\\r2\\r3'`])
    assert.deepEqual((await lines(run)).filter(line => line !== '30%'), ['begin', '40%', 'end', '2', '3'])
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

  test('is not held up by what it says on stderr', { skip: noPython }, async () => {
    const run = await app.start('python', [`import sys; sys.stderr.write(("e" * 99 + "\\n") * 20_000); print("through")`])
    const all = await lines(run)
    assert.deepEqual([all.length, all.includes('through')], [20_001, true])
  })

  test('finds the environment of its server, and its own: the id, the folder for its files', async () => {
    const run = await app.start('trains', ['env; pwd; exit 0'])
    const found = await lines(run)
    for (const line of [
      'DATABASE_URL=postgres://here', 'VIRTUAL_ENV=/venv', 'PYTHONPATH=/lib', 'CUDA_VISIBLE_DEVICES=1', 'PYTHONUNBUFFERED=1', 'COLOUR=blue',
      `TASK_ID=${run.id}`, `TASK_FILES=${app.runs}/files`, `RUNS=${app.runs}`, `LONGRUN_RUN=${run.id}`, '/',
    ]) assert.ok(found.includes(line), line)
  })

  test('produces a file that can be downloaded', async () => {
    const run = await app.start('sh', [`echo a,b > $TASK_FILES/$TASK_ID.csv; echo '{"type":"result","data":{"file":"'$TASK_ID'.csv"}}'`])
    const { file } = (await run.outcome()).result as { file: string }
    assert.equal((await app.request('GET', `/files/${file}`)).body, 'a,b\n')
  })

  test('may tell its progress in words of its own, which are not logged as well', async () => {
    const run = await app.start('trains', [`echo epoch 1/3; echo epoch 2/3 epochs >&2; printf 'epoch 0.5\\r' ; echo epoch ...; echo epoch 1.2.3`])
    const all = await said(run)
    const [progress, log] = ['progress', 'log'].map(type => all.filter(([found]) => found === type).map(([, data]) => JSON.stringify(data)).sort())
    assert.deepEqual(progress, ['{"current":0.5}', '{"current":1,"total":3}', '{"current":2,"total":3,"unit":"epochs"}'])
    assert.deepEqual(log, ['"epoch ..."', '"epoch 1.2.3"'])
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

  test('that ignores SIGTERM is killed after the grace, with all that it has started', { skip: missing('setsid') }, async () => {
    const run = await app.start('sh', [`trap '' TERM; env -i sleep 1000 & echo $!; setsid sleep 1001 & echo ready; while :; do sleep 1; done`])
    await hears(run, 'ready')
    const [pid] = await run.reader.until(() => true).then(({ entries }) => entries.slice(1).map(({ data }) => Number((data as { msg: string }).msg)).filter(Boolean))
    await run.cancel()
    assert.equal((await run.outcome()).outcome, 'cancelled')
    await gone(pid!)
    await until(() => !processesOf(app.runs).some(({ command }) => /^sleep 100[01]/.test(command)))
  })

  test('is not waited for when it leaves others in the background, which end with it, marked or not', { skip: missing('setsid') }, async () => {
    const run = await app.start('sh', [`
env -i sleep 1000 & echo $!
setsid sh -c 'trap "" HUP; while :; do echo held; sleep 0.01; done' & echo $!
echo last`])
    const { outcome } = await run.outcome()
    assert.equal(outcome, 'ok')
    const pids = (await lines(run)).map(Number).filter(Boolean)
    assert.equal(pids.length, 2)
    for (const pid of pids) await gone(pid)
    assert.ok((await lines(run)).includes('last'))
  })

  test('ends with the run, however the function around it ends', async () => {
    for (const code of [
      `process.exit(0)`, `throw new Error('on purpose')`, `process.kill(process.pid, 'SIGKILL')`, `setTimeout(() => { throw new Error('late') }); await new Promise(() => {})`,
    ]) {
      const run = await app.start('js', [`
        runCommand(task, ['sh', '-c', 'echo $$; exec env -u LONGRUN_RUN sleep 1000']).catch(() => {})
        while (!require('fs').readFileSync(process.env.RUNS + '/' + task.id + '.ndjson', 'utf8').includes('"log"')) await new Promise(resolve => setTimeout(resolve, 10))
        ${code.includes('SIGKILL') ? '' : code}
        ${code.includes('SIGKILL') ? 'return 1' : ''}`])
      await run.outcome()
      const [pid] = await lines(run)
      await gone(Number(pid))
    }
  })

  test('within a function returns its result, and throws what can be caught; there may be many at once', async () => {
    const run = await app.start('js', [`
      const results = await Promise.all(Array.from({ length: 20 }, (_, i) => runCommand(task, ['echo', JSON.stringify({ type: 'result', data: i })])))
      const failed = await runCommand(task, ['sh', '-c', 'exit 7']).catch(error => error.message)
      return [results, failed]`])
    assert.deepEqual((await run.outcome()).result, [Array.from({ length: 20 }, (_, i) => i), 'sh ended with exit code 7'])
    assert.deepEqual(await run.types(), ['start', 'done'])
  })

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
})

suite('What is printed', { concurrency: 3 }, () => {
  const app = new App({ TASKS, PROCESS_LIMIT: '8' })
  before(() => app.startBoth())
  after(() => app.end())

  test('by a function is in its log, once, in its place, and in the terminal', async () => {
    const mark = 'printed in a test'
    const run = await app.start('js', [`
      task.msg('first'); console.log('\\x1b[33m${mark} %d\\x1b[39m', 1); console.error('${mark} 2'); task.msg('then')
      process.stdout.write('${mark} '); process.stderr.write('${mark} 4\\n'); process.stdout.write('3\\n')
      process.stdout.write('c3bc', 'hex'); process.stdout.write(Buffer.from(' end')); await new Promise(resolve => process.stdout.write('', resolve))`])
    assert.deepEqual(await said(run), [
      ['msg', 'first'], ['log', `${mark} 1`], ['log', `${mark} 2`], ['msg', 'then'], ['log', `${mark} 4`], ['log', `${mark} 3`], ['log', 'ü end'],
    ])
    const shown = () => app.workers.output.filter(line => line.includes(mark)).length
    await until(() => shown() >= 3)
    assert.equal(shown(), 4 - 1, '3 and 4 share a line there')
  })

  test('by a function that exits or throws is not lost, and does not fail it', async () => {
    const left = await app.start('js', [`console.log('before'); process.stdout.write('no end'); process.on('exit', () => console.log('after')); process.exit(0)`])
    assert.equal((await left.outcome()).outcome, 'died')
    assert.deepEqual((await lines(left)).slice(0, 2), ['before', 'no end'])
    const thrown = await app.start('js', [`process.stderr.write('half a line'); throw new Error('on purpose')`])
    assert.deepEqual(await said(thrown), [['log', 'half a line'], ['error', 'on purpose']])
  })

  test('as JSON by a function is a log entry like any other', async () => {
    const run = await app.start('js', [`console.log('{"type":"result","data":1}'); return 2`])
    assert.deepEqual([(await run.outcome()).result, await lines(run)], [2, ['{"type":"result","data":1}']])
  })

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
      assert.deepEqual(printed.slice(kept.length), [`${5000 - kept.length} printed lines were dropped: prints have half of a log, 10000 bytes`])
    }
    const full = await own.start('js', [`for (let i = 0; i < 5000; i++) console.log('line', i); for (;;) task.msg('x'.repeat(100))`])
    assert.match((await full.outcome()).reason!, /the log of a run may have 20000 bytes/)
  })
})

test('a parameter with choices takes one of them, and says so to whoever asks', async t => {
  const app = await startApp(t, { TASKS })
  const { body } = await app.request('GET', '/methods')
  const { parameters } = body.find(({ name }: { name: string }) => name === 'chooses')
  assert.deepEqual(parameters.map(({ choices }: { choices: unknown }) => choices), [['small', 'large'], [1, 10]])
  assert.equal((await (await app.start('chooses', [null, 10])).outcome()).result, '10 small')
  for (const [args, wrong] of [
    [['medium', 1], 'size: not one of small, large'], [['large', 2], 'copies: not one of 1, 10'], [['large', '1'], 'copies: not a number'],
    [['', 1], 'size: not one of small, large'], [['small'], 'copies: missing (integer)'],
  ] as const) {
    const answer = await app.request('POST', '/tasks', { method: 'chooses', args })
    assert.deepEqual([answer.status, answer.body.errors], [400, [`invalid argument ${wrong}`]])
  }
})
