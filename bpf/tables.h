/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Accessors of the tables that user space writes: services, servers, lists; and of their state. */
#pragma once
#include "counters.h"

static __always_inline struct lb_config *config_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&lb_config, &zero);
}

static __always_inline struct lb_service *service_at(__u32 id)
{
	return bpf_map_lookup_elem(&lb_services, &id);
}

static __always_inline struct lb_service_state *service_state_at(__u32 id)
{
	return bpf_map_lookup_elem(&lb_service_states, &id);
}

static __always_inline struct lb_server *server_at(__u32 id)
{
	return bpf_map_lookup_elem(&lb_servers, &id);
}

static __always_inline struct lb_server_state *server_state_at(__u32 id)
{
	return bpf_map_lookup_elem(&lb_server_states, &id);
}

static __always_inline union lb_cell *cell_at(__u32 index)
{
	return bpf_map_lookup_elem(&lb_cells, &index);
}

/* Slot `i` of the list whose head is cell `list`. */
static __always_inline struct lb_slot *slot_at(__u32 list, __u32 i)
{
	union lb_cell *cell = cell_at(list + 1 + i / LB_CELL_SLOTS);

	return cell ? &cell->slot[i % LB_CELL_SLOTS] : NULL;
}

static __always_inline bool addr_equal(const union lb_addr *a, const union lb_addr *b, enum lb_af af)
{
	if (af == LB_AF_INET)
		return a->w[0] == b->w[0];
	return a->d[0] == b->d[0] && a->d[1] == b->d[1];
}

static __always_inline void addr_copy(union lb_addr *to, const union lb_addr *from, enum lb_af af)
{
	if (af == LB_AF_INET) {
		to->d[0] = from->w[0];
		to->d[1] = 0;
	} else {
		to->d[0] = from->d[0];
		to->d[1] = from->d[1];
	}
}

enum filter_half { FILTER_SERVICE = 0, FILTER_SERVER = 1 };

/* False: no service (or server) has this endpoint. True: perhaps one has. */
static __always_inline bool filter_has(enum filter_half half, __u64 hash)
{
	__u32 bit = hash_bit(hash, lb_filter_mask) + (half ? lb_filter_mask + 1 : 0), i = bit >> 6;
	__u64 *word = bpf_map_lookup_elem(&lb_filter, &i);

	return word && *word >> (bit & 63) & 1;
}

static __always_inline __u32 service_find_in(__u32 line, __u32 tag, const struct packet *p,
					     enum lb_af af)
{
	struct lb_line *l = bpf_map_lookup_elem(&lb_service_index, &line);

	if (!l)
		return 0;
	for (int i = 0; i < LB_LINE_SLOTS; i++) {
		__u64 slot = READ_ONCE(l->slot[i]);
		struct lb_service *svc;

		if (slot >> 32 != tag)
			continue;
		svc = service_at((__u32)slot);
		if (svc && svc->af == af && svc->proto == p->t.proto && svc->vport == p->t.dport &&
		    addr_equal(&svc->vaddr, &p->t.daddr, af))
			return (__u32)slot;
	}
	return 0;
}

/* The service that a packet is for; 0: none. Order as ip_vs_service_find(). */
static __always_inline __u32 service_find(const struct packet *p, enum lb_af af)
{
	struct lb_spot spot = hash_spot(p->dst, lb_service_line_mask);
	__u32 id = service_find_in(spot.first, spot.tag, p, af);

	return id ? id : service_find_in(spot.second, spot.tag, p, af);
}
