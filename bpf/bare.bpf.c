// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The programs of interfaces whose packets begin with the IP header: tunnels (ipip, sit, ip6tnl, gre), WireGuard, tun, ppp. An object
 * of its own, loaded onto a table's maps where there is such an interface; the same source as lb.bpf.c.
 */
#define LB_BARE 1
#include "programs_tc.h"

char _license[] SEC("license")
= "Dual BSD/GPL";

/* The family of a packet; 0: none of ours. */
static __always_inline enum lb_af packet_family(struct __sk_buff *skb)
{
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return LB_AF_INET;
	return skb->protocol == bpf_htons(ETH_P_IPV6) ? LB_AF_INET6 : 0;
}

SEC("tc")
int lb_schedule(struct __sk_buff *skb)
{
	return schedule_tc(skb, NULL);
}

SEC("tc")
int lb_tc_ingress(struct __sk_buff *skb)
{
	enum lb_af af = packet_family(skb);

	if (!af || skb->pkt_type != PACKET_HOST)
		return act_pass(HOOK_INGRESS);
	return enter_tc(skb, &lb_ingress_parts, af);
}

SEC("tc")
int lb_tc_egress(struct __sk_buff *skb)
{
	enum lb_af af = packet_family(skb);

	if (!af)
		return act_pass(HOOK_EGRESS);
	return enter_tc(skb, &lb_egress_parts, af);
}
