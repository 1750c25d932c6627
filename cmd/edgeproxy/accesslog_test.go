package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// lines reads a log that is being written.
func lines(t *testing.T, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.FieldsFunc(string(data), func(r rune) bool { return r == '\n' })
}

func TestAccessLog(t *testing.T) {
	a := startBackend(t, "a", nil)
	dir := t.TempDir()
	path, config := filepath.Join(dir, "access.log"), filepath.Join(dir, "mesh.yaml")
	put(t, config, smallest(a.address()))
	p := start(t, t.TempDir(), "--config", config, "--site", "north", "--node", "n1", "--access-log", path)
	fetch(t, p.ingress()+"/one?x=1")
	eventually(t, "a line", func() bool { return len(lines(t, path)) == 1 })
	var got map[string]any
	if err := json.Unmarshal([]byte(lines(t, path)[0]), &got); err != nil {
		t.Fatal(err)
	}
	for k, want := range map[string]string{
		"method": "GET", "path": "/one?x=1", "response_code": "200", "response_flags": "<nil>", "bytes_sent": "2",
		"upstream_host": a.address(), "upstream_cluster": "default/echo", "gateway": "default/ingress",
		"route_name": "default/all/0", "site": "north", "node": "n1", "user_agent": "Go-http-client/1.1", "upstream_attempts": "1",
	} {
		if fmt.Sprint(got[k]) != want {
			t.Errorf("%s is %v, want %s", k, got[k], want)
		}
	}
	if id := fmt.Sprint(got["request_id"]); len(id) != 32 {
		t.Errorf("request_id %s", id)
	}

	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGUSR1)
	eventually(t, "the log is there again", func() bool { _, err := os.Stat(path); return err == nil })
	a.CloseClientConnections()
	a.Close()
	if status, _ := fetch(t, p.ingress()+"/two"); status != 503 {
		t.Errorf("status %d from a backend that is gone", status)
	}
	p.signal(syscall.SIGTERM)
	if code := p.wait(); code != exitOK {
		t.Errorf("exit %d", code)
	}
	if l := lines(t, path); len(l) != 1 || !strings.Contains(l[0], `"response_flags":"UF"`) {
		t.Errorf("after the end: %q", l)
	}
	if l := lines(t, path+".1"); len(l) != 1 {
		t.Errorf("the old file holds %q", l)
	}
}

// A raw request that is refused has its line too.
func TestAccessLog_text(t *testing.T) {
	a := startBackend(t, "a", nil)
	dir := t.TempDir()
	path, config := filepath.Join(dir, "access.log"), filepath.Join(dir, "mesh.yaml")
	put(t, config, smallest(a.address()))
	p := start(t, t.TempDir(), "--config", config, "--access-log", path, "--access-log-format", `"%REQ(:METHOD)% %PATH%" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESP(X-BACKEND)%`)
	fetch(t, p.ingress()+"/one")
	raw(t, p.listener("default/ingress/http"), "GET / HTTP/9.9\r\n\r\n")
	eventually(t, "two lines", func() bool { return len(lines(t, path)) == 2 })
	if got := strings.Join(lines(t, path), "\n"); got != "\"GET /one\" 200 - a\n\"- -\" 505 DPE -" {
		t.Errorf("%s", got)
	}
	p.says("/metrics", "meridian_access_log_lines_total 2\n")
}
