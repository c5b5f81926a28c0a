// A run in anybody's page: a bar, what was said last, Cancel, and how it ended. It has no style of its own: see ::part.

import { follow } from './follow.js'

class LongrunRun extends HTMLElement {
  static observedAttributes = ['server', 'run', 'key']
  #bar = document.createElement('progress')
  #words = document.createElement('output')
  #cancel = Object.assign(document.createElement('button'), { type: 'button', textContent: 'Cancel', hidden: true })
  #shown = { run: '', next: 0, said: '', isDone: false } // a run of a server, how far it is shown, what it said last
  #followed = '' // that run, and by which key; nothing while this element is in no document
  #stop = () => {}

  constructor() {
    super()
    ;[this.#bar.part, this.#words.part, this.#cancel.part] = ['bar', 'words', 'cancel']
    this.attachShadow({ mode: 'open' }).append(this.#bar, ' ', this.#words, ' ', this.#cancel)
  }

  // Attributes are set one by one, and who moves an element removes it: what counts is how it is after all of that.
  connectedCallback() { queueMicrotask(() => this.#update()) }
  disconnectedCallback() { this.connectedCallback() }
  attributeChangedCallback() { this.connectedCallback() }

  #update() {
    const [server = '', id = '', key = ''] = LongrunRun.observedAttributes.map(name => this.getAttribute(name) ?? '')
    const [url, run] = [new URL(server || './', this.baseURI), `${server} ${id}`]
    const followed = this.isConnected && id ? `${run} ${key}` : ''
    if (followed === this.#followed) return
    this.#followed = followed
    this.#stop()
    if (followed && run !== this.#shown.run) {
      this.#shown = { run, next: 0, said: 'Waiting', isDone: false }
      this.#bar.removeAttribute('value') // it moves, and nobody knows how far it is
    }
    this.#cancel.hidden = !followed || this.#shown.isDone
    if (this.#cancel.hidden) return
    const say = (/** @type {string} */ words) => { if (!this.#shown.isDone) this.#words.value = words }
    this.#stop = follow(url, id, (entries, next) => this.#show(entries, next), {
      key, next: this.#shown.next, refuse: words => { this.#cancel.hidden = true; say(words) },
      tell: ({ live, stranger }) => say(live ? this.#shown.said : stranger ? 'Load this page anew' : 'Connecting'),
    })
    this.#cancel.onclick = () => fetch(new URL(`tasks/${id}${key && `?key=${key}`}`, url), { method: 'DELETE' })
      .then(({ ok }) => ok, () => false).then(ok => say(ok ? 'Cancelling' : 'Not cancelled: try again'))
  }

  /** @param {{ type: string, data: any }[]} entries @param {number} next */
  #show(entries, next) {
    const [bar, shown, last] = [this.#bar, this.#shown, entries.at(-1)]
    for (const { type, data } of entries) {
      const isPart = [data?.current, data?.total].every(Number.isFinite) && data.total > 0
      if (type !== 'progress') shown.said = type === 'start' ? shown.said : wordsOf(type, data)
      else if (isPart) [bar.max, bar.value] = [data.total, data.current]
      else bar.removeAttribute('value')
    }
    Object.assign(shown, { next, isDone: last?.type === 'done' })
    if (shown.isDone) bar.value = last?.data.outcome === 'ok' ? bar.max : bar.value // it does not move any more
    ;[this.#words.value, this.#cancel.hidden] = [shown.said, shown.isDone]
    this.dispatchEvent(new CustomEvent('entries', { bubbles: true, detail: entries }))
    if (shown.isDone) this.dispatchEvent(new CustomEvent('done', { bubbles: true, detail: last?.data }))
  }
}

function wordsOf(/** @type {string} */ type, /** @type {any} */ data) {
  const end = type === 'done' && [...new Set([data.outcome, data.reason ?? data.outcome])].join(': ')
  const said = end || (data?.msg ?? data?.name ?? data) // a program's may have colours
  return `${typeof said === 'string' ? said : JSON.stringify(said)}`.replace(/\x1b\[[ -?]*[@-~]/g, '').slice(0, 500)
}

if (!customElements.get('longrun-run')) customElements.define('longrun-run', LongrunRun)
