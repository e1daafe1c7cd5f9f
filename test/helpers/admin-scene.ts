/** The admin API, and a service for it. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { adminServer } from '../../src/api/admin/server.ts'
import { serveUnix } from '../../src/api/unix-socket.ts'
import { version } from '../../src/config/version.ts'
import type { ServiceKey } from '../../src/model/types.ts'
import { FakeLog, FakeTimers } from './fake-host.ts'
import { ask, type HttpAnswer } from './http-client.ts'
import { ModelTable } from './model-table.ts'
import { waitFor } from './wait-for.ts'

export const web = { protocol: 'tcp', address: '10.9.0.1', port: 80 }
export const webPath = '/v1/services/tcp-10.9.0.1-80'

interface Teardown {
  teardown(handler: () => void): void
}

/** The admin API before a table in memory, on a unix socket that is gone with the test. */
export class AdminScene {
  readonly table = new ModelTable()
  readonly log = new FakeLog()
  readonly timers = new FakeTimers()
  readonly directory = mkdtempSync(join(tmpdir(), 'bpvs-admin-'))
  readonly path = join(this.directory, 'run', 'admin.sock')
  hasTable = true
  syncs = false
  healthy = true
  nowMs = 1000

  static async start(t: Teardown): Promise<AdminScene> {
    const scene = new AdminScene()
    const target = {
      table: () => (scene.hasTable ? scene.table : undefined),
      ownerOf: ({ family }: ServiceKey) => (family === 4 ? 'default/kubernetes' : undefined),
      endSockets: () => undefined,
      syncs: () => scene.syncs,
      hooks: () => [{ ifindex: 2, interface: 'eth0', hook: 'tcx/ingress', mode: 'link' }],
      verdicts: () => [{ name: 'NO_SERVER', count: 2n ** 60n }],
      healthy: () => scene.healthy,
      configuration: { bpvs: { scheduler: 'rr' }, kubeProxy: { mode: 'ipvs', ipvs: { strictARP: true } } },
      version: version(),
    }
    const { timers } = scene
    const after = (ms: number, run: () => void) => timers.after(ms, run)
    const every = (ms: number, run: () => void) => timers.every(ms, run)
    const make = () => adminServer({ target, log: scene.log, now: () => scene.nowMs, every })
    const running = serveUnix(make, scene.path, { name: 'admin', log: scene.log, after })
    t.teardown(() => {
      running.close()
      rmSync(scene.directory, { recursive: true })
    })
    await waitFor('the socket', () => scene.log.of('listening').length > 0)
    return scene
  }

  ask(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<HttpAnswer> {
    return ask(this.path, method, path, body, headers)
  }

  /** The web service with one server, 10.2.0.1:8080. */
  async withServer(): Promise<void> {
    await this.ask('POST', '/v1/services', web)
    await this.ask('POST', `${webPath}/servers`, { address: '10.2.0.1', port: 8080, method: 'masq' })
  }
}
