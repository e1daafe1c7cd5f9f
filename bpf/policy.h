/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What Kubernetes asks of a new connection: may its client use the service, and which of its lists of servers does it get
 * (kube-proxy's nftables mode: source ranges; the endpoints of an external traffic policy "Local" for all but pods and the node).
 */
#pragma once
#include "affinity.h"

/* Where a connection comes from, beside LB_POLICY_MASQ_*: in a tunnel from another node, which chose this one for it. */
enum { ORIGIN_TUNNEL = 256 };

enum { INTERVAL_STEPS = 17 /* as many as halve LB_MAX_INTERVALS to nothing */ };

/* Where a connection comes from: one of LB_POLICY_MASQ_*. As kube-proxy's LocalTrafficDetector. */
static __always_inline __u32 origin_of(const struct new_conn *n, __u32 ifindex)
{
	bool four = n->af == LB_AF_INET;
	struct lb_config *cfg = config_get();

	if (n->hook == HOOK_EGRESS)
		return LB_POLICY_MASQ_NODE;
	if (!cfg)
		return LB_POLICY_MASQ_OTHERS;
	if (cfg->pods_known & (four ? LB_PODS_NET4 : LB_PODS_NET6) &&
	    addr_within(&n->t.saddr, four ? &cfg->pods4 : &cfg->pods6,
			four ? &cfg->pods4_mask : &cfg->pods6_mask))
		return LB_POLICY_MASQ_PODS;
	if (cfg->pods_known & LB_PODS_LINK && bpf_map_lookup_elem(&lb_pod_links, &ifindex))
		return LB_POLICY_MASQ_PODS;
	return LB_POLICY_MASQ_OTHERS;
}

/* Addresses are compared as they are written. */
static __always_inline bool addr_before(const union lb_addr *a, const union lb_addr *b)
{
	__u64 high = bpf_be64_to_cpu(a->d[0]), other = bpf_be64_to_cpu(b->d[0]);

	return high < other ||
	       (high == other && bpf_be64_to_cpu(a->d[1]) < bpf_be64_to_cpu(b->d[1]));
}

/* Is the address in one of `count` intervals that begin in cell `first`? (Not static: the verifier looks at it once.) */
__noinline int interval_has(const union lb_addr *addr, __u32 first, __u32 count)
{
	__u32 low = 0;

	if (!addr)
		return 0;
	for (int i = 0; i < INTERVAL_STEPS && low < count; i++) {
		__u32 middle = low + (count - low) / 2;
		union lb_cell *cell = cell_at(first + middle);

		if (!cell)
			return 0;
		if (addr_before(addr, &cell->interval.first))
			count = middle;
		else if (addr_before(&cell->interval.last, addr))
			low = middle + 1;
		else
			return 1;
	}
	return 0;
}

/* Applies who may use the list, and who gets another service's servers: 0, or the verdict. */
static __always_inline int audience_apply(struct new_conn *n, const struct lb_audience *a)
{
	if (a->allowed && !interval_has(&n->t.saddr, a->allowed, a->allowed_count))
		return LB_DROP_SOURCE;
	if (a->insiders && n->origin & (LB_POLICY_MASQ_PODS | LB_POLICY_MASQ_NODE))
		n->virtual_service = a->insiders;
	return 0;
}

/* The policy of the service that a described connection is for, which is another one then for insiders: 0, or the verdict.
 * `ifindex`: the interface that it comes in by; not asked if the origin is known. (Not static: the verifier looks at it
 * once.) */
__noinline int policy_apply(struct new_conn *n, __u32 ifindex)
{
	union lb_cell *head, *last;
	__u32 list = 0;

	if (!n)
		return 0;
	head = list_in_force(n->virtual_service, &list);
	if (!head || likely(!head->list.policy))
		return 0;
	n->policy = head->list.policy;
	if (!n->origin)
		n->origin = origin_of(n, ifindex);
	last = cell_at(list + (1U << (head->list.order & 31)) - 1);
	return last && n->policy & LB_POLICY_AUDIENCE ? audience_apply(n, &last->audience) : 0;
}
