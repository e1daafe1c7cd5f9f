/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The connection table: part of abi.h. */
#pragma once

/* One line of the connection index: references (tag << 32 | connection index + 1), 0: free. */
struct lb_conn_line {
	__u64 slot[LB_LINE_WAYS];
	__u32 lock;    /* held by whoever adds to or removes from the line */
	__u32 spilled; /* connections of this line's clients that did not fit in it */
};

/* Not of any protocol of ours: set in lb_conn.proto of a template, so that no packet is taken for one of its. */
enum lb_template { LB_TEMPLATE = 0x40 };

/*
 * A connection, one cache line for both families; or a persistence template, as in ip_vs_conn.c an entry of the same
 * table: (LB_TEMPLATE | protocol, masked client, port 0, virtual address and port); of a service by mark with protocol 0
 * and the mark in vaddr.w[0], in network order; of services that share (lb_service.affinity) with their number in the place of
 * an address, and their port, without one with protocol 0.
 *
 * A masqueraded connection (LB_FWD_FULLNAT, LB_FWD_HOST) has a second entry (LB_FWD_RETURN), whose client is the address and port that
 * the server sees, and whose virtual address is the server. They lead to each other; the second is found by
 * what the server sends, has the next hop of replies, and ends with the first.
 */
struct lb_conn {
	union lb_addr caddr;
	union lb_addr vaddr;
	__be16 cport, vport;
	__u8 proto;
	__u8 af; /* enum lb_af; 0: the entry is free, and `server` names the next free one */
	__be16 dport;
	__u32 server;
	__u32 expires; /* tick */
	__u8 state;    /* enum lb_state */
	__u8 flags;    /* enum lb_conn_flag */
	__u8 fwd; /* enum lb_fwd: as the server had it when the connection began, kept for life */
	__u8 packets; /* from the client, up to LB_CONN_PACKETS */
	__u32 hop; /* next hop of replies, as in lb_server_state; masqueraded: index + 1 of its second entry */
	__u32 hop_token; /* routes as they were then; of a template: its timeout, seconds */
	__u32 control; /* index + 1 of the template it was made by; of a template: how many it made that live; of
			* LB_FWD_RETURN: index + 1 of the connection */
};

/* What lb_end is to do. */
enum lb_end_how {
	LB_END_NOW,  /* end it; a socket's is marked (LB_CONN_VOID), and ends with its socket */
	LB_END_UNDO, /* take that mark back, if the socket has not ended */
};

/* What lb_end did. */
enum lb_ended {
	LB_ENDED_NOT, /* nothing: it is not there (any more) */
	LB_ENDED,
	LB_ENDED_SOCKET, /* it is a socket's; the mark was set, or taken back */
	LB_ENDED_BUSY,   /* nothing: its line stayed locked */
};

/* Free connections: a stack for each lane; in `high` of lane 0, how many entries were ever used. */
struct lb_conn_pool {
	__u64 head; /* count of changes << 32 | index + 1 of the first free entry */
	__u32 high;
	__u32 pad[13];
};
