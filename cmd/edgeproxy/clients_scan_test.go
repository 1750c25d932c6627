//go:build clients

package main

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/xml"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// issued is a certificate of an authority, as an operator has one: with a year to live
// and the place of its revocation list, so that what a scanner finds is the proxy's.
func issued(t *testing.T) (certificate, key, authority string) {
	t.Helper()
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(2, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: new(big.Int).Lsh(big.NewInt(now.UnixNano()), 64), Subject: pkix.Name{CommonName: "edge.example.com"},
		DNSNames: []string{"edge.example.com"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 6, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		CRLDistributionPoints: []string{"http://edge.example.com/authority.crl"}, BasicConstraintsValid: true,
	}
	caKey, leafKey := newKey(t), newKey(t)
	return sign(t, leaf, ca, leafKey, caKey), keyPEM(t, leafKey), sign(t, ca, ca, caKey, caKey)
}

// scanned are the listeners that scanners look at: as shipped, and with TLS 1.2.
var scanned = []struct{ name, options string }{
	{"as shipped", ""},
	{"TLS 1.2 too", `, options: {mesh.meridian.dev/min-tls-version: "1.2"}`},
}

// scans starts a proxy with such a listener and returns its address and its authority's
// certificate.
func scans(t *testing.T, options string) (addr, authority string) {
	t.Helper()
	certificate, key, ca := issued(t)
	dir := t.TempDir()
	authority = filepath.Join(dir, "authority.pem")
	put(t, authority, ca)
	a := startBackend(t, "a", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello")) })
	config := filepath.Join(dir, "mesh.yaml")
	put(t, config, withCertificate(t, smallest(a.address()), options, certificate, key))
	return start(t, t.TempDir(), "--config", config).listener("default/ingress/http"), authority
}

// TestClientSSLScan has sslscan look for old versions, weak ciphers and known holes.
func TestClientSSLScan(t *testing.T) {
	sslscan := tool(t, "apt-get install sslscan", "sslscan")
	for _, tt := range scanned {
		t.Run(tt.name, func(t *testing.T) {
			addr, _ := scans(t, tt.options)
			var found struct {
				Test struct {
					Protocol []struct {
						Type    string `xml:"type,attr"`
						Version string `xml:"version,attr"`
						Enabled bool   `xml:"enabled,attr"`
					} `xml:"protocol"`
					Renegotiation struct {
						Supported bool `xml:"supported,attr"`
						Secure    bool `xml:"secure,attr"`
					} `xml:"renegotiation"`
					Compression struct {
						Supported bool `xml:"supported,attr"`
					} `xml:"compression"`
					Heartbleed []struct {
						Vulnerable bool `xml:"vulnerable,attr"`
					} `xml:"heartbleed"`
					Cipher []struct {
						Name     string `xml:"cipher,attr"`
						Version  string `xml:"sslversion,attr"`
						Strength string `xml:"strength,attr"`
					} `xml:"cipher"`
				} `xml:"ssltest"`
			}
			out := ran(t, sslscan, "--xml=-", addr)
			if err := xml.Unmarshal([]byte(out), &found); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			var versions []string
			for _, p := range found.Test.Protocol {
				if p.Enabled {
					versions = append(versions, p.Type+p.Version)
				}
			}
			want := []string{"tls1.3"}
			if tt.options != "" {
				want = []string{"tls1.2", "tls1.3"}
			}
			if !slices.Equal(versions, want) || len(found.Test.Protocol) != 6 {
				t.Errorf("versions %v of %d, want %v of 6", versions, len(found.Test.Protocol), want)
			}
			if len(found.Test.Cipher) != 3*len(want) {
				t.Errorf("%d ciphers, want three for each version", len(found.Test.Cipher))
			}
			for _, c := range found.Test.Cipher {
				// It calls all of TLS 1.3 acceptable, since none there can be weak.
				if c.Strength != "strong" && (c.Strength != "acceptable" || c.Version != "TLSv1.3") {
					t.Errorf("cipher %s of %s is %s", c.Name, c.Version, c.Strength)
				}
			}
			if len(found.Test.Heartbleed) != len(want) {
				t.Errorf("looked for Heartbleed %d times, want %d", len(found.Test.Heartbleed), len(want))
			}
			for _, h := range found.Test.Heartbleed {
				if h.Vulnerable {
					t.Error("Heartbleed")
				}
			}
			if r := found.Test.Renegotiation; r.Supported && !r.Secure || found.Test.Compression.Supported {
				t.Error("insecure renegotiation or compression is supported")
			}
			if t.Failed() {
				t.Log(out)
			}
		})
	}
}

// TestClientTestSSL has testssl.sh look at everything but the list of browsers that
// would connect and the fields of a backend's answer; at ciphers by their strength only
// where there is TLS 1.2, since it takes long. Nothing may be "NOT ok".
func TestClientTestSSL(t *testing.T) {
	testssl := tool(t, "apt-get install testssl.sh", "testssl", "testssl.sh")
	for _, tt := range scanned {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // it waits more than it computes
			addr, authority := scans(t, tt.options)
			report := filepath.Join(t.TempDir(), "report.json")
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			args := []string{"--nodns", "none", "--warnings", "batch", "--color", "0", "--quiet", "--add-ca", authority, "--jsonfile", report, "-p", "-f", "-P", "-S", "-U"}
			want := []string{
				"SSLv2", "SSLv3", "TLS1_3", "ALPN_HTTP2", "PFS", "cert_chain_of_trust", "heartbleed", "CCS", "ticketbleed", "ROBOT", "secure_renego", "secure_client_renego",
				"CRIME_TLS", "POODLE_SSL", "fallback_SCSV", "FREAK", "DROWN", "LOGJAM", "BEAST", "LUCKY13", "RC4",
			}
			if tt.options != "" {
				args = append(args, "-s")
				want = append(want, "cipherlist_NULL", "cipherlist_aNULL", "cipherlist_EXPORT", "cipherlist_LOW", "SWEET32", "cipher_order")
			}
			cmd := exec.CommandContext(ctx, testssl, append(args, addr)...)
			cmd.Dir = t.TempDir()
			// Its status is how many tests it could not make, for want of ciphers in the
			// system's OpenSSL: what has to be there is asked for below.
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState == nil || ctx.Err() != nil {
				t.Fatalf("testssl: %v\n%s", err, out)
			}
			text, err := os.ReadFile(report)
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			var findings []struct{ ID, Severity, Finding string }
			if err := json.Unmarshal(text, &findings); err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			good := map[string]bool{}
			for _, f := range findings {
				switch f.Severity {
				case "OK":
					good[f.ID] = true
				case "INFO", "LOW": // LOW: crypto/tls says a week of tickets whose keys live for a day
				default:
					t.Errorf("%s is %s: %s", f.ID, f.Severity, f.Finding)
				}
			}
			for _, id := range want {
				if !good[id] {
					t.Errorf("%s was not found to be good", id)
				}
			}
			if strings.Contains(string(out), "NOT ok") || t.Failed() {
				t.Errorf("testssl:\n%s", out)
			}
		})
	}
}
