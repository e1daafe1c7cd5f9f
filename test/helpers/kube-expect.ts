/** What kube-proxy's matrix has not recorded, worked out of what it has; and what a played matrix differs in. */
import type { Test } from 'tap'
import { overlayAddresses } from './kube-wiring.ts'
import { type Flow, flowText, type Result, resultText, type Row } from './kube-matrix.ts'

function finder(rows: readonly Row[]): (flow: Flow) => Row {
  const byText = new Map(rows.map((row) => [flowText(row), row]))
  return (flow) => {
    const row = byText.get(flowText(flow))
    if (row === undefined) throw new Error(`nothing was recorded of ${flowText(flow)}`)
    return row
  }
}

/**
 * Rows as they should be. kube-proxy picks at random, and of ten tries none may have gone to one kind of host: then the
 * row of the other protocol tells.
 */
export function expected(rows: readonly Row[]): Row[] {
  const find = finder(rows)
  return rows.map((row) => {
    const other = find({ ...row, proto: row.proto === 'tcp' ? 'udp' : 'tcp' })
    return (other.reached?.length ?? 0) > (row.reached?.length ?? 0) ? { ...other, proto: row.proto } : row
  })
}

/** With node ports at all of the node's addresses (but loopback's) they answer as at the one that has them without. */
export function withAllNodePorts(rows: readonly Row[]): Row[] {
  const find = finder(rows)
  return rows
    .filter(({ address }) => address === 'nodePort-other-address')
    .map((row) => ({ ...find({ ...row, address: 'nodePort' }), address: row.address }))
}

/** With sockets of the node balanced, its own calls of node ports at loopback addresses come to what they do at the node's address. */
export function withLoopbackNodePorts(rows: readonly Row[]): Row[] {
  const find = finder(rows)
  return rows.map((row) => {
    if (row.address !== 'nodePort-loopback') return row
    return { ...find({ ...row, address: 'nodePort' }), address: row.address }
  })
}

const fromOutside = new Set(['nodePort', 'lbIP', 'externalIP'])

/**
 * Where nothing tells who is a pod: a cluster IP masquerades nobody, as nobody is known to be outside; and with the external
 * policy Local pods are served as those outside are, from this node's endpoints or not at all.
 */
export function withoutDetection(rows: readonly Row[]): Row[] {
  const find = finder(rows)
  const flows = rows.filter(({ caller, address, policy }) => {
    if (address === 'clusterIP') return caller === 'external' || caller === 'pod'
    return caller === 'pod' && policy === 'etp' && fromOutside.has(address)
  })
  return flows.map((row) => {
    if (row.address !== 'clusterIP') return { ...find({ ...row, caller: 'external' }), caller: row.caller }
    if (row.reached === undefined) return row
    const { source_by: _, ...rest } = row
    return { ...rest, source: ['client'] }
  })
}

/** The other node calls as anybody outside does, but has addresses that no source range lets in. */
export function fromOtherNode(rows: readonly Row[]): Row[] {
  return rows
    .filter(({ caller, address }) => caller === 'external' && address !== 'direct-remote')
    .map((row): Row => {
      const { reached, source, source_by: by, errors, ...flow } = row
      const kept: Result =
        flow.policy === 'ranges' && flow.address === 'lbIP'
          ? { errors: { timeout: 1 } }
          : {
              ...(reached && { reached }),
              ...(source && { source }),
              ...(by && { source_by: by }),
              ...(errors && { errors }),
            }
      return { ...flow, ...kept, caller: 'other-node' }
    })
}

/** What servers on the other node see of the node when an overlay leads there. */
export function throughOverlay(rows: readonly Row[]): Row[] {
  return rows.map((row) => {
    const inner = (source: string): string => {
      return source.replace(/^node:(198\.51\.100\.1|fd00:198::1)$/, `node:${overlayAddresses[row.family]}`)
    }
    const { source, source_by: by } = row
    return {
      ...row,
      ...(source && { source: source.map(inner).sort() }),
      ...(by && { source_by: Object.fromEntries(Object.entries(by).map(([name, each]) => [name, each.map(inner)])) }),
    }
  })
}

/** Addresses of the node by whom they face. */
const facing: readonly [RegExp, string][] = [
  [/node:(10\.128\.0\.1|fd00:128::1)\b/g, 'node (to pods)'],
  [/node:(198\.51\.100\.1|fd00:198::1)\b/g, 'node (to the other node)'],
  [/node:(10\.128\.255\.1|fd00:128:0:ff::1)\b/g, 'node (to the overlay)'],
  [/node:(192\.0\.2\.1|fd00:192::1)\b/g, 'node (to the client)'],
]

function shortText(result: Result): string {
  return facing.reduce((text, [address, name]) => text.replaceAll(address, name), resultText(result))
}

/** A row that came to something else than it should have. */
interface Mismatch {
  readonly row: Row
  readonly result: Result
}

function mismatches(results: ReadonlyMap<Row, Result>): Mismatch[] {
  return [...results].flatMap(([row, result]) => (resultText(row) === resultText(result) ? [] : [{ row, result }]))
}

/** Adds to what is in a map under a key. */
function collect(map: Map<string, string[]>, key: string, value: string): void {
  const values = map.get(key)
  if (values === undefined) map.set(key, [value])
  else values.push(value)
}

/** The mismatches as a short table: what came, what should have, and whose it is: "pod nodePort plain both (4tu 6tu)". */
function mismatchTable(found: readonly Mismatch[]): string[] {
  const byFlow = new Map<string, string[]>()
  for (const { row, result } of found) {
    const { caller, address, policy, endpoints, family, proto } = row
    const key = `${shortText(result)}, not ${shortText(row)}:  |${caller} ${address} ${policy} ${endpoints}`
    collect(byFlow, key, `${family}${proto[0]}`)
  }
  const byOutcome = new Map<string, string[]>()
  for (const [key, variants] of byFlow) {
    const [outcome = '', flow = ''] = key.split('|')
    collect(byOutcome, outcome, variants.length === 4 ? flow : `${flow} (${variants.join(' ')})`)
  }
  return [...byOutcome].flatMap(([outcome, flows]) => [outcome, ...flows.map((flow) => `    ${flow}`)])
}

/** Asserts that every row came to what it should; what did not is told as a short table. */
export function compareMatrix(t: Test, results: ReadonlyMap<Row, Result>): void {
  t.ok(results.size > 0, 'there was something to compare with')
  t.same(mismatchTable(mismatches(results)), [], `each of ${results.size} rows is as expected`)
}
