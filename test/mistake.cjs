// Loaded into a process before all else (NODE_OPTIONS=--require), for what cannot be brought about from outside.

const fs = require('node:fs')
const { syncBuiltinESMExports } = require('node:module')

// A mistake in the program itself.
process.on('SIGUSR2', () => { throw new Error('a mistake') })

// A web server that never catches up.
if (process.env.TASK_MISTAKE === 'no catch-up') {
  const { Request } = require('zeromq')
  const { send } = Request.prototype
  Object.defineProperty(Request.prototype, 'send', {
    async value(frames) {
      if (frames[0] === 'read') throw new Error('not sent')
      return send.call(this, frames)
    },
  })
}

// A process that is held up just before it begins the log of a run.
const { writeSync } = fs
fs.writeSync = (file, data, ...others) => {
  if (String(data).startsWith('{"type":"start"')) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500)
  return writeSync(file, data, ...others)
}
syncBuiltinESMExports()
