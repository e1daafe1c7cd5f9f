/** What the DaemonSet grants is enough: bpvsd with these capabilities alone, in namespaces as a container's are. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { build } from '../helpers/kustomize.ts'
import { needsRoot } from '../helpers/topology.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))

/** The capabilities that a container of an overlay has; undefined: it is privileged. */
function capabilitiesOf(list: 'containers' | 'initContainers', overlay = 'kubeadm'): readonly string[] | undefined {
  const daemonSet = build(join(root, 'deploy/overlays', overlay)).find(({ kind }) => kind === 'DaemonSet')
  const { template } = (daemonSet?.spec ?? {}) as { template: { spec: Record<string, readonly unknown[]> } }
  const [container] = template.spec[list] as readonly [
    { securityContext: { privileged: boolean; capabilities?: { add: readonly string[]; drop: readonly string[] } } },
  ]
  const { privileged, capabilities } = container.securityContext
  if (privileged) return undefined
  t.same(capabilities?.drop, ['ALL'])
  return capabilities?.add
}

/** The command with these capabilities and no way to more. */
function confined(capabilities: readonly string[]): string {
  const kept = capabilities.map((name) => `+${name.toLowerCase()}`)
  return `setpriv --no-new-privs --bounding-set=${['-all', ...kept].join(',')}`
}

/**
 * Runs a shell script in mount, process and network namespaces of its own, as those of a container: a bpf file system,
 * /proc/sys read-only, two interfaces. They go with the script, and all that it pins. `$P` confines.
 */
function inContainer(script: string, capabilities: readonly string[]) {
  const directory = mkdtempSync(join(tmpdir(), 'bpvs-deploy-'))
  try {
    const setUp = [
      'set -e; mount -t bpf bpf /sys/fs/bpf; mount -t tmpfs tmpfs /run',
      'mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys',
      'ip link set lo up; ip link add e0 type veth peer name e1; ip link set e0 up; ip link set e1 up',
      `P='${confined(capabilities)}'; PATH=${join(root, 'bin')}:$PATH; cd ${directory}`,
    ]
    writeFileSync(join(directory, 'script'), [...setUp, script].join('\n'))
    const namespaces = ['--mount', '--net', '--pid', '--fork', '--mount-proc', '--kill-child']
    const { status, stdout, stderr } = spawnSync('unshare', [...namespaces, 'sh', join(directory, 'script')], {
      encoding: 'utf8',
      timeout: 180_000,
      killSignal: 'SIGKILL',
    })
    return { status, stdout, stderr }
  } finally {
    rmSync(directory, { recursive: true })
  }
}

/** What must go well, one command a line; bpvsd runs in the background from `ready` on. */
const work = `$P bpvsd --manifests ${join(root, 'examples')} >log 2>&1 & pid=$!
timeout 150 sh -c 'until grep -q "msg.:.ready" log; do sleep 0.05; done' || { cat log; exit 1; }
$P bpvsadm -A -t 10.1.1.1:80 -s wlc
$P bpvsadm -a -t 10.1.1.1:80 -r 10.9.9.2:80 -m
$P bpvsadm -Sn | grep -c -- '-m -w'
$P bpvsadm --hooks | grep -c ' e[01] \\|^e[01] '
kill $pid
wait $pid
$P bpvsd --cleanup | grep -c '"found":true'`

t.test('the capabilities suffice to load, attach, balance and clean up', { skip: needsRoot }, async (t) => {
  const { status, stdout, stderr } = inContainer(work, capabilitiesOf('containers') ?? [])
  t.equal(status, 0, stderr)
  // Servers of the examples and ours; two hooks on each of two interfaces; what --cleanup found.
  t.equal(stdout, '17\n4\n1\n')
})

for (const missing of capabilitiesOf('containers') ?? []) {
  t.test(`without ${missing} bpvsd does not start: none is granted in vain`, { skip: needsRoot }, async (t) => {
    const rest = (capabilitiesOf('containers') ?? []).filter((name) => name !== missing)
    const { status, stdout } = inContainer('$P bpvsd --init-only', rest)
    t.not(status, 0)
    t.match(stdout, '"msg":"cannot start"')
  })
}

t.test('--init-only sets connection tracking, which bpvsd itself may not', { skip: needsRoot }, async (t) => {
  t.equal(capabilitiesOf('initContainers'), undefined, 'the init container is privileged')
  const timeout = '/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established'
  const script = `cat >config.conf <<'END'
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
conntrack: { maxPerCore: 0, tcpEstablishedTimeout: 1234s, tcpCloseWaitTimeout: 0s }
END
$P bpvsd --init-only --config=config.conf | grep -c '"msg":"cannot set"'
mount -o remount,bind,rw /proc/sys
bpvsd --init-only --config=config.conf | grep -c '"msg":"cannot set"' || true
cat ${timeout}`
  const { status, stdout, stderr } = inContainer(script, capabilitiesOf('containers') ?? [])
  t.equal(status, 0, stderr)
  t.equal(stdout, '1\n0\n1234\n')
})

/** What bpvsd wants of a host that gives out nearly all ports, and whose lo has its kernel's defaults. */
const settings = ['ipv4/conf/lo/forwarding', 'ipv6/conf/lo/forwarding', 'ipv4/conf/lo/accept_local']
const shown = settings.map((name) => `/proc/sys/net/${name}`).join(' ')
const reserved = '/proc/sys/net/ipv4/ip_local_reserved_ports'
const unset = `mount -o remount,bind,rw /proc/sys
for file in ${shown}; do echo 0 >$file; done
echo 1024 65535 >/proc/sys/net/ipv4/ip_local_port_range`
/** bpvsd as the pod runs it, until it is ready: how often it complains. */
const confinedRun = `mount -o remount,bind,ro /proc/sys
$P bpvsd --manifests ${join(root, 'examples')} --admin-socket= >log 2>&1 & pid=$!
timeout 150 sh -c 'until grep -q "msg.:.ready" log; do sleep 0.05; done' || { cat log; exit 1; }
grep -cE 'no ports|cannot set' log || true
$P bpvsadm --masquerade-ports
cat ${shown} ${reserved}
kill $pid; wait $pid`

for (const overlay of ['kubeadm', 'eks', 'plain']) {
  t.test(
    `${overlay}: after the init container nothing is left to set below /proc/sys`,
    { skip: needsRoot },
    async (t) => {
      t.equal(capabilitiesOf('initContainers', overlay), undefined, 'it is privileged')
      const script = `${unset}; bpvsd --init-only >/dev/null; ${confinedRun}`
      const { status, stdout, stderr } = inContainer(script, capabilitiesOf('containers', overlay) ?? [])
      t.equal(status, 0, stderr)
      t.equal(stdout, '0\n57344-65535\n1\n1\n1\n57344-65535\n')
    },
  )
}

t.test('without the init container bpvsd goes on, and says what it lacks', { skip: needsRoot }, async (t) => {
  const { status, stdout } = inContainer(`${unset}; ${confinedRun}`, capabilitiesOf('containers') ?? [])
  t.equal(status, 0)
  t.match(stdout, /^[1-9]\d*\n.*\n0\n0\n0\n\n$/s)
})

t.test('the init container sets it too where the table is there already', { skip: needsRoot }, async (t) => {
  const script = `mount -o remount,bind,rw /proc/sys; bpvsd --init-only >/dev/null; echo >${reserved}
${unset}; bpvsd --init-only >/dev/null; ${confinedRun}`
  const { status, stdout, stderr } = inContainer(script, capabilitiesOf('containers') ?? [])
  t.equal(status, 0, stderr)
  t.equal(stdout, '0\n57344-65535\n1\n1\n1\n57344-65535\n')
})
