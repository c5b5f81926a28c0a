import { follow } from './follow.js'
export { follow }
