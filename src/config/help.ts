/** Texts made from the schema. Pure. */
import { fieldEntries } from './kube-proxy/fields.ts'
import { plainValue } from './kube-proxy/values.ts'
import { configEntries, environmentName, flagName, type PropertySchema } from './schema.ts'

const general: readonly (readonly [string, string])[] = [
  [
    '--kubeconfig FILE',
    "Where the Kubernetes API server is, and who bpvsd is there. Unset: its pod's service account.",
  ],
  [
    '--config FILE',
    "Read kube-proxy's configuration (KubeProxyConfiguration), or the options above, from a YAML or JSON file.",
  ],
  ['--bpvs-config FILE', "Read the options above from a file, beside kube-proxy's."],
  ['--write-config-to FILE', "Write kube-proxy's configuration as it would be in force, and end."],
  ['--init-only', 'Do what needs privilege: make the table, attach, and end.'],
  ['--cleanup-kube-proxy', 'Remove what kube-proxy left in this network namespace, in any of its modes, and end.'],
  ['--cleanup', 'Remove the programs, the table and everything else of this network namespace, and end.'],
  ['--help, -h', 'Show this text, and end.'],
  ['--version, -V', 'Show the version, and end.'],
]

/** The text of `--help`. */
export function helpText(program: string): string {
  const options = configEntries.map(([key, schema]): readonly [string, string] => [
    `${flagName(key)} ${schema.flag}`,
    [schema.description, values(schema), byDefault(schema)].filter((part) => part !== '').join(' '),
  ])
  const lines = [...options, ...general].flatMap(([option, text]) => {
    const [first = '', ...more] = wrap(text, 72)
    const head = option.length > 29 ? [`  ${option}`, `${' '.repeat(33)}${first}`] : [`  ${option.padEnd(31)}${first}`]
    return [...head, ...more.map((line) => `${' '.repeat(33)}${line}`)]
  })
  return [
    `Usage: ${program} [--kubeconfig FILE | --manifests DIR] [options]`,
    '',
    'Serves the Services of a Kubernetes cluster, or of a directory of manifests, from this network namespace.',
    '',
    'Options:',
    ...lines,
    '',
    'All other flags of kube-proxy are taken too; docs/bpvsd.md says what each does here.',
    'Every option can also be set in the environment (--exclude-interfaces: BPVS_EXCLUDE_INTERFACES) and in the file of',
    '--config (excludeInterfaces). Flags win over the environment, the environment over the file.',
    'SIGHUP reads all Services anew. SIGTERM and SIGINT end bpvsd; the kernel goes on balancing with the table as it is.',
    '',
  ].join('\n')
}

/** The table of options in docs/bpvsd.md. */
export function optionsTable(): string {
  const rows = configEntries.map(([key, schema]) => {
    const text = [schema.description, values(schema)].filter((part) => part !== '').join(' ')
    const fallback = schema.default === undefined ? '' : `\`${shownDefault(schema)}\``
    return `| \`${key}\` | \`${flagName(key)} ${schema.flag}\` | \`${environmentName(key)}\` | ${fallback} | ${text} |`
  })
  return ['| key | flag | variable | default | meaning |', '| --- | --- | --- | --- | --- |', ...rows, ''].join('\n')
}

/** The table of kube-proxy's fields in docs/bpvsd.md. */
export function kubeProxyTable(): string {
  const rows = fieldEntries.map(([path, spec]) => {
    const flag = spec.flag === undefined ? '' : `\`--${spec.flag}\``
    const value = JSON.stringify(plainValue(spec, spec.default))
    return `| \`${path}\` | ${flag} | \`${value}\` | ${spec.ignored === undefined ? 'as kube-proxy' : `no effect: ${spec.ignored}`} |`
  })
  return ['| field | flag | default | here |', '| --- | --- | --- | --- |', ...rows, ''].join('\n')
}

function values(schema: PropertySchema): string {
  return schema.enum === undefined ? '' : `One of ${schema.enum.join(', ')}.`
}

function byDefault(schema: PropertySchema): string {
  return schema.default === undefined ? '' : `Default: ${shownDefault(schema)}.`
}

function shownDefault(schema: PropertySchema): string {
  return typeof schema.default === 'object' ? schema.default.join(',') : String(schema.default)
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = []
  for (const word of text.split(' ')) {
    const last = lines.at(-1)
    if (last !== undefined && last.length + 1 + word.length <= width) lines[lines.length - 1] = `${last} ${word}`
    else lines.push(word)
  }
  return lines
}
