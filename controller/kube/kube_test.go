package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/kube"
	"github.com/meridian-mesh/meridian/api/mesh"
)

// server keeps objects by path as an API server does as far as a lease and a status
// need it: a write that names another resourceVersion than the object has is refused.
type server struct {
	*httptest.Server
	mu      sync.Mutex
	objects map[string]map[string]any
	version int
	patches map[string]int // those that were asked for
	down    bool
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{objects: map[string]map[string]any{}, patches: map[string]int{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fail := func(code int, reason string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": %q, "code": %d}`, reason, code)
	}
	if s.down {
		fail(http.StatusInternalServerError, "InternalError")
		return
	}
	var body map[string]any
	if data, err := io.ReadAll(r.Body); err != nil || len(data) > 0 && json.Unmarshal(data, &body) != nil {
		fail(http.StatusBadRequest, "BadRequest")
		return
	}
	path := strings.TrimSuffix(r.URL.Path, "/status")
	meta, _ := body["metadata"].(map[string]any)
	if r.Method == http.MethodPost {
		path += "/" + meta["name"].(string)
	}
	if r.Method == http.MethodPatch {
		s.patches[path]++
	}
	have := s.objects[path]
	apply := strings.HasPrefix(r.Header.Get("Content-Type"), "application/apply-patch")
	switch {
	case apply:
	case r.Method == http.MethodPost && have != nil:
		fail(http.StatusConflict, "AlreadyExists")
		return
	case r.Method != http.MethodPost && have == nil:
		fail(http.StatusNotFound, "NotFound")
		return
	case r.Method == http.MethodPut || r.Method == http.MethodPatch:
		if meta["resourceVersion"] != have["metadata"].(map[string]any)["resourceVersion"] {
			fail(http.StatusConflict, "Conflict")
			return
		}
	}
	if r.Method == http.MethodDelete {
		if want := body["preconditions"].(map[string]any)["resourceVersion"]; want != have["metadata"].(map[string]any)["resourceVersion"] {
			fail(http.StatusConflict, "Conflict")
			return
		}
		delete(s.objects, path)
		fmt.Fprint(w, `{"kind": "Status", "apiVersion": "v1", "status": "Success"}`)
		return
	}
	if r.Method == http.MethodPatch && !apply {
		body = map[string]any{"metadata": map[string]any{}, "spec": have["spec"], "status": body["status"]}
	}
	if r.Method != http.MethodGet {
		s.version++
		body["metadata"].(map[string]any)["resourceVersion"] = fmt.Sprint(s.version)
		s.objects[path] = body
		have = body
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(have)
}

// bridge is one that talks to the server.
func (s *server) bridge(t *testing.T) *Bridge {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "x", "clusters": [{"name": "x", "cluster": {"server": %q}}],
		"contexts": [{"name": "x", "context": {"cluster": "x", "user": "x", "namespace": "mesh"}}], "users": [{"name": "x", "user": {}}]}`, s.URL)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := New(Config{Kubeconfig: file, Site: "a", Certificates: filepath.Join(t.TempDir(), "certificates")}, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestKubeconfigFaultsAreClear(t *testing.T) {
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken")
	if err := os.WriteFile(broken, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{filepath.Join(dir, "none"): "none", broken: "kubeconfig"} {
		if _, err := New(Config{Kubeconfig: file, Site: "a"}, nil, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestLeaseHasOneHolder(t *testing.T) {
	s := newServer(t)
	c := s.bridge(t).c
	elect := func(name string) *elector {
		return &elector{c: c, namespace: "mesh", identity: name, won: func() {}, report: func(err error) { t.Log(err) }}
	}
	try := func(e *elector, at time.Time) bool {
		t.Helper()
		mine, err := e.try(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		return mine
	}
	now := time.Now()
	a, b := elect("a"), elect("b")
	if !try(a, now) || try(b, now) || !try(a, now.Add(leaseEvery)) {
		t.Fatal("the first has the lease, and the second too, or the first not any more")
	}
	// b's time begins when it sees the lease renewed, whatever the clocks say.
	if try(b, now.Add(leaseEvery)) || try(b, now.Add(leaseEvery+leaseFor-time.Second)) {
		t.Fatal("the lease was taken while it ran")
	}
	if !try(b, now.Add(leaseEvery+leaseFor)) {
		t.Fatal("a lease that nobody renews is not taken over")
	}
	if try(a, now.Add(leaseEvery+leaseFor)) {
		t.Fatal("the old holder has it again")
	}
	// Given up, it is free at once.
	b.until.Store(time.Now().Add(time.Minute).UnixNano())
	b.release()
	if b.leads() || !try(a, now.Add(leaseEvery+leaseFor)) {
		t.Fatal("what was given up is not free")
	}
	s.down = true
	if mine, err := a.try(t.Context(), now.Add(2*leaseFor)); mine || err == nil {
		t.Errorf("without an API server: %v, %v", mine, err)
	}
}

func TestStatusIsWrittenOncePerVersion(t *testing.T) {
	s := newServer(t)
	b := s.bridge(t)
	e := &elector{}
	e.until.Store(time.Now().Add(time.Hour).UnixNano())
	w := &statusWriter{bridge: b, lease: e, next: make(chan writing, 1), written: map[mesh.Key]string{}, redirected: map[string]redirected{}}
	const route = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/r"
	s.objects[route] = map[string]any{"metadata": map[string]any{"resourceVersion": "7"}, "spec": "kept"}
	status := func(name, version string) []kube.Status {
		return []kube.Status{{Kind: mesh.KindHTTPRoute, Meta: kube.Meta{Namespace: "shop", Name: name, Version: version}, Want: &kube.RouteStatus{}, Changed: true}}
	}
	for range 3 {
		if err := w.write(t.Context(), status("r", "7")); err != nil {
			t.Fatal(err)
		}
	}
	if s.patches[route] != 1 || s.objects[route]["spec"] != "kept" || s.objects[route]["status"] == nil {
		t.Errorf("%d patches, object %v", s.patches[route], s.objects[route])
	}
	// What changed or went meanwhile is the watch's to bring: no error, no write.
	for _, list := range [][]kube.Status{status("r", "6"), status("gone", "1")} {
		if err := w.write(t.Context(), list); err != nil {
			t.Error(err)
		}
	}
	if v := s.objects[route]["metadata"].(map[string]any)["resourceVersion"]; v != "1" {
		t.Errorf("a status for an older version was written: version %v", v)
	}
	asked := s.patches[route]
	s.down = true
	if err := w.write(t.Context(), status("r", "8")); err == nil || !strings.Contains(err.Error(), "HTTPRoute/shop/r") {
		t.Errorf("without an API server: %v", err)
	}
	s.down = false
	e.until.Store(0)
	if err := w.write(t.Context(), status("r", "8")); err != nil || s.patches[route] != asked {
		t.Error("written without the lease")
	}
}

// TestRedirects: an EndpointSlice is made, written again only when it is to be another
// or has become one, and taken away as long as nobody changed it meanwhile.
func TestRedirects(t *testing.T) {
	s := newServer(t)
	e := &elector{}
	e.until.Store(time.Now().Add(time.Hour).UnixNano())
	w := &statusWriter{bridge: s.bridge(t), lease: e, next: make(chan writing, 1), redirected: map[string]redirected{}}
	const slice = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/front-x"
	write := func(want int, port int, version string) {
		t.Helper()
		list := []kube.Redirect{{Meta: kube.Meta{Namespace: "shop", Name: "front-x", Version: version}, Service: "front", Family: "IPv4",
			Addresses: []string{"10.0.0.1"}, Ports: []kube.SlicePort{{Name: "http", Port: port}}, Changed: true}}
		if err := w.redirects(t.Context(), list, nil); err != nil || s.patches[slice] != want {
			t.Errorf("port %d, version %q: %d writes, want %d: %v", port, version, s.patches[slice], want, err)
		}
	}
	write(1, 20001, "")
	write(1, 20001, "")
	write(2, 20002, "")
	write(3, 20002, "9") // somebody else wrote it, and the watch has brought that
	got, err := json.Marshal(s.objects[slice])
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"addressType":"IPv4"`, `"addresses":["10.0.0.1"]`, `"ready":true`, `"port":20002`, `"protocol":"TCP"`,
		`"kubernetes.io/service-name":"front"`, `"endpointslice.kubernetes.io/managed-by":"gateway-controller.mesh.meridian.dev"`} {
		if !strings.Contains(string(got), want) {
			t.Errorf("no %s in %s", want, got)
		}
	}
	stale := func(version string) []kube.Meta {
		return []kube.Meta{{Namespace: "shop", Name: "front-x", Version: version}, {Namespace: "shop", Name: "gone", Version: "1"}}
	}
	if err := w.redirects(t.Context(), nil, stale("1")); err != nil || s.objects[slice] == nil {
		t.Errorf("one that changed meanwhile is taken away: %v", err)
	}
	if err := w.redirects(t.Context(), nil, stale("3")); err != nil || s.objects[slice] != nil {
		t.Errorf("it stays: %v", err)
	}
	write(4, 20002, "9")
	s.objects[slice] = nil // somebody takes it away at once
	write(4, 20002, "9")
	was := w.redirected["shop/front-x"]
	was.at = was.at.Add(-retryAfter)
	w.redirected["shop/front-x"] = was
	write(5, 20002, "9")
	s.down = true
	if err := w.redirects(t.Context(), []kube.Redirect{{Meta: kube.Meta{Namespace: "shop", Name: "y"}, Service: "y"}}, nil); err == nil || !strings.Contains(err.Error(), "shop/y") {
		t.Errorf("without an API server: %v", err)
	}
	s.down = false
	e.until.Store(0)
	write(5, 20003, "1")
}

func TestCertificateFiles(t *testing.T) {
	b := newServer(t).bridge(t)
	at := func(name string) string { return filepath.Join(b.cfg.Certificates, name) }
	files := map[string][]byte{at("a.crt"): []byte("new"), at("a.key"): []byte("key")}
	if err := os.WriteFile(at("a.crt"), []byte("as it was"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.writeFiles(files); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a.crt": "as it was", "a.key": "key"} {
		got, err := os.ReadFile(at(name))
		info, serr := os.Stat(at(name))
		if err != nil || serr != nil || string(got) != want || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %q, %v %v", name, got, err, serr)
		}
	}
	old := time.Now().Add(-2 * keepFiles)
	for _, name := range []string{"old.key", "young.key", "notes.txt"} {
		if err := os.WriteFile(at(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"old.key", "notes.txt", "a.crt"} {
		if err := os.Chtimes(at(name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	b.sweepFiles(files)
	for name, want := range map[string]bool{"a.crt": true, "a.key": true, "old.key": false, "young.key": true, "notes.txt": true} {
		if _, err := os.Stat(at(name)); (err == nil) != want {
			t.Errorf("%s is there: %v, want %v", name, err == nil, want)
		}
	}
	// In use, it is touched: what names it no more keeps it for a day from now on.
	if info, err := os.Stat(at("a.crt")); err != nil || info.ModTime().Before(old.Add(keepFiles)) {
		t.Errorf("a file in use keeps its age: %v", err)
	}
	if err := b.writeFiles(map[string][]byte{filepath.Join(at("no"), "x.crt"): nil}); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a folder that is not there: %v", err)
	}
}

// What is kept of an object is its meaning: its text goes, and one that cannot be read
// is left out and takes nothing else with it.
func TestKeep(t *testing.T) {
	b := newServer(t).bridge(t)
	read := func(kind, text string) *object {
		t.Helper()
		o := new(object)
		if err := json.Unmarshal([]byte(text), o); err != nil {
			t.Fatal(err)
		}
		return b.keep(kind, o).(*object)
	}
	o := read(kube.KindService, `{"metadata": {"name": "s", "namespace": "n", "annotations": {"x": "y"}}, "spec": {"ports": [{"port": 80}]}}`)
	if s, ok := o.doc.(*kube.Service); !ok || s.Ports[0].Port != 80 || o.raw != nil || o.Annotations != nil || o.Name != "s" {
		t.Errorf("kept %+v", o)
	}
	if o := read(kube.KindService, `{"metadata": {"name": "s"}, "spec": {"ports": "none"}}`); o.doc != nil || o.raw != nil {
		t.Errorf("what cannot be read is kept as %+v", o.doc)
	}
	if s := read(kube.KindSecret, `{"metadata": {"name": "s"}, "data": {"tls.crt": "eA==", "tls.key": "eA=="}}`).doc.(*kube.Secret); !strings.Contains(s.Problem, "no certificate") {
		t.Errorf("a broken certificate: %q", s.Problem)
	}
}

func TestLogOfTheClientIsQuiet(t *testing.T) {
	var out strings.Builder
	log := slog.New(quieter{slog.NewTextHandler(&out, nil)})
	log.Info("chatter")
	log.Error("Failed to watch *kube.object")
	if out.Len() > 0 {
		t.Errorf("logged %s", &out)
	}
	log.ErrorContext(context.Background(), "something else")
	if !strings.Contains(out.String(), "something else") {
		t.Error("an error is lost")
	}
}
