/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The Ethernet header of packets that leave a hook by another interface, or by the one that they came in by. */
#pragma once
#include "forward.h"

/* (Not inlined: the compiler would go through a pointer into the context.) */
static __noinline bool frame_push(struct __sk_buff *skb)
{
	struct ethhdr *eth;

	if (bpf_skb_change_head(skb, ETH_HLEN, 0))
		return false;
	eth = packet_data(skb, HOOK_INGRESS);
	if ((void *)(eth + 1) > packet_end(skb, HOOK_INGRESS))
		return false;
	eth->h_proto = skb->protocol;
	return true;
}

/* Packets of interfaces without Ethernet headers (LB_BARE) get one first: where they go may need it, and the kernel's neighbour code takes
 * nothing without. Who has no use for it takes it off. */
static __always_inline bool frame_begin(struct __sk_buff *skb)
{
	return !LB_BARE || frame_push(skb);
}

/* Sends a packet that was made the answer to itself to where it came from. A tunnel may have many ends: the kernel looks for the way to
 * the right one. */
static __always_inline int act_answer(struct __sk_buff *skb, enum lb_hook hook)
{
	if (hook == HOOK_EGRESS)
		return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
	if (!LB_BARE)
		return bpf_redirect(skb->ifindex, 0);
	return frame_begin(skb) ? bpf_redirect_neigh(skb->ifindex, NULL, 0, 0)
				: act_drop(hook, LB_DROP_REFUSE_FAILED);
}
