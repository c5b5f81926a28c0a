// What a person has chosen, kept for the next visit in the browser's storage. Where that is blocked or full, nothing is
// kept, and nothing breaks; what is found there may have been written by anybody: who asks for it looks at it.

/** @param {string} name @returns {unknown} undefined: nothing that can be read */
export const recall = name => tried(() => JSON.parse(localStorage.getItem(`longrun ${name}`) ?? ''))
/** @param {string} name @param {unknown} value */
export const keep = (name, value) => tried(() => localStorage.setItem(`longrun ${name}`, JSON.stringify(value)))

/** What comes of it; undefined where it throws. @template T @param {() => T} act */
export function tried(act) {
  try {
    return act()
  } catch {
    return undefined
  }
}
