/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What lblc and lblcr remember: to which servers of a service an address was sent (the tables of ip_vs_lblc.c, ip_vs_lblcr.c).
 * Look-ups take no lock; changes take that of the entry's line. A server counts the entries that name it, and as long as there
 * are some it keeps its id (ip_vs_dest_hold()), so one that is removed and added again is remembered.
 */
#pragma once
#include "walk.h"

enum { MEMO_CHAIN = 16 }; /* entries of one line that are looked at */

static __always_inline __u32 memo_max(void)
{
	return lb_server_max / LB_MEMO_SHARE;
}

static __always_inline struct lb_memo *memo_at(__u32 id)
{
	return id ? bpf_map_lookup_elem(&lb_memos, &id) : NULL;
}

static __always_inline struct lb_memo_pool *memo_pool(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&lb_memo_pool, &zero);
}

static __always_inline struct lb_memo_line *memo_line(__u32 service, const union lb_addr *addr)
{
	__u64 h = hash_endpoint(lb_hash_key, addr, 0, 0, LB_AF_INET6) + lb_hash_key[6] * service;
	__u32 line = (h >> 32) & (memo_max() - 1);

	return bpf_map_lookup_elem(&lb_memo_lines, &line);
}

static __always_inline void memo_refer(__u32 server, __s32 by)
{
	struct lb_server_state *st = server_state_at(server);

	if (st)
		__sync_fetch_and_add(&st->memos, by);
}

/* A free record, or 0. */
__noinline __u32 memo_take(void)
{
	struct lb_memo_pool *pool = memo_pool();
	__u32 id = 0;

	if (!pool)
		return 0;
	for (int i = 0; i < POOL_TRIES && !id; i++) {
		__u64 head = READ_ONCE(pool->head), next;
		struct lb_memo *m = memo_at(head);

		if (!m)
			break;
		next = ((head >> 32) + 1) << 32 | READ_ONCE(m->next);
		if (__sync_val_compare_and_swap(&pool->head, head, next) == head)
			id = head;
	}
	if (!id && READ_ONCE(pool->high) + 1 < memo_max())
		id = __sync_fetch_and_add(&pool->high, 1) + 1;
	if (!id || id >= memo_max()) {
		count_verdict(LB_MEMO_FULL);
		return 0;
	}
	__sync_fetch_and_add(&pool->used, 1);
	return id;
}

/* Gives a record back. Bounded as pool_push(). */
__noinline int memo_give(__u32 id)
{
	struct lb_memo_pool *pool = memo_pool();
	struct lb_memo *m = memo_at(id);

	if (!pool || !m)
		return 0;
	m->service = 0;
	m->count = 0;
	m->more = 0;
	for (int i = 0; i < POOL_PUSH_TRIES; i++) {
		__u64 head = READ_ONCE(pool->head);

		m->next = head;
		if (__sync_val_compare_and_swap(&pool->head, head, ((head >> 32) + 1) << 32 | id) ==
		    head) {
			__sync_fetch_and_sub(&pool->used, 1);
			return 1;
		}
	}
	count_verdict(LB_ENTRY_LOST);
	return 0;
}

/* The entry of the walk's service and address, or 0. */
static __always_inline __u32 memo_find(const struct lb_memo_line *line, const struct walk *w)
{
	struct lb_service_state *st = service_state_at(w->service);
	__u32 id = READ_ONCE(line->head);

	for (int i = 0; st && id && i < MEMO_CHAIN; i++) {
		struct lb_memo *m = memo_at(id);

		if (!m)
			return 0;
		if (m->service == w->service && m->epoch == st->epoch &&
		    addr_equal(&m->addr, &w->flow.daddr, LB_AF_INET6))
			return id;
		id = READ_ONCE(m->next);
	}
	return 0;
}

/* As memo_find(); notes that the entry was looked at. */
__noinline __u32 memo_look(struct walk *w)
{
	struct lb_memo_line *line;
	struct lb_memo *m;
	__u32 id;

	if (!w)
		return 0;
	line = memo_line(w->service, &w->flow.daddr);
	id = line ? memo_find(line, w) : 0;
	m = memo_at(id);
	if (!m)
		return 0;
	if (m->used != w->now)
		m->used = w->now;
	return id;
}
