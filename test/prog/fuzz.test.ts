/**
 * A million random packets, some of them valid, through every program: whatever is not a valid packet leaves as it came
 * or not at all. BPVS_FUZZ_SEED and BPVS_FUZZ_PACKETS (for each program) choose another run.
 */
import t from 'tap'
import { LbBypassMode } from '../../src/abi/generated.ts'
import { tableShape } from '../helpers/conn-invariants.ts'
import { describe } from '../helpers/decode.ts'
import { type FuzzPacket, Mutator, renewed, runnable, untranslated } from '../helpers/fuzz.ts'
import { Datapath, type Output, type Place } from '../helpers/prog.ts'
import { endsOf } from '../helpers/prog-host.ts'
import { addService } from '../helpers/prog-rows.ts'
import { needsRoot } from '../helpers/topology.ts'
import { unwrapped } from '../helpers/unwrap.ts'
import { invalid, invalidTunnel, transportChecksumHolds } from '../helpers/validate.ts'

const seed = Number(process.env.BPVS_FUZZ_SEED ?? 20251) || 1
const packets = Number(process.env.BPVS_FUZZ_PACKETS ?? 340_000)

function fill(datapath: Datapath): void {
  datapath.clear()
  for (const family of ['mark', 'mark6']) {
    addService(datapath, { at: `${family} 7`, servers: family === 'mark' ? ['10.2.0.11:0'] : ['[fd00:2::11]:0'] })
  }
  for (const protocol of ['tcp', 'udp', 'sctp']) {
    for (const at of ['10.9.0.1:80', '10.10.0.1:80']) {
      addService(datapath, { at: `${protocol} ${at}`, servers: ['10.2.0.11:8080', '10.2.0.12:80', '10.1.0.50:80'] })
    }
    for (const at of ['[fd00:9::1]:80', '[fd00:10::1]:80']) {
      addService(datapath, {
        at: `${protocol} ${at}`,
        servers: ['[fd00:2::11]:8080', '[fd00:2::12]:80', '[fd00:1::50]:80'],
      })
    }
    const methods = ['droute', 'ipip', 'gue+csum', 'gre'] as const
    for (const [i, n] of untranslated.entries()) {
      addService(datapath, { at: `${protocol} 10.9.1.${n}:80`, servers: [`10.2.0.2${n}:80 1 ${methods[i]}`] })
      addService(datapath, {
        at: `${protocol} [fd00:9::1:${n}]:80`,
        servers: [`[fd00:2::2${n}]:80 1 ${methods[i]}`],
      })
    }
    addService(datapath, { at: `${protocol} 10.9.0.2:81`, servers: [] })
    addService(datapath, { at: `${protocol} [fd00:9::2]:81`, servers: ['[fd00:2::11]:80 0'] })
  }
}

interface Findings {
  readonly actions: Record<string, number>
  /** The first packet of each kind of problem. */
  readonly problems: Map<string, string>
  valid: number
  changed: number
}

/** Whether the director itself sends it: tunnels begin there. */
function fromDirector(packet: Uint8Array): boolean {
  return packet.length >= 54 && ['10.254.2.1', 'fd00:fe:2::1'].includes(endsOf(packet).from)
}

/** What is wrong with what became of a packet; undefined: nothing. */
function judge(before: Uint8Array, out: Output, changed: boolean): string | undefined {
  const why = invalid(before)
  if (why !== undefined && out.action === 'send') return `sent on, although: ${why}`
  if (why !== undefined && changed) return `changed, although: ${why}`
  if (!changed) return out.action === 'send' ? 'sent on unchanged' : undefined
  const inner = fromDirector(out.packet) ? unwrapped(out.packet) : undefined
  const broken = inner === undefined ? invalid(out.packet) : (invalidTunnel(out.packet) ?? invalid(inner))
  if (broken !== undefined) return `made invalid: ${broken}`
  if (transportChecksumHolds(before) && !transportChecksumHolds(inner ?? out.packet)) {
    return 'lost its right transport checksum'
  }
  return undefined
}

function feed(datapath: Datapath, at: Place, { side, packet }: FuzzPacket, findings: Findings): void {
  const out = datapath.run({ at, side, packet, mark: at === 'marked' ? 7 : 0 })
  findings.actions[out.exactly] = (findings.actions[out.exactly] ?? 0) + 1
  const before = at === 'marked' ? renewed(packet) : packet
  const changed = Buffer.compare(before, out.packet) !== 0
  if (changed) findings.changed++
  if (invalid(before) === undefined) findings.valid++
  const problem = judge(before, out, changed)
  if (problem === undefined || findings.problems.has(problem)) return
  findings.problems.set(problem, `from ${side}:\n${describe(packet)}became ${out.exactly}\n${describe(out.packet)}`)
}

function run(datapath: Datapath, at: Place, bypass: number): Findings {
  const findings: Findings = { actions: {}, problems: new Map(), valid: 0, changed: 0 }
  const mutator = new Mutator(seed)
  const warm = new Mutator(seed + 1)
  datapath.maps.config.setBypass(0, bypass)
  for (let n = 0; n < packets / 2; ) {
    const next = mutator.next()
    if (!runnable(at, next.packet)) continue
    n++
    feed(datapath, at, next, findings)
    // At egress nothing opens a connection, so other packets do.
    const other = at === 'egress' && n % 16 === 0 ? warm.next() : undefined
    if (other !== undefined && runnable('ingress', other.packet)) datapath.run({ at: 'ingress', ...other })
  }
  return findings
}

t.test('fuzz', { skip: needsRoot }, async (t) => {
  t.setTimeout(900_000)
  const datapath = await Datapath.open(t, { connections: 4096 })
  t.comment(`seed ${seed}, ${packets} packets for each program`)
  let total = 0
  for (const at of ['xdp', 'ingress', 'egress', 'marked'] as const) {
    for (const [name, bypass] of [
      ['past the stack', LbBypassMode.BYPASS_ALWAYS],
      ['through the stack', LbBypassMode.BYPASS_NEVER],
    ] as const) {
      fill(datapath)
      const { actions, problems, valid, changed } = run(datapath, at, bypass)
      const counts = Object.entries(actions).map(([action, count]) => `${action} ${count}`)
      t.comment(`${at} ${name}: ${counts.join(', ')}; ${valid} were valid, ${changed} were changed`)
      t.same(Object.fromEntries(problems), {}, `${at} ${name}: no packet that is not valid was sent or changed`)
      t.ok(
        valid > 1000 && (changed > 1000 || (at === 'xdp' && bypass === LbBypassMode.BYPASS_NEVER)),
        'enough were ours',
      )
      // What is over ends now, and nothing else while the table is read.
      datapath.handles.sweep()
      datapath.expire(100_000)
      datapath.handles.gracePeriod()
      const { problems: contradictions, masqueraded } = tableShape(datapath)
      t.same(contradictions, [], 'the table is consistent after it')
      if (at === 'marked') t.ok(masqueraded > 50, `${masqueraded} servers called themselves`)
      total += Object.values(actions).reduce((sum, count) => sum + count, 0)
    }
  }
  t.comment(`${total} packets in all`)
  if (process.env.BPVS_FUZZ_PACKETS === undefined) t.ok(total >= 1_000_000, 'a million packets in all')
})
