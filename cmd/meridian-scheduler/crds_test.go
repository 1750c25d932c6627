//go:build kube

package main

import (
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/meridian-mesh/meridian/api/kube"
)

// validations has the API server refuse, by CEL in the CRDs, what relates fields to one
// another in a way that the mesh refuses too, and take what the mesh takes. Nothing is
// stored.
func (c *cluster) validations(t *testing.T) {
	const scope = "/apis/mesh.meridian.dev/v1alpha1/"
	const target = `"targetRefs": [{"kind": "MeshService", "name": "s"}]`
	for _, x := range []struct {
		plural, spec string
		refused      string // a part of the message, empty where it is taken
	}{
		{"meshservices", `"ports": [{"port": 80}], "export": {"scope": "mesh", "sites": ["a"]}`, ""},
		{"meshservices", `"ports": [{"port": 80}], "export": {"sites": []}`, ""},
		{"meshservices", `"ports": [{"port": 80}], "export": {"sites": ["a"]}`, "scope is not mesh"},
		{"meshservices", `"ports": [{"port": 80}], "export": {"scope": "site", "sites": ["a"]}`, "scope is not mesh"},
		{"trafficpolicies", target + `, "retries": {"attempts": 1}`, ""},
		{"trafficpolicies", `"targetRefs": [{"kind": "Gateway", "name": "g"}], "clientPosition": {"latitudeHeader": "x", "longitudeHeader": "y"}`, "group is not that of the kind"},
		{"trafficpolicies", `"targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "MeshService", "name": "s"}], "retries": {"attempts": 1}`, "group is not that of the kind"},
		{"trafficpolicies", `"targetRefs": [{"kind": "MeshService", "name": "s", "sectionName": "x"}], "retries": {"attempts": 1}`, "sectionName is for targets of kind Gateway"},
		{"trafficpolicies", target + `, "backendTLS": {"hostname": "a.test", "wellKnownCACertificates": "System"}`, ""},
		{"trafficpolicies", target + `, "backendTLS": {"hostname": "a.test"}`, "write one of caCertificateRefs"},
		{"trafficpolicies", target + `, "backendTLS": {"hostname": "a.test", "wellKnownCACertificates": "System", "caCertificateRefs": [{"group": "mesh.meridian.dev", "kind": "Certificate", "name": "x"}]}`, "write one of caCertificateRefs"},
		{"authorizationpolicies", `"action": "allow"`, ""},
		{"authorizationpolicies", target + `, "action": "deny", "rules": [{}]`, ""},
		{"authorizationpolicies", `"targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g", "sectionName": "x"}], "action": "allow"`, ""},
		{"authorizationpolicies", `"action": "deny"`, "rules are missing"},
		{"authorizationpolicies", `"action": "audit", "rules": []`, "rules are missing"},
		{"authorizationpolicies", `"targetRefs": [{"kind": "HTTPRoute", "name": "r"}], "action": "allow"`, "group is not that of the kind"},
		{"authorizationpolicies", `"targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "MeshService", "name": "r"}], "action": "allow"`, "group is not that of the kind"},
		{"authorizationpolicies", `"targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "r", "sectionName": "x"}], "action": "allow"`, "sectionName is for targets of kind Gateway"},
		{"peerauthentications", `"mtls": "strict"`, ""},
		{"peerauthentications", `"ports": []`, "mtls is missing"},
		{"sites", `"location": {"type": "Point", "coordinates": [-180, 90]}`, ""},
		{"sites", `"location": {"type": "Point", "coordinates": [37.8, 144.9]}`, "latitude, from -90 to 90"},
		{"sites", `"location": {"type": "Point", "coordinates": [180.5, 1]}`, "latitude, from -90 to 90"},
	} {
		path := scope + x.plural
		if x.plural != "sites" {
			path = meshPath + "/" + x.plural
		}
		body := typed(t, path, fmt.Sprintf(`{"metadata": {"name": "checked"}, "spec": {%s}}`, x.spec))
		said, err := c.client.Discovery().RESTClient().Post().AbsPath(path).Param("dryRun", "All").SetHeader("Content-Type", "application/json").SetHeader("Accept", "application/json").Body(body).DoRaw(t.Context())
		switch {
		case x.refused == "" && err != nil:
			t.Errorf("%s %s is refused: %v", x.plural, x.spec, err)
		case x.refused != "" && (!apierrors.IsInvalid(err) || !strings.Contains(string(said), x.refused)):
			t.Errorf("%s %s: want a refusal with %q, have %v: %s", x.plural, x.spec, x.refused, err, said)
		}
		_, kind := kindOf(path)
		doc, err := kube.Decode(kind, body)
		if err != nil {
			t.Fatal(err)
		}
		if problem := doc.(*kube.Own).Problem; (problem == "") != (x.refused == "") {
			t.Errorf("%s %s: the mesh says %q", x.plural, x.spec, problem)
		}
	}
}
