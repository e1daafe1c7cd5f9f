/** The veth that takes marked packets: what it is called, and how it is told from any other. */
import type { NetworkInterface } from './interfaces.ts'
import { steering } from './rules.ts'

/** Both ends have the address, which bpf/marked.h knows. */
export const markVeth = {
  name: 'bpvs0',
  peer: steering.peer,
  mac: Uint8Array.of(0x02, 0x62, 0x70, 0x76, 0x73, 0x00),
} as const

/** Whether an interface is one end of it. */
export function isMarkVeth({ name, kind, mac }: NetworkInterface): boolean {
  return (
    (name === markVeth.name || name === markVeth.peer) && kind === 'veth' && Buffer.compare(mac, markVeth.mac) === 0
  )
}
