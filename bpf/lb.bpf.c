// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The programs: entry points, one for each hook, and (run.h) what user space runs by BPF_PROG_RUN. */
#include "decap.h"
#include "icmp_error.h"
#include "odd.h"
#include "parts.h"
#include "masqueraded.h"
#include "tunnel_error.h"
#include "run.h"

char _license[] SEC("license")
= "Dual BSD/GPL";

/* The family of a frame; 0: none of ours. */
static __always_inline enum lb_af frame_family(void *ctx, enum lb_hook hook)
{
	void *data = packet_data(ctx, hook);
	__be16 *type = data + offsetof(struct ethhdr, h_proto);

	if (data + ETH_HLEN > packet_end(ctx, hook))
		return 0;
	if (*type == bpf_htons(ETH_P_IP))
		return LB_AF_INET;
	return *type == bpf_htons(ETH_P_IPV6) ? LB_AF_INET6 : 0;
}

/* A program for each family. */
#define DECLARE(NAME, CONTEXT)                                                                     \
	int NAME##4(CONTEXT * ctx);                                                                \
	int NAME##6(CONTEXT * ctx);

DECLARE(lb_xdp, struct xdp_md)
DECLARE(lb_xdp_open, struct xdp_md)
DECLARE(lb_xdp_transmit, struct xdp_md)
DECLARE(lb_xdp_masqueraded, struct xdp_md)
int lb_xdp_schedule(struct xdp_md *ctx);
PARTS_OF(lb_xdp_parts, struct xdp_md) = {
	.values = { [PART_IPV4] = lb_xdp4,
		    [PART_IPV6] = lb_xdp6,
		    [PART_OPEN4] = lb_xdp_open4,
		    [PART_OPEN6] = lb_xdp_open6,
		    [PART_TRANSMIT4] = lb_xdp_transmit4,
		    [PART_TRANSMIT6] = lb_xdp_transmit6,
		    [PART_MASQUERADED4] = lb_xdp_masqueraded4,
		    [PART_MASQUERADED6] = lb_xdp_masqueraded6,
		    [PART_SCHEDULE] = lb_xdp_schedule },
};

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

/* ICMP that is marked is the stack's: errors about connections were translated at ingress. */
DECLARE(lb_marked, struct __sk_buff)
DECLARE(lb_marked_open, struct __sk_buff)
DECLARE(lb_marked_transmit, struct __sk_buff)
DECLARE(lb_marked_masqueraded, struct __sk_buff)
PARTS_OF(lb_marked_parts, struct __sk_buff) = {
	.values = { [PART_IPV4] = lb_marked4,
		    [PART_IPV6] = lb_marked6,
		    [PART_OPEN4] = lb_marked_open4,
		    [PART_OPEN6] = lb_marked_open6,
		    [PART_TRANSMIT4] = lb_marked_transmit4,
		    [PART_TRANSMIT6] = lb_marked_transmit6,
		    [PART_MASQUERADED4] = lb_marked_masqueraded4,
		    [PART_MASQUERADED6] = lb_marked_masqueraded6,
		    [PART_SCHEDULE] = lb_schedule },
};

/* Goes on in the part that `act` asks for, or is the action. */
static __always_inline int go_on(void *ctx, enum lb_hook hook, enum lb_af af, void *parts, int act)
{
	if (act == OPEN_NEXT)
		bpf_tail_call(ctx, parts, af == LB_AF_INET ? PART_OPEN4 : PART_OPEN6);
	else if (act == SCHEDULE_NEXT)
		bpf_tail_call(ctx, parts, PART_SCHEDULE);
	else if (act == ICMP_NEXT)
		bpf_tail_call(ctx, parts, af == LB_AF_INET ? PART_ICMP4 : PART_ICMP6);
	else if (act == TRANSMIT_NEXT)
		bpf_tail_call(ctx, parts, af == LB_AF_INET ? PART_TRANSMIT4 : PART_TRANSMIT6);
	else if (act == MASQUERADED_NEXT)
		bpf_tail_call(ctx, parts, af == LB_AF_INET ? PART_MASQUERADED4 : PART_MASQUERADED6);
	else if (act == DECAP_NEXT)
		bpf_tail_call(ctx, parts, af == LB_AF_INET ? PART_DECAP4 : PART_DECAP6);
	else if (act == PACKET_NEXT)
		bpf_tail_call(ctx, parts, af == LB_AF_INET ? PART_IPV4 : PART_IPV6);
	else if (act == TUNNEL_NEXT)
		bpf_tail_call(ctx, parts, PART_TUNNEL_ERROR);
	else if (act == ODD_NEXT)
		bpf_tail_call(ctx, parts, af == LB_AF_INET ? PART_ODD4 : PART_ODD6);
	else if (act == ODD_READ_NEXT)
		bpf_tail_call(ctx, parts, af == LB_AF_INET ? PART_ODD_READ4 : PART_ODD_READ6);
	else if (act == ODD_OPEN_NEXT)
		bpf_tail_call(ctx, parts, af == LB_AF_INET ? PART_ODD_OPEN4 : PART_ODD_OPEN6);
	else if (act != NOT_OURS)
		return act;
	return act_pass(hook);
}

/* A program that does CALL with its context `ctx`. */
#define PART(NAME, HOOK, AF, SECTION, CONTEXT, PARTS_MAP, CALL)                                    \
	SEC(SECTION)                                                                               \
	int NAME(CONTEXT *ctx)                                                                     \
	{                                                                                          \
		return go_on(ctx, HOOK, AF, &PARTS_MAP, CALL);                                     \
	}
#define TC_PART(NAME, HOOK, AF, PARTS_MAP, CALL)                                                   \
	PART(NAME, HOOK, AF, "tc", struct __sk_buff, PARTS_MAP, CALL)

/* The programs for packets of connections, and those for packets that may open one. */
#define BALANCE_PARTS(NAME, HOOK, SECTION, CONTEXT, PARTS_MAP)                                     \
	PART(NAME##4, HOOK, LB_AF_INET, SECTION, CONTEXT, PARTS_MAP,                               \
	     balance(ctx, HOOK, LB_AF_INET, false))                                                \
	PART(NAME##6, HOOK, LB_AF_INET6, SECTION, CONTEXT, PARTS_MAP,                              \
	     balance(ctx, HOOK, LB_AF_INET6, false))
#define OPENING_PARTS(NAME, HOOK, SECTION, CONTEXT, PARTS_MAP)                                     \
	PART(NAME##4, HOOK, LB_AF_INET, SECTION, CONTEXT, PARTS_MAP,                               \
	     balance(ctx, HOOK, LB_AF_INET, true))                                                 \
	PART(NAME##6, HOOK, LB_AF_INET6, SECTION, CONTEXT, PARTS_MAP,                              \
	     balance(ctx, HOOK, LB_AF_INET6, true))

BALANCE_PARTS(lb_xdp, HOOK_XDP, "xdp", struct xdp_md, lb_xdp_parts)
OPENING_PARTS(lb_xdp_open, HOOK_XDP, "xdp", struct xdp_md, lb_xdp_parts)
BALANCE_PARTS(lb_ingress, HOOK_INGRESS, "tc", struct __sk_buff, lb_ingress_parts)
OPENING_PARTS(lb_ingress_open, HOOK_INGRESS, "tc", struct __sk_buff, lb_ingress_parts)
BALANCE_PARTS(lb_egress, HOOK_EGRESS, "tc", struct __sk_buff, lb_egress_parts)
OPENING_PARTS(lb_egress_open, HOOK_EGRESS, "tc", struct __sk_buff, lb_egress_parts)
BALANCE_PARTS(lb_marked, HOOK_MARKED, "tc", struct __sk_buff, lb_marked_parts)
OPENING_PARTS(lb_marked_open, HOOK_MARKED, "tc", struct __sk_buff, lb_marked_parts)

/* The same for what is not plain. */
#define ODD_PARTS(NAME, HOOK, PARTS_MAP, CALL, ...)                                                \
	TC_PART(NAME##4, HOOK, LB_AF_INET, PARTS_MAP, CALL(ctx, HOOK, LB_AF_INET, ##__VA_ARGS__))  \
	TC_PART(NAME##6, HOOK, LB_AF_INET6, PARTS_MAP, CALL(ctx, HOOK, LB_AF_INET6, ##__VA_ARGS__))

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

/* The programs for packets that NAT does not touch, and for errors about tunnels. */
#define TRANSMIT_PARTS(NAME, HOOK, SECTION, CONTEXT, PARTS_MAP, TRANSMIT)                          \
	PART(NAME##4, HOOK, LB_AF_INET, SECTION, CONTEXT, PARTS_MAP,                               \
	     TRANSMIT(ctx, HOOK, LB_AF_INET))                                                      \
	PART(NAME##6, HOOK, LB_AF_INET6, SECTION, CONTEXT, PARTS_MAP,                              \
	     TRANSMIT(ctx, HOOK, LB_AF_INET6))

TRANSMIT_PARTS(lb_xdp_transmit, HOOK_XDP, "xdp", struct xdp_md, lb_xdp_parts, transmit_xdp)
TRANSMIT_PARTS(lb_transmit, HOOK_INGRESS, "tc", struct __sk_buff, lb_ingress_parts, transmit_tc)
TRANSMIT_PARTS(lb_egress_transmit, HOOK_EGRESS, "tc", struct __sk_buff, lb_egress_parts, transmit_tc)
TRANSMIT_PARTS(lb_marked_transmit, HOOK_MARKED, "tc", struct __sk_buff, lb_marked_parts, transmit_tc)
/* The programs for packets of masqueraded connections. */
TRANSMIT_PARTS(lb_xdp_masqueraded, HOOK_XDP, "xdp", struct xdp_md, lb_xdp_parts, masqueraded_handle)
TRANSMIT_PARTS(lb_ingress_masqueraded, HOOK_INGRESS, "tc", struct __sk_buff, lb_ingress_parts,
	       masqueraded_handle)
TRANSMIT_PARTS(lb_egress_masqueraded, HOOK_EGRESS, "tc", struct __sk_buff, lb_egress_parts,
	       masqueraded_handle)
TRANSMIT_PARTS(lb_marked_masqueraded, HOOK_MARKED, "tc", struct __sk_buff, lb_marked_parts,
	       masqueraded_handle)
TC_PART(lb_ingress_decap4, HOOK_INGRESS, LB_AF_INET, lb_ingress_parts, decap(ctx, LB_AF_INET))
TC_PART(lb_ingress_decap6, HOOK_INGRESS, LB_AF_INET6, lb_ingress_parts, decap(ctx, LB_AF_INET6))
TC_PART(lb_tunnel_error, HOOK_INGRESS, LB_AF_INET, lb_ingress_parts, tunnel_error(ctx))

/* The part that goes on with a packet whose connection was opened, or whose server was picked. */
static __always_inline __u32 part_of_scheduled(const struct new_conn *n)
{
	bool four = n->af == LB_AF_INET;

	if (n->icmp)
		return four ? PART_ICMP4 : PART_ICMP6;
	if (n->once)
		return n->odd ? (four ? PART_ODD_OPEN4 : PART_ODD_OPEN6)
			      : (four ? PART_OPEN4 : PART_OPEN6);
	if (n->odd)
		return four ? PART_ODD_READ4 : PART_ODD_READ6;
	return four ? PART_IPV4 : PART_IPV6;
}

SEC("xdp")
int lb_xdp_schedule(struct xdp_md *ctx)
{
	struct new_conn *n = new_conn_get(NEW_CONN);
	int act;

	if (!n)
		return XDP_PASS;
	act = schedule(ctx, true, n);
	if (act != PACKET_NEXT)
		return act;
	bpf_tail_call(ctx, &lb_xdp_parts, part_of_scheduled(n));
	return XDP_PASS;
}

SEC("tc")
int lb_schedule(struct __sk_buff *skb)
{
	struct new_conn *n = new_conn_get(NEW_CONN);
	int act;

	if (!n)
		return act_pass(HOOK_INGRESS);
	act = schedule(skb, false, n);
	if (act != PACKET_NEXT)
		return act;
	if (n->hook == HOOK_MARKED)
		bpf_tail_call(skb, &lb_marked_parts, part_of_scheduled(n));
	else if (n->hook == HOOK_EGRESS)
		bpf_tail_call(skb, &lb_egress_parts, part_of_scheduled(n));
	else
		bpf_tail_call(skb, &lb_ingress_parts, part_of_scheduled(n));
	return act_pass(HOOK_INGRESS);
}

SEC("xdp")
int lb_xdp(struct xdp_md *ctx)
{
	enum lb_af af = frame_family(ctx, HOOK_XDP);

	if (!af || unlikely(!frame_is_own(ctx)))
		return XDP_PASS;
	if (af == LB_AF_INET)
		bpf_tail_call(ctx, &lb_xdp_parts, PART_IPV4);
	else
		bpf_tail_call(ctx, &lb_xdp_parts, PART_IPV6);
	return XDP_PASS;
}

/* Only what is addressed to this host: in promiscuous mode an interface shows others' packets too, as do ports of a bridge. What has a VLAN tag is
 * for the hooks of the VLAN's own interface; what begins its way anew (marked.h) is for the stack. */
SEC("tc")
int lb_tc_ingress(struct __sk_buff *skb)
{
	enum lb_af af = frame_family(skb, HOOK_INGRESS);

	if (unlikely(skb->pkt_type != PACKET_HOST)) {
		bool marked = marked_frame(skb);

		if (marked)
			bpf_skb_change_type(skb, PACKET_HOST);
		if (marked || !frame_is_bridges(skb))
			return act_pass(HOOK_INGRESS);
	}
	if (!af || skb->vlan_present)
		return act_pass(HOOK_INGRESS);
	if (af == LB_AF_INET)
		bpf_tail_call(skb, &lb_ingress_parts, PART_IPV4);
	else
		bpf_tail_call(skb, &lb_ingress_parts, PART_IPV6);
	return act_pass(HOOK_INGRESS);
}

SEC("tc")
int lb_tc_egress(struct __sk_buff *skb)
{
	enum lb_af af = frame_family(skb, HOOK_EGRESS);

	if (!af || skb->vlan_present)
		return act_pass(HOOK_EGRESS);
	if (af == LB_AF_INET)
		bpf_tail_call(skb, &lb_egress_parts, PART_IPV4);
	else
		bpf_tail_call(skb, &lb_egress_parts, PART_IPV6);
	return act_pass(HOOK_EGRESS);
}

/* Marked packets, on their way out of the interface that takes them. What this host sends itself came in nowhere, and is the
 * stack's. */
SEC("tc")
int lb_tc_marked(struct __sk_buff *skb)
{
	enum lb_af af = frame_family(skb, HOOK_MARKED);

	if (!af || skb->vlan_present || !skb->ingress_ifindex || !marked_renew(skb, af))
		return act_pass(HOOK_MARKED);
	if (af == LB_AF_INET)
		bpf_tail_call(skb, &lb_marked_parts, PART_IPV4);
	else
		bpf_tail_call(skb, &lb_marked_parts, PART_IPV6);
	return act_pass(HOOK_MARKED);
}
