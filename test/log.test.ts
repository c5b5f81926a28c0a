// A run is a log: what its lines can hold, where they stand, and how the log ends. No process is started here.

import assert from 'node:assert/strict'
import { appendFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, suite, test } from 'node:test'

process.env.RUNS = mkdtempSync(join(tmpdir(), 'longrun-test-')) // the rooms look at it when they are imported
after(() => rmSync(process.env.RUNS!, { recursive: true }))
const {
  blankForeign, describeError, goingOnFor, isFile, isId, logPath, MAX_ENTRY, noteBegin, packDone, packEntry, PositionError,
  readReason, removeSideFiles, RunLog, unpackEntry, writeReason,
} = await import('../log.ts')

/** What a line of the log says of this, as somebody reads it there. */
const written = (data: unknown) => unpackEntry(packEntry('msg', data)).data

suite('An entry', () => {
  test('is one line, whatever it says', () => {
    const text = 'a\nb\r\nc\u2028d\u0000"\\'
    const line = packEntry('log', { msg: text }, 1767225600000)
    assert.match(line, /^\{"type":"log","time":1767225600000,"data":[^\n]*\}\n$/)
    assert.deepEqual(unpackEntry(line), { type: 'log', time: 1767225600000, data: { msg: text } })
  })

  test('says plain data as JSON does', () => {
    for (const data of [null, true, 0, -1.5e300, '', 'ü', [], {}, [[1, [2]], { a: { b: null } }]]) {
      assert.deepEqual(written(data), data)
    }
    assert.equal(written(undefined), null)
    assert.equal(written(new Date(0)), '1970-01-01T00:00:00.000Z')
    assert.deepEqual(written({ a: { toJSON: () => 'as it likes' } }), { a: 'as it likes' })
  })

  test('says what JSON has no word for so that a person recognises it', () => {
    const odd = {
      nan: NaN, infinity: -Infinity, nothing: undefined, date: new Date(NaN), map: new Map([['a', 1]]),
      pairs: new Map([[{ x: 1 }, NaN]]), set: new Set([1, new Set([2])]), pattern: /a+/g,
      list: [NaN, undefined, new Map()], holes: [1, , 3], hole: new Array(2), deep: { holes: [[, null]] },
    }
    assert.deepEqual(written(odd), {
      nan: 'NaN', infinity: '-Infinity', nothing: 'undefined', date: 'Invalid Date', map: { a: 1 },
      pairs: [[{ x: 1 }, 'NaN']], set: [1, [2]], pattern: '/a+/g',
      list: ['NaN', 'undefined', {}], holes: [1, 'undefined', 3], hole: ['undefined', 'undefined'],
      deep: { holes: [['undefined', null]] },
    })
    assert.equal(written(NaN), 'NaN')
    assert.match((written({ forgotten: Promise.resolve(1) }) as { forgotten: string }).forgotten, /^Promise \{/)
    assert.deepEqual(written(new Map([['a', new Set([Infinity])]])), { a: ['Infinity'] })
  })

  test('says of an error, wherever it stands, what it was', () => {
    const { failed } = written({ failed: new RangeError('too far', { cause: 'the map' }) }) as { failed: any }
    assert.equal(failed.msg, 'too far: the map')
    assert.match(failed.stack, /^RangeError: too far\n/)
    assert.equal((written(new Error('itself')) as { msg: string }).msg, 'itself')
  })

  test('is refused when nothing could say it, or when it is too large', () => {
    const cycle: { self?: unknown } = {}
    cycle.self = cycle
    for (const data of [1n, { a: 1n }, cycle, () => {}, Symbol('x')]) {
      assert.throws(() => packEntry('msg', data), TypeError)
    }
    assert.throws(() => packEntry('msg', 'x'.repeat(MAX_ENTRY)), RangeError)
    assert.throws(() => unpackEntry('{"type":"msg","time":1,"da'), SyntaxError)
  })
})

suite('The bound of an entry is in bytes, as on the wire:', () => {
  for (const letter of ['x', '€', '😀', '\u0007']) {
    const bytes = Buffer.byteLength(JSON.stringify(letter)) - 2
    const name = JSON.stringify(letter)
    /** A text whose JSON has so many bytes. */
    const textOf = (size: number) => letter.repeat((size - 2) / bytes) + 'x'.repeat((size - 2) % bytes)

    test(`text of ${name} at the bound and below is taken, above it is not`, () => {
      for (const size of [MAX_ENTRY - 1, MAX_ENTRY]) {
        const line = packEntry('msg', textOf(size), 1)
        assert.equal(Buffer.byteLength(line), size + '{"type":"msg","time":1,"data":}\n'.length)
      }
      for (const size of [MAX_ENTRY + 1, MAX_ENTRY + 3]) {
        assert.throws(() => packEntry('msg', textOf(size)), new RegExp(`an entry may have ${MAX_ENTRY} bytes, this one has ${size}$`))
      }
    })

    test(`so is a result of ${name}, with what else stands in its line`, () => {
      const done = (size: number) => packDone({ outcome: 'ok', result: textOf(size), seconds: 1.5, warnings: 2 })
      const others = Buffer.byteLength('{"outcome":"ok","seconds":1.5,"warnings":2,"result":}')
      for (const size of [MAX_ENTRY - 1, MAX_ENTRY]) assert.ok(done(size - others))
      assert.throws(() => done(MAX_ENTRY + 1 - others), RangeError)
    })

    test(`what is said of errors fits, three aggregates deep and with twenty causes, in messages of ${name}`, () => {
      const message = letter.repeat(300_000)
      const nested = (depth: number): Error => new AggregateError(
        Array.from({ length: 5 }, () => depth ? nested(depth - 1) : new Error(message)), message, { cause: new Error(message) })
      const note = describeError(nested(2))
      assert.ok(packEntry('error', note))
      assert.ok(packDone({ outcome: 'error', reason: note.msg, seconds: 1 }))
    })
  }
})

suite('What is said of an error', () => {
  test('has the messages and the codes of its causes', () => {
    const refused = Object.assign(new Error('connect ECONNREFUSED 127.0.0.1:1'), { code: 'ECONNREFUSED' })
    const note = describeError(new TypeError('fetch failed', { cause: refused })) as any
    assert.equal(note.msg, 'fetch failed: connect ECONNREFUSED 127.0.0.1:1')
    assert.equal(note.cause.code, 'ECONNREFUSED')

    const all = describeError(new AggregateError([refused, new Error('no route')], 'nobody answered')) as any
    assert.equal(all.msg, 'nobody answered: connect ECONNREFUSED 127.0.0.1:1; no route')
    assert.deepEqual(all.errors.map(({ msg }: { msg: string }) => msg), [refused.message, 'no route'])
    assert.equal(describeError(new AggregateError([refused])).msg, 'AggregateError: connect ECONNREFUSED 127.0.0.1:1')
  })

  test('is never empty, and ends, for whatever can be thrown', () => {
    const itself = new Error('round')
    itself.cause = itself
    const fake = Object.create(Error.prototype)
    const thrown = ['text', 1, null, undefined, {}, { a: 1 }, Symbol('x'), new Error(''), itself, fake]
    for (const value of thrown) assert.ok(describeError(value).msg, String(value && typeof value))
    assert.equal(describeError('x'.repeat(1e6)).msg.length, 2 ** 16)
  })
})

suite('The log of a run', () => {
  const lines = ['first', 'second', 'third'].map(text => `${JSON.stringify(text)}\n`) // at 0, 8 and 17, until 25
  function newLog(id: string, content = lines.join('')) {
    const log = new RunLog(id, 'create')
    log.append(Buffer.from(content))
    return log
  }

  test('gives whole lines from a position on, as many as fit, or one that does not', () => {
    const log = newLog('lines')
    assert.equal(log.size, 25)
    assert.equal(String(log.lines(0, 100)), lines.join(''))
    assert.equal(String(log.lines(8, 100)), lines.slice(1).join(''))
    assert.equal(String(log.lines(0, 17)), lines.slice(0, 2).join(''))
    assert.equal(String(log.lines(0, 16)), lines[0])
    assert.equal(String(log.lines(8, 1)), lines[1], 'one at least')
    assert.equal(String(log.lines(25, 100)), '', 'at its end')
    for (const wrong of [1, 7, 24]) assert.throws(() => log.lines(wrong, 100), PositionError)
    log.close()
  })

  test('begins once, is opened only where there is one, and never through a link', () => {
    newLog('begun').close()
    assert.throws(() => new RunLog('begun', 'create'), /EEXIST/)
    assert.throws(() => new RunLog('missing', 'open'), /ENOENT/)
    symlinkSync(logPath('begun'), logPath('link'))
    assert.throws(() => new RunLog('link', 'open'), /ELOOP/)
    const again = new RunLog('begun', 'open')
    assert.equal(again.size, 25)
    again.close()
  })

  test('knows its first entry and how it ended, however long these lines are', () => {
    for (const length of [1, 70_000, 200_000]) {
      const log = newLog(`long${length}`, '')
      assert.deepEqual([log.first(), log.end()], [undefined, undefined])
      const text = 'x'.repeat(length)
      log.append(Buffer.from(packEntry('start', { args: [text] })))
      log.finish(packDone({ outcome: 'ok', seconds: 1, result: text }))
      assert.deepEqual([log.first()!.data, String(log.end()!.result)], [{ args: [text] }, `"${text}"`])
      log.close()
    }
  })

  test('has a torn last line when its process has died in it: nobody reads it, and it can be cut off', () => {
    newLog('torn', packEntry('msg', 'whole')).close()
    const whole = readFileSync(logPath('torn'))
    appendFileSync(logPath('torn'), packEntry('msg', 'x'.repeat(100_000)).slice(0, -1))
    const log = new RunLog('torn', 'open')
    assert.deepEqual(log.lines(0, 10), whole)
    assert.equal(log.lines(whole.length, 10).length, 0)
    assert.equal(log.first()!.data, 'whole')
    log.cut()
    assert.equal(log.size, whole.length)
    const next = Buffer.from(packEntry('msg', 'next'))
    log.append(next)
    assert.deepEqual(readFileSync(logPath('torn')), Buffer.concat([whole, next]))
    log.close()

    writeFileSync(logPath('half'), '{"type":"start"')
    const half = new RunLog('half', 'open')
    half.cut()
    assert.equal(half.size, 0)
    half.close()
  })

  test('tells how its run ended by the beginning of its last line, and gives the result as it stands there', () => {
    const log = newLog('told', packEntry('msg', { text: 'x'.repeat(200_000) }))
    assert.deepEqual([log.end(), log.state().outcome, log.state().size], [undefined, undefined, log.size])
    const reason = 'it said ,"result":1}} and\nmore'
    const result = { text: '"result":', list: [1, ',"result":'], more: { result: 'ü' } }
    log.finish(packDone({ outcome: 'cancelled', reason, seconds: 2, errors: 1, result }))
    const end = log.end()!
    assert.deepEqual([end.outcome, end.reason, end.seconds, end.errors, end.size], ['cancelled', reason, 2, 1, log.size])
    assert.equal(String(end.result), JSON.stringify(result))
    assert.equal(log.state().outcome, 'cancelled')
    log.close()
    for (const none of [undefined, null]) {
      const log = newLog(`told-${none}`, '')
      log.finish(packDone({ outcome: 'ok', seconds: 0, result: none }))
      assert.equal(log.end()!.result?.toString(), none === null ? 'null' : undefined)
      log.close()
    }
    const old = newLog('told-before', '{"type":"done","time":5,"data":{"outcome":"ok","result":{"a":1,"result":2},"seconds":3}}\n')
    assert.deepEqual([old.end()!.seconds, String(old.end()!.result)], [3, '{"a":1,"result":2}'])
    old.close()
    for (const [at, end] of [' }\n', '}\r\n', '} \n'].entries()) { // whose line ends in another way, is read all the same
      const log = newLog(`told-otherwise${at}`, packDone({ outcome: 'ok', seconds: 4, result }).replace('}\n', end))
      assert.deepEqual([log.end()!.seconds, String(log.end()!.result)], [4, JSON.stringify(result)])
      log.close()
    }
  })

  /** Lines that somebody else may write. */
  const foreign = [
    'hello', '', '{"hello":1}', '\0'.repeat(40), '{"hello":', '{"type":"', '{"type":"msg","time":17', '{"type":"progress","time":1,oops',
    '{"type":"step","time":1}', '{"type":"msg","time":1,"data":}', '{"type":"msg","time":1,"data":oops}', ...['1.2.3', '01', '1e', '1.', '-', '+1', '1-2', 'NaN'].map(data => `{"type":"msg","time":1,"data":${data}}`), '{"type":"msg","time":,"data":1}',
    '{"type":"msg","time":1,"data":{"a":{"b":1}', '{"type":"msg","time":1,"data":[{"a":1}', '{"type":"msg","time":1,"data":"}', // torn
    '{"type":"done"', '{"type":"done","time":', '{"type":"done","time":1}', '{"type":"done","time":1,oops}', '{"type":"done","time":1,"data":null}',
    ...[{}, { outcome: 'weird', seconds: 1 }, { outcome: 'ok' }, { outcome: 'ok', seconds: '1' }, { outcome: 'ok', seconds: 1, reason: 5 }, [], 1]
      .map(data => JSON.stringify({ type: 'done', time: 1, data })),
    '{"type":"done","time":1,"data":{"outcome":"ok","seconds":,"result":1}}',
  ]

  test('is not confused by what somebody else has written into it, which says nothing', () => {
    for (const [at, text] of foreign.entries()) {
      const log = newLog(`foreign${at}`, packEntry('start', { args: [] }))
      log.append(Buffer.from(`${text}\n`))
      assert.deepEqual([log.first()!.type, log.end(), log.state().size], ['start', undefined, log.size], `${text} in the log of a run that goes on`)
      log.append(Buffer.from(packEntry('msg', 'more')))
      log.finish(packDone({ outcome: 'ok', seconds: 1, result: 5 }))
      const { size } = log
      for (let times = 0; times < 3; times++) log.append(Buffer.from(`${text}\n`))
      assert.deepEqual([log.end()!.outcome, log.state().size], ['ok', size], `${text} in the log of a run that has ended`)
      log.close()
    }
  })

  test('tells its last step and progress, whatever else begins like these', () => {
    const log = newLog('latest', packEntry('msg', 'x'.repeat(100_000)))
    assert.equal(log.latest('step'), undefined)
    log.append(Buffer.from(packEntry('step', { name: 'build' }) + packEntry('progress', { current: 1 }) + packEntry('msg', '\n{"type":"step"')))
    for (const rest of ['', '1}', '1,"data":null}', '1,oops', '1,"data":{"name":"x"']) {
      log.append(Buffer.from(`{"type":"step","time":${rest}\n{"type":"progress","time":${rest}\n`))
    }
    assert.deepEqual([log.latest('step')!.data, log.latest('progress')!.data], [{ name: 'build' }, { current: 1 }])
    log.close()
  })

  test('begins a new line behind what somebody else has left without an end, so that it swallows no entry', () => {
    const [one, two] = [packEntry('msg', 'one'), packEntry('msg', 'two')]
    const end = packEntry('error', { msg: 'x' }) + packDone({ outcome: 'error', seconds: 1 })
    for (const [at, text] of ['hello', '\0'.repeat(1000), '{"type":"msg","time":17', '\nhello', 'x'.repeat(200_000)].entries()) {
      const path = logPath(`unended${at}`)
      newLog(`unended${at}`, one).close()
      appendFileSync(path, text)
      const log = new RunLog(`unended${at}`, 'open') // as its process, which looks at it for the first time
      log.append(Buffer.from(one))
      log.append(Buffer.from(two))
      appendFileSync(path, text)
      const lines = log.finish(end)
      assert.equal(readFileSync(path, 'utf8'), `${one}${text}\n${one}${two}${text}\n${end}`)
      assert.deepEqual([log.size - lines.length, log.end()!.outcome], [readFileSync(path).length - Buffer.byteLength(end), 'error'])
      log.close()
    }
    const log = newLog('ended-by-others', one)
    appendFileSync(logPath('ended-by-others'), 'hello\n')
    log.append(Buffer.from(two))
    assert.equal(readFileSync(logPath('ended-by-others'), 'utf8'), `${one}hello\n${two}`, 'and no line that nobody needs')
    log.close()
  })

  test('gives what is longer than any line of ours in parts, each a line of blanks', () => {
    const size = 40 * 2 ** 20
    const log = newLog('endless', `${lines[0]}${'x'.repeat(size)}\n${lines[1]}`)
    const parts = []
    for (let position = 0, part; (part = log.lines(position, 2 ** 19)).length; position += part.length) parts.push(part)
    assert.equal(parts.reduce((sum, { length }) => sum + length, 0), log.size)
    assert.ok(parts.length > 2 && parts.every(part => part.length <= 32 * 2 ** 20 && part.at(-1) === 10))
    const text = parts.map(part => String(blankForeign(part))).join('')
    assert.deepEqual(text.split('\n').filter(line => line.trim() && !line.includes('xx')), [])
    log.close()
  })

  test('gives blanks for what somebody else has written, so that its lines can be joined, and stand where they are', () => {
    const ours = packEntry('msg', { ü: ['"'] })
    for (const text of foreign.flatMap(text => [`${text}\n`, `${text}\nbc\n`])) {
      for (const [all, count] of [[ours + text + ours, 2], [text + ours, 1], [ours + text, 1], [text, 0], [text + text, 0], [ours, 1]] as const) {
        const lines = blankForeign(Buffer.from(all))
        assert.equal(lines.length, Buffer.byteLength(all))
        assert.equal(lines.at(-1), 10)
        const joined = `[${String(lines).slice(0, -1).replaceAll('\n', ',')}]`
        assert.equal(JSON.parse(joined).length, count, `${JSON.stringify(all)} as ${JSON.stringify(String(lines))}`)
      }
    }
    for (const data of [0, -0.5, 5e-324, 1e21, -1.5e300, null, true, false, '', 'x', '"}', [], {}, [[]], { a: {} }]) {
      for (const line of [packEntry('msg', data), packEntry('msg', data).replace('\n', '\r\n')]) {
        assert.equal(String(blankForeign(Buffer.from(line))), line)
      }
    }
    const end = packDone({ outcome: 'ok', seconds: 1, result: 1 })
    assert.equal(String(blankForeign(Buffer.from(end))), end)
    for (const line of [packEntry('msg', 'é'), packDone({ outcome: 'ok', seconds: 1, result: 'é' })]) {
      const log = newLog(`latin${line.length}`, ours)
      log.append(Buffer.from(line, 'latin1')) // no UTF-8: a browser closes its WebSocket for that
      assert.equal(log.end(), undefined)
      assert.equal(String(blankForeign(log.read(0, log.size))), `${ours.trimEnd().padEnd(log.size - 1)}\n`.replace(' ', ''))
      log.close()
    }
  })

  test('is replaced by a copy, so that who is cut off writes where nobody reads, and can see it', () => {
    const lost = newLog('fenced')
    const log = new RunLog('fenced', 'open')
    lost.append(Buffer.from('"late"\n')) // before: it counts
    log.replace()
    lost.append(Buffer.from('"too late"\n'))
    assert.ok(lost.isRemoved && !log.isRemoved)
    log.append(Buffer.from('"end"\n'))
    assert.equal(readFileSync(logPath('fenced'), 'utf8'), `${lines.join('')}"late"\n"end"\n`)
    assert.ok(!existsSync(`${logPath('fenced')}.copy`))
    log.close()
    lost.close()
  })

  test('ends with done, after an error if something went wrong', () => {
    const log = newLog('ended')
    log.finish(packEntry('error', { msg: 'killed' }) + packDone({ outcome: 'died', seconds: 1, reason: undefined }))
    const [error, done] = readFileSync(logPath('ended'), 'utf8').trim().split('\n').slice(-2).map(unpackEntry)
    assert.deepEqual([error!.type, error!.data], ['error', { msg: 'killed' }])
    assert.deepEqual([done!.type, done!.data], ['done', { outcome: 'died', seconds: 1 }])
    assert.equal(log.end()!.outcome, 'died')
    log.close()
  })
})

test('the first reason why a run is to end is the one that counts, until the run has ended', () => {
  assert.equal(readReason('stopped'), undefined)
  writeReason('stopped', 'cancelled')
  writeReason('stopped', 'over its time limit')
  assert.equal(readReason('stopped'), 'cancelled')
  writeFileSync(join(process.env.RUNS!, 'stopped.stop'), 'x'.repeat(MAX_ENTRY)) // by somebody else
  packDone({ outcome: 'cancelled', reason: readReason('stopped'), seconds: 1 })
  removeSideFiles('stopped')
  assert.equal(readReason('stopped'), undefined)
})

test('for how long a run has been going on needs no wall clock, and ends with the machine', t => {
  assert.equal(goingOnFor('begun'), undefined)
  noteBegin('begun')
  t.mock.timers.enable({ apis: ['Date'], now: Date.now() + 86_400_000 })
  assert.ok(goingOnFor('begun')! < 60_000)
  const [note, ...others] = readdirSync(process.env.RUNS!).filter(name => name.endsWith('.began'))
  assert.deepEqual(others, [])
  const path = join(process.env.RUNS!, note!)
  const noted = readFileSync(path, 'utf8')
  for (const other of [noted.replace(/^\S+/, 'another-boot'), noted.replace(/\S+$/, 'x'), noted.replace(/\S+$/, '1e99'), '']) {
    writeFileSync(path, other)
    assert.equal(goingOnFor('begun'), undefined, other)
  }
  removeSideFiles('begun')
  assert.ok(!existsSync(path))
})

test('names of runs and of files are matched: none leads to another folder', () => {
  for (const id of ['a', 'A-b_9', '__proto__', 'x'.repeat(64)]) assert.ok(isId(id), id)
  for (const id of ['', '.', '..', 'a/b', 'a.b', 'a\n', 'ä', 'x'.repeat(65), null, 1, ['a'], {}]) {
    assert.ok(!isId(id), String(JSON.stringify(id)))
  }
  for (const name of ['a.txt', 'A-b_9.7z', 'a.parts']) assert.ok(isFile(name), name)
  for (const name of ['a', 'a.', '.txt', 'a.part', 'a.b.c', '../a.txt', 'a.TXT', 'a.txt\n', 'a.x/y', null]) {
    assert.ok(!isFile(name), String(name))
  }
})
