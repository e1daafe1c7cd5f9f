/** The build as steps, in their order. Every path is relative to the checkout. */
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, symlinkSync } from 'node:fs'
import { release } from 'node:os'
import { basename, dirname, relative } from 'node:path'
import { mustRun, run, SetupError } from './exec.mjs'
import { filesBelow } from './stamp.mjs'
import { multiarch } from './system.mjs'

/** @typedef {import('./stamp.mjs').Step} Step */

const NODE_LINK = 'build/bin/node'
const OLDEST_NODE = 24

/**
 * The environment for npm: without the folders that npm is about to replace.
 * @returns {NodeJS.ProcessEnv}
 */
function npmEnvironment() {
  const path = (process.env.PATH ?? '').split(':').filter((folder) => !folder.endsWith('node_modules/.bin'))
  return { ...process.env, PATH: path.join(':') }
}

/** @returns {Step} installs the npm packages exactly as locked */
function npmPackages() {
  return {
    name: 'installing npm packages',
    stamp: 'node_modules/.bpvs-stamp',
    inputs: ['package-lock.json', '.npmrc'],
    outputs: ['node_modules'],
    run: () => mustRun('npm', ['ci', '--no-audit', '--no-fund'], { env: npmEnvironment() }),
  }
}

/** @returns {string} path of a Node that is new enough: the one among the npm packages, else the machine's */
function findNode() {
  const packaged = `node_modules/node-linux-${process.arch}/bin/node`
  if (existsSync(packaged)) return relative(dirname(NODE_LINK), packaged)
  if (Number.parseInt(process.versions.node, 10) >= OLDEST_NODE) return process.execPath
  throw new SetupError(
    `Node ${OLDEST_NODE} is needed, this is ${process.version}, and npm has not installed ${packaged}`,
  )
}

/** @returns {Step} points build/bin/node to the Node that runs everything */
function nodeLink() {
  return {
    name: 'choosing Node',
    stamp: 'build/stamps/node',
    inputs: ['package-lock.json'],
    outputs: [NODE_LINK],
    run: () => {
      mkdirSync(dirname(NODE_LINK), { recursive: true })
      rmSync(NODE_LINK, { force: true })
      symlinkSync(findNode(), NODE_LINK)
    },
  }
}

/** @returns {Step} asks the kernel for every feature that the programs use */
function kernelProbe() {
  const source = 'tools/setup/probe.c'
  return {
    name: 'probing the kernel',
    stamp: 'build/stamps/probe',
    inputs: [source],
    outputs: [],
    salt: `${release()} ${readFileSync('/proc/sys/kernel/random/boot_id', 'utf8')}`,
    run: () => {
      mkdirSync('build', { recursive: true })
      mustRun('gcc', ['-O1', '-Wall', '-Wextra', '-Werror', '-o', 'build/probe', source, '-lbpf', '-lelf', '-lz'])
      const { status, output } = run('build/probe', [])
      if (status !== 0) throw new SetupError(`this kernel (${release()}) ${output.trim().split('\n').join(', ')}`)
    },
  }
}

/**
 * @param {string} source
 * @returns {Step} compiles one BPF program
 */
function bpfObject(source) {
  const output = `build/bpf/${basename(source, '.c')}.o`
  const flags = ['-O2', '-g', '-mcpu=v3', '-target', 'bpf', '-Wall', '-Wextra', '-Werror', '-Ibpf']
  const args = [...flags, `-I/usr/include/${multiarch()}`, '-c', source, '-o', output]
  return {
    name: `compiling ${source}`,
    stamp: `build/stamps/${basename(output)}`,
    inputs: [source, ...filesBelow('bpf', /\.h$/)],
    outputs: [output],
    salt: args.join(' '),
    run: () => {
      mkdirSync(dirname(output), { recursive: true })
      mustRun('clang-19', args)
    },
  }
}

/**
 * @returns {Step} links native/ with libbpf, of which koffi calls functions by name. Debian's libbpf.a is not position
 * independent, so it can't be part of a shared library. No -Ibpf: bpf/sched.h would pass for the system's sched.h.
 * Never unloaded (nodelete): at the end of a process a thread of a watch may still be in its code.
 */
function nativeLibrary() {
  const sources = filesBelow('native', /\.c$/).filter((file) => dirname(file) === 'native')
  const output = 'build/native/libbpvs.so'
  const flags = ['-shared', '-fPIC', '-O2', '-g', '-Wall', '-Wextra', '-Werror', '-Inative', '-pthread']
  const libbpf = ['-Wl,--no-as-needed', '-lbpf']
  const args = [...flags, ...sources, ...libbpf, '-Wl,--no-undefined,-z,nodelete', '-o', `${output}.new`]
  return {
    name: 'compiling native/',
    stamp: 'build/stamps/native',
    inputs: [...sources, ...filesBelow('native', /\.h$/), ...filesBelow('bpf', /\.h$/)],
    outputs: [output],
    salt: args.join(' '),
    run: () => {
      mkdirSync(dirname(output), { recursive: true })
      mustRun('gcc', args)
      renameSync(`${output}.new`, output)
    },
  }
}

/** @returns {Step} compiles src/ to dist/; types are checked by the tests, not here */
function javascript() {
  const fresh = 'dist.new'
  return {
    name: 'compiling src/',
    stamp: 'build/stamps/dist',
    inputs: [
      'tsconfig.json',
      'tsconfig.build.json',
      'package-lock.json',
      'tools/bundle.mjs',
      ...filesBelow('src', /\.ts$/),
    ],
    outputs: ['dist'],
    run: () => {
      rmSync(fresh, { recursive: true, force: true })
      mustRun(NODE_LINK, ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.build.json', '--outDir', fresh])
      mustRun(NODE_LINK, ['tools/bundle.mjs', 'src/cli/main.ts', `${fresh}/bundle/bpvsadm.js`])
      mustRun(NODE_LINK, ['tools/bundle.mjs', 'src/main.ts', `${fresh}/bundle/bpvsd.js`])
      mustRun(NODE_LINK, ['tools/bundle.mjs', 'src/sync/main.ts', `${fresh}/bundle/bpvs-sync.js`])
      rmSync('dist', { recursive: true, force: true })
      renameSync(fresh, 'dist')
    },
  }
}

/**
 * The steps in their order, in groups: a group is made when the ones before it are done, for what they make can be
 * its input.
 * @param {import('./system.mjs').Target} target
 * @returns {readonly (() => Step[])[]}
 */
export function stepGroups(target) {
  return [
    () => [npmPackages()],
    () => [nodeLink()],
    () => (target === 'build' ? [] : [kernelProbe()]),
    () => filesBelow('bpf', /\.bpf\.c$/).map(bpfObject),
    () => [nativeLibrary()],
    () => [javascript()],
  ]
}
