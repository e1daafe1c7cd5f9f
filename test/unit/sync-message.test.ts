import t from 'tap'
import { formatAddress } from '../../src/model/address.ts'
import { connFlags, decodeMessage, MessageBuilder, type SyncRecord } from '../../src/sync/message.ts'
import { random } from '../helpers/random.ts'
import { readJsonRecording } from '../helpers/recordings-json.ts'
import { Tally } from '../helpers/tally.ts'

interface Scenario {
  readonly name: string
  readonly daemon: string
  /** `ipvsadm -Lnc` of the master. */
  readonly connections: string
  readonly messages: readonly string[]
}

const { scenarios } = readJsonRecording<{ scenarios: readonly Scenario[] }>('sync')
const everybody = { syncId: 0, maxLength: 1472 }

function bytes(hex: string): Uint8Array {
  return Uint8Array.from(Buffer.from(hex, 'hex'))
}

function recorded(name: string): Uint8Array[] {
  const found = scenarios.find((scenario) => scenario.name === name)
  if (found === undefined) throw new Error(`no scenario ${name}`)
  return found.messages.map(bytes)
}

function decodeAll(messages: readonly Uint8Array[]): SyncRecord[] {
  return messages.flatMap((message) => [...decodeMessage(message, everybody).records])
}

/** The messages that a master makes of records. */
function build(records: readonly SyncRecord[], syncId: number, maxLength = 1472): Uint8Array[] {
  const builder = new MessageBuilder(syncId, maxLength)
  const full = records.flatMap((record) => builder.add(record) ?? [])
  return [...full, builder.take() ?? []].filter((message) => message instanceof Uint8Array)
}

const tcpStates = ['NONE', 'ESTABLISHED', 'SYN_SENT', 'SYN_RECV', 'FIN_WAIT', 'TIME_WAIT', 'CLOSE', 'CLOSE_WAIT']

/** A record as a line of `ipvsadm -Lnc` has it, without the time left. */
function line(record: SyncRecord): string {
  const end = (address: Uint8Array, port: number): string => {
    const text = formatAddress(address, 0, record.family)
    return `${record.family === 6 ? `[${text}]` : text}:${port}`
  }
  const protocol = { 0: 'IP', 6: 'TCP', 17: 'UDP' }[record.protocol] ?? `${record.protocol}`
  const template = (record.flags & connFlags.TEMPLATE) !== 0
  const states = template ? ['NONE', 'ASSURED'] : protocol === 'UDP' ? ['UDP'] : tcpStates
  const ends = [
    end(record.client, record.clientPort),
    end(record.virtual, record.virtualPort),
    end(record.server, record.serverPort),
  ]
  return [protocol, states[record.state], ...ends].join(' ')
}

function listed(connections: string): string[] {
  return connections
    .split('\n')
    .map((row) => row.trim().split(/\s+/))
    .filter((words) => words.length === 6)
    .map(([protocol, , ...rest]) => [protocol, ...rest].join(' '))
}

const tally = new Tally('sync')

for (const { name, connections, messages } of scenarios) {
  t.test(`${name}: what IPVS told of its connections is read as it listed them`, async (t) => {
    const records = decodeAll(messages.map(bytes))
    t.ok(records.length > 0, 'there are records')
    const last = new Map(records.map((record) => [line(record).replace(/ \S+/, ''), line(record)]))
    const lines = listed(connections)
    const found = [...last.values()].filter((each) => !lines.includes(each))
    t.same(tally.note(name, 0, 'what is read', found), [])
  })
}

t.test('what IPVS told is what we tell of the same connections, to the byte', async (t) => {
  for (const { name, daemon, messages } of scenarios.filter(({ name }) => name !== 'sip' && name !== 'version0')) {
    const syncId = Number(/--syncid (\d+)/.exec(daemon)?.[1] ?? 0)
    const maxLength = Number(/--sync-maxlen (\d+)/.exec(daemon)?.[1] ?? 1472)
    const built = build(decodeAll(messages.map(bytes)), syncId, maxLength)
    const ours = built.map((message) => Buffer.from(message).toString('hex'))
    const found = [...ours.filter((hex, i) => hex !== messages[i]), ...messages.slice(ours.length)]
    t.same(tally.note(name, 1, 'what is told', found), [])
  }
  tally.end(t)
})

t.test('records have timeouts, marks and methods; those of version 0 have none of the former', async (t) => {
  const short = ({ timeoutS, fwmark, flags }: SyncRecord): number[] => [timeoutS, fwmark, flags]
  t.same(decodeAll(recorded('fwmark')).map(short), [[900, 7, 0]])
  t.same(
    decodeAll(recorded('direct')).map(short),
    [
      [900, 0, 0x83],
      [900, 0, 0x83],
      [120, 0, 0x183],
    ],
    'direct routing; from the first FIN on it is inactive',
  )
  t.same(
    new Set(decodeAll(recorded('persistent')).map((record) => short(record).join())),
    new Set(['300,0,4352', '900,0,0']),
  )
  t.same(
    decodeAll(recorded('version0')).map(short),
    [0, 0, 0x100, 0x100].map((flags) => [0, 0, flags]),
  )
})

t.test('connections of a persistence engine are refused, those between them are read', async (t) => {
  const [message = bytes('')] = recorded('sip')
  const { records, refused, reason } = decodeMessage(message, everybody)
  t.same(records.map(line), ['UDP UDP 10.1.0.9:5060 10.9.0.1:5060 10.2.0.11:5060'])
  t.equal(refused, 3)
  t.match(reason, /persistence engine/)
})

t.test('a backup with a sync id hears that one alone; with 0, everybody', async (t) => {
  const [message = bytes('')] = recorded('tcp4')
  const heard = (syncId: number): number => decodeMessage(message, { ...everybody, syncId }).records.length
  t.same([heard(5), heard(0), heard(6)], [6, 6, 0])
})

t.test('a message of another size than it says, or than fits, has nothing for us', async (t) => {
  const [message = bytes('')] = recorded('tcp4')
  const longer = Uint8Array.from([...message, 0])
  for (const wrong of [longer, message.subarray(0, -1), message.subarray(0, 3), new Uint8Array()]) {
    t.match(decodeMessage(wrong, everybody), { records: [], refused: 1 }, `${wrong.length} bytes`)
  }
  t.match(decodeMessage(message, { syncId: 0, maxLength: message.length - 1 }), { records: [], refused: 1 })
  t.equal(decodeMessage(message, { syncId: 0, maxLength: message.length }).refused, 0)
})

/** A message cut to `length` that says so. */
function cut(message: Uint8Array, length: number): Uint8Array {
  const short = message.slice(0, length)
  if (length >= 4) new DataView(short.buffer).setUint16(2, length)
  return short
}

t.test('of a message that is cut off, the records before are read', async (t) => {
  for (const name of ['tcp4', 'tcp6', 'version0']) {
    const [message = bytes('')] = recorded(name)
    const { records } = decodeMessage(message, everybody)
    const version0 = name === 'version0'
    const size = version0 ? 24 : name === 'tcp6' ? 72 : 36
    const header = version0 ? 4 : 8
    for (let length = header; length < message.length; length++) {
      const read = decodeMessage(cut(message, length), everybody)
      const whole = Math.floor((length - header) / size)
      t.same(read.records, records.slice(0, whole), `${name}: ${length} bytes`)
      t.equal(read.refused, 1)
    }
  }
})

/** The first recorded record of TCP over IPv4, with other bytes at some places, in a message of its own. */
function altered(changes: Record<number, number>, more: readonly number[] = []): ReturnType<typeof decodeMessage> {
  const [first = bytes('')] = recorded('fwmark')
  const message = Uint8Array.from([...first, ...more])
  const view = new DataView(message.buffer)
  view.setUint16(2, message.length)
  view.setUint16(10, 36 + more.length)
  for (const [at, value] of Object.entries(changes)) message[Number(at)] = value
  return decodeMessage(message, everybody)
}

t.test('a record that cannot be understood is refused', async (t) => {
  const rows: readonly (readonly [string, Record<number, number>, RegExp])[] = [
    ['of an unknown type', { 8: 2 }, /of type 2/],
    ['of an unknown version', { 10: 0x10 }, /of version 1/],
    ['shorter than a record is', { 11: 35 }, /cut off/],
    ['of a protocol that is not balanced', { 9: 47 }, /protocol 47/],
    ['in a state that TCP does not have', { 17: 11 }, /state 11/],
    ['a datagram in a state that UDP does not have', { 9: 17 }, /state 1/],
    ['a template in a state that templates do not have', { 14: 0x10, 17: 2 }, /state 2/],
  ]
  for (const [what, changes, reason] of rows) {
    const { records, refused, reason: said } = altered(changes)
    t.same([records.length, refused], [0, 1], what)
    t.match(said, reason, what)
  }
  t.equal(altered({}).records.length, 1, 'the same without the change is read')
})

t.test('parameters behind a record are read as IPVS reads them', async (t) => {
  const sequences = [1, 24, ...Array<number>(24).fill(0)]
  const rows: readonly (readonly [string, readonly number[], number, RegExp | undefined])[] = [
    ['sequence numbers are passed over', sequences, 1, undefined],
    ['sequence numbers twice', [...sequences, ...sequences], 0, /twice/],
    ['sequence numbers of a wrong length', [1, 4, 0, 0, 0, 0], 0, /wrong length/],
    ['an unknown parameter that may be ignored', [0x47, 2, 0, 0], 1, undefined],
    ['an unknown parameter that may not', [7, 2, 0, 0], 0, /kind 7/],
    ['a parameter without length', [1, 0], 0, /cut off/],
    ['a parameter longer than the record', [2, 9, 0, 0], 0, /cut off/],
    ['half a parameter', [1], 0, /cut off/],
    ['an engine name that is too long', [3, 17, ...Array<number>(17).fill(0x61)], 0, /wrong length/],
    ['the data of an engine', [2, 1, 0x61, 3, 3, 0x73, 0x69, 0x70], 0, /engine/],
  ]
  for (const [what, more, count, reason] of rows) {
    const { records, reason: said } = altered({}, more)
    t.equal(records.length, count, what)
    if (reason === undefined) t.equal(said, undefined, what)
    else t.match(said, reason, what)
  }
})

t.test('a message never has more records than a byte can count, nor is it longer than allowed', async (t) => {
  const [record] = decodeAll(recorded('fwmark'))
  if (record === undefined) throw new Error('no record')
  const many = Array.from({ length: 600 }, (_, clientPort) => ({ ...record, clientPort }))
  const large = build(many, 1, 65507)
  t.same(
    large.map((message) => message[4]),
    [255, 255, 90],
  )
  const small = build(many, 1, 100)
  t.equal(small.length, 300)
  t.ok(small.every((message) => message.length <= 100))
  const tiny = build(many.slice(0, 3), 1, 1)
  t.same(
    tiny.map((message) => message.length),
    [44, 44, 44],
    'a record that is longer goes alone',
  )
  for (const messages of [large, small, tiny]) {
    const read = messages.flatMap((message) => decodeMessage(message, { syncId: 1, maxLength: 65507 }).records)
    t.same(read, many.slice(0, read.length))
  }
})

t.test('bytes at random never do anything but be refused or read', async (t) => {
  const draw = random(20_260_101)
  const originals = scenarios.flatMap(({ messages }) => messages.map(bytes))
  let read = 0
  for (let i = 0; i < 30_000; i++) {
    const base = originals[draw(originals.length)] ?? bytes('')
    const message = cut(base, draw(3) === 0 ? draw(base.length + 1) : base.length)
    for (let n = draw(6); n > 0; n--) {
      const at = draw(message.length + 1)
      if (at > 3 && at < message.length) message[at] = draw(256)
    }
    const { records, refused } = decodeMessage(message, everybody)
    read += records.length
    if (refused < 0 || records.some(({ family, client }) => client.length !== 16 || (family !== 4 && family !== 6))) {
      throw new Error(`read wrongly: ${Buffer.from(message).toString('hex')}`)
    }
  }
  t.ok(read > 30_000, `${read} records were read in between`)
})
