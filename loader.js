// What lets Node run our TypeScript, on every version: `node --import ./loader.js workers.ts`. From 22.18 on, Node
// strips types itself, and nothing is loaded here; before that tsx does it.
// Trap, code of somebody else's: what tsx has transformed it keeps in the system's temporary folder, and it runs what
// lies there, whoever has put it there. So it keeps nothing; or, as a task process has to start fast, keeps it where
// Node does the same, which is in RUNS.

if (!('typescript' in process.features && process.features.typescript)) {
  const { LONGRUN_VERSION: isTask, NODE_COMPILE_CACHE: folder, TMPDIR } = process.env
  process.env.TSX_DISABLE_CACHE = folder ? '' : '1'
  if (folder) process.env.TMPDIR = folder
  // For a task process not the whole of it: that runs a second thread for `import`, and from its fork until it is ready
  // 240 ms would pass, not 150.
  await import(isTask ? 'tsx/cjs' : 'tsx')
  if (TMPDIR === undefined) delete process.env.TMPDIR
  else process.env.TMPDIR = TMPDIR
}
