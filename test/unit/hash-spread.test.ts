/** Names in a row are spread over the lines of the index, whatever the key that a table has drawn. */
import { randomFillSync } from 'node:crypto'
import t from 'tap'
import { writeAddress } from '../../src/model/address.ts'
import { ENDPOINT_SIZE, packEndpoint } from '../../src/native/endpoints.ts'
import { bind, type Signature } from '../../src/native/library.ts'

interface Functions {
  bpvs_hash_services(
    key: BigUint64Array,
    packed: Uint8Array,
    count: number,
    lineMask: number,
    filterMask: number,
    out: Uint32Array,
  ): void
}
const c = bind<Functions>({
  bpvs_hash_services: ['void', 'void *', 'void *', 'uint32', 'uint32', 'uint32', 'void *'],
} satisfies Record<keyof Functions, Signature>)

const LINES = 4096
const SLOTS = 8
const PER_FAMILY = 4000
const KEYS = 300

/** Services at addresses in a row, and the records of these addresses. */
function namesInARow(): Uint8Array {
  const packed = new Uint8Array(4 * PER_FAMILY * ENDPOINT_SIZE)
  const address = new Uint8Array(16)
  for (let n = 0; n < PER_FAMILY; n++) {
    for (const family of [4, 6] as const) {
      const text = family === 4 ? `10.96.${n >> 8}.${n & 255}` : `fd00:96::${n.toString(16)}`
      address.fill(0)
      writeAddress(address, 0, text, family)
      const at = 4 * n + (family === 4 ? 0 : 2)
      packEndpoint(packed, at, family, 6, address, 80)
      packEndpoint(packed, at + 1, family, 0, address, 0)
    }
  }
  return packed
}

t.test('a table that is half full takes every name, by whatever key', async (t) => {
  const packed = namesInARow()
  const count = packed.length / ENDPOINT_SIZE
  const out = new Uint32Array(4 * count)
  let refused = 0
  for (let k = 0; k < KEYS; k++) {
    const key = randomFillSync(new BigUint64Array(8)).map((word) => word | 1n)
    c.bpvs_hash_services(key, packed, count, LINES - 1, 1023, out)
    const used = new Uint8Array(LINES)
    for (let i = 0; i < count; i++) {
      const [first = 0, second = 0] = [out[4 * i], out[4 * i + 1]]
      const [one = 0, other = 0] = [used[first], used[second]]
      const line = one < SLOTS / 2 || one <= other ? first : second
      if ((used[line] ?? 0) === SLOTS) refused++
      else used[line] = (used[line] ?? 0) + 1
    }
  }
  t.equal(refused, 0, `${KEYS} keys, ${count} names in ${LINES * SLOTS} slots`)
})
