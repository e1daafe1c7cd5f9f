/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The programs that the entries of tcx ingress and egress hand packets to: of interfaces with Ethernet headers, and of those without (LB_BARE). */
#pragma once
#include "programs.h"

DECLARE(lb_ingress, struct __sk_buff)
DECLARE(lb_ingress_open, struct __sk_buff)
DECLARE(lb_ingress_icmp, struct __sk_buff)
DECLARE(lb_transmit, struct __sk_buff)
int lb_tunnel_error(struct __sk_buff *skb);
DECLARE(lb_ingress_odd, struct __sk_buff)
DECLARE(lb_ingress_odd_read, struct __sk_buff)
DECLARE(lb_ingress_odd_open, struct __sk_buff)
DECLARE(lb_ingress_masqueraded, struct __sk_buff)
DECLARE(lb_ingress_decap, struct __sk_buff)
int lb_schedule(struct __sk_buff *skb);
PARTS_OF(lb_ingress_parts, struct __sk_buff) = {
	.values = { [PART_IPV4] = lb_ingress4,
		    [PART_IPV6] = lb_ingress6,
		    [PART_OPEN4] = lb_ingress_open4,
		    [PART_OPEN6] = lb_ingress_open6,
		    [PART_ICMP4] = lb_ingress_icmp4,
		    [PART_ICMP6] = lb_ingress_icmp6,
		    [PART_TRANSMIT4] = lb_transmit4,
		    [PART_TRANSMIT6] = lb_transmit6,
		    [PART_TUNNEL_ERROR] = lb_tunnel_error,
		    [PART_ODD4] = lb_ingress_odd4,
		    [PART_ODD6] = lb_ingress_odd6,
		    [PART_ODD_READ4] = lb_ingress_odd_read4,
		    [PART_ODD_OPEN4] = lb_ingress_odd_open4,
		    [PART_ODD_READ6] = lb_ingress_odd_read6,
		    [PART_ODD_OPEN6] = lb_ingress_odd_open6,
		    [PART_MASQUERADED4] = lb_ingress_masqueraded4,
		    [PART_MASQUERADED6] = lb_ingress_masqueraded6,
		    [PART_DECAP4] = lb_ingress_decap4,
		    [PART_DECAP6] = lb_ingress_decap6,
		    [PART_SCHEDULE] = lb_schedule },
};

DECLARE(lb_egress, struct __sk_buff)
DECLARE(lb_egress_open, struct __sk_buff)
DECLARE(lb_egress_icmp, struct __sk_buff)
DECLARE(lb_egress_odd, struct __sk_buff)
DECLARE(lb_egress_odd_read, struct __sk_buff)
DECLARE(lb_egress_odd_open, struct __sk_buff)
DECLARE(lb_egress_transmit, struct __sk_buff)
DECLARE(lb_egress_masqueraded, struct __sk_buff)
PARTS_OF(lb_egress_parts, struct __sk_buff) = {
	.values = { [PART_IPV4] = lb_egress4,
		    [PART_IPV6] = lb_egress6,
		    [PART_OPEN4] = lb_egress_open4,
		    [PART_OPEN6] = lb_egress_open6,
		    [PART_ICMP4] = lb_egress_icmp4,
		    [PART_ICMP6] = lb_egress_icmp6,
		    [PART_ODD4] = lb_egress_odd4,
		    [PART_ODD6] = lb_egress_odd6,
		    [PART_ODD_READ4] = lb_egress_odd_read4,
		    [PART_ODD_READ6] = lb_egress_odd_read6,
		    [PART_ODD_OPEN4] = lb_egress_odd_open4,
		    [PART_ODD_OPEN6] = lb_egress_odd_open6,
		    [PART_TRANSMIT4] = lb_egress_transmit4,
		    [PART_TRANSMIT6] = lb_egress_transmit6,
		    [PART_MASQUERADED4] = lb_egress_masqueraded4,
		    [PART_MASQUERADED6] = lb_egress_masqueraded6,
		    [PART_SCHEDULE] = lb_schedule },
};

BALANCE_PARTS(lb_ingress, HOOK_INGRESS, "tc", struct __sk_buff, lb_ingress_parts)
OPENING_PARTS(lb_ingress_open, HOOK_INGRESS, "tc", struct __sk_buff, lb_ingress_parts)
BALANCE_PARTS(lb_egress, HOOK_EGRESS, "tc", struct __sk_buff, lb_egress_parts)
OPENING_PARTS(lb_egress_open, HOOK_EGRESS, "tc", struct __sk_buff, lb_egress_parts)

ODD_PARTS(lb_ingress_odd, HOOK_INGRESS, lb_ingress_parts, odd_read)
ODD_PARTS(lb_ingress_odd_read, HOOK_INGRESS, lb_ingress_parts, balance_odd, false)
ODD_PARTS(lb_ingress_odd_open, HOOK_INGRESS, lb_ingress_parts, balance_odd, true)
ODD_PARTS(lb_egress_odd, HOOK_EGRESS, lb_egress_parts, odd_read)
ODD_PARTS(lb_egress_odd_read, HOOK_EGRESS, lb_egress_parts, balance_odd, false)
ODD_PARTS(lb_egress_odd_open, HOOK_EGRESS, lb_egress_parts, balance_odd, true)

TC_PART(lb_ingress_icmp4, HOOK_INGRESS, LB_AF_INET, lb_ingress_parts,
	icmp_handle(ctx, false, LB_AF_INET))
TC_PART(lb_ingress_icmp6, HOOK_INGRESS, LB_AF_INET6, lb_ingress_parts,
	icmp_handle(ctx, false, LB_AF_INET6))
TC_PART(lb_egress_icmp4, HOOK_EGRESS, LB_AF_INET, lb_egress_parts,
	icmp_handle(ctx, true, LB_AF_INET))
TC_PART(lb_egress_icmp6, HOOK_EGRESS, LB_AF_INET6, lb_egress_parts,
	icmp_handle(ctx, true, LB_AF_INET6))

TRANSMIT_PARTS(lb_transmit, HOOK_INGRESS, "tc", struct __sk_buff, lb_ingress_parts, transmit_tc)
TRANSMIT_PARTS(lb_egress_transmit, HOOK_EGRESS, "tc", struct __sk_buff, lb_egress_parts, transmit_tc)
TRANSMIT_PARTS(lb_ingress_masqueraded, HOOK_INGRESS, "tc", struct __sk_buff, lb_ingress_parts,
	       masqueraded_handle)
TRANSMIT_PARTS(lb_egress_masqueraded, HOOK_EGRESS, "tc", struct __sk_buff, lb_egress_parts,
	       masqueraded_handle)
TC_PART(lb_ingress_decap4, HOOK_INGRESS, LB_AF_INET, lb_ingress_parts, decap(ctx, LB_AF_INET))
TC_PART(lb_ingress_decap6, HOOK_INGRESS, LB_AF_INET6, lb_ingress_parts, decap(ctx, LB_AF_INET6))
TC_PART(lb_tunnel_error, HOOK_INGRESS, LB_AF_INET, lb_ingress_parts, tunnel_error(ctx))

/* Schedules what a packet opens, and goes on with it at the hook that it is at. */
static __always_inline int schedule_tc(struct __sk_buff *skb, void *marked_parts)
{
	struct new_conn *n = new_conn_get(NEW_CONN);
	int act;

	if (!n)
		return act_pass(HOOK_INGRESS);
	act = schedule(skb, false, n);
	if (act != PACKET_NEXT)
		return act;
	if (marked_parts && n->hook == HOOK_MARKED)
		bpf_tail_call(skb, marked_parts, part_of_scheduled(n));
	else if (n->hook == HOOK_EGRESS)
		bpf_tail_call(skb, &lb_egress_parts, part_of_scheduled(n));
	else
		bpf_tail_call(skb, &lb_ingress_parts, part_of_scheduled(n));
	return act_pass(HOOK_INGRESS);
}

/* What an entry does with a packet of the family `af`. */
static __always_inline int enter_tc(struct __sk_buff *skb, void *parts, enum lb_af af)
{
	if (af == LB_AF_INET)
		bpf_tail_call(skb, parts, PART_IPV4);
	else
		bpf_tail_call(skb, parts, PART_IPV6);
	return act_pass(HOOK_INGRESS);
}
