// What README.md and REFERENCE.md say, as far as a program can tell: their commands and blocks are run as they stand there,
// their tables are compared with the program, and what they name has to exist. (Their blocks for Python, Django, nginx,
// systemd and Slurm are run by the tests of those.)

import assert from 'node:assert/strict'
import { execFile, execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { promisify } from 'node:util'
import { App, bareEnvironment, missing, readmeBlocks, ROOT } from './app.ts'
import { ANYWHERE, linesOf } from './readme.ts'

const PAGES = ['README.md', 'REFERENCE.md', 'CONTRIBUTING.md'] as const
const texts = new Map(PAGES.map(name => [name, readFileSync(join(ROOT, name), 'utf8')]))
const [readme, reference] = [texts.get('README.md')!, texts.get('REFERENCE.md')!]
const run = promisify(execFile)

/** The rows of the table whose head begins like this, as texts of their cells. */
function rowsOf(page: string, head: string): string[][] {
  const table = page.slice(page.indexOf(`\n${head}`) + 1).split('\n\n', 1)[0]!
  assert.ok(table.startsWith(head), head)
  return table.trimEnd().split('\n').slice(2).map(row => row.split(' | ').map(cell => cell.replace(/^\| | ?\|$/g, '')))
}

const read = (path: string) => readFileSync(join(ROOT, path), 'utf8')

// ---- What is named

suite('The README', () => {
  test('names no file, script, heading or test that there is not', () => {
    const { scripts } = JSON.parse(read('package.json'))
    for (const [name, text] of texts) {
      for (const [, path, heading, title] of text.matchAll(/\]\(([\w./-]*)(?:#([\w-]+))?(?: "(.*?)")?\)/g)) {
        assert.ok(!path || existsSync(join(ROOT, path)), `${name}: ${path}`)
        if (heading) assert.ok(headingsOf(path || name).includes(heading), `${name}: ${path}#${heading}`)
        if (title) assert.ok(testsOf(path!).some(test => test.test(title)), `${name}: ${path} has no test "${title}"`)
      }
      for (const [, path] of text.matchAll(/`((?:test\/|public\/)?[\w.-]+\.(?:ts|js))`/g)) {
        const places = [path!, `public/${path}`, `test/${path}`].map(place => join(ROOT, place))
        assert.ok(places.some(existsSync) || text.includes(`// ${path}\n`), `${name}: ${path}`)
      }
      for (const [, script] of text.matchAll(/npm run ([\w:-]+)/g)) assert.ok(scripts[script!], `${name}: npm run ${script}`)
    }
  })

  test('tells the rooms in the order in which they build on each other, with their sizes, roughly', () => {
    for (const [room, lines] of rowsOf(readme, '| file | lines |')) {
      const [shown, real] = [Number(lines!.replace(',', '')), linesOf(/\((.*)\)/.exec(room!)![1]!)]
      assert.ok(Math.abs(shown - real) <= Math.max(60, real / 5), `${room}: ${real} lines; npm run readme counts anew`)
    }
    const rooms = rowsOf(readme, '| file | lines |').map(([file]) => /`(.*)`/.exec(file!)![1]!).filter(room => room.endsWith('.ts'))
    assert.deepEqual([...rooms].sort(), readdirSync(ROOT).filter(name => name.endsWith('.ts')).sort())
    for (const room of rooms) {
      const imported = [...read(room).matchAll(/ from '\.\/(.*\.ts)'/g)].map(([, name]) => name!)
      assert.deepEqual(imported.filter(name => rooms.indexOf(name) >= rooms.indexOf(room)), [], `${room} imports what comes later`)
    }
  })

  test('is read in half an hour', () => {
    const unfolded = readme.replace(/<details>[^]*?<\/details>/g, '').split('\n').filter(line => line.trim())
    assert.ok(unfolded.length <= 200, `${unfolded.length} lines`)
  })

  test('knows each bound of the memory by its name and its size', () => {
    for (const [what, bound, , where] of rowsOf(readme, '| what could grow |')) {
      const sizes = [...bound!.replace(/,/g, '').matchAll(/(\d+)(?: ([KM])i)?/g)].map(([, size, unit]) =>
        Number(size) * (unit === 'K' ? 2 ** 10 : unit === 'M' ? 2 ** 20 : 1))
      const [file = '', ...names] = [...(where ?? '').matchAll(/`([\w.]+)`/g)].map(([, name]) => name!).reverse()
      const found = names.map(name => constant(read(file), name)).reverse()
      if (file) assert.deepEqual(found, sizes, what)
    }
  })
})

/** As GitHub makes them. */
const headingsOf = (page: string) => [...read(page).matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
  heading!.toLowerCase().replace(/[^\w -]/g, '').replaceAll(' ', '-'))

/** The names of the tests in a file; where a name has a variable part, anything may stand. */
const testsOf = (file: string) => [...read(file).matchAll(/\btest\(\s*(?:'((?:\\'|[^'])*)'|`([^`]*)`)/g)].map(([, plain, made]) => {
  const parts = plain?.replaceAll("\\'", "'").split('\0') ?? made!.split(/\$\{.*?\}/)
  return new RegExp(`^${parts.map(part => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('.*')}$`)
})

/** What a constant is, from its source. */
function constant(source: string, name: string): unknown {
  const value = new RegExp(`const ${name} = (?:wholeNumber\\('${name}', )?([\\d _*]+)`).exec(source)?.[1]
  return value === undefined ? undefined : Function(`return ${value.replaceAll('_', '')}`)()
}

// ---- Settings

test('the reference names each setting, with its default', () => {
  const rows = rowsOf(reference, '| variable | default |')
  const source = read('settings.ts')
  const named = /(?:process\.env\.|(?:wholeNumber|address|list)\(')([A-Z_]+)/g
  const names = new Set([...source.matchAll(named)].map(([, name]) => name!))
  assert.deepEqual(rows.map(([name]) => name!.replaceAll('`', '')).sort(), [...names].sort())

  const program = `console.log(JSON.stringify(await import('./settings.ts')))`
  const env = { ...bareEnvironment(), ALLOWED_ORIGINS: '' }
  const defaults = JSON.parse(execFileSync(process.execPath, ['--import', 'tsx', '-e', program], { cwd: ROOT, env, encoding: 'utf8' }))
  for (const [variable, shown] of rows) {
    const name = variable!.replaceAll('`', '')
    const isNone = shown === 'none' && (defaults[name] === '' || defaults[name].length === 0)
    const isComputed = name === 'PROCESS_LIMIT' && defaults[name] >= 2
    const value = String(defaults[name]).replace(`${ROOT}/runs/`, 'RUNS/').replace(`${ROOT}/`, '')
    assert.ok(isNone || isComputed || shown!.startsWith(`\`${value}\``), `${name}: ${value}, not ${shown}`)
  }
})

// ---- What is run

suite('What the pages show, as it stands there,', () => {
  const app = new App({ TASKS: join(ROOT, 'tasks.ts') })
  const folder = mkdtempSync(join(tmpdir(), 'longrun-readme-'))
  before(() => app.startBoth())
  after(async () => {
    await app.end()
    rmSync(folder, { recursive: true })
  })

  /** Runs a line of a shell against this app, in the project's folder. */
  async function shell(line: string): Promise<string> {
    const local = line.replaceAll(ANYWHERE, app.url).replaceAll('@public/', `@${ROOT}/public/`)
    return (await run('sh', ['-ec', local], { cwd: folder })).stdout
  }

  test('each route is answered; a run goes from its start to its cancel', { skip: missing('curl') }, async () => {
    const lines = rowsOf(reference, '| route |').map(([route]) => route!.replace(/^`|`$/g, ''))
    const [methods, start, list, show, log, download, cancel, upload, file, health] = lines as [string, string, string, string, string, string, string, string, string, string]
    assert.equal(lines.length, 10)
    assert.deepEqual(JSON.parse(await shell(methods)).map(({ name }: { name: string }) => name).sort(), ['compile', 'importCsv', 'process'])
    assert.equal(JSON.parse(await shell(start)).id, 'first')
    const reader = await app.follow('first')
    await reader.until(({ entries }) => entries.length > 3)
    assert.equal(JSON.parse(await shell(list))[0].id, 'first')
    assert.equal(JSON.parse(await shell(show)).method, 'process')
    assert.equal(JSON.parse(await shell(log))[0].type, 'start')
    assert.deepEqual(JSON.parse(await shell(cancel)), { id: 'first' })
    await reader.done()
    await shell(download)
    assert.equal(readFileSync(join(folder, 'first.ndjson'), 'utf8'), `${reader.lines.join('\n')}\n`)
    const { file: uploaded } = JSON.parse(await shell(upload))
    const imported = await (await app.start('importCsv', [uploaded])).outcome()
    const name = (imported.result as { file: string }).file
    await shell(file.replace('NAME', name))
    assert.ok(existsSync(join(folder, name)))
    assert.equal(JSON.parse(await shell(health)).workers, true)
  })

  test('curl reads a log as a Durable Stream, in each of the three ways', { skip: missing('curl') }, async () => {
    const lines = readmeBlocks('sh').find(block => block.startsWith('curl'))!.trim().split('\n')
    assert.equal(lines.length, 3)
    const following = await app.start('process', [1_000_000, 100], { id: 'second' }) // goes on until it is cancelled
    const [catchUp, poll, events] = lines.map(line => shell(line.replace('first', 'second'))) as [Promise<string>, Promise<string>, Promise<string>]
    assert.equal(JSON.parse(await catchUp)[0].type, 'start')
    assert.ok(JSON.parse(await poll).length > 0)
    await following.cancel()
    assert.match(await events, /"type":"done"[^]*"streamClosed":true/)
    await following.outcome()
  })

  test('the official client of Durable Streams reads a log', async () => {
    const program = readmeBlocks('ts').find(block => block.includes('@durable-streams'))!
    const following = await app.start('process', [3, 10], { id: 'third' })
    const code = program.replaceAll(ANYWHERE, app.url).replace('first', 'third')
    const { stdout } = await run(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', code], { cwd: ROOT })
    const told = stdout.trim().split('\n')
    assert.equal(told.at(-1), 'true')
    assert.deepEqual(told.filter(line => /^\w+ \{/.test(line)).map(line => line.split(' ')[0]), await following.types())
  })

  suite('written by oneself,', () => {
    const own = new App({ TASKS: join(folder, 'greetings.ts'), SPARES: '0' })
    before(() => {
      const source = readmeBlocks('ts').find(block => block.startsWith('// greetings.ts'))!
      const local = source.replace('./remote.ts', join(ROOT, 'remote.ts')).replace('greet.py', join(folder, 'greet.py'))
      writeFileSync(own.env.TASKS!, local)
      writeFileSync(join(folder, 'greet.py'), readmeBlocks('python').find(block => block.startsWith('# greet.py'))!)
      return own.startBoth()
    })
    after(() => own.end())

    async function greets(method: string) {
      const run = await own.start(method, ['Al'])
      const said = (await run.entries()).slice(1, -1).map(({ data }) => JSON.stringify(data))
      assert.deepEqual(said, ['{"msg":"A"}', '{"current":1,"total":2,"unit":"letters"}', '{"msg":"Al"}', '{"current":2,"total":2,"unit":"letters"}'])
      assert.equal((await run.outcome()).result, 'Hello, Al!')
    }

    test('a task of one\'s own can be started, followed, and cancelled', async () => {
      await greets('greet')
      const long = await own.start('greet', ['x'.repeat(100_000)])
      await long.cancel()
      assert.equal((await long.outcome()).outcome, 'cancelled')
    })

    test('a program beside it does the same', { skip: missing('python3') }, () => greets('greetInPython'))
  })
})
