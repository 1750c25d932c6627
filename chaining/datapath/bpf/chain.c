// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
// The datapath: one program on the way in of every port, which classifies, takes
// packets back from functions, and forwards.
#include "forward.h"
#include "toobig.h"

char _license[] SEC("license") = "Dual BSD/GPL";

#define FIRST_SI 255

/* As a classifier or a proxy puts it on: version 0, TTL 63, length 6 words. */
#define FRESH_BASE HTONS(63 << NSH_TTL_SHIFT | NSH_MD1_LEN / 4)

INLINE struct hop *hop_of(__u32 generation, __u32 path)
{
	struct hop_key k = { generation, path };

	return bpf_map_lookup_elem(&hops, &k);
}

/*
 * choose finds a path by the rules of one list: 0 and the path, or a verdict. PASS
 * also stands for "no rule is the packet's".
 */
INLINE int choose(struct match *m, __u32 count, __u32 *spi)
{
	bpf_loop(count, try_rule, m, 0);
	if (!m->found)
		return PASS;
	__u32 at = m->found - 1;
	struct rule *r = bpf_map_lookup_elem(&rules, &at);
	if (!r)
		return drop(REASON_HELPER);
	if (r->flags & RULE_PASS)
		return PASS;
	if (!r->size)
		return r->flags & RULE_OPEN ? PASS : drop(REASON_NO_PATH);
	__u32 slot = r->slots + flow_hash(&m->flow) % r->size;
	__u32 *chosen = bpf_map_lookup_elem(&slots, &slot);
	if (!chosen)
		return drop(REASON_HELPER);
	*spi = *chosen;
	return 0;
}

/*
 * classify finds the path of a packet that is on none yet. What is cached holds as
 * long as its epoch and the path do; then the rules are asked again.
 */
INLINE int classify(const struct packet *p, const struct node *n, __u32 ifindex, __u64 word, struct state *s, struct hop **hop)
{
	__u32 generation = word & 1;
	struct flow found = { .epoch = word >> 32 };
	struct flow *f = p->later ? NULL : bpf_map_lookup_elem(&flows, &p->flow);

	if (f && f->epoch == found.epoch) {
		if (!f->spi)
			return PASS;
		s->path = f->spi << 8 | FIRST_SI;
		*hop = hop_of(generation, s->path);
		if (*hop && (*hop)->flags & HOP_LIVE)
			return 0;
	}
	struct match m = {
		.flow = p->flow,
		.ifindex = ifindex,
		.from = generation * MAX_RULES,
		.dscp = p->dscp,
		.later = p->later,
	};
	int verdict = choose(&m, n->rules[generation], &found.spi);
	if (verdict == TC_ACT_SHOT)
		return verdict;
	/* An ICMP error belongs to a flow, it begins none; a later fragment is of no known one. */
	if (!p->error && !p->later)
		bpf_map_update_elem(&flows, &p->flow, &found, BPF_ANY);
	if (verdict)
		return verdict;
	s->path = found.spi << 8 | FIRST_SI;
	*hop = hop_of(generation, s->path);
	return *hop ? 0 : drop(REASON_UNKNOWN_PATH);
}

/* recover tells the path of a packet that a function without NSH gave back. */
INLINE int recover(struct __sk_buff *skb, const struct port *port, const struct packet *p, struct state *s)
{
	__u32 path = 0;

	if (port->flags & PORT_FIXED) {
		path = port->path;
	} else if (port->flags & PORT_MAC) {
		struct eth eth;
		if (load(skb, 0, &eth, sizeof(eth)))
			return drop(REASON_MALFORMED);
		if (eth.src[0] == 0x02 && eth.src[1] == 0x5f)
			path = HTONL(*(__be32 *)&eth.src[2]);
	} else {
		struct held_key k = { .flow = p->flow, .func = port->func };
		k.flow.zone = 0; /* the function has its own zone */
		__u32 *known = bpf_map_lookup_elem(&held, &k);
		if (known)
			path = *known;
	}
	if (!path)
		return drop(REASON_STATE);
	/* The proxy counts down for the function (RFC 8300, section 2.3). */
	if (!(path & 0xff))
		return drop(REASON_SI_UNDERFLOW);
	s->path = path - 1;
	return 0;
}

/* is_tunnel: VXLAN-GPE to our end of the port; at is where its NSH begins. */
INLINE int is_tunnel(struct __sk_buff *skb, const struct port *port, struct state *s, __u32 *at)
{
	struct udp udp;
	struct gpe gpe;

	if (skb->protocol == HTONS(ETHERTYPE_IPV4)) {
		struct ipv4 ip;
		if (load(skb, ETH_LEN, &ip, sizeof(ip)) || ip.version_ihl != 0x45 || ip.proto != PROTO_UDP ||
		    ip.dst != port->addr4 || ip.frag & HTONS(IPV4_OFFSET | IPV4_MF))
			return 0;
		*at = ETH_LEN + 20;
		s->form = FORM_GPE4;
	} else {
		struct ipv6 ip;
		if (load(skb, ETH_LEN, &ip, sizeof(ip)) || ip.next != PROTO_UDP || ip.dst[0] != port->addr6[0] ||
		    ip.dst[1] != port->addr6[1] || ip.dst[2] != port->addr6[2] || ip.dst[3] != port->addr6[3])
			return 0;
		*at = ETH_LEN + 40;
		s->form = FORM_GPE6;
	}
	if (load(skb, *at, &udp, sizeof(udp)) || udp.dport != HTONS(GPE_PORT) ||
	    load(skb, *at + 8, &gpe, sizeof(gpe)) || gpe.next != GPE_NP_NSH || !(gpe.flags & 4)) {
		s->form = FORM_PLAIN;
		return 0;
	}
	*at += 16;
	return 1;
}

/* receive reads the NSH at off by the rules of RFC 8300, sections 2.2 and 2.3. */
INLINE int receive(struct __sk_buff *skb, __u32 off, struct state *s)
{
	struct nsh h;
	__u16 base;
	__u8 ttl, words;

	if (load(skb, off, &h, NSH_BASE_LEN))
		return drop(REASON_MALFORMED);
	base = NTOHS(h.base);
	if (base >> 14)
		return drop(REASON_VERSION);
	if (base & NSH_O_BIT)
		return PASS; /* the agent answers */
	words = base & 0x3f;
	s->md = h.md & 0x0f;
	if (s->md != 1 && s->md != 2)
		return drop(REASON_MD_TYPE);
	if (s->md == 1 ? words != 6 : words < 2)
		return drop(REASON_LENGTH);
	s->nsh_len = words * 4;
	if (s->md == 1) {
		if (load(skb, off + 8, s->context, 16))
			return drop(REASON_MALFORMED);
	}
	/* Down by one before the lookup; 0 means 64. */
	ttl = ((base >> NSH_TTL_SHIFT) - 1) & 0x3f;
	if (!ttl)
		return drop(REASON_TTL);
	s->base = HTONS((base & ~(0x3f << NSH_TTL_SHIFT)) | ttl << NSH_TTL_SHIFT);
	s->path = NTOHL(h.path);
	if (!(s->path & 0xff))
		return drop(REASON_SI_UNDERFLOW);
	s->md = h.md; /* with its unassigned bits */
	s->next = h.next;
	if (h.next == NSH_NP_IPV4) {
		s->inner = HTONS(ETHERTYPE_IPV4);
	} else if (h.next == NSH_NP_IPV6) {
		s->inner = HTONS(ETHERTYPE_IPV6);
	} else if (h.next == NSH_NP_ETHERNET) {
		if (load(skb, off + s->nsh_len + 12, &s->inner, 2))
			return drop(REASON_MALFORMED);
		if (s->inner != HTONS(ETHERTYPE_IPV4) && s->inner != HTONS(ETHERTYPE_IPV6))
			return drop(REASON_PROTOCOL);
	} else {
		return drop(REASON_PROTOCOL);
	}
	return 0;
}

/* fits: a packet, or the segments that it will be cut into, against an MTU; 0 is none. */
INLINE int fits(struct __sk_buff *skb, __u32 mtu, __u32 len, __u32 headers)
{
	if (!mtu)
		return 1;
	if (skb->gso_size)
		len = headers + skb->gso_size;
	return len <= mtu;
}

/* learn makes answers take the way back, also those to an address that a function put on. */
INLINE void learn(const struct hop *hop, const struct packet *p, __u32 epoch)
{
	struct tuple back = p->flow;
	struct flow f = { .spi = hop->reverse, .epoch = epoch };

	reverse(&back);
	back.zone = hop->reverse_zone;
	struct flow *known = bpf_map_lookup_elem(&flows, &back);
	if (known && known->spi == f.spi && known->epoch == f.epoch)
		return;
	bpf_map_update_elem(&flows, &back, &f, BPF_ANY);
}

SEC("tcx/ingress")
int ingress(struct __sk_buff *skb)
{
	__u32 zero = 0, ifindex = skb->ifindex, at = ETH_LEN;
	struct port *port = bpf_map_lookup_elem(&ports_of, &ifindex);
	struct node *n = bpf_map_lookup_elem(&node, &zero);
	__u64 *active_word = bpf_map_lookup_elem(&active, &zero);
	struct state s = { .base = FRESH_BASE, .md = 1 };
	struct packet p = {};
	struct hop *hop = NULL;
	__u64 word;
	int verdict, classified = 0;
	long err;

	if (!port || !n || !active_word)
		return PASS;
	word = *active_word;
	s.inner = skb->protocol;
	if (skb->protocol == HTONS(ETHERTYPE_NSH)) {
		if (!(port->flags & PORT_ETHER))
			return PASS;
		s.form = FORM_ETHER;
		verdict = receive(skb, at, &s);
		if (verdict)
			return verdict;
	} else if (skb->protocol != HTONS(ETHERTYPE_IPV4) && skb->protocol != HTONS(ETHERTYPE_IPV6)) {
		return PASS;
	} else if (port->flags & PORT_TUNNEL && is_tunnel(skb, port, &s, &at)) {
		verdict = receive(skb, at, &s);
		if (verdict)
			return verdict;
	} else if (port->flags & (PORT_FLOW | PORT_FIXED | PORT_MAC | PORT_CLASSIFY)) {
		__u8 v6 = skb->protocol == HTONS(ETHERTYPE_IPV6);
		if (look(skb, ETH_LEN, v6, &p))
			return drop(REASON_MALFORMED);
		if (p.local)
			return PASS;
		p.flow.zone = port->zone;
		if (port->flags & PORT_CLASSIFY) {
			verdict = classify(&p, n, ifindex, word, &s, &hop);
			classified = 1;
		} else {
			if (to_us(port, &p))
				return PASS;
			verdict = recover(skb, port, &p, &s);
		}
		if (verdict)
			return verdict;
	} else {
		return PASS;
	}

	if (!hop)
		hop = hop_of(word & 1, s.path);
	if (!hop)
		return drop(REASON_UNKNOWN_PATH);
	skb->mark = (skb->mark & ~n->mask) | n->mark;
	if (classified && !fits(skb, hop->path_mtu, p.len, p.headers))
		return p.df && !p.error ? answer(skb, port, p.v6, hop->path_mtu) : drop_at(hop, REASON_TOO_BIG);

	struct cell *cell = bpf_map_lookup_elem(&cells, &hop->cell);
	if (cell) {
		cell->packets++;
		cell->bytes += skb->len;
	}
	/* From tunnel to tunnel nothing is taken off. */
	if ((hop->kind == KIND_GPE || hop->kind == KIND_NODE) && s.form == (hop->tunnel.v6 ? FORM_GPE6 : FORM_GPE4)) {
		if (!fits(skb, hop->mtu, skb->len - ETH_LEN, (s.form == FORM_GPE4 ? GPE_V4_LEN : GPE_V6_LEN) + 40))
			return drop_at(hop, REASON_TOO_BIG);
		if (readdress(skb, hop, &s))
			return drop_at(hop, REASON_HELPER);
		return send(skb, hop);
	}
	if (s.form != FORM_PLAIN) {
		err = undress(skb, &s);
		if (err)
			return drop_at(hop, REASON_HELPER);
		if (look(skb, ETH_LEN, s.inner == HTONS(ETHERTYPE_IPV6), &p))
			return drop_at(hop, REASON_MALFORMED);
		p.flow.zone = port->zone;
	}
	switch (hop->kind) {
	case KIND_PLAIN:
		if (!fits(skb, hop->mtu, p.len, p.headers))
			return drop_at(hop, REASON_TOO_BIG);
		if (hop->flags & HOP_REMEMBER) {
			struct held_key k = { .flow = p.flow, .func = hop->func };
			k.flow.zone = 0;
			__u32 *known = bpf_map_lookup_elem(&held, &k);
			if (!known || *known != s.path)
				bpf_map_update_elem(&held, &k, &s.path, BPF_ANY);
		}
		if (hop->flags & HOP_MAC) {
			struct {
				__u8 dst[6], src[6];
			} a = { .src = { 0x02, 0x5f, s.path >> 24, s.path >> 16, s.path >> 8, s.path } };
			__builtin_memcpy(a.dst, hop->dmac, 6);
			if (bpf_skb_store_bytes(skb, 0, &a, 12, 0))
				return drop_at(hop, REASON_HELPER);
			return bpf_redirect(hop->ifindex, 0);
		}
		return send(skb, hop);
	case KIND_GPE:
	case KIND_NODE: {
		struct nsh h = header_of(&s);
		__u32 room = hop->tunnel.v6 ? GPE_V6_LEN : GPE_V4_LEN;
		if (!fits(skb, hop->mtu, p.len + room, p.headers + room))
			return drop_at(hop, REASON_TOO_BIG);
		if (push_gpe(skb, &hop->tunnel, &h, flow_hash(&p.flow)))
			return drop_at(hop, REASON_HELPER);
		return send(skb, hop);
	}
	case KIND_ETHER: {
		struct nsh h = header_of(&s);
		if (!fits(skb, hop->mtu, p.len + NSH_MD1_LEN, p.headers + NSH_MD1_LEN))
			return drop_at(hop, REASON_TOO_BIG);
		if (push_ether(skb, &h))
			return drop_at(hop, REASON_HELPER);
		return send(skb, hop);
	}
	case KIND_END:
		if (hop->reverse && !p.error && !p.later)
			learn(hop, &p, word >> 32);
		return finish(skb, hop, &s);
	}
	return drop_at(hop, REASON_HELPER);
}
