/** Which port of the host's a masqueraded connection gets: none that its server may still know from another. */
import t from 'tap'
import { decode } from '../helpers/decode.ts'
import { end } from '../helpers/prog-flow.ts'
import {
  both,
  everybody,
  type Family,
  families,
  given,
  own,
  packet,
  server,
  vip,
  wrap,
} from '../helpers/prog-policy.ts'
import { Datapath } from '../helpers/prog.ts'
import { needsRoot } from '../helpers/topology.ts'

/** A client at one of its ports, and what becomes of its segments. */
class Client {
  readonly #datapath: Datapath
  readonly #family: Family
  readonly #from: string

  constructor(datapath: Datapath, family: Family, port: number) {
    this.#datapath = datapath
    this.#family = family
    this.#from = wrap(families[family].client, port)
  }

  /** The port that the server sees; undefined: the segment does not get there. */
  send(flags: string): number | undefined {
    const segment = packet('tcp', { from: this.#from, to: vip(this.#family), flags })
    const out = this.#datapath.run({ at: 'ingress', side: 'clients', packet: segment })
    return out.action === 'send' ? Number(decode(out.packet)['tcp.sport']) : undefined
  }

  /** The server answers to a port that it saw. */
  answer(port: number, flags: string): void {
    const to = own(this.#family, port)
    const segment = packet('tcp', { leg: 'from server', from: server(this.#family), to, flags })
    this.#datapath.run({ at: 'ingress', side: 'servers', packet: segment })
  }

  /** Opens a connection, which its server ends first: the port that it had. */
  openAndEnd(): number {
    const port = this.send('S')
    if (port === undefined) throw new Error(`${this.#from} is not balanced`)
    this.answer(port, 'SA')
    this.send('A')
    this.answer(port, 'FA')
    this.send('FA')
    this.answer(port, 'A')
    return port
  }
}

t.test('ports of masqueraded connections', { skip: needsRoot }, async (t) => {
  t.setTimeout(300_000)
  const datapath = await Datapath.open(t)
  const begin = (family: Family, ports: number) => {
    datapath.clear()
    given(family, { masquerade: everybody }, { ports })(datapath)
  }
  for (const family of both) {
    await t.test(
      `${family}: a client port that is used again leaves the server its old port to wait for`,
      async (t) => {
        for (let n = 0; n < 8; n++) {
          begin(family, 2)
          const client = new Client(datapath, family, 1000)
          const old = client.openAndEnd()
          const now = client.send('S')
          t.equal(now, old === end(own(family)).port ? old + 1 : old - 1)
        }
      },
    )
    await t.test(`${family}: where every port is taken, one of a connection in TIME_WAIT does`, async (t) => {
      begin(family, 1)
      const old = new Client(datapath, family, 1000).openAndEnd()
      t.equal(new Client(datapath, family, 1001).send('S'), old, 'of another client')
      begin(family, 1)
      const client = new Client(datapath, family, 1000)
      t.equal(client.openAndEnd(), client.send('S'), 'of the same')
    })
    await t.test(`${family}: no port is taken from a connection that is not over`, async (t) => {
      begin(family, 1)
      const client = new Client(datapath, family, 1000)
      const port = client.send('S')
      t.type(port, 'number')
      t.equal(new Client(datapath, family, 1001).send('S'), undefined)
      client.answer(port ?? 0, 'SA')
      client.send('A')
      t.equal(new Client(datapath, family, 1001).send('S'), undefined)
      t.equal(client.send('A'), port)
    })
  }
  datapath.close()
})
