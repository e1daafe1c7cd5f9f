/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A new connection: its server, by a template or the scheduler, and the entry in the table. */
#pragma once
#include "arrival.h"
#include "masquerade.h"

/* May neither direction go through the host's stack? Decided once, so that netfilter sees all of a flow or nothing. */
static __always_inline bool bypass_allowed(void *ctx, enum lb_hook hook, enum lb_af af)
{
	struct lb_config *cfg = config_get();

	if (!cfg || cfg->bypass == LB_BYPASS_NEVER)
		return false;
	return cfg->bypass == LB_BYPASS_ALWAYS || !netfilter_hooked(ctx, hook, af);
}

/* Begins a description. */
static __always_inline void new_conn_begin(struct new_conn *n, __u32 now, __u8 af)
{
	n->now = now;
	n->af = af;
	n->control = 0;
	n->own_port = 0;
	n->timeout = 0;
	n->icmp = 0;
	n->partner = 0;
	n->policy = 0;
	n->origin = 0;
}

/* Notes whose connection it is: all that a scheduler may ask. */
static __always_inline void new_conn_describe(struct new_conn *n, const struct packet *p,
					      enum lb_af af)
{
	new_conn_begin(n, p->now, af);
	n->client = p->src;
	n->service = p->dst;
	addr_copy(&n->t.saddr, &p->t.saddr, af);
	addr_copy(&n->t.daddr, &p->t.daddr, af);
	n->t.sport = p->t.sport;
	n->t.dport = p->t.dport;
	n->t.proto = p->t.proto;
}

/* The port that a server is asked at: its own, if it has one and clients are not sent to it by a template for more ports than
 * the service's. */
static __always_inline __be16 new_conn_port(const struct new_conn *n, const struct lb_server *srv)
{
	return srv->port && !n->own_port ? srv->port : n->t.dport;
}

/* How long a connection lasts of which there was nothing yet but an ICMP error: ip_vs_conn_new(). */
enum { ICMP_CONN_S = 3 };

/* Notes what becomes of it: server, state, and how packets get there. */
static __always_inline void new_conn_assign(struct new_conn *n, __u32 id,
					    const struct lb_server *srv)
{
	n->server = id;
	n->dport = new_conn_port(n, srv);
	n->fwd = srv->fwd;
	n->state = n->icmp ? state_none(n->t.proto) : state_first(n->t.proto, n->event);
	n->flags = state_active(n->state) ? 0 : LB_CONN_INACTIVE;
	n->expires = n->now + (n->icmp ? seconds_ticks(ICMP_CONN_S) : state_timeout_ticks(n->state));
	if (fwd_one_way(n->fwd))
		n->flags |= LB_CONN_NOOUTPUT;
}

/* Its server: its id; 0: there is no usable one; or -verdict. */
static __always_inline int new_conn_pick(struct new_conn *n, __u32 service)
{
	struct lb_service *svc = service_at(service);
	struct lb_server *srv;
	bool persistent;
	int id = 0;

	if (!svc)
		return 0;
	if (unlikely(n->origin == ORIGIN_TUNNEL))
		return arrival_pick(service, n);
	persistent = svc->flags & LB_SERVICE_PERSISTENT;
	if (unlikely(persistent))
		id = template_server(service, n);
	else if (unlikely(svc->vport != n->t.dport && !svc->fwmark))
		return 0; /* "port zero only supported in persistent services": ip_vs_schedule() */
	if (likely(!id)) {
		id = service_pick(service, n);
		srv = id ? server_at(id) : NULL;
		if (!srv || srv->service != service)
			return 0;
		if (likely(!persistent))
			return id;
		id = template_begin(service, n, srv, id);
	}
	if (id < 0)
		n->control = 0;
	return id;
}

/* Is the packet for a data port of FTP's service? What no server takes of such is the host's: ip_vs_leave(). */
static __always_inline bool ftp_data(const struct new_conn *n)
{
	struct lb_service *svc = service_at(n->virtual_service);

	return svc && svc->vport == bpf_htons(FTP_PORT) && n->t.dport != svc->vport;
}

/* Adds the connection, or finds that another CPU has. */
static __always_inline enum lb_verdict new_conn_add(struct new_conn *n)
{
	int added = conn_enter(n);
	bool own = likely(added > 0 &&
			  (__u32)added == n->entry); /* else another CPU's, or nobody's */

	if (unlikely(n->partner) && !masquerade_end(n, own) && own)
		return LB_DROP_TABLE_FULL;
	if (!own)
		template_leave(n->control);
	return added < 0 ? -added : LB_OK;
}

/* One-packet scheduling leaves no connection: who has the packet next finds the server here, and the template, as soon gone
 * as come, does not count it. */
static __always_inline enum lb_verdict once_assign(struct new_conn *n, __u32 id)
{
	template_leave(n->control);
	n->server = id;
	n->once = ONCE_PICKED;
	return LB_OK;
}

/* Why a connection has no server: refused, or dropped where the policy says so. */
static __always_inline enum lb_verdict conn_unserved(const struct new_conn *n)
{
	return unlikely(n->policy & LB_POLICY_DROP_EMPTY) ? LB_DROP_NO_LOCAL : LB_REFUSE_NO_SERVER;
}

/* Schedules what is described, for the service noted there, and adds it. LB_OK: it is in the table. LB_REFUSE_* and LB_DROP_*
 * say why not. */
static __always_inline enum lb_verdict conn_schedule(void *ctx, enum lb_hook hook,
						     struct new_conn *n)
{
	int id = policy_apply(n, packet_ifindex(ctx, hook));
	struct lb_server *srv;

	if (unlikely(id))
		return id;
	id = new_conn_pick(n, n->virtual_service);
	srv = id > 0 ? server_at(id) : NULL;
	if (!srv)
		return id < 0 ? -id : conn_unserved(n);
	if (unlikely(n->once))
		return once_assign(n, id);
	new_conn_assign(n, id, srv);
	if (bypass_allowed(ctx, hook, n->af))
		n->flags |= LB_CONN_BYPASS;
	if (unlikely(masquerade_wanted(n, srv))) {
		id = masquerade_begin(ctx, hook, n, srv);
		if (id) {
			template_leave(n->control);
			return id;
		}
	}
	return new_conn_add(n);
}
