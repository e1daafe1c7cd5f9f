/** What is wrong with a manifest, for its owner to find and mend. */

export interface ManifestProblem {
  /** Path of the file, or of the directory when that is what can't be read. */
  readonly file: string
  /** 1 is the first line; absent when the file as a whole is meant. */
  readonly line?: number
  /** `Service default/web`, as far as it can be told. */
  readonly object?: string
  readonly reason: string
}

/** `examples/web.yaml:12: Service default/web: spec.ports[0].port: 70000 is not a port (1-65535)`. */
export function formatProblem(problem: ManifestProblem): string {
  const where = problem.line === undefined ? problem.file : `${problem.file}:${problem.line}`
  return problem.object === undefined ? `${where}: ${problem.reason}` : `${where}: ${problem.object}: ${problem.reason}`
}
