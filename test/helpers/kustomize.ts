/**
 * As much of kustomize as deploy/ uses: resources, components, strategic merge patches (lists by their merge keys,
 * `$patch: delete`), namespace, images. Anything else in a kustomization is an error here, so nothing goes untested.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseAllDocuments } from 'yaml'

/** An object of Kubernetes as it is in a file. */
export type Manifest = Readonly<Record<string, unknown>> & {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: { readonly name: string; readonly namespace?: string }
}
type Fields = Readonly<Record<string, unknown>>

interface Kustomization {
  readonly apiVersion: string
  readonly kind: string
  readonly namespace?: string
  readonly resources?: readonly string[]
  readonly components?: readonly string[]
  readonly patches?: readonly { readonly path: string }[]
  readonly labels?: readonly { readonly pairs: Readonly<Record<string, string>> }[]
  readonly images?: readonly { readonly name: string; readonly newName: string; readonly newTag: string }[]
}

const known = ['apiVersion', 'kind', 'namespace', 'resources', 'components', 'patches', 'labels', 'images']
const apiVersions = new Map([
  ['Kustomization', 'kustomize.config.k8s.io/v1beta1'],
  ['Component', 'kustomize.config.k8s.io/v1alpha1'],
])
/** By which field the items of a list are told apart; lists that are not here are replaced. */
const mergeKeys = new Map([
  ['containers', 'name'],
  ['initContainers', 'name'],
  ['volumes', 'name'],
  ['env', 'name'],
  ['volumeMounts', 'mountPath'],
])

/** The documents of a YAML file. Throws on anything that YAML doesn't allow, such as a key twice. */
export function readDocuments(file: string): unknown[] {
  return parseAllDocuments(readFileSync(file, 'utf8')).map((document) => {
    const [error] = document.errors
    if (error !== undefined) throw new Error(`${file}: ${error.message}`)
    return document.toJS()
  })
}

/** What `kubectl kustomize directory` gives, in no certain order. */
export function build(directory: string, before: readonly Manifest[] = []): Manifest[] {
  const [kustomization] = readDocuments(join(directory, 'kustomization.yaml')) as Kustomization[]
  if (kustomization === undefined) throw new Error(`${directory}: no kustomization`)
  const odd = Object.keys(kustomization).filter((key) => !known.includes(key))
  if (odd.length > 0 || apiVersions.get(kustomization.kind) !== kustomization.apiVersion) {
    throw new Error(
      `${directory}: ${kustomization.apiVersion} ${kustomization.kind} with ${odd.join(', ') || 'nothing odd'}`,
    )
  }
  let objects = [...before]
  for (const resource of kustomization.resources ?? []) {
    const path = join(directory, resource)
    objects.push(...(resource.endsWith('.yaml') ? (readDocuments(path) as Manifest[]) : build(path)))
  }
  for (const component of kustomization.components ?? []) objects = build(join(directory, component), objects)
  for (const { path } of kustomization.patches ?? []) {
    for (const patch of readDocuments(join(directory, path))) objects = applyPatch(objects, patch as Manifest, path)
  }
  return objects.map((object) => transform(object, kustomization))
}

function applyPatch(objects: readonly Manifest[], patch: Manifest, path: string): Manifest[] {
  const matches = ({ kind, metadata }: Manifest): boolean =>
    kind === patch.kind && metadata.name === patch.metadata.name
  if (!objects.some(matches)) throw new Error(`${path}: there is no ${patch.kind} ${patch.metadata.name}`)
  if (patch.$patch === 'delete') return objects.filter((object) => !matches(object))
  return objects.map((object) => (matches(object) ? (merge(object, patch) as Manifest) : object))
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** A field that is there is replaced, but fields of an object and items with a merge key are merged one by one. */
function merge(target: unknown, patch: unknown, field = ''): unknown {
  const key = mergeKeys.get(field)
  if (Array.isArray(target) && Array.isArray(patch) && key !== undefined) return mergeItems(target, patch, key)
  if (!isFields(target) || !isFields(patch)) return patch
  const merged = Object.entries(patch).map(([name, value]) => [name, merge(target[name], value, name)])
  return { ...target, ...Object.fromEntries(merged) }
}

function mergeItems(target: readonly Fields[], patch: readonly Fields[], key: string): Fields[] {
  const fresh = patch.filter((item) => !target.some((each) => each[key] === item[key]))
  const merged = target.map((item) => {
    const change = patch.find((each) => each[key] === item[key])
    return change === undefined ? item : (merge(item, change) as Fields)
  })
  return [...fresh, ...merged]
}

/** Labels, namespace and images; the namespace is written out in every file, so that a wrong one shows. */
function transform(object: Manifest, { namespace, labels = [], images = [] }: Kustomization): Manifest {
  const { metadata } = object
  if (namespace !== undefined && metadata.namespace !== undefined && metadata.namespace !== namespace) {
    throw new Error(`${object.kind} ${metadata.name} is in ${metadata.namespace}, not in ${namespace}`)
  }
  const pairs = Object.assign({}, ...labels.map((label) => label.pairs)) as Fields
  const labelled = { ...object, metadata: { ...metadata, ...labelsOf(metadata, pairs) } }
  return withImages(labelled, images) as Manifest
}

function labelsOf(metadata: Fields, pairs: Fields): Fields {
  const all = { ...(metadata.labels as Fields | undefined), ...pairs }
  return Object.keys(all).length === 0 ? {} : { labels: all }
}

function withImages(value: unknown, images: NonNullable<Kustomization['images']>): unknown {
  if (Array.isArray(value)) return value.map((item) => withImages(item, images))
  if (!isFields(value)) return value
  const entries = Object.entries(value).map(([name, field]) => {
    const image = name === 'image' ? images.find((each) => each.name === field) : undefined
    return [name, image === undefined ? withImages(field, images) : `${image.newName}:${image.newTag}`]
  })
  return Object.fromEntries(entries)
}
