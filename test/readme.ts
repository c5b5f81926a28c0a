// Makes anew what a program can make of README.md: the line counts of the rooms, and the recorded click.
//
//   npm run readme

import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT } from './app.ts'
import { recordedRows } from './record.ts'

/** Where the pages say that the server is. */
export const ANYWHERE = /(?:http:\/\/)?(?:localhost|127\.0\.0\.1):8080/g

const README = join(ROOT, 'README.md')
const CLICK = /(?<=^\| ms \|.*\n\| --- .*\n)(\|.*\n)*/m
const ROOM = /(?<=^\| \[`.*`\]\((.*)\) \| )[\d,]+(?= \|)/gm

/** The rows of the click that the README shows. */
export const clickOf = (readme: string) => CLICK.exec(readme)![0].trimEnd().split('\n')

export const withClick = (readme: string, rows: string[]) => readme.replace(CLICK, () => `${rows.join('\n')}\n`)

/** With the number of lines of each room, in tens; of the page, those of all its scripts. */
const withLineCounts = (readme: string) =>
  readme.replace(ROOM, (_, room: string) => (10 * Math.round(linesOf(room) / 10)).toLocaleString('en'))

/** The lines of a room; of a folder, those of all its scripts. */
export function linesOf(room: string): number {
  const path = join(ROOT, room)
  const isFile = path.endsWith('.ts')
  const files = isFile ? [path] : readdirSync(path).filter(name => name.endsWith('.js')).map(name => join(path, name))
  return files.reduce((sum, file) => sum + readFileSync(file, 'utf8').split('\n').length - 1, 0)
}

if (process.argv[1] === import.meta.filename) {
  const readme = readFileSync(README, 'utf8')
  const rows = await recordedRows() ?? clickOf(readme) // a machine that is too busy records none
  writeFileSync(README, withLineCounts(withClick(readme, rows)))
}
