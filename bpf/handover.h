/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Another balancer of this host, which translates by connection tracking (kube-proxy, in any of its modes): bpvs takes over from
 * it, or hands over to it. Connections stay with whom they began with. Ours are found in the table, wherever they go; all that
 * is here is what becomes of packets of none of ours, as long as lb_config.handover says that there is somebody else.
 */
#pragma once
#include "packet.h"

union nf_inet_addr {
	__u32 all[4];
} __attribute__((preserve_access_index));
union nf_conntrack_man_proto {
	__be16 all;
} __attribute__((preserve_access_index));
struct nf_conntrack_man {
	union nf_inet_addr u3;
	union nf_conntrack_man_proto u;
} __attribute__((preserve_access_index));
struct nf_conntrack_tuple {
	struct nf_conntrack_man src;
	struct {
		union nf_inet_addr u3;
		union {
			__be16 all;
		} u;
	} dst;
} __attribute__((preserve_access_index));
struct nf_conntrack_tuple_hash {
	struct nf_conntrack_tuple tuple;
} __attribute__((preserve_access_index));
struct ip_ct_tcp {
	__u8 state;
} __attribute__((preserve_access_index));
union nf_conntrack_proto {
	struct ip_ct_tcp tcp;
} __attribute__((preserve_access_index));
struct nf_conn {
	struct nf_conntrack_tuple_hash tuplehash[2]; /* as it began, and its answers */
	union nf_conntrack_proto proto;
} __attribute__((preserve_access_index));

/* As far as the kernel has always known it (since 5.18). */
struct bpf_ct_opts {
	__s32 netns_id;
	__s32 error;
	__u8 l4proto;
	__u8 dir; /* of the connection: 0: as it began */
	__u8 reserved[2];
};

enum { CURRENT_NETNS = -1, CT_TIME_WAIT = 7 };

extern struct nf_conn *bpf_skb_ct_lookup(struct __sk_buff *skb, struct bpf_sock_tuple *tuple,
					 __u32 tuple__sz, struct bpf_ct_opts *opts,
					 __u32 opts__sz) __ksym __weak;
extern void bpf_ct_release(struct nf_conn *ct) __ksym __weak;

/* Can connection tracking be asked? Not if it was a module that was not there when this was loaded, or whose types whoever loaded
 * this may not see (without SYS_ADMIN). The type comes with the functions; libbpf before 1.3 can't tell of a module's functions
 * whether they are there. */
static __always_inline bool conntrack_readable(void)
{
	return bpf_core_type_exists(struct bpf_ct_opts);
}

static __always_inline bool address_is(const union nf_inet_addr *is, const union lb_addr *addr,
				       enum lb_af af)
{
	return is->all[0] == addr->w[0] &&
	       (af == LB_AF_INET ||
		(is->all[1] == addr->w[1] && is->all[2] == addr->w[2] && is->all[3] == addr->w[3]));
}

/* Does the connection go to another end than the one that its packet names? */
static __always_inline bool conntrack_translates(const struct nf_conn *ct, __u8 answer,
						 const struct packet *p, enum lb_af af)
{
	const struct nf_conntrack_tuple *begun = &ct->tuplehash[0].tuple,
					*back = &ct->tuplehash[1].tuple;

	return answer ? begun->dst.u.all != p->t.sport ||
				!address_is(&begun->dst.u3, &p->t.saddr, af)
		      : back->src.u.all != p->t.dport ||
				!address_is(&back->src.u3, &p->t.daddr, af);
}

/* Is the packet of a connection that somebody else translates? (A function of its own for the stack's sake.) */
static __noinline bool conntrack_has(const struct packet *p, enum lb_af af)
{
	struct bpf_ct_opts opts = { .netns_id = CURRENT_NETNS, .l4proto = p->t.proto };
	struct bpf_sock_tuple t = {};
	struct nf_conn *ct;
	bool theirs;

	if (af == LB_AF_INET) {
		t.ipv4.saddr = p->t.saddr.w[0];
		t.ipv4.daddr = p->t.daddr.w[0];
		t.ipv4.sport = p->t.sport;
		t.ipv4.dport = p->t.dport;
	} else {
		__builtin_memcpy(t.ipv6.saddr, &p->t.saddr, 16);
		__builtin_memcpy(t.ipv6.daddr, &p->t.daddr, 16);
		t.ipv6.sport = p->t.sport;
		t.ipv6.dport = p->t.dport;
	}
	ct = bpf_skb_ct_lookup(p->ctx, &t, af == LB_AF_INET ? sizeof(t.ipv4) : sizeof(t.ipv6),
			       &opts, sizeof(opts));
	if (!ct)
		return false;
	theirs = conntrack_translates(ct, opts.dir, p, af);
	/* A SYN on what is over begins a new one: tcp_packet() of nf_conntrack_proto_tcp.c. */
	if (p->t.proto == IPPROTO_TCP && (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN &&
	    ct->proto.tcp.state >= CT_TIME_WAIT)
		theirs = false;
	bpf_ct_release(ct);
	return theirs;
}

/*
 * Is a packet of none of our connections the stack's, where the other balancer has it? Handing over, all are. Taking over, those
 * of his connections. Where connection tracking can't be asked, whatever begins none may be of one of his; of datagrams that can't
 * be told. XDP leaves the question to tcx.
 */
static __always_inline bool handover_passes(const struct packet *p, enum lb_hook hook, enum lb_af af)
{
	struct lb_config *cfg = config_get();
	__u32 mode = cfg ? READ_ONCE(cfg->handover) : LB_HANDOVER_NONE;

	if (mode == LB_HANDOVER_NONE)
		return false;
	if (mode == LB_HANDOVER_TO || hook == HOOK_XDP)
		return true;
	if (hook != HOOK_INGRESS)
		return false; /* what has not been translated on its way out is of none of his */
	if (p->t.proto == IPPROTO_SCTP)
		return p->sctp_event != SCTP_INIT; /* nobody can be asked about these */
	if (conntrack_readable())
		return conntrack_has(p, af);
	return p->t.proto == IPPROTO_TCP && !(p->tcp_flags & TCP_SYN);
}
