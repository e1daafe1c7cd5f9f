/** Records of the sync protocol as texts. */
import { writeAddress } from '../../src/model/address.ts'
import { connFlags, MessageBuilder, type SyncRecord } from '../../src/sync/message.ts'
import { end } from './prog-flow.ts'

export interface RecordOptions {
  readonly state?: number
  readonly flags?: number
  readonly timeoutS?: number
  readonly fwmark?: number
}

const protocols: Readonly<Record<string, number>> = { ip: 0, tcp: 6, udp: 17, sctp: 132 }

/** "tcp CLIENT VIRTUAL SERVER", each as address:port; an established connection unless said otherwise. */
export function syncRecord(text: string, options: RecordOptions = {}): SyncRecord {
  const [protocol = '', ...ends] = text.split(' ')
  const [client, virtual, server] = ends.map((each) => {
    const { address, port } = end(each)
    const bytes = new Uint8Array(16)
    const family = address.includes(':') ? 6 : 4
    if (!writeAddress(bytes, 0, address, family)) throw new Error(`no address: ${each}`)
    return { bytes, port, family } as const
  })
  if (client === undefined || virtual === undefined || server === undefined) throw new Error(`no record: ${text}`)
  const state = protocol === 'tcp' && ((options.flags ?? 0) & connFlags.TEMPLATE) === 0 ? 1 : 0
  return {
    family: client.family,
    protocol: protocols[protocol] ?? 0,
    flags: 0,
    state,
    fwmark: 0,
    timeoutS: 900,
    ...options,
    client: client.bytes,
    clientPort: client.port,
    virtual: virtual.bytes,
    virtualPort: virtual.port,
    server: server.bytes,
    serverPort: server.port,
  }
}

/** One message of all the records; there must be room. */
export function syncMessage(records: readonly SyncRecord[], syncId = 0): Uint8Array {
  const builder = new MessageBuilder(syncId, 65_507)
  for (const record of records) if (builder.add(record) !== undefined) throw new Error('more than one message')
  const message = builder.take()
  if (message === undefined) throw new Error('no records')
  return message
}
