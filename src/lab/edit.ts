/** Editing manifests as an editor of a person or a script would: a whole new file, put in place by a rename. */
import { readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseAllDocuments, stringify } from 'yaml'

interface Endpoint {
  readonly addresses: readonly string[]
}

interface Manifest {
  readonly kind?: string
  readonly items?: readonly Manifest[]
  readonly endpoints?: readonly Endpoint[]
}

/** What becomes of a slice's endpoints. */
export type EndpointEdit = (endpoints: readonly Endpoint[]) => readonly Endpoint[]

/** Takes the endpoint with an address out of a slice. */
export function withoutEndpoint(address: string): EndpointEdit {
  return (endpoints) => endpoints.filter(({ addresses }) => addresses[0] !== address)
}

/** Adds an endpoint like the one with the address `like` to the slice that has that one. */
export function withEndpoint(address: string, like: string): EndpointEdit {
  return (endpoints) => {
    const model = endpoints.find(({ addresses }) => addresses[0] === like)
    return model === undefined ? endpoints : [...endpoints, { ...model, addresses: [address] }]
  }
}

function edited(manifest: Manifest, edit: EndpointEdit): Manifest {
  if (manifest.items !== undefined) return { ...manifest, items: manifest.items.map((item) => edited(item, edit)) }
  if (manifest.kind !== 'EndpointSlice' || manifest.endpoints === undefined) return manifest
  return { ...manifest, endpoints: edit(manifest.endpoints) }
}

/** Applies an edit to every EndpointSlice in the YAML files of a directory; writes the files that it changes. */
export function editEndpoints(directory: string, edit: EndpointEdit): void {
  for (const name of readdirSync(directory).filter((entry) => /\.ya?ml$/.test(entry))) {
    const path = join(directory, name)
    const manifests = parseAllDocuments(readFileSync(path, 'utf8')).map((document) => document.toJS() as Manifest)
    const before = JSON.stringify(manifests)
    const after = manifests.map((manifest) => edited(manifest, edit))
    if (JSON.stringify(after) === before) continue
    const draft = join(directory, `.${name}.draft`)
    writeFileSync(draft, after.map((manifest) => stringify(manifest)).join('---\n'))
    renameSync(draft, path)
  }
}
