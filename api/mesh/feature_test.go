package mesh

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// TestRequires: a snapshot says what its reader needs, and no more.
func TestRequires(t *testing.T) {
	hops := func(n int) *Objects {
		return &Objects{TrafficPolicies: []*TrafficPolicy{{Spec: TrafficPolicySpec{Forwarding: &Forwarding{TrustedHops: n}}}}}
	}
	// All that the schema's test uses, but the policies.
	shared := mustParse(t, valid)
	shared.TrafficPolicies = nil
	for want, o := range map[string]*Objects{
		"": mustParse(t, smallest),
		"af-sfc-requirements,cross-namespace,external-functions,geo-fence,authorization,peer-authentication,link-budget,request-chains,redirect,route-retry,tls": shared,
		"tls-terminate,tls":  {Gateways: []*Gateway{{Spec: GatewaySpec{Listeners: []Listener{{Protocol: ProtocolTLS, TLS: &ListenerTLS{Mode: TLSTerminate}}}}}}},
		"listener-hostnames": {Gateways: []*Gateway{{Spec: GatewaySpec{Listeners: []Listener{{Hostnames: []string{"a.test"}}}}}}},
		"trusted-hops":       hops(1),
	} {
		if got := strings.Join(o.Requires(), ","); got != want {
			t.Errorf("requires %q, want %q", got, want)
		}
	}
	if got := hops(0).Requires(); got != nil {
		t.Errorf("no hops require %q", got)
	}
	names := []string{}
	for _, f := range features {
		names = append(names, f.name)
	}
	for name := range Features {
		if !slices.Contains(names, name) {
			t.Errorf("feature %s is understood and never asked for", name)
		}
	}
}

// TestNeighbouringVersions: a snapshot with something new is refused by a build
// before it, by name; one without is read there, and one from there here.
func TestNeighbouringVersions(t *testing.T) {
	now := Features
	defer func() { Features = now }()
	encode := func(o *Objects) []byte {
		s := &Snapshot{Origin: "north", Site: "north", Objects: *o}
		if err := s.Seal(nil); err != nil {
			t.Fatal(err)
		}
		data, err := EncodeSnapshot(s)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	retry := mustParse(t, smallest)
	retry.HTTPRoutes[0].Spec.Rules[0].Retry = &RouteRetry{Codes: []int{503}}
	with, without := encode(retry), encode(mustParse(t, smallest))

	Features = map[string]bool{} // the build before
	if _, err := DecodeSnapshot(with); err == nil || !strings.Contains(err.Error(), `feature "route-retry"`) || !strings.Contains(err.Error(), "upgrade") {
		t.Errorf("the build before takes it: %v", err)
	}
	if _, err := DecodeSnapshot(without); err != nil {
		t.Errorf("the build before refuses what it knows: %v", err)
	}
	Features = now
	if s, err := DecodeSnapshot(with); err != nil || s.Verify(nil) != nil || len(s.Objects.HTTPRoutes[0].Spec.Rules[0].Retry.Codes) != 1 {
		t.Errorf("this build refuses its own: %v", err)
	}

	// One from the build after, with a field that nobody here knows.
	next := bytes.Replace(without, []byte(`"origin":"north"`), []byte(`"origin":"north","colour":"blue"`), 1)
	var any map[string]any
	if err := json.Unmarshal(next, &any); err != nil || any["colour"] != "blue" {
		t.Fatalf("%v %s", err, next)
	}
	if _, err := DecodeSnapshot(next); err != nil {
		t.Errorf("an unknown field that nothing requires is refused: %v", err)
	}
}
