/**
 * bundle.mjs <entry.ts> <output.js>: one file of a program and all it imports, because Node takes about a millisecond to
 * find and link each file, and a command line has no time for a hundred. Packages stay outside.
 */
import { build } from 'esbuild'

const [entry = '', outfile = ''] = process.argv.slice(2)
await build({
  entryPoints: [entry],
  outfile,
  bundle: true,
  platform: 'node',
  target: 'node24',
  format: 'esm',
  packages: 'external',
  logLevel: 'warning',
})
