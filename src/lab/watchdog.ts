/**
 * Entry point of the lab's watchdog, a process of its own: waits until the lab's end of the pipe closes, which also a
 * SIGKILL does, and removes what is left of the run. Argument: the lab's pid.
 */
import { text } from 'node:stream/consumers'
import { farewell } from './guard.ts'
import { removeRun } from './namespaces.ts'
import { leave } from './screen.ts'

const lastWord = await text(process.stdin)
await removeRun(Number(process.argv[2]))
if (lastWord !== farewell && process.stderr.isTTY) process.stderr.write(leave)
