#!/usr/bin/python3
"""Services on VLAN interfaces of one trunk; see README.md.

  client 10.1.0.11, fd00:1::11 --- VLAN 10 \\                          / d0.10: 10.1.0.1, fd00:1::1
                                            f0 ------------------- d0            director
  server 10.2.0.11, fd00:2::11 --- VLAN 20 /                          \\ d0.20: 10.2.0.1, fd00:2::1

The director's programs are on the trunk and on both VLANs. Tags are kept beside the frame, as a card does that takes
them off, and then inside it; packets go past the host's stack and through it.
"""
import re
import socket
import subprocess
import sys
import threading

from scene import BPVSADM, In, check, failures, namespace, sh

BULK = 1 << 20


def adm(line):
    return sh(f'ip netns exec director {BPVSADM} {line}')


def network():
    for name in ('trunk', 'client', 'director', 'server'):
        namespace(name)
        sh(f'ip netns exec {name} sysctl -qw net.ipv6.conf.default.accept_dad=0')
    sh('ip netns exec director sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1')
    sh('ip -n director link add d0 type veth peer name f0 netns trunk')
    sh('ip -n director link set d0 up && ip -n trunk link set f0 up')
    for number, (vlan, ns) in enumerate(((10, 'client'), (20, 'server')), 1):
        sh(f'ip -n trunk link add link f0 name e0 type vlan id {vlan} && ip -n trunk link set e0 netns {ns}')
        sh(f'ip -n director link add link d0 name d0.{vlan} type vlan id {vlan}')
        for where, device, host in ((ns, 'e0', 11), ('director', f'd0.{vlan}', 1)):
            sh(f'ip -n {where} addr add 10.{number}.0.{host}/24 dev {device}')
            sh(f'ip -n {where} addr add fd00:{number}::{host}/64 dev {device} nodad')
            sh(f'ip -n {where} link set {device} up')
        sh(f'ip -n {ns} route add default via 10.{number}.0.1 && ip -n {ns} -6 route add default via fd00:{number}::1')


def echo(connection):
    while data := connection.recv(1 << 16):
        connection.sendall(data)
    connection.close()


def serve():
    for family in (socket.AF_INET, socket.AF_INET6):
        with In('server'):
            streams = socket.socket(family, socket.SOCK_STREAM)
            datagrams = socket.socket(family, socket.SOCK_DGRAM)
        for each in (streams, datagrams):
            if family == socket.AF_INET6:
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            each.bind(('', 8080))
        streams.listen(50)

        def accept(server=streams):
            while True:
                threading.Thread(target=echo, args=(server.accept()[0],), daemon=True).start()

        def reply(server=datagrams):
            while True:
                data, client = server.recvfrom(2000)
                server.sendto(data, client)

        threading.Thread(target=accept, daemon=True).start()
        threading.Thread(target=reply, daemon=True).start()


def opened(address, kind):
    with In('client'):
        client = socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET, kind)
    client.settimeout(20)
    client.connect((address, 80))
    return client


def stream(address):
    """Much, there and back: so segments are many in one."""
    client = opened(address, socket.SOCK_STREAM)
    sent = bytes(i * 7 & 255 for i in range(1 << 16)) * (BULK >> 16)
    threading.Thread(target=client.sendall, args=(sent,), daemon=True).start()
    got = b''
    while len(got) < len(sent) and (data := client.recv(1 << 20)):
        got += data
    client.close()
    return got == sent


def datagram(address):
    client = opened(address, socket.SOCK_DGRAM)
    client.send(b'x' * 1200)
    return client.recv(2000) == b'x' * 1200


def packets(address):
    """What the service's server got and gave."""
    key = f'-t [{address}]:80' if ':' in address else f'-t {address}:80'
    line = adm(f'-Ln {key} --stats --exact').split('\n')[-2].split()
    return int(line[3]), int(line[4])


def attempt(what, run, *args):
    try:
        check(run(*args), what)
    except OSError as error:
        check(False, f'{what}: {error}')


def try_all(how):
    for address in ('10.9.0.1', 'fd00:9::1'):
        attempt(f'TCP to {address}, {how}', stream, address)
        attempt(f'UDP to {address}, {how}', datagram, address)
        ping = subprocess.run(f'ip netns exec client ping -c 1 -W 5 {address}', shell=True, capture_output=True)
        check(ping.returncode == 0, f'echo to {address}, {how}')
        in_packets, out_packets = packets(address)
        check(in_packets > 20 and out_packets > 20, f'{in_packets} packets in, {out_packets} out for {address}, {how}')
    sh(f'ip netns exec director {BPVSADM} -Z')


def main():
    sh('modprobe -a veth 8021q')
    network()
    serve()
    for option, service, server in (('-t', '10.9.0.1:80', '10.2.0.11:8080'), ('-u', '10.9.0.1:80', '10.2.0.11:8080'),
                                    ('-t', '[fd00:9::1]:80', '[fd00:2::11]:8080'),
                                    ('-u', '[fd00:9::1]:80', '[fd00:2::11]:8080')):
        adm(f'-A {option} {service} -s rr')
        adm(f'-a {option} {service} -r {server} -m')
    hooks = adm('--hooks')
    print(hooks, flush=True)
    for device in ('d0', 'd0.10', 'd0.20'):
        check(re.search(rf'(^|\s){re.escape(device)}(\s|$)', hooks) is not None, f'the programs are on {device}')
    for where, on in (('beside the frame', 'on'), ('in the frame', 'off')):
        for ns, device in (('director', 'd0'), ('trunk', 'f0')):
            sh(f'ip netns exec {ns} ethtool -K {device} rxvlan {on} txvlan {on}')
        for bypass in ('always', 'never'):
            adm(f'--bypass {bypass}')
            try_all(f'tags {where}, bypass {bypass}')
    print(adm('--check') + adm('--verdicts'), flush=True)
    adm('--unload')
    print(f'{len(failures)} failures', flush=True)
    return 1 if failures else 0


sys.exit(main())
