//go:build root

package docstest

import (
	"os/exec"
	"testing"
)

// TestRootRun executes the examples that need root, which remove what they made.
func TestRootRun(t *testing.T) {
	ran := 0
	for _, page := range pages(t) {
		all := blocks(page, read(t, page))
		script := script(all, runsAsRoot)
		if script == "" {
			continue
		}
		ran++
		t.Run(page, func(t *testing.T) {
			t.Cleanup(func() {
				if out, err := exec.Command(root+"/examples/chain-node.sh", "down").CombinedOutput(); err != nil {
					t.Errorf("%v: %s", err, out)
				}
			})
			compare(t, all, runsAsRoot, run(t, script))
		})
	}
	if ran == 0 {
		t.Error("no page has an example that runs as root")
	}
}
