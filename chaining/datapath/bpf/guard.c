// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
// The guard, on the way out of ports: what belongs to a chain and has not been
// through it is dropped. It shares no map, link or pin with the datapath, so that
// nothing which takes the datapath away takes the guard with it.
#include "rule.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/* What was found of a flow, so that traffic of no chain is not matched each time. */
struct judged {
	__u32 epoch;
	__u32 guarded;
};

struct {
	UINT(type, MAP_LRU_HASH);
	UINT(max_entries, 65536);
	TYPE(key, struct tuple);
	TYPE(value, struct judged);
} judgements SEC(".maps");

SEC("tcx/egress")
int guard(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct node *n = bpf_map_lookup_elem(&node, &zero);
	__u64 *word = bpf_map_lookup_elem(&active, &zero);
	struct packet p = {};

	if (!n || !word)
		return TC_ACT_SHOT;
	if (n->mask && (skb->mark & n->mask) == n->mark)
		return PASS;
	/* What the node itself sends never came in, so it is of no chain. */
	if (!skb->ingress_ifindex)
		return PASS;
	if (skb->protocol != HTONS(ETHERTYPE_IPV4) && skb->protocol != HTONS(ETHERTYPE_IPV6))
		return PASS;
	if (look(skb, ETH_LEN, skb->protocol == HTONS(ETHERTYPE_IPV6), &p))
		return drop(REASON_MALFORMED);
	__u32 epoch = *word >> 32;
	struct judged *known = bpf_map_lookup_elem(&judgements, &p.flow);
	if (known && known->epoch == epoch && !p.later)
		return known->guarded ? drop(REASON_GUARD) : PASS;
	struct match m = {
		.flow = p.flow,
		.ifindex = skb->ingress_ifindex,
		.from = (*word & 1) * MAX_RULES,
		.dscp = p.dscp,
		.later = p.later,
	};
	bpf_loop(n->rules[*word & 1], try_rule, &m, 0);
	struct judged j = { .epoch = epoch };
	if (m.unsure)
		return drop(REASON_FRAGMENT);
	if (m.found) {
		__u32 at = m.found - 1;
		struct rule *r = bpf_map_lookup_elem(&rules, &at);
		j.guarded = r && !(r->flags & (RULE_PASS | RULE_OPEN));
	}
	if (!p.later)
		bpf_map_update_elem(&judgements, &p.flow, &j, BPF_ANY);
	return j.guarded ? drop(REASON_GUARD) : PASS;
}
