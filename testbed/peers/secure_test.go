package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// secureStandIn serves over TLS what the backend answers, with the certificate that it
// writes into the folder, and counts sessions and requests.
func secureStandIn(t *testing.T, clients bool) (addr, dir string, sessions, large *atomic.Int64) {
	t.Helper()
	dir, sessions, large = t.TempDir(), new(atomic.Int64), new(atomic.Int64)
	if err := writeSite(dir); err != nil {
		t.Fatal(err)
	}
	own, err := tls.LoadX509KeyPair(filepath.Join(dir, siteCert), filepath.Join(dir, siteKey))
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{own}, VerifyConnection: func(tls.ConnectionState) error { sessions.Add(1); return nil }}
	if clients {
		if err := writeCertificate(dir, loadCert, loadKey, x509.ExtKeyUsageClientAuth); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(dir, loadCert))
		if err != nil {
			t.Fatal(err)
		}
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		config.ClientCAs.AppendCertsFromPEM(text)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.Header.Get("X-Fill")) > 7<<10 {
			large.Add(1)
		}
		_, _ = w.Write(bytes.Repeat([]byte("m"), bodyLength))
	})}
	go s.Serve(tls.NewListener(l, config))
	t.Cleanup(func() { s.Close() })
	return l.Addr().String(), dir, sessions, large
}

func TestSecureHold_restsAndFillsRecords(t *testing.T) {
	addr, dir, sessions, large := secureStandIn(t, true)
	if len(twoLarge) != 16<<10 {
		t.Errorf("a record of %d bytes", len(twoLarge))
	}
	h, err := startChild(nil, roleSecureHold, "--addr", addr, "--dir", dir, "--connections", "20")
	if err != nil {
		t.Fatal(err)
	}
	var held loadResult
	if err := h.answer(&held); err != nil || held.Requests != 20 || held.Errors != 0 {
		t.Errorf("%+v, %v", held, err)
	}
	for _, o := range []order{{Large: true}, {}} {
		if held, err := h.load(o); err != nil || held.Requests != 20 || held.Errors != 0 {
			t.Errorf("%+v: %+v, %v", o, held, err)
		}
	}
	if err := h.stop(); err != nil {
		t.Error(err)
	}
	if sessions.Load() != 20 || large.Load() != 40 {
		t.Errorf("%d sessions and %d large requests, want 20 and 40", sessions.Load(), large.Load())
	}
}

func TestBurst_shakesHandsAtOnce(t *testing.T) {
	addr, dir, sessions, _ := secureStandIn(t, false)
	b, err := startChild(nil, roleBurst, "--addr", addr, "--dir", dir, "--connections", "30")
	if err != nil {
		t.Fatal(err)
	}
	if r, err := wellServed(b.load(order{Duration: time.Minute, Once: true})); err != nil || r.Requests != 30 || sessions.Load() != 30 {
		t.Errorf("%+v and %d sessions, want 30: %v", r, sessions.Load(), err)
	}
	if err := b.stop(); err != nil {
		t.Error(err)
	}
}

// What a minute of rest leaves, and new connections take, is judged by the first row.
func TestMissedOverTLS(t *testing.T) {
	pss := func(n int64) footprint { return footprint{PSS: n, RSS: n} }
	idle := []secureIdleRow{
		{Name: "meridian", Rest: pss(8e6), Held: pss(71e6), Large: pss(8e6 + 37*1024*secureConns), After: pss(9.1e6)},
		{Name: "haproxy-idle", Rest: pss(20e6), Held: pss(100e6)},
	}
	got := strings.Join(result{SecureIdle: idle, Burst: []burstRow{{Alone: []float64{1000}, Once: []float64{11_100}, Again: []float64{1}}}}.missed(), "\n")
	for _, want := range []string{"0.71 of the memory of haproxy-idle", "37888 bytes a connection", "1.1 MB more than at rest", "p99 rises by 10.1 ms"} {
		if !strings.Contains(got, want) {
			t.Errorf("missed: %s, want %s", got, want)
		}
	}
	idle[0].Held, idle[0].Large, idle[0].After = pss(70e6), pss(8e6+36*1024*secureConns), pss(9e6)
	if got := (result{SecureIdle: idle, Burst: []burstRow{{Alone: []float64{1000}, Once: []float64{11_000}, Again: []float64{1}}}}).missed(); len(got) > 0 {
		t.Errorf("missed: %q", got)
	}
}
