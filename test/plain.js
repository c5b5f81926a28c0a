// What one would write without this project, for the benchmark to stand beside: one server (node:http, ws), and one
// process per run, forked ahead of time, which writes its entries to a file and sends them over IPC, those of one turn
// together. It takes the same calls and sends the same entries, so that one client measures both. What it does not do is
// the difference: who comes late, or again, has only the file; nothing bounds what waits for a slow reader; a run whose
// process is killed never ends, for its readers; nothing outlives the server. JavaScript: bare Node loads it at once.

import { fork } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createReadStream, createWriteStream } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { json } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'

/** @import { ChildProcess } from 'node:child_process' */
/** @import { IncomingMessage, ServerResponse } from 'node:http' */
/** @import { WebSocket } from 'ws' */
/** @typedef {{ id: string, method: string, args: any[] }} Call */

const { RUNS = '.', PROCESS_LIMIT = Math.max(2, availableParallelism()), SPARES = 1 } = process.env
const logPath = (/** @type {string} */ id) => join(RUNS, `${id}.ndjson`)

if (process.send) process.once('message', run)
else await serve()

// ---- The server

async function serve() {
  const { createServer } = await import('node:http') // in here, as no task needs to load them
  const { WebSocketServer } = await import('ws')
  /** @type {Map<string, Set<WebSocket>>} by run */
  const sockets = new Map()
  /** @type {Map<string, Set<ServerResponse>>} by run: those of Server-Sent Events */
  const responses = new Map()
  /** @type {Map<string, ChildProcess>} by run */
  const running = new Map()
  /** @type {ChildProcess[]} */
  const spares = []

  function refill() {
    while (spares.length < Number(SPARES)) spares.push(fork(import.meta.filename))
  }

  /** @param {Call} call */
  function start(call) {
    const child = spares.shift() ?? fork(import.meta.filename)
    setTimeout(refill, 20) // not now: loading the next would slow this one down
    running.set(call.id, child)
    child.send(call)
    child.on('message', entries => publish(call.id, String(entries)))
    child.once('exit', () => running.delete(call.id))
    child.once('disconnect', () => { // after the last message
      responses.get(call.id)?.forEach(response => response.end())
      sockets.delete(call.id)
      responses.delete(call.id)
    })
    return { id: call.id, pid: child.pid }
  }

  /** @param {string} id @param {string} entries in JSON, with commas between them */
  function publish(id, entries) {
    if (sockets.has(id)) {
      const frame = Buffer.from(`{"id":"${id}","entries":[${entries}]}`)
      for (const socket of sockets.get(id) ?? []) socket.send(frame, { binary: false })
    }
    if (responses.has(id)) {
      const event = Buffer.from(`event: data\ndata: [${entries}]\n\n`)
      for (const response of responses.get(id) ?? []) response.write(event)
    }
  }

  /** @param {IncomingMessage} request @param {ServerResponse} response */
  async function respond(request, response) {
    const [path = '', query] = String(request.url).split('?')
    const id = /^\/tasks\/([\w-]+)\/log$/.exec(path)?.[1]
    if (id && query?.includes('live=sse')) {
      response.writeHead(200, { 'Content-Type': 'text/event-stream' }).flushHeaders()
      follow(responses, id, response)
      response.once('close', () => responses.get(id)?.delete(response))
    } else if (id) {
      await pipeline(createReadStream(logPath(id), { highWaterMark: 2 ** 18 }), response)
    } else if (path === '/tasks') {
      const call = /** @type {Call} */ (await json(request))
      const isFull = running.size >= Number(PROCESS_LIMIT)
      response.writeHead(isFull ? 503 : 202).end(isFull ? '' : JSON.stringify(start(call)))
    } else if (request.method === 'DELETE') {
      response.writeHead(running.get(path.slice('/tasks/'.length))?.kill() ? 202 : 404).end()
    } else if (path === '/files') {
      const file = randomUUID()
      await pipeline(request, createWriteStream(join(RUNS, file)))
      response.writeHead(201).end(JSON.stringify({ file }))
    } else response.writeHead(404).end()
  }

  const server = createServer({ keepAliveTimeout: 65_000 }, (request, response) => {
    respond(request, response).catch(error => response.destroy(error))
  })
  new WebSocketServer({ server, perMessageDeflate: false }).on('connection', socket => {
    socket.on('message', text => {
      const { start } = JSON.parse(String(text))
      if (start) follow(sockets, start, socket)
    })
    socket.once('close', () => sockets.forEach(readers => readers.delete(socket)))
  })
  server.listen(0, '127.0.0.1', 4096, () => console.log(`http://127.0.0.1:${Object(server.address()).port}`))
  refill()
}

/** @template T @param {Map<string, Set<T>>} readers @param {string} id @param {T} reader */
function follow(readers, id, reader) {
  readers.set(id, (readers.get(id) ?? new Set()).add(reader))
}

// ---- The process of a run

/** @param {any} call the only message that it gets */
async function run({ id, method, args }) {
  const log = createWriteStream(logPath(id))
  /** @type {string[]} */
  let gathered = []

  /** @param {string} type @param {unknown} data */
  function report(type, data) {
    if (!gathered.length) setImmediate(send)
    gathered.push(JSON.stringify({ type, time: Date.now(), data }))
  }

  function send(sent = () => {}) {
    if (!gathered.length) return
    log.write(gathered.join('\n') + '\n')
    process.send?.(gathered.join(','), undefined, undefined, sent)
    gathered = []
  }

  const result = await FUNCTIONS[method]?.(data => report('msg', data), ...args)
  report('done', { outcome: 'ok', result })
  send(() => log.end(() => process.exit()))
}

/** @type {Record<string, (msg: (data: unknown) => void, ...args: any[]) => Promise<unknown>>} */
const FUNCTIONS = {
  async stream(msg, count) {
    for (let step = 0; step < count; step++) {
      msg({ step, text: 'about 80 bytes' })
      if (step % 1000 === 999) await nextTurn()
    }
  },

  async rate(msg, count, perSecond) {
    const now = () => Number(process.hrtime.bigint() / 1000n)
    const began = now()
    for (let step = 0; step < count;) {
      const due = Math.min(count, Math.ceil((now() - began) / 1e6 * perSecond))
      for (; step < due; step++) msg({ step, at: now() })
      await sleep(1)
    }
  },

  async burn() {
    for (;;);
  },

  async importCsv(_, file) {
    const output = createWriteStream(join(RUNS, `${file}.ndjson`))
    const FIELD = /(?:^|,)(?:"((?:[^"]|"")*)"|([^,]*))/g
    /** @type {string[] | undefined} */
    let columns
    for await (const line of createInterface(createReadStream(join(RUNS, file)))) {
      const fields = Array.from(line.matchAll(FIELD), ([, quoted, bare]) => quoted?.replaceAll('""', '"') ?? bare ?? '')
      columns ??= fields
      if (columns === fields) continue
      const row = Object.fromEntries(columns.map((name, i) => [name, fields[i]]))
      if (!output.write(JSON.stringify(row) + '\n')) await once(output, 'drain')
    }
    await once(output.end(), 'close')
  },
}
