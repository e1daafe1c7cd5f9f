/**
 * bundle.mjs <entry.ts> <output.js>: one file of a program and all it imports, because Node takes about a millisecond to
 * find and link each file, and a command line has no time for a hundred. Only what is no JavaScript stays outside.
 */
import { isBuiltin } from 'node:module'
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

/**
 * Has Node's own modules taken from Node as they are. An import statement makes Node read each of their members, and some of them
 * load what nobody here uses: of http, https and tls that is 60 ms.
 * @type {import('esbuild').Plugin}
 */
const builtins = {
  name: 'builtins',
  setup(build) {
    build.onResolve({ filter: /^[a-z]/ }, ({ path, kind }) => {
      const isOurs = kind === 'import-statement' && isBuiltin(path)
      return isOurs ? { path, namespace: 'builtin', sideEffects: false } : undefined
    })
    build.onLoad({ filter: /^/, namespace: 'builtin' }, ({ path }) => {
      const names = Object.keys(process.getBuiltinModule(path) ?? {}).filter((name) => name !== 'default')
      const members = names.map((name) => `const $${name} = /* @__PURE__ */ member('${name}')`)
      const head = `const own = process.getBuiltinModule('${path}'), member = (name) => own[name]`
      const list = names.map((name) => `$${name} as ${name}`)
      return { contents: [head, ...members, `export { own as default, ${list.join(', ')} }`].join('\n') }
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
  plugins: [builtins, pruning],
  banner: { js: `import { createRequire as requirer } from 'node:module'; const ${constants.join(', ')};` },
})
