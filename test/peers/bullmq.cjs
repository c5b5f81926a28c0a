// BullMQ with Socket.IO, as their documentation has it: events of all workers by QueueEvents, and a room for each run.
// This is the web server, and with the argument `worker` the process in which the runs are, nine at once. It takes the
// same calls as longrun, and its entries are the same. CommonJS, as only that finds packages by NODE_PATH.

const { Queue, QueueEvents, Worker } = require('bullmq')
const { createServer } = require('node:http')
const { json } = require('node:stream/consumers')
const { setTimeout: sleep } = require('node:timers/promises')
const { Server } = require('socket.io')

const connection = { path: process.env.REDIS }
const now = () => Number(process.hrtime.bigint() / 1000n)

const FUNCTIONS = {
  async stream(publish, count) {
    for (let step = 0; step < count; step += 1000) {
      await publish(Math.min(1000, count - step), i => ({ step: step + i, text: 'about 80 bytes' }))
    }
  },

  // In slices, as all runs share one process here.
  async burn(_, ms) {
    for (const end = now() + 1000 * ms; now() < end; await sleep(0)) {
      for (const slice = now() + 20_000; now() < slice;);
    }
  },

  async rate(publish, count, perSecond) {
    const began = now()
    for (let step = 0; step < count;) {
      const due = Math.min(count, Math.ceil((now() - began) / 1e6 * perSecond))
      await publish(due - step, i => ({ step: step + i, at: now() }))
      step = due
      await sleep(1)
    }
  },
}

if (process.argv[2] === 'worker') work()
else serve()

async function work() {
  const worker = new Worker('runs', async job => {
    const publish = (length, make) => Promise.all(Array.from({ length }, (_, i) => {
      return job.updateProgress({ type: 'msg', time: Date.now(), data: make(i) })
    })) // together, as waiting for the answer to each would be slower
    await FUNCTIONS[job.name](publish, ...job.data)
  }, { connection, concurrency: 9 })
  await worker.waitUntilReady()
  console.log('ready')
}

async function serve() {
  // Of the 10,000 events that are kept otherwise, QueueEvents reads some too late when a run reports flat out.
  const queue = new Queue('runs', { connection, streams: { events: { maxLen: 1_000_000 } } })
  const events = new QueueEvents('runs', { connection })
  const server = createServer(async (request, response) => {
    const { id, method, args } = await json(request)
    await queue.add(method, args, { jobId: id, removeOnComplete: true })
    response.writeHead(202).end(JSON.stringify({ id }))
  })
  const io = new Server(server)
  io.on('connection', socket => {
    socket.on('follow', (id, joined) => {
      socket.join(id)
      joined()
    })
  })
  events.on('progress', ({ jobId, data }) => io.to(jobId).emit('entry', data))
  events.on('completed', ({ jobId }) => io.to(jobId).emit('entry', { type: 'done' }))
  await events.waitUntilReady()
  server.listen(0, '127.0.0.1', 4096, () => console.log(`http://127.0.0.1:${server.address().port}`))
}
