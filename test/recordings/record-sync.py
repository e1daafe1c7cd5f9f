#!/usr/bin/python3
"""Records what IPVS's sync daemon sends: python3 record-sync.py OUT.json, as root where namespaces and IPVS are nobody's.

  cl (clients 10.1.0.0/16, fd00:1::/64) --- d0 [ di: IPVS, master ] d1 --- be (servers 10.2.0.0/16, fd00:2::/64)
                                                  m0
                                                  |
                                                  pe (listens to the group)

A scenario has the command lines of its table, what clients did, the datagrams that the master sent (hex) and the
connections as they were then (`ipvsadm -Lnc`).
"""
import ctypes
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time

libc = ctypes.CDLL(None)
IPV6_FREEBIND = 78
NAMESPACES = {}


def sh(command, text=None):
    done = subprocess.run(command, shell=True, input=text, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f'{command}: {done.stdout}{done.stderr}')
    return done.stdout


class In:
    """The calling thread is in a namespace meanwhile."""

    def __init__(self, name):
        self.name = name

    def __enter__(self):
        libc.setns(NAMESPACES[self.name], 0x40000000)

    def __exit__(self, *_):
        libc.setns(NAMESPACES['root'], 0x40000000)


def links():
    NAMESPACES['root'] = os.open('/proc/self/ns/net', os.O_RDONLY)
    for name in ('cl', 'di', 'be', 'pe'):
        sh(f'ip netns add {name}')
        NAMESPACES[name] = os.open(f'/run/netns/{name}', os.O_RDONLY)
        sh(f'ip netns exec {name} sh -c "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 '
           'net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0; ip link set lo up"')
    for here, there, ns, number in (('d0', 'c0', 'cl', 1), ('d1', 'b0', 'be', 2), ('m0', 'm1', 'pe', 3)):
        sh(f'ip link add {here} netns di type veth peer name {there} netns {ns}')
        for each, where, host in ((here, 'di', 1), (there, ns, 2)):
            sh(f'ip -n {where} addr add 10.254.{number}.{host}/30 dev {each}')
            sh(f'ip -n {where} addr add fd00:fe:{number}::{host}/64 dev {each} nodad')
            sh(f'ip -n {where} link set {each} up')
        if number < 3:
            for prefix in (f'10.{number}.0.0/16', f'fd00:{number}::/64'):
                sh(f'ip -n {ns} route add local {prefix} dev lo')
            sh(f'ip -n {ns} route add default via 10.254.{number}.1')
            sh(f'ip -n {ns} -6 route add default via fd00:fe:{number}::1')
            sh(f'ip -n di route add 10.{number}.0.0/16 via 10.254.{number}.2')
            sh(f'ip -n di -6 route add fd00:{number}::/64 via fd00:fe:{number}::2')
    # What servers send from a virtual address does not pass the director.
    sh('ip link add x0 netns be type veth peer name x1 netns cl')
    for ns, each, host in (('be', 'x0', 1), ('cl', 'x1', 2)):
        sh(f'ip -n {ns} addr add 10.254.4.{host}/30 dev {each} && ip -n {ns} link set {each} up')
    sh('ip -n be rule add from 10.9.0.0/16 lookup 9 && ip -n be route add default via 10.254.4.2 table 9')
    for prefix in ('10.9.0.0/16', 'fd00:9::/64'):
        sh(f'ip -n di route add local {prefix} dev lo')
        sh(f'ip -n be route add local {prefix} dev lo')
    time.sleep(1)


def echo(connection):
    try:
        while data := connection.recv(100):
            connection.send(data)
    except ConnectionResetError:
        pass
    connection.close()


def serve(kind, family, port):
    with In('be'):
        server = socket.socket(family, kind)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    server.bind(('::' if family == socket.AF_INET6 else '0.0.0.0', port))
    if kind == socket.SOCK_DGRAM:
        return
    server.listen(10)

    def accept():
        while True:
            threading.Thread(target=echo, args=(server.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def family_of(address):
    return socket.AF_INET6 if ':' in address else socket.AF_INET


def socket_of(source, target, kind):
    with In('cl'):
        client = socket.socket(family_of(target[0]), kind)
    if client.family == socket.AF_INET6:
        client.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
    client.settimeout(5)
    client.bind(source)
    return client


def stream(source, target, rounds=4, end=None):
    client = socket_of(source, target, socket.SOCK_STREAM)
    client.connect(target)
    for _ in range(rounds):
        client.send(b'x')
        client.recv(10)
    if end == 'rst':
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        client.close()
    elif end == 'fin':
        client.shutdown(socket.SHUT_WR)
        client.recv(10)
        client.close()
    return client


def datagrams(source, target, count=4, payload=b'x'):
    client = socket_of(source, target, socket.SOCK_DGRAM)
    for _ in range(count):
        client.sendto(payload, target)
        time.sleep(0.01)
    client.close()


SIP = (b'OPTIONS sip:x@10.9.0.1 SIP/2.0\r\nCall-ID: abcdef@10.1.0.9\r\nCSeq: 1 OPTIONS\r\n\r\n')
SCENARIOS = [
    ('tcp4', '--syncid 5', ['-A -t 10.9.0.1:80 -s rr', '-a -t 10.9.0.1:80 -r 10.2.0.11:8080 -m'], [
        'stream(("10.1.0.1", 40001), ("10.9.0.1", 80))',
        'stream(("10.1.0.1", 40002), ("10.9.0.1", 80), end="fin")',
        'stream(("10.1.0.1", 40003), ("10.9.0.1", 80), end="rst")']),
    ('tcp6', '--syncid 5', ['-A -t [fd00:9::1]:80 -s rr', '-a -t [fd00:9::1]:80 -r [fd00:2::11]:8080 -m'], [
        'stream(("fd00:1::1", 40001), ("fd00:9::1", 80))',
        'stream(("fd00:1::1", 40002), ("fd00:9::1", 80), end="fin")']),
    ('udp', '', ['-A -u 10.9.0.1:53 -s rr', '-a -u 10.9.0.1:53 -r 10.2.0.11:5353 -m',
                 '-A -u [fd00:9::1]:53 -s rr', '-a -u [fd00:9::1]:53 -r [fd00:2::11]:5353 -m'], [
        'datagrams(("10.1.0.1", 40001), ("10.9.0.1", 53), 2)',
        'datagrams(("10.1.0.1", 40002), ("10.9.0.1", 53), 3)',
        'datagrams(("fd00:1::1", 40001), ("fd00:9::1", 53), 3)']),
    ('persistent', '', ['-A -t 10.9.0.1:80 -s rr -p 300 -M 255.255.255.0', '-a -t 10.9.0.1:80 -r 10.2.0.11:8080 -m'], [
        'stream(("10.1.0.7", 40001), ("10.9.0.1", 80))', 'stream(("10.1.0.8", 40002), ("10.9.0.1", 80))']),
    ('persistent6', '', ['-A -t [fd00:9::1]:80 -s rr -p 300', '-a -t [fd00:9::1]:80 -r [fd00:2::11]:8080 -m'], [
        'stream(("fd00:1::1", 40001), ("fd00:9::1", 80))']),
    ('fwmark', '', ['-A -f 7 -s rr', '-a -f 7 -r 10.2.0.11 -m'], [
        'stream(("10.1.0.7", 40001), ("10.9.0.7", 8080))']),
    ('fwmark-persistent', '', ['-A -f 7 -s rr -p 300', '-a -f 7 -r 10.2.0.11 -m'], [
        'stream(("10.1.0.7", 40001), ("10.9.0.7", 8080))']),
    ('port0', '', ['-A -t 10.9.0.1:0 -s rr -p 300', '-a -t 10.9.0.1:0 -r 10.2.0.11 -m'], [
        'stream(("10.1.0.7", 40001), ("10.9.0.1", 8080))']),
    ('direct', '', ['-A -t 10.9.0.1:80 -s rr', '-a -t 10.9.0.1:80 -r 10.2.0.11 -g'], [
        'stream(("10.1.0.1", 40001), ("10.9.0.1", 80))',
        'stream(("10.1.0.1", 40002), ("10.9.0.1", 80), end="fin")']),
    ('sip', '', ['-A -u 10.9.0.1:5060 -s rr -p 60 --pe sip', '-a -u 10.9.0.1:5060 -r 10.2.0.11:5060 -m'], [
        'datagrams(("10.1.0.9", 5060), ("10.9.0.1", 5060), 3, SIP)']),
    ('group6', '--mcast-group ff02::1234 --mcast-port 9000 --mcast-ttl 3 --syncid 200 --sync-maxlen 100',
     ['-A -t 10.9.0.1:80 -s rr', '-a -t 10.9.0.1:80 -r 10.2.0.11:8080 -m'], [
         'stream(("10.1.0.1", 40001), ("10.9.0.1", 80))', 'stream(("10.1.0.1", 40002), ("10.9.0.1", 80))',
         'stream(("10.1.0.1", 40003), ("10.9.0.1", 80))']),
    ('version0', '', ['-A -t 10.9.0.1:80 -s rr', '-a -t 10.9.0.1:80 -r 10.2.0.11:8080 -m'], [
        'stream(("10.1.0.1", 40001), ("10.9.0.1", 80))', 'stream(("10.1.0.1", 40002), ("10.9.0.1", 80), end="fin")']),
]


def listen(group, port):
    family = family_of(group)
    with In('pe'):
        listener = socket.socket(family, socket.SOCK_DGRAM)
        index = socket.if_nametoindex('m1')
    listener.bind((group, port, 0, index) if family == socket.AF_INET6 else (group, port))
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP,
                            socket.inet_pton(family, group) + struct.pack('i', index))
    else:
        listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP,
                            socket.inet_aton(group) + struct.pack('=4si', b'', index))
    listener.settimeout(4)
    return listener


def record(name, options, table, traffic):
    words = options.split()
    group = words[words.index('--mcast-group') + 1] if '--mcast-group' in words else '224.0.0.81'
    port = int(words[words.index('--mcast-port') + 1]) if '--mcast-port' in words else 8848
    with listen(group, port) as listener:
        for line in ['-C', *table, f'--start-daemon master --mcast-interface m0 {options}']:
            sh(f'ip netns exec di /usr/sbin/ipvsadm {line}')
        sh(f'ip netns exec di sysctl -qw net.ipv4.vs.sync_version={0 if name == "version0" else 1}')
        kept = [eval(call) for call in traffic]
        time.sleep(0.2)
        connections = sh('ip netns exec di /usr/sbin/ipvsadm -Lnc')
        messages = []
        try:
            while True:
                messages.append(listener.recv(2000).hex())
        except socket.timeout:
            pass
        sh('ip netns exec di /usr/sbin/ipvsadm --stop-daemon master')
    del kept
    return {'name': name, 'table': table, 'daemon': options, 'traffic': traffic, 'connections': connections,
            'messages': messages}


def main(target):
    sh('modprobe -a veth ip_vs ip_vs_rr ip_vs_pe_sip nf_tables')
    links()
    sh('ip netns exec di nft -f -', 'add table ip m\nadd chain ip m p { type filter hook prerouting priority -150; }\n'
       'add rule ip m p ip daddr 10.9.0.7 meta mark set 7\n')
    for family in (socket.AF_INET, socket.AF_INET6):
        for port in (80, 8080):
            serve(socket.SOCK_STREAM, family, port)
        serve(socket.SOCK_DGRAM, family, 5353)
    serve(socket.SOCK_DGRAM, socket.AF_INET, 5060)
    scenarios = []
    for number, (name, options, table, traffic) in enumerate(SCENARIOS):
        # Every connection has a port of its own: ports are not free again at once.
        traffic = [call.replace('4000', f'4{number:02}0') for call in traffic]
        scenarios.append(record(name, options, table, traffic))
        print(json.dumps(scenarios[-1]), flush=True)
    with open(target, 'w') as file:
        lines = ',\n'.join(json.dumps(scenario) for scenario in scenarios)
        file.write('{"kernel":"' + os.uname().release + '","note":"what the master of IPVS\'s sync daemon multicast: '
                   'messages in hex","scenarios":[\n' + lines + '\n]}\n')


main(sys.argv[1])
