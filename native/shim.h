/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a foreign function interface does badly, in C: callbacks with a va_list, system calls that libbpf does not
 * know, many small calls that belong together, netlink. The rest of libbpf is called directly.
 *
 * Unless a function says otherwise it returns 0 (or what it counts) and, on failure, a negative errno.
 */
#pragma once
#include <stdint.h>
#include <linux/types.h>

/* ---- log.c: libbpf's messages ---- */

/* Collects libbpf's messages in place of printing them. Call once before any other. */
void bpvs_log_init(void);
/* Moves up to `size` bytes of what was collected (the end of it, if there is more) to `out`; returns how many. */
int64_t bpvs_log_take(char *out, uint64_t size);

/* ---- maps.c: pinned maps ---- */

struct bpvs_map {
	__u64 address; /* where it is mapped; 0: it is not */
	__u64 bytes;   /* of the mapping; 0: it can't be mapped */
	__s32 fd;
	__u32 entries;
	__u32 value_size;
	__u32 type; /* BPF_MAP_TYPE_* */
};

/* Opens the pins dir/name of `count` names (each ended by a NUL, one after the other). On failure everything is closed
 * again and *failed is the number of the name. */
int bpvs_maps_open(const char *dir, const char *names, uint32_t count, struct bpvs_map *out,
		   uint32_t *failed);
/* Maps one of them, read-only if it is frozen. */
int bpvs_map_mmap(struct bpvs_map *map);
/* Unmaps and closes. */
void bpvs_maps_close(const struct bpvs_map *maps, uint32_t count);

/* ---- links.c: programs and where they are attached ---- */

enum bpvs_hook {
	BPVS_TCX_INGRESS = 46,
	BPVS_TCX_EGRESS = 47,
	BPVS_XDP = 37
}; /* enum bpf_attach_type */

/* Attaches; returns the link's descriptor. `flags`: XDP_FLAGS_* with BPVS_XDP, else 0. For a hook of control groups `ifindex`
 * is the descriptor of a group's directory, for an iterator 0. */
int bpvs_link_create(int prog_fd, int ifindex, uint32_t hook, uint32_t flags);
int bpvs_link_update(int link_fd, int prog_fd);
int bpvs_pin(int fd, const char *path);
/* Descriptor of what is pinned there. */
int bpvs_get(const char *path);
/* out: type of link (BPF_LINK_TYPE_*), ifindex (0: the interface is gone), id of the program. */
int bpvs_link_info(int link_fd, uint32_t out[3]);
/* Id of a program. */
int bpvs_prog_id(int prog_fd, uint32_t *id);
/* The ways without links, for kernels before 6.6: filters of ours on clsact, told by handle and priority. */
int bpvs_clsact_attach(int prog_fd, int ifindex, int egress);
int bpvs_clsact_detach(int ifindex, int egress);
/* Removes the clsact qdisc if there is no filter on it, neither ours nor anybody's. */
int bpvs_clsact_tidy(int ifindex);
/* *id: the program's, 0 if there is none of ours. */
int bpvs_clsact_query(int ifindex, int egress, uint32_t *id);

struct bpvs_run {
	__u64 data_in, data_out; /* addresses */
	__u64 ctx_in, ctx_out;
	__u32 data_in_size, data_out_size; /* out: in: room, afterwards: bytes */
	__u32 ctx_in_size, ctx_out_size;
	__u32 repeat;
	__u32 retval;
	__u32 duration_ns;
	__u32 pad;
};
/* BPF_PROG_RUN. */
int bpvs_prog_run(int prog_fd, struct bpvs_run *run);
int bpvs_possible_cpus(void);

/* ---- hash.c: the datapath's hashing (bpf/hash.h) ---- */

struct bpvs_endpoint {
	__u8 addr[16];
	__be16 port;
	__u8 proto;
	__u8 af;
};

/* out: four words for each: first line, second line, tag, bit of the first half of lb_filter. */
void bpvs_hash_services(const __u64 *key, const struct bpvs_endpoint *in, uint32_t count,
			uint32_t line_mask, uint32_t filter_mask, uint32_t *out);
/* out: one word for each: bit of lb_filter, in its second half. */
void bpvs_hash_servers(const __u64 *key, const struct bpvs_endpoint *in, uint32_t count,
		       uint32_t filter_mask, uint32_t *out);

/* ---- system.c: locks, namespaces, barriers ---- */

/* Opens a directory, to lock it. */
int bpvs_dir_open(const char *dir);
/* flock, waiting. -ESTALE: the directory was removed meanwhile. */
int bpvs_lock(int fd);
int bpvs_unlock(int fd);
int bpvs_close(int fd);
/* When it returns, every program that ran when it was called has ended (it waits for an RCU grace period). */
int bpvs_grace_period(void);
/* Cookie of the calling thread's network namespace. */
int bpvs_netns_cookie(uint64_t *cookie);
/* Cookies of namespaces by path (NUL-ended, one after the other); 0 where there is no telling. */
int bpvs_netns_cookies(const char *paths, uint32_t count, uint64_t *out);
/* Whether there is a bpf file system at `path`: 1 or 0. */
int bpvs_is_bpffs(const char *path);
/* Mounts one on `path` in the mount namespace `mount_ns` (a path under /proc). */
int bpvs_mount_bpffs(const char *mount_ns, const char *path);

/* ---- rtnl.c: interfaces and addresses ---- */

enum bpvs_interface_flag {
	BPVS_PEER_ELSEWHERE = 1, /* its link is in another namespace */
	BPVS_NO_ETHERNET = 2,    /* its packets have no Ethernet header, */
	BPVS_BARE = 4,           /* nor any other in front of the IP header */
	BPVS_AGGREGATED =
		8, /* it is one of a bond's or team's: its packets come in by that once more */
};

struct bpvs_interface {
	__s32 ifindex;
	__u32 flags; /* IFF_* */
	__u32 mtu;
	__s32 master; /* ifindex of the bridge or bond it belongs to; 0: none */
	__s32 link;   /* ifindex of the peer or lower interface; 0: none */
	__u32 more;   /* enum bpvs_interface_flag */
	__u8 mac[6];
	__u8 pad[2];
	char name[16];
	char kind[16]; /* "veth", "bridge", ...; "" for a device of its own */
};

/* Lists interfaces; returns how many there are, of which at most `room` are in `out`. */
int bpvs_interfaces(struct bpvs_interface *out, uint32_t room);
/* The type (RTN_*) of the route that a packet to the address (4 or 16 bytes by `family` 4 or 6) would take; RTN_UNSPEC: there
 * is none. `fd` of bpvs_rtnl(). */
int bpvs_route_type(int fd, uint32_t family, const uint8_t *address);
/* The address (4 or 16 bytes by `family`) that this namespace sends from to another one. ENETUNREACH and the like: none. */
int bpvs_source(uint32_t family, const uint8_t *to, uint8_t *out);
/* How many filters there are on clsact, whoever's (one may count as two); 0 too where there is no clsact. */
int bpvs_clsact_filters(int ifindex, int egress);
/* A netlink socket of the calling thread's namespace. */
int bpvs_rtnl(void);
/* Starts a thread that writes a byte to the returned stream socket when an interface or address has changed. It ends
 * when the socket is closed. */
int bpvs_watch(void);

/* ---- steering.c: the veth for marked packets, and the policy routing that sends them there ---- */

/* A rule of policy routing. */
struct bpvs_rule {
	__u32 pref;
	__u32 table;
	__u32 mark, mask; /* mask 0: any mark */
	__u32 target;     /* of a goto */
	__u8 family;      /* 4 or 6 */
	__u8 action;      /* FR_ACT_* */
	__u8 protocol;    /* who made it: RTPROT_* */
	__u8 more;        /* it has selectors that are not told of here */
	char iif[16];
};

/* Lists the rules of `family` (4 or 6) in their order; returns how many there are, of which at most `room` are in `out`. */
int bpvs_rules(uint32_t family, struct bpvs_rule *out, uint32_t room);
/* Adds a rule behind those of its preference, or removes the first that is the same. */
int bpvs_rule_change(const struct bpvs_rule *rule, int add);
/* Makes the veth `name`, whose other end `peer` is in the same namespace; both ends have the address `mac`, are up and
 * do no ARP; the peer has a dummy IPv4 address. */
int bpvs_veth_make(const char *name, const char *peer, const uint8_t *mac);
int bpvs_link_delete(int ifindex);
/* Makes the default route of `family` in a table lead out of an interface. */
int bpvs_route_default(uint32_t family, uint32_t table, int ifindex);

/* ---- netlink.c ---- */

/* Sends messages to a netlink family (NETLINK_*) and fills `out` with the answers; returns their bytes. EMSGSIZE: there are more. */
int bpvs_netlink(int protocol, const void *request, uint32_t length, void *out, uint32_t room);

/* ---- xtables.c ---- */

/* Gets or sets an option of iptables (IPT_SO_*, IP6T_SO_*) of `family` (4 or 6). A table that is replaced leaves its counters in
 * `counters`; NULL for other options. */
int bpvs_xtables_get(uint32_t family, int option, void *value, uint32_t length);
int bpvs_xtables_set(uint32_t family, int option, void *value, uint32_t length, void *counters);

/* ---- sync.c: what the sync daemon needs ---- */

/* A multicast group as an interface reaches it. */
struct bpvs_group {
	__u8 addr[16]; /* as in lb_addr */
	__u32 family;  /* 4 or 6 */
	__u32 ifindex;
	__u16 port; /* host order */
	__u8 ttl;
	__u8 pad[5];
};

/* Sockets that send to the group and that hear it; they don't block. */
int bpvs_group_send(const struct bpvs_group *group);
int bpvs_group_receive(const struct bpvs_group *group);
/* Sends a datagram; bytes sent. */
int bpvs_send(int fd, const void *message, uint32_t size);
/* flock without waiting: 1: it is ours, 0: somebody else has it. */
int bpvs_try_lock(int fd);

struct lb_conn;
struct lb_config;

/* What others were last told of an entry of the connection table. All 0: nothing. */
struct bpvs_told {
	__u32 mark; /* which connection it was */
	__u32 expires;
	__u32 state;
};

struct bpvs_sync_scan {
	const volatile struct lb_conn *conns;
	const volatile struct lb_config *config;
	struct bpvs_told *told; /* one for each entry */
	__u32 at, end;          /* in: entries to look at; out: `at` is where to go on */
	__u32 now;              /* tick */
	__u32 hz, tick_shift;
	__u32 refresh_s; /* others' copies are renewed after this time in use, or earlier */
};

/* Looks for entries that others don't know, or not as they are now, and notes them as told; returns how many there are in
 * `due`. */
uint32_t bpvs_sync_scan(struct bpvs_sync_scan *scan, uint32_t *due, uint32_t room);
