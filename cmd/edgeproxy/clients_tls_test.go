//go:build clients

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// selfSigned makes a certificate for the loopback address and its key, as PEM.
func selfSigned(t *testing.T) (certificate, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
}

// overTLS is the smallest file with its listener on HTTPS, with options beside the
// certificate, which are empty for what is shipped.
func overTLS(t *testing.T, config, options string) string {
	t.Helper()
	dir := t.TempDir()
	certificate, key := selfSigned(t)
	put(t, filepath.Join(dir, "site.crt"), certificate)
	put(t, filepath.Join(dir, "site.key"), key)
	return strings.Replace(config, "protocol: HTTP}", "protocol: HTTPS, tls: {certificateRefs: [{group: mesh.meridian.dev, kind: Certificate, name: site}]"+options+"}}", 1) +
		"---\napiVersion: mesh.meridian.dev/v1alpha1\nkind: Certificate\nmetadata: {name: site}\nspec: {certificateFile: " + dir + "/site.crt, keyFile: " + dir + "/site.key}\n"
}

// h2specSaid is the last line of h2spec.
var h2specSaid = regexp.MustCompile(`(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed`)

// TestClientH2Spec has h2spec (RFC 7540 framing and HPACK) judge the proxy's server
// side: one listener that tells HTTP/1.1 from HTTP/2 by its first octets, and one over
// TLS that agrees on it.
func TestClientH2Spec(t *testing.T) {
	h2spec := filepath.Join(t.TempDir(), "h2spec")
	ran(t, "go", "build", "-C", "testdata/h2spec", "-o", h2spec, "github.com/summerwind/h2spec/cmd/h2spec")
	a := startBackend(t, "a", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello from the backend")) })
	for _, listener := range []string{"h2c", "TLS"} {
		for _, tt := range []struct{ rules, tests string }{{"", "145"}, {"strict", "146"}} {
			t.Run(listener+" "+tt.rules, func(t *testing.T) {
				mesh, args := smallest(a.address()), []string{"-o", "5"}
				if listener == "TLS" {
					mesh, args = overTLS(t, mesh, ""), append(args, "-t", "-k")
				}
				if tt.rules != "" {
					args = append(args, "-S")
				}
				config := filepath.Join(t.TempDir(), "mesh.yaml")
				put(t, config, mesh)
				host, port, err := net.SplitHostPort(start(t, t.TempDir(), "--config", config).listener("default/ingress/http"))
				if err != nil {
					t.Fatal(err)
				}
				out := ran(t, h2spec, append(args, "-h", host, "-p", port)...)
				if m := h2specSaid.FindStringSubmatch(out); m == nil || m[1] != tt.tests || m[2] != tt.tests {
					t.Errorf("%q, want %s of %s passed\n%s", m, tt.tests, tt.tests, out)
				}
			})
		}
	}
}
