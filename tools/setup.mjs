/**
 * setup.mjs [start|test|build]: makes the checkout ready to run, doing only what is not done yet. `build` is for a machine
 * that the result will not run on: it asks nothing of its kernel. Plain JavaScript without dependencies, for Node 20: it
 * runs before anything is installed. Exit status 1, and one clear line, if it can't.
 */
import { spawnSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { SetupError, say } from './setup/exec.mjs'
import { isDone, perform } from './setup/stamp.mjs'
import { stepGroups } from './setup/steps.mjs'
import { checkSystem, installPackages, missingPackages } from './setup/system.mjs'

/** @typedef {import('./setup/system.mjs').Target} Target */

/**
 * @param {Target} target
 * @returns {boolean} whether nothing is to be done
 */
function isReady(target) {
  return missingPackages(target).length === 0 && stepGroups(target).every((group) => group().every(isDone))
}

/**
 * Does what is to be done. Only one process at a time may.
 * @param {Target} target
 */
function makeReady(target) {
  const missing = missingPackages(target)
  if (missing.length > 0) installPackages(missing)
  for (const group of stepGroups(target)) {
    for (const step of group()) {
      if (isDone(step)) continue
      say(step.name)
      perform(step)
    }
  }
}

/**
 * Runs this program again under a lock, so that two commands at once don't build into each other.
 * @param {string[]} args
 * @returns {number} exit status
 */
function underLock(args) {
  mkdirSync('build', { recursive: true })
  const command = ['--close', 'build/setup.lock', process.execPath, fileURLToPath(import.meta.url), '--locked', ...args]
  const { status, error } = spawnSync('flock', command, { stdio: 'inherit' })
  if (error) throw new SetupError(`can't run flock: ${error.message}`)
  return status ?? 1
}

/**
 * @param {string[]} args
 * @returns {number} exit status
 */
function main(args) {
  process.chdir(fileURLToPath(new URL('..', import.meta.url)))
  const target = args.includes('test') ? 'test' : args.includes('build') ? 'build' : 'start'
  checkSystem(target)
  if (args.includes('--locked')) {
    makeReady(target)
    return 0
  }
  return isReady(target) ? 0 : underLock(args)
}

try {
  process.exitCode = main(process.argv.slice(2))
} catch (error) {
  if (!(error instanceof SetupError)) throw error
  if (error.output !== '') process.stderr.write(`${error.output.trimEnd()}\n`)
  say(error.message)
  process.exitCode = 1
}
