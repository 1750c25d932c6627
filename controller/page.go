package controller

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/meridian-mesh/meridian/controller/login"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

// sessionCookie can only be set over TLS, by this host and for all of it.
const sessionCookie = "__Host-meridian"

// needed says what a user must be for a request that changes or asks for more than
// looking; what is not listed is for admins.
var needed = map[string]login.Role{
	"POST " + siteapi.PathExplain: login.View,
	"POST " + siteapi.PathTraffic: login.Operate,
	"POST " + siteapi.PathPin:     login.Operate,
}

// open is what anybody may ask for: the page's own files hold nothing of the mesh.
func open(r *http.Request) bool {
	p := r.URL.Path
	return r.Method == http.MethodGet && (p == "/" || p == "/healthz" || strings.Count(p, "/") == 1 && path.Ext(p) != "")
}

// doorkeeper has those in who may use the page from elsewhere.
type doorkeeper struct {
	file     string
	audit    func(audited)
	comparer chan struct{} // one password at a time: they cost

	mu       sync.Mutex
	users    login.Users
	read     time.Time // the file's time when it was read
	size     int64
	sessions login.Sessions
	throttle login.Throttle
}

func newDoorkeeper(file string, audit func(audited)) (*doorkeeper, error) {
	d := &doorkeeper{file: file, audit: audit, comparer: make(chan struct{}, 1)}
	_, err := d.known()
	return d, err
}

// known are the users as the file has them now. Callers that share d hold its lock.
func (d *doorkeeper) known() (login.Users, error) {
	st, err := os.Stat(d.file)
	if err != nil {
		return nil, fmt.Errorf("users of the page: %w", err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("users of the page: %s may be read by others: chmod 600 it", d.file)
	}
	if st.ModTime().Equal(d.read) && st.Size() == d.size && d.users != nil {
		return d.users, nil
	}
	data, err := os.ReadFile(d.file)
	if err != nil {
		return nil, fmt.Errorf("users of the page: %w", err)
	}
	users, err := login.ParseUsers(data)
	if err != nil {
		return nil, fmt.Errorf("users of the page: %s: %w", d.file, err)
	}
	if len(users) == 0 {
		return nil, fmt.Errorf("users of the page: %s has none: add one with meridian dashboard user", d.file)
	}
	d.users, d.read, d.size = users, st.ModTime(), st.Size()
	return users, nil
}

// who is the user that a request's session belongs to.
func (d *doorkeeper) who(r *http.Request, now time.Time) (login.User, bool, error) {
	c, err := r.Cookie(sessionCookie)
	if err != nil {
		return login.User{}, false, nil // no cookie, no session
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	users, err := d.known()
	if err != nil {
		return login.User{}, false, err
	}
	u, ok := d.sessions.Who(c.Value, users, now)
	return u, ok, nil
}

// guard lets through what the user of a session may do.
func (d *doorkeeper) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if o := r.Header.Get("Origin"); o != "" && o != "https://"+r.Host {
			fail(w, http.StatusForbidden, errors.New("requests of other web pages are refused"))
			return
		}
		w.Header().Set("Strict-Transport-Security", "max-age=31536000")
		switch {
		case r.URL.Path == siteapi.PathLogin && r.Method == http.MethodPost:
			d.enter(w, r)
			return
		case r.URL.Path == siteapi.PathLogin && r.Method == http.MethodDelete:
			d.leave(w, r)
			return
		case open(r):
			next.ServeHTTP(w, r)
			return
		}
		u, ok, err := d.who(r, time.Now())
		if err != nil {
			fail(w, http.StatusServiceUnavailable, err)
			return
		}
		if !ok {
			fail(w, http.StatusUnauthorized, errors.New("log in first"))
			return
		}
		need := login.Admin
		if role, listed := needed[r.Method+" "+r.URL.Path]; listed {
			need = role
		} else if r.Method == http.MethodGet || r.Method == http.MethodHead {
			need = login.View
		}
		if !u.Role.May(need) {
			d.audit(audited{Who: u.Name, From: peer(r), What: r.Method + " " + r.URL.Path, Outcome: "not allowed"})
			fail(w, http.StatusForbidden, fmt.Errorf("%s may %s: this needs the role %s", u.Name, u.Role, need))
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, u)))
	})
}

// enter opens a session for whoever gives a user's name and password.
func (d *doorkeeper) enter(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Content-Type") != "application/json" {
		fail(w, http.StatusUnsupportedMediaType, errors.New("want Content-Type: application/json"))
		return
	}
	var in siteapi.Login
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<10)).Decode(&in); err != nil {
		fail(w, http.StatusBadRequest, fmt.Errorf("request cannot be read: %w", err))
		return
	}
	select { // a flood of logins waits here, not in the processor
	case d.comparer <- struct{}{}:
		defer func() { <-d.comparer }()
	case <-r.Context().Done():
		return
	case <-time.After(5 * time.Second):
		fail(w, http.StatusServiceUnavailable, errors.New("too many log in at once: try again"))
		return
	}
	from := network(peer(r))
	d.mu.Lock()
	users, err := d.known()
	now := time.Now()
	wait := d.throttle.Wait(from, now)
	d.mu.Unlock()
	if err != nil {
		fail(w, http.StatusServiceUnavailable, err)
		return
	}
	if wait > 0 {
		w.Header().Set("Retry-After", fmt.Sprint(int(wait/time.Second)+1))
		fail(w, http.StatusTooManyRequests, fmt.Errorf("too many wrong passwords: wait %v", wait.Round(time.Second)))
		return
	}
	u, known := users[in.Name]
	if !known { // an unknown name takes as long as a known one
		for _, u = range users {
			break
		}
	}
	right := u.Is(in.Password) && known
	now = time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !right {
		d.throttle.Failed(from, now)
		d.audit(audited{Who: in.Name, From: peer(r), What: "log in", Outcome: "refused"})
		fail(w, http.StatusUnauthorized, errors.New("the name or the password is wrong"))
		return
	}
	d.throttle.Passed(from)
	token := rand.Text() + rand.Text()
	d.sessions.Open(token, u, now)
	d.audit(audited{Who: u.Name, From: peer(r), What: "log in", Outcome: "done"})
	http.SetCookie(w, &http.Cookie{
		Name: sessionCookie, Value: token, Path: "/", MaxAge: int(login.Longest / time.Second),
		Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode,
	})
	reply(w, http.StatusOK, siteapi.Caller{Name: u.Name, Role: string(u.Role)})
}

func (d *doorkeeper) leave(w http.ResponseWriter, r *http.Request) {
	if c, err := r.Cookie(sessionCookie); err == nil {
		d.mu.Lock()
		d.sessions.Close(c.Value)
		d.mu.Unlock()
	}
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Path: "/", MaxAge: -1, Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode})
	reply(w, http.StatusOK, siteapi.Caller{})
}

func peer(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr // a Unix socket's
	}
	return host
}

// network is who waits after wrong passwords: an IPv4 address, or the 64 bits that
// one host of IPv6 has all addresses of. Not a user's name: then anybody could lock
// them out.
func network(address string) string {
	a, err := netip.ParseAddr(address)
	if err != nil || a.Unmap().Is4() {
		return address
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil {
		return address
	}
	return p.String()
}

// callerKey is where a request's context has its user.
type callerKey struct{}

// caller is who asks: a user with a session, or a program of this machine, for whom
// there is no login.
func caller(r *http.Request) siteapi.Caller {
	if u, ok := r.Context().Value(callerKey{}).(login.User); ok {
		return siteapi.Caller{Name: u.Name, Role: string(u.Role)}
	}
	return siteapi.Caller{Role: string(login.Admin), Local: true}
}

// servePage serves the page and the API to users with a login.
func (s *Server) servePage(stop context.CancelCauseFunc) (*httpAPI, error) {
	keeper, err := newDoorkeeper(s.cfg.Page.Users, s.audited)
	if err != nil {
		return nil, fmt.Errorf("controller: %w", err)
	}
	cert := &pair{cert: s.cfg.Page.Cert, key: s.cfg.Page.Key}
	if _, err := cert.get(nil); err != nil {
		return nil, fmt.Errorf("controller: page: %w", err)
	}
	routes, err := s.routes()
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", s.cfg.Page.Listen)
	if err != nil {
		return nil, fmt.Errorf("controller: page: %w", err)
	}
	a := &httpAPI{done: make(chan struct{}), url: "https://" + l.Addr().String()}
	l = tls.NewListener(l, &tls.Config{GetCertificate: cert.get, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}})
	a.server = &http.Server{
		Handler: keeper.guard(routes), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: requestTimeout, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}
	go func() {
		defer close(a.done)
		if err := a.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			stop(fmt.Errorf("controller: page: %w", err))
		}
	}()
	return a, nil
}

// pair is a certificate in files, read again when they change.
type pair struct {
	cert, key string

	mu   sync.Mutex
	at   [2]time.Time
	have *tls.Certificate
}

func (p *pair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var at [2]time.Time
	for i, path := range []string{p.cert, p.key} {
		st, err := os.Stat(path)
		if err != nil {
			if p.have != nil {
				return p.have, nil // it is being replaced
			}
			return nil, err
		}
		at[i] = st.ModTime()
	}
	if p.have != nil && at == p.at {
		return p.have, nil
	}
	c, err := tls.LoadX509KeyPair(p.cert, p.key)
	if err != nil {
		if p.have != nil {
			return p.have, nil
		}
		return nil, err
	}
	p.have, p.at = &c, at
	return p.have, nil
}

const (
	// maxAudited is how many changes are remembered.
	maxAudited = 256
	// maxSaid bounds what is told of one.
	maxSaid = 300
)

type audited = siteapi.Audited

// audits are the changes that were asked for, the oldest first.
type audits struct {
	mu   sync.Mutex
	list []audited
}

// audited logs and remembers who asked for what.
func (s *Server) audited(a audited) {
	a.At = time.Now()
	s.log.Info("audit", "who", a.Who, "from", a.From, "what", a.What, "outcome", a.Outcome)
	s.audits.mu.Lock()
	defer s.audits.mu.Unlock()
	if len(s.audits.list) == maxAudited {
		s.audits.list = append(s.audits.list[:0], s.audits.list[1:]...)
	}
	s.audits.list = append(s.audits.list, a)
}

func (s *Server) serveAudit(w http.ResponseWriter, _ *http.Request) {
	s.audits.mu.Lock()
	out := siteapi.Audit{Changes: append([]audited{}, s.audits.list...)}
	s.audits.mu.Unlock()
	reply(w, http.StatusOK, out)
}

// spoken are the requests whose text is part of the audit: it is short, and no secret.
var spoken = map[string]bool{siteapi.PathTraffic: true, siteapi.PathPin: true, siteapi.PathDelete: true, siteapi.PathRemove: true, siteapi.PathRotate: true, siteapi.PathRollback: true}

// changes has a request to change something audited, with what became of it.
func (s *Server) changes(f http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c := caller(r)
		a := audited{Who: c.Name, From: peer(r), What: strings.TrimPrefix(r.URL.Path, "/api/v1/")}
		if c.Local {
			a.Who = "(this machine)"
		}
		if spoken[r.URL.Path] {
			body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
			if err != nil {
				fail(w, http.StatusBadRequest, fmt.Errorf("request cannot be read: %w", err))
				return
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			a.What += " " + strings.ToValidUTF8(string(body[:min(len(body), maxSaid)]), "")
		}
		said := &answered{ResponseWriter: w, status: http.StatusOK}
		f(said, r.WithContext(by(r.Context(), a.Who)))
		switch {
		case said.status == http.StatusOK:
			a.Outcome = "done"
		case said.status == http.StatusUnprocessableEntity:
			a.Outcome = "refused"
		default:
			a.Outcome = fmt.Sprintf("failed (%d)", said.status)
		}
		s.audited(a)
	}
}

// answered notes what a handler answers.
type answered struct {
	http.ResponseWriter
	status int
}

func (o *answered) WriteHeader(status int) {
	o.status = status
	o.ResponseWriter.WriteHeader(status)
}
