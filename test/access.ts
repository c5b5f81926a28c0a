// What access.test.ts and access.long.ts have in common: the servers that are attacked in each of the two,
// one that lets everybody of this machine in and one with a token; and words for bytes as an attacker sends them.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { after } from 'node:test'
import { WebSocket } from 'ws'
import { App, ask, port, UPGRADE } from './app.ts'

export const TOKEN = 'a-long.Secret~of+letters/and=signs'
export const NAME = 'longrun.example.org' // the server's name behind a reverse proxy
export const MAX_UPLOAD = 100_000

export const app = new App({ MAX_UPLOAD: String(MAX_UPLOAD), PROCESS_LIMIT: '16' })
export const guarded = new App({
  HOST: '0.0.0.0', TOKEN, ALLOWED_HOSTS: `${NAME}, Other.Example.org`, PROCESS_LIMIT: '16', SPARES: '0',
})

after(() => Promise.all([app.end(), guarded.end()]))
await Promise.all([app.startBoth(), guarded.startBoth()])

export const JSON_TYPE = { 'Content-Type': 'application/json' }
export const CALL = JSON.stringify({ method: 'process', args: [1, 0] })
export function hostLine(app: App) { return `Host: 127.0.0.1:${port(app)}\r\n` }

/** The name of the cookie by which a browser is let in. */
export async function cookieName(): Promise<string> {
  const { headers } = await ask(guarded, 'GET', `/?token=${encodeURIComponent(TOKEN)}`)
  return headers['set-cookie']![0]!.split('=')[0]!
}

export function upgradeHead(app: App) {
  return `GET /log HTTP/1.1\r\n${hostLine(app)}${Object.entries(UPGRADE).map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`
}

/** The next normal request: a run from its start to its end. */
export async function honest() {
  const run = await app.start('process', [2, 0])
  assert.equal((await run.outcome()).outcome, 'ok')
}

export async function runsOf(app: App): Promise<string[]> {
  return JSON.parse((await app.call('list', '', '', '[]'))[1]).map(({ id }: { id: string }) => id)
}

/** Sends these bytes, and returns all that comes back until the server closes the connection. */
export function exchange(app: App, bytes: string): Promise<string> {
  return new Promise(resolve => {
    let answer = ''
    const socket = connect({ port: port(app), host: '127.0.0.1', allowHalfOpen: true })
    socket.on('data', data => { answer += data }).on('error', () => {})
    socket.on('end', () => socket.destroy()).on('close', () => resolve(answer))
    socket.write(bytes, 'latin1')
  })
}

/** Sends these bytes, and returns what has come back when it says this. */
export async function converse(app: App, bytes: string, until: RegExp): Promise<string> {
  const socket = connect(port(app), '127.0.0.1')
  socket.write(bytes, 'latin1')
  let answer = ''
  for await (const data of socket) if (until.test(answer += data)) break
  return answer
}

/** The answers on a connection, one after the other, each with its head and body. */
export function answersOn(socket: Socket): () => Promise<string> {
  const parts = socket[Symbol.asyncIterator]()
  let seen = ''
  return async () => {
    for (;;) {
      const head = seen.indexOf('\r\n\r\n') + 4
      const length = Number(/^content-length: (\d+)/im.exec(seen.slice(0, head))?.[1] ?? 0)
      if (head > 3 && seen.length >= head + length) {
        const answer = seen.slice(0, head + length)
        seen = seen.slice(head + length)
        return answer
      }
      const { done, value } = await parts.next()
      if (done) throw new Error(`the connection has ended: ${seen}`)
      seen += value.toString('latin1')
    }
  }
}

export function statuses(answer: string) { return [...answer.matchAll(/HTTP\/1.1 (\d+)/g)].map(([, status]) => Number(status)) }

/** A WebSocket frame as a client sends it, but masked with zeros; `flags` are FIN and the reserved bits. */
export function frame(opcode: number, payload: Buffer, flags = 0x80): Buffer {
  const size = payload.length
  const head = size < 126 ? Buffer.from([flags | opcode, 0x80 | size]) : Buffer.from([flags | opcode, 0xff, 0, 0, 0, 0, ...[24, 16, 8, 0].map(bits => size >> bits & 0xff)])
  return Buffer.concat([head, Buffer.alloc(4), payload])
}

/** The connection below a WebSocket, for bytes that no WebSocket would send. */
export function rawOf(socket: WebSocket): Socket { return (socket as unknown as { _socket: Socket })._socket }

/** Gathers something of each message; the function returned waits for a number of them. */
export function collect<T>(socket: WebSocket, pick: (message: any) => T | undefined): (count: number) => Promise<T[]> {
  const found: T[] = []
  socket.on('message', text => {
    const value = pick(JSON.parse(String(text)))
    if (value !== undefined) found.push(value)
  })
  return async count => {
    while (found.length < count) await once(socket, 'message')
    return found
  }
}
