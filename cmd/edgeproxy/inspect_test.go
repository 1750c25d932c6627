package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/meridian-mesh/meridian/edgeproxy"
	"github.com/meridian-mesh/meridian/edgeproxy/source"
)

// What was in force is listed, and serves again when a person says so.
func TestHistory(t *testing.T) {
	a, b := startBackend(t, "a", nil), startBackend(t, "b", nil)
	config := filepath.Join(t.TempDir(), "mesh.yaml")
	put(t, config, smallest(a.address()))
	p := start(t, t.TempDir(), "--config", config)
	put(t, config, smallest(b.address()))
	p.says("/metrics", "meridian_config_generation_counter 2\n")
	var got struct{ History []source.Kept }
	_, body := p.ask("/config?history")
	if err := json.Unmarshal([]byte(body), &got); err != nil || len(got.History) != 2 {
		t.Fatalf("%v: %s", err, body)
	}
	for i, want := range []string{"b\n", "a\n"} {
		q := start(t, t.TempDir(), "--config", got.History[i].Path)
		if status, said := fetch(t, q.ingress()); status != 200 || said != want {
			t.Errorf("%s serves %d %q, want %q", got.History[i].Path, status, said, want)
		}
	}
	if _, body := start(t, t.TempDir(), "--config", config).ask("/config?history"); body == "" {
		t.Error("no answer")
	}
}

func TestConnections(t *testing.T) {
	arrived, release := make(chan struct{}, 1), make(chan struct{})
	a := startBackend(t, "a", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "begun")
		w.(http.Flusher).Flush()
		arrived <- struct{}{}
		<-release
	})
	defer close(release)
	config := filepath.Join(t.TempDir(), "mesh.yaml")
	put(t, config, smallest(a.address()))
	p := start(t, t.TempDir(), "--config", config, "--loops", "2")
	at := p.listener("default/ingress/http")
	dial := func(send string) net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := c.Write([]byte(send)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	states := map[string]string{
		dial("").LocalAddr().String():                                                  "resting",
		dial("GET / HT").LocalAddr().String():                                          "head",
		dial("GET /slow?x=1 HTTP/1.1\r\nHost: a.example\r\n\r\n").LocalAddr().String(): "serving",
	}
	<-arrived
	var list struct {
		Open        int
		Connections []edgeproxy.Connection
	}
	serving := uint64(0)
	eventually(t, "each is listed in its state", func() bool {
		_, body := p.ask("/connections")
		if err := json.Unmarshal([]byte(body), &list); err != nil {
			t.Fatal(err)
		}
		seen := map[uint64]bool{}
		for _, c := range list.Connections {
			if want := states[c.Client]; c.State != want || c.Gateway != "default/ingress" || seen[c.ID] || c.Requests != nil {
				return false
			}
			seen[c.ID] = true
			if c.State == "serving" {
				serving = c.ID
			}
		}
		return len(seen) == 3 && list.Open == 3
	})
	var c edgeproxy.Connection
	eventually(t, "the response's beginning was passed on", func() bool {
		_, body := p.ask(fmt.Sprintf("/connections?id=%d", serving))
		if err := json.Unmarshal([]byte(body), &c); err != nil {
			t.Fatal(err)
		}
		return len(c.Requests) == 1 && c.Requests[0].Sent == int64(len("begun"))
	})
	r := c.Requests[0]
	if r.Method != "GET" || r.Authority != "a.example" || r.Path != "/slow?x=1" || r.Service != "default/echo" || !r.Whole || !r.Answered {
		t.Errorf("%+v", r)
	}
	if len(r.Attempts) != 1 || r.Attempts[0].Endpoint != a.address() || r.Attempts[0].State != "sent" {
		t.Errorf("%+v", r.Attempts)
	}
	for path, want := range map[string]int{"/connections?id=x": 400, "/connections?id=4000000": 404} {
		if status, body := p.ask(path); status != want {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
}
