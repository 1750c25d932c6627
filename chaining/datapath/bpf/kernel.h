/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What these programs use of the kernel's interface: the packet context, the
 * map kinds, helper numbers and flags (include/uapi/linux/bpf.h). Written out
 * here because the headers of a distribution may be older than the kernel that
 * the programs meet, and so that a build needs clang and nothing else.
 */
#pragma once

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef int __s32;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define NULL ((void *)0)
#define offsetof(t, m) __builtin_offsetof(t, m)
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* Map definitions as BTF: loaders read the types of these members. */
#define UINT(name, value) int(*name)[value]
#define TYPE(name, type) type *name

#define MAP_HASH 1
#define MAP_ARRAY 2
#define MAP_PERCPU_HASH 5
#define MAP_PERCPU_ARRAY 6
#define MAP_LRU_HASH 9
#define BPF_ANY 0
#define BPF_NOEXIST 1
#define BPF_F_NO_PREALLOC 1

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "compiled for little-endian targets only"
#endif
#define HTONS(x) ((__be16)__builtin_bswap16(x))
#define NTOHS(x) __builtin_bswap16(x)
#define HTONL(x) ((__be32)__builtin_bswap32(x))
#define NTOHL(x) __builtin_bswap32(x)

/* The packet as a TC program sees it. */
struct __sk_buff {
	__u32 len;
	__u32 pkt_type;
	__u32 mark;
	__u32 queue_mapping;
	__u32 protocol;
	__u32 vlan_present;
	__u32 vlan_tci;
	__u32 vlan_proto;
	__u32 priority;
	__u32 ingress_ifindex;
	__u32 ifindex;
	__u32 tc_index;
	__u32 cb[5];
	__u32 hash;
	__u32 tc_classid;
	__u32 data;
	__u32 data_end;
	__u32 napi_id;
	__u32 family;
	__u32 remote_ip4;
	__u32 local_ip4;
	__u32 remote_ip6[4];
	__u32 local_ip6[4];
	__u32 remote_port;
	__u32 local_port;
	__u32 data_meta;
	__u64 flow_keys;
	__u64 tstamp;
	__u32 wire_len;
	__u32 gso_segs;
	__u64 sk;
	__u32 gso_size;
	__u8 tstamp_type;
	__u8 pad[3];
	__u64 hwtstamp;
};

#define TC_ACT_OK 0
#define TC_ACT_SHOT 2
#define TC_ACT_REDIRECT 7

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static __u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static long (*bpf_skb_store_bytes)(struct __sk_buff *skb, __u32 off, const void *from, __u32 len, __u64 flags) = (void *)9;
static long (*bpf_skb_vlan_push)(struct __sk_buff *skb, __be16 proto, __u16 tci) = (void *)18;
static long (*bpf_skb_vlan_pop)(struct __sk_buff *skb) = (void *)19;
static long (*bpf_redirect)(__u32 ifindex, __u64 flags) = (void *)23;
static long (*bpf_skb_load_bytes)(const struct __sk_buff *skb, __u32 off, void *to, __u32 len) = (void *)26;
static long (*bpf_skb_change_tail)(struct __sk_buff *skb, __u32 len, __u64 flags) = (void *)38;
static long (*bpf_skb_pull_data)(struct __sk_buff *skb, __u32 len) = (void *)39;
static long (*bpf_skb_change_head)(struct __sk_buff *skb, __u32 len, __u64 flags) = (void *)43;
static long (*bpf_skb_adjust_room)(struct __sk_buff *skb, __s32 diff, __u32 mode, __u64 flags) = (void *)50;

#define ADJ_ROOM_NET 0
#define ADJ_ROOM_MAC 1
#define ADJ_ROOM_FIXED_GSO (1ULL << 0)
#define ADJ_ROOM_ENCAP_L3_IPV4 (1ULL << 1)
#define ADJ_ROOM_ENCAP_L3_IPV6 (1ULL << 2)
#define ADJ_ROOM_ENCAP_L4_UDP (1ULL << 4)
#define ADJ_ROOM_ENCAP_L2(len) (((__u64)(len) & 0xff) << 56)
#define ADJ_ROOM_DECAP_L3_IPV4 (1ULL << 7)
#define ADJ_ROOM_DECAP_L3_IPV6 (1ULL << 8)

/* Errors that helpers give back. */
#define ERR_ALREADY (-114)
#define ERR_NOTSUPP (-524)

struct fib_lookup {
	__u8 family;
	__u8 l4_protocol;
	__be16 sport;
	__be16 dport;
	__u16 tot_len; /* in: 0 leaves the check to the kernel, which knows GSO; out: mtu */
	__u32 ifindex; /* in: where the packet came in; out: where it goes out */
	__u32 tos_flowinfo;
	__be32 src[4];
	__be32 dst[4];
	__be16 h_vlan_proto;
	__be16 h_vlan_tci;
	__u8 smac[6];
	__u8 dmac[6];
};

#define FIB_SUCCESS 0
#define FIB_BLACKHOLE 1
#define FIB_UNREACHABLE 2
#define FIB_PROHIBIT 3
#define FIB_NOT_FWDED 4 /* to this host itself */
#define FIB_FWD_DISABLED 5
#define FIB_UNSUPP_LWT 6
#define FIB_NO_NEIGH 7
#define FIB_FRAG_NEEDED 8

static long (*bpf_fib_lookup)(void *ctx, struct fib_lookup *params, int size, __u32 flags) = (void *)69;

struct redir_neigh {
	__u32 nh_family;
	__be32 addr[4];
};

static long (*bpf_redirect_neigh)(__u32 ifindex, struct redir_neigh *params, int size, __u64 flags) = (void *)152;

static long (*bpf_redirect_peer)(__u32 ifindex, __u64 flags) = (void *)155;

#define AF_INET 2
#define AF_INET6 10

static long (*bpf_loop)(__u32 n, void *callback, void *ctx, __u64 flags) = (void *)181;

/* Next program on the same hook, or the stack: TCX_NEXT, and TC_ACT_UNSPEC to clsact. */
#define PASS (-1)
