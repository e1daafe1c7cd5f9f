/** Tells when something in a directory changes, also when the directory itself goes and comes back. */
import { type FSWatcher, statSync, watch } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { reasonOf } from './read.ts'

export class DirectoryWatch {
  readonly #directory: string
  readonly #onEvent: (name: string | undefined) => void
  #watcher: FSWatcher | undefined
  /** Which directory the watcher is on, by device and inode. */
  #watched = ''
  #trouble: string | undefined
  #closed = false

  /** `onEvent` gets the name of the file, or undefined when anything may have changed. */
  constructor(directory: string, onEvent: (name: string | undefined) => void) {
    this.#directory = resolve(directory)
    this.#onEvent = onEvent
  }

  /** Why there is no watch at present. */
  get trouble(): string | undefined {
    return this.#trouble
  }

  /**
   * Call it before each full scan: puts the watch on the directory that has the name now. When there is none, watches
   * the nearest directory above it for its return (and asks for one more scan, as it may have come back meanwhile), and
   * throws what stat threw.
   */
  ensure(): void {
    let id: string
    try {
      id = identity(this.#directory)
    } catch (error) {
      this.#watchAbove()
      throw error
    }
    if (id !== this.#watched) this.#put(this.#directory, id, (name) => this.#onEvent(name))
  }

  close(): void {
    this.#closed = true
    this.#watcher?.close()
  }

  #watchAbove(): void {
    for (let above = dirname(this.#directory); ; above = dirname(above)) {
      try {
        const id = `above ${identity(above)}`
        if (id !== this.#watched) {
          this.#put(above, id, () => this.#onEvent(undefined))
          this.#onEvent(undefined)
        }
        return
      } catch (error) {
        if (above === dirname(above)) throw error
      }
    }
  }

  #put(directory: string, id: string, onEvent: (name: string | undefined) => void): void {
    if (this.#closed) return
    this.#watcher?.close()
    this.#watcher = undefined
    this.#watched = ''
    try {
      this.#watcher = watch(directory, (_type, name) => onEvent(name ?? undefined))
      this.#watcher.on('error', (error) => this.#lost(error))
      this.#watched = id
      this.#trouble = undefined
    } catch (error) {
      this.#trouble = reasonOf(error)
    }
  }

  /** The next full scan puts it up again. */
  #lost(error: unknown): void {
    this.#watcher?.close()
    this.#watcher = undefined
    this.#watched = ''
    this.#trouble = reasonOf(error)
  }
}

function identity(directory: string): string {
  const { dev, ino } = statSync(directory, { bigint: true })
  return `${dev}:${ino}`
}
