/** Packets as the recordings of wires write them: who sends or receives, addresses, kind, ports, time to live. */
import { decode, type Fields } from './decode.ts'
import { endsOf, type Witness } from './prog-host.ts'

function text(packet: Uint8Array): string {
  const fields = decode(packet)
  const { from, to } = endsOf(packet)
  const six = fields['ip.version'] !== 4
  const life = six ? `hlim=${fields['ip6.hops']}` : `ttl=${fields['ip.ttl']}`
  return `${from} > ${to} ${kind(fields)} ${life}`
}

function kind(fields: Fields): string {
  if (fields['tcp.flags'] !== undefined) {
    const flags = [...'SARFP'].filter((letter) => String(fields['tcp.flags']).includes(letter)).join('')
    return `TCP ${flags} ${fields['tcp.sport']}>${fields['tcp.dport']}`
  }
  if (fields['udp.sport'] !== undefined) return `UDP ${fields['udp.sport']}>${fields['udp.dport']}`
  const name = fields['ip.version'] === 4 ? 'ICMP' : 'ICMPv6'
  return `${name} type=${fields['icmp.type']} code=${fields['icmp.code']} about ${quoted(fields)}`
}

/** Ends of the packet that an ICMP message is about. */
function quoted(fields: Fields): string {
  const part = (...names: string[]) =>
    names.map((name) => fields[`quoted ${name}`]).find((value) => value !== undefined)
  const [from, to] = [part('ip.from', 'ip6.from') ?? '0.0.0.0', part('ip.to', 'ip6.to') ?? '0.0.0.0']
  return `${from}>${to} ${part('tcp.sport', 'udp.sport') ?? 0}>${part('tcp.dport', 'udp.dport') ?? 0}`
}

/** Collects what was seen. */
export class Wire {
  #seen: string[] = []

  note(witness: Witness, packet: Uint8Array): void {
    this.#seen.push(`${witness} ${text(packet)}`)
  }

  /** What was seen since the last time. */
  take(): string[] {
    const seen = this.#seen
    this.#seen = []
    return seen
  }
}
