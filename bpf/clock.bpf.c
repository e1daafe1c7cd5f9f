// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Reads the kernel's two clocks, so that user space can tell how many jiffies a second has before it loads lb.bpf.c,
 * where that number is a constant. Run by BPF_PROG_RUN only; the answer is the packet's first 16 bytes. */
#include "bpf_env.h"

char _license[] SEC("license")
= "Dual BSD/GPL";

SEC("tc")
int lb_sample_clock(struct __sk_buff *skb)
{
	struct lb_clock *out = (void *)(long)skb->data;

	if ((void *)(out + 1) > (void *)(long)skb->data_end)
		return 1;
	out->jiffies = bpf_jiffies64();
	out->ktime_ns = bpf_ktime_get_ns();
	return 0;
}
