// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The programs: entry points, one for each hook, and (run.h) what user space runs by BPF_PROG_RUN. */
#include "programs_tc.h"
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

BALANCE_PARTS(lb_xdp, HOOK_XDP, "xdp", struct xdp_md, lb_xdp_parts)
OPENING_PARTS(lb_xdp_open, HOOK_XDP, "xdp", struct xdp_md, lb_xdp_parts)
BALANCE_PARTS(lb_marked, HOOK_MARKED, "tc", struct __sk_buff, lb_marked_parts)
OPENING_PARTS(lb_marked_open, HOOK_MARKED, "tc", struct __sk_buff, lb_marked_parts)
TRANSMIT_PARTS(lb_xdp_transmit, HOOK_XDP, "xdp", struct xdp_md, lb_xdp_parts, transmit_xdp)
TRANSMIT_PARTS(lb_marked_transmit, HOOK_MARKED, "tc", struct __sk_buff, lb_marked_parts, transmit_tc)
TRANSMIT_PARTS(lb_xdp_masqueraded, HOOK_XDP, "xdp", struct xdp_md, lb_xdp_parts, masqueraded_handle)
TRANSMIT_PARTS(lb_marked_masqueraded, HOOK_MARKED, "tc", struct __sk_buff, lb_marked_parts,
	       masqueraded_handle)

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
	return schedule_tc(skb, &lb_marked_parts);
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
	return enter_tc(skb, &lb_ingress_parts, af);
}

SEC("tc")
int lb_tc_egress(struct __sk_buff *skb)
{
	enum lb_af af = frame_family(skb, HOOK_EGRESS);

	if (!af || skb->vlan_present)
		return act_pass(HOOK_EGRESS);
	return enter_tc(skb, &lb_egress_parts, af);
}

/* Marked packets, on their way out of the interface that takes them. What this host sends itself came in nowhere, and is the
 * stack's. */
SEC("tc")
int lb_tc_marked(struct __sk_buff *skb)
{
	enum lb_af af = frame_family(skb, HOOK_MARKED);

	if (!af || skb->vlan_present || !skb->ingress_ifindex || !marked_renew(skb, af))
		return act_pass(HOOK_MARKED);
	return enter_tc(skb, &lb_marked_parts, af);
}
