/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Remembering: entries of memo.h made and changed, under the lock of their line. */
#pragma once
#include "memo.h"

/* One server in a set, and where it is. */
struct memo_spot {
	__u32 server;
	__u32 record,
		before; /* the record that names it; the one chained before that, 0: it is the first */
	__u32 place;
};

static long memo_spot_step(__u32 i, void *ctx)
{
	struct memo_spot *s = ctx;
	struct lb_memo *m = memo_at(s->record);

	(void)i;
	if (!m) {
		s->record = 0;
		return WALK_END;
	}
	for (__u32 k = 0; k < LB_MEMO_SERVERS; k++)
		if (k < m->count && m->server[k] == s->server) {
			s->place = k;
			return WALK_END;
		}
	s->before = s->record;
	s->record = m->more;
	return WALK_ON;
}

/* Makes a new entry that names one server. The line is locked. */
static __always_inline void memo_begin(struct lb_memo_line *line, const struct walk *w, __u8 sched,
				       __u32 server)
{
	struct lb_service_state *st = service_state_at(w->service);
	__u32 id = memo_take();
	struct lb_memo *m = memo_at(id);

	if (!m || !st)
		return;
	memo_refer(server, 1);
	m->addr = w->flow.daddr;
	m->service = w->service;
	m->epoch = st->epoch;
	m->used = w->now;
	m->changed = w->now;
	m->next = line->head;
	m->more = 0;
	m->count = 1;
	m->sched = sched;
	m->server[0] = server;
	__sync_lock_test_and_set(&line->head, id);
}

/* lblc: the entry names this server from now on. */
static __always_inline void memo_point(struct lb_memo *m, __u32 server)
{
	__u32 old = m->server[0];

	if (old == server)
		return;
	memo_refer(server, 1);
	m->server[0] = server;
	memo_refer(old, -1);
}

/* lblcr: the entry's set has this server too, as its newest. */
static __always_inline void memo_join(struct lb_memo *m, __u32 entry, __u32 now, __u32 server)
{
	struct memo_spot s = { .server = server, .record = entry };
	__u32 id, k = m->count;

	HIDE(k);
	bpf_loop(memo_max(), memo_spot_step, &s, 0);
	if (s.record)
		return;
	if (k >= LB_MEMO_SERVERS) {
		struct lb_memo *older;

		id = memo_take();
		older = memo_at(id);
		if (!older)
			return;
		__builtin_memcpy(older->server, m->server, sizeof(m->server));
		older->count = k;
		older->more = m->more;
		m->more = id;
		k = 0;
	}
	memo_refer(server, 1);
	m->server[k] = server;
	m->count = k + 1;
	m->changed = now;
}

/* Remembers that the walk's address was sent to a server. */
__noinline int memo_note(struct walk *w, __u8 sched, __u32 server)
{
	struct lb_memo_line *line;
	struct lb_memo *m;
	__u32 id;

	if (!w || !memo_max())
		return 0;
	line = memo_line(w->service, &w->flow.daddr);
	if (!line || !lock_take(&line->lock))
		return 0;
	id = memo_find(line, w);
	m = memo_at(id);
	if (!m)
		memo_begin(line, w, sched, server);
	else if (sched == LB_SCHED_LBLC)
		memo_point(m, server);
	else
		memo_join(m, id, w->now, server);
	lock_leave(&line->lock);
	return 1;
}

/* Takes a server out of a set. The line is locked, and the set has others. */
__noinline int memo_part(__u32 entry, __u32 server)
{
	struct memo_spot s = { .server = server, .record = entry };
	struct lb_memo *m, *other;
	__u32 spare;

	bpf_loop(memo_max(), memo_spot_step, &s, 0);
	m = memo_at(s.record);
	if (!m)
		return 0;
	for (__u32 k = 0; k + 1 < LB_MEMO_SERVERS; k++)
		if (k >= s.place)
			m->server[k] = m->server[k + 1];
	m->count--;
	memo_refer(server, -1);
	if (m->count)
		return 1;
	/* No record of a set is empty: this one goes, or if it is the entry itself, the next one's servers move here. */
	other = memo_at(s.before ? s.before : m->more);
	spare = s.before ? s.record : m->more;
	if (!other)
		return 1;
	if (s.before) {
		other->more = m->more;
	} else {
		__builtin_memcpy(m->server, other->server, sizeof(m->server));
		m->count = other->count;
		m->more = other->more;
	}
	return memo_give(spare);
}
