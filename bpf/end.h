/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Ending one connection, or template, because somebody asks for it. User space runs lb_end on a packet that says which: the index of
 * its entry, and the entry as it was read. Only what of that stays for life is compared, under the lock of the client's line, so
 * what ends is what was read, or nothing.
 */
#pragma once
#include "conn_edit.h"

struct end_wish {
	__u32 index;
	__u32 how; /* enum lb_end_how */
	struct lb_conn as_read;
};

enum { END_WISH_OFF = 16 }; /* in the packet: behind a link header, aligned */

static __always_inline bool conn_as_read(const struct lb_conn *c, const struct lb_conn *read)
{
	return c->af && c->af == read->af && c->proto == read->proto && c->cport == read->cport &&
	       c->vport == read->vport && c->dport == read->dport && c->server == read->server &&
	       addr_equal(&c->caddr, &read->caddr, LB_AF_INET6) &&
	       addr_equal(&c->vaddr, &read->vaddr, LB_AF_INET6);
}

/* Ends the connection of an entry whose line is locked. A template that has connections leads nobody to its server any more, as
 * one whose server was removed. A socket's is only marked: it ends with the socket. */
static __always_inline enum lb_ended conn_end_wished(struct lb_conn *c, const struct end_wish *wish)
{
	if (wish->how == LB_END_UNDO) {
		if (!(c->flags & LB_CONN_SOCKET))
			return LB_ENDED_NOT;
		conn_unmark(c, LB_CONN_VOID);
		return LB_ENDED_SOCKET;
	}
	if (conn_release(wish->index))
		return LB_ENDED;
	conn_mark(c, LB_CONN_VOID);
	return c->flags & LB_CONN_SOCKET ? LB_ENDED_SOCKET : LB_ENDED;
}

/* What became of the wish in the packet: enum lb_ended. */
static __always_inline int end_wished(struct __sk_buff *skb)
{
	enum lb_ended ended = LB_ENDED_NOT;
	struct lb_conn_line *home;
	struct end_wish wish;
	struct lb_conn *c;
	__u64 client;

	if (bpf_skb_load_bytes(skb, END_WISH_OFF, &wish, sizeof(wish)))
		return ended;
	c = conn_at(wish.index);
	client = hash_endpoint(lb_hash_key, &wish.as_read.caddr, wish.as_read.cport,
			       wish.as_read.proto, wish.as_read.af);
	home = conn_line_at(hash_spot(client, lb_conn_line_mask).first);
	if (!c || !home)
		return ended;
	if (!lock_take(&home->lock))
		return LB_ENDED_BUSY;
	if (conn_as_read(c, &wish.as_read))
		ended = conn_end_wished(c, &wish);
	lock_leave(&home->lock);
	return ended;
}
