// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The server's end of a tunnel, for tests on kernels without the modules for it: takes ipip, gue and gre off whatever comes
 * in, IPv4 and IPv6 in either.
 */
#include "../bpf_env.h"
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

char _license[] SEC("license")
= "Dual BSD/GPL";

enum {
	GUE_PORT = 6080,
	L3 = ETH_HLEN,
	DECAP_L3_IPV4 = 1 << 7, /* BPF_F_ADJ_ROOM_DECAP_L3_*, since 6.3 */
	DECAP_L3_IPV6 = 1 << 8,
};

/* Bytes of the tunnel's own header, and the protocol inside; 0: no tunnel. */
static __always_inline int decap_length(struct __sk_buff *skb, __u32 at, __u8 proto, __u16 *inside)
{
	__u16 w[6] = {};

	if (proto == IPPROTO_IPIP || proto == IPPROTO_IPV6) {
		*inside = proto == IPPROTO_IPIP ? ETH_P_IP : ETH_P_IPV6;
		return 0;
	}
	if (bpf_skb_load_bytes(skb, at, w, sizeof(w)))
		return -1;
	if (proto == IPPROTO_GRE) {
		*inside = bpf_ntohs(w[1]);
		return w[0] & bpf_htons(0x8000) ? 8 : 4;
	}
	if (proto != IPPROTO_UDP || w[1] != bpf_htons(GUE_PORT))
		return -1;
	*inside = ((__u8 *)w)[9] == IPPROTO_IPIP ? ETH_P_IP : ETH_P_IPV6;
	return 12;
}

SEC("tc")
int decap(struct __sk_buff *skb)
{
	__be16 type = skb->protocol, now;
	bool four = type == bpf_htons(ETH_P_IP);
	__u32 header = four ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO;
	__u16 inside = 0;
	__u8 proto;
	int length;

	if ((!four && type != bpf_htons(ETH_P_IPV6)) ||
	    bpf_skb_load_bytes(skb,
			       L3 + (four ? offsetof(struct iphdr, protocol)
					  : offsetof(struct ipv6hdr, nexthdr)),
			       &proto, 1))
		return -1;
	length = decap_length(skb, L3 + header, proto, &inside);
	if (length < 0)
		return -1;
	now = bpf_htons(inside);
	flags |= inside == ETH_P_IP ? DECAP_L3_IPV4 : DECAP_L3_IPV6;
	if (bpf_skb_adjust_room(skb, -(int)(header + length), BPF_ADJ_ROOM_MAC, flags) ||
	    bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_proto), &now, sizeof(now), 0))
		return 2; /* TC_ACT_SHOT */
	return -1;        /* TC_ACT_UNSPEC: the stack */
}
