/** What the lab's clients call: every virtual service of a directory of manifests, as it is at the moment. */
import type { DesiredService } from '../engine/table.ts'
import { NodeContext, plainSettings } from '../kube/node-context.ts'
import { translate } from '../kube/translator.ts'
import { ManifestDirectory } from '../manifests/directory.ts'
import type { Family } from '../model/types.ts'

/** A virtual service to call. */
export interface LabTarget {
  /** "TCP 10.96.0.10:80". */
  readonly label: string
  readonly application: 'http' | 'dns'
  readonly protocol: 'tcp' | 'udp'
  readonly family: Family
  readonly address: string
  readonly port: number
  /** Addresses of its servers, in the order of the manifests. */
  readonly servers: readonly string[]
  /** A client stays with the server that it has (session affinity). */
  readonly sticky: boolean
}

const dnsPort = 53

function targetOf({ service: { key, persistence }, servers }: DesiredService): LabTarget | undefined {
  if (key.kind !== 'address' || key.protocol === 'sctp') return undefined
  const { family, protocol, address, port } = key
  const host = family === 4 ? address : `[${address}]`
  return {
    label: `${protocol.toUpperCase()} ${host}:${port}`,
    application: protocol === 'udp' || port === dnsPort ? 'dns' : 'http',
    protocol,
    family,
    address,
    port,
    servers: servers.map((server) => server.address),
    sticky: persistence !== undefined,
  }
}

const maxFileBytes = 1024 * 1024
const rescanMs = 10_000

/** Reads a directory of manifests and follows it, as bpvsd does with the same code; problems are bpvsd's to report. */
export function followTargets(directory: string, onTargets: (targets: readonly LabTarget[]) => void): () => void {
  const { options } = new NodeContext(plainSettings('rr', ''))
  const manifests = new ManifestDirectory({
    directory,
    maxFileBytes,
    rescanMs,
    onState: ({ objects }) => {
      const { desired } = translate(objects, options)
      onTargets(desired.map(targetOf).filter((target) => target !== undefined))
    },
    onProblems: () => {},
  })
  manifests.start()
  return () => manifests.close()
}
