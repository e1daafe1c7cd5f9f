/** Forwarding methods as recorded of the real IPVS: every packet on both wires, to the byte. */
import t from 'tap'
import { decode } from '../helpers/decode.ts'
import { Datapath, type Place } from '../helpers/prog.ts'
import { readJsonRecording } from '../helpers/recordings-json.ts'
import { type IpvsadmStep, Replay } from '../helpers/replay.ts'
import { Tally } from '../helpers/tally.ts'
import { needsRoot } from '../helpers/topology.ts'
import { completed, frameOf, innerOffset, sideOf, withoutChance, type WireStep } from '../helpers/wire.ts'

interface Scenario {
  readonly name: string
  readonly steps: readonly (IpvsadmStep | WireStep | { readonly do: 'note' })[]
}

/** How a recorded packet is sent here, and what a recorded result has to be made to compare. */
interface Way {
  readonly prepare: (frame: Uint8Array) => Uint8Array
  readonly outcome: (frame: Uint8Array) => Uint8Array
}

type At = Extract<Place, 'ingress' | 'xdp'>

/** Plays what one end sent, and compares what the other end got with what it had got. Returns what differs. */
function checkWire(datapath: Datapath, at: At, step: WireStep, { prepare, outcome }: Way): string[] {
  const found: string[] = []
  const frames = (who: 'client' | 'backend', dir: 'sent' | 'received') =>
    step.packets.filter((packet) => packet.at === who && packet.dir === dir)
  for (const [from, to] of [
    ['client', 'backend'],
    ['backend', 'client'],
  ] as const) {
    const expected = frames(to, 'received').map(frameOf)
    const arrived = frames(from, 'sent').flatMap((packet) => {
      const input = prepare(frameOf(packet))
      const icmp = innerOffset(input) === undefined
      const output = datapath.run({ at: icmp ? 'ingress' : at, side: sideOf(packet), packet: input })
      if (output.action === 'send') return [output.packet]
      if (output.action !== (icmp ? 'pass' : 'send')) found.push(`${from}: ${output.action}`)
      return []
    })
    if (arrived.length !== expected.length) found.push(`${from}: ${arrived.length} packets, not ${expected.length}`)
    for (const [i, packet] of expected.entries()) {
      const name = `${step.kind} ${i} from the ${from}`
      const now = arrived[i] ?? new Uint8Array(34)
      /* What the director itself makes gets its MAC addresses later, from the kernel's neighbour code. */
      if (innerOffset(packet) === undefined) now.set(packet.subarray(0, 12))
      const is = withoutChance(now)
      const wanted = withoutChance(outcome(packet))
      if (Buffer.compare(is, wanted) !== 0) found.push(`${name}: ${JSON.stringify([is, wanted].map(decode))}`)
    }
  }
  return found
}

/** What is inside a frame, with its checksum computed, whatever is around it. */
function completeInner(frame: Uint8Array): Uint8Array {
  const inner = innerOffset(frame)
  return inner === undefined ? frame : completed(frame, inner)
}

/** With a remote checksum it is the tunnel's that was left to the device. */
function completeOuter(frame: Uint8Array): Uint8Array {
  return innerOffset(frame) === 14 ? frame : completed(frame)
}

/** The connections through NAT, by family. */
const natFlows = {
  4: { client: '10.1.0.1:4000', virtual: '10.9.0.1:80', server: '10.2.0.11:8080' },
  6: { client: '[fd00:1::1]:4000', virtual: '[fd00:9::1]:80', server: '[fd00:2::11]:8080' },
} as const

const { scenarios } = readJsonRecording<{ scenarios: Scenario[] }>('forwarding')

t.test('packets on both wires are those of the real IPVS', { skip: needsRoot }, async (t) => {
  t.setTimeout(900_000)
  const datapath = await Datapath.open(t)
  const tally = new Tally('forwarding')
  for (const { name, steps } of scenarios) {
    for (const at of ['ingress', 'xdp'] as const) {
      await t.test(`${name}, ${at}`, async (t) => {
        datapath.clear()
        datapath.maps.config.setBypass(0, 2)
        const replay = new Replay(datapath, { xdp: at === 'xdp' })
        const nat = name.startsWith('-m')
        /* With the checksum left to the device, as recorded, and computed; NAT needs to know which, so the latter only.
           What is summed remotely is so only in the former. */
        const whole = { prepare: completeInner, outcome: completeInner }
        const partial = { prepare: asIs, outcome: name.includes('remcsum') ? completeOuter : asIs }
        const ways = nat ? [whole] : name.includes('remcsum') ? [partial] : [partial, whole]
        for (const [i, step] of steps.entries()) {
          if (step.do === 'note') continue
          const what = step.do === 'wire' ? step.kind : step.args
          const found = step.do === 'wire' ? ways.flatMap((way) => checkWire(datapath, at, step, way)) : []
          if (step.do === 'ipvsadm') {
            /* The only connection that was established; its end was not recorded. */
            if (nat && step.args === '-Lnc') replay.host.tcp('c:FA', name.endsWith('4') ? natFlows[4] : natFlows[6])
            const difference = await replay.ipvsadm(step)
            if (difference !== undefined) found.push(difference)
          }
          t.same(tally.note(name, i, what, found), [], what)
        }
      })
    }
  }
  tally.end(t)
})

function asIs(frame: Uint8Array): Uint8Array {
  return frame
}
