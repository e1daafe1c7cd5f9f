/**
 * bundle.mjs <entry.ts> <output.js>: one file of a program and all it imports, because Node takes about a millisecond to
 * find and link each file, and a command line has no time for a hundred. Only what is no JavaScript stays outside.
 */
import { build } from 'esbuild'

const [entry = '', outfile = ''] = process.argv.slice(2)
/** Packages with a library of machine code, which is found from where they are. */
const native = ['koffi']
/** Of these only what is used comes in, though they do not say that the rest may be left out. */
const pruned = ['@kubernetes/client-node']
const resolved = Symbol('resolved')

/**
 * Says of each file of the packages to be pruned that it may be left out.
 * @type {import('esbuild').Plugin}
 */
const pruning = {
  name: 'pruning',
  setup(build) {
    build.onResolve({ filter: /^\./ }, async ({ path, pluginData, resolveDir, importer, kind }) => {
      const prunes = pruned.some((name) => importer.includes(`/node_modules/${name}/`))
      if (pluginData === resolved || !prunes) return undefined
      const found = await build.resolve(path, { resolveDir, importer, kind, pluginData: resolved })
      return { ...found, sideEffects: false }
    })
  },
}

// Packages in CommonJS ask for Node's own modules by require(), and for where they are.
const names = {
  require: 'requirer(import.meta.url)',
  __filename: 'import.meta.filename',
  __dirname: 'import.meta.dirname',
}
const constants = Object.entries(names).map(([name, value]) => `${name} = ${value}`)
await build({
  entryPoints: [entry],
  outfile,
  bundle: true,
  platform: 'node',
  target: 'node24',
  format: 'esm',
  logLevel: 'warning',
  external: native,
  plugins: [pruning],
  banner: { js: `import { createRequire as requirer } from 'node:module'; const ${constants.join(', ')};` },
})
