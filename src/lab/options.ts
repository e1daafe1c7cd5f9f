/** The lab's command line. */
import { parseArgs } from 'node:util'
import { LbError } from '../model/errors.ts'

export interface LabOptions {
  readonly run: 'live' | 'once' | 'help'
  /** Directory of manifests; undefined: the project's examples. */
  readonly manifests: string | undefined
}

export const labHelp = `Usage: npm start [-- OPTION...]

Builds a network of clients, a director and servers in network namespaces, runs bpvsd
in the director on the manifests of examples/ and shows the traffic live.

  --once            run a short fixed scenario instead; exit status 0 when all went well
  --manifests DIR   use another directory of manifests than examples/
  -h, --help        this text

docs/lab.md tells more.
`

/** Reads the arguments. USAGE for what is none of them. */
export function parseLabOptions(args: readonly string[]): LabOptions {
  try {
    const { values } = parseArgs({
      args: [...args],
      options: {
        once: { type: 'boolean' },
        manifests: { type: 'string' },
        help: { type: 'boolean', short: 'h' },
      },
    })
    const run = values.help ? 'help' : values.once ? 'once' : 'live'
    return { run, manifests: values.manifests }
  } catch (cause) {
    throw new LbError('USAGE', `${(cause as Error).message}\n\n${labHelp}`, { args }, cause)
  }
}
