// What functions and programs print: bytes in, lines out. It knows no task and no run. Look for: cutLines.

import { MAX_ENTRY } from './log.ts'

const MAX_PRINT = 64 * 2 ** 10 // bytes of a printed line
const PARTS = /[^]{1,16384}/gu // in which a longer one comes; a character has at most four bytes
const BAR_PAUSE = 100 // milliseconds from one state of a terminal's progress bar to the next

/**
 * Makes a function that takes bytes as they come, at last none, and prints them in lines, which `\n`, `\r\n` or `\r`
 * ends. A terminal writes lines that end by `\r` one over the other: of them, one in 100 ms is printed, and the last.
 * A line that begins as JSON does may be of MAX_ENTRY characters, and is given to `takeEntry` first.
 */
export function cutLines(print: (line: string) => void, takeEntry = (_: string) => false): (bytes?: Buffer) => void {
  const decoder = new TextDecoder() // without a byte order mark at the start; what is no UTF-8 becomes U+FFFD
  let line = '' // that has not ended
  let mayBeEntry: boolean | undefined // whether it can be one; undefined while there are only blanks
  let lastEnd = '' // of the line before
  let bar = '' // a line that `\r` has ended, and that was not printed yet
  let barTimer: NodeJS.Timeout | undefined

  return bytes => {
    const text = decoder.decode(bytes, { stream: bytes !== undefined }) // a chunk may end within a character
    for (const [, part, end] of text.matchAll(/([^\r\n]*)(\r\n?|\n?)/g)) {
      add(part!)
      if (end) endLine(end)
    }
    if (bytes) return
    if (line) endLine('\n')
    printBar()
  }

  function add(part: string) {
    if (!line) mayBeEntry = undefined
    if (part.trim()) mayBeEntry ??= /^\s*\{/.test(part)
    line += part
    if (line.length <= (mayBeEntry ? MAX_ENTRY : MAX_PRINT)) return
    printBar()
    if (mayBeEntry) takeEntry(line) // which tells that it is too long
    const parts = partsOf(line)
    line = parts.pop()! // so that what follows is not taken for the beginning of a line
    mayBeEntry = false
    parts.forEach(print)
  }

  function endLine(end: string) {
    const isSecondHalf = !line && end === '\n' && lastEnd === '\r' // a chunk may end within `\r\n`, too
    const ended = line
    line = ''
    lastEnd = end
    if (end !== '\r') printBar()
    if (isSecondHalf || mayBeEntry && takeEntry(ended)) return
    if (end !== '\r') return partsOf(ended).forEach(print)
    if (ended.trim()) bar = ended // else it was cleared
    barTimer ??= setTimeout(printBar, BAR_PAUSE)
  }

  function printBar() {
    clearTimeout(barTimer)
    barTimer = undefined
    if (bar) partsOf(bar).forEach(print)
    bar = ''
  }
}

const partsOf = (line: string): string[] => Buffer.byteLength(line) > MAX_PRINT ? line.match(PARTS)! : [line]
