/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What user space tells the programs of the host; part of abi.h. */
#pragma once

enum lb_link_flag {
	LB_LINK_PEER =
		1, /* a veth whose other end is in another namespace: packets can be handed to that end at once */
	LB_LINK_BARE = 2, /* its packets have no Ethernet header */
};

/* What user space knows of an interface. */
struct lb_link {
	__u32 flags; /* enum lb_link_flag */
	__u8 mac[6]; /* its address: another one there means another interface under the same index */
	__u16 pad;
};

/* What the host sends from by an interface; 0: it has no address of that family. */
struct lb_link_source {
	union lb_addr ipv4, ipv6;
};

/* What the host sends from to some address. */
struct lb_tunnel_source {
	union lb_addr addr;
};
