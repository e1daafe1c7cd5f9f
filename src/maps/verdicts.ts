/** What became of packets, by name. */
import { LbLimit, lbVerdictNames } from '../abi/generated.ts'
import type { TableHandles } from '../native/handles.ts'

/** Packets by verdict since the table was made, over all lanes; every verdict but OK. */
export function readVerdicts(handles: TableHandles): ReadonlyMap<string, bigint> {
  const counts = new BigUint64Array(handles.buffer('lb_verdicts'))
  const result = new Map<string, bigint>()
  for (let verdict = 1; verdict < lbVerdictNames.length; verdict++) {
    let sum = 0n
    for (let lane = 0; lane <= handles.rodata.laneMask; lane++) sum += counts[lane * LbLimit.VERDICTS + verdict] ?? 0n
    result.set(lbVerdictNames[verdict] ?? '', sum)
  }
  return result
}
