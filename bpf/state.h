/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The states of a connection: IPVS's TCP table (ip_vs_proto_tcp.c, set_tcp_state) as rows of next states, and what a
 * change of state does to the counts of the server.
 */
#pragma once
#include "tables.h"

enum lb_dir { DIR_IN = 0, DIR_OUT = 1, DIR_IN_ONLY = 2 };
enum tcp_event { EVENT_SYN, EVENT_FIN, EVENT_ACK, EVENT_RST };

#define sNO LB_TCP_NONE
#define sES LB_TCP_ESTABLISHED
#define sSS LB_TCP_SYN_SENT
#define sSR LB_TCP_SYN_RECV
#define sFW LB_TCP_FIN_WAIT
#define sTW LB_TCP_TIME_WAIT
#define sCL LB_TCP_CLOSE
#define sCW LB_TCP_CLOSE_WAIT
#define sLA LB_TCP_LAST_ACK
#define sLI LB_TCP_LISTEN
#define sSA LB_TCP_SYNACK

/* [direction][event][state]; sixteen columns, so that a mask bounds the index. */
static const __u8 tcp_next[3][4][16] = {
	{
		/*        NO   ES   SS   SR   FW   TW   CL   CW   LA   LI   SA */
		/*syn*/ { sSR, sES, sES, sSR, sSR, sSR, sSR, sSR, sSR, sSR, sSR },
		/*fin*/ { sCL, sCW, sSS, sTW, sTW, sTW, sCL, sCW, sLA, sLI, sTW },
		/*ack*/ { sES, sES, sSS, sES, sFW, sTW, sCL, sCW, sCL, sLI, sES },
		/*rst*/ { sCL, sCL, sCL, sSR, sCL, sCL, sCL, sCL, sLA, sLI, sSR },
	},
	{
		/*syn*/ { sSS, sES, sSS, sSR, sSS, sSS, sSS, sSS, sSS, sLI, sSR },
		/*fin*/ { sTW, sFW, sSS, sTW, sFW, sTW, sCL, sTW, sLA, sLI, sTW },
		/*ack*/ { sES, sES, sSS, sES, sFW, sTW, sCL, sCW, sLA, sES, sES },
		/*rst*/ { sCL, sCL, sSS, sCL, sCL, sTW, sCL, sCL, sCL, sCL, sCL },
	},
	{
		/*syn*/ { sSR, sES, sES, sSR, sSR, sSR, sSR, sSR, sSR, sSR, sSR },
		/*fin*/ { sCL, sFW, sSS, sTW, sFW, sTW, sCL, sCW, sLA, sLI, sTW },
		/*ack*/ { sES, sES, sSS, sES, sFW, sTW, sCL, sCW, sCL, sLI, sES },
		/*rst*/ { sCL, sCL, sCL, sSR, sCL, sCL, sCL, sCL, sLA, sLI, sCL },
	},
};

#undef sNO
#undef sES
#undef sSS
#undef sSR
#undef sFW
#undef sTW
#undef sCL
#undef sCW
#undef sLA
#undef sLI
#undef sSA

static __always_inline bool state_active(__u8 state)
{
	return state == LB_TCP_ESTABLISHED || state == LB_TCP_SYN_SENT ||
	       state == LB_TCP_SYN_RECV || state == LB_TCP_SYNACK;
}

/* The state after a segment with these flags; one without any of the four closes. */
static __always_inline __u8 tcp_step(__u8 state, enum lb_dir dir, __u8 flags)
{
	enum tcp_event event;

	if (flags & TCP_RST)
		event = EVENT_RST;
	else if (flags & TCP_SYN)
		event = EVENT_SYN;
	else if (flags & TCP_FIN)
		event = EVENT_FIN;
	else if (flags & TCP_ACK)
		event = EVENT_ACK;
	else
		return LB_TCP_CLOSE;
	return tcp_next[dir][event][state & 15];
}

static __always_inline __u32 state_timeout_ticks(__u32 state)
{
	struct lb_config *cfg = config_get();

	HIDE(state);
	if (!cfg || state >= LB_STATES)
		return 1;
	return ((__u64)cfg->timeout[state] * lb_hz >> lb_tick_shift) + 1;
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

/* The server took a connection. As ip_vs_bind_dest(). */
static __always_inline void server_load(struct lb_server *srv, struct lb_server_state *st,
					bool inactive)
{
	__sync_fetch_and_add(inactive ? &st->inactive : &st->active, 1);
	if (unlikely(srv->upper) && (__u32)(st->active + st->inactive) >= srv->upper)
		st->flags |= LB_SERVER_OVERLOAD;
}

static __always_inline void server_unload(__u32 id, bool inactive)
{
	struct lb_server_state *st = server_state_at(id);

	if (!st)
		return;
	__sync_fetch_and_add(inactive ? &st->inactive : &st->active, -1);
	server_relieve(st, id);
}

/* A connection's state and flags, in one word that is changed in one step. */
union conn_word {
	struct {
		__u8 state; /* enum lb_state */
		__u8 flags; /* enum lb_conn_flag */
		__u8 fwd;   /* never changes */
		__u8 pad;
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
