/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The entry of each hook only tells the family; the rest is a program of its own that it tail-calls: each then has a whole
 * stack and the verifier's whole patience, which all of them together would exceed on Linux 6.1.
 */
#pragma once
#include "bpf_env.h"

enum part {
	PART_IPV4,
	PART_IPV6,
	PART_OPEN4,
	PART_OPEN6,
	PART_ICMP4,
	PART_ICMP6,
	PART_TRANSMIT4,
	PART_TRANSMIT6,
	PART_TUNNEL_ERROR,
	PART_ODD4, /* what is not plain: reading it, the packet, and what opens a connection */
	PART_ODD6,
	PART_ODD_READ4,
	PART_ODD_READ6,
	PART_ODD_OPEN4,
	PART_ODD_OPEN6,
	PART_MASQUERADED4,
	PART_MASQUERADED6,
	PART_DECAP4, /* what came in a tunnel from another node */
	PART_DECAP6,
	PART_SCHEDULE, /* of both families, as it sees no packet */
	PARTS
};

/* No more is known of them than that they can be called; libbpf fills them at load. */
#define PARTS_OF(NAME, CONTEXT)                                                                    \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_PROG_ARRAY);                                             \
		__uint(max_entries, PARTS);                                                        \
		__type(key, __u32);                                                                \
		__array(values, int(CONTEXT *));                                                   \
	} NAME SEC(".maps")
