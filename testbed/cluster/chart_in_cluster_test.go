//go:build cluster

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// chart installs deploy/kustomize/minimum, which is the Helm chart with its least values,
// into the cluster, from images of our programs and nothing else, and has its proxies
// serve what the cluster's routes say.
//
// What this cluster lacks is done by hand: names of services (there is no DNS) and a
// volume for the controller's claim.
func (c *cluster) chart(t *testing.T, backends []pod) {
	bin := t.TempDir()
	goBuild(t, []string{"CGO_ENABLED=0"}, bin+"/", "./cmd/sitecontroller", "./cmd/edgeproxy")
	kustomize := filepath.Join("..", "..", "deploy", "kustomize")
	text := read(t, filepath.Join(kustomize, "minimum", "meridian.yaml"))
	for _, program := range []string{"sitecontroller", "edgeproxy"} {
		_, tag, ok := strings.Cut(text, "image: meridian-"+program+":")
		if !ok {
			t.Fatalf("the chart has no image meridian-%s", program)
		}
		tag, _, _ = strings.Cut(tag, "\n")
		c.command(t, "image", filepath.Join(bin, program), "meridian.test/meridian-"+program+":"+tag)
	}
	text = strings.ReplaceAll(text, "image: meridian-", "image: meridian.test/meridian-")

	const folder = "/var/lib/meridian-volume"
	c.command(t, "exec", "--node", c.Nodes[0].Name, "mkdir", "-p", folder)
	c.applyIn(t, read(t, filepath.Join(kustomize, "namespace", "namespace.yaml")))
	c.applyIn(t, fmt.Sprintf(`apiVersion: v1
kind: Secret
metadata: {name: meridian-node-token, namespace: meridian}
stringData: {token: "0123456789abcdef0123456789abcdef"}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: meridian}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  local: {path: %s}
  claimRef: {namespace: meridian, name: data-meridian-sitecontroller-0}
  nodeAffinity:
    required:
      nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [%s]}]}]
`, folder, c.Nodes[0].Name))
	workloads, rest := "", ""
	for _, doc := range strings.Split(text, "\n---\n") {
		if strings.Contains(doc, "\nkind: DaemonSet\n") {
			workloads += doc + "\n---\n"
		} else {
			rest += doc + "\n---\n"
		}
	}
	c.applyIn(t, rest)
	var service struct{ Spec struct{ ClusterIP string } }
	c.get(t, pathIn("v1", "Service", "meridian", "meridian-sitecontroller"), &service)
	c.applyIn(t, strings.ReplaceAll(workloads, "meridian-sitecontroller.meridian.svc", service.Spec.ClusterIP))

	eventually(t, "the controller is ready", func() error {
		var s struct{ Status struct{ ReadyReplicas int } }
		c.get(t, pathIn("apps/v1", "StatefulSet", "meridian", "meridian-sitecontroller"), &s)
		if s.Status.ReadyReplicas != 1 {
			return fmt.Errorf("%d controllers are ready: %s", s.Status.ReadyReplicas, c.why(t))
		}
		return nil
	})
	eventually(t, "a proxy on each node is ready", func() error {
		var s struct{ Status struct{ NumberReady int } }
		c.get(t, pathIn("apps/v1", "DaemonSet", "meridian", "meridian-edgeproxy"), &s)
		if s.Status.NumberReady != len(c.Nodes) {
			return fmt.Errorf("%d proxies are ready: %s", s.Status.NumberReady, c.why(t))
		}
		return nil
	})
	var proxies struct {
		Items []struct {
			Status struct{ PodIP string }
		}
	}
	c.get(t, pathIn("v1", "Pod", "meridian", ""), &proxies, "labelSelector", "app.kubernetes.io/name=meridian-edgeproxy")
	if len(proxies.Items) != len(c.Nodes) {
		t.Fatalf("%d proxies on %d nodes", len(proxies.Items), len(c.Nodes))
	}
	// Port 80, by processes without a capability.
	for _, p := range proxies.Items {
		c.answeredBy(t, "http://"+p.Status.PodIP+"/web", backends)
	}
}

// why is what the pods of the mesh wait for.
func (c *cluster) why(t *testing.T) string {
	var events struct {
		Items []struct {
			Reason, Message string
			InvolvedObject  struct{ Name string }
		}
	}
	c.get(t, pathIn("v1", "Event", "meridian", ""), &events, "fieldSelector", "type=Warning")
	var out []string
	for _, e := range events.Items {
		out = append(out, e.InvolvedObject.Name+": "+e.Reason+": "+e.Message)
	}
	return strings.Join(out, "; ")
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// pathIn is objectPath in a namespace.
func pathIn(apiVersion, kind, namespace, name string) string {
	at := objectPath(apiVersion, kind, name)
	at = strings.Replace(at, "/namespaces/default/", "/namespaces/"+namespace+"/", 1)
	return strings.Replace(at, "/networkpolicys", "/networkpolicies", 1)
}

// applyIn is apply, of objects in the namespaces that they name.
func (c *cluster) applyIn(t *testing.T, documents string) {
	t.Helper()
	for _, doc := range strings.Split(documents, "\n---\n") {
		var o struct {
			APIVersion, Kind string
			Metadata         struct{ Name, Namespace string }
		}
		if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
			t.Fatalf("%v:\n%s", err, doc)
		}
		if o.Kind == "" {
			continue // comments only
		}
		at := pathIn(o.APIVersion, o.Kind, o.Metadata.Namespace, o.Metadata.Name)
		if o.Kind == "PersistentVolume" {
			at = "/api/v1/persistentvolumes/" + o.Metadata.Name
		}
		if _, err := c.api.Patch("application/apply-patch+yaml").AbsPath(at).Param("fieldManager", "chart").Param("force", "true").
			Body([]byte(doc)).DoRaw(t.Context()); err != nil {
			t.Fatalf("apply %s: %v", at, err)
		}
	}
}
