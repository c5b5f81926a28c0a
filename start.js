#!/usr/bin/env node
// `npm start`, and `npx longrun` where it is installed: both servers, as one program. They end together: by Ctrl-C, by
// SIGTERM to npm, by a closed terminal (SIGHUP), and when one of them refuses to start, with exit code 1. One that was
// ready, and crashed or was killed, has not refused: the other goes on, and it can be started again.

import { spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { isatty } from 'node:tty'
import { parseArgs } from 'node:util'

const PACKAGE = import.meta.resolve('longrun/package.json') // ours
const FOLDER = import.meta.dirname
const ENDING = existsSync(join(FOLDER, 'workers.ts')) ? '.ts' : '.js' // what is installed was built
const LOADER = ENDING === '.js' ? [] : ['--import', import.meta.resolve('./loader.js')]

/** @type {import('node:child_process').ChildProcess[]} */
const servers = []
let isEnding = false

const { module, watch } = readArguments()
// In a terminal, each gets the signal from there, too, and perhaps from npm: what comes at once counts as one.
for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP'])) process.on(signal, () => pass(signal))
if (module) process.env.TASKS = resolve(module)
if (watch) { // `npm run dev`: each is started again when its files change
  const rooms = readdirSync(FOLDER).filter(name => name.endsWith(ENDING))
  start('workers', ['--watch']) // what it imports
  start('server', ['public', ...rooms].map(path => `--watch-path=${join(FOLDER, path)}`))
} else {
  // The web server comes when the workers server is ready: so what both would refuse is said once.
  start('workers').on('message', message => message === 'ready' && !isEnding && start('server'))
}
// Trap: npx starts this below a shell, which gets its SIGTERM, dies by it, and tells nobody. When a signal has come
// here as well, that is enough: a second one would mean "at once".
const parent = process.ppid
const watchParent = setInterval(() => process.ppid !== parent && pass('SIGTERM'), 500).unref()
if (process.env.npm_command !== 'exec') clearInterval(watchParent)

/** @param {string} name @param {string[]} options */
function start(name, options = []) {
  const command = [...options, ...LOADER, join(FOLDER, name + ENDING)]
  // Trap: `node --watch` with a channel to us waits for ever for the end of what has ended already, as it did not load.
  const channel = watch ? 'ignore' : 'ipc'
  const server = spawn(process.execPath, command, { stdio: ['inherit', 'inherit', 'inherit', channel] })
  let isReady = watch // what watches a server says nothing, refuses nothing, and ends only by a signal
  server.on('message', message => { isReady ||= message === 'ready' })
  server.once('exit', () => {
    if (isReady || isEnding) return // a second signal to the other would mean "at once"
    process.exitCode = 1
    pass('SIGUSR2') // SIGTERM would cancel the runs that the other has just taken over: they wait for the next start
  })
  servers.push(server)
  return server
}

/** @param {NodeJS.Signals} signal */
function pass(signal) {
  clearInterval(watchParent)
  isEnding ||= signal !== 'SIGHUP' || [0, 1, 2].some(isatty) // as onStop() in settings.ts has it
  for (const server of servers) server.kill(signal)
}

/** Ends the process where that is all that is asked for. @returns {{ module?: string, watch?: boolean }} */
function readArguments() {
  const flag = /** @type {const} */ ({ type: 'boolean' })
  const options = { watch: flag, help: flag, version: flag }
  try {
    const { values: { watch, help, version }, positionals } = parseArgs({ options, allowPositionals: true })
    const [module, other] = positionals
    if (other) throw new Error(`one module is all that it takes: ${other} is too much`)
    if (!help && !version) return { module, watch }
    console.log(help ? helpText() : JSON.parse(readFileSync(new URL(PACKAGE), 'utf8')).version)
    process.exit()
  } catch (error) {
    console.error(`longrun: ${/** @type {Error} */ (error).message}; --help tells what there is`)
    process.exit(1)
  }
}

/** The settings come from the table of the reference. */
function helpText() {
  const usage = `npx longrun [MODULE] [--watch]
Starts both servers in this folder. MODULE exports the functions that can be called; without it they are ours, to try.
With --watch, they are started again when a file changes. Settings, as environment variables, and their defaults:
`
  const reference = readFileSync(new URL('REFERENCE.md', PACKAGE), 'utf8')
  const rows = reference.matchAll(/^\| `([A-Z_]+)` \| (.*?) \| (.*?)(?:[;:] .*)? \|$/gm)
  const lines = [...rows].map(([, name, value, meaning]) => `  ${name?.padEnd(16)} ${meaning} (${value})`)
  return [usage, ...lines].join('\n').replaceAll('`', '')
}
