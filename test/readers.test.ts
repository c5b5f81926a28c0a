// The one rule, without any socket: what a reader gets of a log when its chunks come late, twice, or not at all. The
// log here has six lines of ten bytes each; what a client has got is told as the bytes from one position to another.

import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { LF } from '../log.ts'
import { limit, RemoteError, TimeoutError, type Chunk } from '../protocol.ts'
import { endOf, Reader, Readers, type Sink, type Size, type Source } from '../readers.ts'
import { randomFrom, until } from './app.ts'

const PATIENCE = 1000 // turns of the event loop
const LOG = Buffer.from([1, 2, 3, 4, 5, 6].map(line => `"line ${line}"\n`.padStart(10)).join(''))

const chunk = (from: number, to: number): Chunk => ({ id: 'run', position: from, lines: LOG.subarray(from, to) })

/** What reads a log of which so much is written: two lines at a time. */
const reading = (written: number) => async (position: number) => chunk(position, Math.min(position + 20, written))

/** A client that writes down what it gets: '0-10' are the bytes from 0 to 10. */
class Client implements Sink {
  got: string[] = []
  refusals: string[] = []
  isFull = () => false
  onSend = (_: Chunk) => {}

  send(chunk: Chunk) {
    this.got.push(`${chunk.position}-${endOf(chunk)}`)
    this.onSend(chunk)
  }
  finish() { this.got.push('end') }
  refuse(message: string) { this.refusals.push(message) }
}

suite('A reader', () => {
  test('gets a chunk at the position that it wants next', () => {
    const client = new Client()
    const reader = new Reader('run', 0, client, reading(0))
    reader.receive(chunk(0, 10))
    reader.receive(chunk(10, 30))
    assert.deepEqual(client.got, ['0-10', '10-30'])
    assert.equal(reader.next, 30)
  })

  test('does not get an old chunk again', () => {
    const client = new Client()
    const reader = new Reader('run', 0, client, reading(0))
    for (const old of [chunk(0, 20), chunk(0, 20), chunk(0, 10), chunk(10, 20)]) reader.receive(old)
    assert.deepEqual(client.got, ['0-20'])
  })

  test('gets of a chunk that overlaps with what it has the new lines alone', () => {
    const client = new Client()
    const reader = new Reader('run', 10, client, reading(0))
    reader.receive(chunk(0, 30))
    assert.deepEqual(client.got, ['10-30'])
  })

  test('reads the log from where it is when there is a gap', async () => {
    const client = new Client()
    const reader = new Reader('run', 0, client, reading(40))
    reader.receive(chunk(30, 40)) // what was before has been lost
    assert.deepEqual(client.got, [], 'a line is never sent before those in front of it')
    await nextTurn()
    assert.deepEqual(client.got, ['0-20', '20-40'])
  })

  test('gets each line once when the very chunk that it is reading arrives late', async () => {
    const client = new Client()
    const reader = new Reader('run', 0, client, reading(40))
    reader.receive(chunk(30, 40))
    reader.receive(chunk(0, 10))
    await nextTurn()
    assert.deepEqual(client.got, ['0-20', '20-40'])
  })

  test('gets each line once, in order, when chunks arrive while it catches up', async () => {
    const client = new Client()
    let written = 20
    const reader = new Reader('run', 0, client, position => reading(written)(position))
    client.onSend = ({ position }) => {
      if (position > 20) return
      written += 20
      reader.receive(chunk(written - 20, written)) // the catch-up will come to it
    }
    reader.receive(chunk(10, 20))
    reader.receive(chunk(0, 20)) // what is missing, while it is being read
    await nextTurn()
    assert.deepEqual(client.got, ['0-20', '20-40', '40-60'])
    assert.ok(reader.isUpToDate)
  })

  test('gets nothing more than a window until it acknowledges, and then goes on from the log', async () => {
    const half = Buffer.alloc(2 ** 19, '"a line"\n'.padStart(16)) // half of the window
    const piece = (position: number): Chunk => ({ id: 'run', position, lines: half })
    const client = new Client()
    const reader = new Reader('run', 0, client, async position => piece(position))
    for (let at = 0; at < 8; at++) reader.receive(piece(at * half.length))
    await nextTurn()
    assert.equal(reader.next, 2 * half.length)
    reader.acknowledge(half.length)
    await nextTurn()
    assert.equal(reader.next, 3 * half.length)
    reader.acknowledge(8 * half.length) // more than it can have: what it has counts
    await nextTurn()
    assert.equal(reader.next, 5 * half.length)
  })

  test('gets nothing while its client has too much waiting', async () => {
    const client = new Client()
    client.isFull = () => true
    const reader = new Reader('run', 0, client, reading(60))
    reader.receive(chunk(0, 10))
    await nextTurn()
    assert.deepEqual(client.got, [])
    client.isFull = () => false
    reader.receive(chunk(60, 60)) // the next answer about sizes
    await nextTurn()
    assert.deepEqual(client.got, ['0-20', '20-40', '40-60'])
  })

  test('learns of a lost tail by an empty chunk, which says how long the log is', async () => {
    const client = new Client()
    const reader = new Reader('run', 0, client, reading(60))
    reader.receive(chunk(0, 50))
    reader.receive(chunk(60, 60))
    assert.ok(!reader.isUpToDate)
    await nextTurn()
    assert.deepEqual(client.got, ['0-50', '50-60'])
  })

  test('is told of the end once, when it has everything', async () => {
    const early = new Client()
    const quick = new Reader('run', 0, early, reading(60))
    quick.receive(chunk(0, 60))
    for (const size of [60, 60]) quick.end(size)
    assert.deepEqual(early.got, ['0-60', 'end'])

    const late = new Client()
    const slow = new Reader('run', 0, late, reading(60))
    slow.receive(chunk(60, 60))
    slow.end(60)
    assert.ok(!slow.isDone)
    await nextTurn()
    assert.deepEqual(late.got, ['0-20', '20-40', '40-60', 'end'])
    assert.ok(slow.isDone)
  })

  test('is refused where no line begins, and beyond the end of a run that has ended', async () => {
    const torn = new Client()
    const reader = new Reader('run', 5, torn, async () => { throw new RemoteError('invalid', 'no line begins there') })
    reader.receive(chunk(0, 10))
    await nextTurn()
    assert.deepEqual([torn.got, torn.refusals], [[], ['no line begins there']])

    const ahead = new Client()
    const other = new Reader('run', 70, ahead, reading(60))
    other.receive(chunk(60, 60)) // perhaps a shared file system shows the log late: nothing is wrong yet
    assert.deepEqual(ahead.refusals, [])
    other.end(60)
    assert.deepEqual([ahead.got, ahead.refusals], [[], ['invalid position: the log has ended at 60']])
  })

  test('gets nothing more when it is stopped in the middle of a catch-up', async () => {
    const client = new Client()
    const reader = new Reader('run', 0, client, reading(60))
    client.onSend = () => reader.stop()
    reader.receive(chunk(60, 60))
    await nextTurn()
    assert.deepEqual(client.got, ['0-20'])
  })
})

suite('Readers', () => {
  /** A log in memory of which so much is written, and what is asked about it. */
  class Memory implements Source {
    written = 0
    done = false
    isSilent = false
    asked: string[] = []
    #unanswered: (() => void)[] = []
    subscribe(id: string) { this.asked.push(`subscribe ${id}`) }
    unsubscribe(id: string) { this.asked.push(`unsubscribe ${id}`) }
    tell(isAnswering: boolean) { this.asked.push(isAnswering ? 'answers' : 'is silent') }

    async read(id: string, position: number) {
      this.asked.push(`read ${id} ${position}`)
      return LOG.subarray(position, this.written)
    }
    async stat(ids: string[]) {
      this.asked.push(`stat ${ids}`)
      if (this.isSilent) await new Promise<void>(resolve => this.#unanswered.push(resolve))
      return new Map(ids.map(id => [id, { size: this.written, done: this.done }]))
    }
    answer() {
      this.isSilent = false
      this.#unanswered.splice(0).forEach(wake => wake())
    }
  }

  test('get what arrives in one turn as one chunk, unless there is a hole in it', async () => {
    const client = new Client()
    const readers = new Readers(new Memory())
    readers.follow('run', 0, client)
    for (const [from, to] of [[0, 10], [10, 20], [20, 40]] as const) readers.receive(chunk(from, to))
    await nextTurn()
    assert.deepEqual(client.got, ['0-40'])
    for (const [from, to] of [[40, 50], [0, 20], [50, 60]] as const) readers.receive(chunk(from, to))
    await nextTurn()
    assert.deepEqual(client.got, ['0-40', '40-50', '50-60'])

    const large = Buffer.alloc(40_000, '"a line"\n'.padStart(10)) // more than 64 KiB are not joined
    for (const position of [60, 40_060]) readers.receive({ id: 'run', position, lines: large })
    await nextTurn()
    assert.deepEqual(client.got.slice(3), ['60-40060', '40060-80060'])
  })

  test('ask how long the log is as soon as an empty chunk says that its run may have ended', async () => {
    const memory = new Memory()
    const client = new Client()
    const readers = new Readers(memory)
    readers.follow('run', 0, client)
    await nextTurn()
    memory.written = 60
    memory.done = true
    readers.receive(chunk(60, 60))
    for (let turn = 0; turn < 5; turn++) await nextTurn()
    assert.deepEqual(client.got, ['0-60', 'end'])
  })

  test('get nothing of a run whose id only begins like theirs', async () => {
    const client = new Client()
    const readers = new Readers(new Memory())
    readers.follow('ru', 0, client)
    readers.receive(chunk(0, 10)) // of run
    await nextTurn()
    assert.deepEqual(client.got, [])
  })

  test('that want the same share one question for the size, one read, and the very same chunk', async () => {
    const memory = new Memory()
    memory.written = 60
    const readers = new Readers(memory)
    const clients = [1, 2, 3].map(() => new Client())
    const chunks = new Set<Chunk>()
    for (const client of clients) {
      client.onSend = chunk => chunks.add(chunk)
      readers.follow('run', 0, client)
    }
    for (let turn = 0; turn < PATIENCE && !clients.every(({ got }) => got.length); turn++) await nextTurn()
    assert.deepEqual(memory.asked, ['subscribe run', 'stat run', 'read run 0'])
    assert.equal(chunks.size, 1)
  })

  test('read at most 16 logs at once', async () => {
    const memory = new Memory()
    const begun: (() => void)[] = []
    memory.read = async () => {
      await new Promise<void>(resolve => begun.push(resolve))
      return Buffer.from('{}\n')
    }
    const readers = new Readers(memory)
    const reads = Promise.all(Array.from({ length: 40 }, (_, at) => readers.read(`run-${at}`, 0)))
    const seen: number[] = []
    while (begun.length) {
      seen.push(begun.length)
      begun.splice(0).forEach(finish => finish())
      await nextTurn()
    }
    assert.deepEqual(seen, [16, 16, 8])
    assert.equal((await reads).length, 40)
  })

  test('do not read what nobody wants any more when its turn comes', async () => {
    const memory = new Memory()
    memory.written = 60
    const { read } = memory
    const begun: (() => void)[] = []
    memory.read = async (...where) => {
      await new Promise<void>(resolve => begun.push(resolve))
      return read.apply(memory, where)
    }
    const readers = new Readers(memory)
    for (let at = 0; at < 16; at++) void readers.read('busy', at) // all places are taken
    const [left, both, stays] = [new Client(), new Client(), new Client()]
    const leaves = [readers.follow('left', 10, left), readers.follow('both', 20, both)]
    readers.follow('both', 20, stays)
    let isThere = true
    const asked = readers.read('asked', 30, () => isThere)
    for (let turn = 0; turn < 5; turn++) await nextTurn()
    leaves.forEach(reader => readers.unfollow(reader))
    isThere = false
    for (let turn = 0; turn < PATIENCE && !stays.got.length; turn++) {
      begun.splice(0).forEach(finish => finish())
      await nextTurn()
    }
    assert.deepEqual([left.got, both.got, stays.got], [[], [], ['20-60']])
    assert.equal((await asked).lines.length, 0)
    assert.deepEqual(memory.asked.filter(what => /^read (?!busy)/.test(what)), ['read both 20'])
    const again = readers.read('asked', 30)
    await nextTurn()
    begun.splice(0).forEach(finish => finish())
    assert.equal((await again).lines.length, 30, 'who comes later gets it all the same')
  })

  test('refuse who comes back to a log that is gone; who wants it from its beginning is early', async () => {
    const memory = new Memory()
    const { stat } = memory
    const gone = new Set(['run'])
    memory.stat = async ids => stat.call(memory, ids.filter(id => !gone.has(id)))
    const readers = new Readers(memory)
    const [early, late, other] = [new Client(), new Client(), new Client()]
    readers.follow('run', 0, early)
    readers.follow('run', 20, late)
    readers.follow('other', 20, other)
    for (let time = 0; time < 3; time++) {
      for (let turn = 0; turn < 3; turn++) await nextTurn()
      readers.checkAll()
    }
    assert.deepEqual([early, late, other].map(({ refusals }) => refusals), [[], ['the log of this run is gone'], []])
    memory.written = 60
    gone.delete('run')
    readers.receive(chunk(0, 60))
    readers.checkAll()
    for (let turn = 0; turn < 5; turn++) await nextTurn()
    assert.deepEqual([early.got, late.got, other.got], [['0-60'], [], ['20-60']])
    memory.done = true
    readers.checkAll()
    await nextTurn()
    gone.add('run')
    readers.follow('run', 0, new Client()) // the run is asked for again
    for (let turn = 0; turn < 5; turn++) await nextTurn()
    assert.deepEqual([early.refusals, early.got], [[], ['0-60', 'end']], 'who has everything is told nothing')
  })

  test('do not take a log for gone that began between the question and its answer', async () => {
    const memory = new Memory()
    let answer = (_: Map<string, Size>) => {}
    memory.stat = () => new Promise(resolve => { answer = resolve })
    const client = new Client()
    const readers = new Readers(memory)
    readers.follow('run', 0, client)
    await nextTurn()
    readers.receive(chunk(0, 20)) // the run has begun, after the answer was made and before it is here
    await nextTurn()
    answer(new Map())
    await nextTurn()
    assert.deepEqual([client.got, client.refusals], [['0-20'], []])
  })

  test('unsubscribe with the last reader of a run, and get nothing after that', async () => {
    const memory = new Memory()
    const readers = new Readers(memory)
    const [first, second] = [new Client(), new Client()]
    const both = [readers.follow('run', 0, first), readers.follow('run', 0, second)]
    await nextTurn()
    readers.receive(chunk(0, 10))
    readers.unfollow(both[0]!)
    await nextTurn()
    assert.deepEqual([first.got, second.got, readers.count], [[], ['0-10'], 1])
    readers.unfollow(both[1]!)
    readers.unfollow(both[1]!)
    assert.deepEqual(memory.asked, ['subscribe run', 'stat run', 'unsubscribe run'])
  })

  test('go on with an answer that comes late, and tell meanwhile, once, that there is none', async () => {
    const memory = new Memory()
    memory.written = 60
    memory.isSilent = true
    const client = new Client()
    const readers = new Readers(memory)
    readers.follow('run', 0, client)
    await nextTurn()
    readers.checkAll()
    await until(() => memory.asked.includes('is silent'))
    assert.deepEqual([client.got, readers.isAnswering], [[], false])
    memory.done = true
    memory.answer()
    for (let turn = 0; turn < PATIENCE && client.got.at(-1) !== 'end'; turn++) await nextTurn()
    assert.deepEqual([client.got, readers.isAnswering], [['0-60', 'end'], true])
    assert.deepEqual(memory.asked.filter(what => /answers|silent/.test(what)), ['is silent', 'answers'])
  })

  test('give every line once, in order, to the end, or say why not, whatever happens at random', async () => {
    for (let seed = 1; seed <= 1500; seed++) {
      const model = new Model(seed)
      try {
        await model.play()
      } catch (error) {
        throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error })
      }
    }
  })
})

// ---- The readers beside a plain model

/** A log of the model. When it is cut, there is another version of it, and what was read before may not be in that. */
type Log = { versions: Buffer[]; isDone: boolean; isRemoved: boolean }

/** A client that compares what it gets with the log. */
class Follower implements Sink {
  readonly id: string
  readonly begin: number
  next: number
  hasEnd = false
  refusal?: string
  /** Whether it was refused, or may be, as it came before the run with a position, or has lines that were cut off. */
  mayBeRefused: boolean
  isFull = () => false
  #logs: Map<string, Log>

  constructor(id: string, begin: number, logs: Map<string, Log>) {
    this.id = id
    this.begin = this.next = begin
    this.#logs = logs
    this.mayBeRefused = begin > 0 && !logs.has(id)
  }

  send({ id, position, lines }: Chunk) {
    assert.deepEqual([id, position], [this.id, this.next], 'a chunk begins where the last one has ended')
    assert.equal(lines.at(-1), LF, 'it has whole lines')
    this.#expectMore()
    const { versions } = this.#logs.get(id)!
    for (let at = 0; at < lines.length; this.next = position + at) { // late chunks may bring lines of several versions
      const line = lines.subarray(at, at = lines.indexOf(LF, at) + 1)
      const isIn = (version: Buffer) => version.subarray(this.next, position + at).equals(line)
      assert.ok(versions.some(isIn), 'each line is what the log says')
      this.mayBeRefused ||= !isIn(versions.at(-1)!)
    }
  }
  finish() {
    this.#expectMore()
    this.hasEnd = true
  }
  refuse(message: string) {
    this.#expectMore()
    this.refusal = message
  }
  #expectMore() { assert.ok(!this.hasEnd && this.refusal === undefined, 'nothing follows the end') }
}

/** Logs that grow, end, are cut or removed; chunks that are lost, doubled and late; readers that come and go. */
class Model implements Source {
  #random: (most: number) => number
  #logs = new Map<string, Log>()
  #late: Chunk[] = []
  #readers = new Readers(this)
  #following = new Map<Follower, Reader>()
  #isFailing = false

  constructor(seed: number) { this.#random = randomFrom(seed) }

  async play() {
    const steps: ((this: Model) => unknown)[] = [
      this.#append, this.#append, this.#append, this.#follow, this.#follow, this.#leave, this.#acknowledge, this.#publishLate,
      this.#end, this.#cut, this.#remove, this.#fill, this.#fail, () => nextTurn(), () => nextTurn(), () => this.#readers.checkAll(),
    ]
    for (let step = 0; step < 60; step++) await steps[this.#random(steps.length)]!.call(this)
    await this.#settle()
    for (const follower of this.#following.keys()) this.#check(follower)
  }

  /** From now on all goes well, and all logs end. */
  async #settle() {
    this.#isFailing = false
    for (const id of this.#logs.keys()) this.#end(id)
    for (const follower of this.#following.keys()) follower.isFull = () => false
    const waits = ({ id, hasEnd, refusal }: Follower) =>
      this.#logs.has(id) && !this.#logs.get(id)!.isRemoved && !hasEnd && refusal === undefined
    for (let turn = 0; turn < PATIENCE; turn++) {
      this.#readers.checkAll()
      await nextTurn()
      if (turn > 10 && ![...this.#following.keys()].some(waits)) return
    }
  }

  #check({ id, begin, next, hasEnd, refusal, mayBeRefused }: Follower) {
    const log = this.#logs.get(id)
    const about = `${id} from ${begin} on, at ${next}: ${refusal ?? (hasEnd ? 'has the end' : 'waits')}`
    if (!log || log.isRemoved) return assert.ok(hasEnd || refusal !== undefined || next === 0, about)
    const now = log.versions.at(-1)!
    const isLine = begin === 0 || begin <= now.length && now[begin - 1] === LF
    if (isLine && !mayBeRefused) assert.equal(refusal, undefined, about)
    if (refusal === undefined) assert.deepEqual([hasEnd, next], [true, now.length], about)
  }

  // ---- What happens

  #append(id = this.#pick()) {
    const log = this.#logs.get(id) ?? { versions: [Buffer.alloc(0)], isDone: false, isRemoved: false }
    if (log.isDone || log.isRemoved) return
    this.#logs.set(id, log)
    const before = log.versions.pop()!
    const lines = Array.from({ length: 1 + this.#random(3) }, () => `${'x'.repeat(this.#random(9))}${this.#random(1000)}\n`)
    const now = Buffer.concat([before, Buffer.from(lines.join(''))])
    log.versions.push(now)
    const position = this.#random(2) ? before.length : before.lastIndexOf(LF, this.#random(before.length + 1)) + 1
    const chunk = { id, position, lines: now.subarray(position) }
    for (let copies = this.#random(3); copies > 0; copies--) this.#readers.receive(chunk)
    if (!this.#random(3)) this.#late.push(chunk)
  }

  #publishLate() {
    const at = this.#random(this.#late.length)
    for (const chunk of this.#late.splice(at, 1)) this.#readers.receive(chunk)
  }

  #end(id = this.#pick()) {
    const log = this.#logs.get(id)
    if (!log || log.isDone || log.isRemoved) return
    this.#append(id)
    log.isDone = true
    const position = log.versions.at(-1)!.length
    if (this.#random(2)) this.#readers.receive({ id, position, lines: Buffer.alloc(0) })
  }

  /** Its place is taken by a shorter one. */
  #cut(id = this.#pick()) {
    const log = this.#logs.get(id)
    if (!log || log.isDone || log.isRemoved) return
    const before = log.versions.at(-1)!
    const now = before.subarray(0, before.lastIndexOf(LF, this.#random(before.length)) + 1)
    log.versions.push(now)
    for (const follower of this.#following.keys()) {
      if (follower.id === id && follower.next > now.length) follower.mayBeRefused = true
    }
  }

  #remove(id = this.#pick()) {
    const log = this.#logs.get(id)
    if (log && !this.#random(3)) log.isRemoved = true
  }

  #follow() {
    const id = this.#pick()
    const now = this.#logs.get(id)?.versions.at(-1) ?? Buffer.alloc(0)
    const anywhere = this.#random(now.length + 5)
    const begin = [0, now.lastIndexOf(LF, anywhere) + 1, anywhere][this.#random(3)]!
    const follower = new Follower(id, begin, this.#logs)
    this.#following.set(follower, this.#readers.follow(id, begin, follower))
  }

  #leave() {
    const [follower, reader] = [...this.#following][this.#random(this.#following.size)] ?? []
    if (!follower) return
    this.#readers.unfollow(reader!)
    this.#following.delete(follower)
    follower.hasEnd = true // it must not get anything any more
  }

  #acknowledge() { [...this.#following.values()][this.#random(this.#following.size)]?.acknowledge(this.#random(200)) }

  #fill() {
    const follower = [...this.#following.keys()][this.#random(this.#following.size)]
    const isFull = this.#random(2) === 0
    if (follower) follower.isFull = () => isFull
  }

  #fail() { this.#isFailing = !this.#isFailing }

  #pick() { return ['run', 'run2', 'ru'][this.#random(3)]! } // their beginnings are the same

  // ---- What the readers ask

  subscribe() {}
  unsubscribe() {}
  tell() {}

  async #delay() {
    for (let turns = this.#random(3); turns > 0; turns--) await nextTurn()
    if (this.#isFailing) throw new TimeoutError(true)
  }

  async read(id: string, position: number): Promise<Buffer> {
    await this.#delay()
    const log = this.#logs.get(id)
    if (!log || log.isRemoved) throw new RemoteError('unknown', `unknown run ${id}`)
    const now = log.versions.at(-1)!
    if (log.isDone && position > now.length) throw new RemoteError('invalid', 'invalid position: the log has ended')
    const isLine = position === 0 || position >= now.length || now[position - 1] === LF
    if (!isLine) throw new RemoteError('invalid', 'invalid position: no line begins there')
    const lines = now.subarray(position, position + 30) // a line has fewer bytes
    const answer = lines.subarray(0, lines.lastIndexOf(LF) + 1)
    await this.#delay()
    return answer
  }

  async stat(ids: string[]): Promise<Map<string, Size>> {
    await this.#delay()
    const known = ids.filter(id => this.#logs.get(id)?.isRemoved === false)
    const sizes = known.map((id): [string, Size] => {
      const { versions, isDone } = this.#logs.get(id)!
      return [id, { size: versions.at(-1)!.length, done: isDone }]
    })
    await this.#delay()
    return new Map(sizes)
  }
}

test('a limit holds, and gets each place back, also from what throws at once', async () => {
  const limited = limit(2)
  let [active, most] = [0, 0]
  const act = async () => {
    most = Math.max(most, ++active)
    await nextTurn()
    active--
    return 'done'
  }
  const fails = [() => { throw new Error('at once') }, async () => { throw new Error('later') }]
  const all = await Promise.allSettled([...fails, ...fails, act, act, act, act].map(act => limited<unknown>(act)))
  assert.deepEqual(all.map(({ status }) => status), [...Array(4).fill('rejected'), ...Array(4).fill('fulfilled')])
  assert.equal(most, 2)
})
