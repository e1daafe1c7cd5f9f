import { readdirSync, readFileSync } from 'node:fs'
import t from 'tap'
import { NodeContext, plainSettings } from '../../src/kube/node-context.ts'
import { translate } from '../../src/kube/translator.ts'
import { parseManifests } from '../../src/manifests/parse.ts'
import { saveFormat } from './save-format.ts'

const directory = new URL('../../examples/', import.meta.url)

t.test('the manifests of examples/ are good, and give the table that the documentation shows', async (t) => {
  const names = readdirSync(directory).filter((name) => name.endsWith('.yaml'))
  const files = names.map((name) => parseManifests(name, readFileSync(new URL(name, directory), 'utf8')))
  t.same(
    files.flatMap((file) => file.problems),
    [],
  )
  const objects = files.flatMap((file) => file.objects).map(({ object }) => object)
  const { desired, notices } = translate(
    {
      services: objects.filter((object) => object.kind === 'Service'),
      endpointSlices: objects.filter((object) => object.kind === 'EndpointSlice'),
    },
    new NodeContext(plainSettings('rr', 'here')).options,
  )
  t.same(notices, [])
  t.same(saveFormat(desired), [
    '-A -u 10.96.0.53:53 -s rr',
    '-a -u 10.96.0.53:53 -r 10.244.1.21:5353 -m -w 1',
    '-a -u 10.96.0.53:53 -r 10.244.1.22:5353 -m -w 1',
    '-A -t 10.96.0.53:53 -s rr',
    '-a -t 10.96.0.53:53 -r 10.244.1.21:5353 -m -w 1',
    '-a -t 10.96.0.53:53 -r 10.244.1.22:5353 -m -w 1',
    '-A -u [fd00:96::53]:53 -s rr',
    '-a -u [fd00:96::53]:53 -r [fd00:244:1::21]:5353 -m -w 1',
    '-a -u [fd00:96::53]:53 -r [fd00:244:1::22]:5353 -m -w 1',
    '-A -t [fd00:96::53]:53 -s rr',
    '-a -t [fd00:96::53]:53 -r [fd00:244:1::21]:5353 -m -w 1',
    '-a -t [fd00:96::53]:53 -r [fd00:244:1::22]:5353 -m -w 1',
    '-A -t 10.96.0.81:80 -s rr',
    '-a -t 10.96.0.81:80 -r 10.244.1.31:8080 -m -w 1',
    '-a -t 10.96.0.81:80 -r 10.244.1.32:8080 -m -w 1',
    '-A -t 10.96.0.80:80 -s rr',
    '-a -t 10.96.0.80:80 -r 10.244.1.11:8080 -m -w 1',
    '-a -t 10.96.0.80:80 -r 10.244.1.12:8080 -m -w 1',
    '-a -t 10.96.0.80:80 -r 10.244.1.13:8080 -m -w 1',
    '-A -t [fd00:96::80]:80 -s rr',
    '-a -t [fd00:96::80]:80 -r [fd00:244:1::11]:8080 -m -w 1',
    '-a -t [fd00:96::80]:80 -r [fd00:244:1::12]:8080 -m -w 1',
    '-a -t [fd00:96::80]:80 -r [fd00:244:1::13]:8080 -m -w 1',
  ])
})
