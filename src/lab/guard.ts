/** The lab's side of its watchdog. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { siblingModule } from './project.ts'

/** What a lab that ends in good order tells its watchdog before it closes the pipe. */
export const farewell = 'done'

/**
 * Starts a watchdog that removes what this process leaves when it ends in whatever way. It is the leader of a session
 * of its own, so a Ctrl-C meant for the lab does not reach it. The result ends it and waits for it.
 */
export function startWatchdog(): () => Promise<void> {
  const script = fileURLToPath(siblingModule('watchdog', import.meta.url))
  const child = spawn(process.execPath, [script, String(process.pid)], {
    detached: true,
    stdio: ['pipe', 'ignore', 'inherit'],
  })
  const exit = once(child, 'exit')
  child.stdin.on('error', () => {})
  return async () => {
    child.stdin.end(farewell)
    await exit
  }
}
