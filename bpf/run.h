/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Programs that user space runs by BPF_PROG_RUN. */
#pragma once
#include "end.h"
#include "handover.h"
#include "sweep.h"
#include "sync.h"

/* Fills lb_clock, for user space, which has no jiffies, and does not know this kernel. */
SEC("tc")
int lb_read_clock(struct __sk_buff *skb)
{
	struct bpf_fib_lookup f = { .family = AF_INET_, .ifindex = LOOPBACK_IFINDEX_ };
	__u32 zero = 0;
	struct lb_clock *c = bpf_map_lookup_elem(&lb_clock, &zero);

	if (c) {
		c->jiffies = bpf_jiffies64();
		c->ktime_ns = bpf_ktime_get_ns();
		c->sources_wanted = bpf_fib_lookup(skb, &f, sizeof(f), FIB_LOOKUP_SRC) == -EINVAL_;
		c->conntrack_readable = conntrack_readable();
	}
	return 0;
}

/* Starts the timer that expires connections; its callback is this object's from then on. 0: it runs. */
SEC("tc")
int lb_start_sweeper(struct __sk_buff *skb __attribute__((unused)))
{
	return sweep_start() ? 1 : 0;
}

/* Ends all that has expired by now, so that a listing is exact; what the tunables say is in force when it returns. */
SEC("tc")
int lb_sweep(struct __sk_buff *skb __attribute__((unused)))
{
	struct lb_defence *d = defence_get();
	__u32 used = 0;

	sweep_slice(0, lb_conn_max, &used);
	memo_sweep(0, lb_server_max);
	if (!d)
		return 1;
	d->used = used;
	defence_update(d);
	return 0;
}

/* Ends the connection that the packet names: enum lb_ended. */
SEC("tc")
int lb_end(struct __sk_buff *skb)
{
	return end_wished(skb);
}

/* Enters what the sync daemon was told into the table of connections. */
SEC("tc")
int lb_sync(struct __sk_buff *skb)
{
	sync_enter_all(skb);
	return 0;
}
