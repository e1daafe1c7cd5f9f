/**
 * bundle.mjs <entry.ts> <output.js> [package...]: one file of a program and all it imports, because Node takes about a
 * millisecond to find and link each file, and a command line has no time for a hundred. Packages stay outside, but for
 * those named: of these only what is used comes in, though they do not say that the rest may be left out.
 */
import { build } from 'esbuild'

const [entry = '', outfile = '', ...inside] = process.argv.slice(2)
const resolved = Symbol('resolved')

/**
 * Leaves packages outside that our own sources import, but for those named, whose files may each be left out.
 * @type {import('esbuild').Plugin}
 */
const pruned = {
  name: 'pruned',
  setup(build) {
    build.onResolve({ filter: /^[^./]/ }, ({ path, importer }) => {
      return importer.includes('/node_modules/') || inside.includes(path) ? undefined : { path, external: true }
    })
    build.onResolve({ filter: /^\./ }, async ({ path, pluginData, resolveDir, importer, kind }) => {
      const prunes = inside.some((name) => importer.includes(`/node_modules/${name}/`))
      if (pluginData === resolved || !prunes) return undefined
      const found = await build.resolve(path, { resolveDir, importer, kind, pluginData: resolved })
      return { ...found, sideEffects: false }
    })
  },
}

// Packages in CommonJS ask for Node's own modules by require().
const require = "import { createRequire as requirer } from 'node:module'; const require = requirer(import.meta.url);"
await build({
  entryPoints: [entry],
  outfile,
  bundle: true,
  platform: 'node',
  target: 'node24',
  format: 'esm',
  logLevel: 'warning',
  ...(inside.length > 0 ? { plugins: [pruned], banner: { js: require } } : { packages: 'external' }),
})
