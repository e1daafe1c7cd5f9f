#!/usr/bin/python3
"""Sockets of a whole machine are balanced: bpvsd at the root of all control groups; see README.md.

  this machine 10.2.0.1, fd00:2::1 -----+-------- s0 10.2.0.11, fd00:2::11
                                        +-------- s1 10.2.0.12, fd00:2::12
"""
import errno
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading

from scene import BPVSADM, CHECKOUT, check, failures, sh

BPVSD = os.environ.get('BPVSD', os.path.join(CHECKOUT, 'bin/bpvsd'))
SERVERS = {'s0': 11, 's1': 12}
VIPS = {4: '10.9.0.1', 6: 'fd00:9::1'}
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
MARK = 7


def adm(line):
    return sh(f'{BPVSADM} {line}')


SERVER = '''
import socket, sys, threading
name = sys.argv[1].encode()
tcp = socket.socket(socket.AF_INET6); tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
for one in (tcp, udp): one.bind(('::', 8080))
tcp.listen(64)
def datagrams():
    while True:
        _, client = udp.recvfrom(100)
        udp.sendto(name, client)
threading.Thread(target=datagrams, daemon=True).start()
print('ready', flush=True)
kept = []
while True:
    connection, _ = tcp.accept()
    connection.send(name)
    kept.append(connection)
'''


def network():
    sh('ip link add servers type bridge mcast_snooping 0 && ip link set servers up')
    # Marked packets take the way of those that netfilter marks: they are forwarded.
    sh('sysctl -qw net.ipv4.ip_forward=1')
    sh('ip addr add 10.2.0.1/24 dev servers && ip addr add fd00:2::1/64 dev servers nodad')
    started = []
    for name, host in SERVERS.items():
        sh(f'ip netns add {name} && ip link add p-{name} type veth peer name e0 netns {name}')
        sh(f'ip link set p-{name} master servers up && ip -n {name} link set lo up')
        sh(f'ip -n {name} addr add 10.2.0.{host}/24 dev e0 && ip -n {name} addr add fd00:2::{host}/64 dev e0 nodad')
        sh(f'ip -n {name} link set e0 up')
        command = ['ip', 'netns', 'exec', name, sys.executable, '-c', SERVER, name]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        server.stdout.readline()
        started.append(server)
    return started


def balance():
    """bpvsd, once it says that sockets are balanced; killed then: the kernel goes on."""
    manifests = tempfile.mkdtemp()
    command = [BPVSD, '--manifests', manifests, '--socket', 'host', '--xdp', 'off']
    daemon = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    timer = threading.Timer(120, daemon.kill)
    timer.start()
    said = ''
    for line in daemon.stdout:
        said += line
        if json.loads(line)['msg'] in ('sockets', 'sockets are not balanced'):
            break
    timer.cancel()
    daemon.kill()
    daemon.wait()
    check('"msg":"sockets"' in said, 'bpvsd balances sockets of the root of all groups')
    if failures:
        raise SystemExit(said)


def serve(option, address, port):
    quoted = f'[{address}]' if ':' in address else address
    adm(f'-A {option} {quoted}:{port} -s rr')
    for host in SERVERS.values():
        server = f'[fd00:2::{host}]' if ':' in address else f'10.2.0.{host}'
        adm(f'-a {option} {quoted}:{port} -r {server}:8080 -m')


def stream(family, address, port=80, mark=0):
    one = socket.socket(FAMILIES[family])
    one.settimeout(5)
    if mark:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    one.connect((address, port))
    return one, one.recv(10).decode()


def listed(word):
    return sum(word in line for line in adm('-Lnc').splitlines())


def streams(family, address):
    called = [stream(family, address) for _ in range(4)]
    names = [name for _, name in called]
    check(sorted(names) == ['s0', 's0', 's1', 's1'], f'{address}: TCP, in turn')
    check(all(one.getpeername()[:2] == (address, 80) for one, _ in called), f'{address}: the peer is the service')
    check(listed('ESTABLISHED') == 4, f'{address}: four connections are listed')
    for one, _ in called:
        one.close()
    check(listed('ESTABLISHED') == 0, f'{address}: closed, none is')


def datagrams(family, address):
    one = socket.socket(FAMILIES[family], socket.SOCK_DGRAM)
    one.settimeout(5)
    one.sendto(b'x', (address, 53))
    name, client = one.recvfrom(100)
    check(name.decode() in SERVERS and client[:2] == (address, 53), f'{address}: UDP, the answer is the service\'s')
    one.connect((address, 53))
    check(one.getpeername()[:2] == (address, 53), f'{address}: UDP, connected')
    one.send(b'x')
    check(one.recv(100).decode() in SERVERS, f'{address}: UDP, connected, answered')
    one.close()
    check(listed('UDP ') == 0, f'{address}: UDP, closed')


def refused(family, address):
    try:
        stream(family, address, 81)
        check(False, f'{address}: refused without a server')
    except OSError as error:
        check(error.errno == errno.ECONNREFUSED, f'{address}: refused without a server: {error}')


def main():
    servers = network()
    try:
        balance()
        for address in VIPS.values():
            serve('-t', address, 80)
            serve('-u', address, 53)
            quoted = f'[{address}]' if ':' in address else address
            adm(f'-A -t {quoted}:81 -s rr')
        for family, address in ((4, VIPS[4]), (6, VIPS[6]), (6, f'::ffff:{VIPS[4]}')):
            streams(family, address)
            datagrams(family, address)
            refused(family, address)
        adm(f'-A -f {MARK} -s rr && {BPVSADM} -a -f {MARK} -r 10.2.0.11:8080 -m')
        one, name = stream(4, '10.9.0.9', 8080, MARK)
        check(name == 's0', 'a socket with a mark gets a server of the service by mark')
        one.close()
        adm('--check')  # whose status says it
    finally:
        adm('--unload')
        for server in servers:
            server.kill()
    print(f'{len(failures)} failures')
    sys.exit(1 if failures else 0)


if __name__ == '__main__':
    main()
