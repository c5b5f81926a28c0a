// The whole program over machines: the web server on one, the workers server on another, tasks on the nodes of a Slurm.
// slurm.sh makes the machines and starts the Slurm, for this file alone, which runs there once more. Where it cannot
// make machines, both nodes are this one, and what needs a network is left out.

import assert from 'node:assert/strict'
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, suite, test } from 'node:test'
import { curveKeyPair, Request, Subscriber, XPublisher } from 'zeromq'
import { App, readmeBlocks, startServer, until, type Run } from './app.ts'

const SLURM = join(import.meta.dirname, 'slurm.sh')
const SLURM_RUN = join(import.meta.dirname, 'slurm-run')
/** Set by slurm.sh: how the addresses of its machines begin; empty when it could not make any. */
const NETWORK = process.env['CLUSTER_NET']

/** The workers server is on the machine ctl, the web server and its browsers where this test is. */
class SpreadApp extends App {
  constructor() {
    const ctl = `tcp://${NETWORK}.3`
    const addresses = { REP_ADDR: `${ctl}:7001`, XSUB_ADDR: `${ctl}:7002`, XPUB_ADDR: `${ctl}:7003` }
    const LAUNCH = `env SLURM_CONF=${process.env['SLURM_CONF']} ${SLURM_RUN}`
    super({ LAUNCH, PROCESS_LIMIT: '100', ...NETWORK ? addresses : {} })
  }

  override async startWorkers() {
    const before = NETWORK ? ['nsenter', '--net=/run/netns/ctl'] : []
    this.workers = await startServer('workers.ts', this.env, this.root, before)
  }
}

const tools = ['munged', 'slurmctld', 'slurmd', 'srun', 'setpriv', ...process.env['CI'] ? ['ip'] : []]
const missing = tools.filter(tool => spawnSync('sh', ['-c', `PATH=$PATH:/usr/sbin; command -v ${tool}`]).status !== 0)
const advice = `missing: ${missing}; apt install slurm-wlm munge iproute2`

if (missing.length && process.env['CI']) throw new Error(advice)
if (missing.length) test('tasks on a cluster', { skip: advice }, () => {})
else if (NETWORK === undefined) await runBesideSlurm()
else suite('On a cluster', () => {
  const needsNetwork = { skip: !NETWORK && 'needs root, ip, and the right to make namespaces' }
  const app = new SpreadApp()
  before(() => app.startBoth())
  after(() => app.end())
  afterEach(() => { // what a test that failed has left
    if (NETWORK) execFileSync('ip', ['link', 'set', 'n2', 'up'])
    slurm('scancel', '--quiet', `--user=${userInfo().username}`)
  })

  /** Starts these runs at once, and waits until each has said something. */
  async function start(...calls: Parameters<App['start']>[]): Promise<Run[]> {
    const runs = await Promise.all(calls.map(call => app.start(...call)))
    for (const run of runs) await run.reader.until(({ entries }) => entries.length > 1)
    return runs
  }

  /** Until no process of a run is left on a node, and Slurm says the same. */
  async function untilNodesAreFree() {
    await until(() => !slurm('squeue', '--noheader') && !jobsOnNodes(app.runs).length)
  }

  test('the reference shows the script as it is', () => {
    assert.ok(readmeBlocks('sh').includes(readFileSync(SLURM_RUN, 'utf8')))
  })

  test('runs are on both nodes at once; one more than there are processors waits, and then runs', async () => {
    const runs = await start(...Array(4).fill(['tick', ['first']]))
    assert.deepEqual(runs.map(nodeOf).sort(), ['n1', 'n1', 'n2', 'n2'])
    const more = await app.start('tick', ['second'])
    await untilQueued(more)
    await more.reader.until(({ entries }) => entries.length > 0)
    assert.deepEqual(more.reader.entries.map(({ type }) => type), ['start'])
    app.letGo('first')
    for (const run of runs) assert.equal((await run.outcome()).outcome, 'ok')
    await more.reader.until(({ entries }) => entries.length > 2)
    app.letGo('second')
    assert.equal((await more.outcome()).outcome, 'ok')
    await untilNodesAreFree()
  })

  test('a run is cancelled politely, by force, by its time limit, and while it waits for its place', async () => {
    const runs = await start(['polite'], ['deaf', [600]], ['tick', ['third']], ['tick', ['third']])
    const [polite, deaf, ...steady] = runs as [Run, Run, Run, Run]
    const waiting = await app.start('tick', ['never'])
    await untilQueued(waiting)
    for (const run of [waiting, polite, deaf]) {
      assert.equal((await run.cancel()).status, 202)
      const { outcome, reason } = await run.outcome()
      assert.deepEqual([outcome, reason], ['cancelled', 'cancelled'])
    }
    assert.deepEqual(await waiting.types(), ['start', 'done'])
    assert.deepEqual(await polite.types(), ['start', 'log', 'log', 'done'], 'it could clean up')
    const [limited] = await start(['polite', [], { timeLimit: 3 }]) as [Run] // later: it must not end before one waits
    assert.equal((await limited.outcome()).reason, 'over its time limit of 3 s')
    app.letGo('third')
    for (const run of steady) assert.equal((await run.outcome()).outcome, 'ok')
    await untilNodesAreFree()
  })

  test('a task that dies, and one whose launcher is killed: died, and nothing is left on the nodes', async () => {
    const [killed, dying] = await start(['deaf', [600]], ['suicide', ['SIGKILL']]) as [Run, Run]
    process.kill(killed.pid, 'SIGKILL')
    for (const run of [dying, killed]) {
      const { outcome, reason } = await run.outcome()
      assert.equal(outcome, 'died')
      assert.match(reason!, /Killed|SIGKILL/)
      assert.equal((await run.types()).at(-2), 'error')
    }
    await untilNodesAreFree()
  })

  test('the workers server is killed and started again: the runs on the nodes go on, and are its own', async () => {
    const [steady, polite, doomed] = await start(['tick', ['fourth']], ['polite'], ['deaf', [600]]) as [Run, Run, Run]
    await app.replaceWorkers(steady, doomed)
    assert.equal((await polite.cancel()).status, 202)
    assert.equal((await polite.outcome()).outcome, 'cancelled')
    app.letGo('fourth')
    assert.equal((await steady.outcome()).outcome, 'ok')
    await untilNodesAreFree()
  })

  test('a run of another longrun with the same id goes on when one is cancelled; Slurm is asked once to cancel it', async t => {
    const [run] = await start(['polite']) as [Run]
    const folder = mkdtempSync(join(tmpdir(), 'longrun-test-'))
    t.after(() => rmSync(folder, { recursive: true }))
    const [calls, scancel] = ['calls', 'scancel'].map(name => join(folder, name)) as [string, string]
    writeFileSync(scancel, `#!/bin/sh\necho >> ${calls}; PATH=\${PATH#*:} exec scancel "$@"\n`, { mode: 0o700 })
    const env = { ...process.env, PATH: `${folder}:${process.env['PATH']}` }
    const deaf = ['sh', '-c', 'trap "" TERM; while :; do sleep 1; done']
    const other = spawn(SLURM_RUN, [...deaf, run.id], { env, stdio: 'ignore' }) // it has the id as its last argument
    t.after(() => other.kill('SIGKILL'))
    const jobs = () => slurm('squeue', '--noheader', '--states=RUNNING', '--format=%j').split('\n').filter(job => isOf(run.id, job))
    await until(() => jobs().length === 2)
    assert.equal(new Set(jobs()).size, 2, 'they have other names')
    await run.cancel()
    assert.equal((await run.outcome()).outcome, 'cancelled')
    await until(() => jobs().length === 1)
    other.kill('SIGTERM')
    await once(other, 'exit') // after Slurm's KillWait
    assert.equal(readFileSync(calls, 'utf8'), '\n')
    await untilNodesAreFree()
  })

  test('a stranger on the network, with keys but without that of the server, gets nowhere', needsNetwork, async t => {
    const [run] = await start(['tick', ['fifth']]) as [Run]
    const { publicKey: curvePublicKey, secretKey: curveSecretKey } = curveKeyPair()
    const curveServerKey = curveKeyPair().publicKey
    for (const keys of [{}, { curvePublicKey, curveSecretKey, curveServerKey }]) {
      const options = { ...keys, linger: 0, receiveTimeout: 1000 }
      const caller = new Request({ ...options, sendTimeout: 1000 })
      const [publisher, reader] = [new XPublisher(options), new Subscriber(options)]
      t.after(() => [caller, publisher, reader].forEach(socket => socket.close()))
      reader.subscribe()
      const { REP_ADDR, XSUB_ADDR, XPUB_ADDR } = app.env
      for (const [socket, address] of [[caller, REP_ADDR], [publisher, XSUB_ADDR], [reader, XPUB_ADDR]] as const) {
        const refused = refusal(socket)
        socket.connect(address!)
        await refused
      }
      await Promise.all([
        assert.rejects(caller.send(['ping', '', '', '[]']).then(() => caller.receive()), 'he cannot call'),
        assert.rejects(publisher.receive(), 'he cannot publish: nobody has subscribed to what he says'),
        assert.rejects(reader.receive(), 'he cannot read, though the run goes on'),
      ])
    }
    const files = readdirSync(join(app.runs, 'curve')).map(name => join(app.runs, 'curve', name))
    assert.deepEqual(files.map(file => statSync(file).mode & 0o777), files.map(() => 0o600))
    app.letGo('fifth')
    assert.equal((await run.outcome()).outcome, 'ok')
    await untilNodesAreFree()
  })

  test('a web server with a folder of its own needs the public key, and nothing else', needsNetwork, async t => {
    const own = mkdtempSync(join(tmpdir(), 'longrun-test-'))
    const env = { ...app.env, RUNS: own, PORT: '0' }
    cpSync(join(app.runs, 'curve', 'server.public'), join(own, 'curve', 'server.public'))
    const server = await startServer('server.ts', env)
    t.after(() => rmSync(own, { recursive: true }))
    t.after(() => server.process.kill())
    const [url] = /http:\/\/\S+/.exec(server.ready)!
    const [run] = await start(['process', [3, 1]]) as [Run]
    await run.outcome()
    assert.equal(await (await fetch(`${url}tasks/${run.id}/log.ndjson`)).text(), run.log())
  })

  test('a node is cut off: its runs die for that reason, for good; those on the other go on', needsNetwork, async () => {
    const runs = await start(...Array(4).fill(['tick', ['sixth']]))
    const [others, lost] = ['n1', 'n2'].map(node => runs.filter(run => nodeOf(run) === node)) as [Run[], Run[]]
    execFileSync('ip', ['link', 'set', 'n2', 'down'])
    for (const run of lost) {
      const done = await run.outcome()
      assert.equal(done.outcome, 'died')
      assert.match(done.reason!, /Node failure on n2/)
    }
    const logs = lost.map(run => run.log())
    const assertNothingFollows = () => assert.deepEqual(lost.map(run => run.log()), logs)
    const isLost = (job: string) => lost.some(({ id }) => isOf(id, job))
    await until(() => { // the tasks see by their logs that they have been ended
      assertNothingFollows()
      return !jobsOnNodes(app.runs).some(isLost)
    })
    execFileSync('ip', ['link', 'set', 'n2', 'up'])
    await until(() => slurm('sinfo', '--noheader', '--nodes=n2', '--format=%T') === 'idle')
    const again = await start(['process', [3, 1]], ['process', [3, 1]])
    for (const run of again) assert.equal((await run.outcome()).outcome, 'ok')
    app.letGo('sixth')
    for (const run of others) assert.equal((await run.outcome()).outcome, 'ok')
    assertNothingFollows()
    await untilNodesAreFree()
  })
})

/** Runs this file once more, beside a Slurm. It reports to the same test runner: what it prints is what we print. */
async function runBesideSlurm() {
  const command = [SLURM, process.execPath, ...process.execArgv, import.meta.filename]
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', ...command], { stdio: 'inherit' })
  process.once('exit', () => child.kill('SIGKILL')) // slurm.sh takes all its processes with it
  const [code] = await once(child, 'exit')
  process.exitCode = code ?? 1
}

/** What a command of Slurm prints. */
function slurm(command: string, ...args: string[]): string {
  return execFileSync(command, args, { encoding: 'utf8' }).trim()
}

/** What Slurm says of a run's job, such as %N, its node; undefined when it knows none. */
function jobOf({ id }: { id: string }, format: string): string | undefined {
  const jobs = slurm('squeue', '--noheader', `--format=%j ${format}`).split('\n').map(line => line.split(' '))
  return jobs.find(([name]) => isOf(id, name!))?.[1]
}

/** Whether a job is that of a run; what else is in its name says whose. */
const isOf = (id: string, job: string) => job.startsWith(`longrun-${id}-`)

/** The node on which a run is. */
const nodeOf = (run: Run) => jobOf(run, '%N')

/** Until Slurm knows of a run, and has no place for it. */
const untilQueued = (run: Run) => until(() => jobOf(run, '%T') === 'PENDING')

/** The names of the jobs of which there are processes on a node. */
function jobsOnNodes(runs: string): string[] {
  const proc = NETWORK ? '/run/proc' : '/proc'
  return readdirSync(proc).filter(name => /^\d+$/.test(name)).flatMap(pid => {
    try {
      const variables = readFileSync(join(proc, pid, 'environ'), 'utf8').split('\0')
      const isOnNode = variables.some(text => text.startsWith('SLURMD_NODENAME='))
      const job = variables.find(text => text.startsWith('SLURM_JOB_NAME='))
      return isOnNode && job && variables.includes(`RUNS=${runs}`) ? [job.slice('SLURM_JOB_NAME='.length)] : []
    } catch {
      return [] // it has ended while we looked
    }
  })
}

/** Until a socket, once it connects, is turned away. Throws when it is let in. */
function refusal(socket: Request | XPublisher | Subscriber): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.events.on('handshake', () => reject(new Error('it was let in')))
    for (const event of ['handshake:error:protocol', 'handshake:error:other', 'disconnect'] as const) {
      socket.events.on(event, () => resolve())
    }
  })
}
