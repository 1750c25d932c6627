/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Rules of a classifier, in their order, and why packets are dropped. The guard has
 * these maps too, as its own: they are filled from the same table.
 */
#pragma once
#include "tuple.h"

/* Why a packet went no further: numbers of chaining/path's Reason. */
enum reason {
	REASON_NONE,
	REASON_MALFORMED,
	REASON_VERSION,
	REASON_LENGTH,
	REASON_MD_TYPE,
	REASON_PROTOCOL,
	REASON_TTL,
	REASON_OAM,
	REASON_UNKNOWN_PATH,
	REASON_SI_UNDERFLOW,
	REASON_STATE,
	REASON_NO_PATH,
	REASON_TOO_BIG,
	REASON_FRAGMENT,
	REASON_INTEGRITY,
	REASON_LOOP,
	REASON_GUARD,
	/* Only the kernel's side has these. */
	REASON_NO_ROUTE, /* through the chain, but the node has no route */
	REASON_HELPER, /* a helper of the kernel refused */
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
	__u32 mark; /* what has been through a chain carries it, within mask */
	__u32 mask;
	__u32 rules[2]; /* of the first list, by generation */
	__u32 keep[2]; /* whether it may be remembered that a flow is of no chain: no rule looks at DSCP, which its packets may not have in common */
};

struct {
	UINT(type, MAP_ARRAY);
	UINT(max_entries, 1);
	TYPE(key, __u32);
	TYPE(value, struct node);
} node SEC(".maps");

#define MAX_RULES 1024 /* of all lists of one generation */

/* Flags of a rule: what it looks at, and what is done without a path. */
#define RULE_PROTO 1
#define RULE_DSCP 2
#define RULE_PORTS 4 /* at least one range is not that of all ports */
#define RULE_PASS 8 /* of no chain, whatever else stands here */
#define RULE_OPEN 16 /* passes when there is no path */

struct rule {
	__be32 src[4], src_mask[4];
	__be32 dst[4], dst_mask[4];
	__u16 sport_from, sport_to;
	__u16 dport_from, dport_to;
	__u32 ifindex; /* where it came in; 0: anywhere */
	__u32 slots; /* first of the class's slots */
	__u32 size; /* how many */
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

/* What became of a packet: numbers of chaining/path's Verdict. */
enum verdict {
	VERDICT_PASS = 1,
	VERDICT_PLAIN,
	VERDICT_GPE,
	VERDICT_ETHER,
	VERDICT_NODE,
	VERDICT_END,
	VERDICT_ANSWER,
	VERDICT_PUNT,
	VERDICT_DROP,
};

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
	__u32 from; /* first rule to look at */
	__u32 found; /* index + 1 */
	__u8 dscp;
	__u8 later; /* a later fragment: of no ports */
	__u8 unsure; /* and a rule depends on them */
};

static long try_rule(__u32 i, void *ctx)
{
	struct match *m = ctx;
	__u32 at = m->from + i;
	struct rule *r = bpf_map_lookup_elem(&rules, &at);

	if (!r)
		return 1;
	if (r->ifindex && r->ifindex != m->ifindex)
		return 0;
	if (r->flags & RULE_PROTO && r->proto != m->flow.proto)
		return 0;
	if (r->flags & RULE_DSCP && r->dscp != m->dscp)
		return 0;
#pragma unroll
	for (int w = 0; w < 4; w++) {
		if ((m->flow.src[w] & r->src_mask[w]) != r->src[w])
			return 0;
		if ((m->flow.dst[w] & r->dst_mask[w]) != r->dst[w])
			return 0;
	}
	if (r->flags & RULE_PORTS) {
		__u16 sport = NTOHS(m->flow.sport), dport = NTOHS(m->flow.dport);
		if (m->later) {
			m->unsure = 1;
			return 1;
		}
		if (sport < r->sport_from || sport > r->sport_to || dport < r->dport_from || dport > r->dport_to)
			return 0;
	}
	m->found = at + 1;
	return 1;
}
