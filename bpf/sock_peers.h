/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The records of a socket that sends datagrams: to which server for which service, and whose answer is whose. */
#pragma once
#include "sock_conn.h"

static __always_inline struct sock_peer *sock_peer_at(struct sock_peers *all, int i)
{
	return i >= 0 && i < SOCK_PEERS ? &all->peer[i] : NULL;
}

/* Is what comes from there an answer of the record's server? */
static __always_inline bool sock_peer_answers(const struct sock_peer *peer,
					      const struct sock_end *from)
{
	return peer->conn && peer->sport == from->port && peer->af == from->af &&
	       addr_equal(&peer->saddr, &from->addr, LB_AF_INET6);
}

/* The record of a service; -1: there is none. (This and the next are global: verified once.) */
__noinline int sock_peer_find(struct sock_peers *all, struct sock_end *to)
{
	if (!all || !to)
		return -1;
	for (int i = 0; i < SOCK_PEERS; i++) {
		struct sock_peer *peer = &all->peer[i];

		if (peer->conn && peer->vport == to->port && peer->af == to->af &&
		    addr_equal(&peer->vaddr, &to->addr, LB_AF_INET6))
			return i;
	}
	return -1;
}

/* The record of a server; of two services with the same server, the one sent to last. */
__noinline int sock_peer_answering(struct sock_peers *all, struct sock_end *from)
{
	__u32 newest = ~0U;
	int found = -1;

	if (!all || !from)
		return -1;
	for (int i = 0; i < SOCK_PEERS; i++) {
		struct sock_peer *peer = &all->peer[i];
		__u32 age = (__u32)all->sends - peer->order;

		if (!sock_peer_answers(peer, from) || age > newest)
			continue;
		found = i;
		newest = age;
	}
	return found;
}

/* A free record: where there is none, that of the service longest not sent to. */
__noinline int sock_peer_free(struct sock_peers *all)
{
	__u32 oldest = 0;
	int found = 0;

	if (!all)
		return -1;
	for (int i = 0; i < SOCK_PEERS; i++) {
		struct sock_peer *peer = &all->peer[i];
		__u32 age = (__u32)all->sends - peer->order;

		if (!peer->conn)
			return i;
		if (age > oldest) {
			oldest = age;
			found = i;
		}
	}
	sock_leave(&all->peer[found & (SOCK_PEERS - 1)]);
	return found;
}

/* May the socket go on to the server that it sent to last? */
static __always_inline bool sock_peer_usable(const struct sock_peer *peer, __u32 now)
{
	struct lb_server *srv = server_at(peer->server);

	return srv && srv->flags & LB_SERVER_AVAILABLE && srv->weight &&
	       now - peer->used < state_timeout_ticks(LB_UDP_NORMAL);
}

/* Notes that a datagram goes there. */
static __always_inline void sock_peer_send(struct sock_peers *all, struct sock_peer *peer, __u32 now)
{
	peer->used = now;
	peer->order = ++all->sends;
}
