// What `npm test` prints: each test as Node's own reporter shows it, and at the end what was left out, and why.

import { Readable } from 'node:stream'
import { spec } from 'node:test/reporters'

/** @type {Map<string, number>} reasons, and how many tests each has kept from running */
const leftOut = new Map()

/** @param {AsyncIterable<{ type: string, data: any }>} events */
async function* watch(events) {
  for await (const event of events) {
    const { skip } = event.data ?? {}
    if (/^test:(pass|fail)$/.test(event.type) && typeof skip === 'string') leftOut.set(skip, (leftOut.get(skip) ?? 0) + 1)
    yield event
  }
}

/** @param {AsyncIterable<{ type: string, data: any }>} events */
export default async function* report(events) {
  yield* Readable.from(watch(events)).compose(new spec())
  for (const [why, tests] of leftOut) yield `left out: ${tests} ${tests === 1 ? 'test' : 'tests'}, ${why}\n`
}
