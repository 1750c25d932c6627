/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Rules of a classifier, in their order, and why packets are dropped. The guard has
 * these maps too, as its own: they are filled from the same table.
 */
#pragma once
#include "tuple.h"

/* Why a packet went no further. The agent names them (reason.go). */
enum reason {
	REASON_NONE,
	REASON_MALFORMED, /* headers that cannot be read */
	REASON_VERSION, /* NSH version is not 0 */
	REASON_MD_TYPE, /* MD type 0, or one nobody knows */
	REASON_TTL, /* ran out */
	REASON_INDEX, /* service index 0: nothing may follow */
	REASON_NO_PATH, /* (SPI, SI) is not in the table */
	REASON_NEXT_PROTOCOL, /* NSH carries what is no IP packet */
	REASON_UNKNOWN_FLOW, /* from a function, and nobody knows of which path */
	REASON_TOO_BIG, /* does not fit and may not be cut, or nobody cuts it */
	REASON_NO_ROUTE, /* through the chain, but the node has no route */
	REASON_CLOSED, /* a function without instances that may not be passed by */
	REASON_FRAGMENT, /* a later fragment whose first was not seen */
	REASON_KERNEL, /* a helper refused */
	REASON_UNCLASSIFIED, /* the guard: belongs to a chain, has not been through it */
	REASONS,
};

/* The table in force, one 8-byte word: generation in the low half (0 or 1). */
struct {
	UINT(type, MAP_ARRAY);
	UINT(max_entries, 1);
	TYPE(key, __u32);
	TYPE(value, __u64);
} active SEC(".maps");

struct node {
	__be32 addr6[4]; /* of answers to packets that are too big */
	__be32 addr4;
	__u32 mark; /* what has been through a chain carries it, within mask */
	__u32 mask;
	__u32 rules[2]; /* by generation */
};

struct {
	UINT(type, MAP_ARRAY);
	UINT(max_entries, 1);
	TYPE(key, __u32);
	TYPE(value, struct node);
} node SEC(".maps");

#define MAX_RULES 512

/* Flags of a rule: what it looks at. */
#define RULE_V4 1
#define RULE_V6 2
#define RULE_PROTO 4
#define RULE_DSCP 8
#define RULE_SPORT 16
#define RULE_DPORT 32

struct rule {
	__be32 src[4], src_mask[4];
	__be32 dst[4], dst_mask[4];
	__u16 sport_from, sport_to;
	__u16 dport_from, dport_to;
	__u32 ifindex; /* where it came in; 0: anywhere */
	__u32 slots; /* first of the class's slots */
	__u32 size; /* how many; 0: no chain */
	__u8 flags, proto, dscp, pad;
};

struct {
	UINT(type, MAP_ARRAY);
	UINT(max_entries, 2 * MAX_RULES);
	TYPE(key, __u32);
	TYPE(value, struct rule);
} rules SEC(".maps");

struct {
	UINT(type, MAP_PERCPU_ARRAY);
	UINT(max_entries, REASONS);
	TYPE(key, __u32);
	TYPE(value, __u64);
} drops SEC(".maps");

INLINE int drop(__u32 reason)
{
	__u64 *n = bpf_map_lookup_elem(&drops, &reason);

	if (n)
		*n += 1;
	return TC_ACT_SHOT;
}


struct match {
	struct tuple flow;
	__u32 ifindex;
	__u32 next; /* rule to look at */
	__u32 found; /* index + 1 */
	__u8 dscp;
	__u8 portless; /* a later fragment: ports may be what a rule asks for */
};

INLINE int covers(const struct rule *r, const struct match *m)
{
	if (r->ifindex && r->ifindex != m->ifindex)
		return 0;
	if (r->flags & RULE_V4 && m->flow.v6)
		return 0;
	if (r->flags & RULE_V6 && !m->flow.v6)
		return 0;
	if (r->flags & RULE_PROTO && r->proto != m->flow.proto)
		return 0;
	if (r->flags & RULE_DSCP && r->dscp != m->dscp)
		return 0;
	if (r->flags & RULE_SPORT && !m->portless) {
		__u16 port = NTOHS(m->flow.sport);
		if (port < r->sport_from || port > r->sport_to)
			return 0;
	}
	if (r->flags & RULE_DPORT && !m->portless) {
		__u16 port = NTOHS(m->flow.dport);
		if (port < r->dport_from || port > r->dport_to)
			return 0;
	}
#pragma unroll
	for (int i = 0; i < 4; i++) {
		if ((m->flow.src[i] & r->src_mask[i]) != r->src[i])
			return 0;
		if ((m->flow.dst[i] & r->dst_mask[i]) != r->dst[i])
			return 0;
	}
	return 1;
}

static long try_rule(__u32 i, void *ctx)
{
	struct match *m = ctx;
	__u32 at = m->next + i;
	struct rule *r = bpf_map_lookup_elem(&rules, &at);

	if (!r)
		return 1;
	if (!covers(r, m))
		return 0;
	m->found = at + 1;
	return 1;
}
