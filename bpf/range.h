/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Addresses that only services are to have. What is for one of them but for no service is refused if the address is a
 * service's, else dropped, as kube-proxy's nftables mode does with the addresses of a ServiceCIDR: nobody else is there.
 */
#pragma once
#include "icmp.h"

/* May the address be in one? No: it differs in what all of them have in common. */
static __always_inline bool range_near(const union lb_addr *addr, enum lb_af af)
{
	struct lb_config *cfg = config_get();

	return cfg && !(af == LB_AF_INET ? (addr->w[0] ^ cfg->range_near4) & cfg->range_near4_mask
					 : (addr->w[0] ^ cfg->range_near6) & cfg->range_near6_mask);
}

/* The service range that an address is in. */
static __always_inline struct lb_service_range *range_find(const union lb_addr *addr, enum lb_af af)
{
	struct lb_config *cfg = config_get();
	__u32 count = cfg ? READ_ONCE(cfg->ranges) : 0;

	for (__u32 i = 0; i < LB_MAX_SERVICE_RANGES && i < count; i++) {
		/* What is on the stack Linux 6.1 forgets, and takes each round for the same: the count is not to be there. */
		__u32 key = i;
		struct lb_service_range *r = bpf_map_lookup_elem(&lb_service_ranges, &key);

		if (!r || r->af != af)
			continue;
		if (af == LB_AF_INET ? !((addr->w[0] ^ r->net.w[0]) & r->mask.w[0])
				     : addr_within(addr, &r->net, &r->mask))
			return r;
	}
	return NULL;
}

/* Is the address in one? (Not inline for the verifier's sake.) */
static __noinline bool range_holds(const union lb_addr *addr, enum lb_af af)
{
	return range_find(addr, af) != NULL;
}

/* What becomes of a packet that no service takes: the action, or NOT_OURS. */
static __always_inline int range_refuse(const struct packet *p, enum lb_hook hook, enum lb_af af)
{
	struct lb_service_range *r = range_find(&p->t.daddr, af);

	if (!r)
		return NOT_OURS;
	if (addr_is_virtual(&p->t.daddr, af))
		return p->shape & SHAPE_LATER ? act_drop(hook, LB_DROP_FRAGMENT)
					      : refuse_port(p->ctx, hook, af, LB_REFUSE_NO_PORT);
	return r->unused ? act_drop(hook, LB_DROP_UNUSED) : NOT_OURS;
}
