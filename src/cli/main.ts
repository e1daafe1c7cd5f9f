/** Entry point of bpvsadm: the process around run.ts. What needs the kernel is imported when a command needs it. */
import { enableCompileCache } from 'node:module'

enableCompileCache()
const { run } = await import('./run.ts')
const { systemResolver } = await import('./names.ts')

/** A reader that went away (`bpvsadm -L | head -1`) ends the program as SIGPIPE would. */
const brokenPipeStatus = 141

process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error
  process.exit(brokenPipeStatus)
})

process.exitCode = await run(process.argv.slice(2), {
  program: process.env.BPVS_ARGV0 ?? process.argv[1] ?? 'bpvsadm',
  privileged: process.geteuid?.() === 0,
  operations: async () => (await import('./operations.ts')).kernelOperations,
  resolver: systemResolver(),
  stdin: () => process.stdin.setEncoding('utf8'),
  stdout: (text) => void process.stdout.write(text),
  stderr: (text) => void process.stderr.write(text),
})
