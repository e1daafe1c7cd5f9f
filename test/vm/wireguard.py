"""A WireGuard interface's keys and peers, set as wg(8) does: by generic netlink."""
import os
import socket
import struct
import subprocess

from scene import In

NETLINK_GENERIC = 16
GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME = 16, 3, 1, 2
WG_CMD_SET_DEVICE = 1
WGDEVICE_A_IFNAME, WGDEVICE_A_PRIVATE_KEY, WGDEVICE_A_LISTEN_PORT, WGDEVICE_A_PEERS = 2, 3, 6, 8
WGPEER_A_PUBLIC_KEY, WGPEER_A_ENDPOINT, WGPEER_A_ALLOWEDIPS = 1, 4, 9
WGALLOWEDIP_A_FAMILY, WGALLOWEDIP_A_IPADDR, WGALLOWEDIP_A_CIDR_MASK = 1, 2, 3
NESTED = 0x8000


def key_pair():
    """A private key and its public one, 32 bytes each."""
    def openssl(*args, data=b''):
        return subprocess.run(['openssl', *args], input=data, capture_output=True, check=True).stdout
    private = openssl('genpkey', '-algorithm', 'X25519', '-outform', 'DER')
    return private[-32:], openssl('pkey', '-inform', 'DER', '-pubout', '-outform', 'DER', data=private)[-32:]


def attribute(kind, value):
    return struct.pack('=HH', len(value) + 4, kind) + value + bytes(-len(value) % 4)


def ask(link, family, command, attributes):
    """Sends a request; the attributes of the answer. OSError if the kernel refuses it."""
    body = struct.pack('=BBH', command, 1, 0) + attributes
    link.send(struct.pack('=IHHII', len(body) + 16, family, 5, 1, 0) + body)  # NLM_F_REQUEST, NLM_F_ACK
    answer = link.recv(65536)
    kind, = struct.unpack_from('=H', answer, 4)
    if kind != 2:  # NLMSG_ERROR: with 0 it says that all is well
        return answer[20:]
    error, = struct.unpack_from('=i', answer, 16)
    if error:
        raise OSError(-error, os.strerror(-error))
    return b''


def family_of(link, name):
    rest = ask(link, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, attribute(CTRL_ATTR_FAMILY_NAME, name.encode() + b'\0'))
    while len(rest) >= 4:
        length, kind = struct.unpack_from('=HH', rest)
        if kind == CTRL_ATTR_FAMILY_ID:
            return struct.unpack_from('=H', rest, 4)[0]
        rest = rest[length + -length % 4:]
    raise LookupError(name)


def allowed(prefix):
    address, bits = prefix.split('/')
    family = socket.AF_INET6 if ':' in address else socket.AF_INET
    return attribute(NESTED, attribute(WGALLOWEDIP_A_FAMILY, struct.pack('=H', family)) +
                     attribute(WGALLOWEDIP_A_IPADDR, socket.inet_pton(family, address)) +
                     attribute(WGALLOWEDIP_A_CIDR_MASK, bytes([int(bits)])))


def configure(namespace, device, private, peer, endpoint, prefixes):
    """One peer at the IPv4 address `endpoint`; both ends listen at port 51820."""
    with In(namespace):
        link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC)
    there = struct.pack('=H', socket.AF_INET) + struct.pack('!H', 51820) + socket.inet_aton(endpoint) + bytes(8)
    told = (attribute(WGPEER_A_PUBLIC_KEY, peer) + attribute(WGPEER_A_ENDPOINT, there) +
            attribute(WGPEER_A_ALLOWEDIPS | NESTED, b''.join(map(allowed, prefixes))))
    family = family_of(link, 'wireguard')
    link.close()
    with In(namespace):
        link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC)
    ask(link, family, WG_CMD_SET_DEVICE,
        attribute(WGDEVICE_A_IFNAME, device.encode() + b'\0') + attribute(WGDEVICE_A_PRIVATE_KEY, private) +
        attribute(WGDEVICE_A_LISTEN_PORT, struct.pack('=H', 51820)) +
        attribute(WGDEVICE_A_PEERS | NESTED, attribute(NESTED, told)))
    link.close()
