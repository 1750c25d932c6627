package host

import (
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/chaining/function"
	ft "github.com/meridian-mesh/meridian/chaining/function/functiontest"
	"github.com/meridian-mesh/meridian/chaining/nsh"
)

// TestTag: a name travels as a context header, where there is room for it.
func TestTag(t *testing.T) {
	a := &Aware{Function: namer{}}
	for _, md := range []uint8{nsh.MD1, nsh.MD2} {
		for _, word := range []byte{0, 1} {
			in := make([]byte, nsh.GPESize+nsh.MD1Size, 400)
			nsh.PutGPE(in, 1)
			h := nsh.Put(in[nsh.GPESize:], md, nsh.NextIPv4, 5, 255)
			if md == nsh.MD1 {
				h[10] = word
			}
			in = append(in[:nsh.GPESize+len(h)], ft.UDP("10.0.0.1:1", "10.0.0.2:2", nil)...)
			out := a.one(in, make([]byte, 4096), 0)
			_, rest, _ := nsh.ParseGPE(out)
			got, payload, err := nsh.Parse(rest)
			if err != nil || got.SI() != 254 || len(payload) != 28 {
				t.Fatalf("%x: %v", out, err)
			}
			tag, ok, _ := got.Find(nsh.ClassMeridian, nsh.TypeTag)
			if want := md == nsh.MD2 || word == 0; ok != want || ok && string(tag) != "name" {
				t.Errorf("MD type %d, word %d: tag %q, %v", md, word, tag, ok)
			}
		}
	}
}

type namer struct{}

func (namer) Process(b []byte, _ function.Direction, _ time.Duration) function.Result {
	return function.Result{Packet: b, Tag: "name"}
}
