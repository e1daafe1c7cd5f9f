/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Multilinear hashing of endpoints (Lemire and Kaser): a sum of products with secret keys, of which the high bits count.
 * A packet costs two such hashes, one for each end, whatever is looked up with them: the destination's finds the service,
 * the source's says whether it may be a server, the client's finds the connection in both directions.
 * Also compiled into the native shim: user space has no copy of this.
 */
#pragma once

/* Where a hash leads: a line, its alternative, and the tag to look for there. */
struct lb_spot {
	__u32 first, second;
	__u32 tag; /* never 0 */
};

/* The words are used as they are in memory, the port in network order. */
static inline __attribute__((always_inline)) __u64 hash_endpoint(const volatile __u64 *key,
								 const union lb_addr *addr,
								 __be16 port, __u8 proto, __u8 af)
{
	__u64 h = key[0] + key[1] * addr->w[0] +
		  key[5] * ((__u32)port << 16 | (__u32)proto << 8 | af);

	if (af == LB_AF_INET6)
		h += key[2] * addr->w[1] + key[3] * addr->w[2] + key[4] * addr->w[3];
	return h;
}

/* The hash of an endpoint, made that of its address and protocol with port 0. */
static inline __attribute__((always_inline)) __u64 hash_any_port(const volatile __u64 *key, __u64 h,
								 __be16 port)
{
	return h - key[5] * ((__u32)port << 16);
}

/* The hash of an address and protocol, made that of an endpoint. */
static inline __attribute__((always_inline)) __u64 hash_with_port(const volatile __u64 *key,
								  __u64 h, __be16 port)
{
	return h + key[5] * ((__u32)port << 16);
}

/* The hash of a firewall mark. */
static inline __attribute__((always_inline)) __u64 hash_mark(const volatile __u64 *key, __u32 mark,
							     __u8 af)
{
	return key[0] + key[1] * mark + key[5] * af;
}

/* The hash of an ordered pair of endpoints. */
static inline __attribute__((always_inline)) __u64 hash_pair(const volatile __u64 *key, __u64 from,
							     __u64 to)
{
	return key[6] * (from >> 32) + key[7] * (to >> 32);
}

static inline __attribute__((always_inline)) struct lb_spot hash_spot(__u64 h, __u32 mask)
{
	struct lb_spot s;

	/* Addresses in a row make hashes in a row, which for some keys would meet in a few lines: no more of that from here. */
	h ^= h >> 15;
	s.first = (__u32)(h >> 32) & mask;
	s.tag = (__u32)(h >> 20) | 1;
	s.second = (s.first + (s.tag * 0x9e3779b1u >> 8 | 1)) & mask;
	return s;
}

static inline __attribute__((always_inline)) __u32 hash_bit(__u64 h, __u32 mask)
{
	return (__u32)(h >> 32) & mask;
}
