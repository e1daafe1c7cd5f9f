#!/usr/bin/python3
"""Runs command lines through the real ipvsadm and records its answers; README.md describes both files.

Changes the machine: IPVS modules, interfaces d0 and d1, /etc/hosts, the IPVS table. Use a virtual machine.
"""
import json
import shlex
import subprocess
import sys

SCHEDULERS = 'rr wrr lc wlc sed nq fo ovf sh dh mh lblc lblcr'.split()


def shell(line):
    subprocess.run(line, shell=True, check=True)


def ipvsadm(args, stdin=''):
    """Runs one command line; bytes of its answer become characters of Latin-1."""
    words = shlex.split(args) if isinstance(args, str) else args
    done = subprocess.run(['/usr/sbin/ipvsadm', *words], input=stdin.encode('latin-1'), capture_output=True)
    return {'rc': done.returncode, 'out': done.stdout.decode('latin-1'), 'err': done.stderr.decode('latin-1')}


def saved():
    return ipvsadm('-S -n')['out']


def reset(base):
    for line in ['-C', '--stop-daemon master', '--stop-daemon backup']:
        ipvsadm(line)
    return [{'do': 'ipvsadm', 'args': line, **ipvsadm(line)} for line in base]


def record(scenario):
    """The steps of a scenario: its base, the table it makes, then every line."""
    base = scenario.get('base', [])
    steps = reset(base)
    table = current = saved()
    steps.append({'do': 'table', 'save': table, 'list': ipvsadm('-Ln')['out']})
    for line in scenario['lines']:
        line = line if isinstance(line, dict) else {'args': line}
        step = {'do': 'ipvsadm', **line, **ipvsadm(line['args'], line.get('stdin', ''))}
        before, current = current, saved()
        if current != before:
            step['save_after'] = current
        steps.append(step)
        if not scenario.get('keep') and (current != table or 'daemon' in str(line['args'])):
            reset(base)
            current = table
    return steps


def main(source, target):
    with open(source) as file:
        recording = json.load(file)
    shell('modprobe -a veth ip_vs_pe_sip sctp ' + ' '.join('ip_vs_' + name for name in SCHEDULERS))
    shell('ip link add d0 type veth peer name d1 && ip link set d0 up && ip link set d1 up && ip link set lo up')
    if 'etc_hosts' in recording:
        with open('/etc/hosts', 'w') as file:
            file.write(recording['etc_hosts'])
    scenarios = []
    for number, scenario in enumerate(recording['scenarios']):
        note = '' if scenario.get('keep') else ' (the table is reset to the base before every line: -C, then the base)'
        scenarios.append({'name': scenario['name'], 'desc': scenario.get('desc', '') + note, 'steps': record(scenario)})
        if number > 0:
            scenarios[-1]['continues'] = True
        print(scenario['name'], len(scenario['lines']), flush=True)
    with open(target, 'w') as file:
        json.dump({**recording, 'scenarios': scenarios}, file, separators=(',', ':'))


main(*sys.argv[1:])
