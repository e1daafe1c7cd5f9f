/**
 * What all files of a directory say together. Keeps the last good version of an object whose new version is bad, so
 * that a slip of the pen never takes a service out of force. Pure but for its own state.
 */
import { type KubeEndpointSlice, type KubeObjects, type KubeService, objectId } from '../kube/objects.ts'
import { News } from '../observe/news.ts'
import type { ParsedFile, ParsedObject } from './parse.ts'
import { formatProblem, type ManifestProblem } from './problem.ts'

interface FileState {
  /** In force, by objectId, in the order of the file. */
  readonly objects: ReadonlyMap<string, ParsedObject>
  readonly problems: readonly ManifestProblem[]
  /** Everything that the file says was understood. */
  readonly complete: boolean
}

/** What holds now. */
export interface ManifestState {
  readonly objects: KubeObjects
  /** Everything was understood: no object of the directory is missing from `objects`. */
  readonly complete: boolean
  /** Files that were read. */
  readonly files: number
}

/** Which problems are new since the last call, and which are gone. */
export interface ProblemChanges {
  readonly found: readonly ManifestProblem[]
  readonly solved: readonly ManifestProblem[]
}

export class ManifestStore {
  readonly #files = new Map<string, FileState>()
  readonly #reported = new News<ManifestProblem>()

  /** A file was read anew. Bad objects keep their last good version. */
  set(file: string, parsed: ParsedFile): void {
    const objects = new Map<string, ParsedObject>()
    const problems = [...parsed.problems]
    for (const item of parsed.objects) {
      const id = objectId(item.object)
      const first = objects.get(id)
      if (first === undefined) objects.set(id, item)
      else problems.push(duplicate(file, item, file, first))
    }
    for (const [id, item] of this.#files.get(file)?.objects ?? []) {
      if (!objects.has(id) && (parsed.lost || parsed.bad.has(id))) objects.set(id, item)
    }
    this.#files.set(file, { objects, problems, complete: parsed.problems.length === 0 })
  }

  /** A file is there but can't be read: what it said stays in force. False if that was known already. */
  unreadable(file: string, reason: string): boolean {
    const before = this.#files.get(file)
    if (before?.problems.length === 1 && before.problems[0]?.reason === reason) return false
    this.#files.set(file, { objects: before?.objects ?? new Map(), problems: [{ file, reason }], complete: false })
    return true
  }

  /** Whether objects of a file are in force. */
  holds(file: string): boolean {
    return (this.#files.get(file)?.objects.size ?? 0) > 0
  }

  /** A file is gone, and its objects with it. False if it was unknown. */
  remove(file: string): boolean {
    return this.#files.delete(file)
  }

  /**
   * What holds now, and which problems are new or gone since the last call; `again` reports all of them as new. Of an
   * object that is in several files, the first file's version is in force.
   */
  take(again = false): { readonly state: ManifestState; readonly changes: ProblemChanges } {
    const services: KubeService[] = []
    const endpointSlices: KubeEndpointSlice[] = []
    const problems: ManifestProblem[] = []
    const firsts = new Map<string, { file: string; item: ParsedObject }>()
    const files = [...this.#files].sort(([a], [b]) => (a < b ? -1 : 1))
    for (const [file, state] of files) {
      problems.push(...state.problems)
      for (const [id, item] of state.objects) {
        const first = firsts.get(id)
        if (first !== undefined) {
          problems.push(duplicate(file, item, first.file, first.item))
          continue
        }
        firsts.set(id, { file, item })
        if (item.object.kind === 'Service') services.push(item.object)
        else endpointSlices.push(item.object)
      }
    }
    if (again) this.#reported.forget()
    const complete = files.every(([, state]) => state.complete)
    return {
      state: { objects: { services, endpointSlices }, complete, files: files.length },
      changes: this.#reported.update(problems.map((problem) => [formatProblem(problem), problem])),
    }
  }
}

function duplicate(file: string, item: ParsedObject, firstFile: string, first: ParsedObject): ManifestProblem {
  return {
    file,
    line: item.line,
    object: objectId(item.object),
    reason: `is in ${firstFile}:${first.line} too: that one is used`,
  }
}
