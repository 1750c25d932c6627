//go:build root

package nstest

import (
	"context"
	"net"
	"testing"
	"time"
)

// Packets pass a veth pair between two namespaces, and only there.
func TestRootNamespaces(t *testing.T) {
	a, b := New(t, "a"), New(t, "b")
	Veth(a, "east", b, "west")
	a.IP("addr add 192.0.2.1/24 dev east")
	b.IP("addr add 192.0.2.2/24 dev west")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if out, err := a.Run(ctx, "ping", "-c1", "-W5", "192.0.2.2"); err != nil {
		t.Fatal(err, out)
	}
	b.Sysctl("net.ipv4.ip_forward", "1")
	if err := a.Do(func() error {
		_, err := net.InterfaceByName("east")
		return err
	}); err != nil {
		t.Error("inside:", err)
	}
	if _, err := net.InterfaceByName("east"); err == nil {
		t.Error("the interface is outside too")
	}
}
