/** What setup needs of the machine: root, Linux with BPF and BTF, and Debian packages. */
import { accessSync, constants, existsSync } from 'node:fs'
import { join } from 'node:path'
import { mustRun, run, SetupError, say } from './exec.mjs'

/** The multiarch name of each processor that bpvs builds for: where Debian keeps its headers. */
const multiarchNames = { x64: 'x86_64-linux-gnu', arm64: 'aarch64-linux-gnu' }

/**
 * What the checkout is made ready for: to run, to run its tests, or neither.
 * @typedef {'start' | 'test' | 'build'} Target
 */

/** What a package is needed for shows in what is looked for: a program on the path, or a file. */
const buildPackages = [
  { name: 'clang-19', program: 'clang-19' },
  { name: 'gcc', program: 'gcc' },
  { name: 'libc6-dev', file: '/usr/include/stdio.h' },
  { name: 'libbpf-dev', file: '/usr/include/bpf/libbpf.h' },
  { name: 'libelf-dev', file: '/usr/include/libelf.h' },
  { name: 'zlib1g-dev', file: '/usr/include/zlib.h' },
]
const runPackages = [
  { name: 'iproute2', program: 'ip' },
  { name: 'ethtool', program: 'ethtool' },
  { name: 'nftables', program: 'nft' },
]
const testPackages = [
  { name: 'clang-format-19', program: 'clang-format-19' },
  { name: 'bpftool', program: 'bpftool' },
  { name: 'iputils-ping', program: 'ping' },
  { name: 'tcpdump', program: 'tcpdump' },
  { name: 'python3', program: 'python3' },
]

/** @returns {string} such as x86_64-linux-gnu; throws SetupError on another processor */
export function multiarch() {
  const name = multiarchNames[/** @type {keyof typeof multiarchNames} */ (process.arch)]
  if (name === undefined) throw new SetupError(`bpvs runs on x86-64 and arm64, this machine is ${process.arch}`)
  return name
}

/**
 * The search path with the administrator's folders in it, which a root shell may lack.
 * @returns {string[]}
 */
function searchPath() {
  return [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/usr/bin', '/sbin', '/bin']
}

/**
 * @param {string} file
 * @returns {boolean}
 */
function isExecutable(file) {
  try {
    accessSync(file, constants.X_OK)
    return true
  } catch {
    return false
  }
}

/**
 * @param {{ program?: string, file?: string }} need
 * @returns {boolean}
 */
function isPresent({ program, file }) {
  if (file !== undefined) return existsSync(file)
  return program === undefined || searchPath().some((folder) => isExecutable(join(folder, program)))
}

/**
 * Throws SetupError, with one line, unless this is root on a Linux that has what can be seen without trying.
 * @param {Target} target
 */
export function checkSystem(target) {
  if (process.platform !== 'linux') throw new SetupError(`bpvs needs Linux, this is ${process.platform}`)
  if (target === 'build') {
    multiarch()
    return
  }
  if (process.getuid?.() !== 0) throw new SetupError('must be run as root: it loads programs into the kernel')
  multiarch()
  if (!existsSync('/proc/sys/kernel/unprivileged_bpf_disabled')) {
    throw new SetupError('this kernel lacks the bpf() system call (CONFIG_BPF_SYSCALL)')
  }
  if (!existsSync('/sys/kernel/btf/vmlinux')) {
    throw new SetupError('this kernel lacks type information, /sys/kernel/btf/vmlinux (CONFIG_DEBUG_INFO_BTF)')
  }
}

/** @type {Readonly<Record<Target, readonly { name: string, program?: string, file?: string }[]>>} */
const wanted = {
  build: buildPackages,
  start: [...buildPackages, ...runPackages],
  test: [...buildPackages, ...runPackages, ...testPackages],
}

/**
 * The Debian packages that have to be installed.
 * @param {Target} target
 * @returns {string[]}
 */
export function missingPackages(target) {
  return wanted[target].filter((need) => !isPresent(need)).map((need) => need.name)
}

/**
 * @param {readonly string[]} names
 * @throws {SetupError} if apt-get is missing or fails
 */
export function installPackages(names) {
  if (!isPresent({ program: 'apt-get' })) {
    throw new SetupError(`these packages are missing, and there is no apt-get to install them: ${names.join(' ')}`)
  }
  say(`installing ${names.join(' ')}`)
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', PATH: searchPath().join(':') }
  const patience = ['-q', '-o', 'DPkg::Lock::Timeout=300']
  const update = run('apt-get', ['update', ...patience], { env })
  try {
    mustRun('apt-get', ['install', '-y', '--no-install-recommends', ...patience, ...names], { env })
  } catch (error) {
    if (update.status !== 0 && error instanceof SetupError) error.output = update.output + error.output
    throw error
  }
}
