/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Forgetting: the sweeper's timer ends entries that are void or were not used for long, so that what is remembered is bounded and
 * removed servers get free. (The kernel looks every half hour, and at a service with more than 16,384 entries every minute.)
 */
#pragma once
#include "memo.h"

enum {
	MEMO_SLICE = 256, /* records swept in one run */
	MEMO_CROWDED_S =
		6 *
		60, /* ENTRY_TIMEOUT: with little room left, what was not used for so long goes */
};

static long memo_free_step(__u32 i, void *ctx)
{
	__u32 *id = ctx, spare = *id;
	struct lb_memo *m = memo_at(spare);

	(void)i;
	if (!m)
		return WALK_END;
	for (__u32 k = 0; k < LB_MEMO_SERVERS; k++)
		if (k < m->count)
			memo_refer(m->server[k], -1);
	*id = m->more;
	memo_give(spare);
	return WALK_ON;
}

/* Takes an entry out of its line, which is locked. */
static __always_inline bool memo_unlink(struct lb_memo_line *line, const struct lb_memo *m, __u32 id)
{
	__u32 at = line->head;

	if (at == id) {
		line->head = m->next;
		return true;
	}
	for (int i = 0; i < MEMO_CHAIN; i++) {
		struct lb_memo *before = memo_at(at);

		if (!before)
			return false;
		at = before->next;
		if (at == id) {
			before->next = m->next;
			return true;
		}
	}
	return false;
}

/* Is an entry void, or was it not used for too long? */
static __always_inline bool memo_over(const struct lb_memo *m, __u32 now, bool crowded)
{
	struct lb_service_state *st = service_state_at(m->service);
	struct lb_config *cfg = config_get();
	__u64 keep;

	if (!st || !cfg || m->epoch != st->epoch)
		return true;
	keep = m->sched == LB_SCHED_LBLC ? cfg->lblc_expiration : cfg->lblcr_expiration;
	if (crowded && keep > MEMO_CROWDED_S)
		keep = MEMO_CROWDED_S;
	return now - m->used > keep * lb_hz >> lb_tick_shift;
}

/* Ends an entry that is over. */
__noinline int memo_end(__u32 id, __u32 now, __u32 crowded)
{
	struct lb_memo *m = memo_at(id);
	struct lb_memo_line *line;
	int done = 0;

	if (!m || !m->service || !memo_over(m, now, crowded))
		return 0;
	line = memo_line(m->service, &m->addr);
	if (!line || !lock_take(&line->lock))
		return 0;
	if (m->service && memo_over(m, now, crowded) && memo_unlink(line, m, id)) {
		m->service = 0;
		bpf_loop(memo_max(), memo_free_step, &id, 0);
		done = 1;
	}
	lock_leave(&line->lock);
	return done;
}

struct memo_slice {
	__u32 at, now, crowded;
};

static long memo_sweep_step(__u32 i, void *ctx)
{
	struct memo_slice *s = ctx;

	memo_end(s->at + i, s->now, s->crowded);
	return 0;
}

/* Looks at so many records from `at` on, of those ever used; where the next slice begins. Crowded: three quarters are used. */
static __noinline __u32 memo_sweep(__u32 at, __u32 want)
{
	struct lb_memo_pool *pool = memo_pool();
	struct memo_slice s = { .at = at, .now = clock_tick() };
	__u32 high;

	if (!pool)
		return 0;
	high = pool->high + 1;
	if (s.at >= high)
		s.at = 0;
	if (want > high - s.at)
		want = high - s.at;
	s.crowded = pool->used > memo_max() - memo_max() / 4;
	bpf_loop(want, memo_sweep_step, &s, 0);
	return s.at + want;
}
