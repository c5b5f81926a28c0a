// Records one click: all that goes over the wire for one run of `process` with two steps, and when.
//
//   npm run record      prints the table of README.md, "One click, in time"
//
// Nobody is asked to tell what he says. The web server's REP_ADDR is an address of the recorder, which passes requests
// and replies on; a SUB of the recorder hears what is published; and it is the page, with a WebSocket and HTTP.

import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { WebSocket } from 'ws'
import { Request, Router, Subscriber } from 'zeromq'
import { startServer, until } from './app.ts'

/** What somebody told somebody else, and when, in ms. */
type Told = { at: number; who: string; says: string; to: string }
type Tell = (who: string, says: string, to: string) => void

const [PAGE, SERVER, WORKERS, TASK] = ['page', '`server.ts`', '`workers.ts`', '`task.ts`'] as const
const MOST_TRIES = 10
const CALL = { method: 'process', args: [2, 100], id: 'first' }

/** Starts both servers, clicks, and ends them when everybody knows that the run has ended. */
async function record(): Promise<Told[]> {
  const folder = mkdtempSync(join(tmpdir(), 'longrun-record-'))
  const [rep, xpub, own] = ['rep', 'xpub', 'recorder'].map(name => `ipc://${folder}/${name}.sock`) as [string, string, string]
  const all: Told[] = []
  const tell: Tell = (who, says, to) => all.push({ at: performance.now(), who, says, to })

  const router = new Router({ linger: 0 })
  const subscriber = new Subscriber({ linger: 0 })
  const workers = await startServer('workers.ts', { RUNS: folder })
  await router.bind(own)
  void passOn(router, rep, tell)
  subscriber.connect(xpub)
  subscriber.subscribe(CALL.id)
  void listen(subscriber, tell)
  const server = await startServer('server.ts', { RUNS: folder, PORT: '0', REP_ADDR: own })
  const url = /http:\/\/\S+\//.exec(server.ready)![0]
  try {
    await fetch(url) // the first one in a process takes long
    // It asks for sizes every two seconds: just after one of these questions, a click is alone on the wire.
    await until(() => all.some(({ says }) => says.startsWith('REP')))
    all.length = 0
    const page = await click(url, tell)
    await until(() => all.some(({ says }) => says.includes('"done":true')))
    page.close()
    return all
  } finally {
    for (const { process, exited } of [server, workers]) {
      process.kill('SIGTERM')
      await exited
    }
    router.close()
    subscriber.close()
    rmSync(folder, { recursive: true })
  }
}

/** What the page does, without a page; resolves, to its WebSocket, when it has `done`. */
async function click(url: string, tell: Tell): Promise<WebSocket> {
  const socket = new WebSocket(`${url.replace('http', 'ws')}log`)
  await once(socket, 'open')
  const say = (message: object) => {
    tell(PAGE, code(JSON.stringify(message)), SERVER)
    socket.send(JSON.stringify(message))
  }
  const done = new Promise<void>(resolve => socket.on('message', text => {
    const { id, next, entries } = JSON.parse(String(text))
    if (!entries) return // a heartbeat, or that the workers server answers
    tell(SERVER, code(String(text)), PAGE)
    say({ ack: id, next })
    if (entries.at(-1).type === 'done') resolve()
  }))
  say({ start: CALL.id, next: 0 })
  tell(PAGE, `POST /tasks ${code(JSON.stringify(CALL))}`, SERVER)
  const headers = { 'Content-Type': 'application/json' }
  const answer = await fetch(`${url}tasks`, { method: 'POST', headers, body: JSON.stringify(CALL) })
  tell(SERVER, `${answer.status} ${code(await answer.text())}`, PAGE)
  await done
  return socket
}

/** From the web server to the workers server, and back. */
async function passOn(router: Router, address: string, tell: Tell) {
  for await (const [peer, delimiter, ...request] of router) {
    const socket = new Request({ linger: 0 })
    socket.connect(address)
    tell(SERVER, framed('REQ', request), WORKERS)
    await socket.send(request)
    const reply = await socket.receive()
    tell(WORKERS, framed('REP', reply), SERVER)
    await router.send([peer!, delimiter!, ...reply])
    socket.close()
  }
}

async function listen(subscriber: Subscriber, tell: Tell) {
  for await (const frames of subscriber) {
    const [, position, lines] = frames.map(String)
    const isTasks = lines !== '' && position !== '0' // a log begins with a line of the workers server's, and it says how it ends
    tell(isTasks ? TASK : WORKERS, framed('PUB', frames), SERVER)
  }
}

const code = (text: string) => `\`${text.replaceAll('\n', '⏎')}\``
const framed = (kind: string, frames: Buffer[]) => [kind, ...frames.map(frame => code(String(frame) || '""'))].join(' ')

// ---- The table

/** What to look for, in rows that begin like this. */
const REMARKS = new Map([
  ['`{"start":', 'connect first, then start: `server.ts` subscribes to `first`'],
  ['REQ `stat`', 'how long is its log? There may be something to catch up with '
    + '(for such a question the frames `""` and `call` mean nothing)'],
  ['REP `__RES__` `{}`', 'there is none yet'],
  ['REQ `process`', 'the call: `workers.ts` takes a spare, and begins the log `runs/first.ndjson`'],
  ['PUB `first` `#` `{"type":"start"', 'a chunk: the first line of the log, at position 0'],
  ['REP `""`', 'the process id'],
  ['`{"id":"first","next":#,"entries":[{"type":"start"', 'the chunk was at `next`, and `next` moves past it'],
  ['`{"ack":', 'taken up to here; so after each message'],
  ['PUB `first` `#` `{"type":"msg"', 'the entries of one turn: appended to the log, then published'],
  ['`{"id":"first","next":#,"entries":[{"type":"msg"', 'no entry was parsed on its way: line breaks became commas'],
  ['PUB `first` `#` `{"type":"done"', 'appended, published; then the process exits, and this may be lost with it'],
  ['PUB `first` `#` `""`', 'no lines: the log is this long. Were the chunk before lost, or late, this is a gap, and the log is read'],
  ['REP `__RES__` `{"first":{"size":#,"done":true', '`done`: this long for good'],
])

/**
 * A click as rows of Markdown, each kind of message once: the second step says what the first has said. Undefined when
 * the machine is so busy that the messages of a click always meet one another.
 */
export async function recordedRows(): Promise<string[] | undefined> {
  let all = await record()
  for (let tries = 1; tries < MOST_TRIES && !isUnhurried(all); tries++) all = await record()
  if (!isUnhurried(all)) return undefined
  const began = all[0]!.at
  const rows = new Map<string, string>()
  for (const { at, who, says, to } of all) {
    const row = `| ${who} → ${to} | ${shorten(says)} |`
    const remark = [...REMARKS].find(([beginning]) => kindOf(says).startsWith(beginning))?.[1] ?? ''
    if (!rows.has(kindOf(row))) rows.set(kindOf(row), `| ${(at - began).toFixed(0)} ${row} ${remark} |`)
  }
  return [...rows.values()]
}

// On a busy machine two chunks may reach the web server in one turn, and are one frame to the page, which may be heard
// before them; the last one may be overtaken by that which says how long the log is; the answer that there is no log yet
// may come when there is one; or the click takes so long that the question which comes every two seconds falls into it.
function isUnhurried(all: Told[]): boolean {
  const chunks = all.filter(({ says }) => says.startsWith('PUB') && !says.endsWith('`""`'))
  const frames = all.filter(({ says }) => says.startsWith('`{"id"'))
  const hasRead = all.some(({ says }) => says.startsWith('REQ `read`'))
  const hasAsked = all.some(({ says }) => says.endsWith('`[[]]`') || says.includes('"done":false'))
  const isInOrder = frames.every((frame, i) => all.indexOf(chunks[i]!) < all.indexOf(frame))
  const isUndisturbed = chunks.length === frames.length && isInOrder && !hasRead && !hasAsked
  return isUndisturbed && all.some(({ says }) => says === 'REP `__RES__` `{}`')
}

/** What is the same in each recording: it has no times, positions, and ids of processes. */
export const kindOf = (text: string) => text.replace(/^\| \d+ /, '').replace(/\d+(\.\d+)?/g, '#')

/** Without what only takes up room. */
const shorten = (says: string) => says.replace(/"time":\d+/g, '"time":…').replace(/("start","time":…,"data":){.*?}/, '$1{…}')

if (process.argv[1] === import.meta.filename) console.log((await recordedRows() ?? ['this machine is too busy']).join('\n'))
