/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Sockets that are connected to a server that was removed, which nothing would ever tell them, or whose connection somebody
 * wants to end. User space has the kernel go through the
 * sockets of a namespace (a BPF iterator, which has each locked), and they end, as if the server had reset the connection. A
 * socket that sends datagrams to whom it likes has its record freed, and goes on.
 */
#pragma once
#include "sock_iter.h"
#include "sock_peers.h"

struct udp_sock;
struct bpf_iter__udp {
	struct bpf_iter_meta *meta;
	struct udp_sock *udp_sk;
} __attribute__((preserve_access_index));

/* Since Linux 6.5. */
extern int bpf_sock_destroy(struct sock_common *sock) __ksym __weak;

/* Is the connection to end, as its server was removed, or as somebody wants it? */
static __always_inline bool sock_conn_lost(const struct lb_conn *c)
{
	return c->flags & LB_CONN_VOID || server_removed(c->server);
}

static __always_inline bool sock_peer_lost(const struct sock_peer *peer)
{
	struct lb_conn *c = peer->conn ? conn_at(peer->conn - 1) : NULL;

	return c && sock_conn_lost(c);
}

/* Is a connected socket's connection to end, and can the socket be ended? */
static __always_inline bool sock_stuck(const struct sock_peer *peer)
{
	return peer && bpf_sock_destroy && sock_peer_lost(peer);
}

/* Ends the socket; what the iterator's reader gets has a byte for each. */
static __always_inline void sock_destroy(struct bpf_iter_meta *meta, struct sock_common *sk,
					 struct sock_peer *peer)
{
	if (bpf_sock_destroy(sk))
		return;
	sock_leave(peer);
	bpf_seq_write(meta->seq, "x", 1);
}

/* Frees what a socket knows of connections that are to end. */
static __always_inline void sock_sent_forget(struct sock_peers *sent)
{
	for (int i = 0; i < SOCK_PEERS; i++)
		if (sock_peer_lost(&sent->peer[i]))
			sock_leave(&sent->peer[i]);
}

struct stuck_count {
	__u32 found;
};

static long sock_stuck_step(__u32 i, void *ctx)
{
	struct stuck_count *count = ctx;
	struct lb_conn *c = conn_at(i);

	if (c && c->af && c->flags & LB_CONN_SOCKET)
		count->found += sock_conn_lost(c);
	return 0;
}

/* How many connections of sockets are to end. */
static __always_inline __u32 sock_stuck_count(void)
{
	struct stuck_count count = {};

	bpf_loop(pool_high(), sock_stuck_step, &count, 0);
	return count.found;
}
