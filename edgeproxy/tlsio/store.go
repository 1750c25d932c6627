package tlsio

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/meridian-mesh/meridian/internal/beat"
)

const (
	// lookEvery is how often files are looked at: a stat each, which sees every way
	// of replacing them, a symbolic link that is swapped too.
	lookEvery = time.Second
	// ticketEvery is how long a key seals session tickets. The one before it is still
	// accepted, so that a ticket is of use for at least that long.
	ticketEvery = 12 * time.Hour
	// mostClients bounds the Clients that are known by what they are made of.
	mostClients = 1 << 10
	// mostBytes bounds a file.
	mostBytes = 1 << 20
)

// Store reads certificates and keys from files and follows their changes. Server and
// Client, between Begin and Retain, are one caller's at a time; the rest may be
// called from any goroutine.
type Store struct {
	log     *slog.Logger
	now     func() time.Time
	changed chan struct{}

	mu      sync.Mutex
	build   uint64
	pairs   map[KeyPair]*pair
	tickets [2][32]byte                   // the newest first
	turned  time.Time                     // when that was made
	clients map[[sha256.Size]byte]*Client // that still have sessions to go on with
	made    uint32

	own atomic.Pointer[identity] // among the proxies of the mesh
	// acts says that other sites see the workload that this proxy is beside, or nobody.
	acts     atomic.Bool
	workload atomic.Pointer[identity]
}

// pair is what the files of a KeyPair hold. What cannot be used leaves what was
// there before in use.
type pair struct {
	build       uint64 // that asked for it last
	looks       [2]look
	certificate *tls.Certificate // never changed; without a key where no file of one is named
	digest      [sha256.Size]byte
	loaded      bool
	err         error // of the newest content
}

// look is what tells a file from itself changed.
type look struct {
	size, modified int64
	inode          uint64
	missing        bool
}

// NewStore makes a store; log may not be nil. now is by what certificates are judged,
// time.Now where it is nil.
func NewStore(log *slog.Logger, now func() time.Time) *Store {
	if now == nil {
		now = time.Now
	}
	s := &Store{log: log, now: now, changed: make(chan struct{}, 1), pairs: map[KeyPair]*pair{}, clients: map[[sha256.Size]byte]*Client{}}
	s.turn()
	return s
}

// Changed has a value when what Server and Client make would be another now.
func (s *Store) Changed() <-chan struct{} { return s.changed }

// Run follows changes until ctx ends.
func (s *Store) Run(ctx context.Context) {
	t := beat.Every(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			t.Again()
			s.Look()
		}
	}
}

// Look reads files that changed, now.
func (s *Store) Look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	news := false
	for k, p := range s.pairs {
		if looks := k.look(); looks != p.looks {
			before := p.digest
			s.read(k, p, looks)
			news = news || p.digest != before
		}
	}
	if s.now().Sub(s.turned) >= ticketEvery {
		s.turn()
		news = true
	}
	if news {
		select {
		case s.changed <- struct{}{}:
		default:
		}
	}
}

// turn makes a new key for tickets.
func (s *Store) turn() {
	s.tickets[1] = s.tickets[0]
	_, _ = rand.Read(s.tickets[0][:]) // never fails (crypto/rand)
	if s.turned.IsZero() {
		s.tickets[1] = s.tickets[0]
	}
	s.turned = s.now()
}

// Begin precedes the Servers and Clients of a configuration, Retain follows them:
// files that it did not name are forgotten.
func (s *Store) Begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.build++
}

// Retain forgets what nothing since Begin asked for.
func (s *Store) Retain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, p := range s.pairs {
		if p.build != s.build {
			delete(s.pairs, k)
		}
	}
}

// Server makes what a socket needs. scope names it, so that a ticket of one socket
// is none of another's. The problems say which files cannot be used: a listener
// without a certificate refuses every client, one without its clients' issuers too.
func (s *Store) Server(scope string, listeners []ListenerSpec) (*Server, []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out, problems := newServer(), []string(nil)
	for i := range listeners {
		l := &listeners[i]
		var pairs []*tls.Certificate
		for _, k := range l.Certificates {
			p, problem := s.get(k)
			problems = append(problems, problem...)
			if p.loaded {
				pairs = append(pairs, p.certificate)
			}
		}
		// What is asked of clients is a part of the key, so that a session of before a
		// change is not resumed into a listener that would not have had it.
		mac := hmac.New(sha256.New, nil)
		fmt.Fprintf(mac, "%q %q %v %d", scope, l.Name, l.ClientsOptional, l.Min)
		policy := fmt.Sprintf("%v %v", l.ClientsOptional, l.Min)
		var clients *x509.CertPool
		if len(l.ClientCAs) > 0 {
			clients = x509.NewCertPool()
			for _, k := range l.ClientCAs {
				p, problem := s.get(k)
				problems = append(problems, problem...)
				p.addTo(clients)
				mac.Write(p.digest[:])
				policy += " " + k.Name + " " + k.CertificateFile
			}
		}
		bound := mac.Sum(nil)
		keys := make([][32]byte, 0, len(s.tickets))
		for _, t := range s.tickets {
			m := hmac.New(sha256.New, t[:])
			m.Write(bound)
			keys = append(keys, [32]byte(m.Sum(nil)))
		}
		out.add(l, pairs, clients, policy, keys)
	}
	return out, problems
}

// Client makes what connections to a service need. Where a file cannot be used there
// are none: nothing is sent to endpoints whom nobody can vouch for.
func (s *Store) Client(spec ClientSpec) (*Client, []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := sha256.New()
	fmt.Fprintf(h, "%q %d", spec.Hostname, spec.Min)
	var cas *x509.CertPool
	var own *tls.Certificate
	var problems []string
	usable := true
	use := func(k KeyPair) *pair {
		p, problem := s.get(k)
		problems = append(problems, problem...)
		h.Write(p.digest[:])
		usable = usable && p.loaded
		return p
	}
	if len(spec.CAs) > 0 {
		cas = x509.NewCertPool()
		for _, k := range spec.CAs {
			use(k).addTo(cas)
		}
	}
	if spec.Certificate != nil {
		own = use(*spec.Certificate).certificate
	}
	if !usable {
		return NoClient, problems
	}
	return s.remember([sha256.Size]byte(h.Sum(nil)), func(id uint32) *Client { return newClient(&spec, id, cas, own) }), problems
}

// remember returns the client that is known by a digest of what it is made of, and
// makes it where there is none. It needs mu.
func (s *Store) remember(digest [sha256.Size]byte, make func(id uint32) *Client) *Client {
	c := s.clients[digest]
	if c == nil {
		if len(s.clients) == mostClients {
			clear(s.clients) // files that were replaced very often; the price are handshakes
		}
		s.made++
		c = make(s.made)
		s.clients[digest] = c
	}
	return c
}

// get returns what the files of k hold, and what is wrong with them.
func (s *Store) get(k KeyPair) (*pair, []string) {
	p := s.pairs[k]
	if p == nil {
		p = &pair{}
		s.pairs[k] = p
		s.read(k, p, k.look())
	}
	p.build = s.build
	if p.err == nil {
		return p, nil
	}
	what := "it is tried again every second"
	if p.loaded {
		what += ", and what was read before stays in use"
	}
	return p, []string{fmt.Sprintf("%s: %v; %s", k.Name, p.err, what)}
}

// read takes in the present content of the files.
func (s *Store) read(k KeyPair, p *pair, looks [2]look) {
	first := p.looks == [2]look{}
	p.looks = looks
	certificate, digest, err := k.Load()
	switch {
	case err != nil:
		if p.err == nil || p.err.Error() != err.Error() {
			s.log.Error("certificate cannot be used", "certificate", k.Name, "err", err, "kept", p.loaded)
		}
		p.err = err
		return
	case p.loaded && digest == p.digest:
	case !first:
		s.log.Info("certificate read again", "certificate", k.Name, "not_after", certificate.Leaf.NotAfter)
	}
	p.certificate, p.digest, p.loaded, p.err = &certificate, digest, true, nil
	if fault := validity(certificate.Leaf, s.now()); fault != "" {
		s.log.Warn("certificate is not valid now", "certificate", k.Name, "file", k.CertificateFile, "why", fault)
	}
}

func (p *pair) addTo(pool *x509.CertPool) {
	if !p.loaded {
		return
	}
	for _, der := range p.certificate.Certificate {
		if c, err := x509.ParseCertificate(der); err == nil { // Load has parsed it before
			pool.AddCert(c)
		}
	}
}

// Valid says why a certificate is not valid at a time, nil where it is.
func Valid(c *x509.Certificate, now time.Time) error {
	if fault := validity(c, now); fault != "" {
		return errors.New(fault)
	}
	return nil
}

func validity(c *x509.Certificate, now time.Time) string {
	switch {
	case now.After(c.NotAfter):
		return "it expired at " + c.NotAfter.UTC().Format(time.RFC3339)
	case now.Before(c.NotBefore):
		return "it is not valid before " + c.NotBefore.UTC().Format(time.RFC3339)
	}
	return ""
}

// Held is the state of the files of a KeyPair.
type Held struct {
	Name, File string
	// NotBefore and NotAfter bound the leaf's validity; zero where nothing was read.
	NotBefore, NotAfter time.Time
	// Problem is empty where all is well.
	Problem string
}

// Held lists what is in use, by name.
func (s *Store) Held() []Held {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Held
	for k, p := range s.pairs {
		h := Held{Name: k.Name, File: k.CertificateFile}
		if p.loaded {
			leaf := p.certificate.Leaf
			h.NotBefore, h.NotAfter, h.Problem = leaf.NotBefore, leaf.NotAfter, validity(leaf, s.now())
		}
		if p.err != nil {
			h.Problem = p.err.Error()
		}
		out = append(out, h)
	}
	slices.SortFunc(out, func(a, b Held) int { return strings.Compare(a.Name+a.File, b.Name+b.File) })
	return out
}

// Problems says which certificates are not valid now.
func (s *Store) Problems() []string {
	var out []string
	for _, h := range s.Held() {
		if !h.NotAfter.IsZero() && h.Problem != "" && !strings.Contains(h.Problem, h.File) {
			out = append(out, fmt.Sprintf("%s: %s: %s; replace the file, it is followed", h.Name, h.File, h.Problem))
		}
	}
	return out
}

func (k *KeyPair) look() (l [2]look) {
	for i, name := range []string{k.CertificateFile, k.KeyFile} {
		if name == "" {
			continue
		}
		info, err := os.Stat(name)
		if err != nil {
			l[i].missing = true
			continue
		}
		l[i].size, l[i].modified = info.Size(), info.ModTime().UnixNano()
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			l[i].inode = st.Ino
		}
	}
	return l
}

// Load reads the files of k. The error names the file and says what to do; no part
// of a key is in it.
func (k *KeyPair) Load() (tls.Certificate, [sha256.Size]byte, error) {
	var none [sha256.Size]byte
	chain, err := readFile(k.CertificateFile)
	if err != nil {
		return tls.Certificate{}, none, err
	}
	if k.KeyFile == "" {
		c, err := certificates(k.CertificateFile, chain)
		return c, sha256.Sum256(chain), err
	}
	key, err := readFile(k.KeyFile)
	if err != nil {
		return tls.Certificate{}, none, err
	}
	if _, err := certificates(k.CertificateFile, chain); err != nil {
		return tls.Certificate{}, none, err
	}
	c, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return c, none, keyFault(k, err)
	}
	h := sha256.New()
	_ = binary.Write(h, binary.BigEndian, uint64(len(chain))) // a hash takes everything
	h.Write(chain)
	h.Write(key)
	return c, [sha256.Size]byte(h.Sum(nil)), nil
}

// keyFault says what is wrong with a key whose certificate is in order.
func keyFault(k *KeyPair, err error) error {
	switch text := err.Error(); {
	case strings.Contains(text, "does not match"):
		return fmt.Errorf("the key in %s is not that of the certificate in %s: write the two of one pair", k.KeyFile, k.CertificateFile)
	case strings.Contains(text, "failed to find any PEM data in key"):
		return fmt.Errorf("%s holds no key in PEM: it has to begin with a line such as -----BEGIN PRIVATE KEY-----", k.KeyFile)
	}
	return fmt.Errorf("%s holds no key that can be used: write an unencrypted RSA, ECDSA or Ed25519 key in PEM (PKCS #8)", k.KeyFile)
}

// certificates parses a chain, the leaf first.
func certificates(name string, data []byte) (tls.Certificate, error) {
	var c tls.Certificate
	for rest := data; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if b.Type != "CERTIFICATE" {
			continue
		}
		parsed, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return c, fmt.Errorf("%s: certificate %d cannot be read: %w", name, len(c.Certificate)+1, err)
		}
		if c.Leaf == nil {
			c.Leaf = parsed
		}
		c.Certificate = append(c.Certificate, b.Bytes)
	}
	if c.Leaf == nil {
		return c, fmt.Errorf("%s holds no certificate in PEM: it has to have a line -----BEGIN CERTIFICATE-----", name)
	}
	return c, nil
}

// readFile reads a regular file of bounded size.
func readFile(name string) ([]byte, error) {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("%s does not exist: write it, or the right path, on the machine of the proxy", name)
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", name)
	case info.Size() > mostBytes:
		return nil, fmt.Errorf("%s has %d bytes, at most %d are read", name, info.Size(), mostBytes)
	}
	f, err := os.Open(name)
	if errors.Is(err, os.ErrPermission) {
		return nil, fmt.Errorf("%s cannot be read by user %d: make it that user's, mode 0600", name, os.Getuid())
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var b bytes.Buffer
	_, err = io.Copy(&b, io.LimitReader(f, mostBytes))
	return b.Bytes(), err
}
