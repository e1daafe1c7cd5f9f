/** Rows of the tests of translation: manifests in, `ipvsadm -S -n` out. */
import t from 'tap'
import type { IpAddress } from '../../src/kube/address.ts'
import type { KubeObjects } from '../../src/kube/objects.ts'
import { translate } from '../../src/kube/translator.ts'
import type { TranslateOptions } from '../../src/kube/virtual-services.ts'
import { parseManifests } from '../../src/manifests/parse.ts'
import type { Scheduler } from '../../src/model/types.ts'
import { saveFormat } from './save-format.ts'

export function objectsOf(yaml: string): KubeObjects {
  const { objects, problems } = parseManifests('test.yaml', yaml)
  if (problems.length > 0) throw new Error(`bad test manifest: ${JSON.stringify(problems)}`)
  const all = objects.map(({ object }) => object)
  return {
    services: all.filter((object) => object.kind === 'Service'),
    endpointSlices: all.filter((object) => object.kind === 'EndpointSlice'),
  }
}

const ip4 = (address: string): IpAddress => ({ family: 4, address })
export const here: TranslateOptions = {
  scheduler: 'rr',
  place: { node: 'here', zone: 'z1' },
  nodePortAddresses: [ip4('192.0.2.1'), ip4('198.51.100.1'), { family: 6, address: 'fd00:192::1' }],
  hostAddresses: [ip4('192.0.2.1'), ip4('198.51.100.1')],
  primaryAddresses: [ip4('192.0.2.1')],
  masqueradeAll: false,
  knowsPods: { 4: true, 6: true },
}

interface ServiceText {
  readonly name?: string
  readonly namespace?: string
  readonly labels?: string
  readonly annotations?: string
  readonly spec: string
  readonly status?: string
}

export function service({
  name = 'web',
  namespace = 'default',
  labels = '{}',
  annotations = '{}',
  spec,
  status = '{}',
}: ServiceText): string {
  const metadata = `{name: ${name}, namespace: ${namespace}, labels: ${labels}, annotations: ${annotations}}`
  return `{apiVersion: v1, kind: Service, metadata: ${metadata}, spec: ${spec}, status: ${status}}`
}

interface SliceText {
  readonly name?: string
  readonly of?: string
  readonly namespace?: string
  readonly labels?: string
  readonly annotations?: string
  readonly type?: string
  readonly ports?: string
  readonly endpoints: string
}

export function slice(text: SliceText): string {
  const { name = 'web-1', of = 'web', namespace = 'default', type = 'IPv4', ports = '[{name: "", port: 8080}]' } = text
  const labels = text.labels ?? `{kubernetes.io/service-name: ${of}}`
  const { annotations = '{}' } = text
  const metadata = `{name: ${name}, namespace: ${namespace}, labels: ${labels}, annotations: ${annotations}}`
  const head = `apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: ${metadata}, addressType: ${type}`
  return `{${head}, ports: ${ports}, endpoints: ${text.endpoints}}`
}

export const web = service({ spec: '{clusterIP: 10.96.0.80, ports: [{port: 80}]}' })
export const twoReady = '[{addresses: [10.244.1.11]}, {addresses: [10.244.1.12]}]'
export const notReady = 'conditions: {ready: false, serving: false}'
export const draining = 'conditions: {ready: false, serving: true, terminating: true}'
export const gone = 'conditions: {ready: false, serving: false, terminating: true}'

/** Objects in, the table out; whatever the order of the objects. */
export interface Row {
  readonly name: string
  readonly given: readonly string[]
  readonly scheduler?: Scheduler
  readonly expect: readonly string[]
  readonly notices?: readonly string[]
}

/** Makes a test of each row. */
export function testRows(rows: readonly Row[]): void {
  for (const row of rows) {
    t.test(row.name, async (t) => {
      const objects = objectsOf(row.given.join('\n---\n'))
      const options = { ...here, scheduler: row.scheduler ?? 'rr' }
      const { desired, notices } = translate(objects, options)
      t.same(saveFormat(desired), row.expect)
      t.same(
        notices.map(({ object, reason }) => `${object}: ${reason}`),
        row.notices ?? [],
      )
      const reversed = {
        services: objects.services.toReversed(),
        endpointSlices: objects.endpointSlices.toReversed(),
      }
      t.same(translate(reversed, options).desired, desired, 'whatever the order of the objects')
    })
  }
}
