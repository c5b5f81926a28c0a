// Who gets in: a page of ours, a program with the token, or a page of somebody else's web application that may see one
// run, by its key; and what the others are told. Functions of a request's path, query and headers. Look for: admit.

import { createHash, createHmac, timingSafeEqual } from 'node:crypto'
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import { isIP } from 'node:net'
import { networkInterfaces } from 'node:os'
import { isId } from './log.ts'
import { BusyError, RemoteError, TimeoutError } from './protocol.ts'
import { ALLOWED_HOSTS, ALLOWED_ORIGINS, HOST, TOKEN } from './settings.ts'

export type Asked = { path: string; query: URLSearchParams; headers: IncomingHttpHeaders }

/** What a request says of itself. The path as it came: never decoded or resolved, so none can lead elsewhere. */
export function unpackAsked({ url = '', headers }: IncomingMessage): Asked {
  // Who takes us for a proxy asks for a whole address (RFC 9112, 3.2.2): it may say what the Host does, and no more.
  const asked = url.replace(/^http:\/\/([^/?]+)\/?/i, (address, host) => host === headers.host ? '/' : address)
  const [path = ''] = asked.split('?', 1)
  return { path, query: new URLSearchParams(asked.slice(path.length)), headers }
}

/** An answer other than success: the message is for the user. */
export class HttpError extends Error {
  readonly status: number
  readonly headers: Record<string, string>
  constructor(status: number, message: string, headers: Record<string, string> = {}) {
    super(message)
    this.status = status
    this.headers = headers
  }
}

/** What somebody may see who was let in: one run, or everything. `cookie` lets a browser in from now on. */
export type Pass = { run?: string; cookie?: string }

/** Lets a request in, or says why not. `hosts`: the names of this server, see `ownHosts`. */
export function admit(asked: Asked, hosts: Set<string>): Pass | HttpError {
  const { path, query, headers } = asked
  const stranger = checkHost(headers, hosts)
  if (stranger) return stranger
  if (MODULES.includes(path)) return {}
  const run = runOf(asked)
  const { origin } = headers
  const isForeign = origin !== undefined && !hosts.has(/^https?:\/\/(.+)$/.exec(origin)?.[1] ?? '')
  if (isForeign && !isShared(asked)) return foreignPage(origin)
  if (!TOKEN) return {}
  const cookie = cookieFor(asked)
  if (cookie) return { cookie }
  const key = query.get('key')
  // Trap, the cookie of the same site: a browser sends it from pages on all ports and subdomains of ours, too, whatever
  // SameSite says. So a page of another origin gets in by a key alone.
  if (run !== undefined && (key !== null || isForeign)) {
    if (key === null) return unauthorized('the key of that run is needed: ?key=KEY')
    return isSame(key, keyOf(run)) ? { run } : unauthorized('this is not the key of that run')
  }
  return hasToken(headers) ? {} : unauthorized('a token is needed: Authorization: Bearer TOKEN, or open /?token=TOKEN')
}

const unauthorized = (message: string) => new HttpError(401, message, { 'WWW-Authenticate': 'Bearer' })

// ---- Names

/** Whether HOST can be reached from this machine alone. */
export const isLoopback = HOST === 'localhost' || HOST === '::1' || /^127\./.test(HOST) && isIP(HOST) === 4

/** The names of this server, HOST first. Others are those of foreign pages, made to lead here (DNS rebinding). */
export function ownHosts(port: number): Set<string> {
  const isEverywhere = HOST === '0.0.0.0' || HOST === '::'
  const local = isLoopback || isEverywhere ? ['localhost', '127.0.0.1', '::1'] : []
  const all = isEverywhere ? Object.values(networkInterfaces()).flatMap(found => found ?? []) : []
  const names = [HOST, ...local, ...all.map(({ address }) => address)]
  const hosts = names.map(name => `${isIP(name) === 6 ? `[${name}]` : name}${port === 80 ? '' : `:${port}`}`)
  return new Set([...hosts, ...ALLOWED_HOSTS].map(host => host.toLowerCase()))
}

function checkHost({ host }: IncomingHttpHeaders, hosts: Set<string>): HttpError | undefined {
  if (host === undefined) return new HttpError(400, 'a Host is needed')
  if (hosts.has(host.toLowerCase())) return undefined
  const mend = `if this is its name behind a proxy, set ALLOWED_HOSTS=${shown(host)}`
  return new HttpError(403, `this server does not answer to the Host ${shown(host)}: ${mend}`)
}

function foreignPage(origin: string): HttpError {
  if (ALLOWED_ORIGINS.includes(origin)) {
    return new HttpError(403, `pages of ${shown(origin)} may only follow, cancel and download runs, each by its key`)
  }
  const name = /^https?:\/\/([\w.:[\]-]+)$/.exec(origin)?.[1]
  const mend = `: if this is the server's own name behind a proxy, set ALLOWED_HOSTS=${name}; `
    + `if its pages follow runs by key, set ALLOWED_ORIGINS=${origin}`
  return new HttpError(403, `requests from pages of ${shown(origin)} are refused${name ? mend : ''}`)
}

const shown = (text: string) => text.slice(0, 100)

// ---- The token

/** In constant time: how long a comparison takes would tell how much of a guess was right. */
const isSame = (given: string, right: string) => timingSafeEqual(sha256(given), sha256(right))

export const sha256 = (text: string | Buffer) => createHash('sha256').update(text).digest()

// Trap: cookies know no ports. A second server on this host, with another token, is sent this one, too; if its own had
// the same name, each would log the other's users out.
const COOKIE = `longrun-${sha256(`cookie ${TOKEN}`).toString('hex', 0, 4)}`

function hasToken({ authorization = '', cookie = '' }: IncomingHttpHeaders): boolean {
  const bearer = /^Bearer (.+)$/i.exec(authorization)?.[1]
  const own = cookie.split('; ').find(pair => pair.startsWith(`${COOKIE}=`))?.slice(COOKIE.length + 1)
  return [bearer, own].some(given => isSame(given ?? '', TOKEN))
}

/** For a browser that opens `/?token=TOKEN`; undefined when that is not the token. */
function cookieFor({ path, query, headers }: Asked): string | undefined {
  // Trap: in a query, + stands for a blank. A token has none, so what was typed as + is meant.
  const given = query.get('token')?.replaceAll(' ', '+')
  if (path !== '/' || !isSame(given ?? '', TOKEN)) return undefined
  const [proto] = String(headers['x-forwarded-proto']).split(',') // of several proxies, the first saw the browser
  const secure = proto!.trim().toLowerCase() === 'https' ? '; Secure' : ''
  // Out of reach of scripts and of other sites; without a Path, it stays below the path at which a proxy shows us.
  return `${COOKIE}=${TOKEN}; HttpOnly; SameSite=Strict${secure}`
}

/**
 * A page that asks a person for the token, made of a form and its style, and takes the run of the address along. A
 * wrong token does not stay in the address, and so in the history: the page is loaded anew without it.
 */
export function tokenForm({ path, query }: Asked, form: string, style: string) {
  const run = query.get('run')
  const field = isId(run) ? `<input type="hidden" name="run" value="${run}">` : ''
  const isWrong = path === '/' && query.has('token')
  const wrong = isWrong ? '<p role="alert">This is not the token of this server.</p>' : ''
  const up = '../'.repeat(path.split('/').length - 2) || './' // from this path to the page
  const body = form.replace('action="./"', `action="${up}"`).replace('</form>', `${field}${wrong}</form>`)
    .replace('<link rel="stylesheet" href="token.css">', `<style>${style}</style>`) // which is not given by itself
  const hash = sha256(style).toString('base64')
  const policy = HEADERS['Content-Security-Policy'].replace("style-src 'self'", `style-src 'sha256-${hash}'`)
  const again = isWrong && query.get('token') ? { Refresh: `0; url=./?token${field && `&run=${run}`}` } : {}
  return { body, headers: { 'Content-Type': 'text/html; charset=utf-8', 'Content-Security-Policy': policy, ...again } }
}

// ---- The key of a run

const MODULES = ['/follow.js', '/longrun-run.js'] // they follow runs: pages of all origins may have them

/** The key of a run, which lets its holder see that run alone. Nothing is stored: whoever has the token can make it. */
export const keyOf = (id: string) => createHmac('sha256', TOKEN).update(id).digest('hex')

/** The run that is asked for: all that its key opens. */
function runOf({ path, query }: Asked): string | undefined {
  if (path === '/log') return query.get('run') ?? undefined // the WebSocket
  const ofTask = /^\/tasks\/([\w-]{1,64})(?:\/log|\/log\.ndjson)?$/.exec(path)
  return (ofTask ?? /^\/files\/([\w-]{1,64})\.\w+$/.exec(path))?.[1]
}

/** Whether a page of another origin may ask for this, with a key. */
const isShared = (asked: Asked) =>
  runOf(asked) !== undefined && ALLOWED_ORIGINS.includes(asked.headers.origin ?? '')

// ---- What a browser may do with an answer

/** Of every answer. */
export const HEADERS = {
  'Content-Security-Policy': "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    + "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Cache-Control': 'no-store',
  Vary: 'Origin',
}

/** What a script of another origin may read of an answer. */
const EXPOSED = 'Stream-Next-Offset, Stream-Up-To-Date, Stream-Closed, Stream-Cursor, ETag, Content-Range, '
  + 'Content-Disposition, Retry-After'

/** Headers that let a page of another origin read an answer, if it may. `pass`: what `admit` has said. */
export function corsHeaders(asked: Asked, pass: Pass | HttpError): Record<string, string> {
  if (MODULES.includes(asked.path)) {
    return { 'Access-Control-Allow-Origin': '*', 'Cross-Origin-Resource-Policy': 'cross-origin' }
  }
  if (isShared(asked)) {
    return { 'Access-Control-Allow-Origin': asked.headers.origin!, 'Access-Control-Expose-Headers': EXPOSED }
  }
  // Trap: a page cannot tell a refusal that it may not read from a server that is not there, and would try for ever.
  const isRefused = pass instanceof HttpError && runOf(asked) !== undefined
  return isRefused ? { 'Access-Control-Allow-Origin': '*' } : {}
}

/** For a browser that asks beforehand what a page of another origin may send; undefined when it may nothing. */
export function preflightHeaders(asked: Asked): Record<string, string> | undefined {
  return isShared(asked) ? {
    'Access-Control-Allow-Methods': 'GET, HEAD, DELETE',
    'Access-Control-Allow-Headers': 'If-None-Match, If-Range, Range',
    'Access-Control-Max-Age': '600',
  } : undefined
}

// ---- Refusals

const STATUS = { unknown: 404, conflict: 409, failed: 500, invalid: 400 }

/** What a caller is told of an error. */
export function toHttpError(error: unknown): HttpError {
  if (error instanceof HttpError) return error
  if (error instanceof RemoteError) return new HttpError(STATUS[error.kind], error.message)
  if (error instanceof BusyError) return new HttpError(503, error.message, { 'Retry-After': '1' })
  if (error instanceof TimeoutError) return new HttpError(504, error.message)
  const { code = '', message } = error as NodeJS.ErrnoException
  if (/^E[MN]FILE$/.test(code)) return new HttpError(503, 'too many connections are open', { 'Retry-After': '1' })
  if (/^(ENOSPC|EDQUOT|EFBIG)$/.test(code)) return new HttpError(507, 'there is no space left for the file')
  if (!/^(ERR_STREAM_PREMATURE_CLOSE|ECONNRESET)$/.test(code)) console.error(error)
  return new HttpError(500, message)
}
