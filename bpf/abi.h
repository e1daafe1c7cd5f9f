/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Every struct and enum that user space sees, and nothing else. The layouts reach TypeScript through
 * the object's BTF (tools/abi-gen.ts); no offset is written by hand anywhere.
 *
 * "Tick": a coarse clock, jiffies64 >> lb_tick_shift, about 16 a second; 32 bits last for years.
 * Addresses are in network order in 16 bytes; an IPv4 address is in w[0] and the rest is zero.
 */
#pragma once
#include "verdict.h"

enum lb_limit {
	LB_LINE_WAYS = 7,      /* references in a line of the connection index */
	LB_LINE_SLOTS = 8,     /* slots of an index line */
	LB_CELL_SLOTS = 4,     /* server slots of a cell */
	LB_CELL_BUCKETS = 16,  /* buckets of a cell */
	LB_HASH_BUCKETS = 256, /* buckets of sh and dh: CONFIG_IP_VS_SH_TAB_BITS is 8 */
	LB_MH_BUCKETS = 4093,  /* buckets of mh: CONFIG_IP_VS_MH_TAB_INDEX is 12 */
	LB_MEMO_SERVERS = 5,   /* servers in a record of lb_memos */
	LB_MEMO_SHARE = 4,     /* so many servers in the table for each record of lb_memos */
	LB_VERDICTS = 64,      /* counters of one lane of lb_verdicts */
	LB_CONN_PACKETS = 9,   /* a connection counts its client's packets up to here */
	LB_MAX_SERVERS_PER_SERVICE = 65536,
	LB_MAX_MARK_RULES = 64,
	LB_MAX_SERVICE_RANGES = 32,
	LB_MAX_INTERVALS = 65536, /* of clients' addresses that a service allows */
	LB_SYNC_BATCH = 64,       /* entries of lb_sync_conns */
	LB_SYNC_DATAGRAMS =
		3, /* of a client, before others are told of the connection (sync_threshold) */
};

enum lb_af { LB_AF_INET = 4, LB_AF_INET6 = 6 };

enum lb_sched {
	LB_SCHED_NONE = 0,
	LB_SCHED_RR,
	LB_SCHED_WRR,
	LB_SCHED_LC,
	LB_SCHED_WLC,
	LB_SCHED_LBLC,
	LB_SCHED_LBLCR,
	LB_SCHED_DH,
	LB_SCHED_SH,
	LB_SCHED_SED,
	LB_SCHED_NQ,
	LB_SCHED_FO,
	LB_SCHED_OVF,
	LB_SCHED_MH,
	LB_SCHED_TWOS,
};

/* The last three are of connections alone: NAT of both ends (masquerade), the same of what the host itself began, and the entry
 * that the server's packets of both are found by. */
enum lb_fwd {
	LB_FWD_MASQ = 0,
	LB_FWD_LOCAL = 1,
	LB_FWD_TUNNEL = 2,
	LB_FWD_DROUTE = 3,
	LB_FWD_FULLNAT = 4,
	LB_FWD_HOST = 5,
	LB_FWD_RETURN = 6,
};

/* The TCP states of ip_vs_proto_tcp.c in its order, UDP, then the SCTP states of ip_vs_proto_sctp.c; the numbers index
 * lb_config.timeout. */
enum lb_state {
	LB_TCP_NONE,
	LB_TCP_ESTABLISHED,
	LB_TCP_SYN_SENT,
	LB_TCP_SYN_RECV,
	LB_TCP_FIN_WAIT,
	LB_TCP_TIME_WAIT,
	LB_TCP_CLOSE,
	LB_TCP_CLOSE_WAIT,
	LB_TCP_LAST_ACK,
	LB_TCP_LISTEN,
	LB_TCP_SYNACK,
	LB_UDP_NORMAL,
	LB_SCTP_NONE,
	LB_SCTP_INIT1,
	LB_SCTP_INIT,
	LB_SCTP_COOKIE_SENT,
	LB_SCTP_COOKIE_REPLIED,
	LB_SCTP_COOKIE_WAIT,
	LB_SCTP_COOKIE,
	LB_SCTP_COOKIE_ECHOED,
	LB_SCTP_ESTABLISHED,
	LB_SCTP_SHUTDOWN_SENT,
	LB_SCTP_SHUTDOWN_RECEIVED,
	LB_SCTP_SHUTDOWN_ACK_SENT,
	LB_SCTP_REJECTED,
	LB_SCTP_CLOSED,
	LB_STATES,
};

enum lb_conn_flag {
	LB_CONN_INACTIVE = 1, /* counted in inactive, not in active */
	LB_CONN_BYPASS = 2,   /* neither direction goes through the host's stack */
	LB_CONN_NOOUTPUT = 4, /* replies are not seen: direct routing, tunnel */
	LB_CONN_SPILLED = 8,  /* found by its pairs of ends; its client's line was full */
	LB_CONN_ASSURED = 16, /* a connection of it, or it itself, was established or answered */
	LB_CONN_VOID =
		32, /* a template whose server was gone, or that was to end: no longer counts; a socket's: the socket is to end */
	LB_CONN_SYNC = 64,    /* as another director told it; no packet has been here since */
	LB_CONN_SOCKET = 128, /* a socket's, while open: no packet finds it, time ends it not */
};

enum lb_server_flag {
	LB_SERVER_AVAILABLE = 1, /* in its service's list; unset: in the trash, for its connections */
};

enum lb_server_state_flag { LB_SERVER_OVERLOAD = 1 };

enum lb_service_flag { /* as linux/ip_vs.h */
		       LB_SERVICE_PERSISTENT = 1,
		       LB_SERVICE_ONEPACKET = 4,
		       LB_SERVICE_VIP =
			       0x80, /* bpvs's own: not a service, but the mark that an address is some service's (port and
				 * protocol 0); `fwmark` counts them */
		       LB_SERVICE_SCHED1 = 8,
		       LB_SERVICE_SCHED2 = 16,
		       LB_SERVICE_SCHED3 = 32,
		       LB_SERVICE_INSIDERS =
			       0x100, /* bpvs's own: in no index; another service's lb_audience leads here */
};

/* Who made an entry. A source removes only what is its own; "command" is whatever bpvsadm or the API made. */
enum lb_source { LB_SOURCE_COMMAND = 0, LB_SOURCE_MANIFEST = 1, LB_SOURCE_KUBERNETES = 2 };

enum lb_bypass_mode {
	LB_BYPASS_AUTO = 0, /* bypass the stack unless netfilter has hooks in this namespace */
	LB_BYPASS_NEVER = 1,
	LB_BYPASS_ALWAYS = 2,
};

/* Another balancer of this host, by connection tracking (handover.h). */
enum lb_handover {
	LB_HANDOVER_NONE = 0,
	LB_HANDOVER_FROM = 1, /* what is new is ours, his connections stay his */
	LB_HANDOVER_TO = 2,   /* what is new is his, our connections stay ours */
};

union lb_addr {
	__u8 b[16];
	__be32 w[4];
	__u64 d[2];
};

#include "abi_policy.h"

/* A virtual service; its index is its id, which it keeps for life. `list` is the switch: one aligned
 * store makes a new list of servers current. */
struct lb_service {
	union lb_addr vaddr;
	__be16 vport;
	__u8 proto;     /* IPPROTO_*; 0 with a fwmark */
	__u8 af;        /* enum lb_af; 0: the record is free */
	__u32 fwmark;   /* 0: by address */
	__u32 list;     /* cell of the lb_list in force; never 0 while the service is indexed */
	__u32 flags;    /* enum lb_service_flag */
	__u32 timeout;  /* persistence, seconds */
	__be32 netmask; /* persistence mask; IPv6: prefix length, host order */
	__u32 source;   /* enum lb_source */
	__u32 next;     /* head of its removed servers; of a free record: free list */
	__u32 edited;   /* monotonic seconds of the last edit */
	__u32 pair; /* the service of its insiders; of that: whose it is; 0: none. User space's own */
	__be32 affinity; /* services of the same number (and port) and family share templates; 0: with nobody */
	__be16 affinity_port; /* 0: of all protocols */
	__u16 pad;
};

/* Head of a list of servers, the first cell of a range of cells; the slots follow, in the order of the
 * kernel's list (a new server at the head). Never changed once a service points at it. */
struct lb_list {
	__u32 count;
	__u32 service;    /* whose list this is; a reader that finds another retries */
	__u32 max_weight; /* wrr: mw = max - (di - 1) */
	__u32 gcd;        /* wrr: di */
	__u8 sched;       /* enum lb_sched */
	__u8 flags;       /* enum lb_service_flag */
	__u8 order;       /* the range has 1 << order cells */
	__u8 policy;      /* enum lb_policy */
	__u32 total_weight;
	__u32 next; /* free list of this order */
	__u32 table; /* sh, dh, mh: first cell of the buckets, a range of their own; 0: no bucket has a server */
};

struct lb_slot {
	__u32 server;
	__s32 weight;
};

union lb_cell {
	struct lb_list list;
	struct lb_audience audience;
	struct lb_interval interval;
	struct lb_slot slot[LB_CELL_SLOTS];
	__u16 bucket[LB_CELL_BUCKETS]; /* which slot of the list a hash leads to */
};

/* A real server of one service; its index is its id. Reused only when nothing refers to it any more. */
struct lb_server {
	union lb_addr addr;
	__be16 port;
	__u8 af;       /* enum lb_af; 0: the record is free */
	__u8 fwd;      /* enum lb_fwd */
	__u32 flags;   /* enum lb_server_flag */
	__u32 service; /* id; kept in the trash */
	__s32 weight;
	__s32 last_weight;  /* last one that was not 0 (mh) */
	__u32 rank;         /* position in the list, counted from its tail */
	__u32 upper, lower; /* thresholds; 0: none */
	__u8 tun_type, tun_flags;
	__be16 tun_port;
	__u32 next; /* removed servers of its service; of a free record: free list */
	__u32 removed; /* monotonic seconds when it went to the trash; in a list: since when it drains, 0: it does not */
	__u32 before; /* in the trash: id of the server before it in the list then, 0: it was the head */
};

/* What the datapath counts for a server. Writer: the datapath (and a zeroing when an id is reused). */
struct lb_server_state {
	__s32 active;
	__s32 inactive;
	__s32 persistent;
	__u32 flags;     /* enum lb_server_state_flag */
	__u32 hop;       /* next hop: lb_next_hop index << 16 | its generation; 0: none */
	__u32 hop_token; /* routes as they were then */
	__s32 memos;     /* lblc, lblcr: addresses remembered as its */
	__u32 pad;
};

/* A scheduler's state. Writer: the datapath; user space by compare-and-exchange.
 * rr: id of the server used last. wrr: id of the server used last << 32 | current weight. */
struct lb_service_state {
	__u64 cursor;
	__u32 epoch; /* lblc, lblcr: of what is remembered; counts each time that all is forgotten. User space's, for good */
	__u32 pad[5];
};

/* lblc, lblcr: where the packets of a service to an address were sent. Of an entry that has more servers than fit, the rest
 * are in records chained to it, the ones longest known last. */
struct lb_memo {
	union lb_addr addr;
	__u32 service; /* 0: the record is free, or goes on with another */
	__u32 epoch;   /* of the service then; when it is another, the entry is void */
	__u32 used;    /* tick of the last look */
	__u32 changed; /* lblcr: tick when a server came or went */
	__u32 next;    /* entries in the same line; of a free record: free list */
	__u32 more;    /* the record that goes on with this one's servers; 0: none */
	__u16 count;
	__u8 sched; /* enum lb_sched */
	__u8 pad;
	__u32 server[LB_MEMO_SERVERS]; /* ids, the newest last */
};

/* Leads to the entries of some addresses. */
struct lb_memo_line {
	__u32 head;
	__u32 lock; /* held by whoever changes an entry of the line */
};

/* Free records of lb_memos. */
struct lb_memo_pool {
	__u64 head; /* count of changes << 32 | first free record */
	__u32 high; /* records that were ever used */
	__u32 used;
};

/* One lane of one server's counters. Bytes are IP lengths. */
struct lb_counters {
	__u64 conns, in_pkts, out_pkts, in_bytes, out_bytes;
	__u64 pad[3];
};

/* Rates of a server, a service or everything, estimated as ip_vs_est.c does. `last_*`: of a server, its counters when
 * they were last looked at (packets modulo 2^32); of a service and of everything, what was counted since then. */
struct lb_rates {
	__u32 last_conns, last_in_pkts, last_out_pkts;
	__u32 cps, in_pps, out_pps; /* a second, times 2^10 */
	__u64 last_in_bytes, last_out_bytes;
	__u64 in_bps, out_bps; /* a second, times 2^5 */
};

/* Eight tagged references in one cache line: (tag << 32 | reference), 0: free. */
struct lb_line {
	__u64 slot[LB_LINE_SLOTS];
};

#include "abi_conn.h"

/* A way out of the host. Shared by all connections that use it. */
struct lb_next_hop {
	__u32 ifindex;
	__u8 dmac[6]; /* as in the frame: destination, source */
	__u8 smac[6];
	__u32 checked;    /* tick of the last look at fib and neighbour */
	__u32 generation; /* 16 bits; changes with the content; 0: being changed */
	__u32 lock;
	__u32 kicked; /* tick when a packet last went by the kernel's own neighbour code */
	__u16 mtu;
	__u16 flags;       /* enum lb_link_flag */
	union lb_addr src; /* what the host itself sends from, that way; 0: not asked */
	__u32 pad[3];
};

/* What may change while the programs run. Writer: user space. */
struct lb_config {
	__u64 generation;         /* counts edits: who sees another number reads the table anew */
	__u32 features;           /* enum lb_feature */
	__u32 masquerades;        /* connections are or were masqueraded. Writer: the datapath */
	__u32 bypass;             /* enum lb_bypass_mode */
	__u32 timeout[LB_STATES]; /* seconds, per state */
	__u32 conn_reuse_mode;
	__u32 expire_nodest_conn;
	__u32 sloppy_tcp;
	__u32 sloppy_sctp;
	__u32 expire_quiescent_template; /* a template does not lead to a server of weight 0 */
	__u32 lblc_expiration, lblcr_expiration;   /* seconds */
	__u32 drop_entry, drop_packet, secure_tcp; /* modes 0 to 3 */
	__u32 am_droprate; /* drop_packet 3 drops one new connection in so many */
	__u32 amemthresh;  /* memory is low with less than this left, in pages: see lb_defence */
	__u32 run_estimation;
	__u32 mark_rules; /* the list in force: its first record in lb_mark_rules << 16 | how many */
	__u32 schedule_icmp; /* an ICMP error about no connection begins one */
	__u32 nat_icmp_send; /* a server's packet of no connection is answered */
	__u32 handover;      /* enum lb_handover */
	__u32 masquerade_first,
		masquerade_count; /* in one aligned word: ports that masqueraded connections are sent from, host order */
	__u32 pods_known; /* enum lb_pods */
	__u32 ranges;     /* records of lb_service_ranges in force */
	__u32 peers;      /* addresses in lb_peers */
	__u32 pad;
	__be32 range_near4, range_near4_mask, range_near6,
		range_near6_mask; /* what the ranges of a family have in common in their first 32 bits */
	union lb_addr pods4, pods4_mask, pods6, pods6_mask; /* LB_PODS_NET4, LB_PODS_NET6 */
	union lb_addr node_port4,
		node_port6; /* an address that node ports are served at, of each family; 0: none */
};

/* What gives packets a firewall mark, where nobody did before. */
struct lb_mark_rule {
	union lb_addr saddr, daddr; /* without the bits that do not count */
	union lb_addr smask, dmask; /* bits that count */
	__u32 mark;
	__u32 ifindex;               /* that it comes in by; 0: any */
	__u16 port_first, port_last; /* of the destination */
	__u8 proto;                  /* IPPROTO_*; 0: any */
	__u8 af;                     /* enum lb_af; 0: any */
	__u8 pad[2];
};

/* What the defences are, once a second. Memory is what is left of lb_conns, in pages of 4 KiB. Writer: the timer. */
struct lb_defence {
	__u32 used; /* connections, when they were last counted */
	__u32 low;  /* memory is */
	__u32 drop_entry, secure_tcp;
	__u32 drop_rate, drop_counter; /* of new connections one in so many; to the next */
	__u32 updated, pad;            /* tick */
};

enum lb_feature {
	LB_FEATURE_FWMARK = 1,     /* some service is keyed by mark */
	LB_FEATURE_PORT0 = 2,      /* some service has port 0 */
	LB_FEATURE_MARK_RULES = 4, /* there are mark rules */
	LB_FEATURE_FTP = 8,        /* some service of TCP has FTP's port */
	LB_FEATURE_RANGES = 16,    /* there are service ranges */
	LB_FEATURE_PEERS = 32,     /* other nodes send connections on to this one: lb_peers */
	LB_FEATURE_HANDOVER =
		64, /* another balancer has connections of this host's: lb_config.handover */
};

/* User space's own book-keeping in the table; of it the datapath reads how many ids are in use, to estimate rates. "Retired": no longer in force, but free only
 * after the next grace period, because a program that runs now may still read it. */
struct lb_book {
	__u32 service_high, server_high,
		cell_high;               /* ids and cells below were given out at least once */
	__u32 service_free, server_free; /* heads of the free lists, by `next` */
	__u32 service_retired;           /* head of the retired services, by `next` */
	__u32 cell_retired,
		cells_retired; /* head of the retired ranges, by `next`; cells in them */
	__u32 cells_used;      /* cells of lists in force */
	__u32 cell_free[20];   /* heads of the free ranges, by order */
	__u32 services, servers,
		trashed; /* services in force; servers in lists; removed servers kept */
	__u32 fwmark_services, port0_services; /* what lb_config.features says, counted */
	__u32 stale_bits;                      /* filter bits that outlived what set them */
	__u32 sweep;        /* service whose removed servers are looked at next */
	__u32 editing;      /* an edit is under way; left set by a writer that died in it */
	__u32 ftp_services; /* as fwmark_services */
};

struct lb_clock {
	__u64 jiffies;
	__u64 ktime_ns;
	__u32 sources_wanted; /* the kernel does not tell what the host sends from: user space has to (lb_sources) */
	__u32 conntrack_readable; /* connection tracking can be asked whose a packet is (handover.h) */
};

#include "abi_host.h"
#include "abi_sync.h"
