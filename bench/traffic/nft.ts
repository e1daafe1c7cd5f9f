/** A ruleset as kube-proxy's nftables mode writes it (1.33 and newer). Pure. */
import type { TrafficService } from './paths.ts'
import { serverAddresses } from './paths.ts'

const ENDPOINT_KEY = 'ipv4_addr . inet_proto . inet_service'

function chainName({ address, protocol, port }: TrafficService): string {
  return `service-${address.replaceAll('.', '-')}/${protocol}/${port}`
}

function serviceChain(service: TrafficService): string {
  const servers = serverAddresses.map((address, i) => `${i} : ${address} . ${service.serverPort}`).join(', ')
  return `  chain ${chainName(service)} {
    meta l4proto ${service.protocol} dnat ip to numgen random mod ${serverAddresses.length} map { ${servers} }
  }
`
}

const fixedMaps = `  set cluster-ips { type ipv4_addr; }
  set hairpin-connections { type ipv4_addr . ipv4_addr . inet_proto . inet_service; }
  map no-endpoint-services { type ${ENDPOINT_KEY} : verdict; }
  map firewall-ips { type ${ENDPOINT_KEY} : verdict; }
  map service-ips { type ${ENDPOINT_KEY} : verdict; }
`

/** Which packets to a cluster IP are masqueraded: those from outside of the cluster, which ours are not; or all. */
const masqueraded = { outside: 'ip daddr @cluster-ips ip saddr != 10.0.0.0/8', all: 'ip daddr @cluster-ips' } as const

function fixedChains(masquerade: keyof typeof masqueraded): string {
  return `  chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }
  chain firewall-check { ip daddr . meta l4proto . th dport vmap @firewall-ips; }
  chain services {
    ${masqueraded[masquerade]} meta mark set meta mark | 0x4000
    ip daddr . meta l4proto . th dport vmap @service-ips
  }
  chain masquerading {
    meta mark & 0x4000 != 0 meta mark set meta mark ^ 0x4000 masquerade fully-random
    ct status dnat ip saddr . ip daddr . meta l4proto . th dport @hairpin-connections masquerade fully-random
  }
  chain cluster-ips-check {
    ip daddr @cluster-ips reject
    ip daddr 10.96.0.0/12 drop
  }
  chain filter-prerouting-pre-dnat {
    type filter hook prerouting priority dstnat - 10; policy accept;
    ct state new jump firewall-check
  }
  chain filter-input {
    type filter hook input priority filter; policy accept;
    ct state new jump service-endpoints-check
  }
  chain filter-forward {
    type filter hook forward priority filter; policy accept;
    ct state new jump service-endpoints-check
    ct state new jump cluster-ips-check
  }
  chain filter-output {
    type filter hook output priority filter; policy accept;
    ct state new jump service-endpoints-check
    ct state new jump cluster-ips-check
  }
  chain nat-prerouting { type nat hook prerouting priority dstnat; policy accept; jump services; }
  chain nat-output { type nat hook output priority -100; policy accept; jump services; }
  chain nat-postrouting { type nat hook postrouting priority srcnat; policy accept; jump masquerading; }
`
}

/** The whole table, for nft -f; with `masquerade` as kube-proxy's masqueradeAll makes it. */
export function kubeProxyRules(services: readonly TrafficService[], masquerade: boolean): string {
  const addresses = [...new Set(services.map(({ address }) => address))].join(', ')
  const verdicts = services.map((service) => {
    return `${service.address} . ${service.protocol} . ${service.port} : goto ${chainName(service)}`
  })
  return `table ip kube-proxy {
${fixedMaps}${fixedChains(masquerade ? 'all' : 'outside')}${services.map(serviceChain).join('')}}
add element ip kube-proxy cluster-ips { ${addresses} }
add element ip kube-proxy service-ips { ${verdicts.join(', ')} }
`
}
