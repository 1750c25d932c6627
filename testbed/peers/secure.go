package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// siteName is whom the load asks for over TLS.
const siteName = "peers.example.com"

// Files of the certificate in a proxy's folder: the chain, the key, and both.
const (
	siteCert = "site.crt"
	siteKey  = "site.key"
	siteBoth = "site.pem"
)

// secured has a proxy's listener speak TLS 1.3 with an ECDSA certificate; the rest of
// its configuration stays.
func secured(p proxy) proxy {
	program, _, _ := strings.Cut(p.name, "-")
	p.secure = func(conf, dir string) (string, error) {
		if err := writeSite(dir); err != nil {
			return "", err
		}
		both := filepath.Join(dir, siteBoth)
		from, to := "protocol: HTTP}", "protocol: HTTPS, tls: {certificateRefs: [{group: mesh.meridian.dev, kind: Certificate, name: site}]}}"
		switch program {
		case "haproxy":
			from, to = "bind "+confListen, "bind "+confListen+" ssl crt "+both+" alpn h2,http/1.1 ssl-min-ver TLSv1.3"
		case "nginx":
			from, to = "listen "+confListen+";", "listen "+confListen+" ssl; ssl_protocols TLSv1.3; ssl_certificate "+both+"; ssl_certificate_key "+both+";"
		default:
			conf += fmt.Sprintf("---\napiVersion: mesh.meridian.dev/v1alpha1\nkind: Certificate\nmetadata: {name: site}\nspec: {certificateFile: %s, keyFile: %s}\n",
				filepath.Join(dir, siteCert), filepath.Join(dir, siteKey))
		}
		if !strings.Contains(conf, from) {
			return "", fmt.Errorf("no line with %q to add TLS to", from)
		}
		return strings.Replace(conf, from, to, 1), nil
	}
	return p
}

func writeSite(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: []string{siteName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	return errors.Join(
		os.WriteFile(filepath.Join(dir, siteCert), chain, 0o644),
		os.WriteFile(filepath.Join(dir, siteKey), keyPEM, 0o600),
		os.WriteFile(filepath.Join(dir, siteBoth), slices.Concat(chain, keyPEM), 0o600),
	)
}

// clientConfig trusts the certificate in a proxy's folder. It offers X25519 alone,
// which both sides know: with what it would offer else one side had more to compute.
func clientConfig(dir string) (*tls.Config, error) {
	chain, err := os.ReadFile(filepath.Join(dir, siteCert))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(chain) {
		return nil, fmt.Errorf("%s holds no certificate", siteCert)
	}
	return &tls.Config{RootCAs: pool, ServerName: siteName, CurvePreferences: []tls.CurveID{tls.X25519}, NextProtos: []string{"http/1.1"}}, nil
}

// secureLoad runs closed loops over TLS when it is asked to: over kept connections,
// or with each on a connection and a full handshake of its own.
func secureLoad(args []string, in io.Reader, out io.Writer) error {
	fs := flag.NewFlagSet(roleSecure, flag.ContinueOnError)
	addr := fs.String("addr", "", "proxy")
	conns := fs.Int("connections", 1, "connections")
	dir := fs.String("dir", "", "folder of the proxy")
	each := fs.Bool("each", false, "a connection for each request")
	if err := fs.Parse(args); err != nil {
		return err
	}
	config, err := clientConfig(*dir)
	if err != nil {
		return err
	}
	loops := make([]*secureLoop, *conns)
	for i := range loops {
		loops[i] = &secureLoop{addr: *addr, config: config, each: *each}
	}
	answers := json.NewEncoder(out)
	for orders := json.NewDecoder(in); ; {
		var o order
		if err := orders.Decode(&o); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := answers.Encode(runLoops(loops, o.Duration)); err != nil {
			return err
		}
	}
}

func runLoops(loops []*secureLoop, d time.Duration) loadResult {
	start := time.Now()
	var running sync.WaitGroup
	for _, l := range loops {
		running.Go(func() { l.run(start.Add(d)) })
	}
	running.Wait()
	r := loadResult{Took: time.Since(start)}
	var took []time.Duration
	for _, l := range loops {
		took = append(took, l.took...)
		if l.err != nil {
			r.Errors++
			r.Why = l.err.Error()
		}
	}
	r.Requests = len(took)
	slices.Sort(took)
	if n := len(took); n > 0 {
		r.P50, r.P99 = took[n/2], took[n*99/100]
	}
	return r
}

// secureLoop is one closed loop.
type secureLoop struct {
	addr   string
	config *tls.Config
	each   bool
	conn   *tls.Conn
	in     *bufio.Reader
	took   []time.Duration
	err    error
}

func (l *secureLoop) run(until time.Time) {
	l.took, l.err = l.took[:0], nil
	for l.err == nil && time.Now().Before(until) {
		began := time.Now()
		if l.err = l.ask(); l.err == nil {
			l.took = append(l.took, time.Since(began))
		}
	}
}

func (l *secureLoop) ask() error {
	if l.conn == nil {
		c, err := tls.DialWithDialer(&net.Dialer{Timeout: answerLimit}, "tcp", l.addr, l.config)
		if err != nil {
			return err
		}
		if l.conn = c; l.in == nil {
			l.in = bufio.NewReader(c)
		} else {
			l.in.Reset(c)
		}
	}
	if err := l.conn.SetDeadline(time.Now().Add(answerLimit)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(l.conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: peers\r\nAccept: */*\r\n\r\n", requestPath, siteName); err != nil {
		return err
	}
	status, err := l.in.ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(status, "HTTP/1.1 200 ") {
		return fmt.Errorf("answer %s", strings.TrimSpace(status))
	}
	for line := status; line != "\r\n"; {
		if line, err = l.in.ReadString('\n'); err != nil {
			return err
		}
	}
	if _, err := l.in.Discard(bodyLength); err != nil {
		return err
	}
	if !l.each {
		return nil
	}
	err = l.conn.Close()
	l.conn = nil
	return err
}
