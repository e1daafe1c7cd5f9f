/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Packets that netfilter marks. Its hooks come after tcx ingress, so for each service by mark user space keeps a rule of
 * policy routing (native/steering.c) that sends packets with the mark out of an interface of ours, one end of a veth whose
 * other end is in the same namespace. What a program at its egress takes is translated and begins its way anew, at the
 * interface that it came in by: the stack sees client and server, as ever. The packets that follow on the connection are
 * found at ingress, whatever their mark. What it does not take comes out at the other end of the veth, where no rule of
 * ours sends it away again: the stack's, as if it had never left.
 */
#pragma once
#include "nat.h"

/* Both ends of the veth have this address, and nothing else has: 02:62:70:76:73:00. */
enum { MARKED_MAC_0 = 0x0262, MARKED_MAC_1 = 0x7076, MARKED_MAC_2 = 0x7300 };

/* Is the frame for the veth? One that began its way anew still is. */
static __always_inline bool marked_frame(struct __sk_buff *skb)
{
	void *data = packet_data(skb, HOOK_INGRESS), *end = packet_end(skb, HOOK_INGRESS);
	__be16 *mac = data;

	return data + ETH_HLEN <= end && mac[0] == bpf_htons(MARKED_MAC_0) &&
	       mac[1] == bpf_htons(MARKED_MAC_1) && mac[2] == bpf_htons(MARKED_MAC_2);
}

/* The way to the veth was no hop: undoes what forwarding did to TTL or hop limit. */
static __always_inline bool marked_renew(struct __sk_buff *skb, enum lb_af af)
{
	void *data = packet_data(skb, HOOK_MARKED), *end = packet_end(skb, HOOK_MARKED);

	if (af == LB_AF_INET) {
		struct iphdr *ip = data + L3_OFF;

		if ((void *)(ip + 1) > end)
			return false;
		ip->check = csum_apply(ip->check, (__u16)~bpf_htons(ip->ttl << 8) +
							  (__u32)bpf_htons((ip->ttl + 1) << 8));
		ip->ttl++;
	} else {
		struct ipv6hdr *ip6 = data + L3_OFF;

		if ((void *)(ip6 + 1) > end)
			return false;
		ip6->hop_limit++;
	}
	return true;
}

/* Lets a translated packet begin its way anew. */
static __always_inline int marked_restart(struct __sk_buff *skb)
{
	skb->mark = 0;
	return bpf_redirect(skb->ingress_ifindex, BPF_F_INGRESS);
}

/* Sends an answer to where the packet came from. */
static __always_inline int marked_answer(struct __sk_buff *skb)
{
	skb->mark = 0;
	return bpf_redirect_neigh(skb->ingress_ifindex, NULL, 0, 0);
}
