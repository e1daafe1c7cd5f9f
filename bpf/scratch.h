/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Where things are described that the stack has no room for. Programs for packets have a record for each CPU, as none
 * interrupts another there. Programs that do get interrupted define SCRATCH_MAP and SCRATCH_SLOTS otherwise, and say with
 * `scratch` in struct new_conn which record is theirs.
 */
#pragma once

/* A record of a CPU's, NAME, and what gets it, GET(). Not for user space. */
#define LB_SCRATCH(NAME, VALUE, GET)                                                               \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);                                           \
		__uint(max_entries, 1);                                                            \
		__type(key, __u32);                                                                \
		__type(value, VALUE);                                                              \
	} NAME SEC(".maps");                                                                       \
	static __always_inline VALUE *GET(void)                                                    \
	{                                                                                          \
		__u32 zero = 0;                                                                    \
                                                                                                   \
		return bpf_map_lookup_elem(&NAME, &zero);                                          \
	}

#ifndef SCRATCH_MAP
#define SCRATCH_MAP   BPF_MAP_TYPE_PERCPU_ARRAY
#define SCRATCH_SLOTS 1
#endif
