package cluster

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/scheduler/placement"
)

func config(server, cluster, user string) []byte {
	return []byte(`{"current-context": "x", "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}, {"name": "y", "context": {"cluster": "c", "user": "nobody"}}],
"clusters": [{"name": "c", "cluster": {"server": "` + server + `"` + cluster + `}}], "users": [{"name": "u", "user": {` + user + `}}]}`)
}

func TestOpenNamesWhatItCannot(t *testing.T) {
	const server = "https://127.0.0.1:1"
	for want, x := range map[string]struct {
		config  []byte
		context string
	}{
		"there is no context z; there are: x, y": {config(server, "", ""), "z"},
		`its cluster "c" or user "nobody"`:       {config(server, "", ""), "y"},
		"user u: exec is not supported":          {config(server, "", `"exec": {"command": "aws"}`), ""},
		"user u: auth-provider is not supported": {config(server, "", `"auth-provider": {"name": "gcp"}`), ""},
		"user u: as is not supported":            {config(server, "", `"as": "root"`), ""},
		"proxy-url is not supported":             {config(server, `, "proxy-url": "http://p"`, ""), ""},
		"want https://host:port":                 {config("http://127.0.0.1:1", "", ""), ""},
		"certificate-authority: open /d/ca.pem":  {config(server, `, "certificate-authority": "ca.pem"`, ""), ""},
		"certificate-authority holds no PEM":     {config(server, `, "certificate-authority-data": "eA=="`, ""), ""},
		"user u: client certificate:":            {config(server, "", `"client-certificate-data": "eA=="`), ""},
		"user u: tokenFile: open /d/token":       {config(server, "", `"tokenFile": "token"`), ""},
		"it has no current context":              {[]byte(`{}`), ""},
		"kubeconfig: invalid character 'a'":      {[]byte(`apiVersion`), ""},
	} {
		if _, err := Open(x.config, "/d", x.context); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// server is an API server of two nodes and some pods, one object a page.
func server(t *testing.T, nodes, pods []string) *Cluster {
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
	ca := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	c, err := Open(config(s.URL, `, "certificate-authority-data": "`+ca+`"`, `"token": "secret"`), "", "x")
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
	c := server(t, []string{
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
	c.token = "guess"
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
