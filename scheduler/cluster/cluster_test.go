package cluster

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/scheduler/placement"
)

// config writes a kubeconfig and returns its path.
func config(t *testing.T, server, cluster, user string) string {
	t.Helper()
	return write(t, `{"apiVersion": "v1", "kind": "Config", "current-context": "x", "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}, {"name": "y", "context": {"cluster": "c", "user": "nobody"}}],
"clusters": [{"name": "c", "cluster": {"server": "`+server+`"`+cluster+`}}], "users": [{"name": "u", "user": {`+user+`}}]}`)
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOpenNamesWhatItCannot(t *testing.T) {
	const server = "https://127.0.0.1:1"
	for want, x := range map[string]struct {
		config  string
		context string
	}{
		`context "z" does not exist`:            {config(t, server, "", ""), "z"},
		`context y: its user "nobody"`:          {config(t, server, "", ""), "y"},
		"no Auth Provider found for name \"gcp": {config(t, server, "", `"auth-provider": {"name": "gcp"}`), ""},
		"command must be specified for u":       {config(t, server, "", `"exec": {"apiVersion": "client.authentication.k8s.io/v1"}`), ""},
		"unable to read certificate-authority":  {config(t, server, `, "certificate-authority": "ca.pem"`, ""), ""},
		"unable to load root certificates":      {config(t, server, `, "certificate-authority-data": "eA=="`, ""), ""},
		"unable to read client-cert":            {config(t, server, "", `"client-certificate": "x.pem", "client-key": "y.pem"`), ""},
		"no such file or directory":             {"/nowhere/kubeconfig", ""},
		"kubeconfig: none names a cluster":      {write(t, `{"apiVersion": "v1", "kind": "Config"}`), ""},
		`context z: its cluster "gone"`:         {write(t, `{"apiVersion": "v1", "kind": "Config", "contexts": [{"name": "z", "context": {"cluster": "gone", "user": "u"}}]}`), "z"},
		"couldn't get version/kind":             {write(t, `apiVersion`), ""},
	} {
		if _, err := Open(x.config, x.context); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestMain makes this program a credential plugin too, which tells how often it ran.
func TestMain(m *testing.M) {
	if to := os.Getenv("CLUSTER_TEST_PLUGIN"); to != "" {
		f, err := os.OpenFile(to, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			_, err = f.WriteString("x")
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Print(`{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "secret"}}`)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A user is who the kubeconfig says, however it says so: a credential plugin, run when it
// is needed and not for each request; a token read from a file; and one who acts as another.
func TestUsers(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"auth": %q, "as": %q, "agent": %q}`, r.Header.Get("Authorization"), r.Header.Get("Impersonate-User"), r.UserAgent())
	}))
	t.Cleanup(s.Close)
	ca := `, "certificate-authority-data": "` + authority(s) + `"`
	ran := filepath.Join(t.TempDir(), "ran")
	token := write(t, "secret\n")
	for name, x := range map[string]struct{ user, auth, as string }{
		"plugin":        {fmt.Sprintf(`"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": %q, "interactiveMode": "Never", "env": [{"name": "CLUSTER_TEST_PLUGIN", "value": %q}]}`, os.Args[0], ran), "Bearer secret", ""},
		"token file":    {fmt.Sprintf(`"tokenFile": %q`, token), "Bearer secret", ""},
		"password":      {`"username": "u", "password": "p"`, "Basic dTpw", ""},
		"impersonation": {`"token": "secret", "as": "someone"`, "Bearer secret", "someone"},
	} {
		c, err := Open(config(t, s.URL, ca, x.user), "")
		if err != nil {
			t.Fatal(name, err)
		}
		for range 2 {
			var got struct{ Auth, As, Agent string }
			if err := c.do(t.Context(), http.MethodGet, "/whoami", nil, &got); err != nil {
				t.Fatal(name, err)
			}
			if got.Auth != x.auth || got.As != x.as || got.Agent != "meridian" || c.Name != "c" {
				t.Errorf("%s: cluster %s is asked by %+v", name, c.Name, got)
			}
		}
	}
	if b, err := os.ReadFile(ran); err != nil || string(b) != "x" {
		t.Errorf("the plugin ran %q times (%v), want once", b, err)
	}
}

func authority(s *httptest.Server) string {
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

// server is an API server of two nodes and some pods, one object a page.
func server(t *testing.T, token string, nodes, pods []string) *Cluster {
	t.Helper()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"kind": "Status", "message": "Unauthorized"}`)
			return
		}
		all := map[string][]string{"/api/v1/nodes": nodes, "/api/v1/pods": pods}[r.URL.Path]
		i, next := 0, ""
		_, _ = fmt.Sscan(r.URL.Query().Get("continue"), &i)
		if i+1 < len(all) {
			next = fmt.Sprint(i + 1)
		}
		fmt.Fprintf(w, `{"metadata": {"continue": %q}, "items": [%s]}`, next, all[i])
	}))
	t.Cleanup(s.Close)
	c, err := Open(config(t, s.URL, `, "certificate-authority-data": "`+authority(s)+`"`, `"token": "`+token+`"`), "x")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const ready = `"conditions": [{"type": "Ready", "status": "True"}]`

func podText(name, owner, labels, spec, status string) string {
	return `{"metadata": {"name": "` + name + `", "namespace": "shop", "uid": "` + name + `", "labels": {` + labels + `}` + owner + `},
"spec": {"nodeName": "n1", "schedulerName": "meridian-scheduler", "containers": [{"resources": {"requests": {"cpu": "250m", "memory": "64Mi"}}}, {"resources": {"requests": {"cpu": "0.5"}}}]` + spec + `},
"status": {` + status + `}}`
}

func by(kind, name string) string {
	return `, "ownerReferences": [{"kind": "Other", "name": "x", "uid": "x"}, {"kind": "` + kind + `", "name": "` + name + `", "uid": "` + name + `", "controller": true}]`
}

func TestInventory(t *testing.T) {
	rs := by("ReplicaSet", "web-5d9")
	c := server(t, "secret", []string{
		`{"metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "z1", "site": "a"}}, "status": {"allocatable": {"cpu": "3920m", "memory": "15Gi", "pods": "110"}, ` + ready + `}}`,
		`{"metadata": {"name": "n2", "labels": {"topology.kubernetes.io/zone": "z2"}}, "spec": {"unschedulable": true}, "status": {"allocatable": {"cpu": "4", "memory": "16Gi", "pods": "110"}, ` + ready + `}}`,
		`{"metadata": {"name": "n3"}, "status": {"allocatable": {"cpu": "4"}, "conditions": [{"type": "Ready", "status": "Unknown"}]}}`,
	}, []string{
		podText("web-1", rs, `"pod-template-hash": "5d9"`, "", ready),
		podText("named", rs, `"pod-template-hash": "5d9", "mesh.meridian.dev/workload": "front"`, "", ready),
		podText("bare", "", `"app": "tool"`, "", ready),
		podText("agent", by("DaemonSet", "agent"), "", "", ready),
		podText("db-0", by("StatefulSet", "db"), "", `, "volumes": [{"persistentVolumeClaim": {"claimName": "data"}}]`, ready),
		podText("picky", by("StatefulSet", "picky"), "", `, "nodeSelector": {"disk": "ssd"}`, ready),
		podText("tied", by("StatefulSet", "tied"), "", `, "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}`, ready),
		strings.Replace(podText("other", rs, "", "", ready), "meridian-scheduler", "default-scheduler", 1),
		strings.Replace(podText("waits", rs, "", "", ""), `"n1"`, `""`, 1),
		podText("ended", rs, "", "", `"phase": "Succeeded"`),
		strings.Replace(podText("on-n2", rs, `"pod-template-hash": "5d9"`, "", ready), `"n1"`, `"n2"`, 1),
	})
	inv, pinned, err := c.Inventory(t.Context(), Options{Cluster: "east", SiteLabel: "site", Scheduler: "meridian-scheduler"})
	if err != nil {
		t.Fatal(err)
	}
	want := []placement.Node{
		{Name: "n1", Site: "a", Capacity: placement.Resources{MilliCPU: 3920, MemoryBytes: 15 << 30, Pods: 110}},
		{Name: "n2", Site: "z2", Capacity: placement.Resources{MilliCPU: 750, MemoryBytes: 64 << 20, Pods: 1}},
	}
	if fmt.Sprint(inv.Nodes) != fmt.Sprint(want) {
		t.Errorf("nodes %+v, want %+v", inv.Nodes, want)
	}
	first := placement.Pod{Name: "shop/web-1", Workload: mesh.Workload{Cluster: "east", Namespace: "shop", Name: "web"}, Node: "n1", Request: placement.Request{MilliCPU: 750, MemoryBytes: 64 << 20}}
	if len(inv.Pods) != 9 || inv.Pods[0] != first || inv.Pods[1].Workload.Name != "front" || inv.Pods[2].Workload.Name != "tool" {
		t.Errorf("pods %+v", inv.Pods)
	}
	for name, why := range map[string]string{
		"bare": "no controller", "agent": "each node", "db-0": "volume data", "picky": "some nodes only", "tied": "some nodes only", "other": "default-scheduler, which does not place by traffic",
	} {
		if !strings.Contains(pinned["shop/"+name], why) {
			t.Errorf("%s: %q, want %q", name, pinned["shop/"+name], why)
		}
	}
	if len(pinned) != 6 {
		t.Errorf("pinned: %v", pinned)
	}
	c = server(t, "guess", nil, nil)
	if _, _, err := c.Inventory(t.Context(), Options{}); err == nil || !strings.Contains(err.Error(), "401: Unauthorized") {
		t.Errorf("with a wrong token: %v", err)
	}
}

func TestQuantity(t *testing.T) {
	for s, want := range map[string]float64{"4": 4, "250m": 0.25, "1.5Gi": 1.5 * (1 << 30), "128974848": 128974848, "129e6": 129e6, "129M": 129e6, "100u": 1e-4, "0": 0} {
		if got, err := quantity(s); err != nil || got < want*(1-1e-12) || got > want*(1+1e-12) {
			t.Errorf("%s is %v, %v, want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "m", "-1", "1Zi", "NaN", "Inf", "1 Gi"} {
		if v, err := quantity(s); err == nil {
			t.Errorf("%q is %v", s, v)
		}
	}
}

func TestTroubles(t *testing.T) {
	for want, text := range map[string]string{
		"container c: ImagePullBackOff: no such image": `{"status": {"containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]}}`,
		"Unschedulable: 0/3 nodes are available":       `{"status": {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}]}}`,
		"ContainersNotReady: containers are not ready": `{"spec": {"nodeName": "n"}, "status": {"conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "containers are not ready"}]}}`,
		"it has no node yet":                           `{}`,
		"it runs on n and does not say why":            `{"spec": {"nodeName": "n"}}`,
	} {
		var p pod
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			t.Fatal(err)
		}
		if got := troubles(&p); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
