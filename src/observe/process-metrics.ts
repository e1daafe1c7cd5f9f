/** What Prometheus' clients tell of every process on Linux, by their names: process_*. */
import { readdirSync, readFileSync } from 'node:fs'
import { Counter, Gauge, type Registry } from './metrics.ts'

/** `startMs`: when the process began, since 1970. */
export function addProcessMetrics(registry: Registry, startMs: number): void {
  const gauge = (name: string, help: string): Gauge => registry.register(new Gauge(`process_${name}`, help))
  const counter = (name: string, help: string): Counter => registry.register(new Counter(`process_${name}`, help))
  const cpu = counter('cpu_seconds_total', 'Total user and system CPU time spent in seconds.')
  const received = counter('network_receive_bytes_total', 'Number of bytes received by the process over the network.')
  const sent = counter('network_transmit_bytes_total', 'Number of bytes sent by the process over the network.')
  const open = gauge('open_fds', 'Number of open file descriptors.')
  const mostOpen = gauge('max_fds', 'Maximum number of open file descriptors.')
  const resident = gauge('resident_memory_bytes', 'Resident memory size in bytes.')
  const virtual = gauge('virtual_memory_bytes', 'Virtual memory size in bytes.')
  const mostVirtual = gauge('virtual_memory_max_bytes', 'Maximum amount of virtual memory available in bytes.')
  gauge('start_time_seconds', 'Start time of the process since unix epoch in seconds.').set(startMs / 1000)
  registry.onRead(() => {
    const { user, system } = process.cpuUsage()
    cpu.setTotal((user + system) / 1e6)
    open.set(readdirSync('/proc/self/fd').length)
    const status = readFileSync('/proc/self/status', 'utf8')
    resident.set(kilobytes(status, 'VmRSS') * 1024)
    virtual.set(kilobytes(status, 'VmSize') * 1024)
    const limits = readFileSync('/proc/self/limits', 'utf8')
    mostOpen.set(limit(limits, 'Max open files'))
    mostVirtual.set(limit(limits, 'Max address space'))
    const octets = namespaceOctets(readFileSync('/proc/self/net/netstat', 'utf8'))
    received.setTotal(octets.in)
    sent.setTotal(octets.out)
  })
}

/** As the kernel counts them: files and maps that are in memory too. */
function kilobytes(status: string, name: string): number {
  return Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1] ?? 0)
}

/** The soft limit; none is the greatest number of 64 bits. */
function limit(limits: string, name: string): number {
  const text = new RegExp(`^${name}\\s+(\\S+)`, 'm').exec(limits)?.[1] ?? '0'
  return text === 'unlimited' ? 2 ** 64 : Number(text)
}

/** What the network namespace has received and sent by IPv4: what the clients of Prometheus take for the process's. */
function namespaceOctets(netstat: string): { readonly in: number; readonly out: number } {
  const [names = [], values = []] = netstat
    .split('\n')
    .filter((line) => line.startsWith('IpExt:'))
    .map((line) => line.split(' '))
  const value = (name: string): number => Number(values[names.indexOf(name)] ?? 0)
  return { in: value('InOctets'), out: value('OutOctets') }
}
