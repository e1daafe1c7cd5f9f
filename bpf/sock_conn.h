/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The connections of sockets. Their servers are chosen as those of packets; the socket then talks to its server itself, so that no
 * packet is ever translated. The entry in the table has no reference in the index: it is there to be counted and listed, and
 * ends with the socket. What the socket needs to know of it is kept with the socket.
 *
 * Unlike a packet's, a socket's program may be interrupted by another on its CPU: by a packet's, and where the kernel is
 * preemptible by another socket's. So it claims its scratch records, and adds to counters atomically.
 */
#pragma once
#include "sock_call.h"
#include "schedule.h"

enum { SOCK_PEERS = 8, SCRATCH_LOOKS = 16 };

/* A server that a socket was sent to, in the place of a virtual service. */
struct sock_peer {
	union lb_addr vaddr, saddr; /* of the service, of the server */
	__be16 vport, sport;
	__u32 server;
	__u32 conn;  /* index + 1 in lb_conns; 0: the record is free */
	__u32 used;  /* tick of the last send */
	__u32 order; /* of the socket's sends */
	__u32 af;    /* enum lb_af */
};

/* Those of a socket that sends to whom it likes. */
struct sock_peers {
	struct sock_peer peer[SOCK_PEERS];
	__u64 sends;
};

#define SOCK_STORAGE(NAME, VALUE)                                                                  \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_SK_STORAGE);                                             \
		__uint(map_flags, BPF_F_NO_PREALLOC);                                              \
		__type(key, int);                                                                  \
		__type(value, VALUE);                                                              \
	} NAME SEC(".maps")

/* Of a connected socket. Writer: the datapath, which has the socket locked. The kernel frees it with the socket. */
SOCK_STORAGE(lb_sock_connected, struct sock_peer);
/* Of a socket that sends datagrams. Writer: as above. Full: the one longest not sent to gives way. */
SOCK_STORAGE(lb_sock_sent, struct sock_peers);

/* Which scratch records are taken. Not for user space. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SCRATCH_SLOTS);
	__type(key, __u32);
	__type(value, __u32);
} lb_sock_scratch SEC(".maps");

enum sock_act {
	SOCK_LET,    /* as it came: there is nothing for a socket to do */
	SOCK_SENT,   /* to the peer's server */
	SOCK_REFUSE, /* no usable server */
	SOCK_FAIL,   /* no room */
};

/* A scratch record; -1: none is free, so that many programs are interrupted at once. */
static __always_inline int scratch_take(void)
{
	__u32 first = bpf_get_smp_processor_id();

	for (__u32 i = 0; i < SCRATCH_LOOKS; i++) {
		__u32 slot = (first + i) % SCRATCH_SLOTS;
		__u32 *taken = bpf_map_lookup_elem(&lb_sock_scratch, &slot);

		if (taken && !READ_ONCE(*taken) && __sync_val_compare_and_swap(taken, 0, 1) == 0)
			return slot;
	}
	return -1;
}

static __always_inline void scratch_leave(__u32 slot)
{
	__u32 *taken = bpf_map_lookup_elem(&lb_sock_scratch, &slot);

	if (taken)
		__sync_lock_test_and_set(taken, 0);
}

/* Who a socket is to schedulers and templates: its address if it is bound to one, else its network namespace in the place of
 * an address, one that no packet comes from (0.0.0.0/8, ::/96). A port that it does not have yet is made of its cookie. */
static __always_inline void sock_client(struct bpf_sock_addr *ctx, struct new_conn *n)
{
	__u64 home = bpf_get_netns_cookie(ctx);
	struct bpf_sock *sk = ctx->sk;

	n->t.saddr = (union lb_addr){};
	if (n->af == LB_AF_INET) {
		n->t.saddr.w[0] = sk->src_ip4;
		if (!n->t.saddr.w[0])
			n->t.saddr.w[0] = bpf_htonl(home & 0xffffff);
	} else {
		for (int i = 0; i < 4; i++)
			n->t.saddr.w[i] = READ_ONCE(sk->src_ip6[i]);
		if (!n->t.saddr.d[0] && !n->t.saddr.d[1])
			n->t.saddr.d[1] = bpf_cpu_to_be64(home);
	}
	n->t.sport = sk->src_port ? bpf_htons(sk->src_port) : (__be16)bpf_get_socket_cookie(ctx);
}

static __always_inline void sock_describe(struct bpf_sock_addr *ctx, const struct sock_end *to,
					  __u32 service, struct new_conn *n)
{
	new_conn_begin(n, clock_tick(), to->af);
	n->t.daddr = to->addr;
	n->t.dport = to->port;
	n->t.proto = to->proto;
	n->virtual_service = service;
	n->origin = bpf_get_netns_cookie(ctx) == lb_sock_home ? LB_POLICY_MASQ_NODE
							      : LB_POLICY_MASQ_PODS;
	sock_client(ctx, n);
}

/* An entry for it in the table, counted as its server's, active as long as the socket is open. False: there is no room. */
static __always_inline bool sock_enter(struct new_conn *n, __u32 id, struct lb_server *srv)
{
	struct lb_server_state *st = server_state_at(id);
	union conn_word w = {};
	struct lb_conn *c;

	n->server = id;
	n->dport = new_conn_port(n, srv);
	n->fwd = srv->fwd;
	n->state = n->t.proto == IPPROTO_TCP ? LB_TCP_ESTABLISHED : LB_UDP_NORMAL;
	n->flags = LB_CONN_SOCKET;
	n->expires = n->now + state_timeout_ticks(n->state);
	n->entry = pool_take();
	if (unlikely(!n->entry))
		n->entry = pool_evict(n->now, bpf_get_prandom_u32());
	c = conn_at(n->entry - 1);
	if (!n->entry || !c || !st)
		return false;
	w.flags = n->flags; /* first, so that whoever sweeps meets no entry that is his */
	__sync_lock_test_and_set((__u32 *)&c->state, w.word);
	conn_fill(c, n);
	server_load(srv, st, n->t.proto, n->flags);
	count_conn(id);
	if (c->control)
		template_assure(c);
	return true;
}

/* Would the call's packets be masqueraded? Those of the host itself have one of its addresses anyway, the right one for where
 * they go; a pod's are for the packets' path then. */
static __always_inline bool sock_masquerades(const struct new_conn *n)
{
	return n->origin == LB_POLICY_MASQ_PODS && n->policy & LB_POLICY_MASQ_PODS;
}

/* Picks a server for the call that `n` describes, and notes it in a free record of the socket: enum sock_act. (Global: verified
 * once.) */
__noinline int sock_schedule(struct new_conn *n, struct sock_peer *peer)
{
	struct lb_server *srv;
	int id;

	if (!n || !peer)
		return SOCK_FAIL;
	/* Who may not have the service, as far as is known here: his packets will tell. */
	if (unlikely(policy_apply(n, 0) || n->policy & LB_POLICY_FOREIGN || sock_masquerades(n)))
		return SOCK_LET;
	id = new_conn_pick(n, n->virtual_service);
	srv = id > 0 ? server_at(id) : NULL;
	if (!srv) {
		if (!id && (ftp_data(n) || n->policy & LB_POLICY_DROP_EMPTY))
			return SOCK_LET;
		count_verdict(id < 0 ? -id : LB_REFUSE_NO_SERVER);
		return id < 0 ? SOCK_FAIL : SOCK_REFUSE;
	}
	if (srv->fwd != LB_FWD_MASQ) { /* it would not answer at its own address */
		template_leave(n->control);
		return SOCK_LET;
	}
	if (!sock_enter(n, id, srv)) {
		template_leave(n->control);
		count_verdict(LB_DROP_TABLE_FULL);
		return SOCK_FAIL;
	}
	peer->vaddr = n->t.daddr;
	peer->vport = n->t.dport;
	peer->saddr = srv->addr;
	peer->sport = n->dport;
	peer->af = n->af;
	peer->server = id;
	peer->conn = n->entry;
	peer->used = n->now;
	return SOCK_SENT;
}

/* Ends the connection of a record, which is free then. (Global: verified once.) */
__noinline int sock_leave(struct sock_peer *peer)
{
	struct lb_conn *c;
	__u32 index;

	if (!peer || !peer->conn)
		return 0;
	index = peer->conn - 1;
	peer->conn = 0;
	c = conn_at(index);
	if (!c || !c->af || !(c->flags & LB_CONN_SOCKET))
		return 0;
	c->af = 0;
	server_unload(c->server, c->proto, c->flags);
	template_leave(c->control);
	conn_unmark(c, LB_CONN_SOCKET);
	pool_push(index);
	return 1;
}

/* As sock_schedule(), with a scratch record of its own. */
static __always_inline int sock_open(struct bpf_sock_addr *ctx, const struct sock_end *to,
				     __u32 service, struct sock_peer *peer)
{
	int act = SOCK_FAIL, slot = scratch_take();
	struct new_conn *n;

	if (slot < 0)
		return SOCK_FAIL;
	n = new_conn_get(2 * slot + NEW_CONN);
	if (n) {
		n->scratch = slot;
		sock_describe(ctx, to, service, n);
		act = sock_schedule(n, peer);
	}
	scratch_leave(slot);
	return act;
}
