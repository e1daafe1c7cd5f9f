/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A new connection: its server, by a template or the scheduler, and the entry in the table. */
#pragma once
#include "persist.h"
#include "hop.h"

/* May neither direction go through the host's stack? Decided once, so that netfilter sees all of a flow or nothing. */
static __always_inline bool bypass_allowed(void *ctx, enum lb_hook hook, enum lb_af af)
{
	struct lb_config *cfg = config_get();

	if (!cfg || cfg->bypass == LB_BYPASS_NEVER)
		return false;
	return cfg->bypass == LB_BYPASS_ALWAYS || !netfilter_hooked(ctx, hook, af);
}

/* Notes whose connection it is: all that a scheduler may ask. */
static __always_inline void new_conn_describe(struct new_conn *n, const struct packet *p,
					      enum lb_af af)
{
	n->now = p->now;
	n->af = af;
	n->client = p->src;
	n->service = p->dst;
	addr_copy(&n->t.saddr, &p->t.saddr, af);
	addr_copy(&n->t.daddr, &p->t.daddr, af);
	n->t.sport = p->t.sport;
	n->t.dport = p->t.dport;
	n->t.proto = p->t.proto;
	n->server = 0;
	n->control = 0;
	n->own_port = 0;
	n->fresh = 0;
	n->timeout = 0;
}

/* The port that a server is asked at: its own, if it has one and clients are not sent to it by a template for more ports than
 * the service's. */
static __always_inline __be16 new_conn_port(const struct new_conn *n, const struct lb_server *srv)
{
	return srv->port && !n->own_port ? srv->port : n->t.dport;
}

/* Picks its server, by its client's template or the scheduler: `n->server`. (What is found goes by way of the description, of
 * which the verifier knows nothing: so it looks at what follows once, not once for every way to get there.) */
static __always_inline enum lb_verdict new_conn_pick(struct new_conn *n, __u32 service)
{
	struct lb_service *svc = service_at(service);
	struct lb_server *srv;
	__u32 id;

	if (!svc)
		return LB_REFUSE_NO_SERVER;
	if (unlikely(svc->flags & LB_SERVICE_PERSISTENT)) {
		enum lb_verdict v = template_find(service, n);

		if (v)
			return v;
	} else if (unlikely(svc->vport != n->t.dport && !svc->fwmark)) {
		return LB_REFUSE_NO_SERVER; /* "port zero only supported in persistent services": ip_vs_schedule() */
	}
	if (READ_ONCE(n->server))
		return LB_OK;
	id = service_pick(service, n);
	srv = id ? server_at(id) : NULL;
	if (!srv || srv->service != service)
		return LB_REFUSE_NO_SERVER;
	n->server = id;
	return unlikely(READ_ONCE(n->fresh)) ? template_make(n, srv) : LB_OK;
}

/* Adds the connection. LB_OK: `ref` is it. */
static __always_inline enum lb_verdict new_conn_add(struct new_conn *n, const struct packet *p,
						    enum lb_hook hook, enum lb_af af,
						    struct conn_ref *ref)
{
	struct lb_server *srv = server_at(READ_ONCE(n->server));
	int added;

	if (!srv)
		return LB_REFUSE_NO_SERVER;
	n->dport = new_conn_port(n, srv);
	n->fwd = srv->fwd;
	n->state = state_first(p->t.proto, p->tcp_flags);
	n->flags = state_active(n->state) ? 0 : LB_CONN_INACTIVE;
	n->expires = n->now + state_timeout_ticks(n->state);
	if (n->fwd != LB_FWD_MASQ)
		n->flags |= LB_CONN_NOOUTPUT;
	if (bypass_allowed(p->ctx, hook, af))
		n->flags |= LB_CONN_BYPASS;
	added = conn_enter(n);
	if (unlikely(added < 0 || (__u32)added != n->entry))
		template_leave(n->control); /* it is another CPU's, or nobody's */
	if (added < 0)
		return -added;
	ref->index = added - 1;
	ref->c = conn_at(ref->index);
	if (!ref->c)
		return LB_DROP_TABLE_FULL;
	ref->server = ref->c->server;
	ref->dport = ref->c->dport;
	return LB_OK;
}
