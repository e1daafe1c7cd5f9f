/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Rates, as ip_vs_est.c: every two seconds a rate moves a quarter of the way to what was counted meanwhile. The sweeper's
 * timer does a slice of all servers, then of all services, at each of its runs, so with no process of ours alive rates go on.
 * What a server counted is also added to its service's record, and to that of everything, to be taken from there in their turn.
 */
#pragma once
#include "tables.h"

enum { SERVER_SLICES = 30, SERVICE_SLICES = 10 }; /* one after the other */

struct estimate {
	__u32 at, server, lanes;
	struct lb_counters sum; /* of the server, over all lanes */
};

static __always_inline struct lb_rates *rates_at(__u32 i)
{
	return bpf_map_lookup_elem(&lb_rates, &i);
}

static long sum_lane_step(__u32 i, void *ctx)
{
	struct estimate *e = ctx;
	__u32 at = i * lb_server_max + e->server;
	struct lb_counters *c = bpf_map_lookup_elem(&lb_stats, &at);

	if (!c)
		return 1;
	e->sum.conns += c->conns;
	e->sum.in_pkts += c->in_pkts;
	e->sum.out_pkts += c->out_pkts;
	e->sum.in_bytes += c->in_bytes;
	e->sum.out_bytes += c->out_bytes;
	return 0;
}

/* ip_vs_est.c, estimation_timer(): rates in units of 2^-10 (2^-5 for bytes) a second, from a count over two seconds. */
static __always_inline void rate_step(__u32 *rate, __u32 count)
{
	*rate += ((__s64)((__u64)count << 9) - (__s64)*rate) >> 2;
}

static __always_inline void byte_rate_step(__u64 *rate, __u64 count)
{
	*rate += ((__s64)(count << 4) - (__s64)*rate) >> 2;
}

static __always_inline void rates_step(struct lb_rates *r, const struct lb_rates *counted)
{
	rate_step(&r->cps, counted->last_conns);
	rate_step(&r->in_pps, counted->last_in_pkts);
	rate_step(&r->out_pps, counted->last_out_pkts);
	byte_rate_step(&r->in_bps, counted->last_in_bytes);
	byte_rate_step(&r->out_bps, counted->last_out_bytes);
}

static __always_inline bool rates_idle(const struct lb_rates *r)
{
	return !(r->cps | r->in_pps | r->out_pps | r->in_bps | r->out_bps);
}

/* What was counted since the last look, which this is from now on: nothing if a counter fell, as the id then changed hands. */
static __always_inline void counted_since(struct lb_rates *r, const struct lb_counters *sum,
					  struct lb_rates *counted)
{
	counted->last_conns = (__u32)sum->conns - r->last_conns;
	counted->last_in_pkts = (__u32)sum->in_pkts - r->last_in_pkts;
	counted->last_out_pkts = (__u32)sum->out_pkts - r->last_out_pkts;
	counted->last_in_bytes = sum->in_bytes - r->last_in_bytes;
	counted->last_out_bytes = sum->out_bytes - r->last_out_bytes;
	if ((__s32)(counted->last_conns | counted->last_in_pkts | counted->last_out_pkts) < 0 ||
	    (__s64)(counted->last_in_bytes | counted->last_out_bytes) < 0)
		__builtin_memset(counted, 0, sizeof(*counted));
	r->last_conns = sum->conns;
	r->last_in_pkts = sum->in_pkts;
	r->last_out_pkts = sum->out_pkts;
	r->last_in_bytes = sum->in_bytes;
	r->last_out_bytes = sum->out_bytes;
}

static __always_inline void counted_add(struct lb_rates *to, const struct lb_rates *counted)
{
	to->last_conns += counted->last_conns;
	to->last_in_pkts += counted->last_in_pkts;
	to->last_out_pkts += counted->last_out_pkts;
	to->last_in_bytes += counted->last_in_bytes;
	to->last_out_bytes += counted->last_out_bytes;
}

static long estimate_server_step(__u32 i, void *ctx)
{
	struct estimate *e = ctx;
	struct lb_server *srv = server_at(e->at + i);
	struct lb_rates *r = rates_at(e->at + i), *of_service, *of_all, counted;

	if (!srv || !srv->af || !r)
		return 0;
	__builtin_memset(&e->sum, 0, sizeof(e->sum));
	e->server = e->at + i;
	bpf_loop(e->lanes, sum_lane_step, e, 0);
	if (rates_idle(r) && (__u32)e->sum.in_pkts == r->last_in_pkts &&
	    (__u32)e->sum.out_pkts == r->last_out_pkts && (__u32)e->sum.conns == r->last_conns)
		return 0;
	counted_since(r, &e->sum, &counted);
	rates_step(r, &counted);
	of_service = rates_at(lb_server_max + srv->service);
	of_all = rates_at(lb_server_max);
	if (of_service && of_all) {
		counted_add(of_service, &counted);
		counted_add(of_all, &counted);
	}
	return 0;
}

static long estimate_service_step(__u32 i, void *ctx)
{
	struct estimate *e = ctx;
	struct lb_rates *r = rates_at(lb_server_max + e->at + i), counted;

	if (!r || (rates_idle(r) && !(r->last_conns | r->last_in_pkts | r->last_out_pkts)))
		return 0;
	counted = *r;
	r->last_conns = 0;
	r->last_in_pkts = 0;
	r->last_out_pkts = 0;
	r->last_in_bytes = 0;
	r->last_out_bytes = 0;
	rates_step(r, &counted);
	return 0;
}

/* How many of `high` ids are in one of so many slices; `at` is the first. */
static __always_inline __u32 slice_of(__u32 high, __u32 slice, __u32 slices, __u32 *at)
{
	*at = (__u64)high * slice / slices;
	return (__u64)high * (slice + 1) / slices - *at;
}

/* Estimates the rates of one slice; the next one's number. Each is to have its turn every two seconds. */
static __noinline __u32 estimate_slice(__u32 slice)
{
	struct estimate e = { .lanes = lb_lane_mask + 1 };
	struct lb_book *book = book_get();
	struct lb_config *cfg = config_get();
	__u32 count;

	if (!book || !cfg || !cfg->run_estimation || slice >= SERVER_SLICES + SERVICE_SLICES)
		return 0;
	if (slice < SERVER_SLICES) {
		count = slice_of(book->server_high, slice, SERVER_SLICES, &e.at);
		bpf_loop(count, estimate_server_step, &e, 0);
	} else {
		count = slice_of(book->service_high, slice - SERVER_SLICES, SERVICE_SLICES, &e.at);
		bpf_loop(count, estimate_service_step, &e, 0);
	}
	return slice + 1 < SERVER_SLICES + SERVICE_SLICES ? slice + 1 : 0;
}
