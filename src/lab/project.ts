/** Where the project's files are, seen from src/lab as from dist/lab. */
import { extname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../../', import.meta.url))

/** Absolute path of a file of the project, given relative to its root. */
export function projectFile(path: string): string {
  return join(root, path)
}

/** URL of a sibling module of `importer` (its import.meta.url): .ts in the sources, .js in what was built of them. */
export function siblingModule(name: string, importer: string): URL {
  return new URL(`./${name}${extname(importer)}`, importer)
}
