/** Ports that the kernel of this network namespace gives out itself, or is told to keep. */
import { readFileSync } from 'node:fs'
import { parsePortList, type TakenPorts } from '../model/masquerade-ports.ts'

const ranges = 'net.ipv4.ip_local_port_range'
const reserved = 'net.ipv4.ip_local_reserved_ports'

/** Of the calling thread's namespace; of what cannot be read the kernel's default, or none. */
export function kernelPorts(): TakenPorts[] {
  const [first = 32768, last = 60999] = readSysctl(ranges).split(/\s+/).filter(Boolean).map(Number)
  return [
    { what: ranges, first, last },
    ...parsePortList(readSysctl(reserved)).map((range) => ({ what: reserved, ...range })),
  ]
}

function readSysctl(name: string): string {
  try {
    return readFileSync(`/proc/sys/${name.replaceAll('.', '/')}`, 'utf8').trim()
  } catch {
    return ''
  }
}
