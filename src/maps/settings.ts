/** A table's settings as lb_config holds them: programs read them at each packet that they concern. */
import { LbBypassMode, LbConfigArray, LbHandover } from '../abi/generated.ts'
import type { PortRange } from '../model/masquerade-ports.ts'
import {
  type BypassMode,
  bypassModes,
  type HandoverMode,
  handoverModes,
  type Settings,
  type SettingsChange,
  type TunableName,
  tunables,
} from '../model/settings.ts'
import { updateFeatures } from './features.ts'
import type { TableMaps } from './table-maps.ts'

const { at } = LbConfigArray
const offsets: Readonly<Record<TunableName, number>> = {
  am_droprate: at.amDroprate,
  amemthresh: at.amemthresh,
  conn_reuse_mode: at.connReuseMode,
  drop_entry: at.dropEntry,
  drop_packet: at.dropPacket,
  expire_nodest_conn: at.expireNodestConn,
  expire_quiescent_template: at.expireQuiescentTemplate,
  lblc_expiration: at.lblcExpiration,
  lblcr_expiration: at.lblcrExpiration,
  nat_icmp_send: at.natIcmpSend,
  run_estimation: at.runEstimation,
  schedule_icmp: at.scheduleIcmp,
  secure_tcp: at.secureTcp,
  sloppy_sctp: at.sloppySctp,
  sloppy_tcp: at.sloppyTcp,
}
/** Those whose modes 1 and 2 tell whether memory is low, as the kernel has them. */
const automatic: ReadonlySet<TunableName> = new Set(['drop_entry', 'drop_packet', 'secure_tcp'])

const bypassNumbers: Readonly<Record<BypassMode, number>> = {
  auto: LbBypassMode.BYPASS_AUTO,
  never: LbBypassMode.BYPASS_NEVER,
  always: LbBypassMode.BYPASS_ALWAYS,
}

const handoverNumbers: Readonly<Record<HandoverMode, number>> = {
  none: LbHandover.HANDOVER_NONE,
  from: LbHandover.HANDOVER_FROM,
  to: LbHandover.HANDOVER_TO,
}

export function readSettings(maps: TableMaps): Settings {
  const bypass = maps.config.bypass(0)
  const handover = maps.config.handover(0)
  const first = maps.config.masqueradeFirst(0)
  const count = maps.config.masqueradeCount(0)
  return {
    ...(count === 0 ? {} : { masqueradePorts: { first, last: first + count - 1 } }),
    bypass: bypassModes.find((mode) => bypassNumbers[mode] === bypass) ?? 'auto',
    handover: handoverModes.find((mode) => handoverNumbers[mode] === handover) ?? 'none',
    tunables: Object.fromEntries(tunables.map(({ name }) => [name, readTunable(maps, name)])) as Settings['tunables'],
  }
}

function readTunable(maps: TableMaps, name: TunableName): number {
  const value = maps.config.u32[offsets[name] / 4] ?? 0
  if (!automatic.has(name) || (value !== 1 && value !== 2)) return value
  return maps.defence.low(0) !== 0 ? 2 : 1
}

/** Each in one store. The table's lock is held. */
export function writeSettings(maps: TableMaps, change: SettingsChange): void {
  if (change.bypass !== undefined) maps.config.setBypass(0, bypassNumbers[change.bypass])
  if (change.handover !== undefined) {
    maps.config.setHandover(0, handoverNumbers[change.handover])
    updateFeatures(maps)
  }
  if (change.masqueradePorts !== undefined) writeMasqueradePorts(maps.config, change.masqueradePorts)
  for (const { name } of tunables) {
    const value = change.tunables?.[name]
    if (value !== undefined) Atomics.store(maps.config.u32, offsets[name] / 4, value)
  }
}

/** First and count lie together: one store changes both. */
function writeMasqueradePorts(config: LbConfigArray, { first, last }: PortRange): void {
  const pair = new Uint32Array([first, last - first + 1])
  Atomics.store(config.u64, at.masqueradeFirst / 8, new BigUint64Array(pair.buffer)[0] ?? 0n)
}
