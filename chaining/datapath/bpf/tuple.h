/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Which flow a packet belongs to. */
#pragma once
#include "frame.h"

/*
 * Addresses of IPv4 stand in word 0. ICMP echo has its identifier in both ports, so
 * that an answer is the reverse of its question. Ports are in network order.
 */
struct tuple {
	__be32 src[4];
	__be32 dst[4];
	__be16 sport;
	__be16 dport;
	__u8 proto;
	__u8 v6;
	__u16 zone; /* 0; room for address spaces that overlap */
};

/* What one look at a packet's headers tells. */
struct packet {
	struct tuple flow;
	__u32 len; /* IP packet, bytes; of a large one as a whole */
	__u32 headers; /* IP and transport headers, bytes */
	__u8 dscp;
	__u8 ttl;
	__u8 df; /* must not be cut: DF, and every IPv6 packet */
	__u8 fragment; /* 1: not the first, has no ports; 2: the first */
	__u8 error; /* an ICMP error: flow is that of the packet which it would have answered */
	__u8 local; /* of the link: neighbours, multicast; never forwarded, so never in a chain */
	__u32 frag_id;
};

INLINE void reverse(struct tuple *t)
{
	__be16 port = t->sport;

	t->sport = t->dport;
	t->dport = port;
#pragma unroll
	for (int i = 0; i < 4; i++) {
		__be32 word = t->src[i];
		t->src[i] = t->dst[i];
		t->dst[i] = word;
	}
}

/* Fragments after the first have no ports: these remember them. */
struct frag_key {
	__be32 src[4];
	__be32 dst[4];
	__u32 id;
	__u32 proto;
};

struct frag_ports {
	__be16 sport;
	__be16 dport;
};

struct {
	UINT(type, MAP_LRU_HASH);
	UINT(max_entries, 4096);
	TYPE(key, struct frag_key);
	TYPE(value, struct frag_ports);
} fragments SEC(".maps");

INLINE int load(struct __sk_buff *skb, __u32 off, void *to, __u32 len)
{
	return bpf_skb_load_bytes(skb, off, to, len) != 0;
}

INLINE int is_icmp_error(__u8 v6, __u8 type)
{
	if (v6)
		return type >= 1 && type <= 4;
	return type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
}

INLINE int is_icmp_echo(__u8 v6, __u8 type)
{
	return v6 ? type == 128 || type == 129 : type == 8 || type == 0;
}

/* ports reads what stands for ports of proto at off; 0 when it has none. */
INLINE int ports(struct __sk_buff *skb, __u32 off, struct tuple *t, __u32 *headers)
{
	__u8 h[14];

	switch (t->proto) {
	case PROTO_TCP:
		if (load(skb, off, h, 14))
			return -1;
		*headers += (h[12] >> 4) * 4;
		break;
	case PROTO_UDP:
	case PROTO_SCTP:
		if (load(skb, off, h, 8))
			return -1;
		*headers += t->proto == PROTO_UDP ? 8 : 12;
		break;
	default:
		return 0;
	}
	t->sport = *(__be16 *)&h[0];
	t->dport = *(__be16 *)&h[2];
	return 0;
}

struct ip_at {
	__u32 l4; /* offset of the transport header */
	__u32 frag_id;
	__u8 fragment;
	__u8 bad;
};

/* ip4 and ip6 fill in addresses, protocol and sizes from the IP header at off. */
INLINE void ip4(struct __sk_buff *skb, __u32 off, struct packet *p, struct ip_at *at)
{
	struct ipv4 ip;

	at->bad = 1;
	if (load(skb, off, &ip, sizeof(ip)) || ip.version_ihl >> 4 != 4)
		return;
	__u32 ihl = (ip.version_ihl & 15) * 4;
	if (ihl < 20)
		return;
	p->flow.src[0] = ip.src;
	p->flow.dst[0] = ip.dst;
	p->flow.proto = ip.proto;
	p->len = NTOHS(ip.len);
	p->headers = ihl;
	p->dscp = ip.tos >> 2;
	p->ttl = ip.ttl;
	p->df = (ip.frag & HTONS(IPV4_DF)) != 0;
	p->local = NTOHL(ip.dst) >= 0xe0000000; /* multicast, reserved, broadcast */
	at->l4 = off + ihl;
	at->frag_id = ip.id;
	at->fragment = ip.frag & HTONS(IPV4_OFFSET) ? 1 : ip.frag & HTONS(IPV4_MF) ? 2 : 0;
	at->bad = 0;
}

/* link_local: fe80::/10 (RFC 4291, section 2.5.6). */
INLINE int link_local(__be32 word)
{
	return (word & HTONL(0xffc00000)) == HTONL(0xfe800000);
}

/* Extension headers that may stand before the transport header (RFC 8200, section 4.1). */
INLINE void ip6(struct __sk_buff *skb, __u32 off, struct packet *p, struct ip_at *at)
{
	struct ipv6 ip;
	__u8 next;

	at->bad = 1;
	if (load(skb, off, &ip, sizeof(ip)) || (NTOHL(ip.flow) >> 28) != 6)
		return;
	__builtin_memcpy(p->flow.src, ip.src, 16);
	__builtin_memcpy(p->flow.dst, ip.dst, 16);
	p->len = NTOHS(ip.len) + 40;
	p->dscp = NTOHL(ip.flow) >> 22 & 63;
	p->ttl = ip.hops;
	p->df = 1;
	p->local = (ip.dst[0] & HTONL(0xff000000)) == HTONL(0xff000000) || link_local(ip.dst[0]) || link_local(ip.src[0]);
	p->flow.v6 = 1;
	next = ip.next;
	off += 40;
	p->headers = 40;
	at->fragment = 0;
	at->frag_id = 0;
#pragma unroll
	for (int i = 0; i < 4; i++) {
		__u8 h[8];
		__u32 len;

		if (next != 0 && next != 43 && next != 44 && next != 60)
			break;
		if (load(skb, off, h, 8))
			return;
		len = next == 44 ? 8 : (h[1] + 1) * 8;
		if (next == 44) {
			at->frag_id = *(__u32 *)&h[4];
			at->fragment = *(__be16 *)&h[2] & HTONS(0xfff8) ? 1 : h[3] & 1 ? 2 : 0;
		}
		next = h[0];
		off += len;
		p->headers += len;
		if (at->fragment == 1)
			break;
	}
	p->flow.proto = next;
	at->l4 = off;
	at->bad = 0;
}

/*
 * look reads the IP packet at off. It returns 0, or -1 when the headers cannot be
 * read: nobody can say which flow that is.
 */
INLINE int look(struct __sk_buff *skb, __u32 off, __u8 v6, struct packet *p)
{
	struct ip_at at = {};
	__u8 h[8];

	if (v6)
		ip6(skb, off, p, &at);
	else
		ip4(skb, off, p, &at);
	if (at.bad)
		return -1;
	p->fragment = at.fragment;
	p->frag_id = at.frag_id;
	if (at.fragment == 1) {
		struct frag_key k = { .id = at.frag_id, .proto = p->flow.proto };
		__builtin_memcpy(k.src, p->flow.src, 32);
		struct frag_ports *f = bpf_map_lookup_elem(&fragments, &k);
		if (f) {
			p->flow.sport = f->sport;
			p->flow.dport = f->dport;
			p->fragment = 2;
		}
		return 0;
	}
	if (p->flow.proto == (v6 ? PROTO_ICMPV6 : PROTO_ICMP)) {
		if (load(skb, at.l4, h, 8))
			return -1;
		p->headers += 8;
		/* RFC 4861, section 7.1: neighbour discovery, from a neighbour. */
		if (v6 && h[0] >= 133 && h[0] <= 137 && p->ttl == 255)
			p->local = 1;
		if (is_icmp_echo(v6, h[0])) {
			p->flow.sport = p->flow.dport = *(__be16 *)&h[4];
		} else if (is_icmp_error(v6, h[0])) {
			/* The flow is that of the packet inside, the other way round. */
			struct packet in = {};
			__be16 id;

			if (v6)
				ip6(skb, at.l4 + 8, &in, &at);
			else
				ip4(skb, at.l4 + 8, &in, &at);
			if (at.bad)
				return -1;
			if (at.fragment != 1) {
				if (in.flow.proto == (v6 ? PROTO_ICMPV6 : PROTO_ICMP)) {
					if (load(skb, at.l4 + 4, &id, 2))
						return -1;
					in.flow.sport = in.flow.dport = id;
				} else {
					__u8 quoted[4];
					if (in.flow.proto == PROTO_TCP || in.flow.proto == PROTO_UDP || in.flow.proto == PROTO_SCTP) {
						if (load(skb, at.l4, quoted, 4))
							return -1;
						in.flow.sport = *(__be16 *)&quoted[0];
						in.flow.dport = *(__be16 *)&quoted[2];
					}
				}
			}
			p->flow = in.flow;
			reverse(&p->flow);
			p->error = 1;
		}
		return 0;
	}
	if (ports(skb, at.l4, &p->flow, &p->headers))
		return -1;
	if (at.fragment == 2) {
		struct frag_key k = { .id = at.frag_id, .proto = p->flow.proto };
		struct frag_ports f = { p->flow.sport, p->flow.dport };
		__builtin_memcpy(k.src, p->flow.src, 32);
		bpf_map_update_elem(&fragments, &k, &f, BPF_ANY);
	}
	return 0;
}

/*
 * hash of a flow, the same in both directions, so that both reach the same
 * instances. Words are mixed by the multiply and shift of splitmix64.
 */
INLINE __u64 mix(__u64 x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ULL;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

INLINE __u64 flow_hash(const struct tuple *t)
{
	__u64 src = (__u64)(t->src[0] ^ t->src[2]) << 32 | (t->src[1] ^ t->src[3] ^ t->sport);
	__u64 dst = (__u64)(t->dst[0] ^ t->dst[2]) << 32 | (t->dst[1] ^ t->dst[3] ^ t->dport);

	return mix(mix(src) + mix(dst) + t->proto);
}
