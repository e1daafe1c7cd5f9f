/* SPDX-License-Identifier: Apache-2.0 */
/* The datapath's own hashing, compiled for user space. */
#include <stdbool.h>
#include <string.h>
#include "shim.h"
#include "../bpf/abi.h"
#include "../bpf/hash.h"

_Static_assert(sizeof(struct bpvs_endpoint) == 20, "packed by src/native/endpoints.ts");

static __u64 hash_packed(const __u64 *key, const struct bpvs_endpoint *in)
{
	union lb_addr addr;

	memcpy(&addr, in->addr, sizeof(addr));
	return hash_endpoint(key, &addr, in->port, in->proto, in->af);
}

void bpvs_hash_services(const __u64 *key, const struct bpvs_endpoint *in, uint32_t count,
			uint32_t line_mask, uint32_t filter_mask, uint32_t *out)
{
	for (uint32_t i = 0; i < count; i++, out += 4) {
		__u64 h = hash_packed(key, &in[i]);
		struct lb_spot spot = hash_spot(h, line_mask);

		out[0] = spot.first;
		out[1] = spot.second;
		out[2] = spot.tag;
		out[3] = hash_bit(h, filter_mask);
	}
}

void bpvs_hash_servers(const __u64 *key, const struct bpvs_endpoint *in, uint32_t count,
		       uint32_t filter_mask, uint32_t *out)
{
	for (uint32_t i = 0; i < count; i++)
		out[i] = hash_bit(hash_packed(key, &in[i]), filter_mask) + filter_mask + 1;
}
