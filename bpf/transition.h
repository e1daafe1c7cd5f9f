/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What an event makes of a connection's state: IPVS's tables (set_tcp_state(), set_sctp_state()) as rows of next states.
 */
#pragma once
#include "packet.h"

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

/* [secure_tcp][direction][event][state]; sixteen columns, so that a mask bounds the index. With secure_tcp a client's
 * word alone establishes nothing. */
static const __u8 tcp_next[2][3][4][16] = {
	{
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
	},
	{
		{
			/*        NO   ES   SS   SR   FW   TW   CL   CW   LA   LI   SA */
			/*syn*/ { sSR, sES, sES, sSR, sSR, sSR, sSR, sSR, sSR, sSR, sSA },
			/*fin*/ { sCL, sCW, sSS, sTW, sTW, sTW, sCL, sCW, sLA, sLI, sSA },
			/*ack*/ { sES, sES, sSS, sSR, sFW, sTW, sCL, sCW, sCL, sLI, sSA },
			/*rst*/ { sCL, sCL, sCL, sSR, sCL, sCL, sCL, sCL, sLA, sLI, sCL },
		},
		{
			/*syn*/ { sSS, sES, sSS, sSA, sSS, sSS, sSS, sSS, sSS, sLI, sSA },
			/*fin*/ { sTW, sFW, sSS, sTW, sFW, sTW, sCL, sTW, sLA, sLI, sTW },
			/*ack*/ { sES, sES, sSS, sES, sFW, sTW, sCL, sCW, sLA, sES, sES },
			/*rst*/ { sCL, sCL, sSS, sCL, sCL, sTW, sCL, sCL, sCL, sCL, sCL },
		},
		{
			/*syn*/ { sSA, sES, sES, sSR, sSA, sSA, sSA, sSA, sSA, sSA, sSA },
			/*fin*/ { sCL, sFW, sSS, sTW, sFW, sTW, sCL, sCW, sLA, sLI, sTW },
			/*ack*/ { sES, sES, sSS, sES, sFW, sTW, sCL, sCW, sCL, sLI, sES },
			/*rst*/ { sCL, sCL, sCL, sSR, sCL, sCL, sCL, sCL, sLA, sLI, sCL },
		},
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

static __always_inline struct lb_defence *defence_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&lb_defence, &zero);
}

/* The state after a segment with these flags; one without any of the four closes. */
static __always_inline __u8 tcp_step(__u8 state, enum lb_dir dir, __u8 flags)
{
	struct lb_defence *defence = defence_get();
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
	return tcp_next[defence && defence->secure_tcp][dir][event][state & 15];
}

#define __ 0 /* stays */
#define I1 LB_SCTP_INIT1
#define IN LB_SCTP_INIT
#define CS LB_SCTP_COOKIE_SENT
#define CR LB_SCTP_COOKIE_REPLIED
#define CW LB_SCTP_COOKIE_WAIT
#define CO LB_SCTP_COOKIE
#define CE LB_SCTP_COOKIE_ECHOED
#define ES LB_SCTP_ESTABLISHED
#define SS LB_SCTP_SHUTDOWN_SENT
#define SR LB_SCTP_SHUTDOWN_RECEIVED
#define SA LB_SCTP_SHUTDOWN_ACK_SENT
#define RJ LB_SCTP_REJECTED
#define CL LB_SCTP_CLOSED

/* [direction][event][state]; sixteen rows and columns, so that masks bound the indexes. */
static const __u8 sctp_next[3][16][16] = {
	/*                          NO  I1  IN  CS  CR  CW  CO  CE  ES  SS  SR  SA  RJ  CL */
	{
		/* from the client */
		/* data              */ { ES, __, __, __, __, __, __, __, __, __, __, __, __, __ },
		/* init              */ { I1, IN, __, __, __, __, __, __, __, __, __, __, IN, IN },
		/* init ack          */ { CW, CW, CW, __, __, CO, __, __, __, __, __, __, __, __ },
		/* cookie echo       */ { CR, IN, __, CR, __, __, __, __, __, __, __, __, __, __ },
		/* cookie ack        */ { ES, __, __, __, __, __, __, ES, __, __, __, __, __, __ },
		/* shutdown          */ { SR, __, __, __, __, __, __, __, SR, __, __, __, __, __ },
		/* shutdown ack      */ { CL, IN, __, __, __, __, __, __, __, CL, __, CL, __, __ },
		/* shutdown complete */ { CL, CL, CL, __, __, __, __, __, __, __, __, CL, __, __ },
		/* error             */ { CL, __, __, __, __, __, __, CL, __, __, __, __, __, __ },
		/* abort             */ { CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, __ },
	},
	{
		/* from the server */
		/* data              */ { ES, __, __, __, __, __, __, __, __, __, __, __, __, __ },
		/* init              */ { CW, CW, CW, CW, CW, __, CW, CW, __, CW, CW, CW, CW, CW },
		/* init ack          */ { CS, CS, CS, __, __, __, __, __, __, __, __, __, __, __ },
		/* cookie echo       */ { CE, CE, CE, CE, CE, CE, CE, __, __, __, __, __, __, __ },
		/* cookie ack        */ { ES, ES, ES, ES, ES, ES, ES, ES, __, __, __, __, __, __ },
		/* shutdown          */ { SS, SS, SS, SS, SS, SS, SS, SS, SS, __, __, __, __, __ },
		/* shutdown ack      */ { SA, SA, SA, SA, SA, __, __, __, __, SA, SA, __, __, __ },
		/* shutdown complete */ { CL, __, __, __, __, __, __, __, __, __, __, __, __, __ },
		/* error             */ { CL, CL, CL, CL, CL, __, __, __, __, __, __, __, __, __ },
		/* abort             */ { CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, __ },
	},
	{
		/* from the client only */
		/* data              */ { ES, __, __, __, __, ES, __, __, __, __, __, __, __, __ },
		/* init              */ { I1, IN, __, IN, IN, IN, __, __, __, __, __, __, IN, IN },
		/* init ack          */ { CE, CE, CE, CE, CE, CE, __, __, __, __, __, __, __, __ },
		/* cookie echo       */ { ES, ES, ES, ES, ES, ES, __, __, __, __, __, __, __, __ },
		/* cookie ack        */ { ES, __, __, ES, ES, __, ES, ES, __, __, __, __, __, __ },
		/* shutdown          */ { SR, __, __, __, __, __, __, __, SR, __, __, __, __, __ },
		/* shutdown ack      */ { CL, IN, __, __, __, __, __, __, CL, CL, __, CL, __, __ },
		/* shutdown complete */ { CL, CL, CL, CL, CL, __, __, __, __, __, CL, CL, __, __ },
		/* error             */ { CL, __, __, __, __, __, __, __, __, __, __, __, __, __ },
		/* abort             */ { CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, __ },
	},
};

#undef __
#undef I1
#undef IN
#undef CS
#undef CR
#undef CW
#undef CO
#undef CE
#undef ES
#undef SS
#undef SR
#undef SA
#undef RJ
#undef CL

/* The state after a packet; one without a chunk changes nothing. (Global: verified once.) */
__noinline __u32 sctp_step(__u32 state, __u32 dir, __u32 event)
{
	__u8 next;

	if (dir > DIR_IN_ONLY)
		return state;
	if (event == SCTP_ABORT_BEHIND)
		event = SCTP_ABORT;
	HIDE(event);
	next = sctp_next[dir][event & 15][(state - LB_SCTP_NONE) & 15];
	return next ? next : state;
}

/* The state after a packet of `proto`; only TCP and SCTP have more than one. */
static __always_inline __u8 state_step(__u8 proto, __u8 state, enum lb_dir dir, __u8 event)
{
	return proto == IPPROTO_TCP ? tcp_step(state, dir, event) : sctp_step(state, dir, event);
}

/* The state of a connection that no packet was seen of. */
static __always_inline __u8 state_none(__u8 proto)
{
	if (proto == IPPROTO_TCP)
		return LB_TCP_NONE;
	return proto == IPPROTO_UDP ? LB_UDP_NORMAL : LB_SCTP_NONE;
}

/* The state of a connection that a packet opens, before the packet takes its step: one of TCP from here changes nothing
 * twice, but a first INIT is not a second. */
static __always_inline __u8 state_first(__u8 proto, __u8 event)
{
	return proto == IPPROTO_TCP ? tcp_step(LB_TCP_NONE, DIR_IN, event) : state_none(proto);
}
