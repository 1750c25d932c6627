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
	c := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	k := newKey(t)
	return sign(t, c, c, k, k), keyPEM(t, k)
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func keyPEM(t *testing.T, k *ecdsa.PrivateKey) string {
	t.Helper()
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
}

// sign issues c for the key k by parent and its key.
func sign(t *testing.T, c, parent *x509.Certificate, k, by *ecdsa.PrivateKey) string {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, c, parent, k.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// overTLS is the smallest file with its listener on HTTPS. What is not said of TLS is as
// shipped.
func overTLS(t *testing.T, config string) string {
	t.Helper()
	certificate, key := selfSigned(t)
	return withCertificate(t, config, "", certificate, key)
}

// withCertificate is the same with that certificate, and options beside it.
func withCertificate(t *testing.T, config, options, certificate, key string) string {
	t.Helper()
	dir := t.TempDir()
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
					mesh, args = overTLS(t, mesh), append(args, "-t", "-k")
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
