// What the page asks of the web server over HTTP. A call ends with an answer, a refusal with reasons, or no answer at
// all (status 0), also where a proxy speaks in the server's place: the call may have gone through all the same.

import { redraw } from './draw.js'
import { tried } from './kept.js'

/** `why` it is not ok; `retryAfter`: seconds; `isUpload`: it is about a file, which `isUnreadable` perhaps.
 * @typedef {{ ok: boolean, status: number, data: any, why: string, retryAfter: number, isUpload?: boolean,
 *   isUnreadable?: boolean }} Answer */
/** @typedef {import('../remote.ts').Parameter} Parameter */
/** @typedef {{ name: string, description: string, parameters: Parameter[] }} Method */
/** A run in the server's list. @typedef {import('../log.ts').LogState & { id: string, method: string, title?: string,
 *   callId: string, pid: number, started: number, progress?: { current: number, total?: number } }} Listed */

// How long the web server itself waits for the workers server, and some more.
const PATIENCE = { POST: 10_000, GET: 40_000, DELETE: 40_000 }

export let clockAhead = 0 // milliseconds of this computer's clock before the server's, whose times the entries carry

/** @param {'GET' | 'POST' | 'DELETE'} method @param {string} path @param {unknown} [body] @returns {Promise<Answer>} */
export async function request(method, path, body) {
  const sent = { method, headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }
  try {
    const answer = await fetch(path, { ...sent, signal: AbortSignal.timeout(PATIENCE[method]) })
    const ahead = Date.now() - Date.parse(answer.headers.get('date') ?? '')
    clockAhead = Math.abs(ahead) > 2000 ? ahead : 0 // the date is in whole seconds: small differences mean nothing
    return readAnswer(answer.status, await answer.text(), answer.headers.get('retry-after'))
  } catch {
    return readAnswer(0, 'the web server did not answer')
  }
}

/** Uploads with progress, which fetch does not tell. @returns {Promise<Answer>}
 * @param {Blob} file @param {AbortSignal} signal @param {(sent: number, total: number) => void} progress */
export function upload(file, signal, progress) {
  return new Promise(resolve => {
    const request = new XMLHttpRequest()
    request.open('POST', 'files')
    request.setRequestHeader('content-type', 'application/octet-stream')
    request.upload.onprogress = ({ loaded, total }) => { progress(loaded, total); redraw() }
    request.onloadend = async () => {
      const answer = readAnswer(request.status, request.responseText || 'the connection broke off')
      const isUnreadable = () => file.slice(0, 1).arrayBuffer().then(() => false, () => true) // a folder, too
      resolve({ ...answer, isUnreadable: !answer.ok && !signal.aborted && await isUnreadable() })
    }
    signal.addEventListener('abort', () => request.abort(), { once: true })
    request.send(file)
  })
}

/** Our server answers with a list, or what has an id or a file, or with `errors`; a proxy before it, with anything.
 * @param {number} status 0: none @param {string} text @param {string | null} [retryAfter] @returns {Answer} */
function readAnswer(status, text, retryAfter) {
  const data = status === 0 ? undefined : parseJson(text)
  const ok = status >= 200 && status < 300 && Boolean(Array.isArray(data) || data?.id || data?.file)
  const isOurs = ok || Array.isArray(data?.errors) || (status >= 400 && status < 500)
  const why = data?.errors?.join?.('; ') ?? (status === 0 ? text : `the answer has the status ${status}`)
  return { ok, status: isOurs ? status : 0, data, why, retryAfter: Number(retryAfter) || 3 }
}

export const parseJson = (/** @type {string} */ text) => tried(() => JSON.parse(text)) // undefined: it is none

/** The run's id is made here, so that the page can follow the run before it exists. (crypto.randomUUID is missing where
 * the page comes over plain HTTP from another machine.) */
export function makeId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), byte => byte.toString(16).padStart(2, '0')).join('')
}
