import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { ManifestDirectory, type ManifestDirectoryOptions } from '../../src/manifests/directory.ts'
import { formatProblem } from '../../src/manifests/problem.ts'
import type { ManifestState } from '../../src/manifests/store.ts'
import { waitFor } from '../helpers/wait-for.ts'

type Tap = Pick<typeof t, 'teardown'>

const service = (name: string, address = '10.96.0.1'): string =>
  `{apiVersion: v1, kind: Service, metadata: {name: ${name}}, spec: {clusterIP: ${address}, ports: [{port: 80}]}}\n`
const badService = (name: string): string => service(name, '10.96.0.999')

/** A directory for one test, and what its follower said. */
class Followed {
  readonly path: string
  readonly states: ManifestState[] = []
  readonly found: string[] = []
  readonly solved: string[] = []
  readonly source: ManifestDirectory

  constructor(t: Tap, options: Partial<ManifestDirectoryOptions> & { readonly below?: string } = {}) {
    const { below = '', ...others } = options
    const root = mkdtempSync(join(tmpdir(), 'bpvs-manifests-'))
    t.teardown(() => rmSync(root, { recursive: true, force: true }))
    this.path = join(root, below)
    this.source = new ManifestDirectory({
      directory: this.path,
      maxFileBytes: 1_000_000,
      rescanMs: 3_600_000,
      onState: (state) => this.states.push(state),
      onProblems: ({ found, solved }) => {
        this.found.push(...found.map((each) => this.#text(formatProblem(each))))
        this.solved.push(...solved.map((each) => this.#text(formatProblem(each))))
      },
      ...others,
    })
    t.teardown(() => this.source.close())
  }

  /** In one step, as careful editors do: a new file, put in the place of the old one. */
  write(name: string, text: string | Uint8Array): void {
    this.writeInPlace('.new', text)
    renameSync(join(this.path, '.new'), join(this.path, name))
  }

  writeInPlace(name: string, text: string | Uint8Array): void {
    writeFileSync(join(this.path, name), text)
  }

  remove(name: string): void {
    rmSync(join(this.path, name))
  }

  /** Services in force, `name address`. */
  get services(): string[] | undefined {
    return this.states.at(-1)?.objects.services.map(({ name, clusterIps }) => `${name} ${clusterIps[0]?.address ?? ''}`)
  }

  async until(...services: readonly string[]): Promise<void> {
    await waitFor(`services ${services.join(', ')}; there are ${this.services?.join(', ')}`, () => {
      return this.services?.toSorted().join() === services.toSorted().join()
    })
  }

  async untilFound(text: string): Promise<void> {
    await waitFor(`problem ${text}; found ${this.found.join(', ')}`, () =>
      this.found.some((each) => each.includes(text)),
    )
  }

  #text(text: string): string {
    return text.replaceAll(this.path, 'DIR')
  }
}

t.test('all manifests of the directory are read at the start, in one go', async (t) => {
  const dir = new Followed(t)
  dir.write('b.yml', service('b'))
  dir.write('a.yaml', `${service('a1')}---\n${service('a2')}`)
  dir.write('c.json', '{"apiVersion":"v1","kind":"Service","metadata":{"name":"c"},"spec":{"clusterIP":"None"}}')
  dir.source.start()
  t.equal(dir.states.length, 1)
  t.same(dir.services, ['a1 10.96.0.1', 'a2 10.96.0.1', 'b 10.96.0.1', 'c '])
  t.match(dir.states[0], { complete: true, files: 3 })
})

t.test('other files, hidden ones and folders are left alone', async (t) => {
  const dir = new Followed(t)
  dir.write('README.md', '- [')
  dir.write('.web.yaml.swp', '- [')
  dir.write('web.yaml~', '- [')
  dir.write('.#web.yaml', '- [')
  mkdirSync(join(dir.path, 'more'))
  dir.source.start()
  t.same(dir.services, [])
  t.same(dir.found, [])
})

t.test('an empty directory is a full read of nothing', async (t) => {
  const dir = new Followed(t)
  dir.source.start()
  t.match(dir.states, [{ complete: true, files: 0 }])
})

t.test('a new file, a changed one and a removed one are followed, also when written in place', async (t) => {
  const dir = new Followed(t)
  dir.source.start()
  dir.writeInPlace('a.yaml', service('a'))
  await dir.until('a 10.96.0.1')
  dir.writeInPlace('a.yaml', service('a', '10.96.0.2'))
  await dir.until('a 10.96.0.2')
  dir.writeInPlace('b.yaml', service('b'))
  await dir.until('a 10.96.0.2', 'b 10.96.0.1')
  dir.remove('a.yaml')
  await dir.until('b 10.96.0.1')
})

t.test('a file that an editor replaces by rename is followed, and never missing in between', async (t) => {
  const dir = new Followed(t)
  dir.write('a.yaml', service('a'))
  dir.source.start()
  for (const address of ['10.96.0.2', '10.96.0.3', '10.96.0.4']) {
    dir.write('a.yaml', service('a', address))
    await dir.until(`a ${address}`)
  }
  t.equal(
    dir.states.every(({ objects }) => objects.services.length === 1),
    true,
  )
})

t.test('an editor that moves the old file away and writes a new one takes nothing out of force', async (t) => {
  const dir = new Followed(t, { settleMs: 100 })
  dir.write('a.yaml', service('a'))
  dir.source.start()
  renameSync(join(dir.path, 'a.yaml'), join(dir.path, 'a.yaml~'))
  // The follower sees the events of the rename before the new file is there.
  await new Promise(setImmediate)
  dir.writeInPlace('a.yaml', '')
  await new Promise(setImmediate)
  dir.writeInPlace('a.yaml', service('a', '10.96.0.2'))
  await dir.until('a 10.96.0.2')
  t.equal(
    dir.states.every(({ objects }) => objects.services.length === 1),
    true,
  )
})

t.test('a file that becomes empty keeps what it held in force, and that is said; deleting it removes it', async (t) => {
  const dir = new Followed(t)
  dir.write('a.yaml', service('a'))
  dir.source.start()
  truncateSync(join(dir.path, 'a.yaml'))
  await dir.untilFound('DIR/a.yaml: is empty')
  t.same(dir.services, ['a 10.96.0.1'])
  dir.remove('a.yaml')
  await dir.until()
  t.match(dir.solved, [/is empty/])
})

t.test('writing the same text again is no change', async (t) => {
  const dir = new Followed(t)
  dir.write('a.yaml', service('a'))
  dir.source.start()
  dir.write('a.yaml', service('a'))
  dir.write('b.yaml', service('b'))
  await dir.until('a 10.96.0.1', 'b 10.96.0.1')
  const count = dir.states.length
  dir.write('a.yaml', service('a'))
  dir.write('c.yaml', service('c'))
  await dir.until('a 10.96.0.1', 'b 10.96.0.1', 'c 10.96.0.1')
  t.equal(dir.states.length, count + 1)
})

t.test('a bad new version is reported once, and the last good one stays in force', async (t) => {
  const dir = new Followed(t)
  dir.write('a.yaml', `${service('a')}---\n${service('b')}`)
  dir.source.start()
  dir.write('a.yaml', `${badService('a')}---\n${service('b', '10.96.0.2')}`)
  await dir.until('a 10.96.0.1', 'b 10.96.0.2')
  t.same(dir.found, ['DIR/a.yaml:1: Service default/a: spec.clusterIP: "10.96.0.999" is not an IP address'])
  t.equal(dir.states.at(-1)?.complete, false)
  dir.write('b.yaml', service('c'))
  await dir.until('a 10.96.0.1', 'b 10.96.0.2', 'c 10.96.0.1')
  t.equal(dir.found.length, 1, 'not reported again with the next change')
  dir.write('a.yaml', service('a', '10.96.0.3'))
  await dir.until('a 10.96.0.3', 'c 10.96.0.1')
  t.same(dir.solved, dir.found)
  t.equal(dir.states.at(-1)?.complete, true)
})

t.test('broken YAML leaves every object of the file in force', async (t) => {
  const dir = new Followed(t)
  dir.write('a.yaml', `${service('a')}---\n${service('b')}`)
  dir.source.start()
  dir.write('a.yaml', `${service('a', '10.96.0.2')}---\nkind: [\n`)
  await dir.until('a 10.96.0.2', 'b 10.96.0.1')
  t.match(dir.found, [/^DIR\/a\.yaml:\d+: /])
})

t.test('a bad manifest at the start is reported, and the rest is in force', async (t) => {
  const dir = new Followed(t)
  dir.write('a.yaml', badService('a'))
  dir.write('b.yaml', service('b'))
  dir.source.start()
  t.same(dir.services, ['b 10.96.0.1'])
  t.equal(dir.found.length, 1)
  t.equal(dir.states[0]?.complete, false)
})

t.test('an object in two files is reported with both places; the first file counts, until it goes', async (t) => {
  const dir = new Followed(t)
  dir.write('a.yaml', `# one\n${service('web')}`)
  dir.write('b.yaml', service('web', '10.96.0.2'))
  dir.source.start()
  t.same(dir.services, ['web 10.96.0.1'])
  t.same(dir.found, ['DIR/b.yaml:1: Service default/web: is in DIR/a.yaml:2 too: that one is used'])
  dir.remove('a.yaml')
  await dir.until('web 10.96.0.2')
  t.same(dir.solved, dir.found)
})

t.test('an object twice in one file is reported', async (t) => {
  const dir = new Followed(t)
  dir.write('a.yaml', `${service('web')}---\n${service('web', '10.96.0.2')}`)
  dir.source.start()
  t.same(dir.services, ['web 10.96.0.1'])
  t.same(dir.found, ['DIR/a.yaml:3: Service default/web: is in DIR/a.yaml:1 too: that one is used'])
})

const unreadable: readonly {
  readonly name: string
  readonly make: (dir: Followed) => void
  readonly expect: RegExp
}[] = [
  {
    name: 'a binary file',
    make: (dir) => dir.write('x.yaml', new Uint8Array([0x7f, 0x45, 0, 1])),
    expect: /^DIR\/x\.yaml: is not text \(a zero byte at offset 2\)$/,
  },
  {
    name: 'text in another encoding',
    make: (dir) => dir.write('x.yaml', new Uint8Array([0x61, 0xe4, 0x62])),
    expect: /^DIR\/x\.yaml: is not UTF-8 text$/,
  },
  {
    name: 'a huge file',
    make: (dir) => dir.write('x.yaml', '#'.repeat(1_000_001)),
    expect: /^DIR\/x\.yaml: has 1000001 bytes, more than the limit of 1000000/,
  },
  {
    name: 'a folder with the name of a manifest',
    make: (dir) => mkdirSync(join(dir.path, 'x.yaml')),
    expect: /^DIR\/x\.yaml: is not a regular file$/,
  },
  {
    name: 'a pipe',
    make: (dir) => spawnSync('mkfifo', [join(dir.path, 'x.yaml')]),
    expect: /^DIR\/x\.yaml: is not a regular file$/,
  },
  {
    name: 'a link to nowhere',
    make: (dir) => symlinkSync('nowhere', join(dir.path, 'x.yaml')),
    expect: /^DIR\/x\.yaml: cannot be read: no such file/,
  },
  {
    name: 'a link to itself',
    make: (dir) => symlinkSync('x.yaml', join(dir.path, 'x.yaml')),
    expect: /^DIR\/x\.yaml: cannot be read: too many symbolic links/,
  },
  // Of mode 0200, and in /proc/sys that binds root too.
  {
    name: 'a file that may not be read',
    make: (dir) => symlinkSync('/proc/sys/net/ipv4/route/flush', join(dir.path, 'x.yaml')),
    expect: /^DIR\/x\.yaml: cannot be read: permission denied$/,
  },
  {
    name: 'a device',
    make: (dir) => symlinkSync('/dev/zero', join(dir.path, 'x.yaml')),
    expect: /^DIR\/x\.yaml: is not a regular file$/,
  },
]

for (const { name, make, expect } of unreadable) {
  t.test(`not read, reported once, and nothing else suffers: ${name}`, async (t) => {
    const dir = new Followed(t)
    dir.write('a.yaml', service('a'))
    make(dir)
    dir.source.start()
    t.same(dir.services, ['a 10.96.0.1'])
    t.match(dir.found, [expect])
    dir.write('b.yaml', service('b'))
    await dir.until('a 10.96.0.1', 'b 10.96.0.1')
    t.equal(dir.found.length, 1)
  })
}

t.test('a byte order mark is no part of the text', async (t) => {
  const dir = new Followed(t)
  dir.write('a.json', '\uFEFF{"apiVersion":"v1","kind":"Service","metadata":{"name":"a"},"spec":{"clusterIP":"None"}}')
  dir.source.start()
  t.same(dir.found, [])
  t.same(dir.services, ['a '])
})

t.test('links are followed, and so is the switch of a mounted ConfigMap', async (t) => {
  const dir = new Followed(t)
  for (const [version, address] of [
    ['v1', '10.96.0.1'],
    ['v2', '10.96.0.2'],
  ] as const) {
    mkdirSync(join(dir.path, `..${version}`))
    dir.write(`..${version}/a.yaml`, service('a', address))
  }
  symlinkSync('..v1', join(dir.path, '..data'))
  symlinkSync('..data/a.yaml', join(dir.path, 'a.yaml'))
  dir.source.start()
  t.same(dir.services, ['a 10.96.0.1'])
  symlinkSync('..v2', join(dir.path, '..new'))
  renameSync(join(dir.path, '..new'), join(dir.path, '..data'))
  await dir.until('a 10.96.0.2')
})

t.test('a change that the kernel does not tell of is found by the re-scan', async (t) => {
  const dir = new Followed(t, { rescanMs: 20 })
  const elsewhere = mkdtempSync(join(tmpdir(), 'bpvs-elsewhere-'))
  t.teardown(() => rmSync(elsewhere, { recursive: true }))
  writeFileSync(join(elsewhere, 'target'), service('a'))
  symlinkSync(join(elsewhere, 'target'), join(dir.path, 'a.yaml'))
  dir.source.start()
  t.same(dir.services, ['a 10.96.0.1'])
  writeFileSync(join(elsewhere, 'target'), service('a', '10.96.0.22'))
  await dir.until('a 10.96.0.22')
})

t.test('a directory that is missing is reported, waited for, and then read', async (t) => {
  const dir = new Followed(t, { below: 'etc/bpvs' })
  dir.source.start()
  t.same(dir.states, [])
  t.match(dir.found, [/^DIR: cannot be read: no such file or directory/])
  mkdirSync(dir.path, { recursive: true })
  dir.write('a.yaml', service('a'))
  await dir.until('a 10.96.0.1')
  t.same(dir.solved, dir.found)
})

t.test('a directory that goes leaves everything in force; another one in its place is followed', async (t) => {
  const dir = new Followed(t, { below: 'manifests' })
  mkdirSync(dir.path)
  dir.write('a.yaml', service('a'))
  dir.source.start()
  renameSync(dir.path, `${dir.path}.old`)
  await dir.untilFound('DIR: cannot be read')
  t.same(dir.services, ['a 10.96.0.1'])
  mkdirSync(dir.path)
  dir.write('b.yaml', service('b'))
  await dir.until('b 10.96.0.1')
  dir.write('c.yaml', service('c'))
  await dir.until('b 10.96.0.1', 'c 10.96.0.1')
})

t.test('a reload reads all anew at once and reports all problems again', async (t) => {
  const dir = new Followed(t)
  dir.write('a.yaml', badService('a'))
  dir.write('b.yaml', service('b'))
  dir.source.start()
  dir.write('b.yaml', service('b', '10.96.0.2'))
  dir.source.reload()
  t.same(dir.services, ['b 10.96.0.2'])
  t.equal(dir.found.length, 2)
  t.equal(dir.found[0], dir.found[1])
})

t.test('many changes at once are taken up together', async (t) => {
  const dir = new Followed(t)
  dir.source.start()
  const names = Array.from({ length: 200 }, (_, i) => `s${i}`)
  for (const name of names) dir.write(`${name}.yaml`, service(name))
  await dir.until(...names.map((name) => `${name} 10.96.0.1`))
  t.ok(dir.states.length < 20, `${dir.states.length} times`)
})

t.test('after close nothing is called back', async (t) => {
  const dir = new Followed(t)
  dir.source.start()
  const other = new Followed(t)
  other.source.start()
  dir.source.close()
  dir.write('a.yaml', service('a'))
  other.write('a.yaml', service('a'))
  await other.until('a 10.96.0.1')
  t.equal(dir.states.length, 1)
})
