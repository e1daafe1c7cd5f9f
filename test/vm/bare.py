#!/usr/bin/python3
"""Pods of another node behind interfaces without an Ethernet header; see README.md.

  client 192.0.2.2, fd00:192::2 --- eth0 [ director ] eth1 198.51.100.1, fd00:198::1 --- 198.51.100.2, fd00:198::2 other
                                            |  tunnel 10.128.255.1, fd00:128:0:ff::1      tunnel 10.129.255.1, fd00:129:0:ff::1
                       pod 10.128.0.10, fd00:128::10                                      pod 10.129.0.16, fd00:129::16

Through IP in IP as Calico has it (tunl0, whose peers only routes name) and ip6tnl, and then through WireGuard. The services are
bpvsd's: cluster IPs, and node ports, which are masqueraded.
"""
import errno
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time

import wireguard
from scene import BPVSADM, CHECKOUT, In, check, failures, namespace, sh

BPVSD = os.environ.get('BPVSD', os.path.join(CHECKOUT, 'bin/bpvsd'))
PATIENCE = 90
BULK = 1 << 19
NODE = {4: ('192.0.2.1', '10.128.255.1'), 6: ('fd00:192::1', 'fd00:128:0:ff::1')}
VIP = {4: ('10.96.0.10', '10.96.0.11'), 6: ('fd00:96::10', 'fd00:96::11')}
REMOTE = {4: '10.129.0.16', 6: 'fd00:129::16'}
SEEN = {  # what the server sees of who calls: a cluster IP, a node port
    'pod': {4: ('10.128.0.10', NODE[4][1]), 6: ('fd00:128::10', NODE[6][1])},
    'client': {4: ('192.0.2.2', NODE[4][1]), 6: ('fd00:192::2', NODE[6][1])},
    'director': {4: (NODE[4][1], NODE[4][1]), 6: (NODE[6][1], NODE[6][1])},
}


def ip(where, *lines):
    for line in lines:
        sh(f'ip -n {where} {line}')


def network():
    for name in ('client', 'director', 'other', 'pod'):
        namespace(name)
        sh(f'ip netns exec {name} sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0')
        ip(name, 'link set lo up')
    sh('ip netns exec director sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1')
    for where, device in (('client', 'eth0'), ('other', 'eth1'), ('pod', 'veth0')):
        ip('director', f'link add {device} type veth peer name eth0 netns {where}', f'link set {device} up')
        ip(where, 'link set eth0 up')
    for where, device, four, six in (
        ('director', 'eth0', '192.0.2.1/24', 'fd00:192::1/64'), ('client', 'eth0', '192.0.2.2/24', 'fd00:192::2/64'),
        ('director', 'eth1', '198.51.100.1/24', 'fd00:198::1/64'), ('other', 'eth0', '198.51.100.2/24', 'fd00:198::2/64'),
        ('director', 'veth0', '10.128.0.1/24', 'fd00:128::1/64'), ('pod', 'eth0', '10.128.0.10/24', 'fd00:128::10/64'),
        ('other', 'lo', '10.129.0.16/32', 'fd00:129::16/128'),
    ):
        ip(where, f'addr add {four} dev {device}', f'addr add {six} dev {device} nodad')
    for where, four, six in (('client', '192.0.2.1', 'fd00:192::1'), ('pod', '10.128.0.1', 'fd00:128::1')):
        ip(where, f'route add default via {four}', f'-6 route add default via {six}')
    ip('director', 'route add default via 192.0.2.2', '-6 route add default via fd00:192::2')


def tunnel_addresses(device4, device6):
    for where, own in (('director', 128), ('other', 129)):
        ip(where, f'link set {device4} up', f'link set {device6} up', f'addr add 10.{own}.255.1/32 dev {device4}',
           f'addr add fd00:{own}:0:ff::1/128 dev {device6} nodad')


def routes(gateway, device4, device6):
    """Each node's own networks, the client's, and services, all through the tunnel."""
    for where, own, peer in (('director', 1, 2), ('other', 2, 1)):
        nets = ((f'10.{127 + peer}.0.0/16',), (f'fd00:{127 + peer}::/32',))
        if where == 'other':
            nets = ((*nets[0], '10.96.0.0/16', '192.0.2.0/24'), (*nets[1], 'fd00:96::/64', 'fd00:192::/64'))
        via = f'via 198.51.100.{peer} dev {device4} onlink' if gateway else f'dev {device4}'
        ip(where, *(f'route replace {net} {via}' for net in nets[0]),
           *(f'-6 route replace {net} dev {device6}' for net in nets[1]))


def ipip():
    for where, own, peer in (('director', 1, 2), ('other', 2, 1)):
        ip(where, f'link add six type ip6tnl mode ip6ip6 local fd00:198::{own} remote fd00:198::{peer} encaplimit none')
    tunnel_addresses('tunl0', 'six')
    routes(True, 'tunl0', 'six')


def no_ipip():
    for where in ('director', 'other'):
        ip(where, 'link del six', 'addr flush dev tunl0', 'link set tunl0 down')


def wg():
    keys = {where: wireguard.key_pair() for where in ('director', 'other')}
    for where, peer, number in (('director', 'other', 2), ('other', 'director', 1)):
        ip(where, 'link add wg0 mtu 1420 type wireguard')
        wireguard.configure(where, 'wg0', keys[where][0], keys[peer][1], f'198.51.100.{number}', ('0.0.0.0/0', '::/0'))
    tunnel_addresses('wg0', 'wg0')
    routes(False, 'wg0', 'wg0')


def serve():
    """Says who calls, and then whatever the caller says, to its end."""
    with In('other'):
        listener = socket.create_server(('::', 8080), family=socket.AF_INET6, dualstack_ipv6=True)
        datagrams = {family: socket.socket(family, socket.SOCK_DGRAM) for family in (socket.AF_INET, socket.AF_INET6)}
    datagrams[socket.AF_INET].bind((REMOTE[4], 8080))
    datagrams[socket.AF_INET6].bind((REMOTE[6], 8080))

    def converse(connection, caller):
        connection.sendall(caller.removeprefix('::ffff:').ljust(64).encode())
        while data := connection.recv(1 << 16):
            connection.sendall(data)
        connection.close()

    def accept():
        while True:
            connection, (caller, *_) = listener.accept()
            threading.Thread(target=converse, args=(connection, caller), daemon=True).start()

    def reply(server):
        while True:
            _, client = server.recvfrom(2000)
            server.sendto(client[0].ljust(64).encode(), client)

    threading.Thread(target=accept, daemon=True).start()
    for server in datagrams.values():
        threading.Thread(target=reply, args=(server,), daemon=True).start()


def opened(where, address, port, kind):
    with In(where):
        caller = socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET, kind)
    caller.settimeout(20)
    caller.connect((address, port))
    return caller


def call(where, address, port):
    """Who the server says that it was called by; then much, there and back, in packets too big for the tunnel."""
    with opened(where, address, port, socket.SOCK_STREAM) as caller:
        said = caller.recv(64, socket.MSG_WAITALL).decode().strip()
        sent = bytes(i * 7 & 255 for i in range(1 << 16)) * (BULK >> 16)
        threading.Thread(target=caller.sendall, args=(sent,), daemon=True).start()
        got = b''
        while len(got) < len(sent) and (data := caller.recv(1 << 20)):
            got += data
        return said if got == sent else f'{len(got)} of {len(sent)} bytes'


def ask(where, address, port):
    with opened(where, address, port, socket.SOCK_DGRAM) as caller:
        caller.send(b'x' * 100)
        return caller.recv(64).decode().strip()


def too_big(where, address, port):
    """Sends what fits the first network, but not the tunnel, and must not be cut: the director says so."""
    with opened(where, address, port, socket.SOCK_DGRAM) as caller:
        six = ':' in address
        level, option = (socket.IPPROTO_IPV6, 23) if six else (socket.IPPROTO_IP, 10)  # IPV6_MTU_DISCOVER, IP_MTU_DISCOVER
        caller.setsockopt(level, option, 2)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            caller.send(bytes(1452 if six else 1472))
            time.sleep(0.05)
        return 'nothing said'


def attempt(what, expected, run, *args):
    try:
        said = run(*args)
    except OSError as error:
        said = errno.errorcode.get(error.errno, str(error))
    check(said == expected, f'{what}: {said}')


def try_all(how):
    for family in (4, 6):
        for where, seen in SEEN.items():
            for what, address, port, expected in (('a cluster IP', VIP[family][0], 80, seen[family][0]),
                                                  ('a node port', NODE[family][0], 30080, seen[family][1])):
                attempt(f'{how}, IPv{family}: {where} calls {what}', expected, call, where, address, port)
                attempt(f'{how}, IPv{family}: {where} asks {what}', expected, ask, where, address, port)
        # the other node's own call: its pod is behind the tunnel that it came by
        attempt(f'{how}, IPv{family}: the other node calls a node port', NODE[family][1], call, 'other', NODE[family][0], 30080)
        attempt(f'{how}, IPv{family}: the other node asks a node port', NODE[family][1], ask, 'other', NODE[family][0], 30080)
        for where in ('pod', 'client'):
            attempt(f'{how}, IPv{family}: {where} learns of the path MTU', 'EMSGSIZE', too_big, where, VIP[family][0], 80)
        for where in (*SEEN, 'other'):
            for run in (call, ask):
                attempt(f'{how}, IPv{family}: {where} is refused', 'ECONNREFUSED', run, where, VIP[family][1], 80)


def manifests(directory):
    objects = []
    for family in (4, 6):
        for name, address, servers in (('web', VIP[family][0], [REMOTE[family]]), ('none', VIP[family][1], [])):
            name = f'{name}{family}'
            node_port = {'nodePort': 30080} if servers else {}
            ports = [{'name': kind.lower(), 'port': 80, 'targetPort': 8080, 'protocol': kind, **node_port} for kind in ('TCP', 'UDP')]
            objects += [{
                'apiVersion': 'v1', 'kind': 'Service', 'metadata': {'name': name, 'namespace': 'default'},
                'spec': {'type': 'NodePort' if servers else 'ClusterIP', 'clusterIP': address, 'ports': ports},
            }, {
                'apiVersion': 'discovery.k8s.io/v1', 'kind': 'EndpointSlice', 'addressType': f'IPv{family}',
                'metadata': {'name': name, 'namespace': 'default', 'labels': {'kubernetes.io/service-name': name}},
                'ports': [{'name': each['name'], 'port': 8080, 'protocol': each['protocol']} for each in ports],
                'endpoints': [{'addresses': [server], 'conditions': {'ready': True}} for server in servers],
            }]
    for i, each in enumerate(objects):
        with open(f'{directory}/{i}.json', 'w') as file:
            json.dump(each, file)


def start_bpvsd(directory):
    daemon = subprocess.Popen(['ip', 'netns', 'exec', 'director', BPVSD, '--manifests', directory, '--xdp', 'off'],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = []
    ready = threading.Event()

    def read():
        for line in daemon.stdout:
            said.append(line)
            if '"msg":"ready"' in line:
                ready.set()

    threading.Thread(target=read, daemon=True).start()
    if not ready.wait(PATIENCE):
        raise SystemExit(f'bpvsd is not ready: {"".join(said)}')
    return daemon


def attached(device):
    """Waits for the programs on an interface that came, or came up, while bpvsd runs."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        hooks = sh(f'ip netns exec director {BPVSADM} --hooks')
        if len(re.findall(rf'^{device}\s', hooks, re.M)) == 2:
            check(True, f'the programs are on {device}')
            return
        time.sleep(0.3)
    check(False, f'the programs are on {device}: {hooks}')


def main():
    sh('modprobe -a veth ipip ip6_tunnel wireguard')
    network()
    serve()
    with tempfile.TemporaryDirectory() as directory:
        manifests(directory)
        daemon = start_bpvsd(directory)
        check('tunl0' not in sh(f'ip netns exec director {BPVSADM} --hooks'), 'nothing is on a tunl0 that is down')
        ipip()
        for device in ('tunl0', 'six'):
            attached(device)
        try_all('IP in IP')
        no_ipip()
        wg()
        attached('wg0')
        try_all('WireGuard')
        daemon.terminate()
        daemon.wait()
    print(sh(f'ip netns exec director {BPVSADM} --check') + sh(f'ip netns exec director {BPVSADM} --verdicts'), flush=True)
    sh(f'ip netns exec director {BPVSADM} --unload')
    print(f'{len(failures)} failures', flush=True)
    return 1 if failures else 0


sys.exit(main())
