// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The programs of a control group's sockets: a process that calls a service gets a server's address in the place of the service's,
 * and sees none of it. An object of its own, loaded onto a table's maps where it is wanted.
 */
#include <linux/bpf.h>

#define SCRATCH_MAP        BPF_MAP_TYPE_ARRAY
#define SCRATCH_SLOTS      128
#define COUNTS_INTERRUPTED 1

#include "sock_name.h"
#include "sock_stuck.h"

char _license[] SEC("license")
= "Dual BSD/GPL";

enum { SOCK_ECONNREFUSED = 111, SOCK_ENOBUFS = 105, SOCK_EADDRINUSE = 98 };

/* Has the call fail. */
static __always_inline int sock_refuse(int error)
{
	bpf_set_retval(-error);
	return SOCK_DENY;
}

/* What becomes of a call whose peer was looked for. */
static __always_inline int sock_answer(struct bpf_sock_addr *ctx, enum lb_af family, __u8 af,
				       const struct sock_peer *peer, int act)
{
	switch (act) {
	case SOCK_SENT:
		sock_end_write(ctx, family, &peer->saddr, peer->sport, af);
		return SOCK_ALLOW;
	case SOCK_REFUSE:
		return sock_refuse(SOCK_ECONNREFUSED);
	case SOCK_FAIL:
		return sock_refuse(SOCK_ENOBUFS);
	default:
		return SOCK_ALLOW;
	}
}

/* connect(). Whatever the socket was connected to before is over. */
static __always_inline int sock_connect(struct bpf_sock_addr *ctx, enum lb_af family)
{
	struct sock_peer *peer = bpf_sk_storage_get(&lb_sock_connected, ctx->sk, NULL, 0);
	struct sock_end to;
	__u32 service;

	if (peer)
		sock_leave(peer);
	sock_end_read(ctx, family, &to);
	if (!sock_eligible(ctx, to.proto))
		return SOCK_ALLOW;
	service = sock_service(ctx, &to);
	if (!service)
		return SOCK_ALLOW;
	if (!peer)
		peer = bpf_sk_storage_get(&lb_sock_connected, ctx->sk, NULL,
					  BPF_SK_STORAGE_GET_F_CREATE);
	if (!peer)
		return sock_refuse(SOCK_ENOBUFS);
	return sock_answer(ctx, family, to.af, peer, sock_open(ctx, &to, service, peer));
}

SEC("cgroup/connect4")
int lb_sock_connect4(struct bpf_sock_addr *ctx)
{
	return sock_connect(ctx, LB_AF_INET);
}

SEC("cgroup/connect6")
int lb_sock_connect6(struct bpf_sock_addr *ctx)
{
	return sock_connect(ctx, LB_AF_INET6);
}

/* Shows the service where the kernel names the server that stands for it. */
static __always_inline bool sock_show(struct bpf_sock_addr *ctx, enum lb_af family,
				      const struct sock_end *from, const struct sock_peer *peer)
{
	if (!sock_peer_answers(peer, from))
		return false;
	sock_end_write(ctx, family, &peer->vaddr, peer->vport, from->af);
	return true;
}

/* sendmsg() of a datagram to an address. The server that such datagrams of the socket went to before stays, unless it is gone or
 * quiesced, or would be forgotten by now if these were packets. */
static __always_inline int sock_sendmsg(struct bpf_sock_addr *ctx, enum lb_af family)
{
	struct sock_peers *sent = bpf_sk_storage_get(&lb_sock_sent, ctx->sk, NULL, 0);
	__u32 now = clock_tick(), service;
	struct sock_peer *peer;
	struct sock_end to;

	sock_end_read(ctx, family, &to);
	peer = sent ? sock_peer_at(sent, sock_peer_find(sent, &to)) : NULL;
	if (peer && sock_peer_usable(peer, now)) {
		sock_peer_send(sent, peer, now);
		return sock_answer(ctx, family, to.af, peer, SOCK_SENT);
	}
	if (peer)
		sock_leave(peer);
	if (!sock_eligible(ctx, to.proto))
		return SOCK_ALLOW;
	service = sock_service(ctx, &to);
	if (!service)
		return SOCK_ALLOW;
	if (!sent)
		sent = bpf_sk_storage_get(&lb_sock_sent, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	peer = sent ? sock_peer_at(sent, sock_peer_free(sent)) : NULL;
	if (!peer)
		return sock_refuse(SOCK_ENOBUFS);
	sock_peer_send(sent, peer, now);
	return sock_answer(ctx, family, to.af, peer, sock_open(ctx, &to, service, peer));
}

SEC("cgroup/sendmsg4")
int lb_sock_sendmsg4(struct bpf_sock_addr *ctx)
{
	return sock_sendmsg(ctx, LB_AF_INET);
}

SEC("cgroup/sendmsg6")
int lb_sock_sendmsg6(struct bpf_sock_addr *ctx)
{
	return sock_sendmsg(ctx, LB_AF_INET6);
}

/* recvmsg() of a datagram, whose sender is named. */
static __always_inline int sock_recvmsg(struct bpf_sock_addr *ctx, enum lb_af family)
{
	struct sock_peer *peer = bpf_sk_storage_get(&lb_sock_connected, ctx->sk, NULL, 0);
	struct sock_peers *sent = bpf_sk_storage_get(&lb_sock_sent, ctx->sk, NULL, 0);
	struct sock_end from;

	sock_end_read(ctx, family, &from);
	if (peer && sock_show(ctx, family, &from, peer))
		return SOCK_ALLOW;
	peer = sent ? sock_peer_at(sent, sock_peer_answering(sent, &from)) : NULL;
	if (peer)
		sock_show(ctx, family, &from, peer);
	return SOCK_ALLOW;
}

SEC("cgroup/recvmsg4")
int lb_sock_recvmsg4(struct bpf_sock_addr *ctx)
{
	return sock_recvmsg(ctx, LB_AF_INET);
}

SEC("cgroup/recvmsg6")
int lb_sock_recvmsg6(struct bpf_sock_addr *ctx)
{
	return sock_recvmsg(ctx, LB_AF_INET6);
}

static __always_inline int sock_getpeername(struct bpf_sock_addr *ctx, enum lb_af family)
{
	struct sock_peer *peer = bpf_sk_storage_get(&lb_sock_connected, ctx->sk, NULL, 0);
	struct sock_end from;

	if (peer) {
		sock_end_read(ctx, family, &from);
		sock_show(ctx, family, &from, peer);
	}
	return SOCK_ALLOW;
}

SEC("cgroup/getpeername4")
int lb_sock_getpeername4(struct bpf_sock_addr *ctx)
{
	return sock_getpeername(ctx, LB_AF_INET);
}

SEC("cgroup/getpeername6")
int lb_sock_getpeername6(struct bpf_sock_addr *ctx)
{
	return sock_getpeername(ctx, LB_AF_INET6);
}

/* bind() to a port: a node port is the service's, at all addresses but those of others. What is bound to an IPv6 wildcard may take
 * IPv4's calls too. */
static __always_inline int sock_bound(struct bpf_sock *sk, enum lb_af family, bool any)
{
	__be16 port = bpf_htons(sk->src_port);

	if (!port || bpf_get_netns_cookie(sk) != lb_sock_home)
		return SOCK_ALLOW;
	if (!node_port_service(port, sk->protocol, family) &&
	    !(any && family == LB_AF_INET6 && node_port_service(port, sk->protocol, LB_AF_INET)))
		return SOCK_ALLOW;
	return sock_refuse(SOCK_EADDRINUSE);
}

SEC("cgroup/post_bind4")
int lb_sock_bound4(struct bpf_sock *sk)
{
	return sock_bound(sk, LB_AF_INET, !sk->src_ip4);
}

SEC("cgroup/post_bind6")
int lb_sock_bound6(struct bpf_sock *sk)
{
	__u32 first = sk->src_ip6[0], second = sk->src_ip6[1], third = sk->src_ip6[2],
	      last = sk->src_ip6[3];

	return sock_bound(sk, LB_AF_INET6, !(first | second | third | last));
}

/* close(): nobody has the socket any more. */
SEC("cgroup/sock_release")
int lb_sock_release(struct bpf_sock *sk)
{
	struct sock_peer *peer = bpf_sk_storage_get(&lb_sock_connected, sk, NULL, 0);
	struct sock_peers *sent = bpf_sk_storage_get(&lb_sock_sent, sk, NULL, 0);

	if (peer)
		sock_leave(peer);
	for (int i = 0; sent && i < SOCK_PEERS; i++)
		sock_leave(&sent->peer[i]);
	return SOCK_ALLOW;
}

/* Run as these programs are taken away: no socket will end its connection any more. */
static long sock_abandon_step(__u32 i, void *ctx __attribute__((unused)))
{
	struct lb_conn *c = conn_at(i);
	struct sock_peer last = { .conn = i + 1 };

	if (c && c->af && c->flags & LB_CONN_SOCKET)
		sock_leave(&last);
	return 0;
}

SEC("tc")
int lb_sock_abandon(struct __sk_buff *skb __attribute__((unused)))
{
	bpf_loop(pool_high(), sock_abandon_step, NULL, 0);
	return 0;
}

/* Counts what the iterators below are for. */
SEC("tc")
int lb_sock_count_stuck(struct __sk_buff *skb __attribute__((unused)))
{
	return sock_stuck_count();
}

/* Run by who wants to know of whom connections are. */
SEC("iter/tcp")
int lb_sock_name_tcp(struct bpf_iter__tcp *ctx)
{
	struct sock_common *sk = ctx->sk_common;
	struct sock_peer *peer = sk ? bpf_sk_storage_get(&lb_sock_connected, sk, NULL, 0) : NULL;

	if (peer)
		sock_name(sk, peer);
	return 0;
}

SEC("iter/tcp")
int lb_sock_end_tcp(struct bpf_iter__tcp *ctx)
{
	struct sock_common *sk = ctx->sk_common;
	struct sock_peer *peer = sk ? bpf_sk_storage_get(&lb_sock_connected, sk, NULL, 0) : NULL;

	if (sock_stuck(peer))
		sock_destroy(ctx->meta, sk, peer);
	return 0;
}

SEC("iter/udp")
int lb_sock_end_udp(struct bpf_iter__udp *ctx)
{
	struct udp_sock *sk = ctx->udp_sk;
	struct sock_peers *sent = sk ? bpf_sk_storage_get(&lb_sock_sent, sk, NULL, 0) : NULL;
	struct sock_peer *peer = sk ? bpf_sk_storage_get(&lb_sock_connected, sk, NULL, 0) : NULL;

	if (sent)
		sock_sent_forget(sent);
	if (sock_stuck(peer))
		sock_destroy(ctx->meta, (struct sock_common *)sk, peer);
	return 0;
}
