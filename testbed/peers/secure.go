package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
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
	if err := writeCertificate(dir, siteCert, siteKey, x509.ExtKeyUsageServerAuth); err != nil {
		return err
	}
	chain, err := os.ReadFile(filepath.Join(dir, siteCert))
	if err != nil {
		return err
	}
	key, err := os.ReadFile(filepath.Join(dir, siteKey))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, siteBoth), slices.Concat(chain, key), 0o600)
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
	own, err := loadCertificate(dir)
	if err != nil {
		return nil, err
	}
	return &tls.Config{RootCAs: pool, Certificates: own, ServerName: siteName, CurvePreferences: []tls.CurveID{tls.X25519}, NextProtos: []string{"http/1.1"}}, nil
}

// secureLoad runs closed loops over TLS when it is asked to: over kept connections,
// or with each on a connection and a full handshake of its own.
func secureLoad(args []string, in io.Reader, out io.Writer) error {
	fs := flag.NewFlagSet(roleSecure, flag.ContinueOnError)
	addr := fs.String("addr", "", "proxy")
	conns := fs.Int("connections", 1, "connections")
	dir := fs.String("dir", "", "folder of the proxy")
	each := fs.Bool("each", false, "a connection for each request")
	every := fs.Duration("every", 0, "each connection's requests are due at this distance, and take from then; 0 is as fast as it goes")
	if err := fs.Parse(args); err != nil {
		return err
	}
	config, err := clientConfig(*dir)
	if err != nil {
		return err
	}
	loops := make([]*secureLoop, *conns)
	for i := range loops {
		loops[i] = &secureLoop{addr: *addr, config: config, each: *each, every: *every}
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
	every  time.Duration
	conn   *tls.Conn
	in     *bufio.Reader
	took   []time.Duration
	err    error
}

func (l *secureLoop) run(until time.Time) {
	l.took, l.err = l.took[:0], nil
	due := time.Now().Add(rand.N(l.every + 1))
	for l.err == nil && time.Now().Before(until) {
		began := time.Now()
		if l.every > 0 {
			time.Sleep(due.Sub(began))
			began, due = due, due.Add(l.every)
		}
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
	if _, err := io.WriteString(l.conn, secureRequest); err != nil {
		return err
	}
	if err := l.answer(); err != nil || !l.each {
		return err
	}
	err := l.conn.Close()
	l.conn = nil
	return err
}

const secureRequest = "GET " + requestPath + " HTTP/1.1\r\nHost: " + siteName + "\r\nUser-Agent: peers\r\nAccept: */*\r\n\r\n"

// answer reads the backend's answer.
func (l *secureLoop) answer() error {
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
	_, err = l.in.Discard(bodyLength)
	return err
}
