// What may stand between a page and the web server: a proxy that lets no WebSocket through, or says something of its own in
// the server's place.

import { once } from 'node:events'
import { createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http'
import { connect, type AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { WebSocketServer } from 'ws'
import { port, type App } from './app.ts'

/** What a proxy answers by itself, instead of passing a request on. */
export type Instead = (request: IncomingMessage, response: ServerResponse) => unknown

/** A reverse proxy. */
export class Gate {
  url = ''
  /** Whether WebSockets get through. */
  isOpen: boolean
  instead: Instead | undefined
  /** What somebody else's WebSocket says in the place of the server's, before it ends. */
  says: string | undefined
  /** Reads of logs that are under way, and how many there were at once, at most. */
  reads = 0
  mostReads = 0
  /** Those that wait for entries. */
  waits = 0
  mostWaits = 0
  /** All that came, in order. */
  readonly asked: string[] = []
  #app: App
  #sockets = new Set<Duplex>()
  #server = createServer({ keepAliveTimeout: 0 }, (request, response) => this.#pass(request, response))

  constructor(app: App, isOpen = false) {
    this.#app = app
    this.isOpen = isOpen
    this.#server.on('upgrade', (request, socket, head) => {
      this.asked.push('UPGRADE')
      socket.on('error', () => {})
      const { says } = this
      if (says) return new WebSocketServer({ noServer: true }).handleUpgrade(request, socket, head, other => other.send(says, () => other.close()))
      if (!this.isOpen) return socket.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n')
      const onward = connect(port(app), '127.0.0.1')
      const headers = Object.entries(this.#headers(request)).map(([name, value]) => `${name}: ${value}\r\n`)
      onward.on('error', () => socket.destroy()).write(`GET ${request.url} HTTP/1.1\r\n${headers.join('')}\r\n`)
      onward.write(head)
      socket.pipe(onward).pipe(socket)
      this.#sockets.add(socket.on('close', () => onward.destroy()))
    })
  }

  async start() {
    await once(this.#server.listen(0, '127.0.0.1'), 'listening')
    this.url = `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/`
    return this
  }

  /** Cuts off the WebSockets. */
  cut() {
    this.#sockets.forEach(socket => socket.destroy())
    this.#sockets.clear()
  }

  end() {
    this.cut()
    this.#server.closeAllConnections()
    this.#server.close()
  }

  /** As those of a request to the server itself. */
  #headers({ headers }: IncomingMessage) {
    const { host } = new URL(this.#app.url)
    return { ...headers, host, ...headers.origin === this.url.slice(0, -1) && { origin: this.#app.url } }
  }

  #pass(request: IncomingMessage, response: ServerResponse) {
    this.asked.push(`${request.method} ${request.url}`)
    if (this.instead) return this.instead(request, response)
    const isRead = /\/log\?/.test(request.url!)
    const isWait = request.url!.includes('live=long-poll')
    this.mostReads = Math.max(this.mostReads, this.reads += Number(isRead))
    this.mostWaits = Math.max(this.mostWaits, this.waits += Number(isWait))
    response.on('close', () => {
      this.reads -= Number(isRead)
      this.waits -= Number(isWait)
      onward.destroy()
    })
    const { method, url: path } = request
    const onward = httpRequest(this.#app.url, { method, path, headers: this.#headers(request) }, answer => {
      response.writeHead(answer.statusCode!, answer.headers)
      answer.pipe(response)
    })
    onward.on('error', () => response.headersSent ? response.destroy() : response.writeHead(502).end('<h1>Bad gateway</h1>'))
    request.pipe(onward)
  }
}
