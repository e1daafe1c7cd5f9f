/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Masquerade: a connection whose server sees an address and a port of this host, not the client's. So it answers to here,
 * whatever way it has to the client, and even if it is the client itself. Ports come from a range of our own
 * (lb_config.masquerade_first), which no socket of the host uses; the same one does for as many servers as there are.
 *
 * Such a connection has two entries (struct lb_conn): its client's, as any, and one for what the server sends.
 */
#pragma once
#include "policy.h"
#include "source.h"

_Static_assert(offsetof(struct lb_config, masquerade_first) % 8 == 0 &&
		       offsetof(struct lb_config, masquerade_count) ==
			       offsetof(struct lb_config, masquerade_first) + 4,
	       "user space changes both by one store");

enum { MASQUERADE_TRIES = 64 };

/* Has the client's end other connections? */
static __always_inline bool client_is_known(const struct new_conn *n)
{
	struct lb_spot spot = hash_spot(n->client, lb_conn_line_mask);
	struct lb_conn_line *line = conn_line_at(spot.first);
	bool known = line && READ_ONCE(line->spilled);

	for (int i = 0; line && i < LB_LINE_WAYS; i++)
		known |= READ_ONCE(line->slot[i]) >> 32 == spot.tag;
	return known;
}

/* Has the client a connection to the same port of the same server already, by another virtual service? Neither the server nor
 * the stack could tell the two apart. (Not static: the verifier looks at it once.) */
__noinline int conn_collides(const struct new_conn *n, const struct lb_server *srv)
{
	struct packet *answer = answer_get();

	if (!answer || !n || !srv)
		return 0;
	answer->t.saddr = srv->addr;
	answer->t.daddr = n->t.saddr;
	answer->t.sport = n->dport;
	answer->t.dport = n->t.sport;
	answer->t.proto = n->t.proto;
	answer->src = hash_endpoint(lb_hash_key, &srv->addr, n->dport, n->t.proto, n->af);
	answer->dst = n->client;
	answer->now = n->now;
	return conn_find(answer, DIR_OUT, n->af).c != NULL;
}

/* Is the connection to be masqueraded? Policies say so; what the host sends itself is, as it may have the address of another
 * way; whoever calls himself is, as he would answer himself; and what could not be told from another connection. */
static __always_inline bool masquerade_wanted(const struct new_conn *n, const struct lb_server *srv)
{
	if (srv->fwd != LB_FWD_MASQ)
		return false;
	return n->policy & n->origin || n->hook == HOOK_EGRESS ||
	       addr_equal(&srv->addr, &n->t.saddr, LB_AF_INET6) ||
	       (unlikely(client_is_known(n)) && conn_collides(n, srv));
}

/* Describes the second entry of `n` but for its port, in `t`, which has the address already. */
static __always_inline void partner_describe(struct new_conn *t, const struct new_conn *n,
					     const struct lb_server *srv)
{
	t->now = n->now;
	t->af = n->af;
	t->state = n->state;
	t->flags = 0;
	t->fwd = LB_FWD_RETURN;
	t->server = n->server;
	t->dport = n->dport;
	t->expires = n->expires;
	t->timeout = 0;
	t->control = 0;
	t->partner = 0;
	t->t.daddr = srv->addr;
	t->t.dport = n->dport;
	t->t.proto = n->t.proto;
	t->service = hash_endpoint(lb_hash_key, &t->t.daddr, t->t.dport, t->t.proto, t->af);
}

/* Ends a second entry whose connection is in TIME_WAIT, or was, with it. (Not static: the verifier looks at it once.) */
__noinline int waiting_end(__u32 index, __u32 now)
{
	struct lb_conn *partner = conn_at(index), *c;

	if (!partner || partner->fwd != LB_FWD_RETURN)
		return 0;
	c = conn_of_partner(partner, index);
	return (!c || c->state == LB_TCP_TIME_WAIT) && conn_end(index, partner->expires, now);
}

struct port_search {
	struct new_conn *partner;
	__u32 first, count, start, step;
	__u32 looks; /* at each port: with the second one a connection in TIME_WAIT has given way */
	int added;
};

static long port_step(__u32 i, void *ctx)
{
	struct port_search *s = ctx;
	struct new_conn *t = s->partner;

	t->t.sport = bpf_htons(s->first + (s->start + i / s->looks * s->step) % s->count);
	t->client = hash_endpoint(lb_hash_key, &t->t.saddr, t->t.sport, t->t.proto, t->af);
	s->added = conn_enter(t);
	if (s->added < 0 || (__u32)s->added == t->entry)
		return 1;
	if (s->looks > 1)
		waiting_end(s->added - 1, t->now);
	return 0;
}

/* Tries ports: is one taken? */
static __always_inline bool port_find(struct port_search *s)
{
	__u32 tries = s->count < MASQUERADE_TRIES ? s->count : MASQUERADE_TRIES;

	bpf_loop(tries * s->looks, port_step, s, 0);
	return s->added < 0 || (__u32)s->added == s->partner->entry;
}

/* Adds the second entry with the first port that is free towards the server; if none is, with one of a connection in
 * TIME_WAIT, as nf_nat_used_tuple_harder(). 0, or the verdict. (Not static: the verifier looks at it once.) */
__noinline int partner_add(struct new_conn *n)
{
	struct lb_config *cfg = config_get();
	struct port_search s = {};

	if (!n || !cfg)
		return LB_DROP_NO_MASQUERADE;
	s.partner = new_template_get(n);
	s.first = cfg->masquerade_first;
	s.count = cfg->masquerade_count;
	if (!s.partner || !s.count)
		return LB_DROP_NO_MASQUERADE;
	s.start = bpf_get_prandom_u32() % s.count;
	/* Ports taken in a row are no obstacle; of a few ports each is tried. */
	s.step = s.count > MASQUERADE_TRIES ? 1 + bpf_get_prandom_u32() % (s.count - 1) : 1;
	s.looks = 1;
	if (!port_find(&s)) {
		s.looks = 2;
		if (!port_find(&s))
			return LB_DROP_NO_MASQUERADE;
	}
	if (s.added < 0)
		return -s.added;
	n->partner = s.added;
	return 0;
}

/* Makes the second entry of a connection that is about to be added: 0, or the verdict. */
static __always_inline int masquerade_begin(void *ctx, enum lb_hook hook, struct new_conn *n,
					    const struct lb_server *srv)
{
	struct new_conn *t = new_template_get(n);
	int verdict;

	if (!t)
		return LB_DROP_NO_MASQUERADE;
	if (!source_towards(ctx, hook, srv, &t->t.saddr)) {
		if (n->hook != HOOK_EGRESS)
			return 0;
		t->t.saddr = srv->addr; /* the host calls itself */
	}
	if (!t->t.saddr.d[0] && !t->t.saddr.d[1])
		return LB_DROP_NO_MASQUERADE;
	partner_describe(t, n, srv);
	verdict = partner_add(n);
	if (!verdict) {
		n->fwd = n->hook == HOOK_EGRESS ? LB_FWD_HOST : LB_FWD_FULLNAT;
		masquerades_note();
		count_verdict(LB_MASQUERADED);
	}
	return verdict;
}

/* The connection was added, or not: its second entry is its own, or ends. False: that gave way meanwhile, perhaps to the
 * connection itself, which so is over. (Not static: the verifier looks at it once.) */
__noinline int masquerade_end(struct new_conn *n, bool added)
{
	struct lb_conn *c = n ? conn_at(n->partner - 1) : NULL;

	if (!c)
		return 0;
	if (unlikely(!added)) {
		conn_end(n->partner - 1, c->expires, n->now);
		return 0;
	}
	if (likely(c->fwd == LB_FWD_RETURN &&
		   __sync_val_compare_and_swap(&c->control, 0, n->entry) == 0))
		return 1;
	conn_end(n->entry - 1, n->expires, n->now);
	return 0;
}
