/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The connection table. As in ip_vs_conn.c a connection is found by its client's endpoint, in both directions: an index of
 * cache lines, each with seven references to entries of a pool. A new connection so touches one line of the index and one
 * fresh entry. The connections of one client endpoint to many services may not fit in its line; those are "spilled": found
 * by (client, service) and (server, client) instead, in lines of the same index.
 *
 * Who adds to or removes from a line holds its lock; look-ups take none. They compare the tag, then the whole key, read what
 * they need, and look at the reference again, so an entry that was taken over in between is not used.
 */
#pragma once
#include "scratch.h"
#include "template.h"

enum { STEP_TRIES = 4 };

static __always_inline struct lb_conn_line *conn_line_at(__u32 i)
{
	return bpf_map_lookup_elem(&lb_conn_index, &i);
}

/* A connection as found, with what must be read before the reference is looked at again. */
struct conn_ref {
	struct lb_conn *c; /* NULL: none */
	__u32 index;
	__u32 server;
	__be16 dport;
};

static __always_inline bool request_matches(const struct lb_conn *c, const struct packet *p,
					    enum lb_af af)
{
	return c->cport == p->t.sport && c->vport == p->t.dport && c->proto == p->t.proto &&
	       c->af == af && addr_equal(&c->caddr, &p->t.saddr, af) &&
	       addr_equal(&c->vaddr, &p->t.daddr, af);
}

/* Does the server answer under the virtual address, and mostly by another way? */
static __always_inline bool fwd_one_way(__u8 fwd)
{
	return fwd && fwd < LB_FWD_FULLNAT;
}

/* Is the connection masqueraded? */
static __always_inline bool fwd_both_ends(__u8 fwd)
{
	return fwd == LB_FWD_FULLNAT || fwd == LB_FWD_HOST;
}

/* Is `c` the connection whose server sends this packet to its client? As ip_vs_conn_out_get(). */
static __always_inline bool reply_matches(const struct lb_conn *c, const struct packet *p,
					  enum lb_af af)
{
	struct lb_server *srv;

	if (c->cport != p->t.dport || c->dport != p->t.sport || c->proto != p->t.proto ||
	    c->af != af || !addr_equal(&c->caddr, &p->t.daddr, af))
		return false;
	if (unlikely(fwd_one_way(c->fwd)))
		return addr_equal(&c->vaddr, &p->t.saddr, af);
	srv = server_at(c->server);
	return srv && addr_equal(&srv->addr, &p->t.saddr, af);
}

static __always_inline struct conn_ref line_find(struct lb_conn_line *line, __u32 tag,
						 const struct packet *p, enum lb_dir dir,
						 enum lb_af af)
{
	struct conn_ref r = {};

	for (int i = 0; i < LB_LINE_WAYS; i++) {
		__u64 slot = READ_ONCE(line->slot[i]);
		struct lb_conn *c;

		if (slot >> 32 != tag)
			continue;
		c = conn_at((__u32)slot - 1);
		if (!c || !(dir == DIR_IN ? request_matches(c, p, af) : reply_matches(c, p, af)) ||
		    tick_past(p->now, c->expires))
			continue;
		r.server = READ_ONCE(c->server);
		r.dport = READ_ONCE(c->dport);
		if (READ_ONCE(line->slot[i]) != slot)
			continue;
		r.index = (__u32)slot - 1;
		r.c = c;
		return r;
	}
	return r;
}

/* The connection of a packet, not expired: of a client's (DIR_IN) or a server's (DIR_OUT). */
static __always_inline struct conn_ref conn_find(const struct packet *p, enum lb_dir dir,
						 enum lb_af af)
{
	struct lb_spot spot = hash_spot(dir == DIR_IN ? p->src : p->dst, lb_conn_line_mask);
	struct lb_conn_line *line = conn_line_at(spot.first);
	struct conn_ref r = {};

	if (!line)
		return r;
	r = line_find(line, spot.tag, p, dir, af);
	if (likely(r.c) || likely(!READ_ONCE(line->spilled)))
		return r;
	spot = hash_spot(hash_pair(lb_hash_key, p->src, p->dst), lb_conn_line_mask);
	line = conn_line_at(spot.first);
	if (line)
		r = line_find(line, spot.tag, p, dir, af);
	if (r.c)
		return r;
	line = conn_line_at(spot.second);
	return line ? line_find(line, spot.tag, p, dir, af) : r;
}

/* Where a packet is noted that is not there: the stack has no room for it. */
LB_SCRATCH(lb_answers, struct packet, answer_get)

/* The connection whose server gets this packet: it is the one that an answer to it would be of. */
static __always_inline struct conn_ref conn_translated(const struct packet *p, enum lb_af af)
{
	struct packet *answer = answer_get();
	struct conn_ref none = {};

	if (!answer)
		return none;
	answer->t.saddr = p->t.daddr;
	answer->t.daddr = p->t.saddr;
	answer->t.sport = p->t.dport;
	answer->t.dport = p->t.sport;
	answer->t.proto = p->t.proto;
	answer->src = p->dst;
	answer->dst = p->src;
	answer->now = p->now;
	return conn_find(answer, DIR_OUT, af);
}

/* Keeps a connection alive for `state`'s time from now on. Written at most once a tick. */
static __always_inline void conn_touch(struct lb_conn *c, __u8 state, __u32 now)
{
	__u32 expires = now + state_timeout_ticks(state);

	if (c->expires != expires)
		c->expires = expires;
}

/* What a packet makes of a connection's state and flags. (Not static: the verifier looks at it once, not at each try.) */
__noinline __u32 conn_next(__u32 word, __u32 proto, __u32 event, __u32 dir)
{
	union conn_word w = { .word = word };

	if (dir > DIR_OUT)
		return word;
	if (w.flags & LB_CONN_NOOUTPUT) {
		if (dir == DIR_OUT)
			w.flags &= ~LB_CONN_NOOUTPUT;
		else
			dir = DIR_IN_ONLY;
	}
	w.flags &= ~LB_CONN_SYNC;
	HIDE(dir);
	w.state = state_step(proto, w.state, dir, event);
	if (state_active(w.state))
		w.flags &= ~LB_CONN_INACTIVE;
	else
		w.flags |= LB_CONN_INACTIVE;
	return w.word;
}

/* Does a datagram change more than the time of its connection? */
static __always_inline bool datagram_counts(const struct lb_conn *c, union conn_word was,
					    enum lb_dir dir)
{
	if (was.flags & LB_CONN_SYNC)
		return true;
	return dir == DIR_OUT && c->control && !(was.flags & LB_CONN_ASSURED);
}

/* A first answer assures the template, and what another director told of is this one's from now on. */
__noinline int conn_datagram(struct lb_conn *c, __u32 dir)
{
	if (!c)
		return 0;
	conn_unmark(c, LB_CONN_SYNC);
	if (dir == DIR_OUT && c->control && !(c->flags & LB_CONN_ASSURED))
		template_assure(c);
	return 0;
}

/* What a packet does to the state of a connection: its state then. The two directions may meet here on two CPUs: one of
 * them changes the word, the other starts from what it became, so the server's counts follow every change exactly once. */
__noinline int conn_move(struct lb_conn *c, __u32 proto, __u32 event, __u32 dir)
{
	union conn_word was, now;
	__u32 *word;
	int i;

	if (!c || dir > DIR_OUT)
		return 0;
	word = (__u32 *)&c->state;
	for (i = 0; i < STEP_TRIES; i++) {
		was.word = READ_ONCE(*word);
		now.word = conn_next(was.word, proto, event, dir);
		if (now.word == was.word)
			return now.state;
		if (__sync_val_compare_and_swap(word, was.word, now.word) == was.word)
			break;
	}
	if (i == STEP_TRIES)
		return now.state;
	if ((now.flags ^ was.flags) & LB_CONN_INACTIVE)
		server_recount(c->server, now.flags & LB_CONN_INACTIVE);
	if (c->control && state_established(now.state))
		template_assure(c);
	return now.state;
}

/* The state machine's part of a packet. Of an established connection of TCP most change nothing but its time. */
static __always_inline void conn_step(struct lb_conn *c, const struct packet *p, enum lb_dir dir)
{
	const union conn_word looked_at = { .state = 0xff, .flags = LB_CONN_SYNC };
	union conn_word was = { .word = READ_ONCE(*(__u32 *)&c->state) };
	__u8 state = was.state;

	if (p->t.proto != IPPROTO_UDP) {
		if (unlikely((was.word & looked_at.word) != LB_TCP_ESTABLISHED ||
			     p->tcp_flags != TCP_ACK) &&
		    !(p->shape & SHAPE_LATER))
			state = conn_move(c, p->t.proto, p->tcp_flags, dir);
	} else if (unlikely(datagram_counts(c, was, dir))) {
		conn_datagram(c, dir);
	}
	if (dir == DIR_IN && unlikely(was.packets < LB_CONN_PACKETS))
		c->packets = was.packets + 1;
	conn_touch(c, state, p->now);
}
