#!/usr/bin/python3
"""Services whose clients and servers are behind one bond; see README.md.

  client 10.1.0.11, fd00:1::11 --- e0 --- bond1 (p0, p1) ======= bond0 (d0, d1) 10.1.0.1, fd00:1::1  director
  server 10.2.0.11, fd00:2::11 --- VLAN 20 of the same               bond0.20    10.2.0.1, fd00:2::1

The director's programs are on the bond and on the VLAN upon it, and not on what the bond is made of: each packet counts once. A
link goes down meanwhile. XDP is demanded on the bond then.
"""
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time

from scene import BPVSADM, CHECKOUT, In, check, failures, namespace, sh

BPVSD = os.environ.get('BPVSD', os.path.join(CHECKOUT, 'bin/bpvsd'))
BULK = 1 << 18
PATIENCE = 90
VIPS = ('10.9.0.1', 'fd00:9::1')


def adm(line):
    return sh(f'ip netns exec director {BPVSADM} {line}')


def ip(where, *lines):
    for line in lines:
        sh(f'ip -n {where} {line}')


def bond(where, name, *slaves):
    ip(where, f'link add {name} type bond mode active-backup miimon 50 fail_over_mac none')
    for slave in slaves:
        ip(where, f'link set {slave} down', f'link set {slave} master {name}', f'link set {slave} up')
    ip(where, f'link set {name} up')


def network():
    for name in ('switch', 'client', 'director', 'server'):
        namespace(name)
        sh(f'ip netns exec {name} sysctl -qw net.ipv6.conf.default.accept_dad=0')
    sh('ip netns exec director sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1')
    for number in (0, 1):
        ip('director', f'link add d{number} type veth peer name p{number} netns switch')
    bond('director', 'bond0', 'd0', 'd1')
    bond('switch', 'bond1', 'p0', 'p1')
    # The switch: the client's port as it is, the server's in VLAN 20.
    ip('switch', 'link add br0 type bridge', 'link add br20 type bridge', 'link add link bond1 name bond1.20 type vlan id 20',
       'link set bond1 master br0', 'link set bond1.20 master br20')
    for ns, bridge in (('client', 'br0'), ('server', 'br20')):
        ip('switch', f'link add s-{ns} type veth peer name e0 netns {ns}', f'link set s-{ns} master {bridge}', f'link set s-{ns} up')
    ip('switch', 'link set br0 up', 'link set br20 up', 'link set bond1.20 up')
    ip('director', 'link add link bond0 name bond0.20 type vlan id 20', 'link set bond0.20 up')
    for where, device, number, host in (('client', 'e0', 1, 11), ('director', 'bond0', 1, 1),
                                        ('server', 'e0', 2, 11), ('director', 'bond0.20', 2, 1)):
        ip(where, f'addr add 10.{number}.0.{host}/24 dev {device}', f'addr add fd00:{number}::{host}/64 dev {device} nodad',
           f'link set {device} up')
    for number, ns in ((1, 'client'), (2, 'server')):
        ip(ns, f'route add default via 10.{number}.0.1', f'-6 route add default via fd00:{number}::1')
    ip('director', 'route add default via 10.1.0.11', '-6 route add default via fd00:1::11')


def echo(connection):
    while data := connection.recv(1 << 16):
        connection.sendall(data)
    connection.close()


def serve():
    with In('server'):
        streams = socket.create_server(('::', 8080), family=socket.AF_INET6, dualstack_ipv6=True)
        datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    datagrams.bind(('::', 8080))

    def accept():
        while True:
            threading.Thread(target=echo, args=(streams.accept()[0],), daemon=True).start()

    def reply():
        while True:
            datagrams.sendto(*datagrams.recvfrom(2000))

    threading.Thread(target=accept, daemon=True).start()
    threading.Thread(target=reply, daemon=True).start()


def opened(where, address, kind):
    with In(where):
        client = socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET, kind)
    client.settimeout(20)
    client.connect((address, 80))
    return client


def stream(where, address, meanwhile=None):
    """Much, there and back; in the middle something happens."""
    with opened(where, address, socket.SOCK_STREAM) as client:
        for round in range(2):
            sent = bytes(i * 7 & 255 for i in range(1 << 16)) * (BULK >> 17)
            threading.Thread(target=client.sendall, args=(sent,), daemon=True).start()
            got = b''
            while len(got) < len(sent) and (data := client.recv(1 << 20)):
                got += data
            if got != sent:
                return False
            if meanwhile is not None and round == 0:
                meanwhile()
        return True


def datagrams(where, address, count):
    with opened(where, address, socket.SOCK_DGRAM) as client:
        for _ in range(count):
            client.send(b'x' * 1200)
            if client.recv(2000) != b'x' * 1200:
                return False
        return True


def counted(address):
    key = f'-u [{address}]:80' if ':' in address else f'-u {address}:80'
    return adm(f'-Ln {key} --stats --exact').split('\n')[-2].split()[2:5]


def attempt(what, run, *args):
    try:
        check(run(*args), what)
    except OSError as error:
        check(False, f'{what}: {error}')


def active():
    return re.search(r'Currently Active Slave: (\S+)', sh('ip netns exec director cat /proc/net/bonding/bond0')).group(1)


def fail_over():
    """The link in use goes, at both ends; it comes back for the next time."""
    before = active()
    ip('director', f'link set {before} down')
    deadline = time.monotonic() + PATIENCE
    while active() == before and time.monotonic() < deadline:
        time.sleep(0.05)
    ip('director', f'link set {before} up')


def try_all(how):
    for address in VIPS:
        for where in ('client', 'director'):
            attempt(f'TCP to {address} from the {where}, {how}', stream, where, address)
            adm('-Z')
            attempt(f'UDP to {address} from the {where}, {how}', datagrams, where, address, 5)
            check(counted(address) == ['1', '5', '5'], f'each datagram counts once: {counted(address)}')
        attempt(f'TCP to {address} goes on when a link fails, {how}', stream, 'client', address, fail_over)
        ping = subprocess.run(f'ip netns exec client ping -c 1 -W 5 {address}', shell=True, capture_output=True)
        check(ping.returncode == 0, f'echo to {address}, {how}')


def attached(expected):
    hooks = {tuple(line.split()[i] for i in (0, 2, 3)) for line in adm('--hooks').strip().split('\n')[1:]}
    own = {each for each in hooks if each[0] not in ('lo', 'e0')}
    check(own == expected, f'the programs are on {sorted(own)}')


def main():
    sh('modprobe -a veth bonding bridge 8021q')
    network()
    serve()
    for option in ('-t', '-u'):
        for service, server in (('10.9.0.1:80', '10.2.0.11:8080'), ('[fd00:9::1]:80', '[fd00:2::11]:8080')):
            adm(f'-A {option} {service} -s rr')
            adm(f'-a {option} {service} -r {server} -m')
    tc = {(device, hook, 'clsact' if ' clsact' in adm('--hooks') else 'tcx') for device in ('bond0', 'bond0.20') for hook in ('ingress', 'egress')}
    attached(tc)
    for bypass in ('always', 'never'):
        adm(f'--bypass {bypass}')
        try_all('past the stack' if bypass == 'always' else 'through the stack')
    with tempfile.TemporaryDirectory() as manifests:
        for end, devices in (('director', 'd0 d1'), ('switch', 'p0 p1 s-client s-server'), ('client', 'e0'), ('server', 'e0')):
            for device in devices.split():
                sh(f'ip netns exec {end} ethtool -K {device} tx off rxvlan off txvlan off')
        daemon = subprocess.Popen(['ip', 'netns', 'exec', 'director', BPVSD, '--manifests', manifests, '--xdp', 'native'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        said = ''
        while '"msg":"ready"' not in said:
            said = daemon.stdout.readline() or sys.exit(f'bpvsd is not ready: {said}')
        attached(tc | {('bond0', 'xdp', 'xdp-native')})  # which a VLAN cannot have
        adm('--bypass always')
        try_all('by XDP')
        daemon.terminate()
        daemon.wait()
    print(adm('--check') + adm('--verdicts'), flush=True)
    adm('--unload')
    print(f'{len(failures)} failures', flush=True)
    return 1 if failures else 0


sys.exit(main())
