/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * SCTP: which chunk says what a packet means for its connection's state, and what that makes of it (ip_vs_proto_sctp.c).
 */
#pragma once
#include "context.h"

/* What a chunk means for the state of a connection. All others count as data. */
enum sctp_event {
	SCTP_DATA,
	SCTP_INIT,
	SCTP_INIT_ACK,
	SCTP_COOKIE_ECHO,
	SCTP_COOKIE_ACK,
	SCTP_SHUTDOWN,
	SCTP_SHUTDOWN_ACK,
	SCTP_SHUTDOWN_COMPLETE,
	SCTP_ERROR,
	SCTP_ABORT,
	SCTP_ABORT_BEHIND, /* an abort behind a cookie chunk, which may open a connection */
	SCTP_NOTHING,      /* no chunk at all */
};

/* Chunk types (RFC 9260, 3.2). */
enum {
	CHUNK_INIT = 1,
	CHUNK_INIT_ACK = 2,
	CHUNK_ABORT = 6,
	CHUNK_SHUTDOWN = 7,
	CHUNK_SHUTDOWN_ACK = 8,
	CHUNK_ERROR = 9,
	CHUNK_COOKIE_ECHO = 10,
	CHUNK_COOKIE_ACK = 11,
	CHUNK_SHUTDOWN_COMPLETE = 14,
	CHUNK_TYPES = 16,
};

#define EVENT_OF(NAME) ((__u64)SCTP_##NAME << CHUNK_##NAME * 4)
/* The event of each of the first sixteen types, four bits each. */
#define CHUNK_EVENTS                                                                               \
	(EVENT_OF(INIT) | EVENT_OF(INIT_ACK) | EVENT_OF(ABORT) | EVENT_OF(SHUTDOWN) |              \
	 EVENT_OF(SHUTDOWN_ACK) | EVENT_OF(ERROR) | EVENT_OF(COOKIE_ECHO) | EVENT_OF(COOKIE_ACK) | \
	 EVENT_OF(SHUTDOWN_COMPLETE))

struct sctp_header {
	__be16 source, dest;
	__be32 tag;
	__le32 check; /* CRC32c; 0 on tcx: left to the device, which fills it in */
};

struct sctp_chunk {
	__u8 type, flags;
	__be16 length;
};

/* Reads a chunk's header at `at` of a packet that ends at `end`. False: there is none. */
static __always_inline bool chunk_read(void *ctx, enum lb_hook hook, __u32 at, __u32 end,
				       struct sctp_chunk *chunk)
{
	if (at + sizeof(*chunk) > end)
		return false;
	if (hook == HOOK_XDP)
		return !bpf_xdp_load_bytes(ctx, at, chunk, sizeof(*chunk));
	return !bpf_skb_load_bytes(ctx, at, chunk, sizeof(*chunk));
}

/* The event of a packet whose first chunk is at `at`. An abort counts if it is bundled behind a cookie chunk. */
static __always_inline enum sctp_event sctp_event(void *ctx, enum lb_hook hook, __u32 at, __u32 end)
{
	struct sctp_chunk chunk = {};
	__u32 length;
	__u8 type;

	if (!chunk_read(ctx, hook, at, end, &chunk))
		return SCTP_NOTHING;
	type = chunk.type;
	length = bpf_ntohs(chunk.length);
	if ((type == CHUNK_COOKIE_ECHO || type == CHUNK_COOKIE_ACK) && length >= sizeof(chunk) &&
	    chunk_read(ctx, hook, at + ((length + 3) & ~3U), end, &chunk) &&
	    chunk.type == CHUNK_ABORT)
		return SCTP_ABORT_BEHIND;
	return type < CHUNK_TYPES ? CHUNK_EVENTS >> type * 4 & 15 : SCTP_DATA;
}

/* (Functions of their own: few packets are SCTP.) */
static __noinline int sctp_event_xdp(struct xdp_md *ctx, __u32 at, __u32 end)
{
	return sctp_event(ctx, HOOK_XDP, at, end);
}

static __noinline int sctp_event_tc(struct __sk_buff *ctx, __u32 at, __u32 end)
{
	return sctp_event(ctx, HOOK_INGRESS, at, end);
}
