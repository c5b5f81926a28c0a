// Programs in any language as functions, and what functions print: real Python, real shells, and programs that do all
// that they should not.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { gone, missing, ROOT, until } from './app.ts'
import { app, hears, lines, noPython, said } from './command.ts'

suite('A program', { concurrency: 3 }, () => {
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
      '{"type":"msg","data":[9007199254740993]}', '{"type":"result","data":{"id":1234567890123456789}}', '{"type":"msg","data":{"a":[-1E+400]}}',
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

  test('is taken at its word as REFERENCE has it: what it can print, and what may surprise', { skip: noPython || missing('script') }, async () => {
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

  test('may print a number that is held, or a text that looks like one that is not, and each arrives as it was', async () => {
    const held = '[9007199254740991,-9007199254740991,1e20,12345678901234567890.5,0.1234567890123456789,"1234567890123456789","\\\\\\" 1e400"]'
    const run = await app.start('sh', [`cat <<'END'\n{"type":"msg","data":${held}}\n{"type":"result","data":${held}}\nEND`])
    assert.deepEqual([await said(run), (await run.outcome()).result], [[['msg', JSON.parse(held)]], JSON.parse(held)])
  })

  test('may tell per cent', async () => {
    const run = await app.start('trains', ['echo epoch 40 %; echo epoch 45/0'])
    assert.deepEqual(await said(run), [['progress', { current: 40, total: 100, unit: '%' }], ['progress', { current: 45 }]])
  })

  test('returns the last result that it prints', async () => {
    const run = await app.start('sh', [`for i in 1 2 3; do echo '{"type":"result","data":'$i'}'; done`])
    assert.deepEqual([(await run.outcome()).result, await run.types()], [3, ['start', 'done']])
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
})

suite('What is printed', { concurrency: 3 }, () => {
  test('by a function is in its log, once, in its place, and in the terminal', async () => {
    const mark = 'printed in a test'
    const run = await app.start('js', [`
      task.msg('first'); console.log('\\x1b[33m${mark} %d\\x1b[39m', 1); console.error('${mark} 2'); task.msg('then')
      process.stdout.write('${mark} '); process.stderr.write('${mark} 4\\n'); process.stdout.write('3\\n')
      process.stdout.write(Buffer.from('${mark} ü\\n').toString('base64'), 'base64')
      process.stdout.write('c3bc', 'hex'); process.stdout.write(Buffer.from(' end')); await new Promise(resolve => process.stdout.write('', resolve))
      const { log } = task; log('taken out of it'); await require('stream/promises').pipeline(['${mark} at the end\\n'], process.stdout); process.stdout.end(Buffer.from('${mark} of bytes\\n')); require('fs').writeSync(1, '${mark} past the log\\n')`])
    assert.deepEqual(await said(run), [
      ['msg', 'first'], ['log', `${mark} 1`], ['log', `${mark} 2`], ['msg', 'then'], ['log', `${mark} 4`], ['log', `${mark} 3`], ['log', `${mark} ü`],
      ['log', 'taken out of it'], ['log', `ü end${mark} at the end`], ['log', `${mark} of bytes`],
    ])
    const shown = () => app.workers.output.filter(line => line.includes(mark))
    await until(() => shown().some(line => line.endsWith('past the log')), 'nobody has ended the output of all')
    assert.equal(shown().length, 8 - 1, '3 and 4 share a line there')
    assert.ok(shown()[3]!.endsWith(`${mark} ü`))
  })

  test('by a function that exits or throws is not lost, and does not fail it', async () => {
    const left = await app.start('js', [`
      console.log('before'); process.stdout.write('no end')
      process.on('exit', () => { console.log('after'); task.msg('left'); process.stderr.write('nor here') })
      process.exit(0)`])
    assert.equal((await left.outcome()).outcome, 'died')
    assert.deepEqual((await said(left)).slice(0, -1), [['log', 'before'], ['log', 'no end'], ['log', 'after'], ['msg', 'left'], ['log', 'nor here']])
    const thrown = await app.start('js', [`process.stderr.write('half a line'); throw new Error('on purpose')`])
    assert.deepEqual(await said(thrown), [['log', 'half a line'], ['error', 'on purpose']])
    const late = await app.start('js', [`process.on('exit', () => { throw new Error('thrown too late') })`])
    assert.equal((await late.outcome()).outcome, 'ok')
    await until(() => app.workers.output.some(line => line === 'Error: thrown too late'), 'the terminal tells of it')
  })

  test('as JSON by a function is a log entry like any other', async () => {
    const run = await app.start('js', [`console.log('{"type":"result","data":1}'); return 2`])
    assert.deepEqual([(await run.outcome()).result, await lines(run)], [2, ['{"type":"result","data":1}']])
  })
})

test('a parameter with choices takes one of them, and says so to whoever asks', async () => {
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
