/** A KubeProxyConfiguration as kube-proxy writes it: to a file, and at /configz. */
import { stringify } from 'yaml'
import { apiVersion, kind } from './decode.ts'
import { type FieldPath, type FieldSpec, fieldEntries, type KubeProxyConfiguration } from './fields.ts'
import { plainValue } from './values.ts'

type Tree = { [key: string]: unknown }

/** Periods are one setting, of the mode in force; of the other modes they show as none. */
const periodModes: Readonly<Partial<Record<FieldPath, string>>> = {
  'iptables.syncPeriod': 'iptables',
  'iptables.minSyncPeriod': 'iptables',
  'ipvs.syncPeriod': 'ipvs',
  'ipvs.minSyncPeriod': 'ipvs',
  'nftables.syncPeriod': 'nftables',
  'nftables.minSyncPeriod': 'nftables',
}

/** As an object, fields in the API's order. */
export function toObject(config: KubeProxyConfiguration): Tree {
  const root: Tree = { kind, apiVersion }
  for (const [path, spec] of fieldEntries) {
    const value = shown(config, path, spec)
    if (value !== undefined) place(root, path.split('.'), value)
  }
  return root
}

/** The text of --write-config-to: keys in the order of the alphabet. */
export function toYaml(config: KubeProxyConfiguration): string {
  return stringify(toObject(config), {
    sortMapEntries: true,
    version: '1.1',
    nullStr: 'null',
    lineWidth: 0,
    indentSeq: false,
  })
}

function shown(config: KubeProxyConfiguration, path: FieldPath, spec: FieldSpec): unknown {
  const mode = periodModes[path]
  if (mode !== undefined && mode !== config.mode) return '0s'
  const value = config[path]
  const empty = value === null || value === false || value === 0 || value === ''
  return spec.optional === true && empty ? undefined : plainValue(spec, value)
}

function place(tree: Tree, [key = '', ...rest]: readonly string[], value: unknown): void {
  if (rest.length === 0) {
    tree[key] = value
    return
  }
  tree[key] ??= {}
  place(tree[key] as Tree, rest, value)
}
