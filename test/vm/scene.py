"""What the scripts here share: commands, namespaces of their own, and the list of what went wrong."""
import ctypes
import os
import subprocess

libc = ctypes.CDLL(None)
CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BPVSADM = os.environ.get('BPVSADM', os.path.join(CHECKOUT, 'bin/bpvsadm'))
NAMESPACES = {'root': os.open('/proc/self/ns/net', os.O_RDONLY)}
failures = []


def sh(command):
    """Runs a command, which must succeed; what it says."""
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f'{command}: {done.stdout}{done.stderr}')
    return done.stdout


def check(good, what):
    print(('ok   ' if good else 'FAIL ') + what, flush=True)
    if not good:
        failures.append(what)


def namespace(name):
    """Makes a namespace that In() can enter."""
    sh(f'ip netns add {name}')
    NAMESPACES[name] = os.open(f'/run/netns/{name}', os.O_RDONLY)


class In:
    """The calling thread is in a namespace meanwhile."""

    def __init__(self, name):
        self.name = name

    def __enter__(self):
        libc.setns(NAMESPACES[self.name], 0x40000000)

    def __exit__(self, *_):
        libc.setns(NAMESPACES['root'], 0x40000000)
