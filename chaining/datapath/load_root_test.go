//go:build root

package datapath

import (
	"errors"
	"testing"

	"github.com/cilium/ebpf"
)

func TestRootLoad(t *testing.T) {
	for name, load := range map[string]func() (*ebpf.CollectionSpec, error){"chain": loadChain, "guard": loadGuard} {
		spec, err := load()
		if err != nil {
			t.Fatal(err)
		}
		coll, err := ebpf.NewCollection(spec)
		var ve *ebpf.VerifierError
		if errors.As(err, &ve) {
			t.Fatalf("%s: %+v", name, ve)
		}
		if err != nil {
			t.Fatal(name, err)
		}
		for n, p := range coll.Programs {
			t.Log(name, n, p.VerifierLog)
		}
		coll.Close()
	}
}
