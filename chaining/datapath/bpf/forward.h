/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The service function forwarder (RFC 7665, section 4.3): (SPI, SI) to what is next. */
#pragma once
#include "table.h"

enum form { FORM_PLAIN, FORM_GPE4, FORM_GPE6, FORM_ETHER };

/* A packet on its path, and how it is dressed at the moment. */
struct state {
	__u32 path; /* SPI << 8 | SI */
	__be32 context[4]; /* of MD type 1 */
	__be16 base; /* first half word of its NSH */
	__be16 inner; /* EtherType of the IP packet */
	__u8 form;
	__u8 nsh_len; /* bytes */
	__u8 md;
	__u8 next;
};

INLINE __u32 room_of(const struct state *s)
{
	__u32 ether = s->next == NSH_NP_ETHERNET ? ETH_LEN : 0;

	if (s->form == FORM_GPE4)
		return 20 + 8 + 8 + s->nsh_len + ether;
	return 40 + 8 + 8 + s->nsh_len + ether;
}

/* to_us: a function's port carries answers to the node itself too. */
INLINE int to_us(const struct port *port, const struct packet *p)
{
	if (!p->v6)
		return port->addr4 && p->flow.dst[3] == port->addr4;
	return (port->addr6[0] | port->addr6[1] | port->addr6[2] | port->addr6[3]) &&
	       p->flow.dst[0] == port->addr6[0] && p->flow.dst[1] == port->addr6[1] &&
	       p->flow.dst[2] == port->addr6[2] && p->flow.dst[3] == port->addr6[3];
}

/* undress leaves Ethernet | IP. */
INLINE long undress(struct __sk_buff *skb, struct state *s)
{
	long err;

	if (s->form == FORM_ETHER) {
		if (s->nsh_len == NSH_MD1_LEN && s->next != NSH_NP_ETHERNET) {
			err = pop_ether(skb, s->inner);
		} else {
			__u32 room = s->nsh_len + (s->next == NSH_NP_ETHERNET ? ETH_LEN : 0);
			err = set_protocol(skb, s->inner);
			if (!err)
				err = bpf_skb_adjust_room(skb, -(__s32)room, ADJ_ROOM_MAC, ADJ_ROOM_FIXED_GSO);
			if (!err)
				err = bpf_skb_store_bytes(skb, 12, &s->inner, 2, 0);
		}
	} else {
		err = pop_gpe(skb, room_of(s), s->form == FORM_GPE4 ? HTONS(ETHERTYPE_IPV4) : HTONS(ETHERTYPE_IPV6), s->inner);
	}
	s->form = FORM_PLAIN;
	return err;
}

INLINE struct nsh header_of(const struct state *s)
{
	struct nsh h = {
		.base = s->base,
		.md = 1,
		.next = s->inner == HTONS(ETHERTYPE_IPV4) ? NSH_NP_IPV4 : NSH_NP_IPV6,
		.path = HTONL(s->path),
	};
	__builtin_memcpy(h.context, s->context, sizeof(h.context));
	return h;
}

/*
 * readdress sends a packet in a tunnel into the next one: nothing moves, the NSH
 * keeps its metadata, whatever its type.
 */
INLINE long readdress(struct __sk_buff *skb, const struct hop *hop, const struct state *s)
{
	struct {
		__be16 base;
		__u8 md;
		__u8 next;
		__be32 path;
	} h = { s->base, s->md, s->next, HTONL(s->path) };
	__be16 sport;
	long err;

	if (s->form == FORM_GPE4) {
		struct {
			struct ipv4 ip;
			struct udp udp;
		} __attribute__((packed)) o;
		if (load(skb, ETH_LEN + 20, &sport, 2))
			return -1;
		fill_outer4(&o.ip, &o.udp, &hop->tunnel, skb->len - ETH_LEN, sport);
		err = bpf_skb_store_bytes(skb, ETH_LEN, &o, sizeof(o), 0);
		if (!err)
			err = bpf_skb_store_bytes(skb, ETH_LEN + 20 + 8 + 4, &hop->tunnel.vni, 4, 0);
		return err ?: bpf_skb_store_bytes(skb, ETH_LEN + 20 + 8 + 8, &h, sizeof(h), 0);
	}
	struct {
		struct ipv6 ip;
		struct udp udp;
	} __attribute__((packed)) o;
	if (load(skb, ETH_LEN + 40, &sport, 2))
		return -1;
	fill_outer6(&o.ip, &o.udp, &hop->tunnel, skb->len - ETH_LEN - 40, sport);
	err = bpf_skb_store_bytes(skb, ETH_LEN, &o, sizeof(o), 0);
	if (!err)
		err = bpf_skb_store_bytes(skb, ETH_LEN + 40 + 8 + 4, &hop->tunnel.vni, 4, 0);
	return err ?: bpf_skb_store_bytes(skb, ETH_LEN + 40 + 8 + 8, &h, sizeof(h), 0);
}

/* send puts addresses on the frame and hands it to the hop's port. */
INLINE int send(struct __sk_buff *skb, const struct hop *hop)
{
	__u32 low = *(const __u32 *)hop->dmac;
	__u16 high = *(const __u16 *)&hop->dmac[4];

	if (!low && !high)
		return bpf_redirect_neigh(hop->ifindex, NULL, 0, 0);
	if (bpf_skb_store_bytes(skb, 0, hop->dmac, 12, 0)) /* smac follows */
		return drop_at(hop, REASON_HELPER);
	return bpf_redirect(hop->ifindex, 0);
}

/*
 * finish sends a packet on that has been through its chain. It takes the route that
 * the node would have taken, without the stack in between; what needs the stack
 * (an unknown neighbour, a packet too big for the way out, the node itself) goes there.
 */
INLINE int finish(struct __sk_buff *skb, const struct hop *hop, const struct state *s)
{
	struct fib_lookup fib = { .ifindex = skb->ifindex };
	long rc;

	if (hop->ifindex)
		return send(skb, hop);
	if (s->inner == HTONS(ETHERTYPE_IPV4)) {
		struct ipv4 ip;
		if (load(skb, ETH_LEN, &ip, sizeof(ip)))
			return drop_at(hop, REASON_MALFORMED);
		fib.family = AF_INET;
		fib.l4_protocol = ip.proto;
		fib.tos_flowinfo = ip.tos;
		fib.src[0] = ip.src;
		fib.dst[0] = ip.dst;
		if (ip.ttl <= 1)
			return PASS; /* the stack answers */
		rc = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
		if (rc == FIB_SUCCESS || rc == FIB_NO_NEIGH) {
			/* RFC 1141: TTL goes down by one, the sum up by 0x100. */
			__u32 sum = (__u32)ip.check + (__u32)HTONS(0x0100);
			__u16 check = (sum & 0xffff) + (sum >> 16);
			struct {
				__u8 ttl, proto;
				__u16 check;
			} w = { ip.ttl - 1, ip.proto, check };
			bpf_skb_store_bytes(skb, ETH_LEN + 8, &w, 4, 0);
		}
	} else {
		struct ipv6 ip;
		if (load(skb, ETH_LEN, &ip, sizeof(ip)))
			return drop_at(hop, REASON_MALFORMED);
		fib.family = AF_INET6;
		fib.l4_protocol = ip.next;
		fib.tos_flowinfo = ip.flow & HTONL(0x0fffffff);
		__builtin_memcpy(fib.src, ip.src, 32);
		if (ip.hops <= 1)
			return PASS;
		rc = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
		if (rc == FIB_SUCCESS || rc == FIB_NO_NEIGH) {
			__u8 hops = ip.hops - 1;
			bpf_skb_store_bytes(skb, ETH_LEN + 7, &hops, 1, 0);
		}
	}
	switch (rc) {
	case FIB_SUCCESS:
		if (bpf_skb_store_bytes(skb, 0, fib.dmac, 6, 0) || bpf_skb_store_bytes(skb, 6, fib.smac, 6, 0))
			return drop_at(hop, REASON_HELPER);
		return bpf_redirect(fib.ifindex, 0);
	case FIB_NO_NEIGH:
		return bpf_redirect_neigh(fib.ifindex, NULL, 0, 0);
	case FIB_NOT_FWDED:
	case FIB_FRAG_NEEDED:
	case FIB_UNSUPP_LWT:
		return PASS;
	default:
		return drop_at(hop, REASON_NO_ROUTE);
	}
}
