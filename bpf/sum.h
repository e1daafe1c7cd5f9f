/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* One's complement sums, of parts of a packet and of all of it. */
#pragma once
#include "nat.h"
#include "scratch.h"

enum { SUM_CHUNK = 256, SUM_CHUNKS = 256 };

/* Sum of the pseudo header, folded but not inverted. */
static __always_inline __u16 pseudo_sum(const union lb_addr *a, const union lb_addr *b, __u8 proto,
					__u32 len, enum lb_af af)
{
	__u64 sum = (__u64)a->w[0] + b->w[0] + bpf_htonl(len) + bpf_htonl(proto);

	if (af == LB_AF_INET6)
		for (int i = 1; i < 4; i++)
			sum += (__u64)a->w[i] + b->w[i];
	return csum_fold(sum);
}

/* Sum of `words` 32-bit words from `at`. */
static __always_inline __u64 sum_words(void *at, void *end, int words)
{
	__u64 sum = 0;
	__u32 *w = at;

	for (int i = 0; i < words && (void *)(w + 1) <= end; i++)
		sum += *w++;
	return sum;
}

/* Where bytes are copied to, to be summed. */
struct sum_chunk {
	__u32 words[SUM_CHUNK / 4];
};
LB_SCRATCH(lb_sum_chunks, struct sum_chunk, sum_chunk_get)

struct sum_walk {
	void *ctx;
	__u32 at, left;
	__s64 sum; /* < 0: could not be read */
};

static __always_inline long sum_step(struct sum_walk *w, enum lb_hook hook)
{
	__u32 last = (w->left < SUM_CHUNK ? w->left : SUM_CHUNK) - 1, n;
	struct sum_chunk *c = sum_chunk_get();

	HIDE(last);
	if (!c || last >= SUM_CHUNK) /* so Linux 6.1 sees that `n` is not 0, too */
		return 1;
	n = last + 1;
	c->words[last / 4] = 0; /* what the last bytes leave of their word */
	if (hook == HOOK_XDP ? bpf_xdp_load_bytes(w->ctx, w->at, c, n)
			     : bpf_skb_load_bytes(w->ctx, w->at, c, n)) {
		w->sum = -1;
		return 1;
	}
	w->sum = bpf_csum_diff(NULL, 0, c->words, last / 4 * 4 + 4, w->sum);
	w->at += n;
	w->left -= n;
	return w->sum < 0 || !w->left;
}

static long sum_step_xdp(__u32 i, void *walk)
{
	(void)i;
	return sum_step(walk, HOOK_XDP);
}

static long sum_step_tc(__u32 i, void *walk)
{
	(void)i;
	return sum_step(walk, HOOK_INGRESS);
}

/* The folded sum of `len` bytes from `at`, an even offset; 0 if they are not there (bytes that are all 0 are no packet). (Not static: the
 * verifier looks at it once.) */
__noinline __u32 sum_xdp(struct xdp_md *ctx, __u32 at, __u32 len)
{
	struct sum_walk w = { .ctx = ctx, .at = at, .left = len };

	bpf_loop(SUM_CHUNKS, sum_step_xdp, &w, 0);
	return w.sum < 0 || w.left ? 0 : csum_fold(w.sum);
}

__noinline __u32 sum_tc(struct __sk_buff *skb, __u32 at, __u32 len)
{
	struct sum_walk w = { .ctx = skb, .at = at, .left = len };

	bpf_loop(SUM_CHUNKS, sum_step_tc, &w, 0);
	return w.sum < 0 || w.left ? 0 : csum_fold(w.sum);
}
