/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What schedulers walk: the servers of one list, in the order of the kernel's list. */
#pragma once
#include "../conn_edit.h"
#include "../scratch.h"

enum { WALK_ON = 0, WALK_END = 1 };

struct walk {
	__u32 list;  /* cell of the list's head */
	__u32 count; /* servers in it */
	__u32 service;
	__u32 start;  /* where a walk begins */
	__u32 best;   /* the server chosen; 0: none yet */
	__s32 weight; /* its weight */
	__u64 load;   /* its load */
	__s32 least;  /* wrr: the least weight that counts now */
	__u32 raced;  /* another CPU moved the scheduler's state meanwhile: pick again */
	__s64 left;   /* twos: what the weights have yet to add up to */
	__u32 max_weight, gcd;
	__u32 table;       /* sh, dh, mh: cell of the first bucket; 0: none has a server */
	__u32 key;         /* sh, mh: what is hashed of who asks */
	struct tuple flow; /* who asks for what */
	__u32 now;         /* tick */
	__u32 record; /* lblcr: where in a set a walk is: this record's servers before `place` are left */
	__u32 place;
	__u32 members; /* lblcr: how many have been met */
	__u8 af;       /* enum lb_af, of the flow */
	__u8 flags;    /* enum lb_service_flag: SCHED1 to SCHED3 */
};

/* Walks: a step gets the walk by walk_of(), as what is handed to a loop must be on the stack. */
static __always_inline long walk_steps(struct walk *w, __u32 count, long (*step)(__u32, void *))
{
	return bpf_loop(count, step, &w, 0);
}

/* A walk of the whole list, as far as the steps want. */
static __always_inline long walk_all(struct walk *w, long (*step)(__u32, void *))
{
	return walk_steps(w, w->count, step);
}

static __always_inline struct walk *walk_of(void *ctx)
{
	return *(struct walk **)ctx;
}

/* Where a walk is described: the stack has no room for it. Not for user space. */
struct {
	__uint(type, SCRATCH_MAP);
	__uint(max_entries, SCRATCH_SLOTS);
	__type(key, __u32);
	__type(value, struct walk);
} lb_walks SEC(".maps");

/* The server of slot `i`, any: leaves its id and weight in the arguments. */
static __always_inline struct lb_server_state *walk_slot(const struct walk *w, __u32 i, __u32 *id,
							 __s32 *weight)
{
	struct lb_slot *slot = slot_at(w->list, i);

	if (!slot)
		return NULL;
	*id = slot->server;
	*weight = slot->weight;
	return server_state_at(*id);
}

/* Can the server of slot `i` take a connection? Leaves its id and weight in the arguments. */
static __always_inline bool walk_server(const struct walk *w, __u32 i, __u32 *id, __s32 *weight,
					struct lb_server_state **st)
{
	*st = walk_slot(w, i, id, weight);
	return *st && *weight > 0 && !((*st)->flags & LB_SERVER_OVERLOAD);
}

static __always_inline bool walk_usable(const struct walk *w, __u32 i)
{
	struct lb_server_state *st;
	__s32 weight;
	__u32 id;

	return walk_server(w, i, &id, &weight, &st);
}

static __always_inline long walk_take(struct walk *w, __u32 i)
{
	struct lb_slot *slot = slot_at(w->list, i);

	if (slot) {
		w->best = slot->server;
		w->weight = slot->weight;
	}
	return WALK_END;
}

/* Index of the slot after server `id`'s; the head when `id` is 0 or no longer in the list's service. A server that was
 * removed stands for the one before it then. */
static __always_inline __u32 walk_after(const struct walk *w, __u32 id)
{
	for (int hops = 0; id && hops < 8; hops++) {
		struct lb_server *srv = server_at(id);
		__u32 next;

		if (!srv || srv->service != w->service)
			return 0;
		if (srv->flags & LB_SERVER_AVAILABLE) {
			next = w->count - srv->rank; /* index is count - 1 - rank */
			return next < w->count ? next : 0;
		}
		id = srv->before;
	}
	return 0;
}

/* ip_vs_dest_conn_overhead() */
static __always_inline __u64 server_overhead(const struct lb_server_state *st)
{
	return ((__u64)(__u32)st->active << 8) + (__u32)st->inactive;
}
