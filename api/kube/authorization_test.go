package kube

import (
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// A policy that cannot be read closes what it is for.
func TestInvalidPolicyCloses(t *testing.T) {
	for spec, want := range map[string]int{
		`{"targetRefs":[{"kind":"MeshService","name":"shop"}],"action":"deny","rules":[{"from":[{}]}]}`:                            1,
		`{"targetRefs":[{"kind":"MeshService","name":"shop"},{"kind":"Node","name":"x"}],"action":"permit"}`:                       1,
		`{"targetRefs":[{"kind":"MeshService","name":"shop"}],"action":"deny","rules":[{"notFrom":[{"sources":["10.0.0.0/8"]}]}]}`: 1,
		`{"action":"deny"}`: 0,
	} {
		text := `{"apiVersion":"mesh.meridian.dev/v1alpha1","kind":"AuthorizationPolicy","metadata":{"name":"p","namespace":"team"},"spec":` + spec + `}`
		doc, err := Decode(mesh.KindAuthorizationPolicy, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		own := doc.(*Own)
		if own.Doc != nil || own.Problem == "" || own.Instead == nil {
			t.Fatalf("%s: %+v", spec, own)
		}
		p := own.Instead.(*mesh.AuthorizationPolicy)
		if p.Spec.Action != mesh.ActionAllow || len(p.Spec.Rules) != 0 || len(p.Spec.TargetRefs) != want || p.Metadata.Namespace != "team" {
			t.Errorf("%s: %+v", spec, p)
		}
		out := Translate(&Input{Cluster: "c", Own: []*Own{own}}, time.Unix(0, 0))
		if n := len(out.Objects.AuthorizationPolicies); n != 1 {
			t.Errorf("%s: %d policies", spec, n)
		}
		if len(out.Statuses) != 1 {
			t.Errorf("%s: %+v %q", spec, out.Statuses, own.Problem)
		}
	}
}

// What cannot be read of who must show an identity asks for one.
func TestInvalidPeerAuthenticationIsStrict(t *testing.T) {
	for spec, want := range map[string]string{
		`{"mtls":"permissive"}`: mesh.MTLSPermissive, `{"mtls":"disabled"}`: mesh.MTLSStrict, `{"mode":"PERMISSIVE"}`: mesh.MTLSStrict, `{"ports":[{"port":80}]}`: mesh.MTLSStrict,
	} {
		text := `{"apiVersion":"mesh.meridian.dev/v1alpha1","kind":"PeerAuthentication","metadata":{"name":"p","namespace":"team"},"spec":` + spec + `}`
		doc, err := Decode(mesh.KindPeerAuthentication, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		out := Translate(&Input{Cluster: "c", Own: []*Own{doc.(*Own)}}, time.Unix(0, 0))
		if p := out.Objects.PeerAuthentications; len(p) != 1 || p[0].Spec.MTLS != want || p[0].Metadata.Namespace != "team" {
			t.Errorf("%s: %+v", spec, p)
		}
	}
}
