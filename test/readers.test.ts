// The one rule, without any socket: what a reader gets of a log when its chunks come late, twice, or not at all. The
// log here has six lines of ten bytes each; what a client has got is told as the bytes from one position to another.

import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { RemoteError, type Chunk } from '../protocol.ts'
import { endOf, Reader, Readers, type Sink, type Source } from '../readers.ts'
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

  test('get the whole log, each line once, whatever is lost, doubled, late or out of order', async () => {
    for (let seed = 1; seed <= 200; seed++) {
      const random = randomFrom(seed)
      const memory = new Memory()
      const { read } = memory
      memory.read = async (...where) => {
        for (let turns = random(3); turns > 0; turns--) await nextTurn()
        return read.apply(memory, where)
      }
      const client = new Client()
      const readers = new Readers(memory)
      const reader = readers.follow('run', 10 * random(3), client)
      const begin = reader.next
      client.onSend = chunk => { if (random(2)) reader.acknowledge(endOf(chunk)) }
      while (memory.written < LOG.length) {
        const from = memory.written
        memory.written = Math.min(from + 10 * (1 + random(2)), LOG.length)
        for (let copies = random(3); copies > 0; copies--) {
          readers.receive(chunk(Math.max(0, from - 10 * random(3)), memory.written))
        }
        if (random(2)) await nextTurn()
      }
      memory.done = true
      for (let turn = 0; turn < PATIENCE && client.got.at(-1) !== 'end'; turn++) {
        readers.checkAll()
        await nextTurn()
      }
      assert.equal(client.got.at(-1), 'end', `seed ${seed}: ${client.got}`)
      const ranges = client.got.slice(0, -1).map(range => range.split('-').map(Number))
      ranges.forEach(([from], at) => assert.equal(from, at ? ranges[at - 1]![1] : begin, `seed ${seed}: ${client.got}`))
      assert.equal(ranges.at(-1)?.[1] ?? begin, LOG.length, `seed ${seed}: ${client.got}`)
    }
  })
})
