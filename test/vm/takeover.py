#!/usr/bin/python3
"""A node goes from kube-proxy to bpvsd and back, with connections; see README.md.

  10.1.0.11, fd00:1::11 client --- d1 [director] d2 --- 10.2.0.11, fd00:2::11 server1, .12 server2

What kube-proxy would make leads to server1, which has weight 0 with bpvsd: who answers tells who sent the client there.
"""
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time

from scene import BPVSADM, CHECKOUT, In, check, failures, namespace, sh

BPVSD = os.environ.get('BPVSD', os.path.join(CHECKOUT, 'bin/bpvsd'))
# Virtual addresses, the node's own, what servers have: by family.
CLUSTER = {4: '10.96.0.1', 6: 'fd00:96::1'}
NODE = {4: '10.1.0.1', 6: 'fd00:1::1'}
SERVERS = {4: ('10.2.0.11', '10.2.0.12'), 6: ('fd00:2::11', 'fd00:2::12')}
NAMES = ('server1', 'server2')
PLACES = [(family, address, port) for family in (4, 6) for address, port in ((CLUSTER[family], 80), (NODE[family], 30080))]
FEW = 'setpriv --bounding-set -all,+bpf,+perfmon,+net_admin'
PATIENCE = 20


def bare(address):
    return f'[{address}]' if ':' in address else address


def inside(where, command, **more):
    return subprocess.run(f'ip netns exec {where} {command}', shell=True, capture_output=True, text=True, **more)


def network():
    for name in ('client', 'director', *NAMES):
        namespace(name)
        sh(f'ip netns exec {name} sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0')
        sh(f'ip -n {name} link set lo up')
    sh('ip netns exec director sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1')
    # Longer than bpvsd takes to start: 30 s are not, on a slow machine.
    sh('ip netns exec director sysctl -qw net.netfilter.nf_conntrack_udp_timeout=300')
    sh('ip -n director link add d1 type veth peer name e0 netns client')
    sh('ip -n director link add name sw0 type bridge && ip -n director link set sw0 up')
    for number, name in enumerate(NAMES):
        sh(f'ip -n director link add s{number} type veth peer name e0 netns {name}')
        sh(f'ip -n director link set s{number} master sw0 up')
        sh(f'ip -n {name} addr add 10.2.0.{11 + number}/24 dev e0 && ip -n {name} addr add fd00:2::{11 + number}/64 dev e0 nodad')
    sh('ip -n director addr add 10.1.0.1/24 dev d1 && ip -n director addr add fd00:1::1/64 dev d1 nodad')
    sh('ip -n director addr add 10.2.0.1/24 dev sw0 && ip -n director addr add fd00:2::1/64 dev sw0 nodad')
    sh('ip -n client addr add 10.1.0.11/24 dev e0 && ip -n client addr add fd00:1::11/64 dev e0 nodad')
    sh('ip -n director link set d1 up')
    sh('ip -n director route add default via 10.1.0.11 && ip -n director -6 route add default via fd00:1::11')
    for name in ('client', *NAMES):
        sh(f'ip -n {name} link set e0 up')
        gate = '1' if name == 'client' else '2'
        sh(f'ip -n {name} route add default via 10.{gate}.0.1 && ip -n {name} -6 route add default via fd00:{gate}::1')


def echo(connection, name):
    with connection:
        while text := connection.recv(100):
            connection.sendall(name.encode() + b' ' + text)


def serve(name):
    """Answers all that it hears, on TCP and UDP, with its name and what it heard."""
    with In(name):
        listener = socket.create_server(('::', 8080), family=socket.AF_INET6, dualstack_ipv6=True)
        datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    datagrams.bind(('::', 8080))

    def accept():
        while True:
            threading.Thread(target=echo, args=(listener.accept()[0], name), daemon=True).start()

    def answer():
        while True:
            text, sender = datagrams.recvfrom(100)
            datagrams.sendto(name.encode() + b' ' + text, sender)

    threading.Thread(target=accept, daemon=True).start()
    threading.Thread(target=answer, daemon=True).start()


def opened(where='client', places=PLACES):
    """A connection and a flow of datagrams to each place."""
    flows = []
    for family, address, port in places:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with In(where):
                flow = socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, kind)
            flow.settimeout(PATIENCE)
            flow.connect((address, port))
            flows.append(flow)
    return flows


def answers(flows):
    """Who answers on each: the name, or what went wrong."""
    said = []
    for flow in flows:
        try:
            flow.sendall(b'hello')
            said.append(flow.recv(100).decode().split(' ')[0])
        except OSError as error:
            said.append(str(error))
    return said


def expect(flows, name, what):
    said = answers(flows)
    check(said == [name] * len(flows), f'{what}: {sorted(set(said))}')


def ended(flows):
    """Each end sees the other's: a connection that goes on to its end."""
    fine = True
    for flow in flows:
        if flow.type == socket.SOCK_STREAM:
            flow.shutdown(socket.SHUT_WR)
            try:
                fine = fine and flow.recv(100) == b''
            except OSError:
                fine = False
        flow.close()
    return fine


def rules(family, translated):
    """What iptables-nft would have of kube-proxy's iptables mode (`translated`) or its ipvs mode."""
    ip = 'ip6' if family == 6 else 'ip'
    server = f'{bare(SERVERS[family][0])}:8080'
    to = [f'{ip} daddr {address} {proto} dport {port}' for f, address, port in PLACES if f == family for proto in ('tcp', 'udp')]
    dnat = ''.join(f'{each} jump KUBE-SVC-{i}\n' if translated else '' for i, each in enumerate(to))
    chains = ''.join(f'chain KUBE-SVC-{i} {{ jump KUBE-MARK-MASQ; meta l4proto {each.split()[3]} dnat to {server}; }}\n' for i, each in enumerate(to))
    marks = '' if translated else ''.join(f'{each} jump KUBE-MARK-MASQ\n' for each in to)
    return f'''table {ip} nat {{
      chain KUBE-MARK-MASQ {{ meta mark set meta mark or 0x4000; }}
      {chains if translated else ''}
      chain KUBE-SERVICES {{ {marks} {dnat} }}
      chain KUBE-POSTROUTING {{ meta mark and 0x4000 == 0 return; meta mark set meta mark xor 0x4000; masquerade fully-random; }}
      chain PREROUTING {{ type nat hook prerouting priority dstnat; jump KUBE-SERVICES; }}
      chain OUTPUT {{ type nat hook output priority -100; jump KUBE-SERVICES; }}
      chain POSTROUTING {{ type nat hook postrouting priority srcnat; jump KUBE-POSTROUTING; }}
    }}
    table {ip} filter {{
      chain KUBE-FORWARD {{ ct state invalid drop; meta mark and 0x4000 != 0 accept; ct state related,established accept; }}
      chain FORWARD {{ type filter hook forward priority filter; jump KUBE-FORWARD; }}
    }}
    '''


def start_old(mode):
    ruleset = ''.join(rules(family, mode == 'iptables') for family in (4, 6))
    done = inside('director', 'nft -f -', input=ruleset)
    if done.returncode:
        raise SystemExit(done.stderr)
    if mode == 'iptables':
        return
    sh('ip netns exec director sysctl -qw net.ipv4.vs.conntrack=1 net.ipv4.vs.expire_nodest_conn=1 net.ipv4.vs.expire_quiescent_template=1')
    sh('ip -n director link add kube-ipvs0 type dummy')
    for family in (4, 6):
        sh(f'ip -n director addr add {CLUSTER[family]}/{128 if family == 6 else 32} dev kube-ipvs0 {"nodad" if family == 6 else ""}')
    for family, address, port in PLACES:
        for proto in '-t', '-u':
            sh(f'ip netns exec director /usr/sbin/ipvsadm -A {proto} {bare(address)}:{port} -s rr')
            sh(f'ip netns exec director /usr/sbin/ipvsadm -a {proto} {bare(address)}:{port} -r {bare(SERVERS[family][0])}:8080 -m')


def manifests(directory):
    for i, (family, address, port) in enumerate(PLACES):
        ports = [{'name': p, 'port': port, 'protocol': p.upper(), 'targetPort': 8080} for p in ('tcp', 'udp')]
        name = f'place{i}'
        objects = [
            {'apiVersion': 'v1', 'kind': 'Service', 'metadata': {'name': name, 'namespace': 'default', 'annotations': {'bpvs.io/weights': f'{SERVERS[family][0]}=0,*=1'}}, 'spec': {'clusterIP': address, 'ports': ports}},
            {
                'apiVersion': 'discovery.k8s.io/v1', 'kind': 'EndpointSlice', 'addressType': f'IPv{family}',
                'metadata': {'name': name, 'namespace': 'default', 'labels': {'kubernetes.io/service-name': name}},
                'ports': [{'name': p['name'], 'port': 8080, 'protocol': p['protocol']} for p in ports],
                'endpoints': [{'addresses': [server], 'conditions': {'ready': True}} for server in SERVERS[family]],
            },
        ]
        with open(f'{directory}/{name}.yaml', 'w') as file:
            file.write('\n---\n'.join(json.dumps(each) for each in objects))


class Bpvsd:
    """Runs in the director until it is ended."""

    def __init__(self, directory, prefix=''):
        # Not by ip(8), which would hide the file system for pins, that few capabilities can't find elsewhere.
        command = f'nsenter --net=/run/netns/director {prefix} {BPVSD} --manifests {directory} --admin-socket='
        self.process = subprocess.Popen(command.split(), stdout=subprocess.PIPE, text=True)
        self.lines = []
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def logged(self, message):
        for _ in range(1200):
            for line in list(self.lines):
                if line['msg'] == message:
                    return line
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        raise SystemExit(f'bpvsd did not log "{message}": {self.lines}')

    def end(self):
        self.process.terminate()
        self.process.wait()


def bpvsd_once(*flags):
    done = inside('director', ' '.join([BPVSD, *flags]))
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return json.loads(done.stdout.strip().split('\n')[-1])


def go_over(mode, directory, prefix=''):
    """There and back again. `prefix`: bpvsd has the DaemonSet's capabilities only, and can't ask connection tracking."""
    what = f'{mode}{", few capabilities" if prefix else ""}'
    start_old(mode)
    old, old_local = opened(), opened('director', [place for place in PLACES if place[1] in CLUSTER.values()])
    expect(old + old_local, 'server1', f'{what}: before')
    daemon = Bpvsd(directory, prefix)
    line = daemon.logged('taking over from another proxy')
    check(line['datagrams'] == (not prefix), f'{what}: found {line["found"]}, datagrams {line["datagrams"]}')
    daemon.logged('ready')
    ours = opened()
    expect(ours, 'server2', f'{what}: what is new')
    kept = [flow for flow in old if flow.type == socket.SOCK_STREAM] if prefix else old
    expect(kept + old_local, 'server1', f'{what}: what was there')
    expect(opened('director', PLACES[:1]), 'server1', f'{what}: the node itself, as long as there are rules')
    if mode == 'iptables':
        said = bpvsd_once('--cleanup-kube-proxy')
        check(said['chains'] > 0 and said['left'] > 0 and said['ended'] == 0, f'{what}: {said}')
        expect(kept + old_local, 'server1', f'{what}: what was there, without its rules')
        check(ended(kept + old_local), f'{what}: what was there, to its end')
    else:
        check(ended(kept + old_local), f'{what}: what was there, to its end')
        said = bpvsd_once('--cleanup-kube-proxy', '--cleanup-wait-s', '10')
        check(said['ipvsServices'] and said['interface'] and said['chains'] > 0, f'{what}: {said}')
    expect(ours, 'server2', f'{what}: ours, when it is gone')
    expect(opened('director', [(4, CLUSTER[4], 80)]), 'server2', f'{what}: the node itself, when it is gone')
    start_old(mode)
    daemon.end()
    with In('director'):
        leaving = subprocess.Popen([BPVSD, '--cleanup', '--cleanup-wait-s', '20'], stdout=subprocess.PIPE, text=True)
    while sh(f'ip netns exec director {BPVSADM} --handover') != 'to\n':
        time.sleep(0.1)
    back = opened()
    expect(back, 'server1', f'{what}: back, what is new')
    expect(ours, 'server2', f'{what}: back, what was there')
    check(ended(ours), f'{what}: back, what was there, to its end')
    out, _ = leaving.communicate()
    check(json.loads(out.strip().split('\n')[-1])['found'], f'{what}: {out.strip().split(chr(10))[-1]}')
    expect(back, 'server1', f'{what}: without bpvs')
    ended(back)
    bpvsd_once('--cleanup-kube-proxy')
    bpvsd_once('--cleanup-kube-proxy')
    sh('ip netns exec director nft flush ruleset')


network()
for each in NAMES:
    serve(each)
with tempfile.TemporaryDirectory() as made:
    manifests(made)
    for each in ('iptables', 'ipvs'):
        go_over(each, made)
        go_over(each, made, FEW)
sys.exit(bool(failures))
