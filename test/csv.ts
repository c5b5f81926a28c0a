// What csv.test.ts and csv.long.ts have in common: a file for the CSV reader to read.

import { mkdtempSync, rmSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after } from 'node:test'
import { readHeader, readRows } from '../csv.ts'

const folder = mkdtempSync(join(tmpdir(), 'longrun-csv-'))
const file = await open(join(folder, 'some.csv'), 'w+')
after(async () => {
  await file.close()
  rmSync(folder, { recursive: true })
})

/** All that is read from a file: the rows as objects, the complaints as [line, msg], and what its header told. */
export async function read(content: string | Buffer, delimiter?: string) {
  await file.truncate()
  await file.write(Buffer.from(content), 0, undefined, 0)
  const complaints: [number, string][] = []
  const header = await readHeader(file, delimiter)
  let json = ''
  for await (const part of readRows(file, header, (msg, line) => complaints.push([line, msg]))) json += part.json
  return { ...header, json, rows: json.split('\n').slice(0, -1).map(line => JSON.parse(line)), complaints }
}
