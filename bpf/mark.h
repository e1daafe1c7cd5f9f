/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The firewall mark of a packet: the one that it comes with, else what the first of the table's own rules says that fits. */
#pragma once
#include "tables.h"

/* The mark that the packet came with. */
static __always_inline __u32 packet_mark(const struct packet *p, enum lb_hook hook)
{
	return hook == HOOK_XDP ? 0 : ((struct __sk_buff *)p->ctx)->mark;
}

/* What rules ask of a packet. */
struct mark_query {
	union lb_addr saddr, daddr;
	__u32 ifindex;
	__u16 port;
	__u8 proto;
	__u8 af;
};

static __always_inline bool mark_rule_fits(const struct lb_mark_rule *r, const struct mark_query *q)
{
	return (!r->af || r->af == q->af) && (!r->proto || r->proto == q->proto) &&
	       q->port >= r->port_first && q->port <= r->port_last &&
	       (!r->ifindex || r->ifindex == q->ifindex) &&
	       addr_within(&q->daddr, &r->daddr, &r->dmask) &&
	       addr_within(&q->saddr, &r->saddr, &r->smask);
}

/* The mark of the first rule that fits; 0: none does. (Not static: the verifier looks at it once.) */
__noinline __u32 mark_by_rules(const struct mark_query *q)
{
	struct lb_config *cfg = config_get();
	__u32 list;

	if (!q || !cfg)
		return 0;
	list = READ_ONCE(cfg->mark_rules);
	for (__u32 i = 0; i < LB_MAX_MARK_RULES && i < (list & 0xffff); i++) {
		__u32 at = (list >> 16) + i;
		struct lb_mark_rule *r = bpf_map_lookup_elem(&lb_mark_rules, &at);

		if (r && mark_rule_fits(r, q))
			return r->mark;
	}
	return 0;
}

/* May the packet open a connection, as far as its mark may matter to that? */
static __always_inline bool mark_wanted(const struct packet *p)
{
	return p->kinds & LB_FEATURE_FWMARK && p->kinds & LB_FEATURE_MARK_RULES && !p->mark &&
	       (p->t.proto != IPPROTO_TCP || (p->tcp_flags & (TCP_SYN | TCP_RST)) == TCP_SYN);
}

/* May a packet of no connection open one? While there are services by mark every packet comes this far. */
static __always_inline bool mark_or_service(const struct packet *p)
{
	return likely(!(p->kinds & LB_FEATURE_FWMARK)) || p->mark || mark_wanted(p) ||
	       filter_has_service(p);
}

/* Gives a packet of no connection the mark that rules have for it. */
static __always_inline void packet_mark_by_rules(struct packet *p, enum lb_hook hook, enum lb_af af)
{
	struct mark_query q = {
		.ifindex = packet_ifindex(p->ctx, hook),
		.port = bpf_ntohs(p->t.dport),
		.proto = p->t.proto,
		.af = af,
	};

	addr_copy(&q.saddr, &p->t.saddr, af);
	addr_copy(&q.daddr, &p->t.daddr, af);
	p->mark = mark_by_rules(&q);
}
