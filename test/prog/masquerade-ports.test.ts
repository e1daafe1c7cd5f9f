/** What a masqueraded connection is sent from: the address that leads to its server, and no port that the server may still know. */
import t from 'tap'
import { must } from '../../src/lab/command.ts'
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

  /** A segment as its server gets it; undefined: it does not get there. */
  #forwarded(flags: string): ReturnType<typeof decode> | undefined {
    const segment = packet('tcp', { from: this.#from, to: vip(this.#family), flags })
    const out = this.#datapath.run({ at: 'ingress', side: 'clients', packet: segment })
    return out.action === 'send' ? decode(out.packet) : undefined
  }

  /** The port that the server sees; undefined: the segment does not get there. */
  send(flags: string): number | undefined {
    const fields = this.#forwarded(flags)
    return fields && Number(fields['tcp.sport'])
  }

  /** Opens a connection: the address that its server sees. */
  source(): unknown {
    return this.#forwarded('S')?.[`${this.#family === 'IPv4' ? 'ip' : 'ip6'}.from`]
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
  for (const family of both) {
    await t.test(`${family}: a change of the way to a server holds for the next connection`, async (t) => {
      begin(family, 100)
      const { own: usual, outer: other } = families[family]
      const [to, via] = family === 'IPv4' ? ['10.2.0.0/16', '10.254.2.2'] : ['fd00:2::/64', 'fd00:fe:2::2']
      const way = ['route', 'replace', to, 'via', via]
      const source = (port: number) => new Client(datapath, family, port).source()
      t.same([source(1), source(2)], [usual, usual])
      await must('ip', [...way, 'src', other])
      t.equal(source(3), other)
      await must('ip', [...way, 'src', usual])
      t.equal(source(4), usual)
    })
  }
  datapath.close()
})
