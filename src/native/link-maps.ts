/** What user space tells the datapath of interfaces: lb_xdp_ports, lb_links, lb_link_sources and lb_pod_links. */
import { join } from 'node:path'
import { networkInterfaces } from 'node:os'
import { LbLinkArray, LbLinkFlag, LbLinkSourceArray } from '../abi/generated.ts'
import { writeAddress } from '../model/address.ts'
import type { NetworkInterface } from './interfaces.ts'
import { PinnedHash } from './pinned-hash.ts'
import { mapPin } from './pins.ts'

/** An ifindex as a key. */
function keyOf(ifindex: number): Uint8Array {
  return new Uint8Array(Uint32Array.of(ifindex).buffer)
}

/** The interfaces that XDP of another one may send to: those with a program of ours. The kernel takes out what goes. */
export class XdpPorts {
  readonly #map: PinnedHash

  constructor(dir: string) {
    this.#map = new PinnedHash(join(dir, mapPin('lb_xdp_ports')), 4)
  }

  /** Adds an interface of this thread's namespace. NATIVE: ENODEV, or E2BIG if there are too many. */
  add(ifindex: number): void {
    this.#map.set(keyOf(ifindex), keyOf(ifindex), `interface ${ifindex}`)
  }

  remove(ifindex: number): void {
    this.#map.delete(keyOf(ifindex))
  }

  /** ifindexes, in no order. */
  list(): number[] {
    return this.#map.keys().map((key) => new Uint32Array(key.buffer)[0] ?? 0)
  }
}

/** The interfaces of note: veths whose other end is in another namespace, and those whose packets have no Ethernet header. */
export class Links {
  readonly #map: PinnedHash

  constructor(dir: string) {
    this.#map = new PinnedHash(join(dir, mapPin('lb_links')), 4)
  }

  /** Notes what an interface is; one of no note is taken out. NATIVE: E2BIG if there are too many. */
  note({ ifindex, kind, peerElsewhere, mac, header }: NetworkInterface): void {
    const flags =
      (kind === 'veth' && peerElsewhere ? LbLinkFlag.LINK_PEER : 0) | (header === 'ip' ? LbLinkFlag.LINK_BARE : 0)
    if (flags === 0) {
      this.forget(ifindex)
      return
    }
    const link = new LbLinkArray(new ArrayBuffer(LbLinkArray.size))
    link.setFlags(0, flags)
    link.setMac(0, mac)
    this.#map.set(keyOf(ifindex), link.u8, `interface ${ifindex}`)
  }

  forget(ifindex: number): void {
    this.#map.delete(keyOf(ifindex))
  }
}

/** Addresses by the name of an interface, as os.networkInterfaces() lists them. */
type Addresses = Readonly<Record<string, readonly { readonly address: string; readonly family: string }[] | undefined>>

/** What the host sends from by each interface, where the kernel does not tell the programs: before 6.7. */
export class LinkSources {
  readonly #map: PinnedHash

  constructor(dir: string) {
    this.#map = new PinnedHash(join(dir, mapPin('lb_link_sources')), 4)
  }

  /** Notes the first address of each family of each interface, and under 0 that of the first interface that has one. NATIVE. */
  tell(links: readonly NetworkInterface[], addresses: Addresses = networkInterfaces()): void {
    const named = links.filter(({ loopback }) => !loopback)
    for (const { ifindex, name } of named) this.#set(ifindex, addresses[name] ?? [])
    this.#set(
      0,
      named.flatMap(({ name }) => addresses[name] ?? []),
    )
    const known = new Set([0, ...named.map(({ ifindex }) => ifindex)])
    for (const key of this.#map.keys()) if (!known.has(new Uint32Array(key.buffer)[0] ?? 0)) this.#map.delete(key)
  }

  #set(ifindex: number, addresses: readonly { readonly address: string; readonly family: string }[]): void {
    const source = new LbLinkSourceArray(new ArrayBuffer(LbLinkSourceArray.size))
    for (const family of [4, 6] as const) {
      const own = addresses.find((each) => each.family === `IPv${family}` && !each.address.startsWith('fe80:'))
      if (own !== undefined) writeAddress(source.u8, family === 4 ? 0 : LbLinkSourceArray.at.ipv6, own.address, family)
    }
    const before = new Uint8Array(LbLinkSourceArray.size)
    if (this.#map.get(keyOf(ifindex), before) && before.every((byte, i) => byte === source.u8[i])) return
    this.#map.set(keyOf(ifindex), source.u8, `interface ${ifindex}`)
  }
}

/** The interfaces that pods are behind. */
export class PodLinks {
  readonly #map: PinnedHash

  constructor(dir: string) {
    this.#map = new PinnedHash(join(dir, mapPin('lb_pod_links')), 4)
  }

  /** Makes them these; true if others were before. NATIVE: E2BIG if there are too many. */
  set(links: readonly number[]): boolean {
    const before = new Set(this.list())
    const wanted = new Set(links)
    for (const ifindex of wanted)
      if (!before.has(ifindex)) this.#map.set(keyOf(ifindex), keyOf(1), `interface ${ifindex}`)
    for (const ifindex of before) if (!wanted.has(ifindex)) this.#map.delete(keyOf(ifindex))
    return before.size !== wanted.size || [...wanted].some((ifindex) => !before.has(ifindex))
  }

  /** ifindexes, in no order. */
  list(): number[] {
    return this.#map.keys().map((key) => new Uint32Array(key.buffer)[0] ?? 0)
  }
}
