package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const tinyScenario = `name: tiny
network:
  ring: {sites: 3, slots: [2], service: 10ms, hop: 4ms}
load: 0.5
for: 12s
measureFrom: 4s
changes:
  - {at: 4s, site: hot, load: 1.5}
`

func simulate(t *testing.T, args ...string) (code int, out, faults string) {
	t.Helper()
	var o, e bytes.Buffer
	code = Main("test", append([]string{"sim"}, args...), nil, &o, &e)
	return code, o.String(), e.String()
}

func TestSim(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tiny.yaml")
	if err := os.WriteFile(file, []byte(tinyScenario), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, faults := simulate(t, "compare", "-f", file, "--policies", "meridian,optimum,none", "--seeds", "1-2", "--delays", "0,2")
	if code != 0 || !strings.Contains(out, "| meridian             | 2 |") || !strings.Contains(out, "| none ") || !strings.Contains(faults, "8 of 8 runs") {
		t.Errorf("exit %d\n%s%s", code, out, faults)
	}
	code, again, _ := simulate(t, "compare", "-f", file, "--policies", "meridian,optimum,none", "--seeds", "1,2", "--delays", "0,2")
	if code != 0 || again != out {
		t.Errorf("the same run again differs:\n%s", again)
	}
	code, out, _ = simulate(t, "run", "-f", file, "-o", "json")
	var res struct {
		Scenarios []struct{ Cells []struct{ Policy string } }
	}
	if err := json.Unmarshal([]byte(out), &res); code != 0 || err != nil || len(res.Scenarios) != 1 || len(res.Scenarios[0].Cells) != 2 {
		t.Errorf("exit %d, %v: %.200s", code, err, out)
	}
	if code, out, _ = simulate(t, "list"); code != 0 || !strings.Contains(out, "ring-step") || !strings.Contains(out, "hazl") {
		t.Errorf("list: exit %d\n%s", code, out)
	}
	code, _, faults = simulate(t, "compare", "-f", file, "--policies", "optimum,meridian", "--strict", "--stay-home", "10")
	if code != exitFailed || !strings.Contains(faults, "bars missed: tiny, meridian") {
		t.Errorf("a site that never shares keeps the bars: exit %d, %s", code, faults)
	}
}

func TestSimFaults(t *testing.T) {
	for _, k := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"run", "-o", "xml"}, exitUsage, "xml"},
		{[]string{"run", "--seeds", "9-1"}, exitUsage, "9-1"},
		{[]string{"run", "--seeds", "one"}, exitUsage, "one"},
		{[]string{"run", "--policies", "best"}, exitUsage, "best"},
		{[]string{"run", "--delays", "-1"}, exitUsage, "--delays"},
		{[]string{"run", "-f", "no-such"}, exitFailed, "no scenario"},
		{[]string{"run", "-f", "./no-such.yaml"}, exitFailed, "no-such.yaml"},
		{[]string{"run", "-f", "zoo-geant", "--data", ""}, exitFailed, "needs the data folder"},
	} {
		if code, _, faults := simulate(t, k.args...); code != k.code || !strings.Contains(faults, k.want) {
			t.Errorf("%v: exit %d, %s", k.args, code, faults)
		}
	}
}
