/** lb_config.features: what few tables have, so that packets pay for it only there. */
import { LbFeature, LbHandover } from '../abi/generated.ts'
import { countMarkRules } from './mark-rules.ts'
import type { TableMaps } from './table-maps.ts'

/** What the features have to be, by what else the table says. */
export function dueFeatures(maps: TableMaps): number {
  const { book } = maps
  return (
    (book.fwmarkServices(0) > 0 ? LbFeature.FEATURE_FWMARK : 0) |
    (book.port0Services(0) > 0 ? LbFeature.FEATURE_PORT0 : 0) |
    (book.ftpServices(0) > 0 ? LbFeature.FEATURE_FTP : 0) |
    (countMarkRules(maps) > 0 ? LbFeature.FEATURE_MARK_RULES : 0) |
    (maps.config.ranges(0) > 0 ? LbFeature.FEATURE_RANGES : 0) |
    (maps.config.peers(0) > 0 ? LbFeature.FEATURE_PEERS : 0) |
    (maps.config.handover(0) === LbHandover.HANDOVER_NONE ? 0 : LbFeature.FEATURE_HANDOVER)
  )
}

/** Makes them that. The table's lock is held. */
export function updateFeatures(maps: TableMaps): void {
  maps.config.setFeatures(0, dueFeatures(maps))
}
