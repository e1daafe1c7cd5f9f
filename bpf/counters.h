/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Counting: packets by verdict, and what a server got and gave. One lane per CPU, so nothing is shared. */
#pragma once
#include "packet.h"

/* Nothing interrupts a packet's program on its CPU to count there. What does get interrupted defines this otherwise. */
#ifndef COUNTS_INTERRUPTED
#define COUNTS_INTERRUPTED 0
#endif

static __always_inline void count_add(__u64 *counter, __u64 n)
{
	if (COUNTS_INTERRUPTED || lb_lanes_shared)
		__sync_fetch_and_add(counter, n);
	else
		*counter += n;
}

static __always_inline __u32 lane(void)
{
	return bpf_get_smp_processor_id() & lb_lane_mask;
}

static __always_inline enum lb_verdict count_verdict(enum lb_verdict v)
{
	__u32 i = lane() * LB_VERDICTS + v;
	__u64 *n = bpf_map_lookup_elem(&lb_verdicts, &i);

	if (n)
		count_add(n, 1);
	return v;
}

static __always_inline struct lb_counters *server_counters(__u32 server)
{
	__u32 i = lane() * lb_server_max + server;

	return bpf_map_lookup_elem(&lb_stats, &i);
}

static __always_inline void count_in(__u32 server, __u32 packets, __u32 bytes)
{
	struct lb_counters *c = server_counters(server);

	if (c) {
		count_add(&c->in_pkts, packets);
		count_add(&c->in_bytes, bytes);
	}
}

static __always_inline void count_out(__u32 server, __u32 packets, __u32 bytes)
{
	struct lb_counters *c = server_counters(server);

	if (c) {
		count_add(&c->out_pkts, packets);
		count_add(&c->out_bytes, bytes);
	}
}

static __always_inline void count_conn(__u32 server)
{
	struct lb_counters *c = server_counters(server);

	if (c)
		count_add(&c->conns, 1);
}
