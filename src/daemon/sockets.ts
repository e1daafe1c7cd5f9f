/** Keeps the programs for sockets as the configuration wants them. */
import type { Config } from '../config/schema.ts'
import type { Log } from '../observe/log.ts'
import { News } from '../observe/news.ts'
import type { Host, SocketPolicy } from './ports.ts'

/** What the options say of sockets. */
export function socketPolicy({ socket, socketProtocols, socketGroup, socketLeave }: Config): SocketPolicy {
  const group = socketGroup === undefined ? {} : { group: socketGroup }
  return { scope: socket, protocols: socketProtocols, leave: socketLeave, ...group }
}

export class SocketKeeper {
  readonly #host: Host
  readonly #policy: SocketPolicy
  readonly #log: Log
  readonly #failures = new News<unknown>()

  constructor(host: Host, policy: SocketPolicy, log: Log) {
    this.#host = host
    this.#policy = policy
    this.#log = log
  }

  /** Of a new table: takes away what an earlier bpvsd has left, if nothing is wanted. */
  start(): void {
    this.#try(() => this.#sync())
  }

  /** The slow beat: groups come and go, and servers. */
  look(): void {
    if (this.#policy.scope === 'off') return
    this.#try(() => {
      this.#sync()
      const sockets = this.#host.endStuckSockets(this.#policy)
      if (sockets > 0) this.#log.warn({ sockets }, 'sockets ended, as their servers are gone')
    })
  }

  #sync(): void {
    if (this.#host.balanceSockets(this.#policy)) this.#log.info(this.#policy, 'sockets')
  }

  /** What fails is said once, and tried again with the next beat: packets are balanced all the same. */
  #try(work: () => void): void {
    const failures: [string, unknown][] = []
    try {
      work()
    } catch (err) {
      failures.push([err instanceof Error ? err.message : String(err), err])
    }
    for (const err of this.#failures.update(failures).found) this.#log.error({ err }, 'sockets are not balanced')
  }
}
