#!/usr/bin/env bash
# A node that carries a chain, on this machine: network namespaces for the node, a client,
# a server, an operator, and three functions, which run there. Needs root, iproute2, and
# the programs in bin.
#   examples/chain-node.sh up          makes all of it and starts the functions
#   examples/chain-node.sh chain FILE  has a chain agent serve the documents of FILE there
#   examples/chain-node.sh down        ends what runs there and removes it
# What runs there writes to /run/chain-node; its agent answers at agent.sock in it.
set -euo pipefail

functions=(firewall tagger nat44)
names=(client server operator node "${functions[@]}")
state=/run/chain-node

usage() {
	sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0" >&2
	exit 2
}

down() {
	local name
	for name in "${names[@]}"; do
		ip netns pids "chain-$name" 2>/dev/null | xargs -r kill || true
	done
	for name in "${names[@]}"; do
		ip netns del "chain-$name" 2>/dev/null || true
	done
	rm -rf "$state"
}

# cable NAMESPACE PORT NODE-ADDRESS ADDRESS MTU [MAC] joins a namespace's eth0 to a port of
# the node, which is its router.
cable() {
	ip -n chain-node link add "$2" type veth peer name eth0 ${6:+address "$6"} netns "chain-$1"
	ip -n chain-node addr add "$3" dev "$2"
	ip -n chain-node link set "$2" mtu "$5" up
	ip -n "chain-$1" addr add "$4" dev eth0
	ip -n "chain-$1" link set eth0 mtu "$5" up
	ip -n "chain-$1" route add default via "${3%/*}"
}

# run NAME ADDRESS FLAG... starts a function in its namespace.
run() {
	ip netns exec "chain-$1" bin/meridian function "$1" --listen "$2" --drain 0s "${@:3}" >"$state/$1.log" 2>&1 </dev/null &
}

up() {
	if ip netns pids chain-node >/dev/null 2>&1; then
		echo "$0: it is there already: $0 down removes it" >&2
		exit 1
	fi
	trap down ERR
	mkdir -p "$state"
	local name i=0
	for name in "${names[@]}"; do
		ip netns add "chain-$name"
		ip -n "chain-$name" link set lo up
	done
	ip netns exec chain-node sysctl -q net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
	cable client users 10.1.0.1/24 10.1.0.2/24 1500
	cable server servers 10.2.0.1/24 10.2.0.2/24 1500
	cable operator underlay 192.0.2.1/24 192.0.2.2/24 1600
	# Packets to functions carry 60 bytes more.
	for name in "${functions[@]}"; do
		i=$((i + 1))
		cable "$name" "$name" "10.9.$i.1/30" "10.9.$i.2/30" 1600 "02:00:00:09:0$i:02"
	done
	run firewall 10.9.1.2 --rule allow:tcp --rule allow:icmp
	run tagger 10.9.2.2
	run nat44 10.9.3.2 --public 10.3.0.9
}

chain() {
	ip netns exec chain-node bin/chainagent --config "$1" --node edge --admin "unix:$state/agent.sock" >"$state/agent.log" 2>&1 </dev/null &
	local agent=$! i list
	for i in {1..100}; do
		if list=$(bin/meridian chain list --agent "unix:$state/agent.sock" 2>&1) && ! grep -q 'not ready' <<<"$list"; then
			echo "$list"
			return
		fi
		kill -0 "$agent" 2>/dev/null || break
		sleep 0.1
	done
	cat "$state/agent.log" >&2
	exit 1
}

case "${1:-} $#" in
"up 1") up ;;
"chain 2") chain "$2" ;;
"down 1") down ;;
*) usage ;;
esac
