/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Where things are described that the stack has no room for. Programs for packets have a record for each CPU, as none
 * interrupts another there. Programs that do get interrupted define both of these otherwise, and say with `scratch` in struct
 * new_conn which record is theirs.
 */
#pragma once

#ifndef SCRATCH_MAP
#define SCRATCH_MAP   BPF_MAP_TYPE_PERCPU_ARRAY
#define SCRATCH_SLOTS 1
#endif
