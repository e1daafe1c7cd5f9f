/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Persistence: who comes back goes on to the server it had, by a template. As ip_vs_sched_persist() of ip_vs_core.c. */
#pragma once
#include "pick.h"

/* The part of a client's address that a template is for. `netmask` of IPv6 is the length of a prefix. */
static __always_inline void address_mask(union lb_addr *to, const union lb_addr *from, __u8 af,
					 __be32 netmask)
{
	for (__u32 i = 0; i < 4; i++) {
		__u32 bits = netmask > 32 * i ? netmask - 32 * i : 0;

		if (af == LB_AF_INET)
			to->w[i] = i ? 0 : from->w[i] & netmask;
		else if (bits)
			to->w[i] = from->w[i] & bpf_htonl(bits < 32 ? ~(~0U >> bits) : ~0U);
		else
			to->w[i] = 0;
	}
}

/* What a template is found by, beside the client: the service's port (not FTP's, whose data connections come to any), or the mark of
 * a service by mark. */
static __always_inline void template_name(struct new_conn *t, const struct new_conn *n,
					  const struct lb_service *svc)
{
	t->t.daddr = n->t.daddr;
	if (n->t.dport == svc->vport) {
		if (svc->vport != bpf_htons(FTP_PORT))
			t->t.dport = svc->vport;
	} else if (svc->fwmark) {
		t->t.proto = LB_TEMPLATE;
		t->t.daddr = (union lb_addr){ .w = { bpf_htonl(svc->fwmark) } };
	}
}

/* The same, of services that share their templates. */
static __always_inline void template_name_shared(struct new_conn *t, const struct lb_service *svc)
{
	t->t.daddr = (union lb_addr){};
	if (t->af == LB_AF_INET)
		t->t.daddr.w[0] = svc->affinity;
	else
		t->t.daddr.w[3] = svc->affinity;
	t->t.dport = svc->affinity_port;
	if (!svc->affinity_port)
		t->t.proto = LB_TEMPLATE;
}

/* A template of one connection, but for the server. */
static __always_inline void template_describe(struct new_conn *t, const struct new_conn *n,
					      const struct lb_service *svc, bool shared)
{
	t->now = n->now;
	t->af = n->af;
	t->state = LB_TCP_NONE;
	t->flags = LB_CONN_NOOUTPUT; /* no packet is its reply */
	t->control = 1;
	t->partner = 0;
	t->timeout = svc->timeout;
	t->expires = n->now + seconds_ticks(svc->timeout);
	t->t.proto = n->t.proto | LB_TEMPLATE;
	t->t.sport = 0;
	t->t.dport = 0;
	address_mask(&t->t.saddr, &n->t.saddr, n->af, svc->netmask);
	if (unlikely(shared))
		template_name_shared(t, svc);
	else
		template_name(t, n, svc);
	t->client = hash_endpoint(lb_hash_key, &t->t.saddr, 0, t->t.proto, t->af);
	t->service = hash_endpoint(lb_hash_key, &t->t.daddr, t->t.dport, t->t.proto, t->af);
}

/* Is the server that a template leads to still to be had? As ip_vs_check_template(). */
static __always_inline bool server_usable(__u32 id)
{
	struct lb_server *srv = server_at(id);
	struct lb_config *cfg = config_get();

	return srv && srv->flags & LB_SERVER_AVAILABLE &&
	       (srv->weight || !cfg || !cfg->expire_quiescent_template);
}

/* The template of `n`'s client, with `n` counted among its connections: its index + 1; 0: there is none that can be used, but
 * it is described (NEW_TEMPLATE), but for its server; or -verdict. `shared`: the one that it shares with other services. */
__noinline int template_find(__u32 service, struct new_conn *n, __u32 shared)
{
	struct new_conn *t = n ? new_template_get(n) : NULL;
	struct lb_service *svc = service_at(service);
	struct lb_conn_line *line;
	struct lb_conn *c;
	int there;

	if (!t || !svc)
		return -LB_DROP_TABLE_FULL;
	template_describe(t, n, svc, shared);
	n->own_port = n->t.dport != svc->vport;
	line = conn_line_at(hash_spot(t->client, lb_conn_line_mask).first);
	if (!line || !lock_take(&line->lock))
		return -LB_DROP_BUSY;
	there = conn_present(t);
	c = conn_at(there - 1);
	if (c && server_usable(c->server)) {
		template_renew(c, t->now);
	} else if (c) {
		conn_mark(c, LB_CONN_VOID);
		there = 0;
	}
	lock_leave(&line->lock);
	return there;
}

/* Makes the template that template_find() described, for the server that was picked. As that, but never 0. */
static __always_inline int template_make(const struct new_conn *n, const struct lb_server *srv,
					 __u32 id)
{
	struct new_conn *t = new_template_get(n);

	if (!t)
		return -LB_DROP_TABLE_FULL;
	t->server = id;
	t->fwd = srv->fwd;
	t->dport = t->t.dport ? srv->port : 0;
	return conn_enter(t);
}
