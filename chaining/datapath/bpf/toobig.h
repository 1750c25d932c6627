/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* "Fragmentation needed" (RFC 792, RFC 1191) and "packet too big" (RFC 4443, section 3.2). */
#pragma once
#include "table.h"

struct answer4 {
	struct eth eth;
	struct ipv4 ip;
	__u8 type, code;
	__u16 check;
	__be16 unused, mtu;
} __attribute__((packed));

struct answer6 {
	struct eth eth;
	struct ipv6 ip;
	__u8 type, code;
	__u16 check;
	__be32 mtu;
} __attribute__((packed));

/*
 * What of the packet goes back: its IP header and the start of what follows. At
 * least up to the transport's checksum: the kernel cuts no packet before that while
 * it is still to be filled in, as in all that comes from a veth.
 */
#define QUOTE4 64
#define QUOTE6 80

/* answerable: neither source nor destination is more than one host, or none (RFC 1122, section 3.2.2). */
INLINE int answerable(const struct packet *p)
{
	__u32 src = NTOHL(p->flow.src[3]), dst = NTOHL(p->flow.dst[3]);

	if (p->v6)
		return (p->flow.src[0] | p->flow.src[1] | p->flow.src[2] | p->flow.src[3]) &&
		       (p->flow.src[0] & HTONL(0xff000000)) != HTONL(0xff000000) &&
		       (p->flow.dst[0] & HTONL(0xff000000)) != HTONL(0xff000000);
	return src && src >> 28 != 14 && src != 0xffffffff && dst >> 28 != 14 && dst != 0xffffffff;
}

/* answer turns the packet into the answer, for the port that it came in on; -1 when it cannot. */
INLINE int answer(struct __sk_buff *skb, const struct port *port, __u8 v6, __u16 mtu)
{
	struct eth eth;
	__u32 quote = v6 ? QUOTE6 : QUOTE4;
	__s32 room = v6 ? 48 : 28;

	if (!(v6 ? port->addr6[0] | port->addr6[1] | port->addr6[2] | port->addr6[3] : port->addr4))
		return -1;
	if (load(skb, 0, &eth, sizeof(eth)) || bpf_skb_change_tail(skb, ETH_LEN + quote, 0))
		return -1;
	if (bpf_skb_adjust_room(skb, room, ADJ_ROOM_MAC, 0))
		return -1;
	if (v6) {
		struct answer6 *a = (void *)(long)skb->data;
		__be16 *quoted = (void *)(a + 1);
		if ((void *)quoted + QUOTE6 > (void *)(long)skb->data_end)
			return -1;
		__builtin_memcpy(a->eth.dst, eth.src, 6);
		__builtin_memcpy(a->eth.src, eth.dst, 6);
		a->ip.flow = HTONL(0x60000000);
		a->ip.len = HTONS(8 + QUOTE6);
		a->ip.next = PROTO_ICMPV6;
		a->ip.hops = 64;
		__builtin_memcpy(a->ip.src, port->addr6, 16);
		__builtin_memcpy(a->ip.dst, ((struct ipv6 *)quoted)->src, 16);
		a->type = 2;
		a->code = 0;
		a->check = 0;
		a->mtu = HTONL((__u32)mtu);
		/* Pseudo header: both addresses, length, next header. */
		__u32 sum = sum16(a->ip.src, 16) + HTONS(8 + QUOTE6) + HTONS(PROTO_ICMPV6);
		sum += sum16(&a->type, 4) + sum16(quoted, QUOTE6 / 2);
		a->check = fold(sum);
	} else {
		struct answer4 *a = (void *)(long)skb->data;
		__be16 *quoted = (void *)(a + 1);
		if ((void *)quoted + QUOTE4 > (void *)(long)skb->data_end)
			return -1;
		__builtin_memcpy(a->eth.dst, eth.src, 6);
		__builtin_memcpy(a->eth.src, eth.dst, 6);
		a->ip = (struct ipv4){
			.version_ihl = 0x45,
			.len = HTONS(28 + QUOTE4),
			.ttl = 64,
			.proto = PROTO_ICMP,
			.src = port->addr4,
			.dst = ((struct ipv4 *)quoted)->src,
		};
		a->ip.check = fold(sum16(&a->ip, 10));
		a->type = 3;
		a->code = 4;
		a->check = 0;
		a->unused = 0;
		a->mtu = HTONS(mtu);
		a->check = fold(sum16(&a->type, 4) + sum16(quoted, QUOTE4 / 2));
	}
	return 0;
}
