/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The states of a connection: how long each lasts, and what a change does to the counts of the server. */
#pragma once
#include "tables.h"
#include "transition.h"

static __always_inline bool state_established(__u8 state)
{
	return state == LB_TCP_ESTABLISHED || state == LB_SCTP_ESTABLISHED;
}

/* Counts a packet of a server. A datagram counts once, with the bytes of all its fragments, as the kernel counts it whole. */
static __always_inline void packet_count(const struct packet *p, enum lb_dir dir, __u32 server)
{
	__u32 packets = 1, bytes = p->ip_len;

	if (p->shape & SHAPE_LATER) {
		packets = 0;
		bytes -= p->l4 - L3_OFF;
	}
	if (dir == DIR_IN)
		count_in(server, packets, bytes);
	else
		count_out(server, packets, bytes);
}

static __always_inline bool state_active(__u8 state)
{
	return state_established(state) || state == LB_TCP_SYN_SENT || state == LB_TCP_SYN_RECV ||
	       state == LB_TCP_SYNACK;
}

static __always_inline bool tick_past(__u32 now, __u32 when)
{
	return (__s32)(now - when) >= 0;
}

/* Ticks of so many seconds, rounded up. */
static __always_inline __u32 seconds_ticks(__u32 seconds)
{
	return ((__u64)seconds * lb_hz >> lb_tick_shift) + 1;
}

static __always_inline __u32 state_timeout_ticks(__u32 state)
{
	struct lb_config *cfg = config_get();

	HIDE(state);
	if (!cfg || state >= LB_STATES)
		return 1;
	return seconds_ticks(cfg->timeout[state]);
}

/* The server has room again? As ip_vs_unbind_dest(). */
static __always_inline void server_relieve(struct lb_server_state *st, __u32 id)
{
	struct lb_server *srv;
	__u32 total = st->active + st->inactive;

	if (likely(!(st->flags & LB_SERVER_OVERLOAD)))
		return;
	srv = server_at(id);
	if (!srv)
		return;
	if (srv->lower ? total < srv->lower : srv->upper ? total * 4 < srv->upper * 3 : true)
		st->flags &= ~LB_SERVER_OVERLOAD;
}

/* Which of a server's counts an entry of the connection table is in. */
static __always_inline __s32 *server_count(struct lb_server_state *st, __u8 proto, __u8 flags)
{
	if (proto & LB_TEMPLATE)
		return &st->persistent;
	return flags & LB_CONN_INACTIVE ? &st->inactive : &st->active;
}

/* The server took a connection, or a template. As ip_vs_bind_dest(). */
static __always_inline void server_load(struct lb_server *srv, struct lb_server_state *st,
					__u8 proto, __u8 flags)
{
	__sync_fetch_and_add(server_count(st, proto, flags), 1);
	if (unlikely(srv->upper) && (__u32)(st->active + st->inactive) >= srv->upper)
		st->flags |= LB_SERVER_OVERLOAD;
}

static __always_inline void server_unload(__u32 id, __u8 proto, __u8 flags)
{
	struct lb_server_state *st = server_state_at(id);

	if (!st)
		return;
	__sync_fetch_and_add(server_count(st, proto, flags), -1);
	server_relieve(st, id);
}

/* A connection's state and flags, in one word that is changed in one step. */
union conn_word {
	struct {
		__u8 state; /* enum lb_state */
		__u8 flags; /* enum lb_conn_flag */
		__u8 fwd;   /* never changes */
		__u8 packets;
	};
	__u32 word;
};
_Static_assert(offsetof(struct lb_conn, flags) == offsetof(struct lb_conn, state) + 1, "one word");
_Static_assert(offsetof(struct lb_conn, state) % 4 == 0, "one aligned word");

/* Moves a connection between its server's two counts. */
static __always_inline void server_recount(__u32 server, bool inactive)
{
	struct lb_server_state *st = server_state_at(server);

	if (!st)
		return;
	__sync_fetch_and_add(&st->active, inactive ? -1 : 1);
	__sync_fetch_and_add(&st->inactive, inactive ? 1 : -1);
}
