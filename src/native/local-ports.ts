/** Ports that the kernel of this network namespace gives out itself, or is told to keep. */
import { readFileSync, writeFileSync } from 'node:fs'
import { LbError } from '../model/errors.ts'
import {
  formatPortRange,
  localPorts as ranges,
  type PortRange,
  parsePortList,
  reservedPorts as reserved,
  type TakenPorts,
} from '../model/masquerade-ports.ts'

/** Of the calling thread's namespace; of what cannot be read the kernel's default, or none. */
export function kernelPorts(): TakenPorts[] {
  const [first = 32768, last = 60999] = readSysctl(ranges).split(/\s+/).filter(Boolean).map(Number)
  return [
    { what: ranges, first, last },
    ...parsePortList(readSysctl(reserved)).map((range) => ({ what: reserved, ...range })),
  ]
}

/** Has the kernel of the calling thread's namespace give out these ports no more. NATIVE: that can't be set. */
export function reservePorts(range: PortRange): void {
  const kept = [readSysctl(reserved), formatPortRange(range)].filter((text) => text !== '').join(',')
  try {
    writeFileSync(fileOf(reserved), kept)
  } catch (cause) {
    throw new LbError('NATIVE', `${reserved} can't be set`, { value: kept }, cause)
  }
}

function fileOf(name: string): string {
  return `/proc/sys/${name.replaceAll('.', '/')}`
}

function readSysctl(name: string): string {
  try {
    return readFileSync(fileOf(name), 'utf8').trim()
  } catch {
    return ''
  }
}
