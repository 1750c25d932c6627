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
	__u8 md; /* with the unassigned bits beside it */
	__u8 next;
	__u8 summed; /* the tunnel's UDP checksum is not 0 */
};

/* Bytes between Ethernet and NSH. */
INLINE __u32 shell(__u8 form)
{
	return form == FORM_GPE4 ? 20 + 8 + 8 : form == FORM_GPE6 ? 40 + 8 + 8 : 0;
}

/* to_us: a function's port carries answers to the node itself too. */
INLINE int to_us(const struct port *port, const struct packet *p)
{
	if (!p->v6)
		return port->addr4 && p->to[3] == port->addr4;
	return (port->addr6[0] | port->addr6[1] | port->addr6[2] | port->addr6[3]) &&
	       p->to[0] == port->addr6[0] && p->to[1] == port->addr6[1] &&
	       p->to[2] == port->addr6[2] && p->to[3] == port->addr6[3];
}

/* undress leaves Ethernet | IP. */
INLINE long undress(struct __sk_buff *skb, struct state *s)
{
	long err;

	if (s->form != FORM_ETHER) {
		err = pop_gpe(skb, shell(s->form) + s->nsh_len, s->form == FORM_GPE4 ? HTONS(ETHERTYPE_IPV4) : HTONS(ETHERTYPE_IPV6), s->inner);
	} else if (s->nsh_len == NSH_MD1_LEN) {
		err = pop_ether(skb, s->inner);
	} else {
		err = set_protocol(skb, s->inner);
		if (!err)
			err = bpf_skb_adjust_room(skb, -(__s32)s->nsh_len, ADJ_ROOM_MAC, ADJ_ROOM_FIXED_GSO);
		if (!err)
			err = bpf_skb_store_bytes(skb, 12, &s->inner, 2, 0);
	}
	s->form = FORM_PLAIN;
	return err;
}

INLINE struct nsh header_of(const struct state *s)
{
	struct nsh h = {
		.base = s->base,
		.md = s->md,
		.next = s->inner == HTONS(ETHERTYPE_IPV4) ? NSH_NP_IPV4 : NSH_NP_IPV6,
		.path = HTONL(s->path),
	};
	__builtin_memcpy(h.context, s->context, sizeof(h.context));
	return h;
}

/* write_path writes what a forwarder changes of an NSH that stays where it is. */
INLINE long write_path(struct __sk_buff *skb, __u32 at, const struct state *s)
{
	struct {
		__be16 base;
		__u8 md;
		__u8 next;
		__be32 path;
	} h = { s->base, s->md, s->next, HTONL(s->path) };

	return bpf_skb_store_bytes(skb, at, &h, sizeof(h), 0);
}

/* write_shell writes everything between Ethernet and NSH. */
INLINE long write_shell(struct __sk_buff *skb, const struct tunnel *t, __u32 hash)
{
	struct gpe gpe = { .flags = GPE_FLAGS, .next = GPE_NP_NSH, .vni = t->vni };
	long err;

	if (!t->v6) {
		struct {
			struct ipv4 ip;
			struct udp udp;
			struct gpe gpe;
		} __attribute__((packed)) o = { .gpe = gpe };
		fill_outer4(&o.ip, &o.udp, t, skb->len - ETH_LEN, source_port(hash));
		return bpf_skb_store_bytes(skb, ETH_LEN, &o, sizeof(o), 0);
	}
	struct {
		struct ipv6 ip;
		struct udp udp;
		struct gpe gpe;
	} __attribute__((packed)) o = { .gpe = gpe };
	fill_outer6(&o.ip, &o.udp, t, skb->len - ETH_LEN - 40, source_port(hash));
	return bpf_skb_store_bytes(skb, ETH_LEN, &o, sizeof(o), 0);
}

/*
 * reshell sends a packet with NSH on with NSH: what is before the header changes,
 * the header stays, with its metadata of whatever type. form is what it becomes.
 */
INLINE long reshell(struct __sk_buff *skb, const struct hop *hop, struct state *s, __u8 form, __u32 hash)
{
	__s32 diff = (__s32)shell(form) - (__s32)shell(s->form);
	__be16 type = form == FORM_GPE4 ? HTONS(ETHERTYPE_IPV4) : form == FORM_GPE6 ? HTONS(ETHERTYPE_IPV6) : HTONS(ETHERTYPE_NSH);
	long err = 0;

	/*
	 * A process on this machine that checksums its UDP may have left that to the
	 * device, which would write over what we write. Only taking the header off makes
	 * the kernel forget it.
	 */
	if (s->summed && form != FORM_ETHER) {
		err = set_protocol(skb, HTONS(ETHERTYPE_IPV4));
		if (!err)
			err = bpf_skb_adjust_room(skb, -(__s32)shell(s->form), ADJ_ROOM_MAC, ADJ_ROOM_FIXED_GSO);
		if (!err)
			err = bpf_skb_adjust_room(skb, shell(form), ADJ_ROOM_MAC, ADJ_ROOM_FIXED_GSO);
		if (!err && form == FORM_GPE6)
			err = set_protocol(skb, type);
	} else if (diff) {
		/* The kernel changes the length of IP packets only, and leaves an IP header's worth of what it takes the packet for. */
		err = set_protocol(skb, form == FORM_GPE6 ? HTONS(ETHERTYPE_IPV6) : HTONS(ETHERTYPE_IPV4));
		if (!err)
			err = bpf_skb_adjust_room(skb, diff, ADJ_ROOM_MAC, ADJ_ROOM_FIXED_GSO);
		if (!err && form == FORM_ETHER)
			err = set_protocol(skb, type);
	}
	if (!err)
		err = bpf_skb_store_bytes(skb, 12, &type, 2, 0);
	if (!err && form != FORM_ETHER)
		err = write_shell(skb, &hop->tunnel, hash);
	s->form = form;
	return err ?: write_path(skb, ETH_LEN + shell(form), s);
}

/*
 * note leaves what was decided where a test run sees it, and counts drops of the
 * hop. It returns the action, so that a verdict is one statement.
 */
INLINE int note(struct __sk_buff *skb, __u32 verdict, __u32 reason, __u32 path, int action)
{
	skb->cb[0] = verdict << 8 | reason;
	skb->cb[1] = path;
	return action;
}

INLINE int refuse(struct __sk_buff *skb, const struct hop *hop, __u32 path, __u32 reason)
{
	if (hop) {
		struct cell *c = bpf_map_lookup_elem(&cells, &hop->cell);
		if (c)
			c->drops++;
	}
	return note(skb, VERDICT_DROP, reason, path, drop(reason));
}

INLINE int pass(struct __sk_buff *skb)
{
	return note(skb, VERDICT_PASS, 0, 0, PASS);
}

/* send puts addresses on the frame and hands it to the hop's port. */
INLINE int send(struct __sk_buff *skb, const struct hop *hop)
{
	__u32 low = *(const __u32 *)hop->dmac;
	__u16 high = *(const __u16 *)&hop->dmac[4];

	if (!low && !high)
		return bpf_redirect_neigh(hop->ifindex, NULL, 0, 0);
	if (bpf_skb_store_bytes(skb, 0, hop->dmac, 12, 0)) /* smac follows */
		return refuse(skb, hop, 0, REASON_HELPER);
	if (hop->flags & HOP_PEER) {
		/* Straight to where the function receives: no queue of the veth, no softirq of its
		 * own. The mark is this node's, and no kernel before 6.16 takes it off on this way. */
		skb->mark = 0;
		return bpf_redirect_peer(hop->ifindex, 0);
	}
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
			return refuse(skb, hop, s->path, REASON_MALFORMED);
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
			return refuse(skb, hop, s->path, REASON_MALFORMED);
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
			return refuse(skb, hop, s->path, REASON_HELPER);
		return bpf_redirect(fib.ifindex, 0);
	case FIB_NO_NEIGH:
		return bpf_redirect_neigh(fib.ifindex, NULL, 0, 0);
	case FIB_NOT_FWDED:
	case FIB_FRAG_NEEDED:
	case FIB_UNSUPP_LWT:
		return PASS;
	default:
		return refuse(skb, hop, s->path, REASON_NO_ROUTE);
	}
}
