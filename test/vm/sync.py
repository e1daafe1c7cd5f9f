#!/usr/bin/python3
"""A director with the kernel's IPVS and one with bpvs back each other up; see README.md.

                    clients                    servers
  cl 10.1.0.11 --------+----- dk 10.1.0.1  10.2.0.1 ----+-------- s0 10.2.0.11, fd00:2::11
     fd00:1::11        |      (kernel)                  +-------- s1 10.2.0.12, fd00:2::12
                       +----- db 10.1.0.2  10.2.0.2 ----+
                              (bpvs)

Both have the same services. Connections are made through one; when the other knows them everybody's route is changed to
the other, and they must go on there, at the same servers.
"""
import os
import re
import socket
import sys
import threading
import time

from scene import BPVSADM, In, check, failures, namespace, sh

TOOLS = {
    'dk': os.environ.get('IPVSADM', '/usr/sbin/ipvsadm'),
    'db': BPVSADM,
}
GATEWAYS = {'dk': 1, 'db': 2}
SERVICES = [
    '-A -t 10.9.0.1:80 -s rr',
    '-A -t [fd00:9::1]:80 -s rr',
    '-A -u 10.9.0.1:53 -s rr',
    '-A -t 10.9.0.1:81 -s rr -p 300',
]
PATIENCE = 60


def adm(director, line):
    return sh(f'ip netns exec {director} {TOOLS[director]} {line}')


def network():
    for name in ('sw', 'cl', 'dk', 'db', 's0', 's1'):
        namespace(name)
        forward = 1 if name in TOOLS else 0
        sh(f'ip netns exec {name} sysctl -qw net.ipv4.ip_forward={forward} net.ipv6.conf.all.forwarding={forward} '
           'net.ipv6.conf.default.accept_dad=0 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0')
        sh(f'ip -n {name} link set lo up')
    for number, bridge in ((1, 'clients'), (2, 'servers')):
        sh(f'ip -n sw link add {bridge} type bridge mcast_snooping 0 && ip -n sw link set {bridge} up')
    for ns, device, number, host in (('cl', 'c0', 1, 11), ('dk', 'k1', 1, 1), ('db', 'b1', 1, 2), ('dk', 'k2', 2, 1),
                                     ('db', 'b2', 2, 2), ('s0', 'e0', 2, 11), ('s1', 'e1', 2, 12)):
        bridge = 'clients' if number == 1 else 'servers'
        sh(f'ip -n {ns} link add {device} type veth peer name p-{device} netns sw')
        sh(f'ip -n sw link set p-{device} master {bridge} up')
        sh(f'ip -n {ns} addr add 10.{number}.0.{host}/24 dev {device}')
        sh(f'ip -n {ns} addr add fd00:{number}::{host}/64 dev {device} nodad')
        sh(f'ip -n {ns} link set {device} up')
    # A virtual address must be the host's own for the kernel's IPVS; bpvs does not mind.
    for prefix in ('10.9.0.0/16', 'fd00:9::/64'):
        sh(f'ip -n dk route add local {prefix} dev lo')


def fail_over(director):
    for ns, number in (('cl', 1), ('s0', 2), ('s1', 2)):
        sh(f'ip -n {ns} route replace default via 10.{number}.0.{GATEWAYS[director]}')
        sh(f'ip -n {ns} -6 route replace default via fd00:{number}::{GATEWAYS[director]}')


def family_of(address):
    return socket.AF_INET6 if ':' in address else socket.AF_INET


def answer(connection, name):
    try:
        while connection.recv(100):
            connection.send(name)
    except OSError:
        pass
    connection.close()


def serve(ns):
    for family in (socket.AF_INET, socket.AF_INET6):
        with In(ns):
            streams = socket.socket(family, socket.SOCK_STREAM)
            datagrams = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            for each in (streams, datagrams):
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        streams.bind(('', 8080))
        streams.listen(50)
        datagrams.bind(('', 5353))

        def accept(server=streams):
            while True:
                threading.Thread(target=answer, args=(server.accept()[0], ns.encode()), daemon=True).start()

        def reply(server=datagrams):
            while True:
                server.sendto(ns.encode(), server.recvfrom(100)[1])

        threading.Thread(target=accept, daemon=True).start()
        threading.Thread(target=reply, daemon=True).start()


class Flow:
    """A connection, or a client's datagrams from one port."""

    def __init__(self, address, port, kind=socket.SOCK_STREAM):
        self.what = f'{"tcp" if kind == socket.SOCK_STREAM else "udp"} {address} port {port}'
        with In('cl'):
            self.socket = socket.socket(family_of(address), kind)
        self.socket.settimeout(5)
        self.socket.connect((address, port))
        self.servers = {self.ask() for _ in range(4)}
        self.server = ','.join(self.servers)

    def ask(self):
        self.socket.send(b'?')
        return self.socket.recv(100).decode()

    def goes_on(self, where):
        try:
            server = self.ask()
        except OSError as error:
            server = str(error)
        check(server == self.server, f'{self.what}, made at {self.server}, goes on through {where}: {server}')


def flows():
    return [Flow('10.9.0.1', 80), Flow('10.9.0.1', 80), Flow('fd00:9::1', 80), Flow('fd00:9::1', 80),
            Flow('10.9.0.1', 53, socket.SOCK_DGRAM), Flow('10.9.0.1', 81)]


def entries(director):
    """Lines of -Lnc without the time left, of what the client has open."""
    lines = [line.split() for line in adm(director, '-Lnc').split('\n')[2:] if line]
    return sorted(' '.join([words[0], *words[2:]]) for words in lines)


def ports(director):
    return {line for line in entries(director) if re.search('ESTABLISHED|UDP|NONE|ASSURED', line)}


def wait_for(condition, what):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if condition():
            check(True, what)
            return
        time.sleep(0.2)
    check(False, what)


def known(master, backup):
    wait_for(lambda: ports(master) <= ports(backup), f'{backup} knows what {master} has')
    if not ports(master) <= ports(backup):
        print(f'{master}: {entries(master)}\n{backup}: {entries(backup)}', flush=True)


def back_up(master, backup, options):
    interfaces = {'dk': 'k1', 'db': 'b1'}
    adm(master, f'--start-daemon master --mcast-interface {interfaces[master]} {options}')
    adm(backup, f'--start-daemon backup --mcast-interface {interfaces[backup]} {options}')
    fail_over(master)
    made = flows()
    known(master, backup)
    fail_over(backup)
    for flow in made:
        flow.goes_on(backup)
    again = Flow('10.9.0.1', 81)
    check(again.server == made[-1].server, f'a persistent client returns to {again.server} through {backup}')
    again.socket.close()
    # Ends made through the master are told, too.
    fail_over(master)
    for flow in made:
        if flow.what.startswith('tcp'):
            flow.goes_on(master)
            flow.socket.close()
    ended = 'TCP TIME_WAIT 10.1.0.11'
    wait_for(lambda: [line for line in entries(backup) if line.startswith(ended)], f'{backup} knows of their ends')
    adm(master, '--stop-daemon master')
    adm(backup, '--stop-daemon backup')


def main():
    sh('modprobe -a veth bridge ip_vs ip_vs_rr')
    network()
    for ns in ('s0', 's1'):
        serve(ns)
    for director in TOOLS:
        for line in SERVICES:
            adm(director, line)
            service = ' '.join(line.split()[1:3])
            port = 5353 if '-u' in line else 8080
            for number in (11, 12):
                server = f'[fd00:2::{number}]' if '[' in line else f'10.2.0.{number}'
                adm(director, f'-a {service} -r {server}:{port} -m')
    back_up('dk', 'db', '--syncid 7')
    back_up('db', 'dk', '--syncid 7')
    back_up('db', 'dk', '--mcast-group ff02::81 --mcast-port 9000 --sync-maxlen 1100')
    print(adm('db', '-L --daemon') + adm('db', '--check'), flush=True)
    adm('db', '--unload')
    print(f'{len(failures)} failures', flush=True)
    return 1 if failures else 0


sys.exit(main())
