/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a server sends of no connection: with nat_icmp_send it is told so, and the packet goes no further (ip_vs_out(),
 * ip_vs_has_real_service()). Of servers by NAT only; resets and ABORTs are not answered. Whose server it is, is looked for
 * among all: there is no table of servers by their ends, as nothing else needs one.
 */
#pragma once
#include "refuse.h"

static __always_inline bool stray_wanted(void)
{
	struct lb_config *cfg = config_get();

	return cfg && cfg->nat_icmp_send;
}

struct stray {
	union lb_addr addr; /* the server's, whole */
	__be16 port;
	__u8 proto;
	__u8 af;
	__u32 found;
};

static long stray_step(__u32 i, void *ctx)
{
	struct lb_server *srv = server_at(i);
	struct stray *s = ctx;
	struct lb_service *svc;

	if (!srv || srv->port != s->port || srv->af != s->af || srv->fwd != LB_FWD_MASQ ||
	    !(srv->flags & LB_SERVER_AVAILABLE) || !addr_equal(&srv->addr, &s->addr, LB_AF_INET6))
		return 0;
	svc = service_at(srv->service);
	s->found = svc && (svc->fwmark || svc->proto == s->proto);
	return s->found;
}

/* Does some service have the server? (Not static: the verifier looks at it once.) */
__noinline int stray_is_server(const struct stray *of)
{
	struct lb_book *book = book_get();
	struct stray s;

	if (!of || !book)
		return 0;
	s = *of; /* what is handed to a loop must be on the stack */
	bpf_loop(book->server_high, stray_step, &s, 0);
	return s.found;
}

/* The action for a packet that is to be refused, or 0. */
static __always_inline int stray_refuse(const struct packet *p, enum lb_af af)
{
	struct stray s = { .port = p->t.sport, .proto = p->t.proto, .af = af };

	if (p->shape & SHAPE_LATER || (s.proto == IPPROTO_TCP && p->tcp_flags & TCP_RST) ||
	    (s.proto == IPPROTO_SCTP && p->sctp_event == SCTP_ABORT))
		return 0;
	addr_copy(&s.addr, &p->t.saddr, af);
	if (!stray_is_server(&s))
		return 0;
	return refuse_port(p->ctx, HOOK_INGRESS, af, LB_REFUSE_STRAY);
}
