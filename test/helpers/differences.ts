/**
 * Recorded answers that bpvs does not give, by intent. docs/differences.md tells of each by its name, and nothing else
 * may differ: a case that is not here, and one that is here but is answered as recorded, fail.
 */

/** Cases of one scenario that differ for one reason. */
export interface Difference {
  /** What docs/differences.md calls it. */
  readonly name: string
  readonly recording: string
  readonly scenario: string
  /** Which cases: what was done, as the replaying test calls it. */
  readonly what: RegExp
  /** How many there are. */
  readonly cases: number
  /** What differs: each of the test's texts about a case has to match. */
  readonly found: RegExp
}

const commandLine: readonly Difference[] = [
  {
    name: 'large-mark',
    recording: 'commands',
    scenario: 'service_fwmark',
    what: /^-A -f 4294967295$/,
    cases: 1,
    found: /^table: "-A -f 4294967295 .* recorded "-A -f -1 /,
  },
  {
    name: 'large-mark',
    recording: 'grammar',
    scenario: 'numbers',
    what: /^-A -f '(2147483648|4294967295)'$/,
    cases: 2,
    found: /^table: /,
  },
  {
    name: 'large-mark',
    recording: 'listing',
    scenario: 'rich_idle',
    what: /^(-S|-S -n|-Sn|--save|--save --numeric)$/,
    cases: 5,
    found: /^stdout: "-A -f 4294967295 /,
  },
  {
    name: 'large-mark',
    recording: 'grammar',
    scenario: 'names_and_order',
    what: /^-S( -n)?$/,
    cases: 2,
    found: /^stdout: /,
  },
  {
    name: 'flag-3',
    recording: 'grammar',
    scenario: 'sched_flags',
    what: /-s [ms]h -b .*flag-3/,
    cases: 6,
    found: /^(stdout|table): .*flag-3/,
  },
  {
    name: 'flag-3',
    recording: 'grammar',
    scenario: 'listing_2',
    what: /^-[LS]/,
    cases: 10,
    found: /^stdout: .*flag-3/,
  },
  {
    name: 'no-flags',
    recording: 'grammar',
    scenario: 'sched_flags',
    what: / ,,,$/,
    cases: 5,
    found: /^(status: .* recorded -11$|stderr: |table: )/,
  },
  {
    name: 'next-free-word',
    recording: 'grammar',
    scenario: 'popt',
    what: /^-A -t "!#:\+" /,
    cases: 1,
    found: /^(status|stderr|table): /,
  },
  ...['proc_empty', 'proc_services'].map((scenario) => ({
    name: 'ftp',
    recording: 'proc',
    scenario,
    what: /^ip_vs_app$/,
    cases: 1,
    found: /recorded .*ftp/,
  })),
  {
    name: 'tunables',
    recording: 'proc',
    scenario: 'proc_sysctl',
    what: /^sysctl$/,
    cases: 1,
    found: /^foreign tunables$/,
  },
  {
    name: 'long-word',
    recording: 'grammar',
    scenario: 'restore',
    what: /x{4097}/,
    cases: 1,
    found: /^stderr: /,
  },
]

const counters = /^ipvsadm -Ln --stats( --exact)?:\n/

/** Counters of less than two seconds ago. */
function atOnce(recording: string, scenario: string, what: RegExp, cases: number): Difference {
  return { name: 'counters-at-once', recording, scenario, what, cases, found: /^(ipvsadm -Ln --stats|ip_vs_stats)/ }
}

const atOnceInTraffic: readonly Difference[] = [
  atOnce('extra', 'unavailable', /^-Ln --stats$/, 1),
  atOnce('listing', 'many_packets', /^-Ln --stats( --exact)?$/, 2),
  atOnce('proc', 'proc_conns', /^(ip_vs_stats(_percpu)?|-Ln --stats --exact)$/, 3),
  atOnce('proc', 'proc_nodest', /^(ip_vs_stats(_percpu)?|-Ln --stats --exact)$/, 3),
  atOnce('stats', 'burst', /^-Ln --stats --exact$/, 1),
  atOnce('stats', 'steady', /^-Ln --stats --exact$/, 6),
]

/** The rich table of listing.json has two services with an engine, and two with servers that replies of are seen. */
const traffic: readonly Difference[] = [
  {
    name: 'persistence-engine',
    recording: 'listing',
    scenario: 'traffic',
    what: /--pe sip|:5060/,
    cases: 3,
    found: /status 255, recorded 0$/,
  },
  {
    name: 'persistence-engine',
    recording: 'listing',
    scenario: 'traffic',
    what: /^(-[Ll].*|--list.*|)$/,
    cases: 29,
    found: /lacks services of a persistence engine$/,
  },
  {
    name: 'persistence-engine',
    recording: 'listing',
    scenario: 'traffic',
    what: /^\/proc\/net\/ip_vs$/,
    cases: 1,
    found: /recorded .*:13C4/,
  },
  {
    name: 'large-mark',
    recording: 'listing',
    scenario: 'traffic',
    what: /^(-S|-S -n|-Sn|--save|--save --numeric)$/,
    cases: 6,
    found: /-A -f 4294967295 -s nq/,
  },
  {
    name: 'one-way-replies',
    recording: 'listing',
    scenario: 'traffic',
    what: /--stats|ip_vs_stats$/,
    cases: 10,
    found: /FWM {2}7 |^ip_vs_stats: /,
  },
  {
    name: 'refusal-source',
    recording: 'extra',
    scenario: 'unavailable',
    what: /^wire$/,
    cases: 5,
    found: /^wire: \["client receives fd00:9::1 > .* recorded \["client receives fd00:fe:1::1 > /,
  },
  {
    name: 'icmp6-error',
    recording: 'extra',
    scenario: 'unavailable',
    what: /^(wire|send \[fd00:1::1\]:4020 -> \[fd00:9::1\]:80)$/,
    cases: 2,
    found: /4020>7777|recorded no packet reached/,
  },
  {
    name: 'last-service',
    recording: 'extra2',
    scenario: 'delete_service/last',
    what: /^wire$/,
    cases: 1,
    found: /client receives 10\.9\.0\.1 > .* recorded \["client receives 10\.2\.0\.11 > /,
  },
  ...['proc_conns', 'proc_nodest'].map((scenario, i) => ({
    name: 'ftp',
    recording: 'proc',
    scenario,
    what: /^ip_vs_app$/,
    cases: 2 - i,
    found: /recorded .*ftp/,
  })),
]

const packets: readonly Difference[] = [
  ...atOnceInTraffic,
  ...traffic,
  ...['client_first', 'server_first', 'abort'].map((life) => ({
    name: 'counters-at-once',
    recording: 'extra',
    scenario: `sctp/${life}`,
    what: /^-Ln --stats$/,
    cases: 1,
    found: counters,
  })),
  {
    name: 'counters-at-once',
    recording: 'states',
    scenario: 'tcp_life',
    what: /^-Ln --stats --exact$/,
    cases: 1,
    found: counters,
  },
  {
    name: 'counters-at-once',
    recording: 'states',
    scenario: 'udp_life',
    what: /^-Ln --stats$/,
    cases: 1,
    found: counters,
  },
  ...['0', '1'].map((mode) => ({
    name: 'counters-at-once',
    recording: 'states',
    scenario: `server_removed/expire_nodest_conn=${mode}`,
    what: /^-Ln --stats$/,
    cases: 1,
    found: counters,
  })),
  {
    name: 'last-service',
    recording: 'states',
    scenario: 'server_removed/expire_nodest_conn=0',
    what: /^data of [01]$/,
    cases: 4,
    found: /"to_client":true\}, recorded \{"to_server":false,"to_client":false\}$/,
  },
]

const schedulers: readonly Difference[] = [
  {
    name: 'raised-threshold',
    recording: 'schedulers-lblc',
    scenario: 'lblc/threshold_all',
    what: /^(connect 10\.1\.0\.10:20009 -> 10\.9\.0\.1:80|-L.*)$/,
    cases: 3,
    found: /to refused, recorded 10\.2\.0\.11:80$|^ipvsadm -L/,
  },
]

/** Rows of kube-proxy's matrix; `ipvs`: its mode ipvs, which differs from mode nftables. */
const matrix: readonly Difference[] = [
  {
    name: 'random-pick',
    recording: 'kube-matrix',
    scenario: 'nftables-base',
    what: /^pod nodePort ranges both, udp over IPv6$/,
    cases: 1,
    found: /^local\+remote as .*, recorded remote as /,
  },
  {
    name: 'random-pick',
    recording: 'kube-matrix',
    scenario: 'nftables-masqall',
    what: /^external externalIP /,
    cases: 1,
    found: /^local\+remote as .*, recorded remote as /,
  },
  {
    name: 'loopback-node-ports',
    recording: 'kube-matrix',
    scenario: 'nftables-base',
    what: /^node nodePort-loopback \S+ (both|remote|self),/,
    cases: 40,
    found: /^(local|remote).* as .*, recorded refused$/,
  },
  {
    name: 'free-port',
    recording: 'kube-matrix',
    scenario: 'ipvs-base',
    what: / lbIP-other-port /,
    cases: 12,
    found: /^timeout, recorded refused$/,
  },
  {
    name: 'local-policy',
    recording: 'kube-matrix',
    scenario: 'ipvs-base',
    what: /^(external (nodePort|nodePort-other-address|lbIP|externalIP) etp|(pod|node|external) clusterIP itp) remote,/,
    cases: 28,
    found: /^timeout, recorded remote as /,
  },
  {
    name: 'insiders',
    recording: 'kube-matrix',
    scenario: 'ipvs-base',
    what: /^(pod|node) \S+ etp (both|remote|self),/,
    cases: 60,
    found: /^(local|remote).* as .*, recorded (local|remote) as /,
  },
]

const kube: readonly Difference[] = [
  ...matrix,
  {
    name: 'kube-proxy-words',
    recording: 'kube-proxy',
    scenario: 'all',
    what: /^(kubeconfig (missing|broken)|duplicate field|ipvs on a kernel without ip_vs|unknown scheduler|not YAML|other version)$/,
    cases: 7,
    found: /./,
  },
  {
    name: 'local-policy',
    recording: 'kube-cases',
    scenario: 'all',
    what: /^(2-nodename-absent|2-nodeport-etp-remote|3-lb-etp-remote|3-lb-itp-local-none)$/,
    cases: 4,
    found: /recorded:/,
  },
]

export const differences: readonly Difference[] = [...commandLine, ...packets, ...schedulers, ...kube]
