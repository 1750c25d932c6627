/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Headers on the wire, and the addresses and checksums that go with them. */
#pragma once
#include "kernel.h"

#define ETH_LEN 14
#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_IPV6 0x86dd
#define ETHERTYPE_NSH 0x894f /* RFC 8300, section 5 */

#define PROTO_ICMP 1
#define PROTO_TCP 6
#define PROTO_UDP 17
#define PROTO_ICMPV6 58
#define PROTO_SCTP 132

#define GPE_PORT 4790
#define GPE_NP_NSH 4
#define GPE_FLAGS 0x0c /* I: the VNI is valid, P: next protocol present */

struct eth {
	__u8 dst[6];
	__u8 src[6];
	__be16 type;
} __attribute__((packed));

struct ipv4 {
	__u8 version_ihl;
	__u8 tos;
	__be16 len;
	__be16 id;
	__be16 frag; /* flags and offset */
	__u8 ttl;
	__u8 proto;
	__u16 check;
	__be32 src;
	__be32 dst;
} __attribute__((packed));

#define IPV4_DF 0x4000
#define IPV4_MF 0x2000
#define IPV4_OFFSET 0x1fff

struct ipv6 {
	__be32 flow; /* version, traffic class, flow label */
	__be16 len;
	__u8 next;
	__u8 hops;
	__be32 src[4];
	__be32 dst[4];
} __attribute__((packed));

struct udp {
	__be16 sport;
	__be16 dport;
	__be16 len;
	__u16 check;
} __attribute__((packed));

/*
 * VXLAN-GPE (draft-ietf-nvo3-vxlan-gpe, section 3):
 *   |R|R|Ver|I|P|B|O|       Reserved                |Next Protocol  |
 *   |                VXLAN Network Identifier       |   Reserved    |
 */
struct gpe {
	__u8 flags;
	__u8 reserved[2];
	__u8 next;
	__be32 vni;
} __attribute__((packed));

/*
 * NSH (RFC 8300, sections 2.2 to 2.4), with the fixed context of MD type 1:
 *   |Ver|O|U|    TTL    |   Length  |U|U|U|U|MD Type| Next Protocol |
 *   |          Service Path Identifier (SPI)        | Service Index |
 *   |                 4 words of context                            |
 */
struct nsh {
	__be16 base;
	__u8 md;
	__u8 next;
	__be32 path;
	__be32 context[4];
} __attribute__((packed));

#define NSH_BASE_LEN 8
#define NSH_MD1_LEN 24
#define NSH_NP_IPV4 1
#define NSH_NP_IPV6 2
#define NSH_NP_OAM 7 /* RFC 9516, section 10.1 */
#define NSH_O_BIT 0x2000
#define NSH_TTL_SHIFT 6

INLINE __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

INLINE __u32 sum16(const void *p, int words)
{
	const __u16 *w = p;
	__u32 sum = 0;
#pragma unroll
	for (int i = 0; i < words; i++)
		sum += w[i];
	return sum;
}
