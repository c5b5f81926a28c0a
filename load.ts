// The module of remote functions, in a process: in the workers server, which answers what can be called, and in each
// task process, which runs the same version or none. Look for: loadFunctions; version; loadModule, by Node or by tsx.

import { createHash } from 'node:crypto'
import { readFileSync, realpathSync, statSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { inspect } from 'node:util'
import { RemoteError } from './protocol.ts'
import { isRemote, type Remote } from './remote.ts'
import { ENDING, TASKS, VERSION } from './settings.ts'

const require = createRequire(import.meta.url)

/** The program of a task process. */
export const TASK_PROGRAM = join(import.meta.dirname, `task${ENDING}`)

/** The remote functions by name, once loaded. A Map: in an object, `toString` would be one that anyone may call. */
export const functions = new Map<string, Remote>()

/**
 * Loads those that the module of TASKS exports, and returns their version. Throws what the module throws, and a
 * RemoteError when there is none, or it exports none, or has changed since the server of this task process was started.
 */
export async function loadFunctions(): Promise<string> {
  const loaded = process.env[VERSION] || version()
  const text = 'the remote functions were changed since the workers server was started: restart it'
  const changed = new RemoteError('failed', text)
  if (loaded !== version()) throw changed
  if (!isSource(TASKS)) throw new RemoteError('failed', `Cannot find module ${TASKS}`)
  if (!process.env[VERSION]) process.once('exit', tellExit) // of a task process, the entry tells that ends its run
  const module = await loadModule(TASKS)
    .catch(error => { throw error instanceof Error ? error : new Error(`it threw ${inspect(error)}`) })
    .finally(() => process.off('exit', tellExit))
  // Trap: of what CommonJS exports, Node finds names by reading its source, and only some; `default` has them all.
  const exported = Object.entries({ ...module, ...module.default })
  for (const [name, value] of exported) if (isRemote(value)) functions.set(name, value)
  const none = `${TASKS} exports no remote function, as in: export const NAME = remote(…)`
  if (!functions.size) throw new RemoteError('failed', none)
  if (loaded !== version()) throw changed // while it was loaded
  return loaded
}

function tellExit() {
  console.error(`longrun: ${TASKS} ended the process while it was loaded, or awaits what never comes`)
  process.exitCode ||= 1
}

const isSource = (path: string) => statSync(path, { throwIfNoEntry: false })?.isFile() === true

const IMPORTED = /\b(?:from|import|require)\s*\(?\s*['"](\.{1,2}\/[^'"]+)['"]/g

/** What loaders add to what is imported. */
const ENDINGS = ['', '.ts', '.js', '.tsx', '.json', '/index.ts', '/index.js']

/** A hash of all sources that a task process loads; what lies in packages does not count, but this one's version. */
function version(): string {
  const hash = createHash('sha256').update(readFileSync(require.resolve('longrun/package.json')))
  const paths = new Set([TASKS, TASK_PROGRAM])
  for (const path of paths) { // those that are added meanwhile, too
    const file = [...ENDINGS.map(ending => path + ending), path.replace(/js$/, 'ts')].find(isSource)
    const source = file ? readFileSync(file, 'utf8') : ''
    hash.update(`${path}\0${source}\0`)
    for (const [, name] of source.matchAll(IMPORTED)) paths.add(resolve(dirname(realpathSync(file!)), name!))
  }
  return hash.digest('hex')
}

// ---- By Node, or by tsx

/** Whether Node strips types itself, as from 22.18 on. */
export const stripsTypes = 'typescript' in process.features && Boolean(process.features.typescript)

// In whatever form it is written. Node loads what it can; what it cannot, tsx does: enums, decorators, paths of a
// tsconfig.json, imports without an ending, `import` in what package.json calls CommonJS; and before 22.18 all
// TypeScript. Throws what the module throws.
async function loadModule(path: string): Promise<Record<string, object>> {
  const { href } = pathToFileURL(path)
  const isCommonJs = path.endsWith('.cts') // of which tsx's `import` makes nothing that runs
  const byNode = isCommonJs && !stripsTypes ? [] : [() => import(href)]
  for (const load of [...byNode, ...stripsTypes ? [] : [() => requireModule(path)]]) {
    try {
      return await load()
    } catch (error) {
      if (!isBeyondNode(error)) throw error
    }
  }
  process.env.TSX_DISABLE_CACHE = '1' // see loader.js
  const { tsImport } = await import('tsx/esm/api')
  // Trap: what Node could not import it does not try again; tsImport gives each module another address.
  return tsImport(href, import.meta.url)
}

function isBeyondNode(error: unknown): boolean {
  const code = String((error as NodeJS.ErrnoException | null)?.code)
  const isNotFound = code.endsWith('MODULE_NOT_FOUND') // of CommonJS, it has no ERR_
  return error instanceof SyntaxError || isNotFound || /^ERR_(UNKNOWN|UNSUPPORTED|REQUIRE)/.test(code)
}

// For modules tsx runs a second thread, see loader.js: so only for what require() cannot load, as it awaits at its top
// level, or imports TypeScript later on.
async function requireModule(path: string): Promise<Record<string, object>> {
  await import('./loader.js')
  const module = require(path)
  const files = Object.keys(require.cache).filter(file => /\.[cm]?ts$/.test(file) && file !== import.meta.filename)
  const isImporting = files.some(file => /\bimport\s*\(/.test(readFileSync(file, 'utf8')))
  if (isImporting) (await import('tsx/esm/api')).register()
  return module
}
