package tlsio

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestPick(t *testing.T) {
	s := newServer()
	for _, h := range []string{"*.example.com", "shop.example.com", "*.eu.example.com", "Upper.example.org"} {
		s.listeners = append(s.listeners, serverListener{hostname: strings.ToLower(h)})
	}
	for name, want := range map[string]int{
		"shop.example.com": 1, "SHOP.example.com": 1, "a.example.com": 0, "a.b.example.com": 0, "a.eu.example.com": 2,
		"eu.example.com": 0, "example.com": -1, ".example.com": -1, "upper.example.org": 3, "other.org": -1, "": -1,
	} {
		if got := s.Pick(name); got != want {
			t.Errorf("%q: listener %d, want %d", name, got, want)
		}
	}
	s.listeners = append(s.listeners, serverListener{})
	for name, want := range map[string]int{"": 4, "other.org": 4, "shop.example.com": 1, "a.eu.example.com": 2} {
		if got := s.Pick(name); got != want {
			t.Errorf("with one for any, %q: listener %d, want %d", name, got, want)
		}
	}
}

// pairIn writes NAME.crt and NAME.key.
func pairIn(t *testing.T, dir, name string) KeyPair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	k := KeyPair{Name: name, CertificateFile: filepath.Join(dir, name+".crt"), KeyFile: filepath.Join(dir, name+".key")}
	for file, block := range map[string]*pem.Block{k.CertificateFile: {Type: "CERTIFICATE", Bytes: der}, k.KeyFile: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

// TestLoadFaults: what is wrong names the file and what to do, and nothing of a key.
func TestLoadFaults(t *testing.T) {
	dir := t.TempDir()
	good, other := pairIn(t, dir, "good"), pairIn(t, dir, "other")
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	secret, err := os.ReadFile(good.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		pair KeyPair
		want string
	}{
		{good, ""},
		{KeyPair{CertificateFile: good.CertificateFile}, ""},
		{KeyPair{CertificateFile: dir + "/none.crt", KeyFile: good.KeyFile}, "none.crt does not exist: write it"},
		{KeyPair{CertificateFile: good.CertificateFile, KeyFile: dir + "/none.key"}, "none.key does not exist: write it"},
		{KeyPair{CertificateFile: good.CertificateFile, KeyFile: other.KeyFile}, "other.key is not that of the certificate in " + good.CertificateFile},
		{KeyPair{CertificateFile: dir, KeyFile: good.KeyFile}, "is not a regular file"},
		{KeyPair{CertificateFile: write("text.crt", "hello"), KeyFile: good.KeyFile}, "text.crt holds no certificate in PEM"},
		{KeyPair{CertificateFile: good.KeyFile, KeyFile: good.KeyFile}, "good.key holds no certificate in PEM"},
		{KeyPair{CertificateFile: write("broken.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), KeyFile: good.KeyFile}, "broken.crt: certificate 1 cannot be read"},
		{KeyPair{CertificateFile: good.CertificateFile, KeyFile: write("text.key", "hello")}, "text.key holds no key in PEM"},
		{KeyPair{CertificateFile: good.CertificateFile, KeyFile: write("sealed.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")}, "sealed.key holds no key that can be used: write an unencrypted"},
		{KeyPair{CertificateFile: write("long.crt", strings.Repeat("x", mostBytes+1))}, "at most"},
	} {
		_, _, err := tt.pair.Load()
		switch {
		case err == nil && tt.want != "", err != nil && (tt.want == "" || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%+v: %v, want %q", tt.pair, err, tt.want)
		case err != nil && strings.Contains(err.Error(), strings.Split(string(secret), "\n")[1][:20]):
			t.Errorf("a key is in %v", err)
		}
	}
}

// TestTickets: a ticket is good for one turn of the keys, and no longer.
func TestTickets(t *testing.T) {
	pair := pairIn(t, t.TempDir(), "site")
	s := NewStore(slog.New(slog.DiscardHandler), nil)
	now := time.Now()
	s.now = func() time.Time { return now }
	server := func(clients ...KeyPair) *Server {
		s.Begin()
		out, problems := s.Server("gateway", []ListenerSpec{{Name: "https", Certificates: []KeyPair{pair}, ClientCAs: clients, ClientsOptional: true, Min: tls.VersionTLS13}})
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		return out
	}
	cache := tls.NewLRUClientSessionCache(1)
	resumed := func(with *Server) bool {
		t.Helper()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		served := make(chan error, 1)
		go func() {
			b, err := l.Accept()
			if err == nil {
				defer b.Close()
				_, err = tls.Server(b, with.config).Write([]byte("x")) // the ticket precedes it
			}
			served <- err
		}()
		a, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		if err := a.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		c := tls.Client(a, &tls.Config{ServerName: "site", InsecureSkipVerify: true, ClientSessionCache: cache})
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if err := <-served; err != nil {
			t.Fatal(err)
		}
		return c.ConnectionState().DidResume
	}
	if resumed(server()) || !resumed(server()) {
		t.Error("the second session does not go on with the first")
	}
	if resumed(server(KeyPair{Name: "issuer", CertificateFile: pair.CertificateFile})) {
		t.Error("a session goes on where clients are asked something else")
	}
	turn := func() {
		now = now.Add(ticketEvery)
		s.Look()
		select {
		case <-s.Changed():
		default:
			t.Error("new keys are not told of")
		}
	}
	if resumed(server()); !resumed(server()) {
		t.Error("no resumption")
	}
	turn()
	if !resumed(server()) {
		t.Error("a ticket of the key before is not taken")
	}
	turn()
	turn()
	if resumed(server()) {
		t.Error("a ticket of two keys ago is taken")
	}
}
