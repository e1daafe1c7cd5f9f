/** All that must hold in a table, checked: for tests and for operators who want to know. */
import { dueFeatures } from '../maps/features.ts'
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

function checkFeatures(maps: TableMaps): string[] {
  const due = dueFeatures(maps)
  const is = maps.config.features(0)
  return is === due ? [] : [`lb_config.features is ${is}, not ${due}`]
}
