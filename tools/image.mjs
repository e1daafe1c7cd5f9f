/**
 * image.mjs <directory>: lays out, in a new directory, what a container image has of bpvs: /opt/bpvs as a checkout that
 * has been built, of which only what runs is there, and the commands in /usr/local/bin under their own names and those
 * that they stand in for. The checkout must have been built (setup.mjs build).
 */
import { copyFileSync, cpSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** Where it is in the image. */
const home = 'opt/bpvs'
/** What the commands read: programs, libraries, the version. */
const files = [
  'LICENSE',
  'package.json',
  'build/bpf/bare.bpf.o',
  'build/bpf/clock.bpf.o',
  'build/bpf/lb.bpf.o',
  'build/bpf/sock.bpf.o',
  'build/native/libbpvs.so',
  ...['bpvsadm', 'bpvsd', 'bpvs-sync'].map((name) => `dist/bundle/${name}.js`),
  ...['bpvsadm', 'bpvsadm-restore', 'bpvsadm-save', 'bpvsd'].map((name) => `bin/${name}`),
]
/** Names of commands: what they are called as, and what they are. */
const commands = {
  bpvsd: 'bpvsd',
  'kube-proxy': 'bpvsd',
  bpvsadm: 'bpvsadm',
  'bpvsadm-save': 'bpvsadm-save',
  'bpvsadm-restore': 'bpvsadm-restore',
  ipvsadm: 'bpvsadm',
  'ipvsadm-save': 'bpvsadm-save',
  'ipvsadm-restore': 'bpvsadm-restore',
}
/** Packages that tools/bundle.mjs leaves outside of the programs. */
const outside = ['koffi']

/** @typedef {{ dependencies?: Record<string, string>, optionalDependencies?: Record<string, string> }} Manifest */

/**
 * @param {string} folder
 * @returns {Manifest}
 */
function manifest(folder) {
  return JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
}

/**
 * The folder that `name` means to a package, as Node looks for it; undefined: not installed.
 * @param {string} name
 * @param {string} from folder of the package
 * @returns {string | undefined}
 */
function findPackage(name, from) {
  for (let folder = from; ; folder = dirname(folder)) {
    const found = join(folder, 'node_modules', name)
    if (existsSync(found)) return found
    if (folder === '.') return undefined
  }
}

/**
 * Folders of the packages that run: those that are not in the bundles, and what they depend on. What is optional counts if
 * it is installed, as npm installs only what is for this processor.
 * @returns {string[]}
 */
function runtimePackages() {
  /** @type {Set<string>} */
  const found = new Set()
  /** @param {string} name @param {string} from @param {boolean} optional */
  const add = (name, from, optional) => {
    const folder = findPackage(name, from)
    if (folder === undefined) {
      if (optional) return
      throw new Error(`${from} needs the package ${name}, which is not installed`)
    }
    if (found.has(folder)) return
    found.add(folder)
    const { dependencies = {}, optionalDependencies = {} } = manifest(folder)
    for (const each of Object.keys(dependencies)) add(each, folder, each in optionalDependencies)
    for (const each of Object.keys(optionalDependencies)) add(each, folder, true)
  }
  for (const name of outside) add(name, '.', false)
  return [...found].sort()
}

/**
 * Copies a package without those in it, which are counted by themselves.
 * @param {string} folder
 * @param {string} target
 */
function copyPackage(folder, target) {
  mkdirSync(target, { recursive: true })
  for (const name of readdirSync(folder)) {
    if (name !== 'node_modules') cpSync(join(folder, name), join(target, name), { recursive: true })
  }
}

/** @param {string} directory */
function layOut(directory) {
  const root = join(directory, home)
  for (const file of files) {
    mkdirSync(dirname(join(root, file)), { recursive: true })
    copyFileSync(file, join(root, file))
  }
  mkdirSync(join(root, 'build/bin'), { recursive: true })
  copyFileSync('build/bin/node', join(root, 'build/bin/node'))
  for (const folder of runtimePackages()) copyPackage(folder, join(root, folder))
  mkdirSync(join(directory, 'usr/local/bin'), { recursive: true })
  for (const [name, file] of Object.entries(commands)) {
    symlinkSync(`../../../${home}/bin/${file}`, join(directory, 'usr/local/bin', name))
  }
}

const [directory] = process.argv.slice(2)
if (directory === undefined || existsSync(directory)) {
  process.stderr.write('image.mjs: name one directory, which does not exist yet\n')
  process.exitCode = 2
} else {
  const absolute = join(process.cwd(), directory)
  process.chdir(fileURLToPath(new URL('..', import.meta.url)))
  layOut(directory.startsWith('/') ? directory : absolute)
}
