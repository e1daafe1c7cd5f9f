/** Every recorded case of kube-proxy again: its objects in, its IPVS table out. */
import t from 'tap'
import { serviceText } from '../../src/kube/service-text.ts'
import { translate } from '../../src/kube/translator.ts'
import type { KubeVirtualService } from '../../src/kube/virtual-services.ts'
import { cases, objectsOf, optionsOf } from '../helpers/kube-cases.ts'
import { type Caller, callers, NftTable, type Outcome } from '../helpers/kube-nft.ts'
import { wholeRecording } from '../../tools/recordings.ts'
import { Tally } from '../helpers/tally.ts'
import { saveFormat } from './save-format.ts'

const tally = new Tally('kube-cases')

for (const [i, recording] of cases.entries()) {
  if (recording.exit?.running === false) continue
  t.test(
    `kube-proxy's ipvs mode and its table: ${recording.case}, ${recording.desc || 'a configuration'}`,
    async (t) => {
      const { desired } = translate(objectsOf(recording), optionsOf(recording))
      const recorded = recording.save.split('\n').filter((line) => line !== '' && !line.startsWith('-A -f'))
      const [ours, theirs] = [saveFormat(desired).sort(), recorded.sort()].map((lines) => lines.join('\n'))
      const found = ours === theirs ? [] : [`${ours}\nrecorded:\n${theirs}`]
      t.same(tally.note(wholeRecording, i, recording.case, found), [])
    },
  )
}

t.test('every recorded table is ours, or another by intent', async (t) => tally.end(t))

/** What our desired state says of a connection from somewhere. */
function outcomeOf({ servers, insiders, service }: KubeVirtualService, caller: Caller, knowsPods: boolean): Outcome {
  const insider = caller === 'node' || (caller === 'pod' && knowsPods)
  const usable = insider ? (insiders ?? servers) : servers
  const names = usable.map(({ address, port }) => `${address} ${port}`).sort()
  const { masquerade, whenEmpty } = service.policy
  const seenAs = caller === 'node' ? 'node' : insider ? 'pods' : 'others'
  return { end: names.length > 0 ? names : whenEmpty, masqueraded: masquerade[seenAs] }
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
      const to = { ...key, nodePort: want.service.policy.nodePort }
      const table = tables[key.family]
      const sources = want.service.policy.sources?.map(({ address, length }) =>
        length === (key.family === 4 ? 32 : 128) ? address : `${address}/${length}`,
      )
      t.same(sources?.toSorted(), table.sources(to)?.toSorted(), `who may use ${serviceText(key)}`)
      for (const caller of callers) {
        const ours = outcomeOf(want, caller, options.knowsPods[key.family])
        t.same(ours.end, table.outcome(to, caller).end, `${caller} to ${serviceText(key)}`)
        if (typeof ours.end === 'string') continue
        t.equal(ours.masqueraded, table.outcome(to, caller).masqueraded, `${caller} to ${serviceText(key)}: masquerade`)
      }
    }
  })
}
