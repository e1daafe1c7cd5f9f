/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What Kubernetes asks of a virtual service beyond forwarding: part of abi.h. */
#pragma once

/* What becomes of connections of a virtual service, by where they come from. In force with the list of servers that has it. */
enum lb_policy {
	LB_POLICY_MASQ_PODS = 1, /* connections of pods get an address of this host for a source, */
	LB_POLICY_MASQ_NODE = 2, /* the host's own, */
	LB_POLICY_MASQ_OTHERS = 4, /* all others */
	LB_POLICY_DROP_EMPTY = 8,  /* without a usable server dropped, not refused */
	LB_POLICY_AUDIENCE = 16,   /* the last cell of the list's range is a struct lb_audience */
	LB_POLICY_NODE_PORT = 32, /* the address is the host's own, the port kept for the service */
	LB_POLICY_FOREIGN =
		64, /* an address that need not be anybody's here: sockets do not turn to it */
	LB_POLICY_TUNNELLED =
		128, /* other nodes send connections on to servers of this one, in tunnels */
};

/* Whose an address is that tunnels of LB_POLICY_TUNNELLED begin or end at. */
enum lb_peer {
	LB_PEER_OTHER = 1, /* another node's */
	LB_PEER_OWN = 2,   /* this node's */
};

/* For whom a virtual service has other servers, and who may use it. */
struct lb_audience {
	__u32 insiders; /* id of the service that pods and the host itself get; 0: this one */
	__u32 allowed; /* the first of the intervals that clients must be in, a range of cells of its own; 0: all may */
	__u32 allowed_count;
	__u32 pad[5];
};

/* Addresses from the first to the last. The intervals of a service are in order and do not touch. */
struct lb_interval {
	union lb_addr first, last;
};

/* How packets of the cluster's pods are known. */
enum lb_pods {
	LB_PODS_NET4 = 1, /* by their IPv4 addresses */
	LB_PODS_NET6 = 2, /* by their IPv6 addresses */
	LB_PODS_LINK = 4, /* by the interface that they come in by: it is in lb_pod_links */
};

/* Addresses of which all that no service takes is refused or dropped. Writer: user space. */
struct lb_service_range {
	union lb_addr net, mask;
	__u8 af;     /* enum lb_af */
	__u8 unused; /* what is for no service's address is dropped; else it passes */
	__u8 pad[6];
};
