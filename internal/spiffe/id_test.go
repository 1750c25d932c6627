package spiffe

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, s := range []string{
		"spiffe://mesh.example",
		"spiffe://mesh.example/site/north",
		"spiffe://mesh_1.example/site/North-1/ns/default/sa/shop.v2",
	} {
		id, err := Parse(s)
		if err != nil || id.String() != s {
			t.Errorf("%s: %s %v", s, id, err)
		}
	}
	for _, s := range []string{
		"", "spiffe", "spiffe:/mesh.example", "SPIFFE://mesh.example", "https://mesh.example", "spiffe://", "spiffe:///site/north",
		"spiffe://Mesh.example", "spiffe://mesh.example:8443", "spiffe://user@mesh.example", "spiffe://mesh.example/",
		"spiffe://mesh.example/site", "spiffe://mesh.example/site/", "spiffe://mesh.example/site/north/", "spiffe://mesh.example//site/north",
		"spiffe://mesh.example/ns/default/sa/shop", "spiffe://mesh.example/site/north/ns/default",
		"spiffe://mesh.example/site/north/sa/shop/ns/default", "spiffe://mesh.example/site/north/ns/default/sa/shop/x/y",
		"spiffe://mesh.example/site/./ns/default/sa/shop", "spiffe://mesh.example/site/../ns/default/sa/shop",
		"spiffe://mesh.example/site/north/ns/default/sa/sh%6Fp", "spiffe://mesh.example/site/north/ns/default/sa/shop?x",
		"spiffe://mesh.example/site/north/ns/default/sa/shop#x", "spiffe://mesh.example/site/nörth", "spiffe://mesh.example/site/no\x00rth",
		"spiffe://mesh.example/Site/north", "spiffe://mesh.example/site/@", "spiffe://mesh.example/site/[", "spiffe://mesh.example/site/{",
		"spiffe://" + strings.Repeat("a", 256), "spiffe://mesh.example/site/" + strings.Repeat("a", 254),
		"spiffe://mesh.example/site/" + strings.Repeat("a/", 2048),
	} {
		if id, err := Parse(s); err == nil {
			t.Errorf("%q is taken as %s", s, id)
		}
	}
}

func TestWithin(t *testing.T) {
	leaf := ID{"m", "north", "default", "shop"}
	for _, c := range []struct {
		other ID
		want  bool
	}{
		{leaf, true}, {ID{Domain: "m"}, true}, {ID{Domain: "m", Site: "north"}, true},
		{ID{Domain: "n"}, false}, {ID{Domain: "m", Site: "nort"}, false}, {ID{"m", "north", "default", "sho"}, false}, {ID{"m", "south", "default", "shop"}, false},
	} {
		if got := leaf.Within(c.other); got != c.want {
			t.Errorf("within %s: %v", c.other, got)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, id := range []ID{{"m", "", "ns", "sa"}, {"m", "north", "", "sa"}, {"m", "north", "ns", ""}, {"m", "a/b", "ns", "sa"}, {}} {
		if id.Check() == nil {
			t.Errorf("%#v is in order", id)
		}
	}
	if err := (ID{"m", "north", "ns", "sa"}).Check(); err != nil {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("spiffe://mesh.example/site/north/ns/default/sa/shop")
	f.Add("spiffe://mesh.example/site/north")
	f.Add("spiffe://m/site/..")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := Parse(s); err == nil && id.String() != s {
			t.Errorf("%q is read as %q", s, id)
		}
	})
}
