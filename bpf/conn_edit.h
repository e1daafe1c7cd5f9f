/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Adding connections to the table and taking them out of it: everything that needs a line's lock. */
#pragma once
#include "lock.h"
#include "new_conn.h"
#include "partner.h"

enum { EVICT_LOOKS = 32 };

/* Replaces a reference in a locked line. */
static __always_inline bool line_replace(struct lb_conn_line *line, __u64 from, __u64 to)
{
	for (int i = 0; i < LB_LINE_WAYS; i++)
		if (line->slot[i] == from) {
			__sync_lock_test_and_set(&line->slot[i], to);
			return true;
		}
	return false;
}

/* Replaces a reference in the line `index`, which it locks meanwhile. */
static __always_inline bool line_swap(__u32 index, __u64 from, __u64 to)
{
	struct lb_conn_line *line = conn_line_at(index);
	bool done;

	if (!line || !lock_take(&line->lock))
		return 0;
	done = line_replace(line, from, to);
	lock_leave(&line->lock);
	return done;
}

/* Hashes of the ends of a connection. */
struct conn_ends {
	__u64 client, service, server;
};

static __always_inline bool conn_ends(const struct lb_conn *c, struct conn_ends *e)
{
	struct lb_server *srv = server_at(c->server);

	if (!srv)
		return false;
	e->client = hash_endpoint(lb_hash_key, &c->caddr, c->cport, c->proto, c->af);
	e->service = hash_endpoint(lb_hash_key, &c->vaddr, c->vport, c->proto, c->af);
	e->server = hash_endpoint(lb_hash_key, &srv->addr, c->dport, c->proto, c->af);
	return true;
}

/* Puts or removes the reference by a pair of ends, in either of its two lines. */
__noinline int pair_swap(__u64 from_end, __u64 to_end, __u32 index, bool add)
{
	struct lb_spot spot = hash_spot(hash_pair(lb_hash_key, from_end, to_end), lb_conn_line_mask);
	__u64 slot = (__u64)spot.tag << 32 | (index + 1), from = add ? 0 : slot,
	      to = add ? slot : 0;

	return line_swap(spot.first, from, to) || line_swap(spot.second, from, to);
}

/* Removes the references of a spilled connection. */
static __always_inline void spill_remove(const struct lb_conn *c, const struct conn_ends *e,
					 __u32 index)
{
	pair_swap(e->client, e->service, index, false);
	if (!(c->flags & LB_CONN_NOOUTPUT) && !fwd_one_way(c->fwd))
		pair_swap(e->server, e->client, index, false);
}

/* Ends a connection, or a template without any: references, counts, entry. Its client's line must be locked. (Not static, like all that only new and
 * ending connections need: the verifier then looks at it once, not once for every caller.) */
__noinline int conn_release(__u32 index)
{
	struct lb_conn *c = conn_at(index);
	struct lb_conn_line *home;
	struct conn_ends e;
	struct lb_spot spot;

	if (!c || !c->af || conn_held(c) || !conn_ends(c, &e))
		return 0;
	spot = hash_spot(e.client, lb_conn_line_mask);
	home = conn_line_at(spot.first);
	if (!home)
		return 0;
	if (c->flags & LB_CONN_SPILLED) {
		spill_remove(c, &e, index);
		home->spilled--;
	} else {
		line_replace(home, (__u64)spot.tag << 32 | (index + 1), 0);
	}
	c->af = 0;
	if (unlikely(c->fwd >= LB_FWD_FULLNAT))
		conn_part(c, index);
	if (likely(c->fwd != LB_FWD_RETURN)) {
		server_unload(c->server, c->proto, c->flags);
		if (!conn_is_template(c))
			template_leave(c->control);
	}
	pool_push(index);
	return 1;
}

/* Ends a connection now, if it is still `expires`' (a look at it from outside the lock). A template that has connections
 * does not end, but begins anew if it is due. */
__noinline int conn_end(__u32 index, __u32 expires, __u32 now)
{
	struct lb_conn *c = conn_at(index);
	struct lb_conn_line *home;
	int done = 0;
	__u64 hash;

	if (!c || !c->af)
		return 0;
	hash = hash_endpoint(lb_hash_key, &c->caddr, c->cport, c->proto, c->af);
	home = conn_line_at(hash_spot(hash, lb_conn_line_mask).first);
	if (!home || !lock_take(&home->lock))
		return 0;
	if (c->expires == expires &&
	    hash == hash_endpoint(lb_hash_key, &c->caddr, c->cport, c->proto, c->af)) {
		done = conn_release(index);
		if (conn_held(c) && tick_past(now, expires))
			template_rearm(c, now);
	}
	lock_leave(&home->lock);
	return done;
}

struct eviction {
	__u32 start, now;
	__u32 victim, left, expires;
};

static long evict_step(__u32 i, void *ctx)
{
	struct eviction *ev = ctx;
	__u32 at = (ev->start + i) % lb_conn_max;
	struct lb_conn *c = conn_at(at);

	if (c && c->af && c->expires - ev->now <= ev->left && !conn_held(c)) {
		ev->left = c->expires - ev->now;
		ev->expires = c->expires;
		ev->victim = at;
	}
	return 0;
}

/* The pool is empty: of some connections, the one nearest its end gives way. An entry (index + 1), or 0. */
__noinline __u32 pool_evict(__u32 now, __u32 seed)
{
	struct eviction ev = { .start = seed, .now = now, .left = 0x7fffffff };

	if (!lb_conn_max)
		return 0;
	bpf_loop(EVICT_LOOKS, evict_step, &ev, 0);
	if (ev.left == 0x7fffffff || !conn_end(ev.victim, ev.expires, now))
		return 0;
	count_verdict(LB_EVICTED);
	return pool_take();
}

static __always_inline void conn_fill(struct lb_conn *c, const struct new_conn *n)
{
	c->caddr = n->t.saddr;
	c->vaddr = n->t.daddr;
	c->cport = n->t.sport;
	c->vport = n->t.dport;
	c->proto = n->t.proto;
	c->af = n->af;
	c->dport = n->dport;
	c->server = n->server;
	c->expires = n->expires;
	c->state = n->state;
	c->flags = n->flags;
	c->fwd = n->fwd;
	c->packets = n->flags & LB_CONN_SYNC ? LB_SYNC_DATAGRAMS : 0;
	c->hop = n->partner;
	c->hop_token = n->timeout;
	c->control = n->control;
}

/* The connection is there already: its index + 1; 0: no. */
static __always_inline __u32 line_present(struct lb_conn_line *line, __u32 tag,
					  const struct new_conn *n)
{
	for (int i = 0; i < LB_LINE_WAYS; i++) {
		__u64 slot = line->slot[i];
		struct lb_conn *c = slot >> 32 == tag ? conn_at((__u32)slot - 1) : NULL;

		if (c && c->cport == n->t.sport && c->vport == n->t.dport &&
		    c->proto == n->t.proto && c->af == n->af &&
		    addr_equal(&c->caddr, &n->t.saddr, LB_AF_INET6) &&
		    addr_equal(&c->vaddr, &n->t.daddr, LB_AF_INET6) && !(c->flags & LB_CONN_VOID) &&
		    !conn_over(c, n->now))
			return slot;
	}
	return 0;
}

/* As line_present(), among the spilled. */
static __always_inline __u32 spill_present(const struct new_conn *n)
{
	struct lb_spot spot = hash_spot(hash_pair(lb_hash_key, n->client, n->service),
					lb_conn_line_mask);
	struct lb_conn_line *line = conn_line_at(spot.first);
	__u32 there = line ? line_present(line, spot.tag, n) : 0;

	if (there)
		return there;
	line = conn_line_at(spot.second);
	return line ? line_present(line, spot.tag, n) : 0;
}

/* Is this line the home of the connection it refers to? Others are spilled into it from elsewhere. */
static __always_inline bool line_owns(const struct lb_conn *c)
{
	return c && c->af && !(c->flags & LB_CONN_SPILLED);
}

/* Who may give way in a full line, which is locked: a connection that is over, or the one of its own that is nearest its end.
 * Index + 1; 0: nobody. (It ends in the caller's frame: the stack is short.) */
__noinline __u32 line_victim(__u32 index, __u32 now, bool live)
{
	struct lb_conn_line *line = conn_line_at(index);
	__u32 victim = 0, left = ~0U;

	for (int i = 0; line && i < LB_LINE_WAYS; i++) {
		__u32 at = (__u32)line->slot[i];
		struct lb_conn *c = conn_at(at - 1);

		if (!line_owns(c) || conn_held(c))
			continue;
		if (conn_over(c, now))
			return at;
		if (live && c->expires - now < left) {
			left = c->expires - now;
			victim = at;
		}
	}
	return victim;
}

/* References a connection by its pairs of ends. */
__noinline int conn_spill(__u32 index)
{
	struct lb_conn *c = conn_at(index);
	struct conn_ends e;

	if (!c || !conn_ends(c, &e) || !pair_swap(e.client, e.service, index, true))
		return 0;
	if (c->flags & LB_CONN_NOOUTPUT || pair_swap(e.server, e.client, index, true))
		return 1;
	pair_swap(e.client, e.service, index, false);
	return 0;
}

/* The same connection in its client's line, which is locked, or spilled from it: its index + 1; 0: there is none. */
__noinline __u32 conn_present(struct new_conn *n)
{
	struct lb_conn_line *line;
	struct lb_spot spot;
	__u32 there;

	if (!n)
		return 0;
	spot = hash_spot(n->client, lb_conn_line_mask);
	line = conn_line_at(spot.first);
	if (!line)
		return 0;
	there = line_present(line, spot.tag, n);
	return unlikely(!there && line->spilled) ? spill_present(n) : there;
}

/* Makes a filled entry findable; its client's line is locked. The last resort is that one of the line's connections gives way. */
static __always_inline bool conn_publish(struct lb_conn_line *line, struct lb_spot spot,
					 struct lb_conn *c, __u32 index, __u32 now)
{
	__u64 slot = (__u64)spot.tag << 32 | (index + 1);
	__u32 victim;

	if (likely(line_replace(line, 0, slot)))
		return true;
	victim = line_victim(spot.first, now, false);
	if (!victim) {
		c->flags |= LB_CONN_SPILLED;
		WRITE_ONCE(line->spilled, line->spilled + 1);
		if (conn_spill(index))
			return true;
		c->flags &= ~LB_CONN_SPILLED;
		WRITE_ONCE(line->spilled, line->spilled - 1);
		victim = line_victim(spot.first, now, true);
		if (victim)
			count_verdict(LB_EVICTED);
	}
	return victim && conn_release(victim - 1) && line_replace(line, 0, slot);
}

/* Writes the connection into its entry and makes it findable; its client's line is locked. 0, or the index + 1 of the same
 * connection made by another CPU meanwhile (of a template: it is then used once more), or -verdict. */
static __always_inline int conn_insert(struct lb_conn_line *line, struct lb_spot spot,
				       struct new_conn *n)
{
	struct lb_conn *c = conn_at(n->entry - 1), *other;
	__u32 there = conn_present(n);

	if (unlikely(there)) {
		other = conn_at(there - 1);
		if (other && conn_is_template(other))
			template_renew(other, n->now);
		return there;
	}
	if (!c)
		return 0;
	conn_fill(c, n);
	if (conn_publish(line, spot, c, n->entry - 1, n->now))
		return 0;
	c->af = 0;
	return -LB_DROP_TABLE_FULL;
}

/* Adds a connection, or finds the one that another CPU added meanwhile. Its index + 1, or -verdict. */
__noinline int conn_add(struct new_conn *n)
{
	struct lb_conn_line *line;
	struct lb_server_state *st;
	struct lb_server *srv;
	struct lb_spot spot;
	int other;

	if (!n)
		return -LB_DROP_TABLE_FULL;
	spot = hash_spot(n->client, lb_conn_line_mask);
	line = conn_line_at(spot.first);
	if (!line)
		return -LB_DROP_TABLE_FULL;
	other = -LB_DROP_BUSY;
	if (lock_take(&line->lock)) {
		other = conn_insert(line, spot, n);
		lock_leave(&line->lock);
	}
	if (unlikely(other)) {
		pool_push(n->entry - 1);
		return other;
	}
	if (unlikely(n->fwd == LB_FWD_RETURN))
		return n->entry;
	srv = server_at(n->server);
	st = server_state_at(n->server);
	if (srv && st)
		server_load(srv, st, n->t.proto, n->flags);
	/* One that another director told of is counted there: ip_vs_proc_conn(). */
	if (!(n->t.proto & LB_TEMPLATE) && !(n->flags & LB_CONN_SYNC))
		count_conn(n->server);
	return n->entry;
}
