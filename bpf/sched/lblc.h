/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Locality-based least connection (ip_vs_lblc.c): the server that the address was sent to last, whatever its thresholds, unless
 * it is gone, quiesced or overloaded; then as wlc. */
#pragma once
#include "memo_edit.h"
#include "wlc.h"

/* Whether a server has room to spare: less than half as many active connections as its weight. */
static long idle_step(__u32 i, void *ctx)
{
	struct walk *w = walk_of(ctx);
	struct lb_server_state *st;
	__s32 weight;
	__u32 id;

	st = walk_slot(w, i, &id, &weight);
	if (!st || (__s64)st->active * 2 >= weight)
		return WALK_ON;
	w->best = id;
	return WALK_END;
}

/* is_overloaded() */
static __always_inline bool server_overloaded(struct walk *w, const struct lb_server_state *st,
					      __s32 weight)
{
	if (st->active <= weight)
		return false;
	w->best = 0;
	walk_all(w, idle_step);
	return w->best;
}

/* A remembered server that is in the service's list with a weight above 0. */
static __always_inline struct lb_server *memo_server(const struct walk *w, __u32 id)
{
	struct lb_server *srv = server_at(id);

	return srv && srv->service == w->service && srv->flags & LB_SERVER_AVAILABLE &&
			       srv->weight > 0
		       ? srv
		       : NULL;
}

/* As wlc, and remembers whom it chose. */
static __always_inline __u32 memo_wlc(struct walk *w, __u8 sched)
{
	__u32 id;

	w->best = 0;
	id = sched_wlc(w);
	if (id)
		memo_note(w, sched, id);
	return id;
}

__noinline __u32 sched_lblc(struct walk *w)
{
	struct lb_server_state *st;
	struct lb_server *srv;
	struct lb_memo *m;
	__u32 id;

	if (!w)
		return 0;
	m = memo_at(memo_look(w));
	id = m ? READ_ONCE(m->server[0]) : 0;
	srv = memo_server(w, id);
	st = server_state_at(id);
	if (srv && st && !server_overloaded(w, st, srv->weight))
		return id;
	return memo_wlc(w, LB_SCHED_LBLC);
}
