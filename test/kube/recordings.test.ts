import { readFileSync } from 'node:fs'
import { gunzipSync } from 'node:zlib'
import t from 'tap'
import { decodeObject } from '../../src/kube/decode.ts'
import type { KubeObject } from '../../src/kube/objects.ts'
import { translate } from '../../src/kube/translate.ts'
import { wholeRecording } from '../../tools/recordings.ts'
import { Tally } from '../helpers/tally.ts'
import { saveFormat } from './save-format.ts'

interface Recording {
  readonly case: string
  readonly desc: string
  readonly services: readonly unknown[]
  readonly endpointSlices: readonly unknown[]
  readonly save: string
}

const file = new URL('../recordings/kube-clusterip.json.gz', import.meta.url)
const { cases } = JSON.parse(gunzipSync(readFileSync(file)).toString()) as { cases: readonly Recording[] }

function decoded(value: unknown): KubeObject {
  const result = decodeObject(value)
  if (result.is !== 'object') throw new Error(`not decoded: ${JSON.stringify(result)}`)
  return result.object
}

const tally = new Tally('kube-clusterip')

for (const [i, recording] of cases.entries()) {
  t.test(`kube-proxy's ipvs mode has the same table: ${recording.case}, ${recording.desc}`, async (t) => {
    const objects = [...recording.services, ...recording.endpointSlices].map(decoded)
    const { desired } = translate(
      {
        services: objects.filter((object) => object.kind === 'Service'),
        endpointSlices: objects.filter((object) => object.kind === 'EndpointSlice'),
      },
      { scheduler: 'rr' },
    )
    const recorded = recording.save.split('\n').filter((line) => line !== '')
    const [now, wanted] = [saveFormat(desired).sort(), recorded.sort()]
    const found = now.join('\n') === wanted.join('\n') ? [] : [now.join('\n')]
    t.same(tally.note(wholeRecording, i, recording.case, found), [], wanted.join('\n'))
  })
}

t.test('every case was compared', async (t) => tally.end(t))
