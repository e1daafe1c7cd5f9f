#!/usr/bin/python3
"""Tunnels to servers that have the kernel's own ends of them; see README.md.

  client 10.1.0.11, fd00:1::11 --- c1 10.1.0.1, fd00:1::1 [director] d2 10.2.0.1, fd00:2::1 --- 10.2.0.11, fd00:2::11 server

A tunnel's packets come from the director's address on the way to the server, also when that has changed.
"""
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time

from scene import BPVSADM, CHECKOUT, In, check, failures, namespace, sh

BPVSD = os.environ.get('BPVSD', os.path.join(CHECKOUT, 'bin/bpvsd'))
VIPS = ('10.9.0.1', 'fd00:9::1')
PATIENCE = 60
ETH_P_ALL = 3


def adm(line):
    return sh(f'ip netns exec director {BPVSADM} {line}')


def network():
    for name in ('client', 'director', 'server'):
        namespace(name)
        sh(f'ip netns exec {name} sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv4.conf.default.rp_filter=0')
        sh(f'ip -n {name} link set lo up')
    sh('ip netns exec director sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1')
    for number, ns in ((1, 'client'), (2, 'server')):
        sh(f'ip -n director link add d{number} type veth peer name e0 netns {ns}')
        for where, device, host in ((ns, 'e0', 11), ('director', f'd{number}', 1)):
            sh(f'ip -n {where} addr add 10.{number}.0.{host}/24 dev {device}')
            sh(f'ip -n {where} addr add fd00:{number}::{host}/64 dev {device} nodad')
            sh(f'ip -n {where} link set {device} up')
        sh(f'ip -n {ns} route add default via 10.{number}.0.1 && ip -n {ns} -6 route add default via fd00:{number}::1')
    for vip in VIPS:
        sh(f'ip -n server addr add {vip} dev lo')
    sh('ip -n server link add t4 type ipip local 10.2.0.11 && ip -n server link set t4 up')
    sh('ip -n server link add t6 type ip6tnl mode ip6ip6 local fd00:2::11 && ip -n server link set t6 up')
    sh('ip netns exec server sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.t4.rp_filter=0')


def serve():
    for vip in VIPS:
        with In('server'):
            listener = socket.socket(socket.AF_INET6 if ':' in vip else socket.AF_INET, socket.SOCK_STREAM)
        listener.bind((vip, 80))
        listener.listen(20)

        def accept(listener=listener):
            while True:
                connection = listener.accept()[0]
                connection.sendall(connection.recv(100))
                connection.close()

        threading.Thread(target=accept, daemon=True).start()


class Outer:
    """The addresses that packets in tunnels come to the server from."""

    def __init__(self):
        with In('server'):
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.socket.bind(('e0', ETH_P_ALL))
        self.last = {}
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            frame = self.socket.recv(2000)
            if frame[12:14] == b'\x08\x00' and frame[23] == socket.IPPROTO_IPIP:
                self.last['10.9.0.1'] = socket.inet_ntop(socket.AF_INET, frame[26:30])
            elif frame[12:14] == b'\x86\xdd' and frame[20] == socket.IPPROTO_IPV6:
                self.last['fd00:9::1'] = socket.inet_ntop(socket.AF_INET6, frame[22:38])


def ask(vip):
    with In('client'):
        client = socket.socket(socket.AF_INET6 if ':' in vip else socket.AF_INET, socket.SOCK_STREAM)
    client.settimeout(2)
    try:
        client.connect((vip, 80))
        client.sendall(b'?')
        return client.recv(100) == b'?'
    except OSError:
        return False
    finally:
        client.close()


def comes_from(outer, vip, source, what):
    """Asks until packets come from there: neighbours and bpvsd take their time."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if ask(vip) and outer.last.get(vip) == source:
            check(True, f'{what}: {vip} in a tunnel from {source}')
            return
        time.sleep(0.2)
    check(False, f'{what}: {vip} in a tunnel from {source}, not {outer.last.get(vip)}')


def move(number):
    """Gives the director other addresses towards the server, and takes the ones before."""
    sh('ip -n director addr flush dev d2 scope global')
    sh(f'ip -n director addr add 10.2.0.{number}/24 dev d2 && ip -n director addr add fd00:2::{number}/64 dev d2 nodad')
    for vip, gateway in zip(VIPS, (f'10.2.0.{number}', f'fd00:2::{number}')):
        family = '-6' if ':' in vip else '-4'
        sh(f'ip -n server {family} route replace default via {gateway}')


def main():
    sh('modprobe -a veth ipip ip6_tunnel')
    network()
    serve()
    outer = Outer()
    ends = (('10.9.0.1:80', '10.2.0.11:80'), ('[fd00:9::1]:80', '[fd00:2::11]:80'))
    for service, server in ends:
        adm(f'-A -t {service} -s rr')
        adm(f'-a -t {service} -r {server} -i')
    for vip, source in zip(VIPS, ('10.2.0.1', 'fd00:2::1')):
        comes_from(outer, vip, source, 'added')
    move(2)
    for service, server in ends:
        adm(f'-e -t {service} -r {server} -i -w 2')
    for vip, source in zip(VIPS, ('10.2.0.2', 'fd00:2::2')):
        comes_from(outer, vip, source, 'edited after another address came')
    with tempfile.TemporaryDirectory() as manifests:
        daemon = subprocess.Popen(['ip', 'netns', 'exec', 'director', BPVSD, '--manifests', manifests],
                                  stdout=subprocess.DEVNULL)
        move(3)
        for vip, source in zip(VIPS, ('10.2.0.3', 'fd00:2::3')):
            comes_from(outer, vip, source, 'bpvsd saw another address')
        daemon.terminate()
        daemon.wait()
    print(adm('--check') + adm('--verdicts'), flush=True)
    adm('--unload')
    print(f'{len(failures)} failures', flush=True)
    return 1 if failures else 0


sys.exit(main())
