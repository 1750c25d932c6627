/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Maps that the agent fills from the compiled table, and what the programs learn.
 * Their layout is part of the pinned state: a change of it needs a new layout
 * version in pin.go.
 */
#pragma once
#include "encap.h"
#include "rule.h"

/* Where flows of a class go: SPIs by Maglev's table. */
struct {
	UINT(type, MAP_ARRAY);
	UINT(max_entries, 2 * 65536);
	TYPE(key, __u32);
	TYPE(value, __u32);
} slots SEC(".maps");

/* Numbers of chaining/path's Kind, and one more. */
enum kind {
	KIND_PLAIN = 1,
	KIND_GPE,
	KIND_ETHER,
	KIND_NODE,
	KIND_END,
	KIND_BRANCH,
	KIND_BORDER = 8, /* needs a code that is made in userspace (RFC 9145) */
};

#define HOP_REMEMBER 1 /* the function's port finds the path by the flow */
#define HOP_MAC 2 /* the function's port finds the path in the source address */
#define HOP_LIVE 4 /* flows may start here: Table.Paths has the SPI */
#define HOP_CONTEXT 16 /* packets that have no header yet get one with metadata */
#define HOP_PEER 8 /* the port is one end of a veth whose other end is a function's, elsewhere */

struct hop {
	struct tunnel tunnel;
	__u32 kind;
	__u32 ifindex; /* 0 at the end: the kernel's route */
	__u32 func; /* function instance, of flow state */
	__u32 cell; /* of its counters */
	__u32 reverse; /* at the end: SPI that answers take; 0: nothing is learned */
	__be16 reverse_zone; /* where answers come in */
	__u16 path_mtu; /* HOP_LIVE: largest plain packet for all of the path */
	__u16 mtu; /* of the port: largest IP packet, in its tunnel or without */
	__u16 branch; /* first rule of the list, from the generation's first */
	__u16 branch_rules; /* how many */
	__u8 flags;
	__u8 pad;
	__u8 dmac[6]; /* 0: ask the kernel's neighbours */
	__u8 smac[6];
	__be32 context[4]; /* HOP_CONTEXT: of MD type 2, for a header that is put on here */
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
#define PORT_BORDER 64 /* headers there need a code that is checked in userspace (RFC 9145) */
#define PORT_CLASSIFY 1 /* traffic comes in here to be classified */
#define PORT_TUNNEL 2 /* VXLAN-GPE ends here */
#define PORT_ETHER 4 /* NSH on Ethernet comes in here */
#define PORT_FLOW 8 /* from a function that knows no NSH: path by flow, */
#define PORT_FIXED 16 /* by the port itself, */
#define PORT_MAC 32 /* or by source address */

struct port {
	__be32 addr6[4]; /* the node's on the port, ours of tunnels, and of answers */
	__be32 addr4;
	__u32 flags;
	__u32 func;
	__u32 path; /* PORT_FIXED: SPI << 8 | SI as sent to the function */
	__be16 zone;
	__u16 pad;
};

struct {
	UINT(type, MAP_HASH);
	UINT(max_entries, 1024);
	UINT(map_flags, BPF_F_NO_PREALLOC);
	TYPE(key, __u32);
	TYPE(value, struct port);
} ports_of SEC(".maps");

struct flow {
	__u32 spi; /* 0: of no chain */
	__u32 epoch; /* of the classification; one of no chain is made again in the next */
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
