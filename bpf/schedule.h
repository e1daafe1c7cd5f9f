/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A new connection: the service's list, the scheduler's choice, the entry in the table. */
#pragma once
#include "sched.h"
#include "hop.h"

enum { PICK_TRIES = 4 };

/* The scheduler's choice among the list in force, for the flow of `n`; 0: no usable server. */
__noinline __u32 service_pick(__u32 service, struct new_conn *n)
{
	struct lb_service *svc = service_at(service);
	struct walk w = {};
	union lb_cell *head;
	__u32 id = 0;
	__u8 sched;

	if (!n)
		return 0;
	w.af = n->af;
	for (int i = 0; i < PICK_TRIES && svc; i++) {
		w.list = READ_ONCE(svc->list);
		head = cell_at(w.list);
		if (!head || head->list.service != service)
			continue; /* the list was replaced as we looked */
		w.count = head->list.count;
		w.max_weight = head->list.max_weight;
		w.gcd = head->list.gcd;
		w.flags = head->list.flags;
		w.table = head->list.table;
		w.service = service;
		w.flow = &n->t; /* here, as the verifier forgets it in sched_walk() */
		w.best = 0;
		w.raced = 0;
		sched = head->list.sched;
		id = sched_pick(sched, &w);
		if (!w.raced)
			break;
	}
	return id;
}

/* May neither direction go through the host's stack? Decided once, so that netfilter sees all of a flow or nothing. */
static __always_inline bool bypass_allowed(void *ctx, enum lb_hook hook, enum lb_af af)
{
	struct lb_config *cfg = config_get();

	if (!cfg || cfg->bypass == LB_BYPASS_NEVER)
		return false;
	return cfg->bypass == LB_BYPASS_ALWAYS || !netfilter_hooked(ctx, hook, af);
}

/* Where a new connection is described: the stack has no room for it. One entry a CPU; not for user space. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct new_conn);
} lb_new_conns SEC(".maps");

static __always_inline struct new_conn *new_conn_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&lb_new_conns, &zero);
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
}

/* The port that a server is asked at: its own, if it has one and a packet's port is not what the clients of the service
 * stick with (ip_vs_sched_persist() maps the port of the service alone, and a service by mark or of port 0 has none). */
static __always_inline __be16 server_port(const struct packet *p, __u32 service,
					  const struct lb_server *srv)
{
	struct lb_service *svc = service_at(service);

	if (!srv->port || (svc && !svc->vport && svc->flags & LB_SERVICE_PERSISTENT))
		return p->t.dport;
	return srv->port;
}

/* Notes what becomes of it: server, state, and how packets get there. */
static __always_inline void new_conn_assign(struct new_conn *n, const struct packet *p, __u32 id,
					    const struct lb_server *srv)
{
	n->server = id;
	n->dport = server_port(p, srv->service, srv);
	n->fwd = srv->fwd;
	n->control = 0;
	n->state = state_first(p->t.proto, p->tcp_flags);
	n->flags = state_active(n->state) ? 0 : LB_CONN_INACTIVE;
}

/* Takes an entry and adds the connection. */
static __always_inline enum lb_verdict new_conn_add(struct new_conn *n, struct conn_ref *ref)
{
	int added;

	n->entry = pool_take();
	if (unlikely(!n->entry))
		n->entry = pool_evict(n->now, bpf_get_prandom_u32());
	if (!n->entry)
		return LB_DROP_TABLE_FULL;
	added = conn_add(n);
	if (added <= 0)
		return added ? -added : LB_DROP_TABLE_FULL;
	ref->index = added - 1;
	ref->c = conn_at(ref->index);
	if (!ref->c)
		return LB_DROP_TABLE_FULL;
	ref->server = ref->c->server;
	ref->dport = ref->c->dport;
	return LB_OK;
}

/* "Port zero only supported in persistent services", as ip_vs_schedule() has it. */
static __always_inline bool service_schedules(__u32 service)
{
	struct lb_service *svc = service_at(service);

	return svc && (svc->vport || svc->fwmark || svc->flags & LB_SERVICE_PERSISTENT);
}

/* Schedules and adds. LB_OK: `ref` is the connection. LB_REFUSE_* and LB_DROP_* say why there is none. */
static __always_inline enum lb_verdict conn_schedule(struct packet *p, enum lb_hook hook,
						     enum lb_af af, __u32 service,
						     struct conn_ref *ref)
{
	struct new_conn *n = new_conn_get();
	struct lb_server *srv;
	__u32 id;

	if (!n)
		return LB_DROP_TABLE_FULL;
	if (unlikely(p->kinds & LB_FEATURE_PORT0) && !service_schedules(service))
		return LB_REFUSE_NO_SERVER;
	new_conn_describe(n, p, af);
	id = service_pick(service, n);
	srv = id ? server_at(id) : NULL;
	if (!srv || srv->service != service)
		return LB_REFUSE_NO_SERVER;
	if (srv->fwd != LB_FWD_MASQ)
		return LB_DROP_METHOD;
	new_conn_assign(n, p, id, srv);
	if (bypass_allowed(p->ctx, hook, af))
		n->flags |= LB_CONN_BYPASS;
	return new_conn_add(n, ref);
}
