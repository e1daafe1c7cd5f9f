/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Locality-based least connection with replication (ip_vs_lblcr.c): of the set of servers that the address was sent to the
 * least loaded, as wlc has it. If that is overloaded, or none of the set can take a connection, wlc chooses among all, and the
 * set grows by its choice. A set that did not change for a day loses its most loaded server.
 */
#pragma once
#include "lblc.h"

/* The next server of a set, the newest first; 0: that was the last. */
static __always_inline __u32 set_next(struct walk *w)
{
	struct lb_memo *m = memo_at(w->record);
	__u32 place;

	if (m && !w->place) {
		w->record = m->more;
		m = memo_at(w->record);
		w->place = m ? m->count : 0;
	}
	place = w->place - 1;
	HIDE(place);
	if (!m || place >= LB_MEMO_SERVERS)
		return 0;
	w->place = place;
	return m->server[place];
}

/* ip_vs_dest_set_min() */
static long set_least_step(__u32 i, void *ctx)
{
	struct walk *w = walk_of(ctx);
	__u32 id = set_next(w);
	struct lb_server_state *st;
	struct lb_server *srv;

	(void)i;
	if (!id)
		return WALK_END;
	w->members++;
	srv = memo_server(w, id);
	st = server_state_at(id);
	if (srv && st && !(st->flags & LB_SERVER_OVERLOAD))
		wlc_weigh(w, id, srv->weight, st);
	return WALK_ON;
}

/* ip_vs_dest_set_max(): servers that were removed or are over their thresholds count too. */
static long set_most_step(__u32 i, void *ctx)
{
	struct walk *w = walk_of(ctx);
	__u32 id = set_next(w);
	struct lb_server_state *st = server_state_at(id);
	struct lb_server *srv = server_at(id);
	__u64 load;

	(void)i;
	if (!id)
		return WALK_END;
	if (!srv || !st || srv->weight <= 0)
		return WALK_ON;
	load = server_overhead(st);
	if (!w->best || w->load * (__u64)srv->weight < load * (__u64)w->weight) {
		w->best = id;
		w->load = load;
		w->weight = srv->weight;
	}
	return WALK_ON;
}

static __always_inline void set_begin(struct walk *w, __u32 entry, const struct lb_memo *m)
{
	w->record = entry;
	w->place = m->count;
	w->members = 0;
	w->best = 0;
}

/* Was the set left as it is for longer than lblcr_expiration? */
static __always_inline bool set_settled(const struct lb_memo *m, __u32 now)
{
	struct lb_config *cfg = config_get();

	return cfg && now - m->changed > (__u64)cfg->lblcr_expiration * lb_hz >> lb_tick_shift;
}

/* A set that settled loses its most loaded server. */
__noinline int set_shrink(struct walk *w, __u32 entry)
{
	struct lb_memo *m = memo_at(entry);
	struct lb_memo_line *line;

	if (!w || !m)
		return 0;
	line = memo_line(w->service, &w->flow.daddr);
	if (!line || !lock_take(&line->lock))
		return 0;
	if (m->service == w->service && set_settled(m, w->now)) {
		set_begin(w, entry, m);
		walk_steps(w, lb_server_max, set_most_step);
		if (w->best && memo_part(entry, w->best))
			m->changed = w->now;
	}
	lock_leave(&line->lock);
	return 1;
}

__noinline __u32 sched_lblcr(struct walk *w)
{
	struct lb_server_state *st;
	struct lb_memo *m;
	__u32 entry, id;
	__s32 weight;

	if (!w)
		return 0;
	entry = memo_look(w);
	m = memo_at(entry);
	if (!m)
		return memo_wlc(w, LB_SCHED_LBLCR);
	set_begin(w, entry, m);
	walk_steps(w, lb_server_max, set_least_step);
	id = w->best;
	weight = w->weight;
	if (w->members > 1 && set_settled(m, w->now))
		set_shrink(w, entry);
	st = server_state_at(id);
	if (id && st && !server_overloaded(w, st, weight))
		return id;
	return memo_wlc(w, LB_SCHED_LBLCR);
}
