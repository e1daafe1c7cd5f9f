#!/usr/bin/python3
"""Connections whose server has to see an address of the director; see README.md.

  10.1.0.1, fd00:1::1 d1 [director] d2 10.2.0.1, fd00:2::1 --- 10.2.0.11, fd00:2::11 server

The director calls a service, its own server, and its own address; a server calls its own service.
"""
import socket
import sys
import threading

from scene import BPVSADM, In, check, failures, namespace, sh

ADDRESSES = {4: ('10.9.0.1', '10.1.0.1', '10.2.0.1', '10.2.0.11'), 6: ('fd00:9::1', 'fd00:1::1', 'fd00:2::1', 'fd00:2::11')}
PATIENCE = 60


def adm(line):
    return sh(f'ip netns exec director {BPVSADM} {line}')


def network():
    for name in ('director', 'server'):
        namespace(name)
        sh(f'ip netns exec {name} sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv4.conf.default.rp_filter=1')
        sh(f'ip -n {name} link set lo up')
    sh('ip netns exec director sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1')
    sh('ip -n director link add d1 type veth peer name e1')
    sh('ip -n director link add d2 type veth peer name e0 netns server')
    for where, device, number, host in (('director', 'd1', 1, 1), ('director', 'd2', 2, 1), ('server', 'e0', 2, 11)):
        sh(f'ip -n {where} addr add 10.{number}.0.{host}/24 dev {device}')
        sh(f'ip -n {where} addr add fd00:{number}::{host}/64 dev {device} nodad')
        sh(f'ip -n {where} link set {device} up')
    sh('ip -n director link set e1 up')
    sh('ip -n server route add default via 10.2.0.1 && ip -n server -6 route add default via fd00:2::1')
    sh('ip -n director route add default via 10.1.0.2 && ip -n director -6 route add default via fd00:1::2')
    for to in ('neigh add 10.1.0.2', '-6 neigh add fd00:1::2'):
        sh(f'ip -n director {to} lladdr 02:00:00:00:00:99 dev d1')


def serve(where):
    """Tells each caller where it seems to call from."""
    with In(where):
        listener = socket.create_server(('::', 8080), family=socket.AF_INET6, dualstack_ipv6=True)

    def accept():
        while True:
            connection, (caller, *_) = listener.accept()
            connection.sendall(f'{where} {caller.removeprefix("::ffff:")}'.encode())
            connection.close()

    threading.Thread(target=accept, daemon=True).start()


def call(where, address, port):
    with In(where):
        caller = socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET, socket.SOCK_STREAM)
    caller.settimeout(PATIENCE)
    try:
        caller.connect((address, port))
        return caller.recv(100).decode()
    except OSError as error:
        return str(error)
    finally:
        caller.close()


network()
serve('director')
serve('server')
for family, (virtual, _, near, server) in ADDRESSES.items():
    bare = (lambda address: f'[{address}]') if family == 6 else str
    for address, port, real in ((virtual, 80, server), (near, 80, server), (virtual, 81, near)):
        adm(f'-A -t {bare(address)}:{port} -s rr')
        adm(f'-a -t {bare(address)}:{port} -r {bare(real)}:8080 -m')
    for what, where, address, port, answer in (
        ('the director calls a service', 'director', virtual, 80, f'server {near}'),
        ('the director calls its own address', 'director', near, 80, f'server {near}'),
        ('the director calls a server of its own', 'director', virtual, 81, f'director {near}'),
        ('a server calls its own service', 'server', virtual, 80, f'server {near}'),
    ):
        said = call(where, address, port)
        check(said == answer, f'IPv{family}: {what}: {said}')
adm('--check')  # whose status says it
sys.exit(bool(failures))
