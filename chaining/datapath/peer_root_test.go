//go:build root

package datapath

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/internal/nstest"
)

// TestRootPeer: frames go straight to the other end of a veth only where that is in another
// namespace, and nothing has to be done to them on the way.
func TestRootPeer(t *testing.T) {
	node, function := nstest.New(t, "n"), nstest.New(t, "f")
	nstest.Veth(node, "f1", function, "eth0")
	node.IP("link add v0 type veth peer name v1")
	is := func(name string, want bool) {
		t.Helper()
		ifc := interfaceOf(t, node, name)
		if err := node.Do(func() error {
			got, err := toPeer(ifc.Index, name)
			if err == nil && got != want {
				t.Errorf("%s: %v, want %v", name, got, want)
			}
			return err
		}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	is("f1", true)
	is("v0", false) // its other end is here
	is("lo", false)
	for _, on := range []bool{false, true} {
		if err := node.Do(func() error { return SetOffload("f1", on) }); err != nil {
			t.Fatal(err)
		}
		is("f1", on) // a process behind it reads packets as they would be on a wire
	}
	node.IP("link add v2 type veth peer name v3")
	node.IP("link set v3 netns " + function.Name)
	is("v2", true)
}

// TestRootPeerDelivers: what goes to a function through the veth is not sent by the node's
// end, and comes in at the function's; where offload is off it is sent.
func TestRootPeerDelivers(t *testing.T) {
	w := newWorld(t, 1, 1600)
	direct, sent := w.function(0), w.function(0)
	if err := w.nodes[0].Do(func() error { return SetOffload("f2l", false) }); err != nil {
		t.Fatal(err)
	}
	w.chain(10, direct, sent)
	w.apply(Config{})
	count := func(name string) int {
		t.Helper()
		var links []struct {
			Stats64 struct{ Tx struct{ Packets int } }
		}
		text := w.nodes[0].IP("-s -j link show dev " + name)
		if err := json.Unmarshal([]byte(text), &links); err != nil || len(links) != 1 {
			t.Fatalf("%v in %s", err, text)
		}
		return links[0].Stats64.Tx.Packets
	}
	one, two := count("f1l"), count("f2l")
	stream := nstest.StartStream(t, w.client, w.server, serverAddr+":0", time.Millisecond)
	for end := time.Now().Add(20 * time.Second); stream.Answered() < 500; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d answers", stream.Answered())
		}
	}
	if n, lost, _ := stream.Stop(); lost > 0 {
		t.Errorf("%d of %d lost", lost, n)
	}
	one, two = count("f1l")-one, count("f2l")-two
	if one > 100 || two < 500 {
		t.Errorf("the node sent %d packets to the first function and %d to the second", one, two)
	}
}
