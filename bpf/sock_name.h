/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The clients of sockets' connections. As a server is chosen a socket mostly has neither address nor port; it gets both right
 * after that. Nothing but listings asks for them: user space has the kernel go through the sockets before it lists. (A program at
 * each connect() that waits for the port, sock_ops, is called for every step of every connection of the group.)
 */
#pragma once
#include "sock_conn.h"
#include "sock_iter.h"

/* Writes a socket's address and port into its connection. (No packet looks for the entry, so both may change.) */
static __always_inline void sock_name(const struct sock_common *sk, const struct sock_peer *peer)
{
	struct lb_conn *c = peer->conn ? conn_at(peer->conn - 1) : NULL;

	if (!c || !(c->flags & LB_CONN_SOCKET))
		return;
	c->cport = bpf_htons(sk->skc_num);
	if (peer->af == LB_AF_INET)
		c->caddr.w[0] = sk->skc_rcv_saddr;
	else
		bpf_probe_read_kernel(&c->caddr, sizeof(c->caddr), &sk->skc_v6_rcv_saddr);
}
