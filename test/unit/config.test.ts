import { readFileSync } from 'node:fs'
import t from 'tap'
import { helpText, kubeProxyTable, optionsTable } from '../../src/config/help.ts'
import { loadConfig, type Surroundings } from '../../src/config/load.ts'
import { type Config, configEntries, environmentName, flagName } from '../../src/config/schema.ts'
import { LbError } from '../../src/model/errors.ts'

interface Given {
  readonly env?: Surroundings['env']
  /** Text of the file c.yaml. */
  readonly file?: string
}

function load(argv: readonly string[], { env = {}, file }: Given = {}): Config {
  const invocation = loadConfig(argv, {
    env,
    readFile: (path) => {
      if (path === 'c.yaml' && file !== undefined) return file
      throw new Error(`ENOENT: no such file or directory, open '${path}'`)
    },
  })
  if (!('config' in invocation)) throw new Error(`no configuration but ${invocation.run}`)
  return invocation.config
}

const dir = ['--manifests', '/m']

t.test('without more than the directory the defaults hold, and the result is frozen', async (t) => {
  const config = load(dir)
  t.same(config, {
    manifests: '/m',
    interfaces: ['*'],
    excludeInterfaces: [],
    xdp: 'auto',
    scheduler: 'rr',
    socket: 'off',
    socketProtocols: 'all',
    socketLeave: [],
    sysctls: [],
    adminSocket: '/run/bpvs/admin.sock',
    logLevel: 'info',
    repairIntervalMs: 1000,
    drainLimitS: 3600,
    takeover: 'auto',
    takeoverLimitS: 86_400,
    cleanupWaitS: 0,
    rescanIntervalMs: 30000,
    maxManifestBytes: 67108864,
    maxServices: 16384,
    maxServers: 65536,
    maxConnections: 229376,
  })
  t.ok(Object.isFrozen(config))
  t.ok(Object.isFrozen(config.interfaces))
})

t.test('flags win over the environment, the environment over the file, the file over the defaults', async (t) => {
  const file = 'scheduler: wrr\nxdp: generic\nlogLevel: debug\nmaxServers: 7\n'
  const env = { BPVS_XDP: 'native', BPVS_LOG_LEVEL: 'warn', BPVS_EXCLUDE_INTERFACES: 'a, b' }
  const config = load([...dir, '--config', 'c.yaml', '--log-level=error'], { env, file })
  t.match(config, { scheduler: 'wrr', xdp: 'native', logLevel: 'error', maxServers: 7, excludeInterfaces: ['a', 'b'] })
})

t.test('the file can be JSON, be named by the environment, and be empty', async (t) => {
  const env = { BPVS_CONFIG: 'c.yaml' }
  t.match(load([], { env, file: '{"manifests": "/f", "interfaces": ["eth*", "veth0"]}' }), {
    manifests: '/f',
    interfaces: ['eth*', 'veth0'],
  })
  t.equal(load(dir, { env, file: '# nothing\n' }).manifests, '/m')
})

t.test('values of flags can follow a blank or an equals sign', async (t) => {
  t.match(load(['--manifests=/a=b', '--interfaces', 'eth0,eth1']), { manifests: '/a=b', interfaces: ['eth0', 'eth1'] })
})

t.test('settings of the table are read by name, and a bad one is told', async (t) => {
  t.match(load([...dir, '--bypass', 'never', '--sysctls', 'sloppy_tcp=1, net.ipv4.vs.drop_entry=3']), {
    bypass: 'never',
    sysctls: ['sloppy_tcp=1', 'net.ipv4.vs.drop_entry=3'],
  })
  for (const [text, message] of [
    ['sloppy_tcp', 'sysctls: sloppy_tcp: a value is missing'],
    ['nosuch=1', 'sysctls: net.ipv4.vs.nosuch is not known'],
    ['drop_entry=4', 'sysctls: net.ipv4.vs.drop_entry: "4" is not a whole number from 0 to 3'],
  ] as const)
    t.throws(() => load([...dir, '--sysctls', text]), { code: 'CONFIG', message }, text)
})

t.test('an empty list of patterns excludes nothing', async (t) => {
  t.same(load([...dir, '--exclude-interfaces=']).excludeInterfaces, [])
})

interface Refusal extends Given {
  readonly name: string
  readonly argv: readonly string[]
  readonly code: 'USAGE' | 'CONFIG'
  readonly message: string | RegExp
}

const refusals: readonly Refusal[] = [
  {
    name: 'no source of services',
    argv: [],
    code: 'USAGE',
    message: 'no source of services: give --kubeconfig FILE or --manifests DIR, or run in a pod',
  },
  {
    name: 'two sources of services',
    argv: [...dir, '--kubeconfig', 'k'],
    code: 'USAGE',
    message: '--manifests and --kubeconfig exclude each other',
  },
  { name: 'an unknown flag', argv: [...dir, '--verbose'], code: 'USAGE', message: 'unknown option --verbose' },
  { name: 'an argument that is no flag', argv: [...dir, 'x'], code: 'USAGE', message: 'unknown option x' },
  { name: 'a switch with a value', argv: ['--help=yes'], code: 'USAGE', message: 'unknown option --help=yes' },
  {
    name: 'a flag without its value',
    argv: ['--manifests'],
    code: 'USAGE',
    message: '--manifests: a value is missing',
  },
  { name: 'an empty directory', argv: ['--manifests='], code: 'USAGE', message: '--manifests: "" is not a text' },
  {
    name: 'an unknown word',
    argv: [...dir, '--xdp', 'yes'],
    code: 'USAGE',
    message: '--xdp: "yes" is not one of auto, native, generic, off',
  },
  {
    name: 'a number that is none',
    argv: [...dir, '--max-servers', '1e3'],
    code: 'USAGE',
    message: '--max-servers: "1e3" is not a whole number from 1 to 4194304',
  },
  {
    name: 'a number out of range in the environment',
    argv: dir,
    env: { BPVS_REPAIR_INTERVAL_MS: '5' },
    code: 'CONFIG',
    message: 'BPVS_REPAIR_INTERVAL_MS: 5 is not a whole number from 100 to 3600000',
  },
  {
    name: 'a missing file',
    argv: [...dir, '--config', 'd.yaml'],
    code: 'CONFIG',
    message: "d.yaml: ENOENT: no such file or directory, open 'd.yaml'",
  },
  {
    name: 'an unknown key',
    argv: ['--config', 'c.yaml'],
    file: 'manifest: x\n',
    code: 'CONFIG',
    message: 'c.yaml: unknown option manifest',
  },
  {
    name: 'a file that is no object',
    argv: ['--config', 'c.yaml'],
    file: '- a\n',
    code: 'CONFIG',
    message: 'c.yaml: not an object',
  },
  {
    name: 'a file of broken YAML',
    argv: ['--config', 'c.yaml'],
    file: 'a: [\n',
    code: 'CONFIG',
    message: /^c\.yaml: .* at line 2/,
  },
  {
    name: 'a wrong type in the file',
    argv: ['--config', 'c.yaml'],
    file: 'interfaces: eth0\n',
    code: 'CONFIG',
    message: 'c.yaml: interfaces: "eth0" is not a list of strings',
  },
  {
    name: 'a number as text in the file',
    argv: ['--config', 'c.yaml'],
    file: 'maxServers: "7"\n',
    code: 'CONFIG',
    message: 'c.yaml: maxServers: "7" is not a whole number from 1 to 4194304',
  },
]

for (const { name, argv, code, message, ...given } of refusals) {
  t.test(`refused: ${name}`, async (t) => {
    t.throws(() => load(argv, given), { code, message } as LbError)
    t.throws(() => load(argv, given), LbError)
  })
}

t.test('help, version and cleanup need no directory', async (t) => {
  const nothing: Surroundings = { env: {}, readFile: () => '' }
  t.same(loadConfig(['--help'], nothing), { run: 'help' })
  t.same(loadConfig(['-h'], nothing), { run: 'help' })
  t.same(loadConfig(['--version'], nothing), { run: 'version' })
  t.match(loadConfig(['--cleanup-kube-proxy'], nothing), { run: 'cleanup-kube-proxy' })
  t.match(loadConfig(['--cleanup', '--log-level', 'debug'], nothing), { run: 'cleanup', config: { logLevel: 'debug' } })
})

t.test('the help names every option with its default and its words, in lines that fit a terminal', async (t) => {
  const text = helpText('bpvsd')
  for (const [key, schema] of configEntries) {
    t.match(text, `  ${flagName(key)} ${schema.flag}`)
    for (const word of schema.enum ?? []) t.match(text, word)
  }
  t.equal(
    text.split('\n').every((line) => line.length <= 120),
    true,
  )
})

t.test('each option has a flag and a variable of its own', async (t) => {
  const names = configEntries.flatMap(([key]) => [flagName(key), environmentName(key)])
  t.equal(new Set(names).size, 2 * configEntries.length)
  t.equal(flagName('excludeInterfaces'), '--exclude-interfaces')
  t.equal(environmentName('excludeInterfaces'), 'BPVS_EXCLUDE_INTERFACES')
})

t.test('docs/bpvsd.md holds the table of options as the schema has it', async (t) => {
  const docs = readFileSync(new URL('../../docs/bpvsd.md', import.meta.url), 'utf8')
  t.ok(docs.includes(optionsTable()), `the table has to be\n${optionsTable()}`)
})

t.test("docs/bpvsd.md holds the table of kube-proxy's fields as it is", async (t) => {
  const docs = readFileSync(new URL('../../docs/bpvsd.md', import.meta.url), 'utf8')
  t.ok(docs.includes(kubeProxyTable()), `the table has to be\n${kubeProxyTable()}`)
})

t.test('the admin API is not served over TCP without TLS, nor to everybody', async (t) => {
  const tls = ['--admin-cert=c', '--admin-key=k']
  const listen = '--admin-listen=[::1]:9443'
  const rows: readonly [readonly string[], RegExp][] = [
    [[listen, '--admin-token-file=t'], /adminCert and adminKey are needed/],
    [[listen, ...tls], /adminTokenFile or adminClientCa is needed/],
    [['--admin-listen=9443', ...tls, '--admin-token-file=t'], /is not HOST:PORT/],
    [['--admin-listen=host:65536', ...tls, '--admin-token-file=t'], /is not HOST:PORT/],
  ]
  for (const [argv, message] of rows) t.throws(() => load([...dir, ...argv]), { code: 'CONFIG', message })
  t.match(load([...dir, listen, ...tls, '--admin-client-ca=a']), { adminListen: '[::1]:9443', adminClientCa: 'a' })
})
