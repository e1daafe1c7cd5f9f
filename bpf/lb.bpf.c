// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The programs: entry points, one for each hook, and what user space runs by BPF_PROG_RUN. */
#include "balance.h"
#include "sweep.h"

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

SEC("xdp")
int lb_xdp(struct xdp_md *ctx)
{
	enum lb_af af = frame_family(ctx, HOOK_XDP);

	if (af == LB_AF_INET)
		return balance(ctx, HOOK_XDP, LB_AF_INET);
	if (af == LB_AF_INET6)
		return balance(ctx, HOOK_XDP, LB_AF_INET6);
	return XDP_PASS;
}

/* On tcx each family, and ICMP, is a function of its own: together they would not fit a program's stack. */
#define TC_PART(NAME, CALL)                                                                        \
	static __noinline int NAME(struct __sk_buff *skb)                                          \
	{                                                                                          \
		return CALL;                                                                       \
	}

TC_PART(ingress4, balance(skb, HOOK_INGRESS, LB_AF_INET))
TC_PART(ingress6, balance(skb, HOOK_INGRESS, LB_AF_INET6))
TC_PART(ingress_icmp4, icmp_handle(skb, false, LB_AF_INET))
TC_PART(ingress_icmp6, icmp_handle(skb, false, LB_AF_INET6))
TC_PART(egress4, balance(skb, HOOK_EGRESS, LB_AF_INET))
TC_PART(egress6, balance(skb, HOOK_EGRESS, LB_AF_INET6))
TC_PART(egress_icmp4, icmp_handle(skb, true, LB_AF_INET))
TC_PART(egress_icmp6, icmp_handle(skb, true, LB_AF_INET6))

/* Only what is addressed to this host: in promiscuous mode an interface shows others' packets too. What has a VLAN tag is
 * for the hooks of the VLAN's own interface. */
SEC("tc")
int lb_tc_ingress(struct __sk_buff *skb)
{
	enum lb_af af = frame_family(skb, HOOK_INGRESS);
	int act;

	if (!af || skb->vlan_present || skb->pkt_type != 0 /* PACKET_HOST */)
		return act_pass(HOOK_INGRESS);
	act = af == LB_AF_INET ? ingress4(skb) : ingress6(skb);
	if (unlikely(act == ICMP_NEXT))
		act = af == LB_AF_INET ? ingress_icmp4(skb) : ingress_icmp6(skb);
	return act == NOT_OURS ? act_pass(HOOK_INGRESS) : act;
}

SEC("tc")
int lb_tc_egress(struct __sk_buff *skb)
{
	enum lb_af af = frame_family(skb, HOOK_EGRESS);
	int act;

	if (!af || skb->vlan_present)
		return act_pass(HOOK_EGRESS);
	act = af == LB_AF_INET ? egress4(skb) : egress6(skb);
	if (unlikely(act == ICMP_NEXT))
		act = af == LB_AF_INET ? egress_icmp4(skb) : egress_icmp6(skb);
	return act == NOT_OURS ? act_pass(HOOK_EGRESS) : act;
}

/* Fills lb_clock, for user space, whose clock has no jiffies. */
SEC("tc")
int lb_read_clock(struct __sk_buff *skb __attribute__((unused)))
{
	__u32 zero = 0;
	struct lb_clock *c = bpf_map_lookup_elem(&lb_clock, &zero);

	if (c) {
		c->jiffies = bpf_jiffies64();
		c->ktime_ns = bpf_ktime_get_ns();
	}
	return 0;
}

/* Starts the timer that expires connections; its callback is this object's from then on. 0: it runs. */
SEC("tc")
int lb_start_sweeper(struct __sk_buff *skb __attribute__((unused)))
{
	return sweep_start() ? 1 : 0;
}

/* Ends all that has expired by now, so that a listing is exact. */
SEC("tc")
int lb_sweep(struct __sk_buff *skb __attribute__((unused)))
{
	sweep_slice(0, lb_conn_max);
	return 0;
}
