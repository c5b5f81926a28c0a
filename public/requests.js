// What the page asks of the web server over HTTP. Every call ends in one of three ways, and the page
// shows them differently: an answer, a refusal with reasons, or no answer at all (status 0).

/** @typedef {{ ok: true, status: number, data: any }} Given */
/** @typedef {{ ok: false, status: number, errors: string[], retryAfter: number }} Refused */
/** @typedef {Given | Refused} Answer */
/** @typedef {{ name: string, type: string, description: string, default?: unknown, min?: number,
 *   max?: number }} Parameter */
/** @typedef {{ name: string, description: string, parameters: Parameter[] }} Method */
/** A run in the server's list.
 * @typedef {{ id: string, method: string, title?: string, callId: string, pid: number, started: number, size: number,
 *   outcome?: string, seconds?: number }} Listed */

const PATIENCE = 10_000 // the web server itself gives up on the workers server after about three seconds

/** How far this computer's clock is ahead of the server's, whose times the entries carry. */
export let clockAhead = 0

/** @param {'GET' | 'POST' | 'DELETE'} method @param {string} path @param {unknown} [body] @returns {Promise<Answer>} */
export async function request(method, path, body) {
  const headers = { 'content-type': 'application/json' }
  const sent = body === undefined ? {} : { body: JSON.stringify(body), headers }
  try {
    const answer = await fetch(path, { method, ...sent, signal: AbortSignal.timeout(PATIENCE) })
    setClock(answer.headers.get('date'))
    return readAnswer(answer.status, await answer.text(), answer.headers.get('retry-after'))
  } catch (error) {
    return noAnswer(String(error))
  }
}

/** Uploads with progress, which fetch does not tell.
 * @param {Blob} file @param {AbortSignal} signal @param {(sent: number, total: number) => void} progress
 * @returns {Promise<Answer>} */
export function upload(file, signal, progress) {
  return new Promise(resolve => {
    const request = new XMLHttpRequest()
    request.open('POST', 'files')
    request.setRequestHeader('content-type', 'application/octet-stream')
    request.upload.onprogress = ({ loaded, total }) => progress(loaded, total)
    request.onload = () => resolve(readAnswer(request.status, request.responseText, null))
    request.onerror = () => resolve(noAnswer('the connection broke off'))
    request.onabort = () => resolve(noAnswer('stopped'))
    signal.addEventListener('abort', () => request.abort(), { once: true })
    request.send(file)
  })
}

/** @param {number} status @param {string} text @param {string | null} retryAfter @returns {Answer} */
function readAnswer(status, text, retryAfter) {
  if (status === 401) location.reload() // the token has changed: what the server gives instead of the page asks for it
  const data = parseJson(text)
  if (status >= 200 && status < 300) return { ok: true, status, data }
  const errors = Array.isArray(data?.errors) ? data.errors.map(String) : [`the server answered with status ${status}`]
  return { ok: false, status, errors, retryAfter: Number(retryAfter) || 1 }
}

/** A proxy in between may answer with a page of its own. @param {string} text */
function parseJson(text) {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** @param {string} error @returns {Refused} */
const noAnswer = error => ({ ok: false, status: 0, errors: [error], retryAfter: 1 })

/** @param {string | null} date in whole seconds, so small differences mean nothing */
function setClock(date) {
  const ahead = date ? Date.now() - Date.parse(date) : 0
  clockAhead = Math.abs(ahead) > 2000 ? ahead : 0
}

/** The run's id is made here, so that the page can follow the run before it exists. */
export function makeId() {
  if (crypto.randomUUID) return crypto.randomUUID()
  // missing where the page comes over plain HTTP from another machine
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), byte => byte.toString(16).padStart(2, '0')).join('')
}
