/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Which flow a packet belongs to. */
#pragma once
#include "frame.h"

/*
 * A flow as chaining/flow has it, byte for byte: addresses in their 16-byte form,
 * IPv4 as ::ffff:a.b.c.d. ICMP echo has its identifier in both ports, so that an
 * answer is the reverse of its question; fragments but the first have none. Ports
 * and zone are in network order.
 */
struct tuple {
	__be32 src[4];
	__be32 dst[4];
	__be16 sport;
	__be16 dport;
	__u8 proto;
	__u8 zero;
	__be16 zone;
};

/* What one look at a packet's headers tells. */
struct packet {
	struct tuple flow;
	__be32 to[4]; /* where it goes; an ICMP error's flow says another thing */
	__u32 len; /* IP packet, bytes; of a large one as a whole */
	__u32 headers; /* IP and transport headers, bytes */
	__u8 v6;
	__u8 dscp;
	__u8 df; /* must not be cut: DF, and every IPv6 packet */
	__u8 later; /* a fragment but the first: it has no ports */
	__u8 error; /* an ICMP error: flow is that of the packet inside, the other way round */
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

INLINE int load(struct __sk_buff *skb, __u32 off, void *to, __u32 len)
{
	return bpf_skb_load_bytes(skb, off, to, len) != 0;
}

INLINE int is_icmp_error(__u8 v6, __u8 type)
{
	if (v6)
		return type < 128; /* RFC 4443, section 2.1 */
	return type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
}

INLINE int is_icmp_echo(__u8 v6, __u8 type)
{
	return v6 ? type == 128 || type == 129 : type == 8 || type == 0;
}

INLINE int has_ports(__u8 proto)
{
	return proto == PROTO_TCP || proto == PROTO_UDP || proto == PROTO_SCTP;
}

/* Where the IP header led to. */
struct ip_at {
	__u32 l4; /* offset of the transport header */
	__u32 end; /* of the packet */
	__u8 later;
};

INLINE void mapped(__be32 *to, __be32 v4)
{
	to[0] = to[1] = 0;
	to[2] = HTONL(0xffff);
	to[3] = v4;
}

/* ip4 and ip6 fill in addresses, protocol and sizes from the IP header at off. */
INLINE int ip4(struct __sk_buff *skb, __u32 off, struct packet *p, struct ip_at *at)
{
	struct ipv4 ip;

	if (load(skb, off, &ip, sizeof(ip)) || ip.version_ihl >> 4 != 4)
		return -1;
	__u32 ihl = (ip.version_ihl & 15) * 4;
	p->len = NTOHS(ip.len);
	if (ihl < 20 || p->len < ihl)
		return -1;
	mapped(p->flow.src, ip.src);
	mapped(p->flow.dst, ip.dst);
	p->flow.proto = ip.proto;
	p->headers = ihl;
	p->dscp = ip.tos >> 2;
	p->df = (ip.frag & HTONS(IPV4_DF)) != 0;
	at->l4 = off + ihl;
	at->end = off + p->len;
	at->later = (ip.frag & HTONS(IPV4_OFFSET)) != 0;
	return 0;
}

/* How many extension headers may stand before the transport header (RFC 8200, section 4.1). */
#define MAX_EXTENSIONS 6

INLINE int ip6(struct __sk_buff *skb, __u32 off, struct packet *p, struct ip_at *at)
{
	struct ipv6 ip;
	__u8 next;

	if (load(skb, off, &ip, sizeof(ip)) || (NTOHL(ip.flow) >> 28) != 6)
		return -1;
	__builtin_memcpy(p->flow.src, ip.src, 16);
	__builtin_memcpy(p->flow.dst, ip.dst, 16);
	p->len = NTOHS(ip.len) + 40;
	p->dscp = NTOHL(ip.flow) >> 22 & 63;
	p->df = 1;
	p->v6 = 1;
	at->end = off + p->len;
	at->later = 0;
	next = ip.next;
	off += 40;
	p->headers = 40;
#pragma unroll
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		__u8 h[8];
		__u32 len;

		if (next != 0 && next != 43 && next != 44 && next != 60) {
			p->flow.proto = next;
			at->l4 = off;
			return off <= at->end ? 0 : -1;
		}
		if (off + 8 > at->end || load(skb, off, h, 8))
			return -1;
		len = next == 44 ? 8 : (h[1] + 1) * 8;
		if (next == 44 && *(__be16 *)&h[2] & HTONS(0xfff8))
			at->later = 1;
		next = h[0];
		off += len;
		p->headers += len;
		if (at->later) {
			p->flow.proto = next;
			at->l4 = off;
			return 0;
		}
	}
	return -1;
}

/*
 * inside reads the packet at off that an ICMP error speaks of, as far as it is
 * quoted, and gives the error its flow: the one that goes the error's way.
 */
INLINE int inside(struct __sk_buff *skb, __u32 off, __u32 end, struct packet *p)
{
	struct tuple t = {};
	__u32 at;
	int later = 0;

	if (p->v6) {
		struct ipv6 ip;
		if (off + 40 > end || load(skb, off, &ip, sizeof(ip)) || (NTOHL(ip.flow) >> 28) != 6)
			return -1;
		__builtin_memcpy(t.src, ip.src, 16);
		__builtin_memcpy(t.dst, ip.dst, 16);
		t.proto = ip.next;
		at = 40;
	} else {
		struct ipv4 ip;
		if (off + 20 > end || load(skb, off, &ip, sizeof(ip)) || ip.version_ihl >> 4 != 4 || (ip.version_ihl & 15) < 5)
			return -1;
		mapped(t.src, ip.src);
		mapped(t.dst, ip.dst);
		t.proto = ip.proto;
		at = (ip.version_ihl & 15) * 4;
		later = (ip.frag & HTONS(IPV4_OFFSET)) != 0;
	}
	if (!later) {
		__be16 h[4];
		if (off + at + 8 > end || load(skb, off + at, h, 8))
			return -1;
		if (has_ports(t.proto)) {
			t.sport = h[0];
			t.dport = h[1];
		} else if (t.proto == PROTO_ICMP || t.proto == PROTO_ICMPV6) {
			t.sport = t.dport = h[2];
		}
	}
	p->flow = t;
	reverse(&p->flow);
	p->error = 1;
	return 0;
}

/*
 * look reads the IP packet at off. It returns 0, or -1 when the headers cannot be
 * read: nobody can say which flow that is.
 */
INLINE int look(struct __sk_buff *skb, __u32 off, __u8 v6, struct packet *p)
{
	struct ip_at at = {};
	__u8 h[14];

	if (v6 ? ip6(skb, off, p, &at) : ip4(skb, off, p, &at))
		return -1;
	if (at.end > skb->len)
		return -1;
	p->later = at.later;
	__builtin_memcpy(p->to, p->flow.dst, 16);
	if (at.later)
		return 0;
	if (p->flow.proto == PROTO_TCP) {
		if (at.l4 + 20 > at.end || load(skb, at.l4, h, 14))
			return -1;
		p->headers += (h[12] >> 4) * 4;
	} else if (p->flow.proto == PROTO_UDP || p->flow.proto == PROTO_SCTP || p->flow.proto == (v6 ? PROTO_ICMPV6 : PROTO_ICMP)) {
		if (at.l4 + 8 > at.end || load(skb, at.l4, h, 8))
			return -1;
		p->headers += 8;
	} else {
		return 0;
	}
	if (has_ports(p->flow.proto)) {
		p->flow.sport = *(__be16 *)&h[0];
		p->flow.dport = *(__be16 *)&h[2];
		return 0;
	}
	if (is_icmp_echo(v6, h[0]))
		p->flow.sport = p->flow.dport = *(__be16 *)&h[4];
	else if (is_icmp_error(v6, h[0]))
		return inside(skb, at.l4 + 8, at.end, p);
	return 0;
}

/* link_local: fe80::/10 (RFC 4291, section 2.5.6). */
INLINE int link_local(__be32 word)
{
	return (word & HTONL(0xffc00000)) == HTONL(0xfe800000);
}

/*
 * link_scope tells packets that belong to their link: multicast, link-local
 * addresses, neighbour discovery from a neighbour (RFC 4861, section 7.1). They are
 * never forwarded, so they are in no chain.
 */
INLINE int link_scope(struct __sk_buff *skb)
{
	__u8 type;

	if (load(skb, ETH_LEN, &type, 1))
		return 0;
	if (type >> 4 == 6) {
		struct ipv6 ip;
		if (load(skb, ETH_LEN, &ip, sizeof(ip)))
			return 0;
		if ((ip.dst[0] & HTONL(0xff000000)) == HTONL(0xff000000) || link_local(ip.dst[0]) || link_local(ip.src[0]))
			return 1;
		return ip.next == PROTO_ICMPV6 && ip.hops == 255 && !load(skb, ETH_LEN + 40, &type, 1) && type >= 133 && type <= 137;
	}
	struct ipv4 ip;
	return !load(skb, ETH_LEN, &ip, sizeof(ip)) && ip.version_ihl >> 4 == 4 && NTOHL(ip.dst) >= 0xe0000000;
}

/* mix is the finaliser of splitmix64. */
INLINE __u64 mix(__u64 z)
{
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

INLINE __u64 hash_end(const __be32 *a, __be16 port)
{
	__u64 h = mix(((__u64)a[1] << 32 | a[0]) ^ port);

	return mix(h ^ ((__u64)a[3] << 32 | a[2]));
}

/* flow_hash is the same in both directions, and the same as chaining/flow's. */
INLINE __u64 flow_hash(const struct tuple *t)
{
	return mix(hash_end(t->src, t->sport) + hash_end(t->dst, t->dport) + t->proto);
}
