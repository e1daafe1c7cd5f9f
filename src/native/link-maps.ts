/** What user space tells the datapath of interfaces: lb_xdp_ports and lb_links. */
import { join } from 'node:path'
import { LbLinkArray, LbLinkFlag } from '../abi/generated.ts'
import type { NetworkInterface } from './interfaces.ts'
import { PinnedHash } from './pinned-hash.ts'
import { mapPin } from './pins.ts'

/** The interfaces that XDP of another one may send to: those with a program of ours. The kernel takes out what goes. */
export class XdpPorts {
  readonly #map: PinnedHash

  constructor(dir: string) {
    this.#map = new PinnedHash(join(dir, mapPin('lb_xdp_ports')))
  }

  /** Adds an interface of this thread's namespace. NATIVE: ENODEV, or E2BIG if there are too many. */
  add(ifindex: number): void {
    this.#map.set(ifindex, new Uint8Array(Uint32Array.of(ifindex).buffer))
  }

  remove(ifindex: number): void {
    this.#map.delete(ifindex)
  }

  /** ifindexes, in no order. */
  list(): number[] {
    return this.#map.keys()
  }
}

/** The interfaces of note: veths whose other end is in another namespace. */
export class Links {
  readonly #map: PinnedHash

  constructor(dir: string) {
    this.#map = new PinnedHash(join(dir, mapPin('lb_links')))
  }

  /** Notes what an interface is; one of no note is taken out. NATIVE: E2BIG if there are too many. */
  note({ ifindex, kind, peerElsewhere, mac }: NetworkInterface): void {
    if (kind !== 'veth' || !peerElsewhere) {
      this.forget(ifindex)
      return
    }
    const link = new LbLinkArray(new ArrayBuffer(LbLinkArray.size))
    link.setFlags(0, LbLinkFlag.LINK_PEER)
    link.setMac(0, mac)
    this.#map.set(ifindex, link.u8)
  }

  forget(ifindex: number): void {
    this.#map.delete(ifindex)
  }
}
