/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a socket calls, and who calls: the address that a program hands to connect(), sendmsg() and the like, as the tables know
 * addresses. An IPv6 socket may name an IPv4 address (::ffff:a.b.c.d): then the call is IPv4's.
 */
#pragma once
#include "tables.h"

/* Whose sockets are balanced. Set before the load. */
const volatile __u64 lb_sock_home = 0;       /* cookie of the table's network namespace */
const volatile __u32 lb_sock_everywhere = 0; /* sockets of other namespaces too */
const volatile __u32 lb_sock_tcp_only = 0;

enum { SOCK_DENY = 0, SOCK_ALLOW = 1, SOCK_LEVELS = 8, MAPPED = 0xffff };

struct sock_end {
	union lb_addr addr;
	__be16 port;
	__u8 proto;
	__u8 af; /* enum lb_af */
};

/* Groups whose sockets, and those of the groups in them, are left alone, by id: the inode of a group's directory. Writer: user
 * space. Full: E2BIG to it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, __u32);
} lb_sock_left SEC(".maps");

/* The kernel's own sockets (NFS, SMB, MPTCP's subflows) are told by a bit. */
struct sock {
	__u8 sk_kern_sock;
} __attribute__((preserve_access_index));
struct bpf_sock_addr_kern {
	struct sock *sk;
} __attribute__((preserve_access_index));

/* The address of a call at a hook of `family`. */
static __always_inline void sock_end_read(struct bpf_sock_addr *ctx, enum lb_af family,
					  struct sock_end *e)
{
	e->port = READ_ONCE(ctx->user_port);
	e->proto = READ_ONCE(ctx->protocol);
	e->af = family;
	e->addr = (union lb_addr){};
	if (family == LB_AF_INET) {
		e->addr.w[0] = READ_ONCE(ctx->user_ip4);
		return;
	}
	for (int i = 0; i < 4; i++)
		e->addr.w[i] = READ_ONCE(ctx->user_ip6[i]);
	if (!e->addr.d[0] && e->addr.w[2] == bpf_htonl(MAPPED)) {
		e->af = LB_AF_INET;
		e->addr = (union lb_addr){ .w = { e->addr.w[3] } };
	}
}

/* Puts another address there, of the family that the call is of. */
static __always_inline void sock_end_write(struct bpf_sock_addr *ctx, enum lb_af family,
					   const union lb_addr *addr, __be16 port, __u8 af)
{
	WRITE_ONCE(ctx->user_port, port);
	if (family == LB_AF_INET) {
		WRITE_ONCE(ctx->user_ip4, addr->w[0]);
	} else if (af == LB_AF_INET) { /* the rest of it says already that it is a mapped one */
		WRITE_ONCE(ctx->user_ip6[3], addr->w[0]);
	} else {
		for (int i = 0; i < 4; i++)
			WRITE_ONCE(ctx->user_ip6[i], addr->w[i]);
	}
}

/* Is the socket one that may be balanced at all? (Its group is looked at once it calls a service.) */
static __always_inline bool sock_eligible(struct bpf_sock_addr *ctx, __u8 proto)
{
	if (proto != IPPROTO_TCP && (proto != IPPROTO_UDP || lb_sock_tcp_only))
		return false;
	return lb_sock_everywhere || bpf_get_netns_cookie(ctx) == lb_sock_home;
}

/* The kernel's own clients are the packets' path's: what they do with an address is their business. */
static __always_inline bool sock_of_kernel(struct bpf_sock_addr *ctx)
{
	struct bpf_sock_addr_kern *kernel;
	struct sock *sk;

	if (!kernel_readable())
		return false;
	kernel = bpf_cast_to_kern_ctx(ctx);
	sk = kernel->sk;
	return BPF_CORE_READ_BITFIELD(sk, sk_kern_sock);
}

/* Is the caller in a group whose sockets are left alone? */
static __always_inline bool sock_left_alone(void)
{
	for (int level = 0; level < SOCK_LEVELS; level++) {
		__u64 id = bpf_get_current_ancestor_cgroup_id(level);

		if (!id)
			return false;
		if (bpf_map_lookup_elem(&lb_sock_left, &id))
			return true;
	}
	return false;
}

static __always_inline bool addr_is_loopback(const union lb_addr *addr, __u8 af)
{
	if (af == LB_AF_INET)
		return (addr->w[0] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return !addr->d[0] && addr->d[1] == bpf_cpu_to_be64(1);
}

/* The service that a call is for, 0: none that a socket may have: a datagram at a time is scheduled from packets only. Node ports
 * of the host are served at its loopback addresses too, to itself alone. */
static __always_inline __u32 sock_service(struct bpf_sock_addr *ctx, const struct sock_end *e)
{
	struct service_query q = {
		.addr = e->addr,
		.hash = hash_endpoint(lb_hash_key, &e->addr, e->port, e->proto, e->af),
		.mark = ctx->sk->mark,
		.port = e->port,
		.proto = e->proto,
		.af = e->af,
		.kinds = service_kinds(),
	};
	struct lb_service *svc;
	__u32 id;

	if (unlikely(addr_is_loopback(&e->addr, e->af)))
		id = bpf_get_netns_cookie(ctx) == lb_sock_home
			     ? node_port_service(e->port, e->proto, e->af)
			     : 0;
	else if (likely(!q.kinds && !filter_has(FILTER_SERVICE, q.hash)))
		return 0;
	else
		id = service_lookup(&q);
	svc = id ? service_at(id) : NULL;
	if (!svc || (e->proto == IPPROTO_UDP && svc->flags & LB_SERVICE_ONEPACKET))
		return 0;
	return sock_of_kernel(ctx) || sock_left_alone() ? 0 : id;
}
