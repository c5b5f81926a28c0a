// How anything gets onto the screen: state changes at any rate, and is drawn at most once a frame.
// Whoever changes something calls redraw(); what is drawn is found once and changed in place.

/** @type {(() => void)[]} */
const pictures = []
/** @type {(() => void)[]} */
const afterwards = []
const channel = new MessageChannel()
let asked = false

/** What a person sees: drawn only while the page is visible. @param {() => void} draw */
export function picture(draw) {
  pictures.push(draw)
}

/** What must also happen in a background tab: acknowledgements, title. @param {() => void} job */
export function afterDrawing(job) {
  afterwards.push(job)
}

export function redraw() {
  if (asked) return
  asked = true
  // A background tab gets no frames, and its timers are slowed to one a minute in the end. Waiting
  // for either would stop the acknowledgements, and with them the run's messages. A message channel
  // is not slowed.
  if (document.hidden) channel.port1.postMessage('')
  else requestAnimationFrame(drawAll)
}

function drawAll() {
  asked = false
  if (!document.hidden) for (const draw of pictures) draw()
  for (const job of afterwards) job()
}

channel.port2.onmessage = drawAll
document.addEventListener('visibilitychange', () => {
  asked = false // a frame asked for before the tab was hidden may never come
  redraw()
})

/** The element with this id, which stands in index.html.
 * @template {Element} T @param {string} id @param {new () => T} kind @returns {T} */
export function element(id, kind) {
  const found = document.getElementById(id)
  if (!(found instanceof kind)) throw new Error(`index.html has no ${kind.name} with the id ${id}`)
  return found
}

/** Changes a text only when it differs: writing the same text again would end a selection.
 * @param {Element} target @param {string} text */
export function put(target, text) {
  if (target.textContent !== text) target.textContent = text
}

/** @template {keyof HTMLElementTagNameMap} K @param {K} name @param {string} [className] @param {string} [text] */
export function make(name, className, text) {
  const made = document.createElement(name)
  if (className) made.className = className
  if (text) made.textContent = text
  return made
}
