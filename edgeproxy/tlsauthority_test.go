package edgeproxy

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/tlsio"
)

// authority issues certificates for tests.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir(), pool: x509.NewCertPool()}
	a.cert, a.key = a.make(&x509.Certificate{Subject: pkix.Name{CommonName: "issuer"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	a.pool.AddCert(a.cert)
	a.write("issuer.crt", "CERTIFICATE", a.cert.Raw)
	return a
}

func (a *authority) make(c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	if c.NotAfter.IsZero() {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	parent, by := a.cert, a.key
	if parent == nil {
		parent, by = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, by)
	if err != nil {
		a.t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return made, key
}

func (a *authority) write(name, kind string, der []byte) string {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	next := path + ".next"
	if err := os.WriteFile(next, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// issue writes NAME.crt and NAME.key for hosts and returns the pair.
func (a *authority) issue(name string, change func(*x509.Certificate), hosts ...string) tls.Certificate {
	a.t.Helper()
	c := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: hosts, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(c)
	}
	made, key := a.make(c)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".key", "PRIVATE KEY", der)
	a.write(name+".crt", "CERTIFICATE", made.Raw)
	return tls.Certificate{Certificate: [][]byte{made.Raw}, PrivateKey: key, Leaf: made}
}

// certificate is the document that names the files of issue, or of the issuer.
func (a *authority) certificate(name string) *mesh.Certificate {
	c := &mesh.Certificate{
		Metadata: mesh.ObjectMeta{Name: name, Namespace: "default"},
		Spec:     mesh.CertificateSpec{CertificateFile: filepath.Join(a.dir, name+".crt"), KeyFile: filepath.Join(a.dir, name+".key")},
	}
	if name == "issuer" {
		c.Spec.KeyFile = ""
	}
	return c
}

func certificateRef(name string) mesh.CertificateRef {
	return mesh.CertificateRef{Group: mesh.MeshGroup, Kind: mesh.KindCertificate, Name: name}
}

func httpsListener(name, hostname string, certificates ...string) mesh.Listener {
	l := mesh.Listener{Name: name, Hostname: hostname, Protocol: mesh.ProtocolHTTPS, TLS: &mesh.ListenerTLS{Mode: mesh.TLSTerminate}}
	for _, c := range certificates {
		l.TLS.CertificateRefs = append(l.TLS.CertificateRefs, certificateRef(c))
	}
	return l
}

// overTLS is toOne behind an HTTPS listener with the certificate "site".
func (a *authority) overTLS(addrs ...string) mesh.Objects {
	o := toOne(addrs...)
	o.Gateways[0].Spec.Listeners = []mesh.Listener{httpsListener("http", "", "site")}
	o.Certificates = []*mesh.Certificate{a.certificate("site"), a.certificate("issuer")}
	return o
}

func (a *authority) config(host string) *tls.Config {
	return &tls.Config{RootCAs: a.pool, ServerName: host}
}

// client speaks HTTP/1.1, or HTTP/2 where two is set.
func (a *authority) client(host string, two bool) *http.Client {
	c := a.config(host)
	tr := &http.Transport{TLSClientConfig: c, Protocols: new(http.Protocols)}
	tr.Protocols.SetHTTP1(!two)
	tr.Protocols.SetHTTP2(two)
	a.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: time.Minute}
}

func (p *proxy) secureURL(path string) string { return "https://" + p.addr("http").String() + path }

// session opens a connection with a config.
func (p *proxy) session(c *tls.Config) (*tls.Conn, error) {
	p.t.Helper()
	d := &tls.Dialer{Config: c, NetDialer: &net.Dialer{Timeout: time.Minute}}
	conn, err := d.DialContext(context.Background(), "tcp", p.addr("http").String())
	if err != nil {
		return nil, err
	}
	p.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	return conn.(*tls.Conn), nil
}

// ask sends a request on a session and returns the answer's status, 0 with an error.
func askTLS(c net.Conn, host string) (int, error) {
	if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host); err != nil {
		return 0, err
	}
	return answerTLS(c)
}

func answerTLS(c net.Conn) (int, error) {
	var got []byte
	b := make([]byte, 1)
	for !bytes.HasSuffix(got, []byte("\r\n\r\n")) {
		if _, err := io.ReadFull(c, b); err != nil {
			return 0, err
		}
		got = append(got, b[0])
	}
	var status, length int
	for _, line := range strings.Split(string(got), "\r\n") {
		fmt.Sscanf(line, "HTTP/1.1 %d", &status)
		if n, ok := strings.CutPrefix(strings.ToLower(line), "content-length: "); ok {
			fmt.Sscan(n, &length)
		}
	}
	_, err := io.CopyN(io.Discard, c, int64(length))
	return status, err
}

// failures waits for one more failed handshake with the reason.
func (p *proxy) failures(side tlsio.Side, why tlsio.Reason, want uint64) {
	p.t.Helper()
	var got tlsio.Count
	for until := time.Now().Add(20 * time.Second); time.Now().Before(until); time.Sleep(time.Millisecond) {
		if got = p.Handshakes()[side]; got.Failed[why] >= want {
			return
		}
	}
	p.t.Errorf("failed handshakes: %v, want %d of %s", got.Failed, want, why)
}
