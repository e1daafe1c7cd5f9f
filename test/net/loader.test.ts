/**
 * Tables as a whole, in namespaces of their own: made, adopted, given new programs, unloaded, cleaned up. Every process
 * that opens a table here is a child under `ip netns exec`, where /sys is not the host's.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, rmdirSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import t from 'tap'
import { ip, type Netns, netns, run, script, small, start } from '../helpers/loader-child.ts'
import { waitFor } from '../helpers/wait-for.ts'

const skip = process.getuid?.() === 0 ? false : 'network namespaces and BPF need root'
const ipText = new URL('../../src/native/ip.ts', import.meta.url).href
const shim = new URL('../../src/native/shim.ts', import.meta.url).href
const xdpPorts = new URL('../../src/native/link-maps.ts', import.meta.url).href

/* Every table that is made passes through the verifier: seconds, on a busy machine. */
t.setTimeout(900_000)

const hooksOf = (name: string): unknown[] => [
  { interface: name, hook: 'ingress', kind: 'tcx' },
  { interface: name, hook: 'egress', kind: 'tcx' },
]
/** Of lo, what leaves by it. */
const hookOfLo = { interface: 'lo', hook: 'egress', kind: 'tcx' }
const sayHooks = `say(lb.tableAttachments().list().map(({ ifindex, ...rest }) => rest)
  .sort((a, b) => (a.interface + (a.hook === 'egress') < b.interface + (b.hook === 'egress') ? -1 : 1)))`

t.test('nothing is made, and nothing found, where there is no table', { skip }, async (t) => {
  const ns = netns(t)
  t.equal(
    run(
      ns,
      'say([lb.openExistingTable() ?? null, lb.unloadTable(), lb.upgradePrograms(), lb.tableAttachments() ?? null])',
    )?.toString(),
    ',false,false,',
  )
  t.notOk(existsSync(ns.dir))
})

t.test('a table is made and attached; another process adopts it and shares its memory', { skip }, async (t) => {
  const ns = netns(t)
  run(
    ns,
    `const table = lb.openTable(${small})
    new abi.LbServerArray(table.buffer('lb_servers')).setWeight(5, -7); say(null)`,
  )
  t.ok(existsSync(ns.dir), "pinned in the host's file system, not in one that ended with the process")
  const seen = run(
    ns,
    `const table = lb.openExistingTable()
    const config = new abi.LbConfigArray(table.buffer('lb_config'))
    const { jiffies, ktimeNs } = table.clock()
    say({ weight: new abi.LbServerArray(table.buffer('lb_servers')).weight(5), established: config.timeout(0, 1),
      udp: config.timeout(0, abi.LbState.UDP_NORMAL), reuse: config.connReuseMode(0), servers: table.rodata.serverMax,
      keys: table.rodata.hashKey.every((key) => key % 2n === 1n) && new Set(table.rodata.hashKey).size > 1,
      hz: Math.abs(Number(jiffies - (1n << 32n)) / table.rodata.hz - Number(ktimeNs) / 1e9 + 300) < 2 })`,
  )
  t.same(seen, {
    weight: -7,
    established: 900,
    udp: 300,
    reuse: 1,
    servers: 64,
    keys: true,
    hz: true,
  })
  t.same(run(ns, sayHooks), [...hooksOf('a0'), ...hooksOf('a1'), hookOfLo])
})

t.test('hashes agree in single and batch form, and lead into the table', { skip }, async (t) => {
  const ns = netns(t)
  const endpoints = new URL('../../src/native/endpoints.ts', import.meta.url).href
  const { single, batch, servers, masks } = run(
    ns,
    `const table = lb.openTable(${small})
    const { packEndpoint, ENDPOINT_SIZE } = await import('${endpoints}')
    const packed = new Uint8Array(100 * ENDPOINT_SIZE), single = [], servers = []
    for (let i = 0; i < 100; i++) {
      const address = new Uint8Array(16).fill(i % 2 ? i : 0); address.set([10, 0, 0, i])
      packEndpoint(packed, i, i % 2 ? 6 : 4, 6, address, 8000 + i)
      const { first, second, tag, filterBit } = table.hashService(i % 2 ? 6 : 4, 6, address, 8000 + i)
      single.push(first, second, tag, filterBit)
      servers.push(table.hashServer(i % 2 ? 6 : 4, 6, address, 8000 + i).filterBit)
    }
    say({ single, batch: [...table.hashServices(packed)], servers: [servers, [...table.hashServers(packed)]],
      masks: [table.rodata.serviceLineMask, table.rodata.filterMask] })`,
  ) as { single: number[]; batch: number[]; servers: [number[], number[]]; masks: [number, number] }
  t.same(single, batch)
  t.same(servers[0], servers[1])
  for (let i = 0; i < 100; i++) {
    const [first = -1, second = -1, tag = 0, bit = -1] = batch.slice(i * 4)
    t.ok(first <= masks[0] && second <= masks[0] && first !== second && tag !== 0 && bit <= masks[1])
    t.ok(servers[0][i]! > masks[1] && servers[0][i]! <= 2 * masks[1] + 1, "a server's bit is in the second half")
  }
  t.ok(new Set(batch.filter((_, i) => i % 4 === 2)).size > 90, 'tags differ')
})

t.test('of four processes that open the table at once one makes it and the others adopt it', { skip }, async (t) => {
  const ns = netns(t)
  const children = Array.from({ length: 4 }, () =>
    start(
      ns,
      `const table = lb.openTable(${small})
    const config = new abi.LbConfigArray(table.buffer('lb_config'))
    table.withLock(() => config.setGeneration(0, config.generation(0) + 1n))
    say(String(table.rodata.hashKey))`,
    ),
  )
  const results = await Promise.all(
    children.map(async (child) => {
      const [said, [status]] = await Promise.all([text(child.stdout!), once(child, 'close')])
      return { said, status }
    }),
  )
  t.same(
    results.map(({ status }) => status),
    [0, 0, 0, 0],
  )
  t.equal(new Set(results.map(({ said }) => said)).size, 1, 'all see the same secret key')
  t.equal(run(ns, `say(new abi.LbConfigArray(lb.openExistingTable().buffer('lb_config')).generation(0))`), '4')
  t.same(run(ns, sayHooks), [...hooksOf('a0'), ...hooksOf('a1'), hookOfLo], 'every interface has each program once')
})

t.test("an edit waits for another process's lock, and an unloaded table can't be locked", { skip }, async (t) => {
  const ns = netns(t)
  t.same(
    run(
      ns,
      `import { spawnSync } from 'node:child_process'
    const table = lb.openTable(${small})
    const other = () => spawnSync('flock', ['-n', table.dir, 'true']).status
    const held = table.withLock(() => { table.withLock(() => {}); return other() })
    const free = other()
    lb.unloadTable()
    let code
    try { table.withLock(() => {}) } catch (error) { code = error.message.includes('unloaded') }
    table.close()
    say([held, free, code, table.buffer === undefined])`,
    ),
    [1, 0, true, false],
  )
})

t.test("after close() the memory can't be touched any more", { skip }, async (t) => {
  t.equal(
    run(
      netns(t),
      `const table = lb.openTable(${small})
    const servers = new abi.LbServerArray(table.buffer('lb_servers'))
    table.close(); table.close()
    try { servers.weight(1); say('touched') } catch (error) { say(error.constructor.name) }`,
    ),
    'TypeError',
  )
})

/** The kernel's ids of the links of a table's programs. */
function attachedTo(ns: Netns): number[] {
  const links = readdirSync(ns.dir).filter((name) => name.startsWith('link-'))
  return links.map((name) => {
    const text = execFileSync('bpftool', ['-j', 'link', 'show', 'pinned', join(ns.dir, name)], { encoding: 'utf8' })
    return (JSON.parse(text) as { id: number }).id
  })
}

t.test('unload leaves no pin, no program on an interface, and can be repeated', { skip }, async (t) => {
  const ns = netns(t)
  run(ns, `lb.openTable(${small})`)
  const attached = attachedTo(ns)
  t.equal(attached.length, 5, 'each direction of each interface, and what leaves by lo')
  t.same(run(ns, 'say([lb.unloadTable(), lb.unloadTable(), lb.tableAttachments() ?? null])'), [true, false, null])
  t.notOk(existsSync(ns.dir))
  await waitFor('the end of the links', () =>
    attached.every((id) => spawnSync('bpftool', ['link', 'show', 'id', `${id}`]).status !== 0),
  )
})

t.test('a half-made table is not adopted, and is made anew', { skip }, async (t) => {
  const ns = netns(t)
  run(ns, `lb.openTable(${small})`)
  for (const name of readdirSync(ns.dir).filter((name) => name.startsWith('layout-'))) rmdirSync(join(ns.dir, name))
  t.equal(run(ns, 'say(lb.openExistingTable() ?? null)'), null)
  run(ns, `lb.openTable(${small})`)
  t.same(run(ns, sayHooks), [...hooksOf('a0'), ...hooksOf('a1'), hookOfLo], 'nothing of the first try is left attached')
})

t.test('a table of another layout is refused, never guessed at; it can be unloaded', { skip }, async (t) => {
  const ns = netns(t)
  run(ns, `lb.openTable(${small})`)
  for (const name of readdirSync(ns.dir).filter((name) => name.startsWith('layout-'))) rmdirSync(join(ns.dir, name))
  for (const mark of ['layout-0123456789ab', 'mark-of-its-own']) mkdirSync(join(ns.dir, mark))
  const code = (call: string): unknown => run(ns, `try { ${call}; say('none') } catch (error) { say(error.code) }`)
  t.same(['lb.openTable()', 'lb.openExistingTable()', 'lb.upgradePrograms()'].map(code), ['LAYOUT', 'LAYOUT', 'LAYOUT'])
  t.equal(run(ns, 'say(lb.unloadTable())'), true)
  t.notOk(existsSync(ns.dir))
})

t.test('a start that has nothing to load does not wait for who loads elsewhere', { skip }, async (t) => {
  const ns = netns(t)
  run(ns, `lb.openTable(${small})`)
  const policy = `{ scope: 'off', protocols: 'all', leave: [] }`
  t.same(
    run(
      ns,
      `const { lock, openDirectory } = await import('${shim}')
      lock(openDirectory(lb.openExistingTable().dir + '/..'))
      say([lb.upgradePrograms(), lb.syncSockets(${policy})])`,
    ),
    [false, false],
  )
})

t.test("new programs take the place of old ones in the links, and the table's content stays", { skip }, async (t) => {
  const ns = netns(t)
  run(ns, `new abi.LbServerArray(lb.openTable(${small}).buffer('lb_servers')).setWeight(5, 42)`)
  t.equal(run(ns, 'say(lb.upgradePrograms())'), false, 'the programs are those of this build')
  const before = programIds(ns)
  for (const name of readdirSync(ns.dir).filter((name) => name.startsWith('build-'))) rmdirSync(join(ns.dir, name))
  t.equal(run(ns, 'say(lb.upgradePrograms())'), true)
  const after = programIds(ns)
  t.equal(after.length, 5)
  t.notOk(after.some((id) => before.includes(id)))
  t.equal(run(ns, `say(new abi.LbServerArray(lb.openExistingTable().buffer('lb_servers')).weight(5))`), 42)
  t.notOk(readdirSync(ns.dir).some((name) => name.startsWith('new-')))
})

/** Ids of the programs in the links of a table. */
function programIds(ns: Netns): number[] {
  const shim = new URL('../../src/native/shim.ts', import.meta.url).href
  return run(
    ns,
    `const { openPin, linkInfo } = await import('${shim}')
    const { readdirSync } = await import('node:fs')
    const dir = lb.openExistingTable().dir
    say(readdirSync(dir).filter((name) => name.startsWith('link-')).map((name) => linkInfo(openPin(dir + '/' + name)).programId))`,
  ) as number[]
}

t.test('sync() attaches new interfaces, forgets those that are gone, and keeps to the policy', { skip }, async (t) => {
  const ns = netns(t)
  run(ns, `lb.openTable(${small})`)
  ip('-n', ns.name, 'link', 'del', 'a0')
  ip('-n', ns.name, 'link', 'add', 'b0', 'type', 'veth', 'peer', 'name', 'c0')
  const result = run(
    ns,
    `const { attached, detached, failed } = lb.tableAttachments().sync({ include: ['*'], exclude: ['lo', 'c*'], xdp: 'auto' })
    say([attached.map((one) => one.interface + ' ' + one.hook), detached.length, failed.length])`,
  )
  t.same(result, [['b0 ingress', 'b0 egress'], 3, 0], 'a0, a1 and lo are left')
  t.same(run(ns, sayHooks), hooksOf('b0'))
  t.equal(readdirSync(ns.dir).filter((name) => name.startsWith('link-')).length, 2)
  t.same(
    run(ns, `say(lb.tableAttachments().sync({ include: ['b0'], exclude: [], xdp: 'off' }).attached)`),
    [],
    'idempotent',
  )
  run(ns, `lb.tableAttachments().sync({ include: ['c0'], exclude: [], xdp: 'generic' })`)
  t.same((run(ns, sayHooks) as unknown[]).length, 3)
  t.match(run(ns, sayHooks), [{ interface: 'c0' }, { interface: 'c0' }, { interface: 'c0' }])
  t.match(execFileSync('ip', ['-n', ns.name, 'link', 'show', 'c0'], { encoding: 'utf8' }), /xdpgeneric/)
})

t.test('the type of an address is that of its route, as it is now', { skip }, async (t) => {
  const ns = netns(t)
  ip('-n', ns.name, 'route', 'add', 'local', '10.9.0.0/16', 'dev', 'lo')
  ip('-n', ns.name, 'route', 'add', 'local', 'fd00:9::/40', 'dev', 'lo')
  ip('-n', ns.name, 'route', 'add', 'local', '10.20.0.0/16', 'dev', 'lo', 'table', '77') /* that no rule leads to */
  const seen = run(
    ns,
    `import { execFileSync } from 'node:child_process'
    const { parseAddress } = await import('${ipText}')
    const table = lb.openTable(${small})
    const ask = (address) => table.routeType(parseAddress(address).family, parseAddress(address).bytes) ?? 'none'
    const all = ['10.9.0.1', '10.9.255.255', '10.10.0.0', '10.20.0.1', 'fd00:9:ff::1', 'fd00:a::1', '127.255.255.255',
      '255.255.255.255', '::1', '10.8.0.1', '10.8.0.255']
    const first = all.map(ask)
    execFileSync('ip', ['addr', 'add', '10.8.0.1/24', 'broadcast', '+', 'dev', 'lo'])
    say([first, all.map(ask)])`,
  )
  const due = ['local', 'local', 'none', 'none', 'local', 'none', 'broadcast', 'none', 'local']
  t.same(seen, [
    [...due, 'none', 'none'],
    [...due, 'local', 'broadcast'],
  ])
})

t.test('XDP may send to the interfaces that have its program, and to no other', { skip }, async (t) => {
  const ns = netns(t)
  const ports = `
    const { XdpPorts } = await import('${xdpPorts}')
    const dir = lb.openExistingTable().dir
    const names = () => {
      const byIndex = new Map(nif.listInterfaces().map(({ ifindex, name }) => [ifindex, name]))
      return new XdpPorts(dir).list().map((ifindex) => byIndex.get(ifindex) ?? ifindex).sort()
    };`
  run(ns, `lb.openTable(${small})`)
  t.same(run(ns, `${ports} say(names())`), [], 'tcx alone makes none')
  const native = `{ include: ['*'], exclude: ['lo'], xdp: 'native' }`
  t.same(run(ns, `lb.tableAttachments().sync(${native}); ${ports} say(names())`), ['a0', 'a1'])
  t.same(
    run(
      ns,
      `${ports}
      const [a0] = nif.listInterfaces().filter(({ name }) => name === 'a0')
      new XdpPorts(dir).remove(a0.ifindex); new XdpPorts(dir).remove(a0.ifindex)
      const without = names()
      lb.tableAttachments().sync(${native})
      const again = names()
      lb.tableAttachments().detach(a0.ifindex)
      say([without, again, names()])`,
    ),
    [['a1'], ['a0', 'a1'], ['a1']],
    'what a process that died did not do is done by the next pass',
  )
  const off = `{ include: ['*'], exclude: ['lo'], xdp: 'off' }`
  t.same(
    run(ns, `lb.tableAttachments().sync(${native}); lb.tableAttachments().sync(${off}); ${ports} say(names())`),
    [],
  )
  t.same(run(ns, sayHooks), [...hooksOf('a0'), ...hooksOf('a1')], 'a policy without XDP takes it off')
  run(ns, `lb.tableAttachments().sync(${native})`)
  ip('-n', ns.name, 'link', 'del', 'a0')
  t.same(run(ns, `lb.tableAttachments().sync(${native}); ${ports} say(names())`), [], 'both are gone')
})

t.test('sweep() ends at once what has expired, and nothing else', { skip }, async (t) => {
  t.same(
    run(
      netns(t),
      `const table = lb.openTable(${small})
      const conns = new abi.LbConnArray(table.buffer('lb_conns'))
      const states = new abi.LbServerStateArray(table.buffer('lb_server_states'))
      const pools = new abi.LbConnPoolArray(table.buffer('lb_conn_pools'))
      const tick = Number((table.clock().jiffies >> BigInt(table.rodata.tickShift)) & 0xffffffffn)
      states.setActive(5, 2)
      for (const [i, expires] of [[0, tick - 100], [1, tick + 10000]]) {
        conns.setServer(i, 5); conns.setExpires(i, expires); conns.setProto(i, 6); conns.setAf(i, 4)
      }
      pools.setHigh(0, 2)
      table.sweep()
      say([conns.af(0), conns.af(1), states.active(5)])`,
    ),
    [0, 4, 1],
  )
})

/** Attaches by clsact filters, as on a kernel without tcx, on all interfaces but lo. */
const attachFilters = `const shim = await import('${shim}')
  const table = lb.openTable({ ...${small}, policy: { include: [], exclude: [], xdp: 'off' } })
  const devices = nif.listInterfaces().filter(({ name }) => name !== 'lo')
  for (const { ifindex } of devices)
    for (const hook of ['ingress', 'egress'])
      shim.attachClsact(shim.openPin(table.dir + '/prog-lb_tc_' + hook), ifindex, hook)`

/** Interfaces with a clsact qdisc. */
function clsactOf(ns: Netns): string[] {
  const text = execFileSync('tc', ['-n', ns.name, '-j', 'qdisc', 'show', 'clsact'], { encoding: 'utf8' })
  return (JSON.parse(text) as { dev: string }[]).map(({ dev }) => dev).sort()
}

t.test('on a kernel without tcx clsact filters do the same', { skip }, async (t) => {
  const ns = netns(t)
  t.same(
    run(
      ns,
      `${attachFilters}
    const [a0] = devices.filter(({ name }) => name === 'a0')
    shim.attachClsact(shim.openPin(table.dir + '/prog-lb_tc_ingress'), a0.ifindex, 'ingress')
    const filters = lb.tableAttachments().list().map(({ interface: name, hook, kind }) => [name, hook, kind].join(' '))
    lb.tableAttachments().detach(a0.ifindex); lb.tableAttachments().detach(a0.ifindex)
    say([filters.sort(), lb.tableAttachments().list().map(({ interface: name }) => name)])`,
    ),
    [['a0', 'a1'].flatMap((name) => [`${name} egress clsact`, `${name} ingress clsact`]), ['a1', 'a1']],
  )
  t.same(clsactOf(ns), ['a1'], 'detaching leaves no empty qdisc')
})

t.test('unload takes clsact away with the filters, but not where somebody else has one', { skip }, async (t) => {
  const ns = netns(t)
  for (const name of ['br0', 'br1']) ip('-n', ns.name, 'link', 'add', name, 'type', 'bridge')
  run(ns, `${attachFilters}; say(null)`)
  t.same(clsactOf(ns), ['a0', 'a1', 'br0', 'br1'])
  const pinned = ['prio', '9', 'bpf', 'da', 'object-pinned', join(ns.dir, 'prog-lb_tc_ingress')]
  for (const place of ['br0 ingress', 'br1 egress']) {
    const filter = ['tc', 'filter', 'add', 'dev', ...place.split(' '), ...pinned]
    execFileSync('nsenter', [`--net=/run/netns/${ns.name}`, ...filter]) /* `tc -n` has another /sys, without the pins */
  }
  t.equal(run(ns, 'say(lb.unloadTable())'), true)
  t.same(clsactOf(ns), ['br0', 'br1'])
})

t.test('a watch tells of interfaces and addresses that come and go', { skip }, async (t) => {
  const ns = netns(t)
  const child = start(
    ns,
    `let all = ''
    const show = () => { const now = nif.listInterfaces().map(({ name, kind, up }) => name + ':' + kind + ':' + up).join(' ')
      if (now !== all) say(all = now) }
    const watch = nif.watchInterfaces(show, (error) => { throw error })
    show()
    process.once('SIGTERM', () => { watch.close() })`,
  )
  t.teardown(() => {
    child.kill('SIGKILL')
  })
  let said = ''
  child.stdout!.on('data', (chunk: Buffer) => {
    said += chunk.toString()
  })
  await waitFor('the first list', () => said.includes('a1:veth:false'))
  t.match(said, /lo::true/)
  ip('-n', ns.name, 'link', 'set', 'a1', 'up')
  await waitFor('a1 up', () => said.includes('a1:veth:true'))
  ip('-n', ns.name, 'link', 'add', 'br0', 'type', 'bridge')
  await waitFor('a bridge', () => said.includes('br0:bridge'))
  child.kill('SIGTERM')
  t.same(await once(child, 'close'), [0, null], 'closing the watch lets the process end')
})

t.test('anybody but root gets PERMISSION, and makes nothing', { skip }, async (t) => {
  const { stdout } = spawnSync(
    process.execPath,
    script(`for (const call of [lb.openTable, lb.openExistingTable, lb.unloadTable]) {
    try { call(); say('none') } catch (error) { say(error.code) } }`),
    { encoding: 'utf8', uid: 65534, gid: 65534 },
  )
  t.equal(stdout, '"PERMISSION"\n'.repeat(3))
})
