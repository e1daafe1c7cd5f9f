/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Why a packet was refused, dropped or otherwise noted; part of abi.h. */
#pragma once

/* What became of a packet that was ours. 0 is "go on"; the rest is counted by name. */
enum lb_verdict {
	LB_OK = 0,
	LB_REFUSE_NO_SERVER, /* no usable server: ICMP port unreachable, as ip_vs_leave() */
	LB_REFUSE_NO_CONN, /* a TCP segment of no connection, and no socket of this host's either: reset */
	LB_DROP_SERVER_GONE, /* the connection's server was removed: silently dropped, as ip_vs_in() */
	LB_DROP_MALFORMED,     /* addressed to a service, but no valid packet */
	LB_DROP_TABLE_FULL,    /* no room for the connection, not even by eviction */
	LB_DROP_BUSY,          /* the line of the connection index stayed locked */
	LB_DROP_REWRITE,       /* the packet could not be changed */
	LB_DROP_REFUSE_FAILED, /* a refusal was due but could not be built */
	LB_EVICTED,            /* a live connection gave way to a new one */
	LB_ENTRY_LOST,         /* an entry could not be given back to the pool */
	LB_ECHO,               /* an ICMP echo to a VIP was answered */
	LB_ICMP_FORWARD,       /* an ICMP error was translated */
	LB_MEMO_FULL, /* lblc, lblcr: no room to remember where an address was sent; it was sent all the same */
	LB_REFUSE_TTL, /* by direct routing or tunnel, at the end of its life: time exceeded */
	LB_REFUSE_TOO_BIG, /* the same, greater than the way to the server takes: fragmentation needed, packet too big */
	LB_DROP_NARROW,   /* the way to a tunnel's server takes less than any link must */
	LB_DROP_SEGMENTS, /* many segments in one, for a tunnel whose checksum only one could have */
	LB_REFUSE_NO_ROUTE, /* the same, no way to the server: host unreachable */
	LB_DROP_DEFENCE,    /* a new connection was not made: the tunable drop_packet */
	LB_EXPIRED_EARLY,   /* a connection was ended before its time: the tunable drop_entry */
	LB_DROP_FRAGMENT, /* a fragment for a service that its first one does not tell of, or that overlaps it */
	LB_REFUSE_STRAY, /* a server's packet of no connection: port unreachable (the tunable nat_icmp_send) */
	LB_REFUSE_NO_PORT, /* the address is a service's, the port none: refused as without a server */
	LB_DROP_UNUSED,    /* an address of a service range that is no service's */
	LB_DROP_NO_LOCAL,      /* no server on this host, where others must not be used */
	LB_DROP_SOURCE,        /* the service is not for whoever asks */
	LB_DROP_NO_MASQUERADE, /* no port of this host's was free towards the server */
	LB_MASQUERADED,        /* a connection got a port of this host's */
	LB_DROP_PEER, /* in a tunnel to a service of this node, but not from another node */
	LB_DROP_LOOP, /* came in a tunnel, and was to go on in another */
	LB_VERDICT_MAX,
};
