// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
// The datapath: one program on the way in of every port, which classifies, takes
// packets back from functions, and forwards. chaining/soft is the same in Go; what
// both do with a packet is compared by tests, byte for byte.
#include "forward.h"
#include "toobig.h"

char _license[] SEC("license") = "Dual BSD/GPL";

#define FIRST_SI 255

/* As a classifier or a proxy puts it on: version 0, TTL 63, length 6 words. */
#define FRESH_BASE HTONS(63 << NSH_TTL_SHIFT | NSH_MD1_LEN / 4)

/* How often one packet is classified again at one node. */
#define MAX_BRANCHES 4

INLINE struct hop *hop_of(__u32 generation, __u32 path)
{
	struct hop_key k = { generation, path };

	return bpf_map_lookup_elem(&hops, &k);
}

/*
 * What a list of rules says of a packet: an SPI, or 0 and then a reason to drop it,
 * or 0 and no reason: no rule is the packet's, or it may pass.
 */
struct choice {
	__u32 spi;
	__u32 reason;
};

INLINE void choose(struct match *m, __u32 count, struct choice *c)
{
	bpf_loop(count, try_rule, m, 0);
	if (m->unsure) {
		c->reason = REASON_FRAGMENT;
		return;
	}
	if (!m->found)
		return;
	__u32 at = m->found - 1;
	struct rule *r = bpf_map_lookup_elem(&rules, &at);
	if (!r || r->flags & RULE_PASS)
		return;
	if (!r->size) {
		c->reason = r->flags & RULE_OPEN ? REASON_NONE : REASON_NO_PATH;
		return;
	}
	/* Of a later fragment the flow is not known, so it must not matter. */
	if (m->later && r->size > 1) {
		c->reason = REASON_FRAGMENT;
		return;
	}
	__u32 slot = r->slots + flow_hash(&m->flow) % r->size;
	__u32 *chosen = bpf_map_lookup_elem(&slots, &slot);
	if (chosen)
		c->spi = *chosen;
}

/*
 * classify finds the path of a packet that is on none yet. A flow that has a path
 * keeps it as long as flows may be on that path; that one is of no chain holds until
 * the next table.
 */
INLINE void classify(const struct packet *p, const struct node *n, __u32 ifindex, __u64 word, struct choice *c)
{
	__u32 generation = word & 1;
	struct flow found = { .epoch = word >> 32 };
	struct flow *f = bpf_map_lookup_elem(&flows, &p->flow);

	if (f && !f->spi) {
		if (f->epoch == found.epoch)
			return;
	} else if (f) {
		struct hop *hop = hop_of(generation, f->spi << 8 | FIRST_SI);
		if (hop && hop->flags & HOP_LIVE) {
			c->spi = f->spi;
			return;
		}
	}
	struct match m = {
		.flow = p->flow,
		.ifindex = ifindex,
		.from = generation * MAX_RULES,
		.dscp = p->dscp,
		.later = p->later,
	};
	choose(&m, n->rules[generation], c);
	/* An ICMP error belongs to a flow, it begins none; a later fragment is of no known one. */
	if (c->reason || p->error || p->later || (!c->spi && !n->keep[generation]))
		return;
	found.spi = c->spi;
	bpf_map_update_elem(&flows, &p->flow, &found, BPF_ANY);
}

/* recover tells the path of a packet that a function without NSH gave back; 0 when nobody knows. */
INLINE int recover(struct __sk_buff *skb, const struct port *port, const struct packet *p, __u32 *path)
{
	if (port->flags & PORT_FIXED) {
		*path = port->path;
		return 1;
	}
	if (port->flags & PORT_MAC) {
		struct eth eth;
		if (load(skb, 0, &eth, sizeof(eth)) || eth.src[0] != 0x02 || eth.src[1] != 0x5f)
			return 0;
		*path = (__u32)eth.src[2] << 24 | (__u32)eth.src[3] << 16 | (__u32)eth.src[4] << 8 | eth.src[5];
		return 1;
	}
	struct held_key k = { .flow = p->flow, .func = port->func };
	k.flow.zone = 0; /* the function has its own zone */
	__u32 *known = bpf_map_lookup_elem(&held, &k);
	if (!known)
		return 0;
	*path = *known;
	return 1;
}

/* How a packet goes on after a look at it. */
enum step { STEP_GO, STEP_PASS, STEP_PUNT, STEP_DROP };

struct found {
	__u32 step;
	__u32 reason;
};

INLINE void stop(struct found *f, __u32 step, __u32 reason)
{
	f->step = step;
	f->reason = reason;
}

/*
 * tunnel: VXLAN-GPE to our end of the port; at becomes where its NSH begins. The
 * outer header must say exactly how long the frame is. A large packet is not cut yet,
 * so there its lengths may say anything.
 */
INLINE void tunnel(struct __sk_buff *skb, const struct port *port, struct state *s, __u32 *at, struct found *f)
{
	__u32 len = skb->len - ETH_LEN;
	int wrong, whole = !skb->gso_size;
	struct udp udp;
	struct gpe gpe;

	if (skb->protocol == HTONS(ETHERTYPE_IPV4)) {
		struct ipv4 ip;
		if (load(skb, ETH_LEN, &ip, sizeof(ip)) || ip.version_ihl >> 4 != 4)
			return stop(f, STEP_DROP, REASON_MALFORMED);
		if (ip.proto != PROTO_UDP || !port->addr4 || ip.dst != port->addr4 || ip.frag & HTONS(IPV4_OFFSET) || ip.version_ihl != 0x45)
			return stop(f, STEP_PASS, 0);
		wrong = ip.frag & HTONS(IPV4_MF) || (whole && NTOHS(ip.len) != len);
		s->form = FORM_GPE4;
		*at = ETH_LEN + 20;
		len -= 20;
	} else {
		struct ipv6 ip;
		if (load(skb, ETH_LEN, &ip, sizeof(ip)) || NTOHL(ip.flow) >> 28 != 6)
			return stop(f, STEP_DROP, REASON_MALFORMED);
		if (ip.next != PROTO_UDP || !(port->addr6[0] | port->addr6[1] | port->addr6[2] | port->addr6[3]) ||
		    ip.dst[0] != port->addr6[0] || ip.dst[1] != port->addr6[1] || ip.dst[2] != port->addr6[2] || ip.dst[3] != port->addr6[3])
			return stop(f, STEP_PASS, 0);
		s->form = FORM_GPE6;
		*at = ETH_LEN + 40;
		len -= 40;
		wrong = whole && NTOHS(ip.len) != len;
	}
	if (load(skb, *at, &udp, sizeof(udp)))
		return stop(f, STEP_DROP, REASON_MALFORMED);
	if (udp.dport != HTONS(GPE_PORT))
		return stop(f, STEP_PASS, 0);
	if (wrong || (whole && NTOHS(udp.len) != len) || load(skb, *at + 8, &gpe, sizeof(gpe)) ||
	    (gpe.flags & 0x3f) != GPE_FLAGS || gpe.next != GPE_NP_NSH)
		return stop(f, STEP_DROP, REASON_MALFORMED);
	s->summed = udp.check != 0;
	*at += 16;
}

/* receive reads the NSH at off and the packet behind it, by RFC 8300, sections 2.2 and 2.3. */
INLINE void receive(struct __sk_buff *skb, const struct port *port, __u32 off, struct state *s, struct packet *p, struct found *f)
{
	struct nsh h = {};
	__u16 base;
	__u8 ttl, version;

	if (load(skb, off, &h, NSH_BASE_LEN))
		return stop(f, STEP_DROP, REASON_MALFORMED);
	base = NTOHS(h.base);
	if (base >> 14)
		return stop(f, STEP_DROP, REASON_VERSION);
	s->nsh_len = (base & 0x3f) * 4;
	s->md = h.md;
	s->next = h.next;
	if ((h.md & 0x0f) == 1) {
		if (s->nsh_len != NSH_MD1_LEN)
			return stop(f, STEP_DROP, REASON_LENGTH);
	} else if ((h.md & 0x0f) == 2) {
		if (s->nsh_len < NSH_BASE_LEN)
			return stop(f, STEP_DROP, REASON_LENGTH);
	} else {
		return stop(f, STEP_DROP, REASON_MD_TYPE);
	}
	if (off + s->nsh_len > skb->len)
		return stop(f, STEP_DROP, REASON_MALFORMED);
	if (s->nsh_len == NSH_MD1_LEN && load(skb, off + 8, s->context, 16))
		return stop(f, STEP_DROP, REASON_MALFORMED);
	s->path = NTOHL(h.path);
	if (base & NSH_O_BIT)
		return h.next == NSH_NP_OAM ? stop(f, STEP_PUNT, 0) : stop(f, STEP_DROP, REASON_OAM);
	if (port->flags & PORT_BORDER)
		return stop(f, STEP_DROP, REASON_INTEGRITY);
	/* Down by one before the lookup; 0 means 64. */
	ttl = ((base >> NSH_TTL_SHIFT) - 1) & 0x3f;
	if (!ttl)
		return stop(f, STEP_DROP, REASON_TTL);
	s->base = HTONS((base & ~(0x3f << NSH_TTL_SHIFT)) | ttl << NSH_TTL_SHIFT);
	if (h.next == NSH_NP_IPV4)
		s->inner = HTONS(ETHERTYPE_IPV4);
	else if (h.next == NSH_NP_IPV6)
		s->inner = HTONS(ETHERTYPE_IPV6);
	else
		return stop(f, STEP_DROP, REASON_PROTOCOL);
	if (load(skb, off + s->nsh_len, &version, 1))
		return stop(f, STEP_DROP, REASON_MALFORMED);
	if (version >> 4 != (h.next == NSH_NP_IPV4 ? 4 : 6))
		return stop(f, STEP_DROP, REASON_PROTOCOL);
	if (look(skb, off + s->nsh_len, h.next == NSH_NP_IPV6, p))
		return stop(f, STEP_DROP, REASON_MALFORMED);
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

/* branch classifies a packet again in the middle of its path, which goes on where no rule is its. */
INLINE void branch(const struct packet *p, const struct hop *hop, __u32 generation, struct state *s, struct found *f)
{
	struct choice c = {};
	struct match m = {
		.flow = p->flow,
		.ifindex = ~0U, /* no rule of a port is meant */
		.from = generation * MAX_RULES + hop->branch,
		.dscp = p->dscp,
		.later = p->later,
	};

	choose(&m, hop->branch_rules, &c);
	if (c.reason)
		return stop(f, STEP_DROP, c.reason);
	if (c.spi) {
		s->path = c.spi << 8 | FIRST_SI;
		return;
	}
	if (!(s->path & 0xff))
		return stop(f, STEP_DROP, REASON_SI_UNDERFLOW);
	s->path--;
}

/* deliver dresses the packet as its hop asks and sends it there. */
INLINE int deliver(struct __sk_buff *skb, const struct port *port, const struct hop *hop, struct state *s, const struct packet *p, __u64 word)
{
	__u32 hash = flow_hash(&p->flow), room;
	__u8 form;

	switch (hop->kind) {
	case KIND_PLAIN:
		if (!fits(skb, hop->mtu, p->len, p->headers))
			return refuse(skb, hop, s->path, REASON_TOO_BIG);
		if (hop->flags & HOP_REMEMBER) {
			struct held_key k = { .flow = p->flow, .func = hop->func };
			k.flow.zone = 0;
			__u32 *known = bpf_map_lookup_elem(&held, &k);
			if (!known || *known != s->path)
				bpf_map_update_elem(&held, &k, &s->path, BPF_ANY);
		}
		if (s->form != FORM_PLAIN && undress(skb, s))
			return refuse(skb, hop, s->path, REASON_HELPER);
		if (hop->flags & HOP_MAC) {
			struct {
				__u8 dst[6], src[6];
			} a = { .src = { 0x02, 0x5f, s->path >> 24, s->path >> 16, s->path >> 8, s->path } };
			__builtin_memcpy(a.dst, hop->dmac, 6);
			if (bpf_skb_store_bytes(skb, 0, &a, 12, 0))
				return refuse(skb, hop, s->path, REASON_HELPER);
			return note(skb, VERDICT_PLAIN, 0, s->path, bpf_redirect(hop->ifindex, 0));
		}
		return note(skb, VERDICT_PLAIN, 0, s->path, send(skb, hop));
	case KIND_GPE:
	case KIND_NODE:
		form = hop->tunnel.v6 ? FORM_GPE6 : FORM_GPE4;
		room = shell(form) + (s->form == FORM_PLAIN ? NSH_MD1_LEN : s->nsh_len);
		break;
	case KIND_ETHER:
		form = FORM_ETHER;
		room = s->form == FORM_PLAIN ? NSH_MD1_LEN : s->nsh_len;
		break;
	case KIND_END:
		if (hop->reverse && !p->error && !p->later)
			learn(hop, p, word >> 32);
		if (s->form != FORM_PLAIN && undress(skb, s))
			return refuse(skb, hop, s->path, REASON_HELPER);
		note(skb, VERDICT_END, 0, s->path, 0);
		return finish(skb, hop, s);
	case KIND_BORDER:
		return refuse(skb, hop, s->path, REASON_INTEGRITY);
	default:
		return refuse(skb, hop, s->path, REASON_HELPER);
	}
	if (!fits(skb, hop->mtu, p->len + room, p->headers + room))
		return refuse(skb, hop, s->path, REASON_TOO_BIG);
	if (s->form == FORM_PLAIN && hop->flags & HOP_CONTEXT) {
		s->md = 2; /* as long as one of MD type 1, so all else is the same */
		__builtin_memcpy(s->context, hop->context, sizeof(s->context));
	}
	/*
	 * From shell to shell only the shell changes. But a large packet, of another shell
	 * than before, must be one that the kernel can still cut: it is put on anew.
	 */
	if (s->form != FORM_PLAIN && skb->gso_size && s->form != form && s->nsh_len == NSH_MD1_LEN && undress(skb, s))
		return refuse(skb, hop, s->path, REASON_HELPER);
	if (s->form != FORM_PLAIN) {
		if (reshell(skb, hop, s, form, hash))
			return refuse(skb, hop, s->path, REASON_HELPER);
	} else {
		struct nsh h = header_of(s);
		if (form == FORM_ETHER ? push_ether(skb, &h) : push_gpe(skb, &hop->tunnel, &h, hash))
			return refuse(skb, hop, s->path, REASON_HELPER);
	}
	return note(skb, hop->kind == KIND_GPE ? VERDICT_GPE : hop->kind == KIND_NODE ? VERDICT_NODE : VERDICT_ETHER, 0, s->path, send(skb, hop));
}

SEC("tcx/ingress")
int ingress(struct __sk_buff *skb)
{
	__u32 zero = 0, ifindex = skb->ifindex, at = ETH_LEN;
	struct port *port = bpf_map_lookup_elem(&ports_of, &ifindex);
	struct node *n = bpf_map_lookup_elem(&node, &zero);
	__u64 *active_word = bpf_map_lookup_elem(&active, &zero);
	struct state s = { .base = FRESH_BASE, .md = 1 };
	struct found f = {};
	struct packet p = {};
	struct hop *hop = NULL;
	int classified = 0;
	__u64 word;

	if (!port || !n || !active_word)
		return PASS;
	word = *active_word;
	s.inner = skb->protocol;
	if (skb->protocol == HTONS(ETHERTYPE_NSH)) {
		/* Headers are made inside the domain only (RFC 8300, section 8.1). */
		if (port->flags & PORT_ETHER) {
			s.form = FORM_ETHER;
			receive(skb, port, at, &s, &p, &f);
		} else if (port->flags & (PORT_CLASSIFY | PORT_TUNNEL)) {
			stop(&f, STEP_DROP, REASON_MALFORMED);
		} else {
			stop(&f, STEP_PASS, 0);
		}
	} else if (skb->protocol != HTONS(ETHERTYPE_IPV4) && skb->protocol != HTONS(ETHERTYPE_IPV6)) {
		stop(&f, STEP_PASS, 0);
	} else {
		if (port->flags & PORT_TUNNEL) {
			tunnel(skb, port, &s, &at, &f);
			if (f.step == STEP_GO)
				receive(skb, port, at, &s, &p, &f);
			else if (f.step == STEP_PASS)
				s.form = FORM_PLAIN;
		}
		if (s.form == FORM_PLAIN && f.step != STEP_DROP && port->flags & (PORT_CLASSIFY | PORT_FLOW | PORT_FIXED | PORT_MAC)) {
			__u8 v6 = skb->protocol == HTONS(ETHERTYPE_IPV6);
			stop(&f, STEP_GO, 0);
			if (link_scope(skb)) {
				stop(&f, STEP_PASS, 0);
			} else if (look(skb, ETH_LEN, v6, &p)) {
				stop(&f, STEP_DROP, REASON_MALFORMED);
			} else if (port->flags & PORT_CLASSIFY) {
				struct choice c = {};
				p.flow.zone = port->zone;
				classify(&p, n, ifindex, word, &c);
				if (c.reason)
					stop(&f, STEP_DROP, c.reason);
				else if (!c.spi)
					stop(&f, STEP_PASS, 0);
				s.path = c.spi << 8 | FIRST_SI;
				classified = 1;
			} else if (to_us(port, &p)) {
				stop(&f, STEP_PASS, 0);
			} else if (!recover(skb, port, &p, &s.path)) {
				stop(&f, STEP_DROP, REASON_STATE);
			} else if (!(s.path & 0xff)) {
				stop(&f, STEP_DROP, REASON_SI_UNDERFLOW);
			} else {
				s.path--; /* the proxy counts for the function (RFC 8300, section 2.3) */
			}
		}
	}
	if (f.step == STEP_PASS)
		return pass(skb);
	if (f.step == STEP_PUNT)
		return note(skb, VERDICT_PUNT, 0, s.path, PASS);
	if (f.step == STEP_DROP)
		return refuse(skb, NULL, s.path, f.reason);

	skb->mark = (skb->mark & ~n->mask) | n->mark;
	hop = hop_of(word & 1, s.path);
	if (classified && hop && !fits(skb, hop->path_mtu, p.len, p.headers)) {
		__u32 mtu = hop->path_mtu;
		if (!p.df || p.error || p.later || !answerable(&p) || answer(skb, port, p.v6, mtu))
			return refuse(skb, hop, s.path, REASON_TOO_BIG);
		drop(REASON_TOO_BIG); /* counted: the packet itself goes no further */
		return note(skb, VERDICT_ANSWER, 0, s.path, bpf_redirect(ifindex, 0));
	}
	for (int i = 0; i < MAX_BRANCHES; i++) {
		if (!hop || hop->kind != KIND_BRANCH)
			break;
		branch(&p, hop, word & 1, &s, &f);
		if (f.step == STEP_DROP)
			return refuse(skb, hop, s.path, f.reason);
		hop = hop_of(word & 1, s.path);
	}
	if (!hop)
		return refuse(skb, NULL, s.path, REASON_UNKNOWN_PATH);
	if (hop->kind == KIND_BRANCH)
		return refuse(skb, hop, s.path, REASON_LOOP);

	struct cell *cell = bpf_map_lookup_elem(&cells, &hop->cell);
	if (cell) {
		cell->packets++;
		cell->bytes += skb->len;
	}
	return deliver(skb, port, hop, &s, &p, word);
}
