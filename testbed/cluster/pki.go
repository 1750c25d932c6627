package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// lifetime of the certificates: no cluster of this kind stands for longer.
const lifetime = 30 * 24 * time.Hour

// authority signs what the parts of one cluster show each other.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  []byte
	now  time.Time
}

func newAuthority(now time.Time) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	a := &authority{key: key, now: now}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "meridian test cluster"},
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(lifetime),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	a.cert, err = x509.ParseCertificate(der)
	return a, err
}

// subject is who a certificate is for. Without names it is a client's, with them
// a server's.
type subject struct {
	name, group string
	dns         []string
	ips         []string
}

// issue returns a certificate and its key, as PEM.
func (a *authority) issue(s subject) (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: s.name},
		NotBefore: a.now.Add(-time.Minute), NotAfter: a.now.Add(lifetime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		DNSNames: s.dns,
	}
	if s.group != "" {
		template.Subject.Organization = []string{s.group}
	}
	for _, ip := range s.ips {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(ip))
	}
	if len(s.dns)+len(s.ips) > 0 {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, private.Public(), a.key)
	if err != nil {
		return nil, nil, err
	}
	if key, err = encodeKey(private); err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), key, nil
}

func encodeKey(k *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

// kubeconfig says how to reach the API server as s.
func (a *authority) kubeconfig(server string, s subject) ([]byte, error) {
	cert, key, err := a.issue(s)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	text := base64.StdEncoding.EncodeToString
	fmt.Fprintf(&b, `apiVersion: v1
kind: Config
clusters:
- name: meridian
  cluster: {server: %q, certificate-authority-data: %s}
users:
- name: %q
  user: {client-certificate-data: %s, client-key-data: %s}
contexts:
- name: meridian
  context: {cluster: meridian, user: %q}
current-context: meridian
`, server, text(a.pem), s.name, text(cert), text(key), s.name)
	return b.Bytes(), nil
}

// writePKI writes all keys, certificates and kubeconfigs of a cluster.
func (p *place) writePKI(now time.Time, port int, list []node) error {
	a, err := newAuthority(now)
	if err != nil {
		return err
	}
	files := map[string][]byte{p.file("pki", "ca.crt"): a.pem}
	pair := func(name string, s subject) error {
		cert, key, err := a.issue(s)
		files[p.file("pki", name+".crt")], files[p.file("pki", name+".key")] = cert, key
		return err
	}
	config := func(path, host string, s subject) error {
		b, err := a.kubeconfig(fmt.Sprintf("https://%s:%d", host, port), s)
		files[path] = b
		return err
	}
	steps := []error{
		pair("apiserver", subject{
			name: "kube-apiserver", ips: []string{"127.0.0.1", controlAddress, apiClusterIP},
			dns: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
		}),
		pair("apiserver-to-kubelet", subject{name: "kube-apiserver", group: "system:masters"}),
		// The API server's port on loopback leads to it from this machine and, in the
		// control plane's namespace, is its own: one file serves both.
		config(p.file("kubeconfig"), "127.0.0.1", subject{name: "admin", group: "system:masters"}),
		config(p.file("pki", "controllers.kubeconfig"), controlAddress, subject{name: "system:kube-controller-manager"}),
		config(p.file("pki", "scheduler.kubeconfig"), controlAddress, subject{name: "system:kube-scheduler"}),
		config(p.file("pki", "proxy.kubeconfig"), controlAddress, subject{name: "system:kube-proxy"}),
	}
	for _, n := range list {
		who := subject{name: "system:node:" + n.Name, group: "system:nodes"}
		steps = append(steps, config(p.file(n.Name, "kubeconfig"), controlAddress, who))
		who.dns, who.ips = []string{n.Name}, []string{n.Address.String()}
		steps = append(steps, pair(n.Name, who))
	}
	for _, err := range steps {
		if err != nil {
			return fmt.Errorf("issue certificates: %w", err)
		}
	}
	// Service account tokens are signed with a key of their own.
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if files[p.file("pki", "tokens.key")], err = encodeKey(key); err != nil {
		return err
	}
	return writeFiles(files)
}

func writeFiles(files map[string][]byte) error {
	for path, b := range files {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			return err
		}
	}
	return nil
}
