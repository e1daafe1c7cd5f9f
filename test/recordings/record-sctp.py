#!/usr/bin/python3
"""Records what the kernel's IPVS makes of every SCTP chunk in every state; README.md describes the file.

    python3 record-sctp.py OUT.json

Three network namespaces are made: client 10.1.0.1, director (10.9.0.1, IPVS), server 10.2.0.11. Chunks are sent as raw
packets. A connection is put into a state by a message of the sync protocol, which the director takes as a backup, so that
states are reached that no chunks lead to. Changes the machine: IPVS modules. Use a virtual machine.
"""
import ctypes
import json
import os
import socket
import struct
import subprocess
import sys
import time

CLIENT, VIRTUAL, SERVER, PORT = '10.1.0.1', '10.9.0.1', '10.2.0.11', 9999
STATES = 14
NOOUTPUT, INACTIVE, DROUTE = 0x4, 0x100, 0x3
COOKIE_ECHO, COOKIE_ACK, ABORT = 10, 11, 6
namespaces = {}


def run(line, **more):
    return subprocess.run(line, shell=True, check=True, capture_output=True, text=True, **more).stdout


class Inside:
    """Sockets made within belong to that namespace."""

    def __init__(self, name):
        self.name = name

    def __enter__(self):
        self.setns(namespaces[self.name])

    def __exit__(self, *_):
        self.setns(namespaces['director'])

    @staticmethod
    def setns(fd):
        if ctypes.CDLL(None, use_errno=True).setns(fd, 0x40000000):
            raise OSError(ctypes.get_errno(), 'setns')


def make_network():
    run('modprobe -a veth ip_vs ip_vs_rr sctp')
    for name in ('client', 'director', 'server'):
        run(f'ip netns add {name}; ip -n {name} link set lo up')
        namespaces[name] = os.open('/run/netns/' + name, os.O_RDONLY)
    for i, (name, net) in enumerate((('client', '10.1'), ('server', '10.2'))):
        far = CLIENT if name == 'client' else SERVER
        run(f'''ip link add e0 netns {name} type veth peer name {name} netns director
ip -n {name} addr add {far}/16 dev e0; ip -n {name} link set e0 up
ip -n director addr add {net}.255.1/16 dev {name}; ip -n director link set {name} up
ip -n {name} route add default via {net}.255.1
ip netns exec {name} nft 'add table ip d; add chain ip d i {{ type filter hook input priority 0; }}; add rule ip d i ip protocol sctp drop' ''')
    run(f'ip -n director addr add {VIRTUAL}/32 dev lo; ip netns exec director sysctl -qw net.ipv4.ip_forward=1')
    Inside.setns(namespaces['director'])


def packet(source, target, sport, dport, body):
    sctp = struct.pack('!HHII', sport, dport, 1, 0) + body
    header = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 20 + len(sctp), 0, 0, 64, 132, 0, socket.inet_aton(source),
                         socket.inet_aton(target))
    return header + sctp


def chunk(kind, length=4):
    return struct.pack('!BBH', kind, 0, length) + bytes((length + 3 & ~3) - 4)


# What a packet carries behind the SCTP header, by name.
BODIES = {str(kind): chunk(kind) for kind in (*range(16), 63, 128, 192, 255)}
BODIES.update({f'{first}+{then}': chunk(first, 9) + chunk(then) for first in (COOKIE_ECHO, COOKIE_ACK, 3) for then in (ABORT, 0)})
BODIES.update({f'{COOKIE_ACK} of length 3+{ABORT}': struct.pack('!BBH', COOKIE_ACK, 0, 3) + chunk(ABORT), 'nothing': b'', 'half a chunk header': b'\1\0'})


class Wire:
    def __init__(self):
        self.raw, self.tap = {}, {}
        for name in ('client', 'server'):
            with Inside(name):
                self.raw[name] = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
                self.tap[name] = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x800))
                self.tap[name].bind(('e0', 0x800))
                self.tap[name].setblocking(False)
        with Inside('client'):
            self.sync = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.sync.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(CLIENT))

    def send(self, who, port, body):
        """From the client to the virtual service, or from the server to the client."""
        if who == 'c':
            self.raw['client'].sendto(packet(CLIENT, VIRTUAL, port, PORT, body), (VIRTUAL, 0))
        else:
            self.raw['server'].sendto(packet(SERVER, CLIENT, PORT, port, body), (CLIENT, 0))

    def seen(self):
        """Who received what of it since the last time."""
        time.sleep(0.003)
        found = []
        for name, tap in self.tap.items():
            while True:
                try:
                    frame, address = tap.recvfrom(2000)
                except BlockingIOError:
                    break
                protocol, source = frame[23], socket.inet_ntoa(frame[26:30])
                if address[2] != 4 and protocol == 132:
                    found.append(f'{name} from {source}')
                elif address[2] != 4 and protocol == 1:
                    found.append(f'{name} ICMP {frame[34]}/{frame[35]} from {source}')
        return found

    def put(self, port, state, flags):
        """Puts a connection into a state (sync protocol, version 1: one IPv4 record)."""
        flags |= 0 if state == 8 else INACTIVE
        record = struct.pack('!BBHIHHHHII4s4s4s', 0, 132, 36, flags, state, port, PORT, PORT, 0, 3000,
                             *(socket.inet_aton(each) for each in (CLIENT, VIRTUAL, SERVER)))
        message = struct.pack('!BBHBbH', 0, 0, 8 + len(record), 1, 1, 0) + record
        self.sync.sendto(message, ('224.0.0.81', 8848))


def entries(port):
    with open('/proc/net/ip_vs_conn') as file:
        rows = [line.split() for line in file.read().splitlines()[1:]]
    return [[row[7], int(row[8])] for row in rows if int(row[2], 16) == port]


def counts():
    lines = run('ipvsadm -Ln').splitlines()
    return [line.split()[-2:] for line in lines if SERVER in line][0]


def settle(port, wanted):
    for _ in range(100):
        if [state for state, _ in entries(port)] == [wanted]:
            return
        time.sleep(0.005)
    raise RuntimeError(f'no {wanted}: {entries(port)}')


NAMES = ['NONE', 'INIT1', 'INIT', 'C-SENT', 'C-REPLIED', 'C-WAIT', 'COOKIE', 'C-ECHOED', 'ESTABLISHED', 'S-SENT', 'S-RECEIVED', 'S-ACK-SENT', 'REJECTED', 'CLOSED']


def transitions(wire, method, sides, flags, port, reuse=1):
    """Every state, every body, from the given sides."""
    run(f'ipvsadm -C; ipvsadm -A --sctp-service {VIRTUAL}:{PORT} -s rr; sysctl -qw net.ipv4.vs.conn_reuse_mode={reuse}')
    run(f'ipvsadm -a --sctp-service {VIRTUAL}:{PORT} -r {SERVER}:{PORT} {method}')
    steps = []
    for state in range(STATES):
        for side in sides:
            for name, body in BODIES.items():
                port += 1
                wire.send('c', port, BODIES['1'])
                settle(port, 'INIT1')
                wire.put(port, state, flags)
                settle(port, NAMES[state])
                wire.seen()
                before = counts()
                wire.send(side, port, body)
                seen = wire.seen()
                steps.append({'state': NAMES[state], 'from': side, 'chunk': name, 'hex': body.hex(), 'after': entries(port),
                              'counts': [before, counts()], 'seen': seen})
    return steps


def opens(wire, sysctl):
    """Every body without a connection."""
    run(f'ipvsadm -C; ipvsadm -A --sctp-service {VIRTUAL}:{PORT} -s rr; sysctl -qw net.ipv4.vs.sloppy_sctp={sysctl}')
    run(f'ipvsadm -a --sctp-service {VIRTUAL}:{PORT} -r {SERVER}:{PORT} -m')
    steps = []
    for port, (name, body) in enumerate(BODIES.items(), 40000 + 1000 * sysctl):
        wire.seen()
        wire.send('c', port, body)
        seen = wire.seen()
        steps.append({'from': 'c', 'chunk': name, 'hex': body.hex(), 'after': entries(port), 'seen': seen})
    run('sysctl -qw net.ipv4.vs.sloppy_sctp=0')
    return steps


def main(target):
    make_network()
    wire = Wire()
    run('ipvsadm --start-daemon backup --mcast-interface client --syncid 0')
    time.sleep(0.2)
    recording = {'kernel': os.uname().release, 'scenarios': []}
    for name, steps in (
        ('open', lambda: opens(wire, 0)),
        ('open, sloppy_sctp=1', lambda: opens(wire, 1)),
        ('nat', lambda: transitions(wire, '-m', 'cs', 0, 20000)),
        ('nat, conn_reuse_mode=0', lambda: transitions(wire, '-m', 'c', 0, 22000, reuse=0)),
        ('one way', lambda: transitions(wire, '-g', 'c', NOOUTPUT | DROUTE, 24000)),
    ):
        recording['scenarios'].append({'name': name, 'steps': steps()})
        print(name, len(recording['scenarios'][-1]['steps']), flush=True)
        with open(target, 'w') as file:
            json.dump(recording, file, separators=(',', ':'))


main(*sys.argv[1:])
