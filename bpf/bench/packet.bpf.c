// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What a packet costs, for bench/packet.ts. Each program writes a packet of the next flow over the one it was given (so a
 * repeated BPF_PROG_RUN does not time its own output) and then does one thing; bench_restore does nothing more and is
 * subtracted. The floors use plain BPF hash maps: what any balancer made of them must pay.
 */
#include "../hop.h"
#include "../nat.h"
#include "../parts.h"

char _license[] SEC("license")
= "Dual BSD/GPL";

enum bench_shape { SHAPE_REQUEST, SHAPE_REPLY, SHAPE_FOREIGN };

/* What to send. Writer: user space. */
struct bench_plan {
	union lb_addr vaddr, server, client;
	__be16 vport, sport; /* the service's and the server's port */
	__u16 shape;         /* enum bench_shape */
	__u8 proto;
	__u8 tcp_flags;
	__u32 flows;    /* how many flows to go round */
	__u32 services; /* requests go round so many services: vaddr + n */
	__u32 next;     /* the next flow; user space sets where to begin */
	__u32 action;   /* what the last run did */
	__u32 length;   /* bytes of the packet, from its Ethernet header */
	__u32 pad;
};
LB_ARRAY(bench_plans, struct bench_plan, 1);

/* Keys as a balancer with a table for each family would have them. */
struct floor_key4 {
	__be32 saddr, daddr;
	__be16 sport, dport;
	__u32 proto;
};
struct floor_key6 {
	union lb_addr saddr, daddr;
	__be16 sport, dport;
	__u32 proto;
};
union floor_key {
	struct floor_key4 v4;
	struct floor_key6 v6;
};
struct floor_value {
	__u64 rewrite[6];
};

#define FLOOR_MAP(NAME, TYPE, KEY, ENTRIES)                                                        \
	struct {                                                                                   \
		__uint(type, TYPE);                                                                \
		__uint(max_entries, ENTRIES);                                                      \
		__type(key, KEY);                                                                  \
		__type(value, struct floor_value);                                                 \
	} NAME SEC(".maps")

/* Servers, by a number where a floor key has the destination. Writer: user space. */
FLOOR_MAP(bench_hash4, BPF_MAP_TYPE_HASH, struct floor_key4, 65536);
FLOOR_MAP(bench_hash6, BPF_MAP_TYPE_HASH, struct floor_key6, 65536);
/* Connections. Writer: user space; the floor "insert". */
FLOOR_MAP(bench_lru4, BPF_MAP_TYPE_LRU_HASH, struct floor_key4, 1048576);
FLOOR_MAP(bench_lru6, BPF_MAP_TYPE_LRU_HASH, struct floor_key6, 1048576);

static __always_inline struct bench_plan *plan_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&bench_plans, &zero);
}

/* Endpoint addresses of flow `n`: 16,384 ports for each client address. */
static __always_inline void flow_ends(const struct bench_plan *pl, __u32 n, enum lb_af af,
				      struct tuple *t)
{
	__be16 port = bpf_htons(1024 + (n & 16383));
	int last = af == LB_AF_INET ? 0 : 3;
	union lb_addr client = pl->client, far = pl->shape == SHAPE_REPLY ? pl->server : pl->vaddr;

	client.w[last] = bpf_htonl(bpf_ntohl(client.w[last]) + (n >> 14));
	if (pl->services > 1 && pl->shape == SHAPE_REQUEST)
		far.w[last] = bpf_htonl(bpf_ntohl(far.w[last]) + n % pl->services);
	t->saddr = pl->shape == SHAPE_REPLY ? far : client;
	t->daddr = pl->shape == SHAPE_REPLY ? client : far;
	t->sport = pl->shape == SHAPE_REPLY ? pl->sport : port;
	t->dport = pl->shape == SHAPE_REPLY ? port : pl->vport;
}

static __always_inline void write_ip(void *data, const struct tuple *t, enum lb_af af, __u8 proto,
				     __u16 len)
{
	if (af == LB_AF_INET) {
		struct iphdr *ip = data + L3_OFF;

		*(__u32 *)ip = bpf_htonl(0x45000000 | (len + 20));
		((__u32 *)ip)[1] = bpf_htonl(0x4000);
		((__u32 *)ip)[2] = bpf_htonl(64 << 24 | (__u32)proto << 16);
		ip->saddr = t->saddr.w[0];
		ip->daddr = t->daddr.w[0];
		ip->check = ~ip_header_sum(ip);
	} else {
		struct ipv6hdr *ip6 = data + L3_OFF;

		*(__u32 *)ip6 = bpf_htonl(0x60000000);
		ip6->payload_len = bpf_htons(len);
		ip6->nexthdr = proto;
		ip6->hop_limit = 64;
		__builtin_memcpy(&ip6->saddr, &t->saddr, 16);
		__builtin_memcpy(&ip6->daddr, &t->daddr, 16);
	}
}

/* Takes off what a tunnel put around the packet that the last run left. */
static __always_inline bool unwrap(void *ctx, enum lb_hook hook, const struct bench_plan *pl)
{
	__u32 more = packet_len(ctx, hook) - pl->length;

	return hook != HOOK_XDP || !more || !bpf_xdp_adjust_head(ctx, more);
}

/* Writes the packet of the next flow. False: no packet to write to. */
static __always_inline bool restore(void *ctx, enum lb_hook hook, enum lb_af af)
{
	struct bench_plan *pl = plan_get();
	struct tuple t = {};
	struct tcphdr *th;
	void *data, *end;
	__u32 n;

	if (!pl || !unwrap(ctx, hook, pl))
		return false;
	data = packet_data(ctx, hook);
	end = packet_end(ctx, hook);
	th = data + L3_OFF + (af == LB_AF_INET ? 20 : 40);
	if ((void *)(th + 1) > end)
		return false;
	n = pl->next + 1;
	if (n >= pl->flows)
		n = 0;
	pl->next = n;
	flow_ends(pl, n, af, &t);
	for (int i = 0; i < 3; i++)
		((__u32 *)data)[i] = 0x02020202;
	((struct ethhdr *)data)->h_proto = af == LB_AF_INET ? bpf_htons(ETH_P_IP)
							    : bpf_htons(ETH_P_IPV6);
	write_ip(data, &t, af, pl->proto, sizeof(*th));
	th->source = t.sport;
	th->dest = t.dport;
	if (pl->proto == IPPROTO_TCP) {
		((__u8 *)th)[12] = 5 << 4;
		((__u8 *)th)[13] = pl->tcp_flags;
		th->check = 0x1234;
	} else {
		((struct udphdr *)th)->len = bpf_htons(sizeof(*th));
		((struct udphdr *)th)->check = 0x1234;
	}
	return true;
}

static __always_inline int note(int action)
{
	struct bench_plan *pl = plan_get();

	if (pl)
		pl->action = action;
	return action;
}

static __always_inline void *floor_connection(union floor_key *k, enum lb_af af)
{
	return af == LB_AF_INET ? bpf_map_lookup_elem(&bench_lru4, &k->v4)
				: bpf_map_lookup_elem(&bench_lru6, &k->v6);
}

static __always_inline void *floor_server(union floor_key *k, enum lb_af af)
{
	return af == LB_AF_INET ? bpf_map_lookup_elem(&bench_hash4, &k->v4)
				: bpf_map_lookup_elem(&bench_hash6, &k->v6);
}

/* The packet as the floors see it: a key of the kind that balancers use. */
static __always_inline bool floor_parse(void *ctx, enum lb_hook hook, enum lb_af af,
					union floor_key *k)
{
	void *data = packet_data(ctx, hook), *end = packet_end(ctx, hook);
	struct ethhdr *eth = data;
	struct tcphdr *th = data + L3_OFF + (af == LB_AF_INET ? 20 : 40);

	if ((void *)(th + 1) > end)
		return false;
	if (af == LB_AF_INET) {
		struct iphdr *ip = data + L3_OFF;

		if (eth->h_proto != bpf_htons(ETH_P_IP) || ip->ihl != 5)
			return false;
		k->v4 = (struct floor_key4){ .saddr = ip->saddr,
					     .daddr = ip->daddr,
					     .sport = th->source,
					     .dport = th->dest,
					     .proto = ip->protocol };
	} else {
		struct ipv6hdr *ip6 = data + L3_OFF;

		if (eth->h_proto != bpf_htons(ETH_P_IPV6))
			return false;
		__builtin_memcpy(&k->v6.saddr, &ip6->saddr, 16);
		__builtin_memcpy(&k->v6.daddr, &ip6->daddr, 16);
		k->v6.sport = th->source;
		k->v6.dport = th->dest;
		k->v6.proto = ip6->nexthdr;
	}
	return true;
}

static __always_inline void floor_mac(void *ctx, enum lb_hook hook)
{
	void *data = packet_data(ctx, hook);

	if (data + ETH_HLEN <= packet_end(ctx, hook))
		mac_swap(data);
}

static __always_inline int floor_tx(void *ctx, enum lb_hook hook, enum lb_af af)
{
	union floor_key k;

	if (!floor_parse(ctx, hook, af, &k))
		return note(0);
	floor_mac(ctx, hook);
	return note(hook == HOOK_XDP ? XDP_TX : 7);
}

/* One look-up of the destination that finds nothing: what a packet of somebody else must cost. */
static __always_inline int floor_lookup(void *ctx, enum lb_hook hook, enum lb_af af)
{
	union floor_key k;

	if (!floor_parse(ctx, hook, af, &k))
		return note(0);
	if (af == LB_AF_INET) {
		k.v4.saddr = 0;
		k.v4.sport = 0;
	} else {
		k.v6.saddr = (union lb_addr){};
		k.v6.sport = 0;
	}
	if (floor_server(&k, af))
		return note(0);
	floor_mac(ctx, hook);
	return note(hook == HOOK_XDP ? XDP_TX : 7);
}

static __always_inline bool floor_fib(void *ctx, enum lb_hook hook, enum lb_af af,
				      const struct tuple *t, const union lb_addr *to)
{
	struct bpf_fib_lookup f = { .ifindex = packet_ifindex(ctx, hook) };

	if (af == LB_AF_INET) {
		f.family = AF_INET_;
		f.ipv4_src = t->saddr.w[0];
		f.ipv4_dst = to->w[0];
	} else {
		f.family = AF_INET6_;
		__builtin_memcpy(f.ipv6_src, &t->saddr, 16);
		__builtin_memcpy(f.ipv6_dst, to, 16);
	}
	return bpf_fib_lookup(ctx, &f, sizeof(f), 0) == BPF_FIB_LKUP_RET_SUCCESS;
}

/* Two look-ups (the connection in an LRU hash, the server in a hash) and a rewrite, optionally the fib. */
static __always_inline int floor_nat(void *ctx, enum lb_hook hook, enum lb_af af, bool fib)
{
	struct packet p = { .ctx = ctx };
	struct rewrite r = {};
	union floor_key k, server = {};
	struct floor_value *v, *s;
	union lb_addr to = {};

	if (!floor_parse(ctx, hook, af, &k))
		return note(0);
	v = floor_connection(&k, af);
	if (!v)
		return note(0);
	if (af == LB_AF_INET)
		server.v4.daddr = v->rewrite[0];
	else
		server.v6.daddr.d[0] = v->rewrite[0];
	s = floor_server(&server, af);
	if (!s)
		return note(0);
	if (af == LB_AF_INET) {
		p.t.saddr.w[0] = k.v4.saddr;
		p.t.daddr.w[0] = k.v4.daddr;
		to.w[0] = s->rewrite[0];
	} else {
		p.t.saddr = k.v6.saddr;
		p.t.daddr = k.v6.daddr;
		to.d[0] = s->rewrite[0];
		to.d[1] = s->rewrite[1];
	}
	p.t.proto = af == LB_AF_INET ? k.v4.proto : k.v6.proto;
	p.l4 = L3_OFF + (af == LB_AF_INET ? 20 : 40);
	r.old_addr = &p.t.daddr;
	r.new_addr = &to;
	r.old_port = af == LB_AF_INET ? k.v4.dport : k.v6.dport;
	r.new_port = s->rewrite[2];
	if (!packet_rewrite(&p, hook, af, &r))
		return note(0);
	if (fib && !floor_fib(ctx, hook, af, &p.t, &to))
		return note(0);
	floor_mac(ctx, hook);
	return note(hook == HOOK_XDP ? XDP_TX : 7);
}

static __always_inline int floor_insert(void *ctx, enum lb_hook hook, enum lb_af af)
{
	struct floor_value v = {};
	union floor_key k;
	long err;

	if (!floor_parse(ctx, hook, af, &k))
		return note(0);
	err = af == LB_AF_INET ? bpf_map_update_elem(&bench_lru4, &k.v4, &v, BPF_ANY)
			       : bpf_map_update_elem(&bench_lru6, &k.v6, &v, BPF_ANY);
	if (err)
		return note(0);
	floor_mac(ctx, hook);
	return note(hook == HOOK_XDP ? XDP_TX : 7);
}

/* The table's own programs. */
PARTS_OF(lb_xdp_parts, struct xdp_md);
PARTS_OF(lb_ingress_parts, struct __sk_buff);
PARTS_OF(lb_egress_parts, struct __sk_buff);

/* Hands the packet to the table's program of this hook, whose action is then this one's. */
static __always_inline int go_on(void *ctx, enum lb_hook hook, enum lb_af af)
{
	__u32 part = af == LB_AF_INET ? PART_IPV4 : PART_IPV6;

	if (hook == HOOK_XDP)
		bpf_tail_call(ctx, &lb_xdp_parts, part);
	else if (hook == HOOK_INGRESS)
		bpf_tail_call(ctx, &lb_ingress_parts, part);
	else
		bpf_tail_call(ctx, &lb_egress_parts, part);
	return 0;
}

/* A program of each kind of hook and family; BODY sees `hook` and `af`. */
#define BENCH_ONE(NAME, SECTION, CTX, HOOK, AF, FAILED, BODY)                                      \
	SEC(SECTION)                                                                               \
	int NAME(CTX *ctx)                                                                         \
	{                                                                                          \
		enum lb_hook hook = HOOK;                                                          \
		enum lb_af af = AF;                                                                \
		return restore(ctx, hook, af) ? (BODY) : FAILED;                                   \
	}
#define BENCH_TC(NAME, HOOK, BODY)                                                                 \
	BENCH_ONE(NAME##4, "tc", struct __sk_buff, HOOK, LB_AF_INET, 2, BODY)                      \
	BENCH_ONE(NAME##6, "tc", struct __sk_buff, HOOK, LB_AF_INET6, 2, BODY)
#define BENCH(NAME, BODY)                                                                          \
	BENCH_TC(tc_##NAME, HOOK_INGRESS, BODY)                                                    \
	BENCH_ONE(xdp_##NAME##4, "xdp", struct xdp_md, HOOK_XDP, LB_AF_INET, XDP_ABORTED, BODY)    \
	BENCH_ONE(xdp_##NAME##6, "xdp", struct xdp_md, HOOK_XDP, LB_AF_INET6, XDP_ABORTED, BODY)

BENCH(restore, note(hook == HOOK_XDP ? XDP_TX : 7))
BENCH(tx, floor_tx(ctx, hook, af))
BENCH(lookup, floor_lookup(ctx, hook, af))
BENCH(nat, floor_nat(ctx, hook, af, false))
BENCH(nat_fib, floor_nat(ctx, hook, af, true))
BENCH(insert, floor_insert(ctx, hook, af))
BENCH(balance, go_on(ctx, hook, af))
BENCH_TC(tc_egress, HOOK_EGRESS, go_on(ctx, hook, af))
