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

/* answer turns the packet into the answer and sends it back where it came from. */
INLINE int answer(struct __sk_buff *skb, const struct port *port, __u8 v6, __u16 mtu)
{
	struct eth eth;
	__u32 quote = v6 ? QUOTE6 : QUOTE4;
	__s32 room = v6 ? 48 : 28;

	if (load(skb, 0, &eth, sizeof(eth)) || bpf_skb_change_tail(skb, ETH_LEN + quote, 0))
		return drop(REASON_TOO_BIG);
	if (bpf_skb_adjust_room(skb, room, ADJ_ROOM_MAC, 0))
		return drop(REASON_TOO_BIG);
	if (v6) {
		struct answer6 *a = (void *)(long)skb->data;
		__be16 *quoted = (void *)(a + 1);
		if ((void *)quoted + QUOTE6 > (void *)(long)skb->data_end)
			return drop(REASON_TOO_BIG);
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
			return drop(REASON_TOO_BIG);
		__builtin_memcpy(a->eth.dst, eth.src, 6);
		__builtin_memcpy(a->eth.src, eth.dst, 6);
		a->ip = (struct ipv4){
			.version_ihl = 0x45,
			.tos = 0xc0, /* RFC 1812, section 4.3.2.5 */
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
	drop(REASON_TOO_BIG); /* counted: the packet itself goes no further */
	return bpf_redirect(skb->ifindex, 0);
}
