/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A connection before it is one: what is known of it while its server is chosen. */
#pragma once
#include "conn.h"

/* Is it to be put into the table at all? No: one-packet scheduling. */
enum once { ONCE_NO, ONCE_WANTED, ONCE_PICKED };

/* A connection, or a template, to be put into the table: who asks for what, and what the scheduler said. */
struct new_conn {
	struct tuple t; /* as the client sends; addresses whole */
	__u8 af;
	__u8 state;
	__u8 flags;
	__u8 fwd; /* enum lb_fwd */
	__u32 now;
	__u32 server;
	__be16 dport;
	__u16 own_port;        /* the server is asked at the port that the client asked for */
	__u32 entry;           /* a free entry, index + 1 */
	__u32 control;         /* as in lb_conn */
	__u32 expires;         /* tick */
	__u32 timeout;         /* of a template, seconds; else 0 */
	__u32 fragment;        /* of a fragment: the identification of its datagram */
	__u16 l4;              /* of one that is not plain: where its transport header is, */
	__u8 shape;            /* and enum packet_shape */
	__u8 event;            /* of the packet: TCP flags, or enum sctp_event */
	__u32 virtual_service; /* id of the service that it is for */
	__u8 hook;             /* where the packet is, enum lb_hook */
	__u8 once;             /* enum once */
	__u8 odd;              /* as of struct packet */
	__u8 scratch;          /* which of a CPU's records it is: scratch.h */
	__u32 icmp;            /* it is begun by an ICMP error about it */
	__u32 partner;         /* index + 1 of its second entry; 0: it is not masqueraded */
	__u32 policy;          /* enum lb_policy, of the list that the server was picked from */
	__u32 origin;          /* where it comes from: one of LB_POLICY_MASQ_*, ORIGIN_TUNNEL */
	__u64 client, service; /* hashes of the two ends */
};
