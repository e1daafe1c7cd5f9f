/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The end of a tunnel that another node's bpvs sends clients' packets in, ipip or gue, to a service that has servers here
 * (LB_POLICY_TUNNELLED): so the server, and the answer, which goes from here straight to the client, have the client's own address
 * and the service's. What came out goes on as if it had come in so, but only to servers of this node.
 *
 * Others have tunnels between nodes, too. Only what has a packet for such a service in it is ours, and of that only what another
 * node sent: whoever else could send to the service under any address.
 */
#pragma once
#include "icmp.h"
#include "policy.h"
#include "tunnel.h"

/* A tunnel's packet. */
struct envelope {
	union lb_addr saddr, daddr; /* outer, as keys of lb_peers */
	__u32 room;                 /* bytes of the outer headers */
	__u8 proto;                 /* what follows the outer IP header */
};

static __always_inline __u32 peer_find(const union lb_addr *addr)
{
	__u32 *kind = bpf_map_lookup_elem(&lb_peers, addr);

	return kind ? *kind : 0;
}

/* Reads the outer IP header, which is followed at once by what it says. False: it is not so, or is broken. */
static __always_inline bool envelope_outer(struct __sk_buff *skb, struct envelope *e, enum lb_af af)
{
	if (af == LB_AF_INET) {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, L3_OFF, &ip, sizeof(ip)))
			return false;
		e->proto = ip.protocol;
		if (*(__u8 *)&ip != 0x45 || ip.frag_off & bpf_htons(IP_FRAGMENT) ||
		    ip_header_sum(&ip) != 0xffff)
			return false;
		e->saddr.w[2] = e->daddr.w[2] = bpf_htonl(0xffff);
		e->saddr.w[3] = ip.saddr;
		e->daddr.w[3] = ip.daddr;
		e->room = sizeof(ip);
		return true;
	}
	e->room = sizeof(struct ipv6hdr);
	return !bpf_skb_load_bytes(skb, L3_OFF + offsetof(struct ipv6hdr, nexthdr), &e->proto, 1) &&
	       !bpf_skb_load_bytes(skb, L3_OFF + offsetof(struct ipv6hdr, saddr), &e->saddr, 32);
}

/* Reads what is around the packet. False: it is no tunnel's of ours. */
static __always_inline bool envelope_read(struct __sk_buff *skb, struct envelope *e, enum lb_af af)
{
	struct {
		struct udphdr udp;
		__u8 gue[GUE_HDR];
	} h;

	if (!envelope_outer(skb, e, af))
		return false;
	if (e->proto == ipip_protocol(af))
		return true;
	if (e->proto != IPPROTO_UDP || bpf_skb_load_bytes(skb, L3_OFF + e->room, &h, sizeof(h)) ||
	    h.udp.dest != bpf_htons(GUE_PORT) || h.gue[0] || h.gue[1] != ipip_protocol(af) ||
	    h.gue[2] || h.gue[3])
		return false;
	e->room += sizeof(h);
	return true;
}

/* Is the address another node's? */
static __always_inline bool addr_is_peers(const union lb_addr *addr, __u32 af)
{
	union lb_addr key = *addr;

	if (af == LB_AF_INET)
		key = (union lb_addr){ .w = { 0, 0, bpf_htonl(0xffff), addr->w[0] } };
	return peer_find(&key) == LB_PEER_OTHER;
}

/* Do other nodes send what is for this endpoint here? Node ports are at the address of the node that sends. */
static __always_inline bool endpoint_is_tunnelled(struct service_query *q, __u8 proto, __be16 port)
{
	union lb_cell *head;
	__u32 service, list;

	q->port = port;
	q->proto = proto;
	q->hash = hash_endpoint(lb_hash_key, &q->addr, port, proto, q->af);
	service = filter_has(FILTER_SERVICE, q->hash) ? service_lookup(q) : 0;
	if (!service && addr_is_peers(&q->addr, q->af))
		service = node_port_service(port, proto, q->af);
	head = service ? list_in_force(service, &list) : NULL;
	return head && head->list.policy & LB_POLICY_TUNNELLED;
}

/* Is an ICMP message about what a service sent that other nodes send here? */
static __always_inline bool error_is_ours(struct __sk_buff *skb, struct service_query *q,
					  __u32 quoted)
{
	struct headers h = {};
	__be16 port;

	return headers_read(skb, quoted, q->af, &h) && is_transport(h.proto) &&
	       !bpf_skb_load_bytes(skb, h.l4, &port, sizeof(port)) &&
	       endpoint_is_tunnelled(q, h.proto, port);
}

/* Is the packet inside for a service that other nodes send here? A later fragment does not say which it is for, and an ICMP
 * message is about one: those for its address are. */
static __always_inline bool inner_is_ours(struct __sk_buff *skb, __u32 at, enum lb_af af)
{
	__u32 daddr = at + (af == LB_AF_INET ? offsetof(struct iphdr, daddr)
					     : offsetof(struct ipv6hdr, daddr));
	struct service_query q = { .af = af };
	struct headers h = {};
	__be16 port;

	if (!headers_read(skb, at, af, &h) ||
	    bpf_skb_load_bytes(skb, daddr, &q.addr, af == LB_AF_INET ? 4 : 16))
		return false;
	if (h.shape & SHAPE_LATER)
		return addr_is_virtual(&q.addr, af) || addr_is_peers(&q.addr, af);
	if (h.proto == icmp_protocol(af))
		return addr_is_virtual(&q.addr, af) || error_is_ours(skb, &q, h.l4 + ICMP_HDR);
	return is_transport(h.proto) && !bpf_skb_load_bytes(skb, h.l4 + 2, &port, sizeof(port)) &&
	       endpoint_is_tunnelled(&q, h.proto, port);
}

/* PACKET_NEXT: the packet was taken out. NOT_OURS: it is the stack's, as it came. OPEN_NEXT: so it is, if the part that opens does
 * not refuse it (range.h). */
static __always_inline int decap(struct __sk_buff *skb, enum lb_af af)
{
	struct envelope e = {};

	if (!envelope_read(skb, &e, af) || peer_find(&e.daddr) != LB_PEER_OWN ||
	    !inner_is_ours(skb, L3_OFF + e.room, af))
		return e.proto == IPPROTO_UDP ? OPEN_NEXT : NOT_OURS;
	if (peer_find(&e.saddr) != LB_PEER_OTHER)
		return act_drop(HOOK_INGRESS, LB_DROP_PEER);
	if (bpf_skb_adjust_room(skb, -(__s32)e.room, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO))
		return act_drop(HOOK_INGRESS, LB_DROP_REWRITE);
	skb->tc_index = tunnel_token();
	return PACKET_NEXT;
}
