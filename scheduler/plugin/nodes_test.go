package plugin

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	fwk "k8s.io/kube-scheduler/framework"
)

// Nodes are looked at again when they changed, in whatever way, and not before.
func TestNodesThatChange(t *testing.T) {
	p := start(t, matrix, delays)
	a1, b1, c1 := node("a1", "a", "cart"), node("b1", "b"), node("c1", "c")
	near := func(what, want string, nodes ...*fakeNode) {
		t.Helper()
		points, _ := cycle(t, p, &fakeCycle{}, pod("web"), nodes...)
		for n, x := range points {
			if (x == 100) != (n == want) {
				t.Errorf("%s: points %v, want the most on %q", what, points, want)
			}
		}
		if (points == nil) != (want == "") {
			t.Errorf("%s: points %v, want the most on %q", what, points, want)
		}
	}
	near("at first", "a1", a1, b1, c1)
	a1.pods = nil // without another generation, which the scheduler never does
	near("nothing changed that is counted", "a1", a1, b1, c1)
	a1.generation = generations.Add(1)
	near("the peer ended", "", a1, b1, c1)
	c1.pods, c1.generation = []fwk.PodInfo{&fakePod{pod: pod("cart")}}, generations.Add(1)
	near("the peer came back elsewhere", "c1", a1, b1, c1)
	near("in another order", "c1", c1, b1, a1)
	gone := pod("cart")
	gone.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	c1.pods, c1.generation = []fwk.PodInfo{&fakePod{pod: gone}}, generations.Add(1)
	b1.pods, b1.generation = []fwk.PodInfo{&fakePod{pod: pod("cart")}}, generations.Add(1)
	near("the peer is about to end on one of two", "b1", c1, b1, a1)
	near("a node less", "b1", b1, a1)
	if n := len(p.nodes.running); n != 2 {
		t.Errorf("%d nodes are kept, two are there", n)
	}
	// The node moves to the site of the other: no other object changes.
	other := *b1
	other.node = node("b1", "a").node
	other.generation = generations.Add(1)
	c2 := node("c2", "b")
	points, _ := cycle(t, p, &fakeCycle{}, pod("web"), &other, a1, c2)
	if points["a1"] <= points["c2"] {
		t.Errorf("b1 moved to a1's site, away from c2's: points %v", points)
	}
}
