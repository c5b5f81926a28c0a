// `npm start`: both servers, as one program. They end together: by Ctrl-C, by SIGTERM to npm, by a closed terminal
// (SIGHUP), and when one of them refuses to start (exit code 1), which is the exit code then. One that was killed has
// not refused: the other goes on, and it can be started again, by `npm run workers` or `npm run server`.
// With --watch (`npm run dev`) each is started again when its files change.

import { spawn } from 'node:child_process'

const watch = process.argv.includes('--watch')
const rooms = ['settings', 'log', 'protocol', 'readers', 'access', 'server'].map(room => `--watch-path=${room}.ts`)
const servers = [
  start('workers.ts', ['--watch']), // what it imports
  start('server.ts', [...rooms, '--watch-path=public']),
]

/** @param {string} file @param {string[]} watching */
function start(file, watching) {
  const server = spawn(process.execPath, [...watch ? watching : [], '--import', 'tsx', file], { stdio: 'inherit' })
  server.once('exit', code => {
    if (code !== 1) return
    process.exitCode = 1
    end('SIGTERM')
  })
  return server
}

// In a terminal, each gets the signal from there, too, and perhaps from npm: what comes at once counts as one.
for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP'])) process.on(signal, () => end(signal))

/** @param {NodeJS.Signals} signal */
function end(signal) {
  for (const server of servers) server.kill(signal)
}
