// What follow.test.ts and follow.long.ts have in common: the app whose runs are followed, and somebody who calls follow() of
// public/follow.js in this process.

import { after, before, type TestContext } from 'node:test'
import { WebSocket } from 'ws'
import type { Entry } from '../log.ts'
import { type Connection, follow, type Options } from '../public/follow.js'
import { App, logOf, until } from './app.ts'
import { Gate } from './gate.ts'

// As a browser has it: Node has one of its own since 22, and that of `ws` throws what nobody listens to.
Object.assign(globalThis, { WebSocket: class extends WebSocket {
  constructor(url: string) {
    super(url)
    this.on('error', () => {})
  }
} })

export const app = new App({ PROCESS_LIMIT: '20', SPARES: '4' })
before(() => app.startBoth())
after(() => app.end())

/** What a caller of follow() hears, and what stops it. */
export class Follower {
  entries: Entry[] = []
  refusals: [message: string, code: string][] = []
  /** How it was connected, each time that this was told. */
  states: { live: boolean; over: string; stranger: boolean; workers: boolean }[] = []
  stop: () => void

  constructor(url: string, id: string, options: Options = {}, receive: (entries: Entry[], next: number) => unknown = () => {}) {
    this.stop = follow(url, id, (entries, next) => {
      this.entries.push(...entries)
      return receive(entries, next)
    }, {
      refuse: (message, code) => this.refusals.push([message, code]),
      tell: ({ live, over, stranger, workers }: Connection) => this.states.push({ live, over, stranger, workers }),
      ...options,
    })
  }

  get isDone() { return this.entries.at(-1)?.type === 'done' }
  done() { return until(() => this.isDone, 'all of a run has come') }
  async refused() {
    await until(() => this.refusals.length, 'a refusal')
    return this.refusals
  }
}

export async function gate(t: TestContext, to = app, isOpen = false) {
  const made = await new Gate(to, isOpen).start()
  t.after(() => made.end())
  return made
}

export const whole = (id: string) => logOf(app, id).trimEnd().split('\n').map(line => JSON.parse(line))

/** The console, while a test goes on: what the caller of follow() is told there. */
export function heardConsole(t: TestContext) {
  const said: string[] = []
  t.mock.method(console, 'error', (...words: unknown[]) => { said.push(words.join(' ')) })
  return said
}
