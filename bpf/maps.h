/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Every map, and one accessor for each. All tables are arrays that user space maps into its memory: a look-up is
 * inlined by the JIT, and neither listing nor programming needs a system call per entry.
 * The sizes given here are the smallest; user space sets the real ones, and the masks below, before loading.
 */
#pragma once
#include "bpf_env.h"

/* Fixed at load; the verifier prunes and folds by them. Pinned with the maps as lb_rodata. */
const volatile __u64 lb_hash_key[8];           /* secret, random, odd */
const volatile __u32 lb_service_line_mask = 0; /* lines of lb_service_index - 1 */
const volatile __u32 lb_filter_mask = 0;       /* bits of one half of lb_filter - 1 */
const volatile __u32 lb_conn_line_mask = 0;    /* lines of lb_conn_index - 1 */
const volatile __u32 lb_conn_max = 0;          /* entries of lb_conns */
const volatile __u32 lb_server_max = 0; /* entries of lb_servers: the stride of a lane of lb_stats */
const volatile __u32 lb_lane_mask = 0; /* lanes of lb_stats and lb_verdicts - 1; lane = CPU & mask */
const volatile __u32 lb_lanes_shared = 0; /* more CPUs than lanes: count with atomics */
const volatile __u32 lb_tick_shift = 4;   /* tick = jiffies64 >> shift */
const volatile __u32 lb_hz = 250;         /* jiffies in a second */

#define LB_ARRAY(NAME, VALUE, ENTRIES)                                                             \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_ARRAY);                                                  \
		__uint(map_flags, BPF_F_MMAPABLE);                                                 \
		__uint(max_entries, ENTRIES);                                                      \
		__type(key, __u32);                                                                \
		__type(value, VALUE);                                                              \
	} NAME SEC(".maps")

/* Settings and the generation number. Writer: user space. Reader: both. One entry. */
LB_ARRAY(lb_config, struct lb_config, 1);
/* User space's allocation state, under the lock. The datapath reads `service_high` and `server_high`. One entry. */
LB_ARRAY(lb_book, struct lb_book, 1);
/* (address, port, protocol) -> service id: tagged references, two lines to choose from. Writer: user space, one
 * store per change. Full: TABLE_FULL to the caller. */
LB_ARRAY(lb_service_index, struct lb_line, 1);
/* Services by id (0: none). Writer: user space. */
LB_ARRAY(lb_services, struct lb_service, 2);
/* Scheduler state by service id. Writer: the datapath; user space by compare-and-exchange. */
LB_ARRAY(lb_service_states, struct lb_service_state, 2);
/* Lists of servers: ranges of cells. Writer: user space; a range in force is never changed. Full: TABLE_FULL. */
LB_ARRAY(lb_cells, union lb_cell, 2);
/* Servers by id (0: none). Writer: user space. Full: TABLE_FULL. */
LB_ARRAY(lb_servers, struct lb_server, 2);
/* Counts and next hop by server id. Writer: the datapath. */
LB_ARRAY(lb_server_states, struct lb_server_state, 2);
/* Counters, [lane][server id]. Writer: the datapath, each lane by its CPU. */
LB_ARRAY(lb_stats, struct lb_counters, 2);
/* Counters at the last zeroing, and of servers gone, [0..server_max): by server, then by service id. User space's. */
LB_ARRAY(lb_stats_base, struct lb_counters, 2);
/* Rates, [0..server_max): by server, then by service id; of everything at service id 0. Writer: the datapath's timer; user
 * space zeroes. */
LB_ARRAY(lb_rates, struct lb_rates, 2);
/* What lblc and lblcr remember, and the lines that lead there; record 0 is none. Writer: the datapath, under the line's lock.
 * Full: an address is not remembered (LB_MEMO_FULL). */
LB_ARRAY(lb_memos, struct lb_memo, 2);
LB_ARRAY(lb_memo_lines, struct lb_memo_line, 2);
/* Free records. Writer: the datapath by compare-and-exchange. One entry. */
LB_ARRAY(lb_memo_pool, struct lb_memo_pool, 1);
/* Two bitmaps, for service and server endpoints: a clear bit says that a packet is not ours. Writer: user space,
 * which sets a bit before the entry and clears it long after. Stale bits cost time, nothing else. */
LB_ARRAY(lb_filter, __u64, 2);
/* Rules that mark packets, two lists of them of which lb_config.mark_rules names the one in force. Writer: user space, the
 * other list. Full: TABLE_FULL to the caller. */
LB_ARRAY(lb_mark_rules, struct lb_mark_rule, 2 * LB_MAX_MARK_RULES);
/* Connections, from a pool. Writer: the datapath. Full: the one nearest its end among some gives way (LB_EVICTED). */
LB_ARRAY(lb_conns, struct lb_conn, 2);
/* Client endpoint -> connections. Writer: the datapath, under the line's lock; a reference is one aligned store. */
LB_ARRAY(lb_conn_index, struct lb_conn_line, 1);
/* The pool's free entries, [lane]. Writer: the datapath by compare-and-exchange. */
LB_ARRAY(lb_conn_pools, struct lb_conn_pool, 1);
/* Next hops, shared. Writer: the datapath. A slot taken over has another generation. */
LB_ARRAY(lb_next_hops, struct lb_next_hop, 1024);
/* Interfaces of note, by ifindex. Writer: user space, as it attaches. Reader: the making of a next hop. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct lb_link);
} lb_links SEC(".maps");
/* What the host sends from to servers in tunnels, by their address (IPv4's mapped into IPv6), for kernels that do not tell the
 * programs. Writer: user space. Reader: the making of a next hop. Full: a server is not there. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, union lb_addr);
	__type(value, struct lb_tunnel_source);
} lb_sources SEC(".maps");
/* What the host sends from by an interface, by ifindex, and by any other (0), for the same kernels. Writer: user space, as it
 * attaches. Reader: masquerade. Full: as by any other. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct lb_link_source);
} lb_link_sources SEC(".maps");
/* The interfaces that pods are behind, by ifindex (LB_PODS_LINK). Writer: user space, as they come and go. Full: the pods of
 * the interface are taken for others. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u32);
} lb_pod_links SEC(".maps");
/* Nodes whose tunnels are taken, and this one, by their addresses (IPv4's mapped into IPv6): enum lb_peer. Writer: user space.
 * Full: an address is not there. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, union lb_addr);
	__type(value, __u32);
} lb_peers SEC(".maps");
/* Service ranges, lb_config.ranges of them. Writer: user space. Full: TABLE_FULL to the caller. */
LB_ARRAY(lb_service_ranges, struct lb_service_range, LB_MAX_SERVICE_RANGES);
/* Packets by verdict, [lane][enum lb_verdict]. Writer: the datapath, each lane by its CPU. */
LB_ARRAY(lb_verdicts, __u64, LB_VERDICTS);
/* The kernel's coarse clock, for user space: the program lb_read_clock fills it. One entry. */
LB_ARRAY(lb_clock, struct lb_clock, 1);

/* What the sync daemon enters next: up to LB_SYNC_BATCH connections. Writer: the backup, under the lock; the program lb_sync
 * writes the verdicts. */
LB_ARRAY(lb_sync_conns, struct lb_sync_conn, LB_SYNC_BATCH);
/* The sync daemons, by enum lb_sync_role. Writer: each its own; `stop`: whoever ends it. */
LB_ARRAY(lb_sync_daemons, struct lb_sync_daemon, LB_SYNC_ROLES);
/* Defences against floods, as they are now. One entry. Writer: the timer that expires connections. */
LB_ARRAY(lb_defence, struct lb_defence, 1);

/* The timer that expires connections with no process of ours alive. One entry; not for user space. */
struct lb_sweeper {
	struct bpf_timer timer;
	__u64 due;    /* when the timer is to run next, ns */
	__u32 cursor; /* next entry to look at */
	__u32 slice;  /* of the servers and services whose rates are estimated next */
	__u32 memo;   /* next record of lb_memos to look at */
	__u32 used;   /* connections seen in this round */
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct lb_sweeper);
} lb_sweepers SEC(".maps");

/* Enums that no map mentions, kept in the BTF for user space. */
const enum lb_limit *lb_keep_limit;
const enum lb_af *lb_keep_af;
const enum lb_verdict *lb_keep_verdict;
const enum lb_sched *lb_keep_sched;
const enum lb_fwd *lb_keep_fwd;
const enum lb_state *lb_keep_state;
const enum lb_conn_flag *lb_keep_conn_flag;
const enum lb_template *lb_keep_template;
const enum lb_end_how *lb_keep_end_how;
const enum lb_ended *lb_keep_ended;
const enum lb_server_flag *lb_keep_server_flag;
const enum lb_server_state_flag *lb_keep_server_state_flag;
const enum lb_service_flag *lb_keep_service_flag;
const enum lb_source *lb_keep_source;
const enum lb_bypass_mode *lb_keep_bypass_mode;
const enum lb_handover *lb_keep_handover;
const enum lb_feature *lb_keep_feature;
const enum lb_policy *lb_keep_policy;
const enum lb_pods *lb_keep_pods;
const enum lb_peer *lb_keep_peer;
const enum lb_link_flag *lb_keep_link_flag;
const enum lb_sync_role *lb_keep_sync_role;
