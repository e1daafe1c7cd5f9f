/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Services whose clients go on to the same servers (lb_service.affinity). They share their templates, which stand for an address:
 * each service has its own server there. One that has none at the address keeps a template of its own for the client, as if it
 * shared nothing. (IPVS has no such thing.)
 */
#pragma once
#include "persist.h"

static long same_address_step(__u32 i, void *ctx)
{
	struct walk *w = walk_of(ctx);
	struct lb_slot *slot = slot_at(w->list, i);
	struct lb_server *srv = slot ? server_at(slot->server) : NULL;

	if (!srv || srv->af != w->af || !addr_equal(&srv->addr, &w->flow.daddr, LB_AF_INET6))
		return WALK_ON;
	return walk_take(w, i);
}

/* The server of `service` at the address of server `other`, if clients may return to it; else 0. (Not static: the verifier looks
 * at it once.) */
__noinline __u32 server_beside(__u32 service, __u32 other, struct new_conn *n)
{
	struct walk *w = n ? walk_get(n) : NULL;
	struct lb_server *srv = server_at(other);
	union lb_cell *head;
	__u32 list = 0;

	if (!w || !srv)
		return 0;
	if (srv->service == service)
		return other;
	head = list_in_force(service, &list);
	if (!head)
		return 0;
	w->list = list;
	w->count = head->list.count;
	w->flow.daddr = srv->addr;
	w->af = srv->af;
	w->best = 0;
	walk_all(w, same_address_step);
	return server_usable(w->best) ? w->best : 0;
}

/* The server that the template of `n`'s client leads to, whose connection `n` is then: its id. 0: none, and a template is
 * described for the server that is to be picked; or -verdict. */
static __always_inline int template_server(__u32 service, struct new_conn *n)
{
	struct lb_service *svc = service_at(service);
	struct lb_conn *c;
	__u32 id;

	if (unlikely(svc && svc->affinity)) {
		n->control = template_find(service, n, true);
		c = (int)n->control > 0 ? conn_at(n->control - 1) : NULL;
		if (!c)
			return n->control;
		id = server_beside(service, c->server, n);
		if (id)
			return id;
		template_leave(n->control);
	}
	n->control = template_find(service, n, false);
	c = (int)n->control > 0 ? conn_at(n->control - 1) : NULL;
	return c ? c->server : n->control;
}

/* Makes the template that template_server() described, for the server that was picked: the id of the server that it leads to (another
 * one, if another CPU made it meanwhile), or -verdict. */
static __always_inline int template_begin(__u32 service, struct new_conn *n,
					  const struct lb_server *srv, __u32 id)
{
	struct lb_conn *c;
	__u32 beside;

	n->control = template_make(n, srv, id);
	if ((int)n->control < 0)
		return n->control;
	c = conn_at(n->control - 1);
	if (likely(!c || c->server == id))
		return id;
	beside = server_beside(service, c->server, n);
	if (beside)
		return beside;
	template_leave(n->control);
	n->control = 0;
	return id;
}
