/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Next hops: where a packet leaves the host, with which MAC addresses. A look-up in the kernel's fib costs more than all
 * the rest of an established packet, so what it said is kept in a shared record; connections (for replies) and servers
 * (for requests) remember the record, its generation, and the state of the routes (route_token()) it was found under.
 * Any change of routes thus invalidates at once. Fib and neighbour are asked again once a tick for each record in use, and
 * once a second one packet goes by the kernel's own neighbour code, which so notices a neighbour that went silent.
 */
#pragma once
#include "kernel.h"
#include "tables.h"

enum {
	NEXT_HOPS = 1024,
	HOP_FRESH = 1,    /* ticks */
	HOP_KICK = 16,    /* ticks */
	HOP_KICK_TC = 12, /* the same on tcx, which sends what XDP leaves to it for that */
	KIND_IPV6 = 0x100,
	KIND_OUTPUT = 0x200, /* as the host routes what it sends itself */
	LOOPBACK_IFINDEX_ = 1,
	FIB_LOOKUP_SRC = 1 << 4, /* since 6.7 */
	EINVAL_ = 22,
	AF_INET_ = 2,
	AF_INET6_ = 10,
};

/* A next hop as read from its record: a copy, as the record may be taken over at any time. */
struct hop {
	__u32 ifindex; /* 0: none, the packet is the stack's */
	__u32 mac[3];  /* destination and source, as in the frame */
	__u16 mtu;
	bool kick; /* let the kernel's neighbour code send this one */
	bool peer; /* LB_LINK_PEER */
};

_Static_assert(offsetof(struct lb_next_hop, dmac) % 4 == 0, "MAC addresses are copied by words");
_Static_assert(offsetof(struct lb_next_hop, smac) == offsetof(struct lb_next_hop, dmac) + 6,
	       "and together");

static __always_inline struct lb_next_hop *hop_at(__u32 i)
{
	return bpf_map_lookup_elem(&lb_next_hops, &i);
}

/* What differs between two sequences of `n` halfwords; 0: nothing. (Without a branch: the verifier follows each.) */
static __always_inline __u32 halfwords_differ(const void *a, const void *b, __u32 n)
{
	__u32 d = 0;

	for (__u32 i = 0; i < n; i++)
		d |= ((__u16 *)a)[i] ^ ((__u16 *)b)[i];
	return d;
}

static __always_inline bool hop_same(const struct lb_next_hop *h, const struct bpf_fib_lookup *f)
{
	return h->generation &&
	       !((h->ifindex ^ f->ifindex) | (h->mtu ^ f->mtu_result) |
		 halfwords_differ(h->dmac, f->dmac, 3) | halfwords_differ(h->smac, f->smac, 3) |
		 halfwords_differ(&h->src, f->ipv6_src, 8));
}

/* Is it an interface whose packets have no Ethernet header, as far as user space told? */
static __always_inline bool link_is_bare(__u32 ifindex)
{
	struct lb_link *link = bpf_map_lookup_elem(&lb_links, &ifindex);

	return link && link->flags & LB_LINK_BARE;
}

static __always_inline __u16 link_flags(const struct bpf_fib_lookup *f)
{
	__u32 ifindex = f->ifindex;
	struct lb_link *link = bpf_map_lookup_elem(&lb_links, &ifindex);

	return link && !halfwords_differ(link->mac, f->smac, 3) ? link->flags : 0;
}

/* Makes a record say what the fib said; false: somebody else is at it. */
static __always_inline bool hop_write(struct lb_next_hop *h, const struct bpf_fib_lookup *f,
				      __u32 now)
{
	__u32 generation = (h->generation + 1) & 0xffff;

	if (__sync_val_compare_and_swap(&h->lock, 0, 1))
		return false;
	__sync_lock_test_and_set(&h->generation, 0);
	h->ifindex = f->ifindex;
	__builtin_memcpy(h->dmac, f->dmac, 6);
	__builtin_memcpy(h->smac, f->smac, 6);
	h->mtu = f->mtu_result;
	h->flags = link_flags(f);
	__builtin_memcpy(&h->src, f->ipv6_src, 16);
	h->kicked = now;
	__sync_lock_test_and_set(&h->generation, generation ? generation : 1);
	__sync_lock_test_and_set(&h->lock, 0);
	return true;
}

/* Finds or makes the shared record of what the fib said: index << 16 | generation, or 0. (Not static: the verifier looks at
 * it once.) */
__noinline __u32 hop_intern(const struct bpf_fib_lookup *f, __u32 now)
{
	struct lb_next_hop *h;
	__u32 mac, i;

	/* Without link addresses it is an interface whose packets have no Ethernet header: the stack knows its ways. */
	if (!f || !(f->dmac[0] | f->dmac[1] | f->dmac[2] | f->dmac[3] | f->dmac[4] | f->dmac[5]))
		return 0;
	mac = f->dmac[5] | f->dmac[4] << 8 | f->dmac[3] << 16;
	i = (f->ifindex * 0x85ebca6b + mac * 0x9e3779b1 + f->mtu_result * 0xc2b2ae35 +
	     (f->ipv6_src[0] ^ f->ipv6_src[3]) * 0x27d4eb2f) >>
		    16 &
	    (NEXT_HOPS - 1);
	h = hop_at(i);
	if (!h || (!hop_same(h, f) && !hop_write(h, f, now)))
		return 0;
	h->checked = now;
	return i << 16 | (h->generation & 0xffff);
}

/* What the host sends from to `to`, where the fib did not say it (before Linux 6.7): user space did. (Not static: the verifier
 * looks at it once.) */
__noinline int source_fill(struct bpf_fib_lookup *f, const union lb_addr *to)
{
	struct lb_tunnel_source *source;
	union lb_addr key = {};

	if (!f || !to || f->ipv6_src[0] || f->ipv6_src[1] || f->ipv6_src[2] || f->ipv6_src[3])
		return 0;
	if (f->family == AF_INET6_) {
		key = *to;
	} else {
		key.w[2] = bpf_htonl(0xffff);
		key.w[3] = to->w[0];
	}
	source = bpf_map_lookup_elem(&lb_sources, &key);
	if (source)
		__builtin_memcpy(f->ipv6_src, &source->addr, 16);
	return 0;
}

/* The way of what the host sends itself, as ip_route_output() finds it: rules see the loopback interface, no source. That
 * asks for forwarding to be on for lo, which whoever attaches the programs saw to; else the interface that the packet came
 * by must do. The answer has the source address, where the kernel tells it. */
static __always_inline long fib_output(void *ctx, struct bpf_fib_lookup *f, __u32 came_by)
{
	long ret;

	f->ifindex = LOOPBACK_IFINDEX_;
	ret = bpf_fib_lookup(ctx, f, sizeof(*f), FIB_LOOKUP_SRC);
	if (ret == -EINVAL_)
		ret = bpf_fib_lookup(ctx, f, sizeof(*f), 0);
	if (ret != BPF_FIB_LKUP_RET_FWD_DISABLED)
		return ret;
	f->ifindex = came_by;
	ret = bpf_fib_lookup(ctx, f, sizeof(*f), FIB_LOOKUP_SRC);
	return ret == -EINVAL_ ? bpf_fib_lookup(ctx, f, sizeof(*f), 0) : ret;
}

/* Asks the fib for the way from one address to another (KIND_OUTPUT: from the host itself; `from` is not looked at); 0: the
 * packet does not leave the host, or only the stack can send it. `kind` is the protocol, with KIND_IPV6 for that family. */
static __noinline __u32 hop_ask(void *ctx, const union lb_addr *from, const union lb_addr *to,
				__u32 ifindex, __u32 kind)
{
	struct bpf_fib_lookup f = {};
	long ret;

	f.family = kind & KIND_IPV6 ? AF_INET6_ : AF_INET_;
	f.l4_protocol = kind;
	f.ifindex = ifindex;
	f.tot_len = 1; /* else tcx is told the MTU of the device, not that of the route */
	__builtin_memcpy(f.ipv6_dst, to, 16);
	if (kind & KIND_OUTPUT) {
		ret = fib_output(ctx, &f, ifindex);
		source_fill(&f, to);
	} else {
		__builtin_memcpy(f.ipv6_src, from, 16);
		ret = bpf_fib_lookup(ctx, &f, sizeof(f), 0);
		__builtin_memset(f.ipv6_src, 0, 16);
	}
	return ret == BPF_FIB_LKUP_RET_SUCCESS ? hop_intern(&f, clock_tick()) : 0;
}

/* Copies the record that `ref` names. False: it has other content by now, or was not looked at lately. */
static __always_inline bool hop_read(__u32 ref, __u32 now, enum lb_hook hook, struct hop *hop)
{
	struct lb_next_hop *h = hop_at(ref >> 16);

	if (!h || READ_ONCE(h->generation) != (ref & 0xffff) || now - h->checked > HOP_FRESH)
		return false;
	hop->ifindex = h->ifindex;
	for (int i = 0; i < 3; i++)
		hop->mac[i] = ((__u32 *)h->dmac)[i];
	hop->mtu = h->mtu;
	hop->peer = h->flags & LB_LINK_PEER;
	hop->kick = now - h->kicked >= (hook == HOOK_XDP ? HOP_KICK : HOP_KICK_TC);
	return READ_ONCE(h->generation) == (ref & 0xffff);
}

/* The next hop to `to` (both addresses in maps, not on the stack), from the cache in (*ref, *ref_token) if that holds.
 * False: leave the packet to the stack. */
static __always_inline bool hop_find(const struct packet *p, enum lb_hook hook, enum lb_af af,
				     const union lb_addr *from, const union lb_addr *to, __u32 *ref,
				     __u32 *ref_token, struct hop *hop)
{
	__u32 token, kind = p->t.proto, found = *ref;

	if (LB_BARE)
		return false; /* what has no Ethernet header goes through the stack */
	token = route_token(p->ctx, hook, af);
	if (likely(found && *ref_token == token && hop_read(found, p->now, hook, hop)))
		return true;
	if (af == LB_AF_INET6)
		kind |= KIND_IPV6;
	found = hop_ask(p->ctx, from, to, packet_ifindex(p->ctx, hook), kind);
	WRITE_ONCE(*ref, found); /* before the token: who reads in between asks again */
	WRITE_ONCE(*ref_token, token);
	return found && hop_read(found, p->now, hook, hop);
}

/* What this host sends from by the hop that `ref` names. False: that is not known. */
static __always_inline bool hop_source(__u32 ref, union lb_addr *src)
{
	struct lb_next_hop *h = hop_at(ref >> 16);

	if (!h)
		return false;
	*src = h->src;
	return (src->d[0] || src->d[1]) && READ_ONCE(h->generation) == (ref & 0xffff);
}

/* The next hop to a server from this host itself, in the server's family; as hop_find(). With `src`, also what the host
 * sends from: a record without it does not do. */
static __always_inline bool hop_find_out(void *ctx, __u32 now, enum lb_hook hook,
					 const struct lb_server *srv, struct lb_server_state *st,
					 struct hop *hop, union lb_addr *src)
{
	enum lb_af af = srv->af == LB_AF_INET6 ? LB_AF_INET6 : LB_AF_INET;
	__u32 token, kind = KIND_OUTPUT, found = st->hop;

	if (LB_BARE)
		return false;
	token = route_token(ctx, hook, af);
	if (likely(found && st->hop_token == token && hop_read(found, now, hook, hop) &&
		   (!src || hop_source(found, src))))
		return true;
	if (af == LB_AF_INET6)
		kind |= KIND_IPV6;
	found = hop_ask(ctx, &srv->addr, &srv->addr, packet_ifindex(ctx, hook), kind);
	WRITE_ONCE(st->hop, found); /* before the token: who reads in between asks again */
	WRITE_ONCE(st->hop_token, token);
	hop->ifindex = 0;
	if (!found || (src && !hop_source(found, src)))
		return false;
	return hop_read(found, now, hook, hop);
}

/* Notes that the kernel's neighbour code gets a packet for this hop now; from XDP: that tcx will see to it. */
static __always_inline void hop_kicked(__u32 ref, __u32 now, enum lb_hook hook)
{
	struct lb_next_hop *h = hop_at(ref >> 16);

	if (h)
		h->kicked = hook == HOOK_XDP ? now - HOP_KICK_TC : now;
}
