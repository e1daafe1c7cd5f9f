// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A sender's side of a VLAN, for tests on kernels without the module for it: gives whatever leaves a tag. */
#include "../bpf_env.h"
#include <linux/if_ether.h>

char _license[] SEC("license")
= "Dual BSD/GPL";

enum { VLAN = 5 };

SEC("tc")
int tag(struct __sk_buff *skb)
{
	return bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), VLAN) ? 2 /* TC_ACT_SHOT */
								    : -1 /* TC_ACT_UNSPEC */;
}
