/** A table in memory whose writer dies in the middle of an edit. */
import { MemoryHandles } from './memory-handles.ts'

/** Dies (throws "killed") at the `left`th hash or grace period from when that was set. */
export class DyingHandles extends MemoryHandles {
  left = Number.POSITIVE_INFINITY

  override hashServices(endpoints: Uint8Array): Uint32Array {
    this.#step()
    return super.hashServices(endpoints)
  }

  override hashServers(endpoints: Uint8Array): Uint32Array {
    this.#step()
    return super.hashServers(endpoints)
  }

  override gracePeriod(): void {
    this.#step()
    super.gracePeriod()
  }

  #step(): void {
    if (--this.left < 0) throw new Error('killed')
  }
}
