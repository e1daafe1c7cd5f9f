/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The kinds of hook, and a packet's bytes at each. */
#pragma once
#include "maps.h"

#ifndef LB_BARE
#define LB_BARE 0 /* 1: for interfaces whose packets have no Ethernet header (bare.bpf.c) */
#endif

/* HOOK_MARKED: egress of the interface that takes marked packets (marked.h). */
enum lb_hook { HOOK_XDP, HOOK_INGRESS, HOOK_EGRESS, HOOK_MARKED };

static __always_inline void *packet_data(void *ctx, enum lb_hook hook)
{
	return (void *)(long)(hook == HOOK_XDP ? ((struct xdp_md *)ctx)->data
					       : ((struct __sk_buff *)ctx)->data);
}

static __always_inline void *packet_end(void *ctx, enum lb_hook hook)
{
	return (void *)(long)(hook == HOOK_XDP ? ((struct xdp_md *)ctx)->data_end
					       : ((struct __sk_buff *)ctx)->data_end);
}

/* What marks a packet that came in a tunnel from another node (decap.h), for as long as the programs have it. It is this
 * table's own: one that left for another namespace means nothing there. */
static __always_inline __u16 tunnel_token(void)
{
	return lb_hash_key[0];
}

static __always_inline bool came_in_tunnel(const struct __sk_buff *skb)
{
	return skb->tc_index == tunnel_token();
}

static __always_inline __u32 packet_ifindex(void *ctx, enum lb_hook hook)
{
	return hook == HOOK_XDP ? ((struct xdp_md *)ctx)->ingress_ifindex
				: ((struct __sk_buff *)ctx)->ifindex;
}

static __always_inline __u32 packet_len(void *ctx, enum lb_hook hook)
{
	if (hook == HOOK_XDP)
		return ((struct xdp_md *)ctx)->data_end - ((struct xdp_md *)ctx)->data;
	return ((struct __sk_buff *)ctx)->len;
}
