// Remote functions for the tests of programs, and of what is printed: each runs the code that it gets, in its language.

import { command, remote, runCommand } from '../remote.ts'

const code = { name: 'code', type: 'text', description: 'what it runs' } as const
const file = { name: 'file', type: 'file', description: 'an upload' } as const
const steps = { name: 'steps', type: 'integer', description: 'how many', default: 3 } as const

export const python = command('runs Python', [code], ({ code }) => ['/usr/bin/python3', '-c', code])

export const sh = command('runs a shell script', [code], ({ code }) => ['sh', '-c', code])

export const takes = command('returns what it gets on stdin', [file, steps, { ...code, default: '' }], [
  '/usr/bin/python3', '-c', `
import json, sys
line = sys.stdin.readline()
given = json.loads(line)
with open(given["file"]) as upload: content = upload.read()
print(json.dumps({"type": "result", "data": [given, line.count("\\n"), sys.stdin.read(), content]}))`,
])

export const trains = command('tells its progress in its own words', [code], ({ code }) => ['sh', '-c', code], {
  progress: /epoch (?<current>[\d.]+)(?:\/(?<total>\d+))?(?: ?(?<unit>[a-z]+|%))?/g, cwd: '/', env: { COLOUR: 'blue', RUNS: '/x', LONGRUN_RUN: 'x' },
})

export const missing = command('is not there', [], ['/no/such/program'])
export const nowhere = command('has no folder', [], ['true'], { cwd: '/no/such/folder' })
export const tooMuch = command('has too long an argument', [], () => ['true', 'x'.repeat(2 ** 18)])

export const js = remote('runs JavaScript', [code], (task, code) =>
  new Function('task', 'runCommand', 'require', `return (async () => { ${code} })()`)(task, runCommand, process.getBuiltinModule ?? require))

export const chooses = remote('takes one of some', [
  { name: 'size', type: 'string', description: 'how large', choices: ['small', 'large'], default: 'small' },
  { name: 'copies', type: 'integer', description: 'how many', choices: [1, 10] },
], (_, size: 'small' | 'large', copies: 1 | 10) => `${copies} ${size}`)
