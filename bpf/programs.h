/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the objects of programs for packets have in common: how programs are made of functions, and which one goes on with a packet. */
#pragma once
#include "decap.h"
#include "icmp_error.h"
#include "masqueraded.h"
#include "odd.h"
#include "parts.h"
#include "tunnel_error.h"

/* A program for each family. */
#define DECLARE(NAME, CONTEXT)                                                                     \
	int NAME##4(CONTEXT * ctx);                                                                \
	int NAME##6(CONTEXT * ctx);

/* Goes on in the part that `act` asks for, or is the action. */
static __always_inline int go_on(void *ctx, enum lb_hook hook, enum lb_af af, void *parts, int act)
{
	if (act == OPEN_NEXT)
		bpf_tail_call(ctx, parts, af == LB_AF_INET ? PART_OPEN4 : PART_OPEN6);
	else if (act == SCHEDULE_NEXT)
		bpf_tail_call(ctx, parts, PART_SCHEDULE);
	else if (act == ICMP_NEXT)
		bpf_tail_call(ctx, parts, af == LB_AF_INET ? PART_ICMP4 : PART_ICMP6);
	else if (act == TRANSMIT_NEXT)
		bpf_tail_call(ctx, parts, af == LB_AF_INET ? PART_TRANSMIT4 : PART_TRANSMIT6);
	else if (act == MASQUERADED_NEXT)
		bpf_tail_call(ctx, parts, af == LB_AF_INET ? PART_MASQUERADED4 : PART_MASQUERADED6);
	else if (act == DECAP_NEXT)
		bpf_tail_call(ctx, parts, af == LB_AF_INET ? PART_DECAP4 : PART_DECAP6);
	else if (act == PACKET_NEXT)
		bpf_tail_call(ctx, parts, af == LB_AF_INET ? PART_IPV4 : PART_IPV6);
	else if (act == TUNNEL_NEXT)
		bpf_tail_call(ctx, parts, PART_TUNNEL_ERROR);
	else if (act == ODD_NEXT)
		bpf_tail_call(ctx, parts, af == LB_AF_INET ? PART_ODD4 : PART_ODD6);
	else if (act == ODD_READ_NEXT)
		bpf_tail_call(ctx, parts, af == LB_AF_INET ? PART_ODD_READ4 : PART_ODD_READ6);
	else if (act == ODD_OPEN_NEXT)
		bpf_tail_call(ctx, parts, af == LB_AF_INET ? PART_ODD_OPEN4 : PART_ODD_OPEN6);
	else if (act != NOT_OURS)
		return act;
	return act_pass(hook);
}

/* A program that does CALL with its context `ctx`. */
#define PART(NAME, HOOK, AF, SECTION, CONTEXT, PARTS_MAP, CALL)                                    \
	SEC(SECTION)                                                                               \
	int NAME(CONTEXT *ctx)                                                                     \
	{                                                                                          \
		return go_on(ctx, HOOK, AF, &PARTS_MAP, CALL);                                     \
	}
#define TC_PART(NAME, HOOK, AF, PARTS_MAP, CALL)                                                   \
	PART(NAME, HOOK, AF, "tc", struct __sk_buff, PARTS_MAP, CALL)

/* The programs for packets of connections, and those for packets that may open one. */
#define BALANCE_PARTS(NAME, HOOK, SECTION, CONTEXT, PARTS_MAP)                                     \
	PART(NAME##4, HOOK, LB_AF_INET, SECTION, CONTEXT, PARTS_MAP,                               \
	     balance(ctx, HOOK, LB_AF_INET, false))                                                \
	PART(NAME##6, HOOK, LB_AF_INET6, SECTION, CONTEXT, PARTS_MAP,                              \
	     balance(ctx, HOOK, LB_AF_INET6, false))
#define OPENING_PARTS(NAME, HOOK, SECTION, CONTEXT, PARTS_MAP)                                     \
	PART(NAME##4, HOOK, LB_AF_INET, SECTION, CONTEXT, PARTS_MAP,                               \
	     balance(ctx, HOOK, LB_AF_INET, true))                                                 \
	PART(NAME##6, HOOK, LB_AF_INET6, SECTION, CONTEXT, PARTS_MAP,                              \
	     balance(ctx, HOOK, LB_AF_INET6, true))

/* The same for what is not plain. */
#define ODD_PARTS(NAME, HOOK, PARTS_MAP, CALL, ...)                                                \
	TC_PART(NAME##4, HOOK, LB_AF_INET, PARTS_MAP, CALL(ctx, HOOK, LB_AF_INET, ##__VA_ARGS__))  \
	TC_PART(NAME##6, HOOK, LB_AF_INET6, PARTS_MAP, CALL(ctx, HOOK, LB_AF_INET6, ##__VA_ARGS__))

/* The programs for packets that NAT does not touch, and for errors about tunnels. */
#define TRANSMIT_PARTS(NAME, HOOK, SECTION, CONTEXT, PARTS_MAP, TRANSMIT)                          \
	PART(NAME##4, HOOK, LB_AF_INET, SECTION, CONTEXT, PARTS_MAP,                               \
	     TRANSMIT(ctx, HOOK, LB_AF_INET))                                                      \
	PART(NAME##6, HOOK, LB_AF_INET6, SECTION, CONTEXT, PARTS_MAP,                              \
	     TRANSMIT(ctx, HOOK, LB_AF_INET6))

/* The part that goes on with a packet whose connection was opened, or whose server was picked. */
static __always_inline __u32 part_of_scheduled(const struct new_conn *n)
{
	bool four = n->af == LB_AF_INET;

	if (n->icmp)
		return four ? PART_ICMP4 : PART_ICMP6;
	if (n->once)
		return n->odd ? (four ? PART_ODD_OPEN4 : PART_ODD_OPEN6)
			      : (four ? PART_OPEN4 : PART_OPEN6);
	if (n->odd)
		return four ? PART_ODD_READ4 : PART_ODD_READ6;
	return four ? PART_IPV4 : PART_IPV6;
}
