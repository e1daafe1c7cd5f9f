/**
 * The order of the listing, as libipvs has it. Its comparison subtracts 32-bit numbers and takes the result as signed,
 * so it is no total order (0.0.0.1 < 127.0.0.1 < 254.0.0.1 < 0.0.0.1), and what comes out depends on how one sorts:
 * with glibc's qsort, a merge sort that halves from the top. Both are kept, so that the order is the same to the line.
 */
import type { Family, ServerView, ServiceKey } from '../model/types.ts'
import { addressWords, dottedNumber } from './address.ts'

const protocolNumbers = { tcp: 6, udp: 17, sctp: 132 } as const
const familyNumbers: Readonly<Record<Family, number>> = { 4: 2, 6: 10 }

/** What decides a service's place, in the order in which it does. */
interface ServiceRank {
  readonly mark: number
  readonly family: number
  readonly protocol: number
  readonly words: readonly number[]
  readonly port: number
}

/** Services by mark, family, protocol, address, port. */
export function sortServices<T extends { readonly key: ServiceKey }>(services: readonly T[]): T[] {
  return sortBy(services, (service) => rankOf(service.key), compareServices)
}

/**
 * A service's servers by address and port. Across families only the first words are compared, or all of the first
 * server's: it decides how the bytes are read.
 */
export function sortedServers(servers: readonly ServerView[]): ServerView[] {
  if (servers.every(({ family }) => family === 4)) return sortedIPv4(servers)
  return sortBy(
    servers,
    (server) => ({ words: addressWords(server), port: server.port }),
    (one, two) => compareWords(one.words, two.words) || one.port - two.port,
  )
}

/** The same of IPv4 servers alone, which may be very many, with nothing made for each. */
function sortedIPv4(servers: readonly ServerView[]): ServerView[] {
  const words = Int32Array.from(servers, ({ address }) => dottedNumber(address))
  return inOrder(servers, (one, two) => {
    const difference = ((words[one] ?? 0) - (words[two] ?? 0)) | 0
    return difference || (servers[one]?.port ?? 0) - (servers[two]?.port ?? 0)
  })
}

function rankOf(key: ServiceKey): ServiceRank {
  const family = familyNumbers[key.family]
  if (key.kind === 'fwmark') return { mark: key.mark, family, protocol: 0, words: [0], port: 0 }
  return { mark: 0, family, protocol: protocolNumbers[key.protocol], words: addressWords(key), port: key.port }
}

function compareServices(one: ServiceRank, two: ServiceRank): number {
  return (
    (one.mark - two.mark) | 0 ||
    one.family - two.family ||
    one.protocol - two.protocol ||
    compareWords(one.words, two.words) ||
    one.port - two.port
  )
}

function compareWords(one: readonly number[], two: readonly number[]): number {
  for (let index = 0; index < one.length; index++) {
    const difference = ((one[index] ?? 0) - (two[index] ?? 0)) | 0
    if (difference !== 0) return difference
  }
  return 0
}

/** Sorts by what `rank` makes of each item, once. */
function sortBy<T, R>(items: readonly T[], rank: (item: T) => R, compare: (one: R, two: R) => number): T[] {
  const ranks = items.map(rank)
  return inOrder(items, (one, two) => compare(ranks[one] as R, ranks[two] as R))
}

/** Sorts by what `compare` says of two positions. */
function inOrder<T>(items: readonly T[], compare: (one: number, two: number) => number): T[] {
  const order = Uint32Array.from(items.keys())
  mergeSort(order, 0, order.length, new Uint32Array(order.length >> 1), compare)
  return Array.from(order, (index) => items[index] as T)
}

/** Sorts what is from `start` up to `end`. `spare` has room for half of it. */
function mergeSort(
  order: Uint32Array,
  start: number,
  end: number,
  spare: Uint32Array,
  compare: (one: number, two: number) => number,
): void {
  if (end - start < 2) return
  const middle = start + ((end - start) >> 1)
  mergeSort(order, start, middle, spare, compare)
  mergeSort(order, middle, end, spare, compare)
  spare.set(order.subarray(start, middle))
  const lefts = middle - start
  let left = 0
  let right = middle
  let to = start
  while (left < lefts && right < end) {
    const one = spare[left] as number
    const two = order[right] as number
    const first = compare(one, two) <= 0
    order[to++] = first ? one : two
    if (first) left++
    else right++
  }
  while (left < lefts) order[to++] = spare[left++] as number
}
