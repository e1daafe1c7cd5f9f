/** Stamps: a step is done if its inputs hash to what they were when it last succeeded and its outputs exist. */
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { SetupError } from './exec.mjs'

/**
 * @typedef {object} Step
 * @property {string} name      what the user is told while it runs
 * @property {string} stamp     path of its stamp file
 * @property {readonly string[]} inputs   files whose content matters
 * @property {readonly string[]} outputs  files that must exist
 * @property {string} [salt]    what else matters, such as the command's flags
 * @property {() => void} run   makes the outputs; throws SetupError
 */

/**
 * The files below a folder whose name ends as asked, sorted; none if there is no such folder.
 * @param {string} folder
 * @param {RegExp} name
 * @returns {string[]}
 */
export function filesBelow(folder, name) {
  if (!existsSync(folder)) return []
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true })
  return entries
    .filter((entry) => entry.isFile() && name.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort()
}

/**
 * @param {Step} step
 * @returns {string} hash of names and contents of the inputs
 */
function fingerprint(step) {
  const hash = createHash('sha256').update(step.salt ?? '')
  for (const file of step.inputs) hash.update(`\0${file}\0`).update(readFileSync(file))
  return hash.digest('hex')
}

/**
 * @param {Step} step
 * @returns {boolean} whether there is nothing to do
 */
export function isDone(step) {
  if (!existsSync(step.stamp) || step.outputs.some((file) => !existsSync(file))) return false
  return readFileSync(step.stamp, 'utf8') === fingerprint(step)
}

/**
 * Runs a step and stamps it. The fingerprint is taken before, so an edit meanwhile counts as a change.
 * @param {Step} step
 */
export function perform(step) {
  const before = fingerprint(step)
  try {
    step.run()
  } catch (error) {
    if (error instanceof SetupError) error.message = `${step.name}: ${error.message}`
    throw error
  }
  mkdirSync(dirname(step.stamp), { recursive: true })
  writeFileSync(step.stamp, before)
}
