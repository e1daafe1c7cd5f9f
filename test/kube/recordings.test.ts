/** Every recorded case of kube-proxy again: its objects in, its IPVS table out. */
import t from 'tap'
import { serviceText } from '../../src/kube/service-text.ts'
import { translate } from '../../src/kube/translator.ts'
import type { KubeVirtualService } from '../../src/kube/virtual-services.ts'
import { cases, objectsOf, optionsOf } from '../helpers/kube-cases.ts'
import { type Caller, callers, NftTable, type Outcome } from '../helpers/kube-nft.ts'
import { saveFormat } from './save-format.ts'

/**
 * Where ipvs mode differs from nftables mode, nftables mode is right: docs/differences.md. In each of these the listing is
 * not ipvs mode's, and why.
 */
const differences: Readonly<Record<string, string>> = {
  '2-nodename-absent': 'externalTrafficPolicy Local, no endpoint here: dropped, not sent to other nodes',
  '2-nodeport-etp-remote': 'externalTrafficPolicy Local, no endpoint here: dropped, not sent to other nodes',
  '3-lb-etp-remote': 'externalTrafficPolicy Local, no endpoint here: dropped, not sent to other nodes',
  '3-lb-itp-local-none': 'internalTrafficPolicy Local, no endpoint here: dropped, not sent to other nodes',
}

let matched = 0
let different = 0

for (const recording of cases.filter(({ exit }) => exit?.running !== false)) {
  const why = differences[recording.case]
  const name = `${recording.case}, ${recording.desc || 'a configuration'}`
  t.test(`kube-proxy's ipvs mode has ${why === undefined ? 'the same' : 'another'} table: ${name}`, async (t) => {
    const { desired } = translate(objectsOf(recording), optionsOf(recording))
    const recorded = recording.save.split('\n').filter((line) => line !== '' && !line.startsWith('-A -f'))
    const ours = saveFormat(desired).sort()
    if (why === undefined) t.same(ours, recorded.sort())
    else t.not(ours.join('\n'), recorded.sort().join('\n'), why)
    if (ours.join('\n') === recorded.sort().join('\n')) matched++
    else different++
  })
}

t.test('all recordings are accounted for', async (t) => {
  t.comment(`${matched} tables as recorded, ${different} different for a reason that is written down`)
  t.equal(matched + different, 84)
  t.equal(different, Object.keys(differences).length)
})

/** What our desired state says of a connection from somewhere. */
function outcomeOf({ servers, rules }: KubeVirtualService, caller: Caller, knowsPods: boolean): Outcome {
  const insider = caller === 'node' || (caller === 'pod' && knowsPods)
  const usable = insider ? (rules.insiders ?? servers) : servers
  const names = usable.map(({ address, port }) => `${address} ${port}`).sort()
  const seenAs = caller === 'pod' && !knowsPods ? 'external' : caller
  const masqueraded = rules.masquerade[seenAs]
  return { end: names.length > 0 ? names : rules.whenEmpty, masqueraded }
}

for (const recording of cases.filter(({ nft }) => nft.ip !== undefined)) {
  const name = `${recording.case}, ${recording.desc || 'a configuration'}`
  t.test(`clients anywhere get what kube-proxy's nftables mode gives them: ${name}`, async (t) => {
    const options = { ...optionsOf(recording), scheduler: 'rr' as const }
    const tables = { 4: new NftTable(recording.nft.ip), 6: new NftTable(recording.nft.ip6) }
    const { desired } = translate(objectsOf({ ...recording, config: { ...recording.config, ipvs: {} } }), options)
    t.ok(desired.length > 0)
    for (const want of desired) {
      const { key } = want.service
      if (key.kind !== 'address') throw new Error('a mark')
      const to = { ...key, nodePort: want.rules.role === 'nodePort' }
      const table = tables[key.family]
      const sources = want.rules.sources?.map(({ address, length }) =>
        length === (key.family === 4 ? 32 : 128) ? address : `${address}/${length}`,
      )
      t.same(sources?.toSorted(), table.sources(to)?.toSorted(), `who may use ${serviceText(key)}`)
      for (const caller of callers) {
        const ours = outcomeOf(want, caller, options.knowsPods)
        t.same(ours.end, table.outcome(to, caller).end, `${caller} to ${serviceText(key)}`)
        if (typeof ours.end === 'string') continue
        t.equal(ours.masqueraded, table.outcome(to, caller).masqueraded, `${caller} to ${serviceText(key)}: masquerade`)
      }
    }
  })
}
