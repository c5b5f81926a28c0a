// Remote functions for the tests: each does one thing that a function should not do, or that needs to be looked at.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'
import { FILES } from '../settings.ts'
import { remote } from '../remote.ts'

export * from '../tasks.ts' // those that come with the project, too

const ends = { name: 'ends', type: 'string', description: 'return, throw or wait', default: 'return' } as const
const count = { name: 'count', type: 'integer', description: 'how many', default: 3 } as const

export const crash = remote('throws, after some entries', [{ name: 'msg', type: 'string', description: 'what it throws' }, count], async (task, msg, count) => {
  for (let i = 0; i < count; i++) task.log(`entry ${i}`)
  throw new Error(msg)
})

export const returns = remote('returns what JSON cannot say, or hardly', [{ name: 'what', type: 'string', description: 'bigint, cycle, function or undefined' }],
  async (_, what) => unwritable(what))

export const publishes = remote('publishes what JSON cannot say', [{ name: 'what', type: 'string', description: 'bigint, cycle or function' }],
  async (task, what) => task.msg(unwritable(what)))

function unwritable(what: string): unknown {
  const cycle: { self?: unknown } = {}
  cycle.self = cycle
  const rows = [{ id: 1, name: 'Ada' }, { id: 2, name: 'Emil' }]
  return { bigint: 1n, cycle, function: () => {}, undefined, empty: '', rows }[what]
}

export const exit = remote('ends its process by itself', [{ name: 'code', type: 'integer', description: 'exit code' }], async (task, code) => {
  task.log('about to exit')
  process.exit(code)
})

export const suicide = remote('kills its process', [{ name: 'signal', type: 'string', description: 'its name' }], async (task, signal) => {
  task.log('about to die')
  task.flush()
  process.kill(process.pid, signal)
  await sleep(10_000)
})

export const forget = remote('waits for nothing but its signal', [ends], async (task, ends) => {
  task.log('waiting')
  await new Promise(resolve => task.signal.addEventListener('abort', resolve))
  if (ends === 'throw') throw new Error('could not tidy up', { cause: new Error('the disk is gone') })
  return 'tidied up'
})

export const late = remote('throws in a timer, while it goes on', [], async task => {
  setTimeout(() => { throw new Error('in a timer') }, 10)
  await sleep(10_000, undefined, { signal: task.signal })
})

export const spin = remote('never yields', [{ name: 'seconds', type: 'number', description: 'for how long' }], (task, seconds) => {
  const end = Date.now() + seconds * 1000
  for (let step = 0; Date.now() < end; step++) {
    task.msg({ step })
    hold(50)
  }
})

/** Keeps the thread from everything, as an endless loop does, and leaves the processor to others. */
const hold = (ms: number) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)

export const deaf = remote('ignores that it is to end', [
  { name: 'seconds', type: 'number', description: 'for how long' }, { name: 'text', type: 'string', description: 'is in its call', default: '' },
], async (task, seconds) => {
  task.log('deaf')
  await sleep(seconds * 1000)
  return 'not impressed'
})

export const polite = remote('cleans up when it is to end', [], async task => {
  task.log('working')
  try {
    await sleep(60_000, undefined, { signal: task.signal })
  } finally {
    task.log('cleaning up')
    await sleep(50)
  }
})

export const parent = remote('starts other processes', [{ name: 'ends', type: 'string', description: 'return, throw or wait' }], async (task, ends) => {
  const children = [spawn('sleep', ['1000']), spawn('sh', ['-c', 'trap "" TERM; sleep 1000 & sleep 1000'])]
  task.msg({ pids: children.map(({ pid }) => pid) })
  if (ends === 'throw') throw new Error('with children')
  if (ends === 'wait') await sleep(60_000)
})

const name = { name: 'name', type: 'string', description: 'of the produced file that lets it go' } as const

export const tick = remote('goes on until it is let go', [name], async (task, name) => {
  for (let step = 0; !existsSync(`${FILES}/${name}`); step++) {
    task.msg({ msg: `step ${step + 1} of many`, step })
    await sleep(20, undefined, { signal: task.signal })
  }
})

export const text = remote('one entry of that many characters', [{ name: 'length', type: 'integer', description: 'of its text' }], async (task, length) => {
  task.msg('x'.repeat(length))
})

export const heavy = remote('one entry of so many of a text, and the same as its result, when it is let go', [
  { name: 'text', type: 'string', description: 'of which it is made' }, count, { ...name, default: '' },
], async (task, text, count, name) => {
  task.msg(text.repeat(count))
  while (name && !existsSync(`${FILES}/${name}`)) await sleep(20, undefined, { signal: task.signal })
  return text.repeat(count)
})

export const huge = remote('entries of 15 and of 3 MiB', [], async task => {
  task.log('before')
  task.msg('x'.repeat(15 * 2 ** 20))
  task.log('after')
  return 'y'.repeat(3 * 2 ** 20)
})

export const flood = remote('as many entries as it can, in one turn', [count], (task, count) => {
  for (let step = 0; step < count; step++) task.msg({ step, text: 'the quick brown fox jumps over' })
})

export const stream = remote('entries of about 80 bytes, as fast as it can', [count], async (task, count) => {
  for (let step = 0; step < count; step++) {
    task.msg({ step, text: 'about 80 bytes' })
    if (step % 1000 === 999) await nextTurn()
  }
})

export const murmur = remote('an entry in each turn, until it is let go', [name], async (task, name) => {
  for (let step = 0; !existsSync(`${FILES}/${name}`); step++) {
    task.msg({ step })
    await (step < 20_000 ? nextTurn() : sleep(10))
  }
})

export const produce = remote('writes a file', [count], async (task, count) => {
  writeFileSync(`${FILES}/${task.id}.txt`, 'x'.repeat(count))
  return { file: `${task.id}.txt` }
})

export const claim = remote('returns what it is given', [{ name: 'result', type: 'object', description: '' }], async (_, result) => result)

export const environment = remote('the environment of its process', [], async () => Object.keys(process.env))

export const takes = remote('takes one argument of each type', [
  { name: 'string', type: 'string', description: '' }, { name: 'integer', type: 'integer', description: '', min: 1, max: 9 },
  { name: 'number', type: 'number', description: '' }, { name: 'boolean', type: 'boolean', description: '' },
  { name: 'object', type: 'object', description: '', default: {} },
], async (_, ...args) => args)

export const unmarked = async () => 'not to be called'

export const hoard = remote('takes all the memory that there is for it', [], async task => {
  task.log('hungry')
  task.flush()
  const hoarded: unknown[] = []
  for (;;) hoarded.push(new Array(1_000_000).fill(0.5))
})

/** Microseconds on a clock that all processes of the machine share. */
const now = () => Number(process.hrtime.bigint() / 1000n)

export const burn = remote('computes without end, or for so many milliseconds', [
  { name: 'ms', type: 'number', description: 'for how long', default: 1e12 },
], (_, ms) => {
  for (const end = performance.now() + ms; performance.now() < end;);
})

export const rate = remote('so many entries, so many a second, each with the time at which it was made', [
  count, { name: 'perSecond', type: 'number', description: 'at most 1,000 turns a second' },
], async (task, count, perSecond) => {
  const began = now()
  for (let step = 0; step < count;) {
    const due = Math.min(count, Math.ceil((now() - began) / 1e6 * perSecond))
    for (; step < due; step++) task.msg({ step, at: now() })
    await sleep(1, undefined, { signal: task.signal })
  }
})


/** A process that has left its process group and session, by each of the ways that there are. */
export const daemons = remote('starts processes that leave its process group', [ends], async (task, ends) => {
  const detached = spawn('sleep', ['1000'], { detached: true, stdio: 'ignore' })
  const daemon = spawn('sh', ['-c', '(trap "" TERM HUP; sleep 1000 & echo $!; wait) &'], { detached: true }) // forked twice
  const [grandchild] = await once(daemon.stdout, 'data')
  task.msg({ pids: [detached.pid, Number(grandchild)] })
  if (ends === 'throw') throw new Error('with daemons')
  if (ends === 'wait') await sleep(600_000)
})

export const tidy = remote('cleans up as its process exits', [ends], async (task, ends) => {
  process.on('exit', () => {
    writeFileSync(`${FILES}/${task.id}.tidied`, 'x')
    task.log('too late to be said')
  })
  task.log('working')
  if (ends === 'throw') throw new Error('untidy')
  if (ends === 'wait') await sleep(600_000, undefined, { signal: task.signal })
})

export const stuck = remote('hangs as its process exits', [], () => {
  process.on('exit', () => hold(600_000))
})

export const explain = remote('throws, reports or returns an error of that kind', [
  { name: 'kind', type: 'string', description: 'a key of ERRORS' }, { name: 'how', type: 'string', description: 'throw, error, cause, msg or return' },
], async (task, kind, how) => {
  const error = await ERRORS[kind]!().catch((error: unknown) => error)
  if (how === 'throw') throw error
  if (how === 'error') task.error(error)
  if (how === 'cause') task.error('it failed', error as Error)
  if (how === 'msg') task.msg({ failed: error })
  if (how === 'return') return error
})

const ERRORS: Record<string, () => Promise<unknown>> = {
  fetch: () => fetch('http://127.0.0.1:9/'), // the port is discarded by all that there is
  aggregate: () => Promise.any([Promise.reject(new Error('the first')), Promise.reject(new Error('the second'))]),
  cause: async () => { throw new Error('outside', { cause: new Error('inside', { cause: 'a text' }) }) },
  code: async () => readFileSync('/nowhere/at/all'),
  text: async () => { throw 'a text' },
  object: async () => { throw { status: 7 } },
}

export const odd = remote('reports what JSON would say wrongly', [], async task => {
  task.msg({ nan: NaN, infinity: -Infinity, map: new Map([['a', 1]]), set: new Set([1, 2]), nothing: undefined, list: [undefined] })
  task.msg(new Map([[{ a: 1 }, NaN]]))
  task.msg({ promise: Promise.resolve(1), pattern: /x/, date: new Date(NaN), when: new Date(0), call: odd })
  task.msg({ deep: [{ map: new Map([['set', new Set(['x'])]]) }], empty: {}, null: null })
  task.progress(NaN, Infinity, 'rows')
  task.log('with details', { line: undefined, why: new Set(['a']) })
  task.warning({ toString: 'x' })
  return new Map([['answer', 42]])
})

export const grumble = remote('says something on stderr, then ends its process', [
  { name: 'lines', type: 'integer', description: 'how many' }, { name: 'code', type: 'integer', description: 'exit code' },
], (_, lines, code) => {
  for (let line = 1; line <= lines; line++) console.error(`grumble ${line}`)
  process.exit(code)
})

export const chatter = remote('prints so many lines of a kB, and ends', [count], async (task, count) => {
  for (let line = 0; line < count; line++) console.log('x'.repeat(1000))
  task.log('printed')
})

export const parts = remote('builds, then tests until it is let go, then deploys by another measure', [name], async (task, name) => {
  task.step('build')
  task.progress(30, 30, 'files')
  await sleep(20)
  task.step('test')
  task.progress(12, 30)
  while (!existsSync(`${FILES}/${name}`)) await sleep(20, undefined, { signal: task.signal })
  task.step('deploy')
  for (let sent = 1; sent <= 20; sent++) {
    task.progress(sent * 1e6, 20e6, 'bytes')
    await sleep(5)
  }
})

/** What a form has of its own. */
const taken = ['elements', 'action', 'submit', 'dataset', 'method', 'children', 'append', 'id', 'name', '__proto__']
export const awkward = remote('its parameters have the names of what a form has itself', [
  ...taken.map(name => ({ name, type: 'string', description: '' }) as const),
  { name: 'choice', type: 'string', description: '', choices: ['one', 'two'], default: 'two' },
  { name: 'size', type: 'integer', description: '', choices: [8, 16] },
], async (_, ...args) => ({ given: args }))

export const reports = remote('reports what it is given', [
  { name: 'entries', type: 'object', description: 'the name of a method of Task, and its arguments, by any name' },
], async (task, entries) => {
  for (const [name, ...data] of Object.values(entries) as [string, ...unknown[]][]) {
    (task as unknown as Record<string, (...data: unknown[]) => void>)[name]!(...data)
  }
})

export const lingers = remote('reports what it is given, and waits to be cancelled', [
  { name: 'entries', type: 'object', description: 'as of reports' },
], async (task, entries) => {
  reports.run(task, entries)
  await sleep(600_000, undefined, { signal: task.signal })
})
