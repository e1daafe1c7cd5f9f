/** kube-proxy's flags and configuration file: what they set, and every recorded answer to a bad one. */
import t from 'tap'
import { type Invocation, loadConfig } from '../../src/config/load.ts'
import { formatDuration, parseDuration } from '../../src/config/kube-proxy/duration.ts'
import { toObject, toYaml } from '../../src/config/kube-proxy/render.ts'
import { gatherMs, type KubeProxySettings, localDetection, timeoutsOf } from '../../src/config/kube-proxy/settings.ts'
import { LbError } from '../../src/model/errors.ts'
import { wholeRecording } from '../../tools/recordings.ts'
import { readJsonRecording } from '../helpers/recordings-json.ts'
import { Tally } from '../helpers/tally.ts'

interface Recorded {
  readonly commands: readonly {
    readonly name: string
    readonly args: readonly string[]
    readonly rc: number | null
    readonly err: string
    readonly config?: string
    readonly file?: string
  }[]
  readonly configz: Readonly<Record<string, { readonly config: object; readonly configz: string }>>
}

const head = 'apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n'
const { commands, configz } = readJsonRecording<Recorded>('kube-proxy')

function invoke(args: readonly string[], config = '', program = 'kube-proxy'): Invocation {
  const env = { KUBERNETES_SERVICE_HOST: '10.96.0.1' }
  const readFile = (path: string): string => {
    if (path === 'config.yaml') return config
    throw new Error(`ENOENT: no such file or directory, open '${path}'`)
  }
  return loadConfig(args, { env, readFile, program })
}

function settings(args: readonly string[], config?: string, program?: string): KubeProxySettings {
  const invocation = invoke(args, config, program)
  if (invocation.run !== 'daemon') throw new Error(`not a daemon but ${invocation.run}`)
  return invocation.kubeProxy
}

/** What kube-proxy said of its end: in quotes, or between angle brackets, or after "Error:". */
function reasonOf(err: string): string {
  const [, quoted] = /"command failed" err="(.*)"$/m.exec(err) ?? []
  if (quoted !== undefined) return JSON.parse(`"${quoted}"`) as string
  const [, lines] = /"command failed" err=<\n([\s\S]*?)\n >/.exec(err) ?? []
  if (lines !== undefined) return lines.replace(/^\t/gm, '')
  return err.replace(/^Error: /, '').trim()
}

const tally = new Tally('kube-proxy')

/** What is said of a command line and file; undefined if they are taken. */
function refusalOf(args: readonly string[], config?: string): string | undefined {
  try {
    invoke(args, config)
    return undefined
  } catch (error) {
    if (!(error instanceof LbError) || error.code !== 'CONFIG') throw error
    return error.message.replace(/ \(line \d+\)/g, '')
  }
}

for (const [i, { name, args, rc, err, config }] of commands.entries()) {
  if (rc !== 1) continue
  t.test(`a bad command line or file is answered as kube-proxy does, or otherwise by intent: ${name}`, async (t) => {
    const said = refusalOf(args, config) ?? 'nothing'
    const found = said === reasonOf(err) ? [] : [`${said}, recorded ${reasonOf(err)}`]
    t.same(tally.note(wholeRecording, i, name, found), [])
  })
}

t.test('every recorded refusal was compared', async (t) => tally.end(t))

t.test('what is answered in other words is refused all the same', async (t) => {
  const refused = commands.filter(({ name }) => ['unknown scheduler', 'not YAML', 'other version'].includes(name))
  t.equal(refused.length, 3)
  for (const { name, args, config } of refused) t.throws(() => invoke(args, config), { code: 'CONFIG' }, name)
})

t.test('a file that kube-proxy runs with, bpvsd runs with', async (t) => {
  for (const { name, args, config } of commands.filter(({ rc }) => rc === null)) {
    t.doesNotThrow(() => settings(args, config ?? `${head}mode: nftables\n`), name)
  }
})

t.test('errors in a file name their lines', async (t) => {
  t.throws(() => settings(['--config', 'config.yaml'], `${head}ipvs:\n  scheduler: [rr]\n`), {
    message:
      'failed complete: failed to decode: json: cannot unmarshal array into Go struct field KubeProxyIPVSConfiguration.ipvs.scheduler of type string (line 4)',
  })
  t.throws(() => settings(['--config', 'config.yaml'], `${head}mode: a\noomScoreAdj: 2000\n`), {
    message: /^failed validate: \[.*Mode.ProxyMode.* \(line 3\), .*OOMScoreAdj.* \(line 4\)\]$/,
  })
})

t.test('what is not known, said twice or without effect is warned of, with its line', async (t) => {
  const config = `${head}noSuchField: 1\nipvs: {strictARP: true, foo: 1}\nmode: nftables\nmode: ipvs\n`
  const { warnings, configuration } = settings(['--config', 'config.yaml', '--cluster-cidr', '10.0.0.0/8'], config)
  t.same(warnings, [
    'config.yaml: line 3: unknown field "noSuchField"',
    'config.yaml: line 4: unknown field "ipvs.foo"',
    'config.yaml: line 6: key "mode" already set in map',
    '--cluster-cidr has no effect beside --config',
    'ipvs.strictARP: true has no effect: no virtual address is on a device',
  ])
  t.equal(configuration.mode, 'ipvs')
  t.equal(configuration.clusterCIDR, '')
})

t.test('beside a file only the Node and logging flags count', async (t) => {
  const config = `${head}hostnameOverride: node-a\nmode: nftables\n`
  const args = ['--config', 'config.yaml', '--hostname-override', 'Node-B', '-v', '5', '--proxy-mode', 'ipvs']
  const { configuration, file } = settings(args, config)
  t.equal(configuration.hostnameOverride, 'node-b')
  t.equal(configuration['logging.verbosity'], 5)
  t.equal(configuration.mode, 'nftables')
  t.same(file, { path: 'config.yaml', text: config })
})

t.test('--write-config-to writes what is in force, as kube-proxy does', async (t) => {
  for (const { args, file } of commands.filter(({ name }) => name === 'write-config-to')) {
    t.same(invoke(args), { run: 'write-config', path: 'written.yaml', text: file })
  }
  const written = invoke([
    '--write-config-to',
    'x',
    '--proxy-mode=ipvs',
    '--ipvs-scheduler',
    'wrr',
    '--nodeport-addresses=primary',
  ])
  const text = written.run === 'write-config' ? written.text : ''
  t.match(text, /^ {2}scheduler: wrr$/m)
  t.match(text, /^nodePortAddresses:\n- primary$/m)
  t.equal(toYaml(settings(['--config', 'config.yaml'], text).configuration), text, 'and what it wrote it reads')
})

t.test(
  "the file that kubeadm writes is what kube-proxy's defaults are, but for its kubeconfig and CIDRs",
  async (t) => {
    const kubeadm = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: null
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal:
  bridgeInterface: ""
  interfaceNamePrefix: ""
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables:
  localhostNodePorts: null
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: ""
  strictARP: false
  syncPeriod: 0s
  tcpFinTimeout: 0s
  tcpTimeout: 0s
  udpTimeout: 0s
kind: KubeProxyConfiguration
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: "0"
    text:
      infoBufferSize: "0"
  verbosity: 0
metricsBindAddress: ""
mode: ""
nftables:
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel:
  enableDSR: false
  forwardHealthCheckVip: false
  networkName: ""
  rootHnsEndpointName: ""
  sourceVip: ""
`
    const args = ['--config=config.yaml', '--hostname-override=node-1']
    const { configuration, warnings } = settings(args, kubeadm)
    const { configuration: silent } = settings(['--cluster-cidr', '10.244.0.0/16'])
    const kubeconfig = '/var/lib/kube-proxy/kubeconfig.conf'
    t.same(configuration, { ...silent, 'clientConnection.kubeconfig': kubeconfig, hostnameOverride: 'node-1' })
    t.same(warnings, [])
  },
)

t.test('/configz shows what kube-proxy shows of the same file', async (t) => {
  for (const [mode, recorded] of Object.entries(configz)) {
    const { configuration } = settings(['--config', 'config.yaml', '-v=2'], JSON.stringify(recorded.config))
    const expected = JSON.parse(recorded.configz) as Record<string, { clientConnection: { kubeconfig: string } }>
    const shown = expected['kubeproxy.config.k8s.io']
    if (shown === undefined) throw new Error('no configz')
    shown.clientConnection.kubeconfig = configuration['clientConnection.kubeconfig']
    t.equal(JSON.stringify(toObject(configuration)), JSON.stringify(shown), mode)
  }
})

t.test('flags are read by the grammar of kube-proxy', async (t) => {
  const args = ['--masquerade-all', '--ipvs-strict-arp=false', '-v2', '--oom-score-adj', '-5', '--kube-api-qps=2.5']
  const more = ['--nodeport-addresses', '10.0.0.0/8,fd00::/8', '--nodeport-addresses=192.0.2.0/24', '--healthz-port=0']
  const { configuration } = settings([...args, ...more, '--feature-gates', 'A=true,B=false', '--metrics-bind-address='])
  t.match(configuration, {
    'iptables.masqueradeAll': true,
    'ipvs.strictARP': false,
    'logging.verbosity': 2,
    oomScoreAdj: -5,
    'clientConnection.qps': 2.5,
    nodePortAddresses: ['10.0.0.0/8', 'fd00::/8', '192.0.2.0/24'],
    healthzBindAddress: '',
    metricsBindAddress: '',
    featureGates: { A: true, B: false },
  })
  for (const [argv, message] of [
    [['--no-such'], 'unknown flag: --no-such'],
    [['-x'], "unknown shorthand flag: 'x' in -x"],
    [['--proxy-mode'], '--proxy-mode: a value is missing'],
    [['--cleanup=x'], 'invalid argument "x" for "--cleanup" flag: strconv.ParseBool: parsing "x": invalid syntax'],
    [
      ['--ipvs-udp-timeout=3'],
      'invalid argument "3" for "--ipvs-udp-timeout" flag: time: missing unit in duration "3"',
    ],
  ] as const) {
    t.throws(() => invoke(argv), { message })
  }
})

t.test('under its own name bpvsd takes the same flags beside its own', async (t) => {
  const args = ['--kubeconfig', 'k', '--hostname-override=n', '--exclude-interfaces', 'lo', '--ipvs-scheduler', 'wlc']
  const invocation = invoke(args, '', 'bpvsd')
  t.match(invocation, { run: 'daemon', config: { excludeInterfaces: ['lo'], scheduler: 'wlc' } })
  const { configuration } = settings(args, '', 'bpvsd')
  t.equal(configuration['clientConnection.kubeconfig'], 'k')
  t.match(invoke(['--cleanup'], '', 'bpvsd'), { run: 'cleanup' })
  t.match(invoke(['--init-only'], '', 'bpvsd'), { run: 'init' })
  t.match(invoke(['--config', 'config.yaml'], `${head}mode: ipvs\n`, 'bpvsd'), {
    kubeProxy: { configuration: { mode: 'ipvs' } },
  })
  t.match(invoke(['--config', 'config.yaml'], 'xdp: off\n', 'bpvsd'), { config: { xdp: 'off' } })
})

t.test('the schedule of changes, timeouts and who is local follow from the mode and its fields', async (t) => {
  const ipvs = settings([
    '--proxy-mode=ipvs',
    '--ipvs-min-sync-period=1s500ms',
    '--ipvs-udp-timeout',
    '1500ms',
  ]).configuration
  t.equal(gatherMs(ipvs), 1500)
  t.same(timeoutsOf(ipvs), { tcpS: 0, tcpFinS: 0, udpS: 2 })
  t.same(localDetection(ipvs), { by: 'cluster', cidrs: [] })
  for (const [flags, expect] of [
    [['--cluster-cidr=10.0.0.0/8,fd00::/56'], { by: 'cluster', cidrs: ['10.0.0.0/8', 'fd00::/56'] }],
    [['--detect-local-mode=NodeCIDR'], { by: 'node' }],
    [['--detect-local-mode=BridgeInterface', '--pod-bridge-interface=cni0'], { by: 'bridge', name: 'cni0' }],
    [
      ['--detect-local-mode=InterfaceNamePrefix', '--pod-interface-name-prefix=cali'],
      { by: 'interfaces', prefix: 'cali' },
    ],
  ] as const) {
    t.same(localDetection(settings([...flags]).configuration), expect)
  }
  t.equal(gatherMs(settings(['--proxy-mode=iptables', '--ipvs-min-sync-period=1s']).configuration), 0)
})

t.test('durations are read and written as Go does', async (t) => {
  for (const [text, ns] of [
    ['0', 0],
    ['0s', 0],
    ['1.5h', 5400e9],
    ['-1m', -60e9],
    ['1h2m3s4ms', 3723.004e9],
    ['.5s', 0.5e9],
    ['100us', 1e5],
  ] as const) {
    t.equal(parseDuration(text), ns, text)
  }
  for (const [ns, text] of [
    [0, '0s'],
    [1, '1ns'],
    [1500, '1.5µs'],
    [2.5e6, '2.5ms'],
    [1e9, '1s'],
    [90e9, '1m30s'],
    [86400e9, '24h0m0s'],
    [-1e9, '-1s'],
    [3600.5e9, '1h0m0.5s'],
  ] as const) {
    t.equal(formatDuration(ns), text, text)
    t.equal(parseDuration(text), ns, `${text}, back`)
  }
  for (const text of ['', 'x', '1', '1x', '1.2.3s', '--1s', '1 s'])
    t.throws(() => parseDuration(text), { code: 'CONFIG' }, text)
})
