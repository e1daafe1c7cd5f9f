/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What every header here may assume: kernel types, helpers, byte order, and three small macros. */
#pragma once
#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_core_read.h>

#include "abi.h"

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
/* Keeps the compiler from reordering or merging accesses to memory that others change. */
#define READ_ONCE(x)     (*(const volatile typeof(x) *)&(x))
#define WRITE_ONCE(x, v) (*(volatile typeof(x) *)&(x) = (v))
/* Hides a value from the optimiser, which else drops the bounds checks that the verifier needs to see. */
#define HIDE(x) asm volatile("" : "+r"(x))

/* Always 0; the verifier can't know. */
__u32 lb_nothing;
/* Has the verifier forget what it knows of a value, so that ways that differ only in it are looked at once from here on. */
#define FORGET(x) ((x) ^= READ_ONCE(lb_nothing))
