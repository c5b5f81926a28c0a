// Rubbish, in quantities, and always the same (the seed is fixed): well-formed requests, mutated, over HTTP, over the
// WebSocket and to the request address, and raw bytes to the other two. Afterwards a normal run goes through, and
// neither server has grown by more than MOST_MEMORY.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { Dealer } from 'zeromq'
import { App, memoryOf, randomFrom, tcpAddresses } from './app.ts'

const ROUNDS = 2000
const AT_ONCE = 20
/** Bytes by which the resident memory of a server may have grown in the end: mostly heap that waits for its collection. */
const MOST_MEMORY = 96 * 2 ** 20

let app: App
let began: number[]
before(async () => {
  app = new App({ ...tcpAddresses(), MAX_UPLOAD: '100000' })
  await app.startBoth()
  writeFileSync(join(app.runs, 'files', 'fuzz.txt'), '0123456789')
  await honest()
  began = memory()
})
after(() => app.end())

test('2,000 mutated HTTP requests', async () => {
  const random = randomFrom(1)
  const host = `Host: ${new URL(app.url).host}\r\n`
  const call = '{"method":"takes","args":["text",1,2.5,true,{"a":[1]}],"id":"fuzz","callId":"x","timeLimit":1}'
  const seeds = [
    `GET / HTTP/1.1\r\n${host}Accept: text/html\r\nIf-None-Match: "x"\r\n\r\n`, `GET /tasks HTTP/1.1\r\n${host}Cookie: longrun=x; a=b\r\n\r\n`,
    `GET /tasks/any/log?offset=0&key=x HTTP/1.1\r\n${host}Origin: http://localhost\r\nIf-None-Match: "0-1"\r\n\r\n`,
    `GET /tasks/any/log?offset=-1&live=sse&cursor=1 HTTP/1.1\r\n${host}\r\n`, `GET /tasks/any/log.ndjson HTTP/1.1\r\n${host}\r\n`,
    `OPTIONS /tasks/any/log HTTP/1.1\r\n${host}Origin: http://localhost\r\nAccess-Control-Request-Method: GET\r\n\r\n`,
    `POST /tasks HTTP/1.1\r\n${host}Content-Type: application/json\r\nContent-Length: ${call.length}\r\n\r\n${call}`,
    `POST /tasks HTTP/1.1\r\n${host}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n${call.length.toString(16)}\r\n${call}\r\n0\r\n\r\n`,
    `POST /files HTTP/1.1\r\n${host}Content-Length: 10\r\n\r\n0123456789`, `DELETE /tasks/any HTTP/1.1\r\n${host}Authorization: Bearer x\r\n\r\n`,
    `GET /files/fuzz.txt HTTP/1.1\r\n${host}Range: bytes=0-1\r\nIf-Range: "x"\r\nExpect: 100-continue\r\n\r\n`,
    `GET /log HTTP/1.1\r\n${host}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n`,
  ].map(text => Buffer.from(text))
  await manyAtOnce(ROUNDS, index => send(app.url, mutate(seeds[index % seeds.length]!, random)))
})

test('2,000 mutated WebSocket messages', async () => {
  const random = randomFrom(2)
  const frames = ['{"start":"fuzz","next":0}', '{"ack":"fuzz","next":100}', '{"stop":"fuzz"}'].map(text => maskedFrame(Buffer.from(text)))
  const head = Buffer.from(`GET /log HTTP/1.1\r\nHost: ${new URL(app.url).host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n`
    + 'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n')
  await manyAtOnce(ROUNDS / 2, async index => {
    // One of them is mutated in its text, so that the frame is right; the other anywhere.
    const text = mutate(frames[index % 3]!.subarray(6), random)
    await send(app.url, Buffer.concat([head, maskedFrame(text), mutate(frames[(index + 1) % 3]!, random)]))
  })
})

test('2,000 mutated requests to the workers server', async () => {
  const random = randomFrom(3)
  const seeds = [
    ['takes', 'call', 'fuzz', '["text",1,2.5,true,{"a":[1]}]', '5'], ['read', '', '', '["fuzz",0]'], ['stat', '', '', '[["fuzz","any"]]'],
    ['cancel', '', '', '["fuzz"]'], ['list', '', '', '[]'], ['methods', '', '', '[]'], ['ping', '', '', '[]'],
  ].map(frames => frames.map(frame => Buffer.from(frame)))
  const dealer = new Dealer({ linger: 0, receiveTimeout: 60_000 })
  dealer.connect(app.env.REP_ADDR!)
  let expected = 0
  async function receive() {
    for (; expected > 0; expected--) {
      const [delimiter, tag, payload] = await dealer.receive()
      assert.equal(delimiter?.length, 0)
      assert.match(String(tag), /^(__ERROR__|__BUSY__|__RES__|)$/)
      assert.ok(payload)
    }
  }
  for (let index = 0; index < ROUNDS; index++) {
    const frames: Buffer[] = [...seeds[index % seeds.length]!]
    for (let changes = 1 + random(3); changes > 0; changes--) {
      const at = random(frames.length + 1)
      const changed = mutate(frames[at] ?? Buffer.alloc(0), random)
      frames.splice(at, random(4) ? 1 : random(3), ...random(8) ? [changed] : []) // sometimes one less, sometimes one more
    }
    const enveloped = random(10) > 0 // else it is no REQ, and gets no answer
    if (enveloped) expected++
    await dealer.send(enveloped ? ['', ...frames] : frames[0]?.length ? frames : ['x'])
    if (index % 100 === 99) await receive() // more at once would not fit into the queues
  }
  await receive()
  dealer.close()
})

test('2,000 raw beginnings of connections to each address of the workers server', async () => {
  const random = randomFrom(4)
  const addresses = [app.env.XSUB_ADDR!, app.env.XPUB_ADDR!, app.env.REP_ADDR!]
  // The greeting of ZMTP 3.0, its READY command, a subscription, and a message of two frames.
  const greeting = Buffer.concat([Buffer.from('ff00000000000000017f0300', 'hex'), Buffer.from('NULL'), Buffer.alloc(48)])
  const ready = Buffer.concat([Buffer.from('0419055245414459', 'hex'), Buffer.from('0b536f636b65742d54797065', 'hex'), Buffer.from('00000003', 'hex'), Buffer.from('SUB')])
  const seeds = [
    Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n'), greeting, Buffer.concat([greeting, ready]), Buffer.concat([greeting, ready, Buffer.from('000101', 'hex')]),
    Buffer.concat([greeting, ready, Buffer.from('0104667566fa000130', 'hex')]), Buffer.concat([greeting, ready, Buffer.from('02ffffffffffffffff', 'hex')]),
  ]
  await manyAtOnce(3 * ROUNDS, index => send(addresses[index % 3]!, mutate(seeds[index % seeds.length]!, random)))
})

test('afterwards a normal run goes through, and the servers have not grown', async () => {
  while (JSON.parse((await app.call('ping', '', '', '[]'))[1]).running > 0); // what the rubbish has started
  await honest()
  const ended = memory()
  const growth = ended.map((bytes, index) => bytes - began[index]!)
  assert.ok(growth.every(bytes => bytes < MOST_MEMORY), `grown by ${growth} bytes`)
  assert.deepEqual([app.server, app.workers].map(({ process }) => process.exitCode), [null, null])
  const foreseen = /^(longrun is at|workers server ready|run \S+ (started|ended)|the workers server (answers$|does not answer))/
  assert.deepEqual([...app.server.output, ...app.workers.output].filter(line => !foreseen.test(line)), [], 'nothing unforeseen was printed')
})

// ---- What the tests need

async function honest() {
  const run = await app.start('process', [3, 0])
  assert.equal((await run.outcome()).outcome, 'ok')
}

/** Resident memory of both servers, in bytes. */
function memory(): number[] {
  return [app.server, app.workers].map(memoryOf)
}

const TOKENS = [
  '', '\0', '\r\n', '\n', '\r\n\r\n', ' ', '"', '{', '[', ']', '}', ',', ':', '%', '%00', '../', '..%2f', '/', '//', '?', '#', '__proto__', 'constructor',
  'toString', '{"toString":1}', 'null', 'true', '-1', '1e999', '9007199254740993', '0x10', 'NaN', '\u00ff\u00fe', '\u{1f600}', '\\ud800', '['.repeat(5000),
  'x'.repeat(20_000), 'chunked', 'Transfer-Encoding: chunked\r\n', 'Content-Length: 5\r\n', 'Host: evil\r\n', 'Expect: 100-continue\r\n',
]

/** A few changes of bytes, pieces and order. */
function mutate(bytes: Buffer, random: (most: number) => number): Buffer<ArrayBuffer> {
  for (let changes = 1 + random(4); changes > 0; changes--) {
    const from = random(bytes.length + 1)
    const to = Math.min(bytes.length, from + random(12))
    const [head, piece, tail] = [bytes.subarray(0, from), bytes.subarray(from, to), bytes.subarray(to)]
    const token = Buffer.from(TOKENS[random(TOKENS.length)]!)
    bytes = Buffer.concat([
      [head, tail], // less
      [head, piece, piece, tail], // twice
      [head, token, tail], // something else
      [head, piece, token, tail], // something more
      [head, Buffer.from(piece.map(byte => byte ^ (1 << random(8)))), tail], // bits
      [head, Buffer.from(piece.map(() => random(256))), tail], // bytes
      [head], // cut off
      [tail, piece, head], // the other way round
    ][random(8)]!)
  }
  return Buffer.from(bytes.subarray(0, 100_000))
}

function maskedFrame(payload: Buffer): Buffer {
  const { length } = payload
  const size = length < 126 ? [0x80 | length] : [0x80 | 127, 0, 0, 0, 0, length >>> 24, length >>> 16 & 0xff, length >>> 8 & 0xff, length & 0xff]
  return Buffer.concat([Buffer.from([0x81, ...size, 0, 0, 0, 0]), payload])
}

/** Sends the bytes, says that no more come, and waits until the other side has closed, too. */
async function send(address: string, bytes: Buffer) {
  const { hostname, port } = new URL(address)
  const socket = connect(Number(port), hostname)
  await once(socket, 'connect') // else this would test nothing
  socket.on('error', () => {}).resume()
  const closed = new Promise(resolve => socket.once('close', resolve))
  socket.end(bytes)
  await closed
}

/** AT_ONCE of them at a time. */
async function manyAtOnce(count: number, act: (index: number) => Promise<void>) {
  let next = 0
  await Promise.all(Array.from({ length: AT_ONCE }, async () => {
    while (next < count) await act(next++)
  }))
}
