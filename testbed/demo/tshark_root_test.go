//go:build root

package demo

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/testbed/link"
)

// TestRootLinksByTShark captures what goes between the demo's sites, as the kernel sees it,
// and has tshark say what it is: TLS, of version 1.3 in every hello, and nothing else.
func TestRootLinksByTShark(t *testing.T) {
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("tshark is not installed (apt-get install tshark)")
	}
	file := filepath.Join(t.TempDir(), "links.pcapng")
	var ports []string // of the links, towards the other site's proxy
	var stop func()
	askBothSites(t, func(relays [][]*link.Relay) {
		var filter []string
		for _, row := range relays {
			for _, r := range row {
				if r != nil {
					ports = append(ports, fmt.Sprint(r.Addr().Port()))
					filter = append(filter, "tcp port "+ports[len(ports)-1])
				}
			}
		}
		stop = captureLoopback(t, tshark, file, strings.Join(filter, " or "))
	})
	stop()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, []byte(secretPath)) {
		t.Error("a request can be read in the capture")
	}
	read := func(filter string, fields ...string) [][]string {
		t.Helper()
		args := []string{"-r", file, "-n", "-Y", filter, "-T", "fields", "-E", "separator=|"}
		for _, p := range ports {
			args = append(args, "-d", "tcp.port=="+p+",tls")
		}
		for _, f := range fields {
			args = append(args, "-e", f)
		}
		out, err := exec.Command(tshark, args...).Output()
		if err != nil {
			t.Fatalf("tshark: %v", err)
		}
		var rows [][]string
		for line := range strings.Lines(string(out)) {
			rows = append(rows, strings.Split(strings.TrimSuffix(line, "\n"), "|"))
		}
		return rows
	}
	hellos := map[string]int{}
	for _, row := range read("tls.handshake.type == 1 || tls.handshake.type == 2", "tls.handshake.type", "tls.handshake.extensions.supported_version") {
		hellos[row[0]]++
		if row[1] != "0x0304" {
			t.Errorf("a hello of type %s names versions %s", row[0], row[1])
		}
	}
	if hellos["1"] < 2 || hellos["2"] < 2 {
		t.Errorf("hellos by type: %v, want at least one of each side on both links", hellos)
	}
	// In the clear there is nothing behind the hellos: no certificate, no alert.
	for _, row := range read("tls.handshake.type > 2 || tls.alert_message", "frame.number", "tls.handshake.type", "tls.alert_message") {
		t.Errorf("in the clear: %v", row)
	}
	// What is no TLS is a piece of a record that goes on in the next segment.
	for _, row := range read("tcp.len > 0 && !tls && !tcp.segment_data", "frame.number", "_ws.col.Info") {
		t.Errorf("no TLS: %v", row)
	}
	for _, row := range read("_ws.malformed || tls.ignored_unknown_record", "frame.number", "_ws.col.Info") {
		t.Errorf("not to be read: %v", row)
	}
	if n := len(read("tls.app_data", "frame.number")); n < 50 {
		t.Errorf("%d segments with encrypted data, want those of requests and answers", n)
	}
}

// captureLoopback begins to write what passes the filter to a file; what it returns ends it
// once all is written.
func captureLoopback(t *testing.T, tshark, file, filter string) (stop func()) {
	t.Helper()
	cmd := exec.Command(tshark, "-i", "lo", "-w", file, "-f", filter)
	says, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	began, ended := make(chan bool, 1), make(chan bool)
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(says); lines.Scan(); {
			if strings.Contains(lines.Text(), "Capture started") {
				began <- true
			}
		}
	}()
	select {
	case <-began:
	case <-ended:
		t.Fatal("tshark ended before it captured")
	case <-time.After(time.Minute):
		t.Fatal("tshark does not begin to capture")
	}
	return func() {
		time.Sleep(time.Second) // dumpcap hands on what it has twice a second
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		<-ended
	}
}
