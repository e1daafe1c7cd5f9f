/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Fragments. IPVS sees datagrams whole, after the stack has put them together; here each later fragment goes the way of the
 * first, which has the ports. So the first is remembered: by what all fragments of a datagram have in common. One that
 * comes before its first can't be told from another, and is dropped if its address is a service's (LB_DROP_FRAGMENT).
 */
#pragma once
#include "headers.h"
#include "schedule.h"

enum {
	FRAGMENTS = 4096,
	FRAGMENT_SECONDS =
		30, /* as long as the stack waits for the rest of a datagram (ipfrag_time) */
};

/* What the fragments of a datagram have in common. */
struct fragment_key {
	union lb_addr saddr, daddr;
	__u32 id;
	__u8 proto; /* IPv6: 0 */
	__u8 af;
	__u16 pad;
};

/* What only the first one says. */
struct fragment_first {
	__be16 sport, dport;
	__u8 proto;
	__u8 pad;
	__u16 until;  /* bytes that it has of what was cut */
	__u32 when;   /* tick */
	__u32 server; /* one-packet scheduling: its server */
};

/* Writer: the datapath. Full: the one that was used least lately goes. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, FRAGMENTS);
	__type(key, struct fragment_key);
	__type(value, struct fragment_first);
} lb_fragments SEC(".maps");

static __always_inline void fragment_key(struct fragment_key *key, const struct new_conn *n,
					 __u32 af)
{
	key->saddr = n->t.saddr;
	key->daddr = n->t.daddr;
	key->id = n->fragment;
	key->proto = af == LB_AF_INET ? n->t.proto : 0;
	key->af = af;
}

/* What is remembered of the first fragment of the datagram that `n` describes. (Not inlined: few
 * packets are fragments. A struct packet is not for functions that are called, or all of it would be in memory.) */
static __noinline struct fragment_first *fragment_first(const struct new_conn *n, __u32 af)
{
	struct fragment_key key = {};
	struct fragment_first *first;

	fragment_key(&key, n, af);
	first = bpf_map_lookup_elem(&lb_fragments, &key);
	if (!first ||
	    (__u64)(clock_tick() - first->when) << lb_tick_shift > FRAGMENT_SECONDS * lb_hz)
		return NULL;
	return first;
}
