/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Accessors of the tables that user space writes: services, servers, lists; and of their state. */
#pragma once
#include "counters.h"
#include "kernel.h"

enum { FTP_PORT = 21, FTP_DATA_PORT = 20 };

static __always_inline struct lb_config *config_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&lb_config, &zero);
}

static __always_inline struct lb_service *service_at(__u32 id)
{
	return bpf_map_lookup_elem(&lb_services, &id);
}

static __always_inline struct lb_service_state *service_state_at(__u32 id)
{
	return bpf_map_lookup_elem(&lb_service_states, &id);
}

static __always_inline struct lb_server *server_at(__u32 id)
{
	return bpf_map_lookup_elem(&lb_servers, &id);
}

static __always_inline struct lb_server_state *server_state_at(__u32 id)
{
	return bpf_map_lookup_elem(&lb_server_states, &id);
}

/* Is it one that was removed, of which there are connections yet? */
static __always_inline bool server_removed(__u32 id)
{
	struct lb_server *srv = server_at(id);

	return srv && !(srv->flags & LB_SERVER_AVAILABLE);
}

static __always_inline struct lb_book *book_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&lb_book, &zero);
}

static __always_inline union lb_cell *cell_at(__u32 index)
{
	return bpf_map_lookup_elem(&lb_cells, &index);
}

/* Slot `i` of the list whose head is cell `list`. */
static __always_inline struct lb_slot *slot_at(__u32 list, __u32 i)
{
	union lb_cell *cell = cell_at(list + 1 + i / LB_CELL_SLOTS);

	return cell ? &cell->slot[i % LB_CELL_SLOTS] : NULL;
}

static __always_inline bool addr_equal(const union lb_addr *a, const union lb_addr *b, enum lb_af af)
{
	if (af == LB_AF_INET)
		return a->w[0] == b->w[0];
	return a->d[0] == b->d[0] && a->d[1] == b->d[1];
}

static __always_inline void addr_copy(union lb_addr *to, const union lb_addr *from, enum lb_af af)
{
	if (af == LB_AF_INET) {
		to->d[0] = from->w[0];
		to->d[1] = 0;
	} else {
		to->d[0] = from->d[0];
		to->d[1] = from->d[1];
	}
}

static __always_inline bool addr_within(const union lb_addr *addr, const union lb_addr *net,
					const union lb_addr *mask)
{
	return !((addr->d[0] ^ net->d[0]) & mask->d[0]) && !((addr->d[1] ^ net->d[1]) & mask->d[1]);
}

enum filter_half { FILTER_SERVICE = 0, FILTER_SERVER = 1 };

/* False: no service (or server) has this endpoint. True: perhaps one has. */
static __always_inline bool filter_has(enum filter_half half, __u64 hash)
{
	__u32 bit = hash_bit(hash, lb_filter_mask) + (half ? lb_filter_mask + 1 : 0), i = bit >> 6;
	__u64 *word = bpf_map_lookup_elem(&lb_filter, &i);

	return word && *word >> (bit & 63) & 1;
}

/* May there be a service at the packet's destination, or one that takes others of its ports? */
static __always_inline bool filter_has_service(const struct packet *p)
{
	return filter_has(FILTER_SERVICE, p->dst) ||
	       (unlikely(p->kinds & (LB_FEATURE_PORT0 | LB_FEATURE_FTP)) &&
		filter_has(FILTER_SERVICE, hash_any_port(lb_hash_key, p->dst, p->t.dport)));
}

/* May the packet be for a service, or of one of its connections? Those of services by mark may be to anywhere, what another
 * node sent here is to a node port of that one's. */
static __always_inline bool filter_to_service(const struct packet *p)
{
	return filter_has_service(p) || unlikely(p->kinds & (LB_FEATURE_FWMARK | KIND_ARRIVED));
}

/* May the packet be a server's? Those of services by mark, of port 0 and of FTP answer from any port. */
static __always_inline bool filter_from_server(const struct packet *p)
{
	return filter_has(FILTER_SERVER, p->src) ||
	       (unlikely(p->kinds) &&
		filter_has(FILTER_SERVER, hash_any_port(lb_hash_key, p->src, p->t.sport)));
}

/* What kinds of services there are (enum lb_feature). */
static __always_inline __u32 service_kinds(void)
{
	struct lb_config *cfg = config_get();

	return cfg ? cfg->features : 0;
}

/* Are or were connections masqueraded? Then what leaves the host has to be looked at. */
static __always_inline bool masquerades_any(void)
{
	struct lb_config *cfg = config_get();

	return cfg && READ_ONCE(cfg->masquerades);
}

static __always_inline void masquerades_note(void)
{
	struct lb_config *cfg = config_get();

	if (cfg && !READ_ONCE(cfg->masquerades))
		WRITE_ONCE(cfg->masquerades, 1);
}

/* packet.kinds of a packet at a hook. */
static __always_inline __u8 packet_kinds(void *ctx, enum lb_hook hook)
{
	__u32 kinds = service_kinds();

	if (hook == HOOK_INGRESS && unlikely(kinds & LB_FEATURE_PEERS) && came_in_tunnel(ctx))
		kinds |= KIND_ARRIVED;
	return kinds;
}

/* What a service is looked for by. (A copy of what the packet says: were the packet itself given to a function, the compiler
 * could keep nothing of it in registers.) */
struct service_query {
	union lb_addr addr; /* destination; the rest of an IPv4 one is 0 */
	__u64 hash;         /* of the destination's end */
	__u32 mark;
	__be16 port;
	__u8 proto;
	__u8 af;
	__u32 kinds; /* enum lb_feature */
	__u32 pad;
};

enum service_kind { BY_MARK, BY_ENDPOINT, BY_FTP, BY_ADDRESS };

static __always_inline bool service_is(const struct lb_service *svc, const struct service_query *q,
				       enum service_kind kind)
{
	__be16 port = kind == BY_ENDPOINT ? q->port : kind == BY_FTP ? bpf_htons(FTP_PORT) : 0;

	if (svc->af != q->af)
		return false;
	if (kind == BY_MARK)
		return svc->fwmark == q->mark && !(svc->flags & LB_SERVICE_VIP);
	return svc->proto == q->proto && svc->vport == port &&
	       addr_equal(&svc->vaddr, &q->addr, LB_AF_INET6);
}

static __always_inline __u32 service_find_in(__u32 line, __u32 tag, const struct service_query *q,
					     enum service_kind kind)
{
	struct lb_line *l = bpf_map_lookup_elem(&lb_service_index, &line);

	if (!l)
		return 0;
	for (int i = 0; i < LB_LINE_SLOTS; i++) {
		__u64 slot = READ_ONCE(l->slot[i]);
		struct lb_service *svc = slot >> 32 == tag ? service_at((__u32)slot) : NULL;

		if (svc && service_is(svc, q, kind))
			return (__u32)slot;
	}
	return 0;
}

static __always_inline __u32 service_find_kind(const struct service_query *q, __u64 hash,
					       enum service_kind kind)
{
	struct lb_spot spot = hash_spot(hash, lb_service_line_mask);
	__u32 id = service_find_in(spot.first, spot.tag, q, kind);

	return id ? id : service_find_in(spot.second, spot.tag, q, kind);
}

/* May a segment be of a data connection of FTP's? */
static __always_inline bool ftp_data_port(const struct service_query *q)
{
	__u32 port = bpf_ntohs(q->port);

	return q->proto == IPPROTO_TCP && (port == FTP_DATA_PORT || port >= first_user_port());
}

/* The service, 0: none. Order as ip_vs_service_find(): by mark, by endpoint, of FTP's port, of port 0. (Not static: the
 * verifier looks at it once.) */
__noinline __u32 service_lookup(const struct service_query *q)
{
	__u64 any_port;
	__u32 id = 0;

	if (!q)
		return 0;
	any_port = hash_any_port(lb_hash_key, q->hash, q->port);
	if (unlikely(q->kinds & LB_FEATURE_FWMARK && q->mark))
		id = service_find_kind(q, hash_mark(lb_hash_key, q->mark, q->af), BY_MARK);
	if (!id)
		id = service_find_kind(q, q->hash, BY_ENDPOINT);
	if (unlikely(!id && q->kinds & LB_FEATURE_FTP && ftp_data_port(q)))
		id = service_find_kind(
			q, hash_with_port(lb_hash_key, any_port, bpf_htons(FTP_PORT)), BY_FTP);
	if (unlikely(!id && q->kinds & LB_FEATURE_PORT0))
		id = service_find_kind(q, any_port, BY_ADDRESS);
	return id;
}

/* Makes it a query for the same port where node ports are served, whatever the address was. 0: there is none. (Not static: the
 * verifier looks at it once.) */
__noinline int node_port_query(struct service_query *q)
{
	struct lb_config *cfg = config_get();

	if (!cfg || !q)
		return 0;
	addr_copy(&q->addr, q->af == LB_AF_INET ? &cfg->node_port4 : &cfg->node_port6, LB_AF_INET6);
	q->hash = hash_endpoint(lb_hash_key, &q->addr, q->port, q->proto, q->af);
	return filter_has(FILTER_SERVICE, q->hash);
}

/* The service of a node port; 0: none. (Not static: as above.) */
__noinline __u32 node_port_service(__u32 port, __u32 proto, __u32 af)
{
	struct service_query q = { .port = port, .proto = proto, .af = af };
	__u32 id = node_port_query(&q) ? service_lookup(&q) : 0;
	struct lb_service *svc = id ? service_at(id) : NULL;
	union lb_cell *list;

	list = svc ? cell_at(READ_ONCE(svc->list)) : NULL;
	return list && list->list.policy & LB_POLICY_NODE_PORT ? id : 0;
}

/* The service that a packet is for; 0: none. One that another node sent here may be for a node port there: the service is that
 * of the same port here. */
static __always_inline __u32 service_find(const struct packet *p, enum lb_af af)
{
	struct service_query q = {
		.hash = p->dst,
		.mark = p->mark,
		.port = p->t.dport,
		.proto = p->t.proto,
		.af = af,
		.kinds = p->kinds,
	};
	__u32 id;

	addr_copy(&q.addr, &p->t.daddr, af);
	id = service_lookup(&q);
	if (unlikely(!id && p->kinds & KIND_ARRIVED && node_port_query(&q)))
		id = service_lookup(&q);
	return id;
}
