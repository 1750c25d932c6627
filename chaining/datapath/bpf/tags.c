// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
// What a proxy may learn of the chain by which a connection came, and say of the one by
// which another is to go: programs of a spike, see tags_root_test.go.
#include "kernel.h"

char _license[] SEC("license") = "Dual BSD/GPL";

#define TC_PROTO_TCP 6
#define ETH_IPV4 0x0800
/* Option of level SOL_IP that no kernel has: the path of the socket. */
#define OPT_PATH 0x4d45
#define SOL_SOCKET 1
#define SO_MARK 36

/* A connection as the socket at this end sees it. */
struct conn {
	__be32 local, remote;
	__u16 local_port, remote_port; /* of the host's byte order */
};

struct {
	UINT(type, MAP_LRU_HASH);
	UINT(max_entries, 1024);
	TYPE(key, struct conn);
	TYPE(value, __u32);
} paths SEC(".maps");

/* 0: the path that packets come by; 1: the mark of the last that left with one. */
struct {
	UINT(type, MAP_ARRAY);
	UINT(max_entries, 2);
	TYPE(key, __u32);
	TYPE(value, __u32);
} cells SEC(".maps");

struct headers {
	__u8 eth[14];
	__u8 version, tos;
	__be16 len, id, frag;
	__u8 ttl, proto;
	__be16 sum;
	__be32 src, dst;
	__be16 sport, dport;
} __attribute__((packed));

/* came: the end of a path at the node where the proxy is. */
SEC("tcx/ingress")
int came(struct __sk_buff *skb)
{
	__u32 zero = 0;
	__u32 *path = bpf_map_lookup_elem(&cells, &zero);
	struct headers *h = (void *)(long)skb->data;
	struct conn c = {};

	if (!path || !*path || (void *)(h + 1) > (void *)(long)skb->data_end)
		return PASS;
	if (skb->protocol != HTONS(ETH_IPV4) || h->version != 0x45 || h->proto != TC_PROTO_TCP)
		return PASS;
	c.local = h->dst;
	c.remote = h->src;
	c.local_port = NTOHS(h->dport);
	c.remote_port = NTOHS(h->sport);
	bpf_map_update_elem(&paths, &c, path, BPF_ANY);
	skb->mark = *path;
	return PASS;
}

/* left: what a classifier sees of a packet that a socket sends. */
SEC("tcx/egress")
int left(struct __sk_buff *skb)
{
	__u32 one = 1;
	__u32 mark = skb->mark;

	if (mark)
		bpf_map_update_elem(&cells, &one, &mark, BPF_ANY);
	return PASS;
}

struct bpf_sock {
	__u32 bound_dev_if, family, type, protocol, mark, priority, src_ip4, src_ip6[4];
	__u32 src_port;
	__be16 dst_port;
	__u16 : 16;
	__u32 dst_ip4, dst_ip6[4], state;
	__s32 rx_queue_mapping;
};

struct sockopt {
	struct bpf_sock *sk;
	void *optval, *optval_end;
	__s32 level, optname;
	/* Two stores of 32 bits: the verifier takes none of 64. */
	volatile __s32 optlen, retval;
};

static long (*bpf_setsockopt)(void *sk, int level, int name, void *val, int len) = (void *)49;

/* asked: getsockopt says by which path the socket's connection came. */
SEC("cgroup/getsockopt")
int asked(struct sockopt *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	__u32 *out = ctx->optval, *path;
	struct conn c = {};

	if (ctx->level || ctx->optname != OPT_PATH)
		return 1;
	if (!sk || (void *)(out + 1) > ctx->optval_end)
		return 0;
	c.local = sk->src_ip4;
	c.remote = sk->dst_ip4;
	c.local_port = sk->src_port;
	c.remote_port = NTOHS(sk->dst_port);
	path = bpf_map_lookup_elem(&paths, &c);
	if (!path)
		return 1; /* the kernel's own answer: there is no such option */
	*out = *path;
	ctx->optlen = sizeof(*out);
	ctx->retval = 0;
	return 1;
}

/* told: setsockopt says by which path what the socket sends is to go. */
SEC("cgroup/setsockopt")
int told(struct sockopt *ctx)
{
	__u32 *in = ctx->optval, mark;

	if (ctx->level || ctx->optname != OPT_PATH)
		return 1;
	if (!ctx->sk || (void *)(in + 1) > ctx->optval_end)
		return 0;
	mark = *in;
	if (bpf_setsockopt(ctx->sk, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)))
		return 0;
	ctx->optlen = -1; /* the kernel is not asked */
	return 1;
}
