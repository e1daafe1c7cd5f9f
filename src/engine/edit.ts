/** One edit of the table, from taking the lock to giving it back. */
import type { TableMaps } from '../maps/table-maps.ts'

/** What an edit works on. */
export interface Edit {
  readonly maps: TableMaps
  /** Monotonic seconds. */
  readonly nowS: number
  /**
   * Set when no id of a removed server could be reused: those that nothing refers to, but that a service wants back.
   * Not tried again until another server is removed or one of these is wanted no more.
   */
  shortage?: ReadonlySet<number> | undefined
  /** Set by what removes services by mark: at the edit's end their packets are no longer asked for. */
  unsteered?: boolean
  /** Ids of services of insiders that no list in force leads to any more; programs that run now may be on their way there. */
  unled?: number[]
}
