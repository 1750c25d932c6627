package controller_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/cookiejar"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/meridian-mesh/meridian/controller"
	"github.com/meridian-mesh/meridian/controller/login"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

// certificate writes one for 127.0.0.1 and its key, and returns who trusts it.
func certificate(t *testing.T, dir string) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "page"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert, key, pool = filepath.Join(dir, "page.crt"), filepath.Join(dir, "page.key"), x509.NewCertPool()
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	pool.AppendCertsFromPEM(certPEM)
	for path, data := range map[string][]byte{cert: certPEM, key: pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key, pool
}

const passphrase = "correct horse battery"

func usersFile(t *testing.T, path string, roles map[string]login.Role) {
	t.Helper()
	var text strings.Builder
	for name, role := range roles {
		u, err := login.NewUser(name, role, passphrase, bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		text.WriteString(u.String() + "\n")
	}
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

// browserOf is a client that keeps cookies, as a browser does.
type browserOf struct {
	t    *testing.T
	base string
	http http.Client
}

func (b *browserOf) do(method, path string, body any, change ...func(*http.Request)) (int, string) {
	b.t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		b.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(b.t.Context(), method, b.base+path, bytes.NewReader(data))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	for _, f := range change {
		f(r)
	}
	resp, err := b.http.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.StatusCode, string(said)
}

// The page beyond this machine: nothing without a login, no more than the role with
// one, and all of it audited.
func TestPageHasADoor(t *testing.T) {
	dir := t.TempDir()
	cert, key, pool := certificate(t, dir)
	users := filepath.Join(dir, "users")
	usersFile(t, users, map[string]login.Role{"vera": login.View, "otto": login.Operate, "ann": login.Admin})
	s := start(t, controller.Config{Site: "a", Hub: true, Version: "test", Page: controller.Page{Listen: "127.0.0.1:0", Users: users, Cert: cert, Key: key}})
	s.must(siteDoc("a", 0))
	visit := func() *browserOf {
		jar, err := cookiejar.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
		t.Cleanup(tr.CloseIdleConnections)
		return &browserOf{t, s.run.Page, http.Client{Transport: tr, Jar: jar}}
	}
	as := func(name string) *browserOf {
		b := visit()
		if code, said := b.do("POST", siteapi.PathLogin, siteapi.Login{Name: name, Password: passphrase}); code != 200 || strings.Contains(said, "$2") {
			t.Fatalf("%s logs in: %d %s", name, code, said)
		}
		return b
	}

	cordon := siteapi.TrafficRequest{Site: "a", Traffic: "cordoned", Reason: "test", DryRun: true}
	apply := siteapi.ApplyRequest{DryRun: true, Documents: []siteapi.Document{{Name: "x", YAML: siteDoc("x", 0)}}}
	stranger := visit()
	for path, want := range map[string]int{
		"/": 200, "/app.js": 200, "/healthz": 200, siteapi.PathStatus: 401, siteapi.PathObjects: 401, siteapi.PathLogin: 401,
		siteapi.PathAudit: 401, "/metrics": 401, "/readyz": 401, "/traffic": 401, "/api/v1/../v1/status": 401, "/api/v1/x.js": 401, "/./traffic": 401, "/x/../metrics": 401,
	} {
		if code, said := stranger.do("GET", path, nil); code != want {
			t.Errorf("without a login, %s: %d %.80s", path, code, said)
		}
	}
	if code, _ := stranger.do("POST", siteapi.PathApply, apply); code != 401 {
		t.Errorf("without a login, apply: %d", code)
	}

	for _, c := range []struct {
		who                string
		look, cordon, appl int
	}{{"vera", 200, 403, 403}, {"otto", 200, 200, 403}, {"ann", 200, 200, 200}} {
		b := as(c.who)
		if code, said := b.do("GET", siteapi.PathStatus, nil); code != c.look {
			t.Errorf("%s looks: %d %.80s", c.who, code, said)
		}
		if code, said := b.do("POST", siteapi.PathTraffic, cordon); code != c.cordon {
			t.Errorf("%s cordons: %d %s", c.who, code, said)
		}
		if code, said := b.do("POST", siteapi.PathApply, apply); code != c.appl {
			t.Errorf("%s applies: %d %s", c.who, code, said)
		}
		if code, said := b.do("POST", siteapi.PathToken, siteapi.TokenRequest{}); c.who != "ann" && code != 403 {
			t.Errorf("%s makes a token: %d %s", c.who, code, said)
		}
		if code, _ := b.do("GET", siteapi.PathStatus, nil, func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }); code != 403 {
			t.Errorf("another page in %s's browser: %d", c.who, code)
		}
		if code, _ := b.do("DELETE", siteapi.PathLogin, nil); code != 200 {
			t.Errorf("%s logs out: %d", c.who, code)
		}
		if code, _ := b.do("GET", siteapi.PathStatus, nil); code != 401 {
			t.Errorf("%s logged out and looks: %d", c.who, code)
		}
	}

	// The cookie is for TLS, for this host, and not for scripts.
	var set string
	b := visit()
	r, err := b.http.Post(b.base+siteapi.PathLogin, "application/json", strings.NewReader(`{"name":"vera","password":"`+passphrase+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	set = r.Header.Get("Set-Cookie")
	for _, want := range []string{"__Host-meridian=", "Path=/", "HttpOnly", "Secure", "SameSite=Strict"} {
		if !strings.Contains(set, want) {
			t.Errorf("cookie %q without %s", set, want)
		}
	}
	// Who is taken out of the file is out.
	usersFile(t, users, map[string]login.Role{"ann": login.Admin})
	if code, _ := b.do("GET", siteapi.PathStatus, nil); code != 401 {
		t.Errorf("vera was removed and looks: %d", code)
	}

	// Wrong passwords: refused alike, and after some of them with waiting.
	wrong := visit()
	for i := range 12 {
		name := []string{"ann", "nobody"}[i%2]
		code, said := wrong.do("POST", siteapi.PathLogin, siteapi.Login{Name: name, Password: "no"})
		if i < 5 && (code != 401 || !strings.Contains(said, "the name or the password is wrong")) {
			t.Errorf("attempt %d: %d %s", i, code, said)
		}
		if i == 11 && code != 429 {
			t.Errorf("attempt %d: %d %s", i, code, said)
		}
	}

	var audit siteapi.Audit
	resp, err := http.Get(s.run.API + siteapi.PathAudit)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&audit); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, a := range audit.Changes {
		text.WriteString(a.Who + ": " + a.What + ": " + a.Outcome + "\n")
	}
	for _, want := range []string{
		"(this machine): apply: done", "vera: log in: done", "vera: POST " + siteapi.PathTraffic + ": not allowed",
		`otto: site-traffic {"site":"a","traffic":"cordoned"`, "ann: apply: done", "nobody: log in: refused",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the audit lacks %q:\n%s", want, &text)
		}
	}
}

func TestPageNeedsItsFiles(t *testing.T) {
	dir := t.TempDir()
	cert, key, _ := certificate(t, dir)
	open, bad := filepath.Join(dir, "open"), filepath.Join(dir, "bad")
	usersFile(t, open, map[string]login.Role{"ann": login.Admin})
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bad, []byte("ann root x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, page := range map[string]controller.Page{
		"a file of users":   {Listen: "127.0.0.1:0", Cert: cert, Key: key},
		"a certificate":     {Listen: "127.0.0.1:0", Users: bad},
		"no address":        {Users: bad},
		"chmod 600":         {Listen: "127.0.0.1:0", Users: open, Cert: cert, Key: key},
		"line 1: user ann:": {Listen: "127.0.0.1:0", Users: bad, Cert: cert, Key: key},
	} {
		c, err := controller.New(controller.Config{Site: "a", Hub: true, Data: t.TempDir(), Version: "test", Page: page}, controller.Deps{})
		if err == nil {
			err = c.Run(short(t))
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", page, err, want)
		}
	}
}
