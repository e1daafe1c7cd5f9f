/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a BPF iterator over the sockets of a namespace is handed. It has each socket locked. */
#pragma once
#include "bpf_env.h"
#include <linux/in6.h>

struct seq_file;
struct sock_common {
	__u16 skc_num; /* its own port, host order */
	__be32 skc_rcv_saddr;
	struct in6_addr skc_v6_rcv_saddr;
} __attribute__((preserve_access_index));
struct bpf_iter_meta {
	struct seq_file *seq;
} __attribute__((preserve_access_index));
struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
} __attribute__((preserve_access_index));
