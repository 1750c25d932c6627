//go:build kube

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"syscall"
	"testing"
	"time"
)

const apiPath = "/apis/gateway.networking.k8s.io/v1/namespaces/default"

// streams has TCPRoutes, TLSRoutes and UDPRoutes come from the cluster, and clients of
// each protocol reach what they name, through the proxies at addresses.
func (c *cluster) streams(t *testing.T, host string, addresses []string) {
	shared := freePort(t) // of TCP and UDP
	c.post(t, gatewaysPath, fmt.Sprintf(`{"metadata": {"name": "streams"}, "spec": {"gatewayClassName": "meridian", "listeners": [
		{"name": "tcp", "port": %d, "protocol": "TCP"}, {"name": "udp", "port": %d, "protocol": "UDP"},
		{"name": "tls", "port": %d, "protocol": "TLS", "tls": {"mode": "Passthrough"}}]}}`, shared, shared, freePort(t)))
	ports := c.listenerPorts(t, "streams")
	serve := func(name, protocol string, port int) {
		c.post(t, "/api/v1/namespaces/default/services", fmt.Sprintf(`{"metadata": {"name": %q}, "spec": {"ports": [{"port": 90, "protocol": %q}]}}`, name, protocol))
		c.post(t, slicesPath, fmt.Sprintf(`{"metadata": {"name": %q, "labels": {"kubernetes.io/service-name": %q}}, "addressType": "IPv4",
			"ports": [{"name": "", "port": %d, "protocol": %q}], "endpoints": [{"addresses": [%q], "conditions": {"ready": true}}]}`, name, name, port, protocol, host))
	}
	serve("first", "TCP", sayer(t, host, "first", nil))
	serve("second", "TCP", sayer(t, host, "second", nil))
	serve("secure", "TCP", sayer(t, host, "secure", selfSigned(t)))
	serve("packets", "UDP", packetSayer(t, host, "packets"))
	c.post(t, apiPath+"/tcproutes", streamRoute("z-older", "", "tcp", "first"))
	c.post(t, apiPath+"/udproutes", streamRoute("packets", "", "udp", "packets"))
	c.post(t, apiPath+"/tlsroutes", streamRoute("secure", `"hostnames": ["a.test"], `, "tls", "secure"))
	c.post(t, apiPath+"/tlsroutes", streamRoute("nowhere", `"hostnames": ["b.test"], `, "tls", "gone"))
	time.Sleep(1100 * time.Millisecond) // creation times have no fractions
	c.post(t, apiPath+"/tcproutes", streamRoute("a-younger", "", "tcp", "second"))
	for path, reason := range map[string]string{"tcproutes/z-older": "", "tcproutes/a-younger": "", "udproutes/packets": "", "tlsroutes/secure": "", "tlsroutes/nowhere": "BackendNotFound"} {
		eventually(t, "conditions of "+path, func() string {
			if text := c.want(t, apiPath+"/"+path, "Accepted", "True", "Accepted"); text != "" {
				return text
			}
			if reason != "" {
				return c.want(t, apiPath+"/"+path, "ResolvedRefs", "False", reason)
			}
			return c.want(t, apiPath+"/"+path, "ResolvedRefs", "True", "ResolvedRefs")
		})
	}
	for _, address := range addresses {
		at := func(listener string) string { return fmt.Sprintf("%s:%d", address, ports[listener]) }
		secure := func(name string) string {
			conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", at("tls"), &tls.Config{ServerName: name, InsecureSkipVerify: true})
			return heard(conn, err)
		}
		for what, ask := range map[string]struct {
			ask  func() string
			want string
		}{
			"TCP":                             {func() string { return heard(net.DialTimeout("tcp", at("tcp"), 5*time.Second)) }, "first"},
			"UDP":                             {func() string { return heard(net.Dial("udp", at("udp"))) }, "packets"},
			"TLS":                             {func() string { return secure("a.test") }, "secure"},
			"TLS that leads nowhere":          {func() string { return secure("b.test") }, "refused"},
			"TLS of a name that no route has": {func() string { return secure("c.test") }, "refused"},
		} {
			eventually(t, what+" at "+address, func() string {
				if got := ask.ask(); got != ask.want {
					return fmt.Sprintf("hears %q, want %q", got, ask.want)
				}
				return ""
			})
		}
		// The younger of two gets nothing, however often one asks.
		for range 50 {
			if got := heard(net.DialTimeout("tcp", at("tcp"), 5*time.Second)); got != "first" {
				t.Errorf("with two TCPRoutes at a listener a connection hears %q, want the older's", got)
				break
			}
		}
	}
}

func streamRoute(name, more, listener, service string) string {
	return fmt.Sprintf(`{"metadata": {"name": %q}, "spec": {%s"parentRefs": [{"name": "streams", "sectionName": %q}], "rules": [{"backendRefs": [{"name": %q, "port": 90}]}]}}`, name, more, listener, service)
}

// listenerPorts waits until a Gateway is programmed and returns its listeners' ports.
func (c *cluster) listenerPorts(t *testing.T, gateway string) map[string]int {
	t.Helper()
	ports := map[string]int{}
	eventually(t, "Gateway "+gateway, func() string {
		var o struct {
			Spec struct {
				Listeners []struct {
					Name string
					Port int
				}
			}
			Status struct {
				Conditions []struct{ Type, Status string }
			}
		}
		c.get(t, gatewaysPath+"/"+gateway, &o)
		for _, l := range o.Spec.Listeners {
			ports[l.Name] = l.Port
		}
		for _, x := range o.Status.Conditions {
			if x.Type == "Programmed" && x.Status == "True" {
				return ""
			}
		}
		return fmt.Sprintf("%+v", o.Status)
	})
	return ports
}

// heard is what the other side says first, after a word of this one.
func heard(c net.Conn, err error) string {
	if err == nil {
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		_, err = c.Write([]byte("hello"))
		buf := make([]byte, 64)
		if err == nil {
			var n int
			if n, err = c.Read(buf); err == nil {
				return string(buf[:n])
			}
		}
	}
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		return "refused"
	}
	return err.Error()
}

// sayer says its name to whoever connects.
func sayer(t *testing.T, host, name string, certificate *tls.Certificate) int {
	t.Helper()
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	port := l.Addr().(*net.TCPAddr).Port
	if certificate != nil {
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{*certificate}})
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = c.Write([]byte(name))
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
			}()
		}
	}()
	return port
}

func packetSayer(t *testing.T, host, name string) int {
	t.Helper()
	c, err := net.ListenPacket("udp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	go func() {
		buf := make([]byte, 2048)
		for {
			_, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo([]byte(name), from)
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).Port
}

func selfSigned(t *testing.T) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"a.test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
