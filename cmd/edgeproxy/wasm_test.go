package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/edgeproxy/function/wasm/wasmtest"
)

// wasmConfig has a route /NAME for each function NAME, whose module is NAME.wasm of the
// folder, and one that passes none.
func wasmConfig(dir, endpoint string, functions ...string) string {
	text := smallest(endpoint)
	rules := ""
	for _, f := range functions {
		rules += fmt.Sprintf("\n  - {matches: [{path: {value: /%s}}], filters: [{type: ExtensionRef, extensionRef: {group: mesh.meridian.dev, kind: ServiceChain, name: %s}}], backendRefs: [{group: mesh.meridian.dev, kind: MeshService, name: echo, port: 80}]}", f, f)
		text += fmt.Sprintf("---\napiVersion: mesh.meridian.dev/v1alpha1\nkind: NetworkFunction\nmetadata: {name: %s}\nspec: {wasm: {file: %q, budget: 5ms}}\n", f, filepath.Join(dir, f+".wasm"))
		text += fmt.Sprintf("---\napiVersion: mesh.meridian.dev/v1alpha1\nkind: ServiceChain\nmetadata: {name: %s}\nspec: {functions: [%s]}\n", f, f)
	}
	return strings.Replace(text, "  rules:\n", "  rules:"+rules+"\n", 1)
}

// TestWasm has modules of a running proxy replaced while requests pass them: by a better
// one, one that traps, one that never ends and one that is none. Each touches its own
// requests only, and what is mended serves again.
func TestWasm(t *testing.T) {
	dir := t.TempDir()
	replace := func(name string, module []byte) {
		t.Helper()
		put(t, filepath.Join(dir, "new"), string(module))
		if err := os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, name+".wasm")); err != nil {
			t.Fatal(err)
		}
	}
	passes := wasmtest.Assemble(wasmtest.Next, nil)
	golden := wasmtest.Assemble(wasmtest.Code(wasmtest.SetTier, wasmtest.Next), nil)
	names := []string{"better", "traps", "endless", "broken"}
	for _, n := range names {
		replace(n, passes)
	}
	b := startBackend(t, "a", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "tier ", r.Header.Get("X-Tier")) })
	config := filepath.Join(t.TempDir(), "mesh.yaml")
	put(t, config, wasmConfig(dir, b.address(), names...))
	p := start(t, t.TempDir(), "--config", config)
	is := func(name string, status int, body string) bool {
		got, text := fetch(t, p.ingress()+"/"+name)
		return got == status && strings.HasPrefix(text, body)
	}
	for _, n := range names {
		if !is(n, 200, "tier ") {
			t.Fatalf("%s is not served at first", n)
		}
	}

	var stop atomic.Bool
	var asked, failed atomic.Int64
	var load sync.WaitGroup
	load.Go(func() {
		for ; !stop.Load(); time.Sleep(2 * time.Millisecond) {
			for _, path := range []string{"better", "broken", "none"} {
				asked.Add(1)
				if !is(path, 200, "tier ") {
					failed.Add(1)
				}
			}
		}
	})
	t.Cleanup(func() { stop.Store(true); load.Wait() })

	replace("traps", wasmtest.Assemble(wasmtest.Unreachable, nil))
	replace("endless", wasmtest.Assemble(wasmtest.Forever, nil))
	replace("broken", []byte("no module"))
	replace("better", golden)
	eventually(t, "the better module serves", func() bool { return is("better", 200, "tier gold") })
	for _, n := range []string{"traps", "endless"} {
		eventually(t, n+" is refused", func() bool { return is(n, 503, "a function that this request has to pass does not work") })
		eventually(t, n+" is killed three times", func() bool {
			_ = is(n, 503, "")
			return strings.Contains(p.stderr.String(), fmt.Sprintf("function=default/%s kills=3", n))
		})
	}
	eventually(t, "the broken file is refused in the log", func() bool {
		return strings.Contains(p.stderr.String(), "a changed WebAssembly module is refused") && strings.Contains(p.stderr.String(), "function=default/broken")
	})
	_, metrics := p.ask("/metrics")
	for _, n := range []string{"traps", "endless"} {
		family := `meridian_chain_hop_requests_total{chain="default/` + n + `",si="255",function="` + n + `",outcome="failed"} `
		if _, n, found := strings.Cut(metrics, family); !found || n[0] == '0' {
			t.Errorf("%s: nothing was counted as failed in\n%s", family, metrics)
		}
	}

	replace("traps", golden)
	replace("endless", golden)
	for _, n := range []string{"traps", "endless"} {
		eventually(t, n+" serves again", func() bool { return is(n, 200, "tier gold") })
	}
	stop.Store(true)
	load.Wait()
	if failed.Load() > 0 || asked.Load() == 0 {
		t.Errorf("%d of %d requests beside them failed", failed.Load(), asked.Load())
	}
}
