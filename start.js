#!/usr/bin/env node
// `npm start`, and `npx longrun` where it is installed: both servers, as one program. They end together: by Ctrl-C, by
// SIGTERM to npm, by a closed terminal (SIGHUP), and when one of them refuses to start, whose exit code, 78, is its own
// then. One that crashed, or was killed, has not refused: the other goes on, and it can be started again.

import { spawn } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { isatty } from 'node:tty'
import { parseArgs } from 'node:util'

const PACKAGE = import.meta.resolve('longrun/package.json') // ours
const REFUSED = 78 // as refuseToStart() in settings.ts has it
const FOLDER = import.meta.dirname
const ENDING = existsSync(join(FOLDER, 'workers.ts')) ? '.ts' : '.js' // what is installed was built
const stripsTypes = 'typescript' in process.features && Boolean(process.features.typescript)
const LOADER = ENDING === '.js' || stripsTypes ? [] : ['--import', import.meta.resolve('./loader.js')]

/** @type {import('node:child_process').ChildProcess[]} */
const servers = []
let isEnding = false
let isHungUp = false

const { module, watch } = readArguments()
if (module) process.env.TASKS = resolve(module)
if (watch) { // `npm run dev`: each is started again when its files change
  start('workers', ['--watch']) // what it imports
  start('server', [...importsOf(`server${ENDING}`), 'public'].map(path => `--watch-path=${join(FOLDER, path)}`))
} else {
  // The web server comes when the workers server is ready: so what both would refuse is said once.
  start('workers', [], ['ipc']).on('message', message => message === 'ready' && !isEnding && start('server'))
}
// Trap: npx starts this below a shell, which gets the SIGTERM, dies by it, and tells nobody.
const parent = process.ppid
const watchParent = setInterval(() => {
  if (process.ppid === parent) return
  clearInterval(watchParent)
  if (!isHungUp) pass('SIGTERM')
}, process.env.npm_command === 'exec' ? 500 : 2 ** 30).unref()

// In a terminal, each gets the signal from there, too, and perhaps from npm: what comes at once counts as one.
for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP'])) process.on(signal, () => pass(signal))

/** @param {string} name @param {string[]} options @param {'ipc'[]} channel */
function start(name, options = [], channel = []) {
  const command = [...options, ...LOADER, join(FOLDER, name + ENDING)]
  const server = spawn(process.execPath, command, { stdio: ['inherit', 'inherit', 'inherit', ...channel] })
  server.once('exit', code => {
    const isAlone = servers.length === 1 // it was not ready yet
    if (code !== REFUSED && !isAlone) return
    process.exitCode = code ?? 1
    pass('SIGTERM')
  })
  servers.push(server)
  return server
}

/** @param {NodeJS.Signals} signal */
function pass(signal) {
  isHungUp ||= signal === 'SIGHUP'
  isEnding ||= signal !== 'SIGHUP' || [0, 1, 2].some(isatty) // as onStop() in settings.ts has it
  for (const server of servers) server.kill(signal)
}

/** Names of the rooms that a room is made of. @param {string} room */
function importsOf(room) {
  const rooms = new Set([room])
  for (const name of rooms) { // those that are added meanwhile, too
    const source = readFileSync(join(FOLDER, name), 'utf8')
    for (const [, imported] of source.matchAll(/ from '\.\/(.+)'/g)) rooms.add(String(imported))
  }
  return [...rooms]
}

// ---- The command line

/** Ends the process where that is all that is asked for. @returns {{ module?: string, watch?: boolean }} */
function readArguments() {
  const options = /** @type {const} */ ({
    watch: { type: 'boolean' }, help: { type: 'boolean' }, version: { type: 'boolean' },
  })
  try {
    const { values: { watch, help, version }, positionals: [module, ...others] } =
      parseArgs({ options, allowPositionals: true })
    if (others.length) throw new Error(`one module is all that it takes: ${others[0]} is too much`)
    if (!help && !version) return { module, watch }
    console.log(help ? helpText() : JSON.parse(readFileSync(new URL(PACKAGE), 'utf8')).version)
    process.exit()
  } catch (error) {
    console.error(`longrun: ${/** @type {Error} */ (error).message}; --help tells what there is`)
    process.exit(REFUSED)
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
