/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Maps that the agent fills from the compiled table, and what the programs learn.
 * Their layout is part of the pinned state: a change of it needs a new layout
 * version in pin.go.
 */
#pragma once
#include "encap.h"
#include "rule.h"

/* Where flows of a class go: paths by Maglev's table, (SPI << 8 | SI). */
struct {
	UINT(type, MAP_ARRAY);
	UINT(max_entries, 2 * 65536);
	TYPE(key, __u32);
	TYPE(value, __u32);
} slots SEC(".maps");

enum kind {
	KIND_NONE,
	KIND_PLAIN, /* a function of this node that knows no NSH */
	KIND_GPE, /* a function that does, or another node: VXLAN-GPE */
	KIND_ETHER, /* a function that reads NSH from Ethernet */
	KIND_END, /* the last hop: the packet goes on as it came */
	KIND_CLOSED, /* nobody is there and nobody may be passed by */
};

#define HOP_REMEMBER 1 /* the function's port finds the path by the flow */
#define HOP_MAC 2 /* the function's port finds the path in the source address */
#define HOP_LEARN 4 /* at the end: answers go by path reverse */
#define HOP_CUT 8 /* the port cuts large packets itself: offload is off */

struct hop {
	struct tunnel tunnel;
	__u32 kind;
	__u32 ifindex;
	__u32 func; /* function instance, of flow state */
	__u32 cell; /* of its counters */
	__u32 reverse; /* path of answers, HOP_LEARN */
	__u16 mtu; /* largest IP packet that fits, headers of the chain already taken off; 0: unknown */
	__u8 dmac[6]; /* 0: ask the kernel's neighbours */
	__u8 smac[6];
	__u8 flags;
	__u8 pad;
};

struct hop_key {
	__u32 generation;
	__u32 path;
};

struct {
	UINT(type, MAP_HASH);
	UINT(max_entries, 16384);
	UINT(map_flags, BPF_F_NO_PREALLOC);
	TYPE(key, struct hop_key);
	TYPE(value, struct hop);
} hops SEC(".maps");

/* What a port is to us. */
#define PORT_CLASSIFY 1 /* traffic comes in here to be classified */
#define PORT_TUNNEL 2 /* VXLAN-GPE ends here */
#define PORT_ETHER 4 /* NSH on Ethernet comes in here */
#define PORT_FLOW 8 /* from a function that knows no NSH: path by flow, */
#define PORT_FIXED 16 /* by the port itself, */
#define PORT_MAC 32 /* or by source address */

struct port {
	__u32 flags;
	__u32 func;
	__u32 path; /* PORT_FIXED: as sent to the function */
	__be32 addr4; /* ours on the port: what is sent to it is for the node itself */
	__be32 addr6[4];
};

struct {
	UINT(type, MAP_HASH);
	UINT(max_entries, 1024);
	UINT(map_flags, BPF_F_NO_PREALLOC);
	TYPE(key, __u32);
	TYPE(value, struct port);
} ports_of SEC(".maps");

struct flow {
	__u32 path; /* 0: of no chain */
	__u32 epoch; /* of the classification; older ones are made again */
};

struct {
	UINT(type, MAP_LRU_HASH);
	UINT(max_entries, 131072);
	TYPE(key, struct tuple);
	TYPE(value, struct flow);
} flows SEC(".maps");

struct held_key {
	struct tuple flow;
	__u32 func;
};

struct {
	UINT(type, MAP_LRU_HASH);
	UINT(max_entries, 131072);
	TYPE(key, struct held_key);
	TYPE(value, __u32); /* path as sent to the function */
} held SEC(".maps");

struct cell {
	__u64 packets;
	__u64 bytes;
	__u64 drops;
};

struct {
	UINT(type, MAP_PERCPU_ARRAY);
	UINT(max_entries, 16384);
	TYPE(key, __u32);
	TYPE(value, struct cell);
} cells SEC(".maps");

INLINE int drop_at(const struct hop *hop, __u32 reason)
{
	struct cell *c = bpf_map_lookup_elem(&cells, &hop->cell);

	if (c)
		c->drops++;
	return drop(reason);
}
