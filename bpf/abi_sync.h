/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The part of abi.h that is between the sync daemon and the program that enters what it heard. */
#pragma once

/* What another director tells of a connection. Ends of a batch: af 0. */
struct lb_sync_conn {
	union lb_addr caddr;
	union lb_addr vaddr;
	__be16 cport, vport;
	__u8 proto;
	__u8 af; /* enum lb_af */
	__be16 dport;
	__u32 server;  /* id */
	__u32 timeout; /* seconds; 0: that of the state */
	__u8 state;    /* enum lb_state */
	__u8 flags;    /* of enum lb_conn_flag: LB_CONN_INACTIVE */
	__u8 verdict;  /* out: enum lb_verdict */
	__u8 pad;
	__u32 pad2;
};

enum lb_sync_role { LB_SYNC_MASTER = 0, LB_SYNC_BACKUP = 1, LB_SYNC_ROLES };

/* A sync daemon as it was started, and what it did since. In force only as long as it lives, which its lock tells. */
struct lb_sync_daemon {
	union lb_addr group;
	__u32 port, ttl; /* host order */
	__u32 af;        /* enum lb_af */
	__u32 max_length;
	__u32 sync_id;
	__u32 stop; /* written by who wants it to end */
	__u8 interface[16];
	__u64 messages, connections; /* sent, or received */
	__u64 refused; /* received, but no use: connections; of what can't be read, messages */
	__u64 failed;  /* messages that were not sent; connections for which there was no room */
	__u64 waiting; /* connections whose server is not in the table */
};
