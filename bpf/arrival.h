/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The server of a connection that another node sent here in a tunnel: one of those that NAT leads to, as these are on this
 * node. The scheduler of the service chose between nodes, where the packet came in; here the servers of one node share,
 * by load as wlc has it. Where clients are to stay with a server (persistence; sh, dh and mh), each has the one that a hash of
 * both ranks highest, which stays the same whatever other servers come and go but those that outrank it.
 */
#pragma once
#include "policy.h"

/* What ranks server `id` for the client whose hash is in w->left: the highest 48 bits of a multiplication. */
static __always_inline __u64 arrival_rank(const struct walk *w, __u32 id)
{
	__u64 mixed = ((__u64)w->left ^ ((__u64)id << 32 | id)) * lb_hash_key[6];

	return ((mixed ^ mixed >> 32) * lb_hash_key[7]) >> 16;
}

static __always_inline bool arrival_server(const struct walk *w, __u32 i, __u32 *id, __s32 *weight,
					   struct lb_server_state **st)
{
	struct lb_server *srv;

	if (!walk_server(w, i, id, weight, st))
		return false;
	srv = server_at(*id);
	return srv && srv->fwd == LB_FWD_MASQ;
}

static long arrival_rank_step(__u32 i, void *ctx)
{
	struct walk *w = walk_of(ctx);
	struct lb_server_state *st;
	__s32 weight;
	__u64 rank;
	__u32 id;

	if (!arrival_server(w, i, &id, &weight, &st))
		return WALK_ON;
	rank = arrival_rank(w, id);
	if (!w->best || rank > w->load) {
		w->best = id;
		w->load = rank;
	}
	return WALK_ON;
}

static long arrival_load_step(__u32 i, void *ctx)
{
	struct walk *w = walk_of(ctx);
	struct lb_server_state *st;
	__s32 weight;
	__u32 id;

	if (arrival_server(w, i, &id, &weight, &st))
		wlc_weigh(w, id, weight, st);
	return WALK_ON;
}

/* Do clients stay with a server? */
static __always_inline bool arrival_stays(const struct lb_list *list)
{
	return list->flags & LB_SERVICE_PERSISTENT || list->sched == LB_SCHED_SH ||
	       list->sched == LB_SCHED_DH || list->sched == LB_SCHED_MH;
}

/* The id of the server; 0: there is no usable one. (Not static: the verifier looks at it once.) */
__noinline __u32 arrival_pick(__u32 service, struct new_conn *n)
{
	struct walk *w = n ? walk_get(n) : NULL;
	union lb_cell *head;
	__u32 list = 0;

	if (!w)
		return 0;
	head = list_in_force(service, &list);
	if (!head)
		return 0;
	w->service = service;
	w->list = list;
	w->count = head->list.count;
	w->best = 0;
	w->left = hash_endpoint(lb_hash_key, &n->t.saddr, 0, n->t.proto, n->af);
	if (arrival_stays(&head->list))
		walk_all(w, arrival_rank_step);
	else
		walk_all(w, arrival_load_step);
	return w->best;
}
