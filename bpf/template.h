/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Persistence templates, as far as their connections have to do with them. A template says which server a client, or a
 * network of clients, goes on to; it outlives the connections it made. In `control` it counts these, and they name it there:
 * so it cannot end, nor its entry become another's, while one of them lives.
 *
 * Whatever else is done to a template is done under the lock of its client's line. Only its connections, which find it
 * without, count themselves out, and mark it as assured.
 */
#pragma once
#include "pool.h"

enum { TEMPLATE_REARM_S = 60 };

static __always_inline bool conn_is_template(const struct lb_conn *c)
{
	return c->proto & LB_TEMPLATE;
}

/* Must the entry stay, whatever its time? */
static __always_inline bool conn_held(const struct lb_conn *c)
{
	return c->flags & LB_CONN_SOCKET || (conn_is_template(c) && READ_ONCE(c->control));
}

/* Is its time over, and nobody may use it any more? */
static __always_inline bool conn_over(const struct lb_conn *c, __u32 now)
{
	return tick_past(now, c->expires) && !conn_held(c);
}

/* A template's time is over, but it has connections: it gets another minute, and from now on no more than that when it is
 * renewed. As ip_vs_conn_expire(). */
static __always_inline void template_rearm(struct lb_conn *c, __u32 now)
{
	__u32 more = seconds_ticks(TEMPLATE_REARM_S);

	c->hop_token = TEMPLATE_REARM_S;
	c->expires += ((now - c->expires) / more + 1) * more;
}

static __always_inline void conn_mark(struct lb_conn *c, __u8 flag)
{
	union conn_word w = { .flags = flag };

	__sync_fetch_and_or((__u32 *)&c->state, w.word);
}

static __always_inline void conn_unmark(struct lb_conn *c, __u8 flag)
{
	union conn_word w = { .word = ~0U };

	w.flags = ~flag;
	__sync_fetch_and_and((__u32 *)&c->state, w.word);
}

/* A template is used once more, by a connection that is to be counted. */
static __always_inline void template_renew(struct lb_conn *c, __u32 now)
{
	if (tick_past(now, c->expires))
		c->hop_token = TEMPLATE_REARM_S;
	c->expires = now + seconds_ticks(c->hop_token);
	if (c->flags & LB_CONN_SYNC)
		conn_unmark(c, LB_CONN_SYNC);
	__sync_fetch_and_add(&c->control, 1);
}

/* A connection is no longer its template's. */
static __always_inline void template_leave(__u32 control)
{
	struct lb_conn *c = control ? conn_at(control - 1) : NULL;

	if (c)
		__sync_fetch_and_add(&c->control, -1);
}

/* A connection is established, or was answered: its template is assured. As ip_vs_control_assure_ct(). */
__noinline int template_assure(struct lb_conn *c)
{
	struct lb_conn *control;

	if (!c)
		return 0;
	conn_mark(c, LB_CONN_ASSURED);
	control = conn_at(c->control - 1);
	if (control)
		conn_mark(control, LB_CONN_ASSURED);
	return 0;
}
