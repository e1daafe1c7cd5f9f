/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What another director tells of its connections. The sync daemon puts it into lb_sync_conns, with the server that it found
 * for each, and runs lb_sync, which enters it here or changes what is there. As ip_vs_proc_conn() of ip_vs_sync.c.
 */
#pragma once
#include "schedule.h"

/* What a run knows of the host: for which families connections may pass by its stack. */
struct sync_run {
	__u32 bypass4, bypass6;
};

/* What lb_sync_conn.flags may say. */
enum { SYNC_FLAGS = LB_CONN_INACTIVE | LB_CONN_ASSURED };

static __always_inline struct lb_sync_conn *sync_conn_at(__u32 i)
{
	return bpf_map_lookup_elem(&lb_sync_conns, &i);
}

static __always_inline __u32 sync_ticks(const struct lb_sync_conn *in)
{
	if (!in->timeout)
		return state_timeout_ticks(in->state);
	return seconds_ticks(in->timeout);
}

static __always_inline void sync_describe(struct new_conn *n, const struct lb_sync_conn *in)
{
	n->t.saddr = in->caddr;
	n->t.daddr = in->vaddr;
	n->t.sport = in->cport;
	n->t.dport = in->vport;
	n->t.proto = in->proto;
	n->af = in->af;
	n->server = in->server;
	n->dport = in->dport;
	n->state = in->state;
	n->flags = in->flags | LB_CONN_SYNC;
	n->now = clock_tick();
	n->expires = n->now + sync_ticks(in);
	n->timeout = in->proto & LB_TEMPLATE ? in->timeout : 0;
	n->client = hash_endpoint(lb_hash_key, &in->caddr, in->cport, in->proto, in->af);
	n->service = hash_endpoint(lb_hash_key, &in->vaddr, in->vport, in->proto, in->af);
}

/* A connection is as the other director says, whatever it was. What that does not tell of stays. */
static __always_inline enum lb_verdict sync_change(struct lb_conn *c, const struct new_conn *n)
{
	__u32 *word = (__u32 *)&c->state;
	union conn_word was, now;

	for (int i = 0; i < STEP_TRIES; i++) {
		was.word = READ_ONCE(*word);
		now = was;
		now.state = n->state;
		now.flags = (was.flags & ~SYNC_FLAGS) | n->flags;
		now.packets = LB_SYNC_DATAGRAMS;
		if (__sync_val_compare_and_swap(word, was.word, now.word) != was.word)
			continue;
		if ((now.flags ^ was.flags) & LB_CONN_INACTIVE && !conn_is_template(c))
			server_recount(c->server, now.flags & LB_CONN_INACTIVE);
		if (conn_is_template(c))
			c->hop_token = n->timeout;
		c->expires = n->expires;
		return LB_OK;
	}
	return LB_DROP_BUSY;
}

enum sync_found { SYNC_DONE, SYNC_ADD };

/* There is an entry of these ends, or none; its line is locked. A connection with another server gives way, unless the news
 * is of an end: then it is of one that was replaced already. */
static __always_inline enum sync_found sync_there(__u32 there, const struct new_conn *n,
						  enum lb_verdict *verdict)
{
	struct lb_conn *c = there ? conn_at(there - 1) : NULL;

	if (!c)
		return SYNC_ADD;
	if (conn_is_template(c) || (c->server == n->server && c->dport == n->dport)) {
		*verdict = sync_change(c, n);
		return SYNC_DONE;
	}
	if (n->flags & LB_CONN_INACTIVE)
		return SYNC_DONE;
	conn_release(there - 1);
	return SYNC_ADD;
}

/* Adds what is not there yet; it gets the method of its server, as in ip_vs_bind_dest(). */
static __always_inline enum lb_verdict sync_add(struct new_conn *n, const struct lb_server *srv,
						__u32 bypass)
{
	int added;

	n->fwd = srv->fwd;
	if (n->fwd != LB_FWD_MASQ || n->t.proto & LB_TEMPLATE)
		n->flags |= LB_CONN_NOOUTPUT;
	else if (bypass)
		n->flags |= LB_CONN_BYPASS;
	added = conn_enter(n);
	if (added < 0)
		return -added;
	if ((__u32)added != n->entry && n->t.proto & LB_TEMPLATE)
		template_leave(
			added); /* another CPU made it meanwhile, and counts us for a connection */
	return LB_OK;
}

/* Enters one, or changes what is there. */
__noinline int sync_enter(struct lb_sync_conn *in, __u32 bypass)
{
	enum lb_verdict verdict = LB_OK;
	struct lb_conn_line *line;
	struct new_conn n = {};
	enum sync_found found;
	struct lb_server *srv;

	if (!in)
		return LB_DROP_TABLE_FULL;
	sync_describe(&n, in);
	srv = server_at(n.server);
	line = conn_line_at(hash_spot(n.client, lb_conn_line_mask).first);
	if (!srv || !line || !lock_take(&line->lock))
		return LB_DROP_BUSY;
	found = sync_there(conn_present(&n), &n, &verdict);
	lock_leave(&line->lock);
	return found == SYNC_DONE ? verdict : sync_add(&n, srv, bypass);
}

static long sync_step(__u32 i, void *ctx)
{
	struct lb_sync_conn *in = sync_conn_at(i);
	struct sync_run *run = ctx;

	if (!in || !in->af)
		return 1;
	in->verdict = sync_enter(in, in->af == LB_AF_INET ? run->bypass4 : run->bypass6);
	return 0;
}

static __always_inline void sync_enter_all(struct __sk_buff *skb)
{
	struct sync_run run = {
		.bypass4 = bypass_allowed(skb, HOOK_INGRESS, LB_AF_INET),
		.bypass6 = bypass_allowed(skb, HOOK_INGRESS, LB_AF_INET6),
	};

	bpf_loop(LB_SYNC_BATCH, sync_step, &run, 0);
}
