/** Where a table's programs are attached. Links are pinned beside the maps: link-<ifindex>-<ingress|egress|...>. */
import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { LbError } from '../model/errors.ts'
import { openBareProgram } from './bare-programs.ts'
import { listInterfaces, type NetworkInterface } from './interfaces.ts'
import { errno } from './library.ts'
import { openLoopback } from './loopback.ts'
import { isMarkVeth, markVeth } from './mark-veth.ts'
import type { ProgramName } from './programs.ts'
import {
  attachClsact,
  createLink,
  detachClsact,
  type Fd,
  linkInfo,
  openPin,
  pin,
  programId,
  queryClsact,
  tidyClsact,
  updateLink,
  usingFd,
} from './shim.ts'
import { Links, LinkSources, XdpPorts } from './link-maps.ts'

/** Which interfaces get our programs. Patterns are names with * for any characters; exclusion wins. */
export interface AttachPolicy {
  readonly include: readonly string[]
  readonly exclude: readonly string[]
  /** `auto`: native XDP on devices of their own whose driver has it. `native`, `generic`: on every interface. */
  readonly xdp: 'off' | 'auto' | 'native' | 'generic'
}

export const defaultPolicy: AttachPolicy = { include: ['*'], exclude: [], xdp: 'off' }

/** One program on one interface. */
export interface Attachment {
  readonly ifindex: number
  readonly interface: string
  readonly hook: 'ingress' | 'egress' | 'xdp'
  readonly kind: 'tcx' | 'clsact' | 'xdp-native' | 'xdp-generic'
}

/** What a pass over the interfaces did. */
export interface SyncResult {
  readonly attached: readonly Attachment[]
  /** ifindexes of which links were taken off: gone, moved away, excluded, or of another kind of XDP than is wanted. */
  readonly detached: readonly number[]
  readonly failed: readonly { readonly interface: string; readonly error: LbError }[]
}

type Slot = 'ingress' | 'egress' | 'marked' | 'xdpdrv' | 'xdpskb'

/** A pinned link. */
interface PinnedLink {
  readonly file: string
  readonly ifindex: number
  readonly slot: Slot
}

const LINK = /^link-(\d+)-(ingress|egress|marked|xdpdrv|xdpskb)$/
const PROGRAM_OF: Readonly<Record<Slot, ProgramName>> = {
  ingress: 'lb_tc_ingress',
  egress: 'lb_tc_egress',
  marked: 'lb_tc_marked',
  xdpdrv: 'lb_xdp',
  xdpskb: 'lb_xdp',
}
const XDP_FLAGS = { xdpdrv: 4, xdpskb: 2 } as const /* XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE */

function matches(name: string, patterns: readonly string[]): boolean {
  const literal = (text: string): string => text.replace(/[\\^$.|?+()[\]{}]/g, '\\$&')
  return patterns.some((pattern) => new RegExp(`^${pattern.split('*').map(literal).join('.*')}$`).test(name))
}

/** Whether the policy wants the interface. */
export function wanted(policy: AttachPolicy, name: string): boolean {
  return matches(name, policy.include) && !matches(name, policy.exclude)
}

function xdpSlot(policy: AttachPolicy, { kind, loopback, mac }: NetworkInterface): 'xdpdrv' | 'xdpskb' | undefined {
  switch (policy.xdp) {
    case 'off':
      return undefined
    case 'native':
      return 'xdpdrv'
    case 'generic':
      return 'xdpskb'
    case 'auto':
      return kind === '' && !loopback && mac.some((byte) => byte !== 0) ? 'xdpdrv' : undefined
  }
}

/**
 * The slots that the policy wants filled; the veth for marked packets has a program of its own, whatever the policy. Of lo it
 * is what leaves by it: what the host sends to its own addresses. Where packets begin with the IP header (tun, WireGuard,
 * ipip) the programs are others, and there is no XDP; with any other header nobody could read them. What passes one of a bond
 * passes the bond, whose programs would find it changed already, or count it twice.
 */
function wantedSlots(policy: AttachPolicy, device: NetworkInterface): Slot[] {
  if (device.loopback) return ['egress']
  if (device.aggregated) return []
  if (device.header === 'ip') return ['ingress', 'egress']
  if (device.header === 'other') return []
  if (isMarkVeth(device)) return device.name === markVeth.name ? ['marked'] : []
  const xdp = xdpSlot(policy, device)
  return xdp === undefined ? ['ingress', 'egress'] : ['ingress', 'egress', xdp]
}

/**
 * Whether an interface is left alone as long as it is down: the kernel makes some tunnels by itself (tunl0, sit0), in each namespace,
 * and few are ever used. What is attached stays.
 */
function isIdle({ header, up }: NetworkInterface): boolean {
  return header === 'ip' && !up
}

/** Where in the kernel a slot is. */
function hookOf(slot: Slot): Attachment['hook'] {
  if (isXdp(slot)) return 'xdp'
  return slot === 'marked' ? 'egress' : slot
}

function isXdp(slot: Slot): slot is 'xdpdrv' | 'xdpskb' {
  return slot === 'xdpdrv' || slot === 'xdpskb'
}

/** The attachments of one table, from whichever process; all state is in the pins. */
export class Attachments {
  readonly #dir: string
  readonly #ports: XdpPorts
  readonly #notes: Links

  constructor(dir: string) {
    this.#dir = dir
    this.#ports = new XdpPorts(dir)
    this.#notes = new Links(dir)
  }

  /** Attaches what the policy wants on one interface; what is attached already stays. NATIVE, PERMISSION. */
  attach(device: NetworkInterface, policy: AttachPolicy = defaultPolicy): Attachment[] {
    this.#notes.note(device)
    if (isIdle(device)) return []
    return wantedSlots(policy, device).flatMap((slot) => {
      try {
        return this.#attachSlot(device, slot) ?? []
      } catch (error) {
        if (slot === 'xdpdrv' && policy.xdp === 'auto') return [] /* the driver has none: tcx does it all */
        throw error
      }
    })
  }

  /** Takes our programs off an interface, whether or not it still exists. */
  detach(ifindex: number): void {
    this.#notes.forget(ifindex)
    for (const link of this.#links()) {
      if (link.ifindex === ifindex) this.#unpin(link)
    }
    removeFilters(ifindex)
  }

  /** Makes the attachments of this thread's namespace what the policy wants. One bad interface does not stop the rest. */
  sync(policy: AttachPolicy = defaultPolicy): SyncResult {
    openLoopback()
    const present = listInterfaces()
    new LinkSources(this.#dir).tell(present)
    const chosen = present.filter((device) => isMarkVeth(device) || wanted(policy, device.name))
    const keep = new Map(chosen.map((device) => [device.ifindex, device]))
    const stale = new Set(
      this.#links()
        .map(({ ifindex }) => ifindex)
        .filter((ifindex) => !keep.has(ifindex)),
    )
    for (const { ifindex } of present) if (!keep.has(ifindex) && hasFilter(ifindex)) stale.add(ifindex)
    for (const ifindex of stale) this.detach(ifindex)
    for (const link of this.#links()) {
      const device = keep.get(link.ifindex)
      if (device === undefined || wantedSlots(policy, device).includes(link.slot)) continue
      this.#unpin(link)
      stale.add(link.ifindex)
    }
    const attached: Attachment[] = []
    const failed: { interface: string; error: LbError }[] = []
    for (const device of keep.values()) {
      try {
        attached.push(...this.attach(device, policy))
      } catch (error) {
        if (!(error instanceof LbError)) throw error
        if (error.detail.errno !== errno.ENODEV) failed.push({ interface: device.name, error })
      }
    }
    return { attached, detached: [...stale], failed }
  }

  /** What is attached where, by interface. */
  list(): Attachment[] {
    const links = this.#links()
    return listInterfaces().flatMap((device) => {
      const { ifindex, name } = device
      const own = links
        .filter((link) => link.ifindex === ifindex && this.#liveOn(link.file, ifindex))
        .map((link) => describe(device, link.slot))
      const filters = (['ingress', 'egress'] as const)
        .filter((hook) => queryClsact(ifindex, hook) !== 0)
        .map((hook) => ({ ifindex, interface: name, hook, kind: 'clsact' as const }))
      return [...own, ...filters]
    })
  }

  /** Takes everything off, links and filters. */
  removeAll(): void {
    for (const link of this.#links()) this.#unpin(link)
    for (const { ifindex } of listInterfaces()) removeFilters(ifindex)
  }

  /** Whether any pinned link is still on an interface, in whatever namespace. */
  anyAlive(): boolean {
    return this.#links().some(({ file }) => usingFd(openPin(join(this.#dir, file)), linkInfo).ifindex !== 0)
  }

  /** Puts the pinned programs in the place of those that are attached, link by link, each atomically. */
  replacePrograms(): void {
    const present = listInterfaces()
    for (const { file, ifindex, slot } of this.#links()) {
      const device = present.find((each) => each.ifindex === ifindex)
      this.#withProgram(slot, device, (program) => {
        usingFd(openPin(join(this.#dir, file)), (link) => {
          if (linkInfo(link).ifindex !== 0) updateLink(link, program)
        })
      })
    }
    for (const device of present) {
      const { ifindex } = device
      for (const hook of ['ingress', 'egress'] as const) {
        if (queryClsact(ifindex, hook) === 0) continue
        this.#withProgram(isMarkVeth(device) ? 'marked' : hook, device, (program) => {
          attachClsact(program, ifindex, hook)
        })
      }
    }
  }

  #links(): PinnedLink[] {
    return readdirSync(this.#dir).flatMap((file) => {
      const [, ifindex, slot] = LINK.exec(file) ?? []
      return ifindex === undefined ? [] : [{ file, ifindex: Number(ifindex), slot: slot as Slot }]
    })
  }

  /** Detaches; with XDP, first from what XDP sends to. A process that was faster is no error. */
  #unpin({ file, ifindex, slot }: PinnedLink): void {
    if (isXdp(slot)) this.#ports.remove(ifindex)
    rmSync(join(this.#dir, file), { force: true })
  }

  /** The program for a slot of an interface; one that is gone is taken for one with Ethernet headers. */
  #withProgram<T>(slot: Slot, device: NetworkInterface | undefined, fn: (program: Fd) => T): T {
    const name = PROGRAM_OF[slot]
    const bare = device?.header === 'ip' && (name === 'lb_tc_ingress' || name === 'lb_tc_egress')
    return usingFd(bare ? openBareProgram(this.#dir, name) : openPin(join(this.#dir, `prog-${name}`)), fn)
  }

  #liveOn(file: string, ifindex: number): boolean {
    return usingFd(openPin(join(this.#dir, file)), linkInfo).ifindex === ifindex
  }

  /** Undefined: it was attached already. XDP may send to an interface from when its program is there. */
  #attachSlot(device: NetworkInterface, slot: Slot): Attachment | undefined {
    const attached = this.#attachProgram(device, slot)
    if (isXdp(slot)) this.#ports.add(device.ifindex)
    return attached
  }

  #attachProgram(device: NetworkInterface, slot: Slot): Attachment | undefined {
    const file = `link-${device.ifindex}-${slot}`
    if (this.#links().some((link) => link.file === file)) {
      if (this.#liveOn(file, device.ifindex)) return undefined
      this.#unpin({
        file,
        ifindex: device.ifindex,
        slot,
      }) /* of an interface that is gone; its number has been given to another */
    }
    return this.#withProgram(slot, device, (program) => {
      const hook = hookOf(slot)
      try {
        const flags = isXdp(slot) ? XDP_FLAGS[slot] : 0
        usingFd(createLink(program, device.ifindex, hook, flags), (link) => {
          pin(link, join(this.#dir, file))
        })
        return describe(device, slot)
      } catch (error) {
        if (!(error instanceof LbError)) throw error
        if (error.detail.errno === errno.EEXIST) return undefined /* another process was faster */
        if (hook === 'xdp' || error.detail.errno !== errno.EINVAL) throw error
        return this.#attachFilter(device, hook, program) /* EINVAL: this kernel has no tcx (before 6.6) */
      }
    })
  }

  #attachFilter({ ifindex, name }: NetworkInterface, hook: 'ingress' | 'egress', program: Fd): Attachment | undefined {
    if (queryClsact(ifindex, hook) === programId(program)) return undefined
    attachClsact(program, ifindex, hook)
    return { ifindex, interface: name, hook, kind: 'clsact' }
  }
}

function hasFilter(ifindex: number): boolean {
  return queryClsact(ifindex, 'ingress') !== 0 || queryClsact(ifindex, 'egress') !== 0
}

/** Takes our filters off clsact, and clsact too if nobody else's are on it. An interface without ours stays as it is. */
function removeFilters(ifindex: number): void {
  if (!hasFilter(ifindex)) return
  for (const hook of ['ingress', 'egress'] as const) detachClsact(ifindex, hook)
  tidyClsact(ifindex)
}

function describe({ ifindex, name }: NetworkInterface, slot: Slot): Attachment {
  switch (slot) {
    case 'xdpdrv':
      return { ifindex, interface: name, hook: 'xdp', kind: 'xdp-native' }
    case 'xdpskb':
      return { ifindex, interface: name, hook: 'xdp', kind: 'xdp-generic' }
    default:
      return { ifindex, interface: name, hook: hookOf(slot), kind: 'tcx' }
  }
}
