/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Sending a packet on its way: straight out of the next interface, or up to the stack. */
#pragma once
#include "tunnel.h"
#include "schedule.h"

/* Actions of both kinds of hook under one name. TCX_NEXT lets other programs of the interface run. */
static __always_inline int act_pass(enum lb_hook hook)
{
	return hook == HOOK_XDP ? XDP_PASS : -1 /* TC_ACT_UNSPEC: the next program, or the stack */;
}

static __always_inline int act_drop(enum lb_hook hook, enum lb_verdict why)
{
	count_verdict(why);
	return hook == HOOK_XDP ? XDP_DROP : 2 /* TC_ACT_SHOT */;
}

/* Not actions of a hook: the packet is for somebody else to look at; for icmp.h; may open a connection; is for transmit.h;
 * for tunnel_error.h; for odd.h, to be read, was read, and may open one; opens one, which lb_new_conns describes; opened it, and
 * goes on as one of its packets; is for masqueraded.h; may be for decap.h. */
enum {
	NOT_OURS = -100,
	ICMP_NEXT = -101,
	OPEN_NEXT = -102,
	TRANSMIT_NEXT = -103,
	TUNNEL_NEXT = -104,
	ODD_NEXT = -105,
	ODD_READ_NEXT = -106,
	ODD_OPEN_NEXT = -107,
	SCHEDULE_NEXT = -108,
	PACKET_NEXT = -109,
	MASQUERADED_NEXT = -110,
	DECAP_NEXT = -111,
};

/* Interfaces that take packets from XDP of another one. Writer: user space, as it attaches. */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u32);
} lb_xdp_ports SEC(".maps");

/* Does the packet, with so many bytes around it, fit the interface, each of its segments if it is many, and will it live on?
 * IPv4 options are the stack's to act on. */
static __always_inline bool hop_takes(const struct packet *p, enum lb_af af, const struct hop *hop,
				      __u32 room)
{
	if (af == LB_AF_INET && p->l4 != L3_OFF + sizeof(struct iphdr))
		return false;
	return p->ttl > 1 && p->wire_len + room <= hop->mtu;
}

/* Can XDP send there? */
static __always_inline bool hop_xdp(const struct packet *p, const struct hop *hop, __u32 ref)
{
	__u32 ifindex = hop->ifindex;

	if (unlikely(hop->kick)) {
		hop_kicked(ref, p->now, HOOK_XDP);
		return false;
	}
	return ifindex == packet_ifindex(p->ctx, HOOK_XDP) ||
	       bpf_map_lookup_elem(&lb_xdp_ports, &ifindex);
}

/* The way of a packet past the stack, if there is one for this hook. `ref` names the hop's record. */
static __always_inline bool hop_usable(const struct packet *p, enum lb_hook hook, enum lb_af af,
				       const struct hop *hop, __u32 ref, __u32 room)
{
	return hop_takes(p, af, hop, room) && (hook != HOOK_XDP || hop_xdp(p, hop, ref));
}

/* Sends the (already translated) packet out by the hop. `ref` names its record. The action for the hook. */
static __always_inline int hop_send(struct packet *p, enum lb_hook hook, const struct hop *hop,
				    __u32 ref)
{
	__u32 *frame = packet_data(p->ctx, hook);

	if (hook != HOOK_XDP && unlikely(hop->kick)) {
		hop_kicked(ref, p->now, hook);
		return bpf_redirect_neigh(hop->ifindex, NULL, 0, 0);
	}
	if ((void *)frame + ETH_HLEN <= packet_end(p->ctx, hook))
		for (int i = 0; i < 3; i++)
			frame[i] = hop->mac[i];
	if (hook == HOOK_INGRESS && hop->peer)
		return bpf_redirect_peer(hop->ifindex, 0);
	if (hook != HOOK_XDP)
		return bpf_redirect(hop->ifindex, 0);
	if (hop->ifindex == packet_ifindex(p->ctx, hook))
		return XDP_TX;
	return bpf_redirect_map(&lb_xdp_ports, hop->ifindex, XDP_DROP);
}

/* A packet that goes to its server by direct routing or through a tunnel: what transmit.h has to know of it. It is handed
 * over in a map, as the function that does it starts anew, with a stack of its own. All are whole words, as they are read
 * right after they were written: a read that spans several writes would wait for them. */
struct transmit {
	union lb_addr saddr, daddr; /* as in struct packet, up to `shape` */
	__u64 src, dst;
	__u32 sport, dport, proto, now, ip_len, wire_len, l4, event, ttl, gso, odd, shape;
	__u32 conn; /* index + 1; 0: none, one-packet scheduling */
	__u32 server;
	__u32 fwd;  /* enum lb_fwd */
	__u32 icmp; /* an error about the connection: it counts, but is no part of it, and nobody is told what becomes of it */
	struct tunnel t;
};

LB_SCRATCH(lb_transmits, struct transmit, transmit_get)

/* Hands a packet over to transmit.h. `conn` is its connection's index + 1, or 0. */
static __always_inline int transmit_later(const struct packet *p, enum lb_af af, __u32 conn,
					  __u32 server, __u8 fwd, bool icmp)
{
	struct transmit *x = transmit_get();

	if (!x)
		return NOT_OURS;
	addr_copy(&x->saddr, &p->t.saddr, af);
	addr_copy(&x->daddr, &p->t.daddr, af);
	x->src = p->src;
	x->dst = p->dst;
	x->sport = p->t.sport;
	x->dport = p->t.dport;
	x->proto = p->t.proto;
	x->now = p->now;
	x->ip_len = p->ip_len;
	x->wire_len = p->wire_len;
	x->l4 = p->l4;
	x->event = p->tcp_flags;
	x->ttl = p->ttl;
	x->gso = p->gso;
	x->odd = p->odd;
	x->shape = p->shape;
	x->conn = conn;
	x->server = server;
	x->fwd = fwd;
	x->icmp = icmp;
	return TRANSMIT_NEXT;
}

/* Hands a packet over to masqueraded.h. `conn`: as above; 0 for what leaves for a server, on egress. */
static __always_inline int masqueraded_later(const struct packet *p, enum lb_af af, __u32 conn,
					     __u32 server, __u8 fwd)
{
	return transmit_later(p, af, conn, server, fwd, false) == TRANSMIT_NEXT ? MASQUERADED_NEXT
										: NOT_OURS;
}

/* The packet as it was handed over. */
static __always_inline void transmit_take(struct packet *p, const struct transmit *x, void *ctx,
					  enum lb_af af)
{
	p->ctx = ctx;
	addr_copy(&p->t.saddr, &x->saddr, af);
	addr_copy(&p->t.daddr, &x->daddr, af);
	p->src = x->src;
	p->dst = x->dst;
	p->t.sport = x->sport;
	p->t.dport = x->dport;
	p->t.proto = x->proto;
	p->now = x->now;
	p->ip_len = x->ip_len;
	p->wire_len = x->wire_len;
	p->l4 = x->l4;
	p->tcp_flags = x->event;
	p->ttl = x->ttl;
	p->gso = x->gso;
	p->odd = x->odd;
	p->shape = x->shape;
}
