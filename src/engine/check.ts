/** All that must hold in a table, checked: for tests and for operators who want to know. */
import { LbFeature } from '../abi/generated.ts'
import { TableMaps } from '../maps/table-maps.ts'
import type { TableHandles } from '../native/handles.ts'
import { checkCells } from './check-cells.ts'
import { checkFilter, checkIndex } from './check-index.ts'
import { checkServers, checkServices } from './check-records.ts'

/** Every violation as a sentence; empty: the table is consistent. Takes the lock. */
export function checkTable(handles: TableHandles): string[] {
  return handles.withLock(() => {
    const maps = new TableMaps(handles)
    if (maps.book.editing(0) !== 0) return ['a writer died in the middle of an edit; the next edit puts it in order']
    return [
      ...checkServices(maps),
      ...checkServers(maps),
      ...checkCells(maps),
      ...checkIndex(maps),
      ...checkFilter(maps),
      ...checkFeatures(maps),
    ]
  })
}

function checkFeatures({ book, config }: TableMaps): string[] {
  const due =
    (book.fwmarkServices(0) > 0 ? LbFeature.FEATURE_FWMARK : 0) |
    (book.port0Services(0) > 0 ? LbFeature.FEATURE_PORT0 : 0)
  return config.features(0) === due ? [] : [`lb_config.features is ${config.features(0)}, not ${due}`]
}
