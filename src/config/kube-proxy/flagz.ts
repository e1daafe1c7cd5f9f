/** kube-proxy's flags with the values that they have, as it lists them at /flagz. */
import { type FieldPath, type FieldSpec, fieldEntries } from './fields.ts'
import type { KubeProxyFlags } from './flags.ts'
import { plainValue } from './values.ts'

/** Flags whose default is not that of their field. */
const ownDefaults: Readonly<Partial<Record<FieldPath, string>>> = { 'ipvs.minSyncPeriod': '1s' }

/** Every flag's value by its name: what the command line said, with a file beside it too, or the flag's default. */
export function flagTexts({
  values,
  switches,
  others,
}: Omit<KubeProxyFlags, 'warnings'>): Readonly<Record<string, string>> {
  const texts: Record<string, string> = {
    'boot-id-file': '/proc/sys/kernel/random/boot_id',
    'machine-id-file': '/etc/machine-id,/var/lib/dbus/machine-id',
    cleanup: String(switches.cleanup),
    config: switches.config ?? '',
    help: String(switches.help),
    'init-only': String(switches.initOnly),
    master: switches.master ?? '',
    version: String(switches.version),
    'write-config-to': switches.writeConfigTo ?? '',
    'healthz-port': '10256',
    'metrics-port': '10249',
    ...others,
  }
  for (const [path, spec] of fieldEntries) {
    if (spec.flag === undefined) continue
    const value = values[path]
    texts[spec.flag] = value === undefined ? (ownDefaults[path] ?? flagText(spec, spec.default)) : flagText(spec, value)
  }
  return Object.fromEntries(Object.entries(texts).sort(([a], [b]) => (a < b ? -1 : 1)))
}

/** As Go's flags write themselves. */
function flagText(spec: FieldSpec, value: FieldSpec['default']): string {
  if (spec.type === 'gates') {
    const gates = Object.entries(value ?? {}).sort(([a], [b]) => (a < b ? -1 : 1))
    return gates.map(([gate, on]) => `${gate}=${on}`).join(',')
  }
  if (spec.type !== 'strings') return String(plainValue(spec, value))
  const items = Array.isArray(value) ? value.join(',') : ''
  return spec.flag === 'vmodule' ? items : `[${items}]`
}
