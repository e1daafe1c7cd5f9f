/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a new connection needs, whoever picks its server: where it is described, the scheduler's choice, an entry. */
#pragma once
#include "sched.h"

enum { PICK_TRIES = 4 };

enum { NEW_CONN, NEW_TEMPLATE };

/* Where a new connection, and its template, are described: the stack has no room for it. Not for user space. */
struct {
	__uint(type, SCRATCH_MAP);
	__uint(max_entries, 2 * SCRATCH_SLOTS);
	__type(key, __u32);
	__type(value, struct new_conn);
} lb_new_conns SEC(".maps");

static __always_inline struct new_conn *new_conn_get(__u32 which)
{
	return bpf_map_lookup_elem(&lb_new_conns, &which);
}

/* Where the template of a new connection is described. */
static __always_inline struct new_conn *new_template_get(const struct new_conn *n)
{
	return new_conn_get(2 * n->scratch + NEW_TEMPLATE);
}

static __always_inline struct walk *walk_get(const struct new_conn *n)
{
	__u32 slot = n->scratch;

	return bpf_map_lookup_elem(&lb_walks, &slot);
}

/* The head of the list that a service has, and its cell; NULL: there is none. */
static __always_inline union lb_cell *list_in_force(__u32 service, __u32 *list)
{
	struct lb_service *svc = service_at(service);

	for (int i = 0; i < PICK_TRIES && svc; i++) {
		union lb_cell *head;

		*list = READ_ONCE(svc->list);
		head = cell_at(*list);
		if (head && head->list.service == service)
			return head; /* else the list was replaced as we looked */
	}
	return NULL;
}

/* The scheduler's choice among the list in force, for the flow of `n`; 0: no usable server. */
__noinline __u32 service_pick(__u32 service, struct new_conn *n)
{
	struct walk *w = n ? walk_get(n) : NULL;
	__u32 id = 0;

	if (!w)
		return 0;
	w->service = service;
	w->flow = n->t;
	w->af = n->af;
	w->now = n->now;
	for (int i = 0; i < PICK_TRIES; i++) {
		__u32 list = 0;
		union lb_cell *head = list_in_force(service, &list);

		if (!head)
			break;
		w->list = list;
		w->count = head->list.count;
		w->max_weight = head->list.max_weight;
		w->gcd = head->list.gcd;
		w->flags = head->list.flags;
		w->table = head->list.table;
		n->policy = head->list.policy;
		w->best = 0;
		w->raced = 0;
		id = sched_pick(head->list.sched, w);
		if (!w->raced)
			break;
	}
	return id;
}

/* Takes an entry for a described connection and adds it. As conn_add(). */
static __always_inline int conn_enter(struct new_conn *n)
{
	int added;

	if (!n)
		return -LB_DROP_TABLE_FULL;
	n->entry = pool_take();
	if (unlikely(!n->entry))
		n->entry = pool_evict(n->now, bpf_get_prandom_u32());
	if (!n->entry)
		return -LB_DROP_TABLE_FULL;
	added = conn_add(n);
	return added ? added : -LB_DROP_TABLE_FULL;
}
