/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Putting NSH on a packet and taking it off, without losing the packet's
 * segmentation offload. docs/adr/0017 says what of this the kernel allows, and
 * the root tests of this package settle it again on every kernel they run on.
 */
#pragma once
#include "frame.h"

#define GPE_V4_LEN (20 + 8 + 8 + NSH_MD1_LEN)
#define GPE_V6_LEN (40 + 8 + 8 + NSH_MD1_LEN)

/* One end to another over VXLAN-GPE. IPv4 addresses stand in word 0. */
struct tunnel {
	__be32 local[4];
	__be32 remote[4];
	__be32 vni; /* as on the wire, shifted */
	__u8 v6;
};

struct outer4 {
	struct eth eth;
	struct ipv4 ip;
	struct udp udp;
	struct gpe gpe;
	struct nsh nsh;
} __attribute__((packed));

struct outer6 {
	struct eth eth;
	struct ipv6 ip;
	struct udp udp;
	struct gpe gpe;
	struct nsh nsh;
} __attribute__((packed));

/*
 * The source port carries the flow's hash, so that routers in between spread
 * flows (RFC 7348, section 5); 49152 and up as RFC 6335 asks.
 */
INLINE __be16 source_port(__u32 hash)
{
	hash ^= hash >> 16;
	return HTONS(49152 + (hash & 0x3fff));
}

INLINE void fill_outer4(struct ipv4 *ip, struct udp *udp, const struct tunnel *t, __u32 len, __be16 sport)
{
	ip->version_ihl = 0x45;
	ip->tos = 0;
	ip->len = HTONS(len);
	ip->id = 0;
	ip->frag = HTONS(IPV4_DF);
	ip->ttl = 64;
	ip->proto = PROTO_UDP;
	ip->check = 0;
	ip->src = t->local[0];
	ip->dst = t->remote[0];
	ip->check = fold(sum16(ip, 10));
	udp->sport = sport;
	udp->dport = HTONS(GPE_PORT);
	udp->len = HTONS(len - 20);
	udp->check = 0;
}

INLINE void fill_outer6(struct ipv6 *ip, struct udp *udp, const struct tunnel *t, __u32 payload, __be16 sport)
{
	ip->flow = HTONL(0x60000000);
	ip->len = HTONS(payload);
	ip->next = PROTO_UDP;
	ip->hops = 64;
	__builtin_memcpy(ip->src, t->local, 16);
	__builtin_memcpy(ip->dst, t->remote, 16);
	udp->sport = sport;
	udp->dport = HTONS(GPE_PORT);
	udp->len = HTONS(payload);
	udp->check = 0; /* RFC 6935: the inner checksums protect what matters */
}

/* set_protocol makes the kernel take the frame for one of the EtherType. */
INLINE long set_protocol(struct __sk_buff *skb, __be16 type)
{
	long err = bpf_skb_vlan_push(skb, HTONS(0x8100), 1);

	if (!err)
		err = bpf_skb_vlan_push(skb, HTONS(0x8100), 1);
	if (!err)
		err = bpf_skb_store_bytes(skb, 16, &type, 2, 0);
	if (!err)
		err = bpf_skb_vlan_pop(skb);
	if (!err)
		err = bpf_skb_vlan_pop(skb);
	return err;
}

/*
 * grow makes room for a tunnel's headers behind the Ethernet header.
 * ENCAP_L2 covers GPE and NSH: that is what makes the kernel copy both to every
 * segment when a device without tunnel offload needs the packet cut. FIXED_GSO
 * keeps the sender's segment size. A packet that was in a tunnel before keeps
 * skb->encapsulation set, and the kernel then refuses (-EALREADY) to set inner
 * offsets a second time; those of the first time are still right, so the second
 * try goes without. What the kernel takes the packet for is then ours to set, or
 * it drops large packets of one family inside the other. That happens only where a
 * packet lives through several tunnels on one machine.
 */
INLINE long grow(struct __sk_buff *skb, __u8 v6)
{
	__s32 room = v6 ? GPE_V6_LEN : GPE_V4_LEN;
	__u64 encap = (v6 ? ADJ_ROOM_ENCAP_L3_IPV6 : ADJ_ROOM_ENCAP_L3_IPV4) |
		      ADJ_ROOM_ENCAP_L4_UDP | ADJ_ROOM_ENCAP_L2(8 + NSH_MD1_LEN);
	long err = bpf_skb_adjust_room(skb, room, ADJ_ROOM_MAC, ADJ_ROOM_FIXED_GSO | encap);

	__be16 outer = v6 ? HTONS(ETHERTYPE_IPV6) : HTONS(ETHERTYPE_IPV4);

	if (err == ERR_ALREADY) {
		err = bpf_skb_adjust_room(skb, room, ADJ_ROOM_MAC, ADJ_ROOM_FIXED_GSO);
		if (!err && skb->protocol != outer)
			err = set_protocol(skb, outer);
	}
	return err;
}

/* push_gpe puts Ethernet | IP | UDP | GPE | NSH before an IP packet. */
INLINE long push_gpe(struct __sk_buff *skb, const struct tunnel *t, const struct nsh *nsh, __u32 hash)
{
	__be16 sport = source_port(hash);
	long err = grow(skb, t->v6);

	if (err)
		return err;
	if (t->v6) {
		struct outer6 *o = (void *)(long)skb->data;
		if ((void *)(o + 1) > (void *)(long)skb->data_end)
			return -1;
		o->eth.type = HTONS(ETHERTYPE_IPV6);
		fill_outer6(&o->ip, &o->udp, t, skb->len - ETH_LEN - 40, sport);
		o->gpe = (struct gpe){ .flags = GPE_FLAGS, .next = GPE_NP_NSH, .vni = t->vni };
		o->nsh = *nsh;
	} else {
		struct outer4 *o = (void *)(long)skb->data;
		if ((void *)(o + 1) > (void *)(long)skb->data_end)
			return -1;
		o->eth.type = HTONS(ETHERTYPE_IPV4);
		fill_outer4(&o->ip, &o->udp, t, skb->len - ETH_LEN, sport);
		o->gpe = (struct gpe){ .flags = GPE_FLAGS, .next = GPE_NP_NSH, .vni = t->vni };
		o->nsh = *nsh;
	}
	return 0;
}

/*
 * pop_gpe takes room bytes of tunnel and NSH off. The kernel takes the packet's
 * protocol from the outer header unless it is told what is inside.
 */
INLINE long pop_gpe(struct __sk_buff *skb, __u32 room, __be16 outer, __be16 inner)
{
	__u64 flags = ADJ_ROOM_FIXED_GSO;

	if (outer != inner)
		flags |= inner == HTONS(ETHERTYPE_IPV4) ? ADJ_ROOM_DECAP_L3_IPV4 : ADJ_ROOM_DECAP_L3_IPV6;
	long err = bpf_skb_adjust_room(skb, -(__s32)room, ADJ_ROOM_MAC, flags);
	if (err)
		return err;
	return bpf_skb_store_bytes(skb, offsetof(struct eth, type), &inner, 2, 0);
}

/*
 * push_ether puts NSH straight behind a new Ethernet header (0x894F), by
 * change_head: unlike adjust_room it does not mark a GSO packet as untrusted,
 * which the next device would drop where the kernel knows no NSH offload.
 */
INLINE long push_ether(struct __sk_buff *skb, const struct nsh *nsh)
{
	struct {
		struct eth eth;
		struct nsh nsh;
	} __attribute__((packed)) h = { .nsh = *nsh };
	long err = bpf_skb_change_head(skb, NSH_MD1_LEN, 0);

	if (err)
		return err;
	h.eth.type = HTONS(ETHERTYPE_NSH);
	return bpf_skb_store_bytes(skb, 0, &h, sizeof(h), 0);
}

/*
 * pop_ether takes an NSH of MD type 1 off an 0x894F frame. adjust_room refuses
 * frames that are not IP, so the bytes are dressed up as six VLAN tags and popped
 * one by one; the two pushes first move the Ethernet header so that the kernel
 * reads the tags from the packet and not from its offload field.
 */
INLINE long pop_ether(struct __sk_buff *skb, __be16 inner)
{
	__be16 tags[14];
	long err;

	err = bpf_skb_vlan_push(skb, HTONS(0x8100), 1);
	if (err)
		return err;
	err = bpf_skb_vlan_push(skb, HTONS(0x8100), 1);
	if (err)
		return err;
#pragma unroll
	for (int i = 0; i < 13; i++)
		tags[i] = i % 2 ? 0 : HTONS(0x8100);
	tags[12] = inner;
	/* Behind MAC addresses and the one tag in the packet: 12 + 4. */
	err = bpf_skb_store_bytes(skb, 16, tags, 26, 0);
	if (err)
		return err;
#pragma unroll
	for (int i = 0; i < 8; i++) {
		err = bpf_skb_vlan_pop(skb);
		if (err)
			return err;
	}
	return 0;
}
