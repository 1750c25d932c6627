// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
// Programs for the tests that settle what the kernel does with encapsulated
// packets (docs/adr/0017). They forward between two fixed interfaces and decide
// nothing; the datapath's own programs use the same encap.h.
#include "encap.h"

char _license[] SEC("license") = "Dual BSD/GPL";

struct wire {
	struct tunnel tunnel;
	__u8 dst[6];
	__u8 src[6];
	__u32 out; /* interface */
};

struct {
	UINT(type, MAP_ARRAY);
	UINT(max_entries, 2);
	TYPE(key, __u32);
	TYPE(value, struct wire);
} wires SEC(".maps");

/* What programs saw: index, see below. */
struct {
	UINT(type, MAP_PERCPU_ARRAY);
	UINT(max_entries, 8);
	TYPE(key, __u32);
	TYPE(value, __u64);
} seen SEC(".maps");

enum { PUSHED, POPPED, FAILED, ALREADY, GSO, TRANSIT, LAST_ERROR };

INLINE void count(__u32 what, __u64 n)
{
	__u64 *v = bpf_map_lookup_elem(&seen, &what);
	if (v)
		*v += n;
}

INLINE void note_error(long err)
{
	__u32 at = LAST_ERROR;
	__u64 *v = bpf_map_lookup_elem(&seen, &at);
	if (v)
		*v = -err;
	count(FAILED, 1);
}

INLINE int out(struct __sk_buff *skb, const struct wire *w)
{
	bpf_skb_store_bytes(skb, 0, w->dst, 12, 0); /* src follows */
	return bpf_redirect(w->out, 0);
}

INLINE int is_ip(struct __sk_buff *skb)
{
	return skb->protocol == HTONS(ETHERTYPE_IPV4) || skb->protocol == HTONS(ETHERTYPE_IPV6);
}

INLINE struct nsh header(struct __sk_buff *skb)
{
	return (struct nsh){
		.base = HTONS(63 << NSH_TTL_SHIFT | NSH_MD1_LEN / 4),
		.md = 1,
		.next = skb->protocol == HTONS(ETHERTYPE_IPV4) ? NSH_NP_IPV4 : NSH_NP_IPV6,
		.path = HTONL(7 << 8 | 255),
	};
}

/* gpe_push: from a plain port into the tunnel of wire 0. */
SEC("tcx/ingress")
int gpe_push(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct wire *w = bpf_map_lookup_elem(&wires, &zero);

	if (!w || !is_ip(skb))
		return TC_ACT_OK;
	struct nsh nsh = header(skb);
	if (skb->gso_size)
		count(GSO, 1);
	long err = push_gpe(skb, &w->tunnel, &nsh, 1);
	if (err) {
		note_error(err);
		return TC_ACT_SHOT;
	}
	count(PUSHED, 1);
	return out(skb, w);
}

/* gpe_push_strict: without a second try; it only tells what the kernel said. */
SEC("tcx/ingress")
int gpe_push_strict(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct wire *w = bpf_map_lookup_elem(&wires, &zero);

	if (!w || !is_ip(skb))
		return TC_ACT_OK;
	long err = bpf_skb_adjust_room(skb, GPE_V4_LEN, ADJ_ROOM_MAC,
				       ADJ_ROOM_FIXED_GSO | ADJ_ROOM_ENCAP_L3_IPV4 | ADJ_ROOM_ENCAP_L4_UDP |
					       ADJ_ROOM_ENCAP_L2(8 + NSH_MD1_LEN));
	if (err) {
		if (err == ERR_ALREADY)
			count(ALREADY, 1);
		note_error(err);
	}
	return TC_ACT_SHOT;
}

INLINE int gpe_in(struct __sk_buff *skb, __u32 *room)
{
	struct outer4 *o;
	struct outer6 *p;

	bpf_skb_pull_data(skb, sizeof(struct outer6));
	o = (void *)(long)skb->data;
	if ((void *)(o + 1) > (void *)(long)skb->data_end)
		return -1;
	if (o->eth.type == HTONS(ETHERTYPE_IPV4) && o->ip.proto == PROTO_UDP && o->udp.dport == HTONS(GPE_PORT)) {
		*room = GPE_V4_LEN;
		return o->nsh.next;
	}
	p = (void *)o;
	if ((void *)(p + 1) > (void *)(long)skb->data_end)
		return -1;
	if (p->eth.type == HTONS(ETHERTYPE_IPV6) && p->ip.next == PROTO_UDP && p->udp.dport == HTONS(GPE_PORT)) {
		*room = GPE_V6_LEN;
		return p->nsh.next;
	}
	return -1;
}

/* gpe_pop: out of the tunnel to the plain port of wire 1. */
SEC("tcx/ingress")
int gpe_pop(struct __sk_buff *skb)
{
	__u32 one = 1, room = 0;
	struct wire *w = bpf_map_lookup_elem(&wires, &one);
	int next = gpe_in(skb, &room);

	if (!w || next < 0)
		return TC_ACT_OK;
	if (skb->gso_size)
		count(GSO, 1);
	long err = pop_gpe(skb, room, skb->protocol, next == NSH_NP_IPV4 ? HTONS(ETHERTYPE_IPV4) : HTONS(ETHERTYPE_IPV6));
	if (err) {
		note_error(err);
		return TC_ACT_SHOT;
	}
	count(POPPED, 1);
	return out(skb, w);
}

/* gpe_again: off and on again, to wire 0: what a node does that hands a packet on. */
SEC("tcx/ingress")
int gpe_again(struct __sk_buff *skb)
{
	__u32 zero = 0, room = 0;
	struct wire *w = bpf_map_lookup_elem(&wires, &zero);
	int next = gpe_in(skb, &room);

	if (!w || next < 0)
		return TC_ACT_OK;
	long err = pop_gpe(skb, room, skb->protocol, next == NSH_NP_IPV4 ? HTONS(ETHERTYPE_IPV4) : HTONS(ETHERTYPE_IPV6));
	if (!err) {
		struct nsh nsh = header(skb);
		err = push_gpe(skb, &w->tunnel, &nsh, 1);
	}
	if (err) {
		note_error(err);
		return TC_ACT_SHOT;
	}
	count(TRANSIT, 1);
	return out(skb, w);
}

/* ether_push and ether_pop: NSH straight on Ethernet. */
SEC("tcx/ingress")
int ether_push(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct wire *w = bpf_map_lookup_elem(&wires, &zero);

	if (!w || !is_ip(skb))
		return TC_ACT_OK;
	struct nsh nsh = header(skb);
	if (skb->gso_size)
		count(GSO, 1);
	long err = push_ether(skb, &nsh);
	if (err) {
		note_error(err);
		return TC_ACT_SHOT;
	}
	count(PUSHED, 1);
	return out(skb, w);
}

SEC("tcx/ingress")
int ether_pop(struct __sk_buff *skb)
{
	__u32 one = 1;
	struct nsh nsh;
	struct wire *w = bpf_map_lookup_elem(&wires, &one);

	if (!w || skb->protocol != HTONS(ETHERTYPE_NSH) || bpf_skb_load_bytes(skb, ETH_LEN, &nsh, sizeof(nsh)))
		return TC_ACT_OK;
	if (skb->gso_size)
		count(GSO, 1);
	long err = pop_ether(skb, nsh.next == NSH_NP_IPV4 ? HTONS(ETHERTYPE_IPV4) : HTONS(ETHERTYPE_IPV6));
	if (err) {
		note_error(err);
		return TC_ACT_SHOT;
	}
	count(POPPED, 1);
	return out(skb, w);
}

/* bounce: a function that reads NSH and hands the frame back as it came. */
SEC("tcx/ingress")
int bounce(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct wire *w = bpf_map_lookup_elem(&wires, &zero);

	if (!w || skb->protocol != HTONS(ETHERTYPE_NSH))
		return TC_ACT_OK;
	count(TRANSIT, 1);
	return out(skb, w);
}

/* aware: a function that knows NSH: VXLAN-GPE back to its sender, with SI less one. */
SEC("tcx/ingress")
int aware(struct __sk_buff *skb)
{
	struct outer4 *o;
	struct eth eth;
	__be32 addr[2];

	bpf_skb_pull_data(skb, sizeof(*o));
	o = (void *)(long)skb->data;
	if ((void *)(o + 1) > (void *)(long)skb->data_end)
		return TC_ACT_OK;
	if (o->eth.type != HTONS(ETHERTYPE_IPV4) || o->ip.proto != PROTO_UDP || o->udp.dport != HTONS(GPE_PORT))
		return TC_ACT_OK;
	eth = o->eth;
	__builtin_memcpy(o->eth.dst, eth.src, 6);
	__builtin_memcpy(o->eth.src, eth.dst, 6);
	addr[0] = o->ip.src;
	addr[1] = o->ip.dst;
	o->ip.src = addr[1];
	o->ip.dst = addr[0];
	o->nsh.path = HTONL(NTOHL(o->nsh.path) - 1);
	count(TRANSIT, 1);
	return bpf_redirect(skb->ifindex, 0);
}

/* ether_refused: what adjust_room says to a frame that is not IP. */
SEC("tcx/ingress")
int ether_refused(struct __sk_buff *skb)
{
	note_error(bpf_skb_adjust_room(skb, -NSH_MD1_LEN, ADJ_ROOM_MAC, ADJ_ROOM_FIXED_GSO));
	return TC_ACT_OK;
}

/* protocol_trick: the frame is taken for IPv4; then adjust_room works. */
SEC("tcx/ingress")
int protocol_trick(struct __sk_buff *skb)
{
	long err = set_protocol(skb, HTONS(ETHERTYPE_IPV4));

	if (!err)
		err = bpf_skb_adjust_room(skb, -NSH_MD1_LEN, ADJ_ROOM_MAC, ADJ_ROOM_FIXED_GSO);
	if (err)
		note_error(err);
	return TC_ACT_OK;
}
