/** What becomes of connections whose endpoint goes, at its end: with bpvsd as a process, and real ends. */
import t from 'tap'
import { TimelineScene } from '../helpers/kube-timeline.ts'
import { needsRoot, waitFor } from '../helpers/topology.ts'

t.setTimeout(900_000)

const config = {
  apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
  kind: 'KubeProxyConfiguration',
  hostnameOverride: 'node-a',
  clusterCIDR: '10.128.0.0/9',
  conntrack: { maxPerCore: 0, min: 0 },
  mode: 'ipvs',
}

t.test('when the time of an endpoint is up, both ends of its connections are reset', { skip: needsRoot }, async (t) => {
  const scene = await TimelineScene.make(t, config)
  await scene.start('', '--drain-limit-s', '2')
  await scene.change((cluster) => cluster.create())
  t.same(await scene.open(4, '10.96.3.1', 80), ['10.129.0.17', '10.129.0.16', '10.128.0.17', '10.128.0.16'])
  await scene.change((cluster) => cluster.setWeb({ r1: undefined }))
  const row = async (): Promise<string | undefined> =>
    (await scene.table()).find((line) => line.startsWith('-> 10.129.0.17:'))
  t.equal(await row(), '-> 10.129.0.17:8080 Masq 0 1 0')
  await waitFor('the end of its time', async () => (await row()) === undefined)
  t.same(await scene.failures('r1'), [['ECONNRESET', 'ECONNRESET']])
  t.same((await scene.table()).slice(1, 5), [
    'TCP 10.96.3.1:80 rr',
    '-> 10.128.0.16:8080 Masq 1 1 0',
    '-> 10.128.0.17:8080 Masq 1 1 0',
    '-> 10.129.0.16:8080 Masq 1 1 0',
  ])
})
