package view

import (
	"testing"

	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

func TestClass(t *testing.T) {
	s := &Service{Priorities: []Priority{
		{Name: "batch", header: "x-class", values: []string{"batch", "bulk"}},
		{Name: "free", header: "x-tier", values: []string{"free"}},
		{Name: "rest", header: "x-class", values: []string{"other", "batch"}},
	}}
	field := func(name, value string) stream.Field {
		return stream.Field{Name: []byte(name), Value: []byte(value)}
	}
	for want, fields := range map[int][]stream.Field{
		0: {field("x-class", "Batch"), field("x-tier", "paid"), field("x", "batch")},
		1: {field("X-Tier", "free"), field("X-Class", "none"), field("x-class", "bulk")},
		2: {field("x-tier", "free"), field("x-class", "other")},
		3: {field("x-class", "other")},
	} {
		if got := s.Class(fields); got != want {
			t.Errorf("%q: class %d, want %d", fields, got, want)
		}
		if n := testing.AllocsPerRun(100, func() { s.Class(fields) }); n != 0 {
			t.Errorf("%v allocations a request", n)
		}
	}
	if (&Service{}).Full(0, 1<<30) {
		t.Error("what is never to be refused is full")
	}
}
