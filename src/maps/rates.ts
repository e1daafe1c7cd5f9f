/**
 * Rates, which the datapath's timer estimates for every server and service and for everything (bpf/estimate.h). What is
 * shown is rounded as ip_vs_read_estimator() does.
 */
import type { Rates } from '../model/types.ts'
import { NO_COUNTERS } from './stats.ts'
import type { TableMaps } from './table-maps.ts'

export function serverRates(maps: TableMaps, id: number): Rates {
  return readRates(maps, id)
}

export function serviceRates(maps: TableMaps, id: number): Rates {
  return readRates(maps, maps.serverMax + id)
}

/** Of everything. */
export function totalRates(maps: TableMaps): Rates {
  return readRates(maps, maps.serverMax)
}

/** Of two that are shown as one. */
export function addRates(a: Rates, b: Rates): Rates {
  return {
    conns: a.conns + b.conns,
    inPkts: a.inPkts + b.inPkts,
    outPkts: a.outPkts + b.outPkts,
    inBytes: a.inBytes + b.inBytes,
    outBytes: a.outBytes + b.outBytes,
  }
}

/** A server's rates begin at 0. */
export function zeroServerRates(maps: TableMaps, id: number): void {
  zeroRates(maps, id)
}

/** A service's rates begin at 0. */
export function zeroServiceRates(maps: TableMaps, id: number): void {
  zeroRates(maps, maps.serverMax + id)
}

/** The rates of everything begin at 0. */
export function zeroTotalRates(maps: TableMaps): void {
  zeroRates(maps, maps.serverMax)
}

function readRates({ rates }: TableMaps, i: number): Rates {
  const packets = rates.cps(i) | rates.inPps(i) | rates.outPps(i)
  // Reading a bigint allocates, and in a large table most rates are 0: those of bytes are not without packets.
  if (packets === 0) return NO_COUNTERS
  return {
    conns: perSecond(rates.cps(i)),
    inPkts: perSecond(rates.inPps(i)),
    outPkts: perSecond(rates.outPps(i)),
    inBytes: bytesPerSecond(rates.inBps(i)),
    outBytes: bytesPerSecond(rates.outBps(i)),
  }
}

function perSecond(rate: number): bigint {
  return BigInt(Math.floor((rate + 0x1ff) / 1024))
}

function bytesPerSecond(rate: bigint): bigint {
  return (rate + 0xfn) >> 5n
}

function zeroRates({ rates }: TableMaps, i: number): void {
  rates.setCps(i, 0)
  rates.setInPps(i, 0)
  rates.setOutPps(i, 0)
  rates.setInBps(i, 0n)
  rates.setOutBps(i, 0n)
}
