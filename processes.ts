// The processes of runs: how one is started, ahead of time if that is possible; how it is told from others, as process
// ids may come round again; how all that it has started is ended; and the commands that are told of an end. workers.ts
// decides when. Look for: startProcess, and the spares behind it; hasOpen; claimRuns; endProcesses; tellEnd.

import { spawn, spawnSync, type ChildProcess, type StdioOptions } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import {
  closeSync, constants, fstatSync, openSync, readdirSync, readFileSync, readSync, statSync, writeFileSync, writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { stripsTypes, TASK_PROGRAM } from './load.ts'
import { stderrPath } from './log.ts'
import { limit, RemoteError } from './protocol.ts'
import {
  attempt, ENDING, isThere, LAUNCH, lowerPriority, ON_DONE, refuseToStart, removeAll, RUN_MARK, RUNS, sendSignal,
  SPARES, taskEnvironment, VERSION,
} from './settings.ts'

/** Whether an engine's command stands for each process, see LAUNCH. */
export const isLaunched = LAUNCH.length > 0
const QUIET = 20 // ms without a launch before a spare is refilled, see refillSoon
const LONGEST_PAUSE = 30_000 // ms between two attempts to load a spare, when all of them crash
const CLAIM = join(RUNS, 'workers.pid') // see claimRuns
const LAST_LINES = { bytes: 64 * 2 ** 10, lines: 40, characters: 4000 } // of stderr: kept, and quoted (V8: 30 lines)

// Before Node 22.18 a task process is CommonJS to tsx, see requireModule in load.ts.
const LOADER = stripsTypes || ENDING === '.js'
  ? []
  : ['--import', import.meta.resolve('./loader.js'), '--eval', 'require(process.argv[1])']

/** A process of task.ts: loading, or ready. A spare as long as it has no run. `stderr`: the file that this goes to. */
type TaskProcess = { child: ChildProcess; stderr: string; isReady: boolean }

const spares = new Set<TaskProcess>() // at most one of them is not ready
let pause = QUIET
let refillTimer: NodeJS.Timeout | undefined
let isEnding = false
let loadedVersion = ''

// ---- Spares

/** From now on processes are kept ready, for the version of the functions that the server has loaded. */
export function keepSpares(version: string) {
  loadedVersion = version
  void refill()
}

/** None is kept any more. */
export function endSpares() {
  isEnding = true
  for (const { child } of spares) child.kill('SIGKILL') // it has nothing to clean up
}

/** A spare, or a fresh process: of this call alone, as one is answered after the other. Throws a RemoteError. */
export async function startProcess(id: string): Promise<TaskProcess> {
  refillSoon()
  const [spare] = spares // one that still loads is ready sooner than a new one, and two would slow each other down
  if (spare) spares.delete(spare)
  spare?.child.removeAllListeners('exit').removeAllListeners('message')
  try {
    return spare ?? await startTask(id)
  } catch (error) {
    const launcher = isLaunched ? ` by LAUNCH=${LAUNCH.join(' ')}` : ''
    throw new RemoteError('failed', `cannot start a process${launcher}: ${(error as Error).message}`)
  }
}

// Refilled one at a time, and not in the middle of a burst of launches, which the loading would slow down. A pause that
// has grown is waited for, whatever is launched meanwhile: else nobody would find out that the trouble is over.
function refillSoon() {
  if (refillTimer && pause > QUIET) return
  clearTimeout(refillTimer)
  refillTimer = setTimeout(refill, pause)
}

async function refill() {
  refillTimer = undefined
  const isLoading = [...spares].some(({ isReady }) => !isReady)
  if (isEnding || isLoading || spares.size >= SPARES) return
  try {
    const spare = await startTask()
    spares.add(spare)
    spare.child.once('message', () => {
      spare.isReady = true
      pause = QUIET
      void refill()
    })
    spare.child.once('exit', () => {
      spares.delete(spare)
      removeAll(spare.stderr)
      refillLater()
    })
  } catch (error) {
    console.error(`cannot start a spare: ${(error as Error).message}`)
    refillLater()
  }
}

function refillLater() {
  pause = Math.min(2 * pause, LONGEST_PAUSE) // when all of them crash: a pause that grows, not a fork storm
  refillSoon()
}

// It gets its run's id over IPC; below a launcher there is no such channel, and it is an argument.
/** A task process. Throws when it cannot be forked: no such binary, no descriptors. */
async function startTask(id = ''): Promise<TaskProcess> {
  const [command, ...args] = [...LAUNCH, process.execPath, ...LOADER, TASK_PROGRAM, ...isLaunched ? [id] : []]
  const env = { ...taskEnvironment(), [VERSION]: loadedVersion, [RUN_MARK]: isLaunched ? id : undefined }
  // A file and not a pipe: that would end with this server, and a task that says something then with it.
  const stderr = join(RUNS, `task.${randomUUID()}.stderr`) // no run's id has a point
  const file = openSync(stderr, 'ax', 0o600)
  try {
    // `detached`: a process group of its own: the run can be killed with all that it started, and a Ctrl-C in the
    // terminal reaches the workers server alone, which then asks the runs to end.
    const stdio: StdioOptions = ['ignore', 'inherit', file, isLaunched ? 'ignore' : 'ipc']
    const child = spawn(command!, args, { detached: true, env, stdio })
    child.on('error', () => {}) // without a listener, one would end this process
    if (child.pid && !isLaunched) { // of what is launched, the engine decides
      lowerPriority(child.pid)
      child.send('', () => {}) // see waitForRun in task.ts
    }
    await once(child, 'spawn') // rejects with its `error`
    return { child, stderr, isReady: false }
  } catch (error) {
    removeAll(stderr)
    throw error
  } finally {
    closeSync(file)
  }
}

// ---- What it says on stderr

/** The last lines that the process of a run, or its launcher, has said on stderr. */
export function lastErrors(id: string): string {
  const path = stderrPath(id)
  if (!isThere(path)) return ''
  const lines = String(readEnd(path)).trimEnd().split('\n').slice(-LAST_LINES.lines)
  return lines.join('\n').slice(-LAST_LINES.characters)
}

/** Bounds what the processes of these runs have said on stderr: only the end is kept. */
export function trimErrors(ids: string[]) {
  for (const path of ids.map(stderrPath)) {
    const size = statSync(path, { throwIfNoEntry: false })?.size ?? 0
    if (size < 4 * LAST_LINES.bytes) continue
    writeFileSync(path, readEnd(path)) // it was opened to append: what comes next stands after this
  }
}

// Not the whole file, which may be larger than what can be read at once: nobody trims it while there is no server.
function readEnd(path: string): Buffer {
  const file = openSync(path, 'r')
  try {
    const { size } = fstatSync(file)
    const bytes = Buffer.alloc(Math.min(size, LAST_LINES.bytes))
    return bytes.subarray(0, readSync(file, bytes, 0, bytes.length, size - bytes.length))
  } finally {
    closeSync(file)
  }
}

// ---- Whose a process is

/**
 * Whether a process has one of these files open. Its id, or that of its group, says nothing about who it is: it may
 * have come round again, and be somebody else's. Throws EMFILE and the like when that cannot be seen: a process that
 * lives must not be taken for dead.
 */
export function hasOpen(pid: number, paths: string[]): boolean {
  if (!Number.isSafeInteger(pid) || pid <= 1) return false
  const own = paths.map(path => statSync(path, { throwIfNoEntry: false }))
  try {
    if (!readFileSync(`/proc/${pid}/cmdline`).length) return false // a zombie: its parent has died
    return readdirSync(`/proc/${pid}/fd`).some(file => {
      const open = statSync(`/proc/${pid}/fd/${file}`, { throwIfNoEntry: false }) // it may be closed by now
      return open && own.some(path => path?.ino === open.ino && path.dev === open.dev)
    })
  } catch (error) {
    if (isAbsence(error)) return false
    throw error
  }
}

/** Whether a file or a process is not there, or not ours; any other error, such as EMFILE, says nothing about that. */
export function isAbsence(error: unknown): boolean {
  return /^(ENOENT|ESRCH|EACCES|EPERM|ELOOP|EISDIR|ESPIPE|ENXIO)$/.test(String((error as NodeJS.ErrnoException).code))
}

/**
 * Two workers servers on one folder would end each other's runs, whatever their addresses are. So each locks a file
 * there; the kernel keeps the lock as long as this process lives, which never closes it. Node cannot ask for such a
 * lock, but the `flock` of util-linux can, for whoever gave it the open file. (Where there is none, who has the file
 * open is looked for, which two that start at one moment can both survive.) Ends this process when another one has the
 * folder, or nothing can be written there.
 */
export function claimRuns() {
  try {
    const { O_RDWR, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = constants // somebody may have put a link there, or a FIFO
    const claim = openSync(CLAIM, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o600)
    const pid = Number(readFileSync(claim, 'utf8'))
    const { status } = spawnSync('flock', ['-n', '3'], { stdio: ['ignore', 'ignore', 'ignore', claim] })
    if (status === 1 || status !== 0 && pid !== process.pid && hasOpen(pid, [CLAIM])) {
      refuseToStart(`another workers server is running on ${RUNS}, process ${pid}: stop it, or set RUNS to another one`)
    }
    // The one before removes the file when it stops: what was locked here must be what the next one will find.
    if (statSync(CLAIM, { throwIfNoEntry: false })?.ino !== fstatSync(claim).ino) return claimRuns()
    attempt('note who has the folder', () => writeSync(claim, String(process.pid).padEnd(10), 0))
  } catch (error) {
    refuseToStart(`cannot write to ${CLAIM}: ${(error as Error).message}`)
  }
}

/** The next one may have the folder. */
export const giveUpRuns = () => removeAll(CLAIM)

/**
 * Ends the processes whose environment has the mark of such a run: what its process has started, and left, in its own
 * process group or not. Again, until none is found: one may have started another meanwhile. (Those without the mark it
 * cannot see: `env -i`, sudo, containers, other machines.) Throws EMFILE and the like when it cannot look.
 */
export function endProcesses(isToEnd: (id: string) => boolean) {
  for (let round = 0; round < 20; round++) {
    const pids = readdirSync('/proc').filter(name => /^\d+$/.test(name)).map(Number)
    const left = pids.filter(pid => pid !== process.pid && isMarked(pid))
    if (!left.length) return
    for (const pid of left.flatMap(pid => [-pid, pid])) sendSignal(pid, 'SIGKILL') // with its group, if it leads one
  }

  function isMarked(pid: number): boolean {
    try {
      const environment = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0')
      const mark = environment.find(variable => variable.startsWith(`${RUN_MARK}=`))
      return mark !== undefined && environment.includes(`RUNS=${RUNS}`) && isToEnd(mark.slice(RUN_MARK.length + 1))
    } catch (error) {
      if (isAbsence(error)) return false
      throw error
    }
  }
}

// ---- Who is told of an end

const limitTold = limit(4) // commands at once
const TELL_TIME = 30_000 // ms after which one that has not ended is killed
const tellings = new Map<string, Promise<void>>() // those that run or wait, by the ids of their runs
const stop = new AbortController() // of those, at last

/** Starts the command of ON_DONE for a run, with what is to be said of it on stdin. It holds nobody up. */
export function tellEnd(id: string, summarize: (id: string) => Buffer) {
  if (ON_DONE.length) tellings.set(id, tryToTell(id, summarize).finally(() => tellings.delete(id)))
}

/** Whether somebody has yet to be told, or is being told, of the end of a run. */
export const isBeingTold = (id: string) => tellings.has(id)

async function tryToTell(id: string, summarize: (id: string) => Buffer): Promise<void> {
  try {
    await limitTold(() => tell(id, summarize)) // what is said is made then, not kept in the queue: it may have 16 MiB
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    console.error(`run ${id}: ON_DONE=${ON_DONE.join(' ')} failed: ${message}`)
    if (!/^(EMFILE|ENFILE|EAGAIN|ENOMEM)$/.test(String(code))) return
    await sleep(1000) // no descriptor, no memory: that passes
    await tryToTell(id, summarize)
  }
}

async function tell(id: string, summarize: (id: string) => Buffer) {
  stop.signal.throwIfAborted()
  const summary = summarize(id)
  const [command, ...args] = ON_DONE
  // A process group of its own, so that it can be killed with what it has started, and a Ctrl-C does not reach it.
  const child = spawn(command!, args, {
    detached: true, env: { ...process.env, LONGRUN_ID: id }, stdio: ['pipe', 'ignore', 'inherit'],
  })
  const exited = once(child, 'exit') // throws its `error`, too; without a listener that would end this process
  const kill = () => sendSignal(-child.pid!, 'SIGKILL')
  const timer = setTimeout(kill, TELL_TIME)
  stop.signal.addEventListener('abort', kill)
  // Trap: what could not be forked for want of a descriptor has no stdin, whatever its type says.
  child.stdin?.on('error', () => {}) // it need not read
  child.stdin?.end(Buffer.concat([summary, Buffer.from('\n')]))
  try {
    const [code, signal] = await exited
    if (code !== 0) throw new Error(signal ? `killed by ${signal}` : `exit code ${code}`)
  } finally {
    clearTimeout(timer)
    stop.signal.removeEventListener('abort', kill)
  }
}

/** Until all ends are told, for so many milliseconds at most; then those that run are killed, and none is started. */
export async function finishTelling(most: number) {
  await Promise.race([Promise.all(tellings.values()), sleep(most)])
  stop.abort(new Error('the workers server has stopped'))
}
