/** Desired services as `ipvsadm -S -n` writes a table: what the tests of translation compare. */
import type { DesiredService } from '../../src/engine/table.ts'
import type { ServerSpec, ServiceSpec } from '../../src/model/types.ts'

const optionOf = { tcp: '-t', udp: '-u', sctp: '--sctp-service' } as const

function endpoint(family: 4 | 6, address: string, port: number): string {
  return family === 6 ? `[${address}]:${port}` : `${address}:${port}`
}

function serviceOption({ key }: ServiceSpec): string {
  if (key.kind === 'fwmark') return `-f ${key.mark}`
  return `${optionOf[key.protocol]} ${endpoint(key.family, key.address, key.port)}`
}

function persistence({ persistence: p }: ServiceSpec): string {
  if (p === undefined) return ''
  return p.mask === 128 || p.mask === '255.255.255.255' ? ` -p ${p.timeoutS}` : ` -p ${p.timeoutS} -M ${p.mask}`
}

function flags({ method, weight, upper, lower }: ServerSpec): string {
  const thresholds = upper === 0 && lower === 0 ? '' : ` -x ${upper} -y ${lower}`
  return `${{ masq: '-m', tunnel: '-i', droute: '-g' }[method]} -w ${weight}${thresholds}`
}

/** Names of the flags that kube-proxy sets. */
function schedulerFlags({ scheduler, schedulerFlags: flags }: ServiceSpec): string {
  if (flags.length === 0) return ''
  return ` -b ${flags.map((flag) => (scheduler === 'mh' && flag === 2 ? 'mh-port' : `flag-${flag}`)).join(',')}`
}

/** One line a service and one a server, in their order. */
export function saveFormat(desired: readonly DesiredService[]): string[] {
  return desired.flatMap(({ service, servers }) => [
    `-A ${serviceOption(service)} -s ${service.scheduler}${persistence(service)}${schedulerFlags(service)}`,
    ...servers.map((server) => {
      const { family, address, port } = server
      return `-a ${serviceOption(service)} -r ${endpoint(family, address, port)} ${flags(server)}`
    }),
  ])
}
