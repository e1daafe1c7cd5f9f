/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The two entries of a masqueraded connection (masquerade.h), which lead to each other. */
#pragma once
#include "conn.h"

/* The second entry of a masqueraded connection, if it is that still. */
static __always_inline struct lb_conn *conn_partner(const struct lb_conn *c, __u32 index)
{
	struct lb_conn *partner = conn_at(READ_ONCE(c->hop) - 1);

	return partner && partner->af && partner->fwd == LB_FWD_RETURN &&
			       partner->control == index + 1
		       ? partner
		       : NULL;
}

/* The connection whose second entry this is, if it is that still. */
static __always_inline struct lb_conn *conn_of_partner(const struct lb_conn *partner, __u32 index)
{
	struct lb_conn *c = conn_at(partner->control - 1);

	return c && c->af && fwd_both_ends(c->fwd) && READ_ONCE(c->hop) == index + 1 ? c : NULL;
}

/* Both entries of a masqueraded connection, from either. False: it is over, and perhaps its entry another's. */
static __always_inline bool conn_entries(__u32 index, struct lb_conn **c, struct lb_conn **partner)
{
	struct lb_conn *found = conn_at(index);

	if (!found || !found->af)
		return false;
	if (found->fwd == LB_FWD_RETURN) {
		*partner = found;
		*c = conn_of_partner(found, index);
	} else {
		*c = found;
		*partner = fwd_both_ends(found->fwd) ? conn_partner(found, index) : NULL;
	}
	return *c && *partner;
}

/* With one entry of a masqueraded connection the other is over. That ends when it is swept: it is another line's, whose lock
 * may not be waited for under this one. Only of a connection in TIME_WAIT (whose client uses its port again) the second
 * entry stays as long as the first would have: to its server the port is not new yet. (Not static: the verifier looks at it
 * once.) */
__noinline int conn_part(struct lb_conn *c, __u32 index)
{
	struct lb_conn *other;

	if (!c)
		return 0;
	other = c->fwd == LB_FWD_RETURN ? conn_of_partner(c, index) : conn_partner(c, index);
	if (!other)
		return 0;
	if (c->fwd != LB_FWD_RETURN && c->state == LB_TCP_TIME_WAIT)
		other->state = LB_TCP_TIME_WAIT;
	else
		other->expires = clock_tick();
	return 0;
}
