/** Recorded runs of the real ipvsadm, and what it takes to run the same command lines here. */
import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import type { Resolver } from '../../src/cli/names.ts'
import { type Environment, run } from '../../src/cli/run.ts'
import type { Operations } from '../../src/cli/session.ts'

/** A run of ipvsadm: `args` as a shell would take it, or split already. */
export interface CommandStep {
  readonly do: 'ipvsadm'
  readonly args: string | readonly string[]
  readonly rc: number
  readonly out: string
  readonly err: string
  readonly stdin?: string
  /** Run by this user instead of root. */
  readonly uid?: number
  readonly save_after?: string
  readonly list_after?: string
}

/** What was in a file: one of /proc/net by its path, or by its name; `sysctl`: what sysctl told of IPVS's. */
export type ReadStep =
  | { readonly do: 'read'; readonly path: string; readonly out: string; readonly file?: undefined }
  | { readonly do: 'read'; readonly file: string; readonly text: string }

export type Step =
  | CommandStep
  | ReadStep
  | { readonly do: 'table' }
  | { readonly do: 'sh' | 'note' | 'sleep' | 'connect' }

export interface Scenario {
  readonly name: string
  readonly desc?: string
  /** Sees what the scenario before left: timeouts, for one. */
  readonly continues?: boolean
  readonly steps: readonly Step[]
}

export interface Recording {
  readonly etc_hosts?: string
  readonly scenarios: readonly Scenario[]
}

/** A recording of test/recordings. */
export function readRecording(name: string): Recording {
  const file = new URL(`../recordings/${name}.json.gz`, import.meta.url)
  return JSON.parse(gunzipSync(readFileSync(file)).toString()) as Recording
}

/** What the recordings need of /etc/services. */
const services = `ssh 22/tcp
domain 53/tcp
domain 53/udp
bootps 67/udp
tftp 69/udp
http 80/tcp www
snmp 161/tcp
snmp 161/udp
https 443/tcp
https 443/udp
syslog 514/udp
mysql 3306/tcp
sip 5060/tcp
sip 5060/udp
sip-tls 5061/tcp
sip-tls 5061/udp
http-alt 8080/tcp webcache
http-alt 8080/udp
tcpmux 1/tcp
`

/** A resolver that knows an /etc/hosts and nothing else. */
export function hostsResolver(hosts: string): Resolver {
  const entries = hosts
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter((words) => words.length > 1)
  const isName = (words: readonly string[], name: string): boolean => {
    return words.slice(1).some((word) => word.toLowerCase() === name.toLowerCase())
  }
  return {
    address: async (name) => entries.find((words) => words[0]?.includes('.') && isName(words, name))?.[0],
    name: async (address) => entries.find((words) => words[0] === address)?.[1],
    services: () => services,
  }
}

/** Splits a recorded command line: blanks, and quotes of both kinds, as the recorder's shell-like splitter did. */
export function splitArguments(args: string | readonly string[]): string[] {
  if (typeof args !== 'string') return [...args]
  return [...args.matchAll(/(?:"[^"]*"|'[^']*'|[^\s"'])+/g)].map(([word]) =>
    word.replace(/"([^"]*)"|'([^']*)'/g, '$1$2'),
  )
}

export interface Outcome {
  readonly rc: number
  readonly out: string
  readonly err: string
}

/** Runs one command line in this process, as root unless told otherwise. */
export async function runCommand(
  args: readonly string[],
  options: { operations: Operations; resolver?: Resolver; stdin?: string; privileged?: boolean },
): Promise<Outcome> {
  let out = ''
  let err = ''
  const environment: Environment = {
    program: '/usr/sbin/ipvsadm',
    privileged: options.privileged ?? true,
    operations: async () => options.operations,
    resolver: options.resolver ?? hostsResolver('127.0.0.1 localhost\n::1 localhost\n'),
    stdin: async function* () {
      yield options.stdin ?? ''
    },
    stdout: (text) => {
      out += text
    },
    stderr: (text) => {
      err += text
    },
  }
  const rc = await run(args, environment)
  return { rc, out, err }
}
