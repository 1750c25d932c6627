package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Files of the load's own certificate in a proxy's folder. It is its own authority.
const (
	loadCert = "client.crt"
	loadKey  = "client.key"
)

// mutual has a proxy that speaks TLS ask its clients for a certificate, too.
func mutual(p proxy) proxy {
	program, _, _ := strings.Cut(p.name, "-")
	secure := secured(p).secure
	p.secure = func(conf, dir string) (string, error) {
		if err := writeCertificate(dir, loadCert, loadKey, x509.ExtKeyUsageClientAuth); err != nil {
			return "", err
		}
		conf, err := secure(conf, dir)
		if err != nil {
			return "", err
		}
		authority := filepath.Join(dir, loadCert)
		from, to := "name: site}]", "name: site}], frontendValidation: {mode: AllowValidOnly, caCertificateRefs: [{group: mesh.meridian.dev, kind: Certificate, name: clients}]}"
		switch program {
		case "haproxy":
			from, to = " ssl crt ", " ssl verify required ca-file "+authority+" crt "
		case "nginx":
			from, to = "ssl_certificate ", "ssl_verify_client on; ssl_client_certificate "+authority+"; ssl_certificate "
		default:
			conf += fmt.Sprintf("---\napiVersion: mesh.meridian.dev/v1alpha1\nkind: Certificate\nmetadata: {name: clients}\nspec: {certificateFile: %s}\n", authority)
		}
		if !strings.Contains(conf, from) {
			return "", fmt.Errorf("no line with %q to ask for a certificate in", from)
		}
		return strings.Replace(conf, from, to, 1), nil
	}
	return p
}

// writeCertificate makes a certificate that signs itself, for the site's name and for one use.
func writeCertificate(dir, certFile, keyFile string, usage x509.ExtKeyUsage) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: []string{siteName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, certFile), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644),
		os.WriteFile(filepath.Join(dir, keyFile), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600),
	)
}

// loadCertificate is the load's own certificate, none where the proxy asks for none.
func loadCertificate(dir string) ([]tls.Certificate, error) {
	c, err := tls.LoadX509KeyPair(filepath.Join(dir, loadCert), filepath.Join(dir, loadKey))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return []tls.Certificate{c}, err
}
