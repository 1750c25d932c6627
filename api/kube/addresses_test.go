package kube

import (
	"net/netip"
	"strings"
	"testing"
)

// A Gateway keeps its address when others come and go.
func TestAddressStays(t *testing.T) {
	in := read(t, base)
	in.Gateways[0].Status.Addresses = []GatewayAddress{{"IPAddress", "10.98.0.1"}}
	in.Gateways = append(in.Gateways, &Gateway{Meta: Meta{Namespace: "a", Name: "older"}, Class: "meridian", Listeners: in.Gateways[0].Listeners})
	out := Translate(in, noon)
	got := map[string]string{}
	for _, g := range out.Objects.Gateways {
		got[g.Metadata.Name] = g.Spec.Addresses[0].Value
	}
	if got["gw"] != "10.98.0.1" || got["older"] != "10.98.0.2" {
		t.Errorf("addresses %v", got)
	}
	in.Pool = []netip.Prefix{netip.MustParsePrefix("10.98.0.1/32")}
	for _, l := range said(Translate(in, noon)) {
		if strings.HasPrefix(l, "Gateway a/older ") && !strings.Contains(l, "Programmed=False/AddressNotAssigned") {
			t.Error(l)
		}
	}
	in.Pool = nil
	if a := Translate(in, noon).Objects.Gateways[0].Spec.Addresses; len(a) != 0 {
		t.Errorf("without a pool it binds %v", a)
	}
}

// Nor is it given to another that comes before its status says it: of those that are
// made in the same second the one that was seen later may be first in the order.
func TestAddressStaysBeforeStatus(t *testing.T) {
	in := read(t, base)
	at := func(out *Output) map[string]string {
		got := map[string]string{}
		for _, g := range out.Objects.Gateways {
			got[g.Metadata.Name] = g.Spec.Addresses[0].Value
		}
		return got
	}
	out := Translate(in, noon)
	if got := at(out); got["gw"] != "10.98.0.1" {
		t.Fatalf("addresses %v", got)
	}
	in.Given = out.Given
	in.Gateways = append(in.Gateways, &Gateway{Meta: Meta{Namespace: "a", Name: "first"}, Class: "meridian", Listeners: in.Gateways[0].Listeners})
	out = Translate(in, noon)
	if got := at(out); got["gw"] != "10.98.0.1" || got["first"] != "10.98.0.2" {
		t.Errorf("addresses %v", got)
	}
	// What a status says goes before it: another site's bridge may have written it.
	in.Given = out.Given
	in.Gateways[1].Status.Addresses = []GatewayAddress{{"IPAddress", "10.98.0.1"}}
	if got := at(Translate(in, noon)); got["first"] != "10.98.0.1" || got["gw"] == "10.98.0.1" {
		t.Errorf("addresses %v", got)
	}
	// Who has gone leaves it to others.
	in.Gateways = in.Gateways[:1]
	if out = Translate(in, noon); len(out.Given) != 1 {
		t.Errorf("given %v", out.Given)
	}
}
