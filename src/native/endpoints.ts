/** Packed endpoints, the input of the batch forms of hashing: struct bpvs_endpoint of native/shim.h. */

/** Bytes of one endpoint: address 16, port 2 (network order), protocol 1, family 1. */
export const ENDPOINT_SIZE = 20

/** Writes one endpoint. `address` is 16 bytes in network order; `port` in host order; `family` 4 or 6. */
export function packEndpoint(
  target: Uint8Array,
  index: number,
  family: 4 | 6,
  protocol: number,
  address: Uint8Array,
  port: number,
): void {
  const at = index * ENDPOINT_SIZE
  target.set(address, at)
  target[at + 16] = port >> 8
  target[at + 17] = port & 0xff
  target[at + 18] = protocol
  target[at + 19] = family
}
