/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * CRC32c, changed without walking over what it covers. It is linear: a change in the data changes it by the CRC (without
 * initial value and inversion) of the difference, and a difference that only zeros follow has a CRC of its product with a
 * power of x, by the number of bytes, modulo the polynomial. Numbers are reflected: the lowest power is the highest bit.
 */
#pragma once
#include "bpf_env.h"

enum { CRC32C_POLYNOMIAL = 0x82f63b78U, CRC32C_POWERS = 16 };

/* x to the power of 8 * 2^i: what follows are 2^i bytes. */
static const __u32 crc32c_power[CRC32C_POWERS] = {
	0x00800000, 0x00008000, 0x82f63b78, 0x6ea2d55c, 0x18b8ea18, 0x510ac59a,
	0xb82be955, 0xb8fdb1e7, 0x88e56f72, 0x74c360a4, 0xe4172b16, 0x0d65762a,
	0x35d73a62, 0x28461564, 0xbf455269, 0xe2ea32dc,
};

/* The product of two polynomials. (Global, as is the next: verified once.) */
__noinline __u32 crc32c_multiply(__u32 a, __u32 b)
{
	__u32 product = 0;

	for (int i = 0; i < 32; i++) {
		product ^= b & -(a >> 31);
		b = b >> 1 ^ (CRC32C_POLYNOMIAL & -(b & 1));
		a <<= 1;
	}
	return product;
}

/* By what a CRC over `length` bytes changes if their first four change by `difference` (their exclusive or, read as a
 * little-endian number). */
__noinline __u32 crc32c_change(__u32 difference, __u32 length)
{
	for (__u32 i = 0; i < CRC32C_POWERS; i++)
		if (length >> i & 1)
			difference = crc32c_multiply(difference, crc32c_power[i]);
	return difference;
}
