// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
// Transparent redirection: connections of the processes of chosen control groups to
// addresses of the mesh are made to the node's proxy instead, which learns by the ordinary
// SO_ORIGINAL_DST where they were to go.
//
//   connect4/6     the address is one of the mesh's: remembered with the socket, rewritten
//   sock_ops       before the SYN: noted by the connection's addresses and ports ("pending");
//                  at the proxy, where the connection is there: moved to the accepted socket
//   getsockopt     the proxy asks
//   getpeername    the process asks, and hears what it asked for
//
// An address is 16 bytes, of IPv4 as ::ffff:a.b.c.d, whatever the socket's family.
#include "kernel.h"

char _license[] SEC("license") = "Dual BSD/GPL";

#define MAP_LPM_TRIE 11
#define MAP_SK_STORAGE 24
#define STORAGE_CREATE 1

#define TYPE_STREAM 1 /* SOCK_STREAM */
#define LEVEL_IP 0
#define LEVEL_IPV6 41
#define OPT_ORIGINAL_DST 80 /* of both levels */
#define MAPPED HTONL(0xffff)

struct bpf_sock {
	__u32 bound_dev_if, family, type, protocol, mark, priority, src_ip4, src_ip6[4];
	__u32 src_port;
	__be16 dst_port;
	__u16 : 16;
	__u32 dst_ip4, dst_ip6[4], state;
	__s32 rx_queue_mapping;
};

struct sock_addr {
	__u32 user_family;
	__u32 user_ip4;
	__u32 user_ip6[4];
	__u32 user_port; /* of the network's byte order */
	__u32 family;
	__u32 type;
	__u32 protocol;
	__u32 msg_src_ip4;
	__u32 msg_src_ip6[4];
	struct bpf_sock *sk;
};

/* A part of the kernel's, as far as it is used. */
struct sock_ops {
	__u32 op;
	__u32 args[4];
	/* Each is read by itself: the verifier knows only fixed offsets. */
	volatile __u32 family;
	volatile __u32 remote_ip4;
	volatile __u32 local_ip4;
	volatile __u32 remote_ip6[4];
	volatile __u32 local_ip6[4];
	__u32 remote_port; /* of the network's byte order, in 32 bits */
	__u32 local_port;  /* of the host's */
	__u32 is_fullsock;
	__u32 unused[23];
	__u64 bytes_received, bytes_acked;
	struct bpf_sock *sk;
};

#define OPS_CONNECT 3
#define OPS_PASSIVE 5
#define OPS_STATE 10
#define OPS_FLAG_STATE 4
#define STATE_CLOSE 7

struct sockopt {
	struct bpf_sock *sk;
	void *optval, *optval_end;
	__s32 level, optname;
	volatile __s32 optlen, retval; /* two stores of 32 bits: the verifier takes none of 64 */
};

struct sock_tuple {
	union {
		struct {
			__be32 saddr, daddr;
			__be16 sport, dport;
		} ipv4;
		struct {
			__be32 saddr[4], daddr[4];
			__be16 sport, dport;
		} ipv6;
	};
};

static __u64 (*bpf_get_current_uid_gid)(void) = (void *)15;
static long (*bpf_sock_ops_cb_flags_set)(struct sock_ops *ops, int flags) = (void *)59;
static struct bpf_sock *(*bpf_sk_lookup_tcp)(void *ctx, struct sock_tuple *tuple, __u32 size, __u64 netns, __u64 flags) = (void *)84;
static long (*bpf_sk_release)(struct bpf_sock *sk) = (void *)86;
static void *(*bpf_sk_storage_get)(void *map, struct bpf_sock *sk, void *value, __u64 flags) = (void *)107;
static long (*bpf_sk_storage_delete)(void *map, struct bpf_sock *sk) = (void *)108;
static __u64 (*bpf_get_netns_cookie)(void *ctx) = (void *)122;
static __u64 (*bpf_get_current_ancestor_cgroup_id)(int level) = (void *)123;

struct place {
	__be32 addr[4];
	__be16 port;
	__u16 zero;
};

/* A connection as the proxy sees it. */
struct pair {
	struct place client, proxy;
};

/* Keys of tries: the port, 0 for any, and the first bits of an address. */
struct prefix {
	__u32 bits; /* 32 more than those of the address */
	__be16 port;
	__u16 zero;
	__be32 addr[4];
};

#define PROXY_THERE 1  /* the proxy has an address of the family */
#define PROXY_LISTENS 2 /* as the agent last saw, for clients of other namespaces */

struct proxy {
	struct place at;
	__u32 flags;
};

struct settings {
	struct proxy proxy[2]; /* IPv4, IPv6 */
	__u64 netns;           /* the proxy's namespace, by its cookie */
	__u32 closed;          /* connections fail where the proxy does not listen */
	__u32 zero;
};

struct {
	UINT(type, MAP_ARRAY);
	UINT(max_entries, 1);
	TYPE(key, __u32);
	TYPE(value, struct settings);
} settings SEC(".maps");

#define TRIE(name)                            \
	struct {                              \
		UINT(type, MAP_LPM_TRIE);     \
		UINT(max_entries, 65536);     \
		UINT(map_flags, BPF_F_NO_PREALLOC); \
		TYPE(key, struct prefix);     \
		TYPE(value, __u8);            \
	} name SEC(".maps")

TRIE(wanted); /* what goes to the proxy */
TRIE(spared); /* what does not, all the same */

struct {
	UINT(type, MAP_HASH);
	UINT(max_entries, 1024);
	TYPE(key, __u32);
	TYPE(value, __u8);
} users SEC(".maps"); /* whose connections are spared */

struct {
	UINT(type, MAP_HASH);
	UINT(max_entries, 1024);
	TYPE(key, __u64);
	TYPE(value, __u8);
} groups SEC(".maps"); /* whose connections are spared, by id */

struct {
	UINT(type, MAP_SK_STORAGE);
	UINT(map_flags, BPF_F_NO_PREALLOC);
	TYPE(key, int);
	TYPE(value, struct place);
} asked SEC(".maps"); /* of a client's socket: where it was to go */

struct {
	UINT(type, MAP_SK_STORAGE);
	UINT(map_flags, BPF_F_NO_PREALLOC);
	TYPE(key, int);
	TYPE(value, struct place);
} accepted SEC(".maps"); /* of a proxy's socket: where the client was to go */

struct {
	UINT(type, MAP_LRU_HASH);
	UINT(max_entries, 65536);
	TYPE(key, struct pair);
	TYPE(value, struct place);
} pending SEC(".maps"); /* between SYN and accept */

#define COUNT_REDIRECTED 0
#define COUNT_SPARED 1
#define COUNT_OPENED 2 /* went straight because the proxy does not listen */
#define COUNT_FAILED 3 /* could not be remembered */
#define COUNTS 4

struct {
	UINT(type, MAP_PERCPU_ARRAY);
	UINT(max_entries, COUNTS);
	TYPE(key, __u32);
	TYPE(value, __u64);
} counts SEC(".maps");

INLINE void count(__u32 what)
{
	__u64 *n = bpf_map_lookup_elem(&counts, &what);

	if (n)
		(*n)++;
}

/* matches: whether a trie has the address, with its port or with any. */
INLINE int matches(void *trie, const struct place *to)
{
	struct prefix key = { .bits = 160, .port = to->port };

	key.addr[0] = to->addr[0];
	key.addr[1] = to->addr[1];
	key.addr[2] = to->addr[2];
	key.addr[3] = to->addr[3];
	if (bpf_map_lookup_elem(trie, &key))
		return 1;
	key.port = 0;
	return !!bpf_map_lookup_elem(trie, &key);
}

/* exempt: whether the process is one of those whose connections go straight. */
INLINE int exempt(void)
{
	__u32 user = bpf_get_current_uid_gid();

	if (bpf_map_lookup_elem(&users, &user))
		return 1;
#pragma unroll
	for (int level = 1; level <= 12; level++) {
		__u64 id = bpf_get_current_ancestor_cgroup_id(level);

		if (!id)
			break;
		if (bpf_map_lookup_elem(&groups, &id))
			return 1;
	}
	return 0;
}

/* listens: whether somebody takes connections for the proxy. */
INLINE int listens(struct sock_addr *ctx, const struct settings *s, const struct proxy *p, int six)
{
	struct sock_tuple t = {};
	struct bpf_sock *sk;
	__u32 size = sizeof(t.ipv4);

	if (bpf_get_netns_cookie(ctx) != s->netns)
		return p->flags & PROXY_LISTENS;
	if (six) {
		t.ipv6.daddr[0] = p->at.addr[0];
		t.ipv6.daddr[1] = p->at.addr[1];
		t.ipv6.daddr[2] = p->at.addr[2];
		t.ipv6.daddr[3] = p->at.addr[3];
		t.ipv6.dport = p->at.port;
		sk = bpf_sk_lookup_tcp(ctx, &t, sizeof(t.ipv6), -1, 0);
	} else {
		t.ipv4.daddr = p->at.addr[3];
		t.ipv4.dport = p->at.port;
		sk = bpf_sk_lookup_tcp(ctx, &t, sizeof(t.ipv4), -1, 0);
	}
	if (!sk)
		return 0;
	bpf_sk_release(sk);
	return 1;
}

/* turn: the proxy to which a connection is to go instead, NULL for none. */
INLINE const struct proxy *turn(struct sock_addr *ctx, const struct place *to, int six)
{
	__u32 zero = 0;
	struct settings *s = bpf_map_lookup_elem(&settings, &zero);
	struct proxy *p;
	struct place *noted;

	bpf_sk_storage_delete(&asked, ctx->sk); /* of an attempt before this one */
	if (!s || !matches(&wanted, to))
		return NULL;
	p = six ? &s->proxy[1] : &s->proxy[0];
	if (!(p->flags & PROXY_THERE))
		return NULL;
	if (matches(&spared, to) || exempt()) {
		count(COUNT_SPARED);
		return NULL;
	}
	if (!s->closed && !listens(ctx, s, p, six)) {
		count(COUNT_OPENED);
		return NULL;
	}
	noted = bpf_sk_storage_get(&asked, ctx->sk, NULL, STORAGE_CREATE);
	if (!noted) {
		count(COUNT_FAILED);
		return NULL;
	}
	*noted = *to;
	count(COUNT_REDIRECTED);
	return p;
}

SEC("cgroup/connect4")
int connect4(struct sock_addr *ctx)
{
	struct place to = {};
	const struct proxy *p;

	if (ctx->type != TYPE_STREAM)
		return 1;
	to.addr[2] = MAPPED;
	to.addr[3] = ctx->user_ip4;
	to.port = ctx->user_port;
	p = turn(ctx, &to, 0);
	if (p) {
		ctx->user_ip4 = p->at.addr[3];
		ctx->user_port = p->at.port;
	}
	return 1;
}

SEC("cgroup/connect6")
int connect6(struct sock_addr *ctx)
{
	struct place to = {};
	const struct proxy *p;
	int six;

	if (ctx->type != TYPE_STREAM)
		return 1;
	to.addr[0] = ctx->user_ip6[0];
	to.addr[1] = ctx->user_ip6[1];
	to.addr[2] = ctx->user_ip6[2];
	to.addr[3] = ctx->user_ip6[3];
	to.port = ctx->user_port;
	six = to.addr[0] || to.addr[1] || to.addr[2] != MAPPED;
	p = turn(ctx, &to, six);
	if (p) {
		ctx->user_ip6[0] = p->at.addr[0];
		ctx->user_ip6[1] = p->at.addr[1];
		ctx->user_ip6[2] = p->at.addr[2];
		ctx->user_ip6[3] = p->at.addr[3];
		ctx->user_port = p->at.port;
	}
	return 1;
}

SEC("cgroup/getpeername4")
int getpeername4(struct sock_addr *ctx)
{
	struct place *to = bpf_sk_storage_get(&asked, ctx->sk, NULL, 0);

	if (to) {
		ctx->user_ip4 = to->addr[3];
		ctx->user_port = to->port;
	}
	return 1;
}

SEC("cgroup/getpeername6")
int getpeername6(struct sock_addr *ctx)
{
	struct place *to = bpf_sk_storage_get(&asked, ctx->sk, NULL, 0);

	if (to) {
		ctx->user_ip6[0] = to->addr[0];
		ctx->user_ip6[1] = to->addr[1];
		ctx->user_ip6[2] = to->addr[2];
		ctx->user_ip6[3] = to->addr[3];
		ctx->user_port = to->port;
	}
	return 1;
}

/* ends: both ends of a connection. */
INLINE void ends(struct sock_ops *ops, struct place *local, struct place *remote)
{
	__u32 l4 = ops->local_ip4, r4 = ops->remote_ip4, port = ops->remote_port;
	__u32 l[4] = { ops->local_ip6[0], ops->local_ip6[1], ops->local_ip6[2], ops->local_ip6[3] };
	__u32 r[4] = { ops->remote_ip6[0], ops->remote_ip6[1], ops->remote_ip6[2], ops->remote_ip6[3] };
	int four = ops->family == AF_INET;

	local->addr[0] = four ? 0 : l[0];
	local->addr[1] = four ? 0 : l[1];
	local->addr[2] = four ? MAPPED : l[2];
	local->addr[3] = four ? l4 : l[3];
	local->port = HTONS(ops->local_port);
	remote->addr[0] = four ? 0 : r[0];
	remote->addr[1] = four ? 0 : r[1];
	remote->addr[2] = four ? MAPPED : r[2];
	remote->addr[3] = four ? r4 : r[3];
	remote->port = port >> 16 ? port >> 16 : port;
}

SEC("sockops")
int handover(struct sock_ops *ops)
{
	struct place local = {}, remote = {}, *to;
	struct pair c;
	struct bpf_sock *sk = ops->sk;

	if (!sk || (ops->op != OPS_CONNECT && ops->op != OPS_STATE && ops->op != OPS_PASSIVE))
		return 1;
	ends(ops, &local, &remote);
	c.client = local;
	c.proxy = remote;
	switch (ops->op) {
	case OPS_CONNECT:
		to = bpf_sk_storage_get(&asked, sk, NULL, 0);
		if (!to)
			return 1;
		bpf_map_update_elem(&pending, &c, to, BPF_ANY);
		bpf_sock_ops_cb_flags_set(ops, OPS_FLAG_STATE);
		return 1;
	case OPS_STATE:
		/* An attempt that came to nothing; else the accepted socket has it by now. */
		if (ops->args[1] != STATE_CLOSE)
			return 1;
		bpf_map_delete_elem(&pending, &c);
		return 1;
	case OPS_PASSIVE:
		c.client = remote;
		c.proxy = local;
		to = bpf_map_lookup_elem(&pending, &c);
		if (!to)
			return 1;
		if (!bpf_sk_storage_get(&accepted, sk, to, STORAGE_CREATE))
			count(COUNT_FAILED);
		bpf_map_delete_elem(&pending, &c);
	}
	return 1;
}

struct sockaddr4 {
	__u16 family;
	__be16 port;
	__be32 addr;
	__u8 zero[8];
};

struct sockaddr6 {
	__u16 family;
	__be16 port;
	__be32 flow;
	__be32 addr[4];
	__u32 scope;
};

/* original: SO_ORIGINAL_DST, as a connection has it that netfilter has redirected. */
SEC("cgroup/getsockopt")
int original(struct sockopt *ctx)
{
	struct place *to;

	if (ctx->optname != OPT_ORIGINAL_DST || (ctx->level != LEVEL_IP && ctx->level != LEVEL_IPV6))
		return 1;
	if (!ctx->sk)
		return 1;
	to = bpf_sk_storage_get(&accepted, ctx->sk, NULL, 0);
	if (!to)
		return 1; /* the kernel's own answer */
	if (ctx->level == LEVEL_IP) {
		struct sockaddr4 *a = ctx->optval;

		if ((void *)(a + 1) > ctx->optval_end)
			return 1;
		a->family = AF_INET;
		a->port = to->port;
		a->addr = to->addr[3];
		ctx->optlen = sizeof(*a);
	} else {
		struct sockaddr6 *a = ctx->optval;

		if ((void *)(a + 1) > ctx->optval_end)
			return 1;
		a->family = AF_INET6;
		a->port = to->port;
		a->flow = 0;
		a->addr[0] = to->addr[0];
		a->addr[1] = to->addr[1];
		a->addr[2] = to->addr[2];
		a->addr[3] = to->addr[3];
		a->scope = 0;
		ctx->optlen = sizeof(*a);
	}
	ctx->retval = 0;
	return 1;
}
