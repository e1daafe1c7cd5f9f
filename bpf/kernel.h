/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What bpvs reads of the kernel itself: has netfilter hooks in this namespace, and have the routes changed. Both through
 * BTF and relocated at load; on kernels without bpf_cast_to_kern_ctx (before 6.2) the answers are the careful ones.
 */
#pragma once
#include "packet.h"

enum { FIRST_USER_PORT = 1024 }; /* the default */

typedef struct {
	int counter;
} lb_atomic;

struct nf_hook_entries;
struct netns_nf {
	struct nf_hook_entries *hooks_ipv4[5];
	struct nf_hook_entries *hooks_ipv6[5];
} __attribute__((preserve_access_index));
struct netns_ipv4 {
	lb_atomic rt_genid;
	int sysctl_ip_prot_sock;
} __attribute__((preserve_access_index));
struct rt6_statistics {
	__u32 fib_discarded_routes;
} __attribute__((preserve_access_index));
struct netns_ipv6 {
	lb_atomic fib6_sernum;
	struct rt6_statistics *rt6_stats;
} __attribute__((preserve_access_index));
struct net {
	struct netns_nf nf;
	struct netns_ipv4 ipv4;
	struct netns_ipv6 ipv6;
} __attribute__((preserve_access_index));
typedef struct {
	struct net *net;
} possible_net_t;
struct list_head {
	struct list_head *next;
} __attribute__((preserve_access_index));
struct net_device {
	possible_net_t nd_net;
	const unsigned char *dev_addr;
	struct {
		struct list_head upper;
	} adj_list;
} __attribute__((preserve_access_index));
struct netdev_adjacent {
	struct net_device *dev;
	bool master;
	struct list_head list;
} __attribute__((preserve_access_index));
struct sk_buff {
	struct net_device *dev;
	__u8 ip_summed; /* two bits, wherever the kernel has them */
} __attribute__((preserve_access_index));
/* (Eight bytes, wherever they are: a MAC address is at the start of 32.) */
struct timespec64 {
	__s64 tv_sec;
} __attribute__((preserve_access_index));
struct xdp_rxq_info {
	struct net_device *dev;
} __attribute__((preserve_access_index));
struct xdp_buff {
	struct xdp_rxq_info *rxq;
} __attribute__((preserve_access_index));

extern void *bpf_cast_to_kern_ctx(void *ctx) __ksym __weak;
extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym __weak;

/* This table's namespace, noted by the first packet: reading through it then costs one load. */
__u64 lb_netns;

static __always_inline bool kernel_readable(void)
{
	return bpf_cast_to_kern_ctx && bpf_rdonly_cast;
}

static __always_inline void netns_note(void *ctx, enum lb_hook hook)
{
	if (hook == HOOK_XDP) {
		struct xdp_buff *xdp = bpf_cast_to_kern_ctx(ctx);

		lb_netns = (__u64)xdp->rxq->dev->nd_net.net;
	} else {
		struct sk_buff *skb = bpf_cast_to_kern_ctx(ctx);

		lb_netns = (__u64)skb->dev->nd_net.net;
	}
}

static __always_inline struct net *netns_get(void *ctx, enum lb_hook hook)
{
	if (unlikely(!lb_netns))
		netns_note(ctx, hook);
	return bpf_rdonly_cast((void *)lb_netns, bpf_core_type_id_kernel(struct net));
}

/* The first port that needs no privilege (net.ipv4.ip_unprivileged_port_start), as inet_port_requires_bind_service() sees it. */
static __always_inline __u32 first_user_port(void)
{
	struct net *net;

	if (!kernel_readable() || !lb_netns)
		return FIRST_USER_PORT;
	net = bpf_rdonly_cast((void *)lb_netns, bpf_core_type_id_kernel(struct net));
	return net->ipv4.sysctl_ip_prot_sock;
}

/* Changes whenever a route, an address or a device that routes depend on does (rt_genid; fib6_sernum, which counts what
 * is added, and what was removed); where they can't be read it changes with every tick, so that nothing cached under it
 * lives longer. */
static __always_inline __u32 route_token_read(void *ctx, enum lb_hook hook, __u32 af)
{
	struct net *net = netns_get(ctx, hook);

	if (af == LB_AF_INET)
		return net->ipv4.rt_genid.counter;
	return net->ipv6.fib6_sernum.counter + net->ipv6.rt6_stats->fib_discarded_routes;
}

/* (Not static: the verifier takes long over each access to what is the kernel's, and looks here once.) */
__noinline __u32 route_token_xdp(struct xdp_md *ctx, __u32 af)
{
	return kernel_readable() ? route_token_read(ctx, HOOK_XDP, af) : clock_tick();
}

__noinline __u32 route_token_tc(struct __sk_buff *skb, __u32 af)
{
	return kernel_readable() ? route_token_read(skb, HOOK_INGRESS, af) : clock_tick();
}

static __always_inline __u32 route_token(void *ctx, enum lb_hook hook, enum lb_af af)
{
	return hook == HOOK_XDP ? route_token_xdp(ctx, af) : route_token_tc(ctx, af);
}

/* Is a frame that begins with these eight bytes addressed to the device? */
static __always_inline bool device_is_at(const struct net_device *dev, __u64 frame)
{
	struct timespec64 *own = bpf_rdonly_cast(dev->dev_addr,
						 bpf_core_type_id_kernel(struct timespec64));

	return !((own->tv_sec ^ frame) & bpf_cpu_to_be64(0xffffffffffff0000));
}

/* Is the frame addressed to its interface? In promiscuous mode one shows others' too, which tcx tells by `pkt_type`. Where that
 * can't be read all are taken for its own. */
static __always_inline bool frame_is_own(struct xdp_md *ctx)
{
	__u16 *to = packet_data(ctx, HOOK_XDP);
	struct xdp_buff *xdp;

	if (!kernel_readable() || (void *)(to + 4) > packet_end(ctx, HOOK_XDP))
		return true;
	xdp = bpf_cast_to_kern_ctx(ctx);
	return device_is_at(xdp->rxq->dev, *(__u64 *)to);
}

/*
 * Is the frame addressed to the bridge that its interface is a port of? Then it is this host's, though the kernel calls it so
 * only once the bridge has it. That is too late where netfilter sees what comes in by bridges (br_netfilter): it would see
 * packets that are not translated yet, and not look again. A master is the first of the devices above a port. (Not static:
 * as above.)
 */
__noinline int frame_is_bridges(struct __sk_buff *skb)
{
	__u16 *to = packet_data(skb, HOOK_INGRESS);
	struct netdev_adjacent *above;
	struct net_device *dev;
	struct sk_buff *kernel;

	if (!kernel_readable() || (void *)(to + 4) > packet_end(skb, HOOK_INGRESS))
		return false;
	kernel = bpf_cast_to_kern_ctx(skb);
	dev = kernel->dev;
	if (dev->adj_list.upper.next == &dev->adj_list.upper)
		return false;
	above = bpf_rdonly_cast((void *)dev->adj_list.upper.next -
					bpf_core_field_offset(struct netdev_adjacent, list),
				bpf_core_type_id_kernel(struct netdev_adjacent));
	return above->master && device_is_at(above->dev, *(__u64 *)to);
}

/* Will the device fill in the transport checksum? Where that can't be read, what looks so is taken for it. */
static __always_inline bool checksum_is_partial(struct __sk_buff *skb)
{
	struct sk_buff *kernel;

	if (!kernel_readable())
		return true;
	kernel = bpf_cast_to_kern_ctx(skb);
	return BPF_CORE_READ_BITFIELD(kernel, ip_summed) == 3 /* CHECKSUM_PARTIAL */;
}

/* Would a forwarded packet meet a netfilter hook? Hooks of prerouting (0), forward (2) and postrouting (4) count. */
static __always_inline bool netfilter_hooked(void *ctx, enum lb_hook hook, enum lb_af af)
{
	struct net *net;

	if (!kernel_readable())
		return true;
	net = netns_get(ctx, hook);
	if (af == LB_AF_INET)
		return net->nf.hooks_ipv4[0] || net->nf.hooks_ipv4[2] || net->nf.hooks_ipv4[4];
	return net->nf.hooks_ipv6[0] || net->nf.hooks_ipv6[2] || net->nf.hooks_ipv6[4];
}
