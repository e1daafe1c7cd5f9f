/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The address that this host has towards a server. To have the kernel choose it costs more than all the rest of a new
 * connection (over IPv6 twice that), so each CPU remembers what it chose: under the state of the routes that it was found
 * under, as next hops are (hop.h), and for as long.
 */
#pragma once
#include "hop.h"

enum { KNOWN_SOURCES_ORDER = 8 };

struct known_source {
	union lb_addr server, source;
	__u32 token; /* route_token() then */
	__u32 asked; /* tick */
	__u32 af;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1 << KNOWN_SOURCES_ORDER);
	__type(key, __u32);
	__type(value, struct known_source);
} lb_known_sources SEC(".maps");

/* The address of an interface, where the fib does not tell which one goes with a route (before Linux 6.7): as the kernel's
 * masquerade, which asks for no more. Of one without an address that of the host. */
static __noinline int link_source(union lb_addr *source, __u32 ifindex, __u32 af)
{
	struct lb_link_source *s;

	for (int i = 0; i < 2; i++) {
		s = bpf_map_lookup_elem(&lb_link_sources, &ifindex);
		if (s)
			*source = af == LB_AF_INET6 ? s->ipv6 : s->ipv4;
		if (source->d[0] || source->d[1])
			return 1;
		ifindex = 0;
	}
	return 0;
}

/* Asks the kernel. False: the server is the host itself, which answers by way of the host anyway. */
static __noinline bool source_ask(void *ctx, __u32 ifindex, const struct lb_server *srv,
				  union lb_addr *source)
{
	struct bpf_fib_lookup f = {};
	long ret;

	f.family = srv->af == LB_AF_INET6 ? AF_INET6_ : AF_INET_;
	f.tot_len = 1;
	__builtin_memcpy(f.ipv6_dst, &srv->addr, 16);
	ret = fib_output(ctx, &f, ifindex);
	source_fill(&f, &srv->addr);
	*source = (union lb_addr){};
	if (ret != BPF_FIB_LKUP_RET_SUCCESS && ret != BPF_FIB_LKUP_RET_NO_NEIGH)
		return false;
	if (srv->af == LB_AF_INET6)
		__builtin_memcpy(source, f.ipv6_src, 16);
	else
		source->w[0] = f.ipv4_src;
	if (unlikely(!source->d[0] && !source->d[1]))
		link_source(source, f.ifindex, srv->af);
	return true;
}

/* The address that this host has towards a server, into a map; zeros: it has none. False: as source_ask(). */
static __always_inline bool source_towards(void *ctx, enum lb_hook hook,
					   const struct lb_server *srv, union lb_addr *source)
{
	enum lb_af af = srv->af == LB_AF_INET6 ? LB_AF_INET6 : LB_AF_INET;
	__u32 slot = ((srv->addr.w[0] ^ srv->addr.w[1] ^ srv->addr.w[2] ^ srv->addr.w[3]) *
		      0x9e3779b1) >>
		     24;
	struct known_source *known = bpf_map_lookup_elem(&lb_known_sources, &slot);
	__u32 token = route_token(ctx, hook, af), now = clock_tick();

	if (likely(known && known->af == srv->af && known->token == token &&
		   now - known->asked <= HOP_FRESH &&
		   addr_equal(&known->server, &srv->addr, LB_AF_INET6))) {
		*source = known->source;
		return true;
	}
	if (!source_ask(ctx, packet_ifindex(ctx, hook), srv, source))
		return false;
	if (known) {
		known->server = srv->addr;
		known->source = *source;
		known->af = srv->af;
		known->token = token;
		known->asked = now;
	}
	return true;
}
