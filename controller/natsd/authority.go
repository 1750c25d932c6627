package natsd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/meridian-mesh/meridian/controller/join"
	"github.com/meridian-mesh/meridian/controller/store"
	"github.com/nats-io/nkeys"
)

// certLife is long because nothing renews it by itself: the hub makes a new
// server certificate at a start within a third of it from its end.
const (
	caLife   = 20 * 365 * 24 * time.Hour
	certLife = 3 * 365 * 24 * time.Hour
)

// Authority is what a hub proves itself with to sites.
type Authority struct {
	// CAFile is what a leaf checks the hub by (--hub-ca).
	CAFile string
	ca     *x509.Certificate
	cert   tls.Certificate
}

// OpenAuthority loads the hub's CA and server certificate from the data folder,
// and makes what is missing (keys 0600).
func OpenAuthority(f *store.Folder, now time.Time) (*Authority, error) {
	if err := os.MkdirAll(f.Path("hub"), 0o700); err != nil {
		return nil, fmt.Errorf("natsd: %w", err)
	}
	a := &Authority{CAFile: f.Path("hub", "ca.pem")}
	ca, caKey, err := openCA(a.CAFile, f.Path("hub", "ca.key"), now)
	if err != nil {
		return nil, err
	}
	a.ca = ca
	certFile, keyFile := f.Path("hub", "server.pem"), f.Path("hub", "server.key")
	a.cert, err = tls.LoadX509KeyPair(certFile, keyFile)
	if err == nil && now.Before(a.cert.Leaf.NotAfter.Add(-certLife/3)) && a.cert.Leaf.CheckSignatureFrom(ca) == nil {
		return a, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("natsd: %s: %w; remove it and %s to have both made again", certFile, err, keyFile)
	}
	if a.cert, err = issue(ca, caKey, certFile, keyFile, now); err != nil {
		return nil, err
	}
	return a, nil
}

// CA returns the CA certificate as PEM, and the SHA-256 of its DER in hexadecimal,
// by which a new site knows it.
func (a *Authority) CA() (cert []byte, sum string) {
	digest := sha256.Sum256(a.ca.Raw)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.ca.Raw}), hex.EncodeToString(digest[:])
}

// Ends is when the hub's certificate ends, and when its CA does.
func (a *Authority) Ends() (cert, ca time.Time) { return a.cert.Leaf.NotAfter, a.ca.NotAfter }

// TLS is what the hub shows to who asks to join: its certificate and, because a
// new site knows but the hash of the CA, that too.
func (a *Authority) TLS() *tls.Config {
	cert := a.cert
	cert.Certificate = append(slices.Clone(cert.Certificate), a.ca.Raw)
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}
}

func openCA(certFile, keyFile string, now time.Time) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err == nil {
		key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
		if !ok {
			return nil, nil, fmt.Errorf("natsd: %s: holds a %T, want an ECDSA key", keyFile, pair.PrivateKey)
		}
		return pair.Leaf, key, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		// A new CA would lock every site out, so that is the operator's decision.
		return nil, nil, fmt.Errorf("natsd: %s: %w; restore it from a backup, or remove it and %s and give every site the new CA", certFile, err, keyFile)
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Meridian hub CA"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(caLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("natsd: %w", err)
	}
	cert, err := sign(template, template, key, key, certFile, keyFile)
	return cert, key, err
}

func issue(ca *x509.Certificate, caKey *ecdsa.PrivateKey, certFile, keyFile string, now time.Time) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("natsd: %w", err)
	}
	_, err = sign(&x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: join.HubName}, DNSNames: []string{join.HubName},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(certLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca, key, caKey, certFile, keyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.LoadX509KeyPair(certFile, keyFile)
}

// sign writes the key before the certificate: a crash between the two leaves no
// certificate, and both are made again.
func sign(template, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey, certFile, keyFile string) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		return nil, fmt.Errorf("natsd: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("natsd: %w", err)
	}
	if err := store.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600); err != nil {
		return nil, fmt.Errorf("natsd: %w", err)
	}
	if err := store.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		return nil, fmt.Errorf("natsd: %w", err)
	}
	return x509.ParseCertificate(der)
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic("natsd: no randomness: " + err.Error())
	}
	return n
}

// leafTLS is what a leaf checks the hub by.
func leafTLS(caFile string) (*tls.Config, error) {
	data, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("natsd: the hub's CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("natsd: the hub's CA: %s holds no PEM certificate", caFile)
	}
	return &tls.Config{RootCAs: pool, ServerName: join.HubName, MinVersion: tls.VersionTLS13}, nil
}

// readSeed reads the NKey seed that a site proves itself with.
func readSeed(file string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("natsd: the site's key: %w", err)
	}
	seed := strings.TrimSpace(string(data))
	if key, err := nkeys.FromSeed([]byte(seed)); err != nil {
		return "", fmt.Errorf("natsd: the site's key: %s holds no NKey seed: %w", file, err)
	} else if public, err := key.PublicKey(); err != nil || !nkeys.IsValidPublicUserKey(public) {
		return "", fmt.Errorf("natsd: the site's key: %s holds an NKey that is not a user's", file)
	}
	return seed, nil
}
