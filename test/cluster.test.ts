// The whole program over machines: the web server on one, the workers server on another, tasks on the nodes of a Slurm,
// which slurm.sh starts for this file alone. Where that cannot make machines, both nodes are this one.

import assert from 'node:assert/strict'
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { curveKeyPair, Request, Subscriber, XPublisher } from 'zeromq'
import { App, ROOT, startServer, type Run } from './app.ts'

const SLURM = join(import.meta.dirname, 'slurm.sh')
const LAUNCH = join(import.meta.dirname, 'slurm-run')
/** Set by slurm.sh: the first numbers of the machines' addresses; empty when there is one machine only. */
const CLUSTER_NET = process.env['CLUSTER_NET']
const oneMachine = !CLUSTER_NET && 'needs root, ip, and the right to make namespaces'

/** The workers server is on the machine ctl, the web server and its browsers where this test is. */
class Machines extends App {
  override async startWorkers() {
    this.workers = await startServer('workers.ts', this.env, this.root, CLUSTER_NET ? ['nsenter', '--net=/run/netns/ctl'] : [])
  }
}

const missing = ['munged', 'slurmctld', 'slurmd', 'srun', 'setpriv', ...process.env['CI'] ? ['ip'] : []].filter(tool => (
  spawnSync('sh', ['-c', `PATH=$PATH:/usr/sbin; command -v ${tool}`]).status !== 0
))
if (missing.length && process.env['CI']) throw new Error(`missing: ${missing}; apt install slurm-wlm munge iproute2`)

if (missing.length) test('tasks on a cluster', { skip: `missing: ${missing}; apt install slurm-wlm munge iproute2` }, () => {})
else if (CLUSTER_NET === undefined) await runBesideSlurm()
else suite('On a cluster', () => {
  const app = new Machines({ LAUNCH: `env SLURM_CONF=${process.env['SLURM_CONF']} ${LAUNCH}`, PROCESS_LIMIT: '100', ...addresses() })
  before(async () => {
    await app.startWorkers()
    await app.startServer()
  })
  after(() => app.end())

  test('the README shows the script as it is', () => {
    assert.ok(readFileSync(join(ROOT, 'README.md'), 'utf8').includes(readFileSync(LAUNCH, 'utf8')))
  })

  test('tasks run on both nodes at once; one more than there are processors waits, and runs when there is room', async () => {
    const runs = await Promise.all([1, 2, 3, 4].map(() => app.start('tick', ['first'])))
    for (const run of runs) await run.reader.until(({ entries }) => entries.length > 2)
    assert.deepEqual(runs.map(nodeOf).sort(), ['n1', 'n1', 'n2', 'n2'])
    const more = await app.start('tick', ['second'])
    await untilQueued(more)
    assert.deepEqual(more.reader.entries.map(({ type }) => type), ['start'])
    app.letGo('first')
    for (const run of runs) assert.equal((await run.outcome()).outcome, 'ok')
    await more.reader.until(({ entries }) => entries.length > 2)
    app.letGo('second')
    assert.equal((await more.outcome()).outcome, 'ok')
    await untilNodesAreFree()
  })

  test('a run is cancelled politely, by force, by its time limit, and while it waits for its place', async () => {
    const [polite, deaf, limited, steady] = await Promise.all([
      app.start('polite'), app.start('deaf', [600]), app.start('polite', [], { timeLimit: 2 }), app.start('tick', ['third']),
    ])
    for (const run of [polite, deaf, limited, steady]) await run.reader.until(({ entries }) => entries.length > 1)
    const waiting = await app.start('tick', ['never'])
    await untilQueued(waiting)
    for (const run of [waiting, polite, deaf]) {
      assert.equal((await run.cancel()).status, 202)
      const { outcome, reason } = await run.outcome()
      assert.deepEqual([outcome, reason], ['cancelled', 'cancelled'])
    }
    assert.equal((await limited.outcome()).reason, 'over its time limit of 2 s')
    assert.deepEqual(await waiting.types(), ['start', 'done'])
    assert.deepEqual(await polite.types(), ['start', 'log', 'log', 'done'], 'it could clean up')
    app.letGo('third')
    assert.equal((await steady.outcome()).outcome, 'ok')
    await untilNodesAreFree()
  })

  test('a task that dies, and one whose launcher is killed, end as died, and nothing is left on the nodes', async () => {
    const [dying, killed] = await Promise.all([app.start('suicide', ['SIGKILL']), app.start('tick', ['never'])])
    await killed.reader.until(({ entries }) => entries.length > 1)
    process.kill(killed.pid, 'SIGKILL')
    for (const run of [dying, killed]) {
      const { outcome, reason } = await run.outcome()
      assert.equal(outcome, 'died')
      assert.match(reason!, /Killed|SIGKILL/)
      assert.equal((await run.types()).at(-2), 'error')
    }
    await untilNodesAreFree()
  })

  test('the workers server is killed and started again: runs on the nodes go on, and are its own', async () => {
    const [steady, polite, doomed] = await Promise.all([app.start('tick', ['fourth']), app.start('polite'), app.start('tick', ['never'])])
    for (const run of [steady, polite, doomed]) await run.reader.until(({ entries }) => entries.length > 1)
    await app.kill('workers')
    process.kill(doomed.pid, 'SIGKILL')
    const size = steady.log().length
    while (steady.log().length < size + 100) await sleep(20)
    await app.startWorkers()
    assert.equal((await doomed.outcome()).outcome, 'died')
    assert.equal((await polite.cancel()).status, 202)
    assert.equal((await polite.outcome()).outcome, 'cancelled')
    app.letGo('fourth')
    assert.equal((await steady.outcome()).outcome, 'ok')
    await untilNodesAreFree()
  })

  test('a stranger on the network, with keys of his own but without the public key of the server, gets nowhere', { skip: oneMachine }, async () => {
    const run = await app.start('tick', ['fifth'])
    await run.reader.until(({ entries }) => entries.length > 1)
    const { publicKey: curvePublicKey, secretKey: curveSecretKey } = curveKeyPair()
    for (const keys of [{}, { curvePublicKey, curveSecretKey, curveServerKey: curveKeyPair().publicKey }]) {
      const options = { linger: 0, sendTimeout: 1000, receiveTimeout: 1000, ...keys }
      const [caller, publisher, reader] = [new Request(options), new XPublisher(options), new Subscriber(options)]
      reader.subscribe()
      const sockets = [[caller, 'REP_ADDR'], [publisher, 'XSUB_ADDR'], [reader, 'XPUB_ADDR']] as const
      for (const [socket, setting] of sockets) {
        const refused = new Promise<void>((resolve, reject) => {
          for (const event of ['handshake:error:protocol', 'handshake:error:other', 'disconnect'] as const) socket.events.on(event, () => resolve())
          socket.events.on('handshake', () => reject(new Error(`${setting} is open`)))
        })
        socket.connect(app.env[setting]!)
        await refused
      }
      await assert.rejects(caller.send(['ping', '', '', '[]']), 'he cannot call')
      await assert.rejects(publisher.receive(), 'he cannot publish: nobody who subscribes is known to him')
      await assert.rejects(reader.receive(), 'he cannot read, though the run goes on')
      for (const [socket] of sockets) socket.close()
    }
    app.letGo('fifth')
    assert.equal((await run.outcome()).outcome, 'ok')
    for (const name of readdirSync(join(app.runs, 'curve'))) assert.equal(statSync(join(app.runs, 'curve', name)).mode & 0o777, 0o600, name)
    await untilNodesAreFree()
  })

  test('a node is cut off: its run dies with that reason, and has its last word; the run on the other node goes on', { skip: oneMachine }, async () => {
    const runs = await Promise.all([1, 2, 3, 4].map(() => app.start('tick', ['sixth'])))
    for (const run of runs) await run.reader.until(({ entries }) => entries.length > 1)
    const [others, lost] = [runs.filter(run => nodeOf(run) === 'n1'), runs.filter(run => nodeOf(run) === 'n2')]
    execFileSync('ip', ['link', 'set', 'n2', 'down'])
    for (const run of lost) {
      const done = await run.outcome()
      assert.equal(done.outcome, 'died')
      assert.match(done.reason!, /Node failure on n2/)
    }
    const logs = lost.map(run => run.log())
    while (lost.some(({ id }) => tasksOnNodes().includes(id))) await sleep(20) // they find that their run was ended without them
    execFileSync('ip', ['link', 'set', 'n2', 'up'])
    while (slurm('sinfo', '--noheader', '--states=idle,mix', '--format=%D') !== '2') await sleep(20)
    app.letGo('sixth')
    for (const run of others) assert.equal((await run.outcome()).outcome, 'ok')
    const again = await Promise.all([1, 2, 3, 4].map(() => app.start('process', [3, 1])))
    for (const run of again) assert.equal((await run.outcome()).outcome, 'ok')
    assert.deepEqual(lost.map(run => run.log()), logs, 'nothing follows done')
    await untilNodesAreFree()
  })

  /** Until no task, nor what one has started, is left on a node, and Slurm says the same. */
  async function untilNodesAreFree() {
    while (slurm('squeue', '--noheader') || tasksOnNodes().length) await sleep(20)
  }

  /** The ids of the runs of which there are processes on a node. */
  function tasksOnNodes(): string[] {
    const proc = CLUSTER_NET ? '/run/proc' : '/proc'
    const environments = readdirSync(proc).filter(name => /^\d+$/.test(name)).map(pid => {
      try {
        return readFileSync(join(proc, pid, 'environ'), 'utf8').split('\0')
      } catch {
        return [] // it has ended while we looked
      }
    })
    const tasks = environments.filter(variables => variables.includes(`RUNS=${app.runs}`) && variables.some(text => text.startsWith('SLURMD_NODENAME=')))
    return tasks.map(variables => variables.find(text => text.startsWith('LONGRUN_RUN='))!.split('=')[1]!)
  }
})

function addresses(): Record<string, string> {
  const ctl = `tcp://${CLUSTER_NET}.3`
  return CLUSTER_NET ? { REP_ADDR: `${ctl}:7001`, XSUB_ADDR: `${ctl}:7002`, XPUB_ADDR: `${ctl}:7003` } : {}
}

function slurm(command: string, ...args: string[]): string {
  return execFileSync(command, args, { encoding: 'utf8' }).trim()
}

const nodeOf = ({ id }: Run) => slurm('squeue', '--noheader', `--name=longrun-${id}`, '--format=%N')

async function untilQueued({ id }: Run) {
  while (slurm('squeue', '--noheader', `--name=longrun-${id}`, '--format=%T') !== 'PENDING') await sleep(20)
}

/** Runs this file once more, beside a Slurm; it reports to the same test runner, as its output is ours. */
async function runBesideSlurm() {
  const command = [SLURM, process.execPath, ...process.execArgv, import.meta.filename]
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', ...command], { stdio: 'inherit' })
  process.once('exit', () => child.kill('SIGKILL')) // slurm.sh takes all its processes with it
  const [code] = await once(child, 'exit')
  process.exitCode = code ?? 1
}
