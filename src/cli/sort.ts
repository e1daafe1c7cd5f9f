/**
 * The order of the listing, as libipvs has it. Its comparison subtracts 32-bit numbers and takes the result as signed,
 * so it is no total order (0.0.0.1 < 127.0.0.1 < 254.0.0.1 < 0.0.0.1), and what comes out depends on how one sorts:
 * with glibc's qsort, a merge sort that halves from the top. Both are kept, so that the order is the same to the line.
 */
import type { Family, ServerView, ServiceKey, ServiceView } from '../model/types.ts'
import { addressWords } from './address.ts'

const protocolNumbers = { tcp: 6, udp: 17, sctp: 132 } as const
const familyNumbers: Readonly<Record<Family, number>> = { 4: 2, 6: 10 }

/** Services by mark, family, protocol, address, port. */
export function sortServices<T extends ServiceView>(services: readonly T[]): T[] {
  return mergeSort(services, (one, two) => compareServiceKeys(one.key, two.key))
}

/** A service's servers by address and port. */
export function sortedServers(service: ServiceView): ServerView[] {
  return mergeSort(service.servers, compareServers)
}

function compareServiceKeys(one: ServiceKey, two: ServiceKey): number {
  return (
    (markOf(one) - markOf(two)) | 0 ||
    familyNumbers[one.family] - familyNumbers[two.family] ||
    protocolOf(one) - protocolOf(two) ||
    compareWords(wordsOf(one), wordsOf(two)) ||
    portOf(one) - portOf(two)
  )
}

function markOf(key: ServiceKey): number {
  return key.kind === 'fwmark' ? key.mark : 0
}

function protocolOf(key: ServiceKey): number {
  return key.kind === 'address' ? protocolNumbers[key.protocol] : 0
}

function wordsOf(key: ServiceKey): number[] {
  return key.kind === 'address' ? addressWords(key) : [0]
}

function portOf(key: ServiceKey): number {
  return key.kind === 'address' ? key.port : 0
}

/** Across families only the first words are compared, or all of the first server's: it decides how the bytes are read. */
function compareServers(one: ServerView, two: ServerView): number {
  return compareWords(addressWords(one), addressWords(two)) || one.port - two.port
}

function compareWords(one: readonly number[], two: readonly number[]): number {
  for (const [index, word] of one.entries()) {
    const difference = (word - (two[index] ?? 0)) | 0
    if (difference !== 0) return difference
  }
  return 0
}

function mergeSort<T>(items: readonly T[], compare: (one: T, two: T) => number): T[] {
  if (items.length < 2) return [...items]
  const middle = items.length >> 1
  const left = mergeSort(items.slice(0, middle), compare)
  const right = mergeSort(items.slice(middle), compare)
  const merged: T[] = []
  let next = 0
  for (const item of right) {
    while (next < left.length && compare(left[next] as T, item) <= 0) merged.push(left[next++] as T)
    merged.push(item)
  }
  return [...merged, ...left.slice(next)]
}
