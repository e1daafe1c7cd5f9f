/** Forwarding methods as recorded of the real IPVS: every packet on both wires, to the byte. */
import t, { type Test } from 'tap'
import { Datapath, type Place } from '../helpers/prog.ts'
import { samePacket } from '../helpers/prog-rows.ts'
import { readJsonRecording } from '../helpers/recordings-json.ts'
import { type IpvsadmStep, Replay } from '../helpers/replay.ts'
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

/** Plays what one end sent, and compares what the other end got with what it had got. */
function checkWire(t: Test, datapath: Datapath, at: At, step: WireStep, { prepare, outcome }: Way) {
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
      t.equal(output.action, icmp ? 'pass' : 'send', `${from}: what becomes of a packet`)
      return []
    })
    t.equal(arrived.length, expected.length, `packets from the ${from}`)
    for (const [i, packet] of expected.entries()) {
      const name = `${step.kind} ${i} from the ${from}`
      const found = arrived[i] ?? new Uint8Array(34)
      /* What the director itself makes gets its MAC addresses later, from the kernel's neighbour code. */
      if (innerOffset(packet) === undefined) found.set(packet.subarray(0, 12))
      samePacket(t, withoutChance(found), withoutChance(outcome(packet)), name)
    }
  }
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

const { scenarios } = readJsonRecording<{ scenarios: Scenario[] }>('forwarding')

t.test('packets on both wires are those of the real IPVS', { skip: needsRoot }, async (t) => {
  t.setTimeout(300_000)
  const datapath = await Datapath.open(t)
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
        for (const step of steps) {
          if (step.do === 'wire') for (const way of ways) checkWire(t, datapath, at, step, way)
          /* How NAT's connections were closed is not in the recording. */
          if (step.do === 'ipvsadm' && !(nat && step.args.startsWith('-L')))
            t.equal(await replay.ipvsadm(step), undefined)
        }
      })
    }
  }
})

function asIs(frame: Uint8Array): Uint8Array {
  return frame
}
