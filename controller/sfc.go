package controller

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

const (
	// maxRequirement bounds an AfSfcRequirement in a request.
	maxRequirement = 64 << 10
	// leastToken is how long a token has to be, in bytes.
	leastToken = 32
)

// serveSFC serves AfSfcRequirements to application functions, and nothing else: its
// callers are not those of the API, and come over the network with a token.
func (s *Server) serveSFC(stop context.CancelCauseFunc) (*httpAPI, error) {
	if _, err := s.sfcTokens(); err != nil {
		return nil, fmt.Errorf("controller: AfSfcRequirements: %w", err)
	}
	l, err := net.Listen("tcp", s.cfg.SFC.Listen)
	if err != nil {
		return nil, fmt.Errorf("controller: AfSfcRequirements: %w", err)
	}
	a := &httpAPI{done: make(chan struct{}), url: "http://" + l.Addr().String()}
	if s.cfg.SFC.Cert != "" {
		pair, err := tls.LoadX509KeyPair(s.cfg.SFC.Cert, s.cfg.SFC.Key)
		if err != nil {
			_ = l.Close()
			return nil, fmt.Errorf("controller: AfSfcRequirements: %w", err)
		}
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}})
		a.url = "https://" + l.Addr().String()
	}
	m := http.NewServeMux()
	one := siteapi.PathSFC + "/{namespace}/{name}"
	m.HandleFunc("GET "+siteapi.PathSFC, s.listSFC)
	m.HandleFunc("GET "+one, s.getSFC)
	m.HandleFunc("PUT "+one, s.putSFC)
	m.HandleFunc("DELETE "+one, s.deleteSFC)
	a.server = &http.Server{Handler: s.authorized(m), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: requestTimeout, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	go func() {
		defer close(a.done)
		if err := a.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			stop(fmt.Errorf("controller: AfSfcRequirements: %w", err))
		}
	}()
	return a, nil
}

// sfcTokens reads the hashes of the tokens that may come: one a line.
func (s *Server) sfcTokens() ([][sha256.Size]byte, error) {
	path := s.cfg.SFC.TokenFile
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s may be read by others: chmod 600 it", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out [][sha256.Size]byte
	for i, line := range strings.Split(string(data), "\n") {
		switch line = strings.TrimSpace(line); {
		case line == "" || line[0] == '#':
		case len(line) < leastToken:
			return nil, fmt.Errorf("%s: line %d: a token has at least %d characters ('openssl rand -hex 32' makes one)", path, i+1, leastToken)
		default:
			out = append(out, sha256.Sum256([]byte(line)))
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s has no token", path)
	}
	return out, nil
}

// authorized lets requests through that bear a token of the file as it is now.
func (s *Server) authorized(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tokens, err := s.sfcTokens()
		if err != nil {
			s.log.Error("tokens for AfSfcRequirements", "err", err)
			problem(w, http.StatusServiceUnavailable, "the tokens cannot be read, the log says why", nil)
			return
		}
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		hash, known := sha256.Sum256([]byte(strings.TrimSpace(token))), 0
		for i := range tokens {
			known |= subtle.ConstantTimeCompare(hash[:], tokens[i][:])
		}
		if !strings.EqualFold(scheme, "Bearer") || known == 0 {
			w.Header().Set("WWW-Authenticate", `Bearer realm="AfSfcRequirement"`)
			problem(w, http.StatusUnauthorized, "want Authorization: Bearer and a token that this site knows", nil)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// invalidParam names what is wrong with a request (TS 29.571 5.2.4.2).
type invalidParam struct {
	Param  string `json:"param"`
	Reason string `json:"reason,omitempty"`
}

// problem answers with ProblemDetails (RFC 9457, TS 29.571 5.2.4.1).
func problem(w http.ResponseWriter, status int, detail string, params []invalidParam) {
	data, err := json.Marshal(struct {
		Title  string         `json:"title"`
		Status int            `json:"status"`
		Detail string         `json:"detail,omitempty"`
		Params []invalidParam `json:"invalidParams,omitempty"`
	}{http.StatusText(status), status, detail, params})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n')) // fails only when the reader left
}

func sfcKey(r *http.Request) mesh.Key {
	return mesh.Key{Kind: mesh.KindAfSfcRequirement, Namespace: r.PathValue("namespace"), Name: r.PathValue("name")}
}

// putSFC sets a requirement, by the same rules as its document.
func (s *Server) putSFC(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Content-Type") != "application/json" {
		problem(w, http.StatusUnsupportedMediaType, "want Content-Type: application/json", nil)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequirement))
	if err != nil {
		problem(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the request cannot be read: %v", err), nil)
		return
	}
	if body = bytes.TrimSpace(body); !json.Valid(body) || body[0] != '{' {
		problem(w, http.StatusBadRequest, "the body is no JSON object", nil)
		return
	}
	key := sfcKey(r)
	document, err := json.Marshal(struct {
		APIVersion string          `json:"apiVersion"`
		Kind       string          `json:"kind"`
		Metadata   mesh.ObjectMeta `json:"metadata"`
		Spec       json.RawMessage `json:"spec"`
	}{mesh.MeshAPIVersion, key.Kind, mesh.ObjectMeta{Namespace: key.Namespace, Name: key.Name}, body})
	if err != nil {
		problem(w, http.StatusInternalServerError, err.Error(), nil)
		return
	}
	ctx, done := context.WithTimeout(r.Context(), requestTimeout)
	defer done()
	res, err := s.apply(by(ctx, "an application function"), siteapi.ApplyRequest{Documents: []siteapi.Document{{Name: "request", YAML: string(document)}}})
	if !s.changed(w, res, err) {
		return
	}
	status := http.StatusOK
	if len(res.Changes) == 1 && res.Changes[0].Action == siteapi.Created {
		status = http.StatusCreated
		w.Header().Set("Location", siteapi.PathSFC+"/"+key.Namespace+"/"+key.Name)
	}
	s.showSFC(ctx, w, key, status)
}

// changed answers for a change that was not done.
func (s *Server) changed(w http.ResponseWriter, res *siteapi.Result, err error) bool {
	if err != nil {
		problem(w, http.StatusServiceUnavailable, err.Error(), nil)
		return false
	}
	if len(res.Faults) == 0 {
		return true
	}
	var params []invalidParam
	for _, f := range res.Faults {
		reason := f.Message
		if f.Hint != "" {
			reason += " (" + f.Hint + ")"
		}
		params = append(params, invalidParam{strings.TrimPrefix(f.Path, "spec."), reason})
	}
	problem(w, http.StatusBadRequest, "nothing was changed", params)
	return false
}

func (s *Server) deleteSFC(w http.ResponseWriter, r *http.Request) {
	ctx, done := context.WithTimeout(r.Context(), requestTimeout)
	defer done()
	key := sfcKey(r)
	have, err := s.list(ctx, siteapi.GetRequest{Kind: key.Kind, Namespace: key.Namespace, Name: key.Name})
	if err == nil && len(have.Objects) == 0 {
		problem(w, http.StatusNotFound, "there is no such AfSfcRequirement", nil)
		return
	}
	var res *siteapi.Result
	if err == nil {
		res, err = s.delete(by(ctx, "an application function"), siteapi.DeleteRequest{Keys: []mesh.Key{key}})
	}
	if s.changed(w, res, err) {
		w.WriteHeader(http.StatusNoContent)
	}
}

func (s *Server) getSFC(w http.ResponseWriter, r *http.Request) {
	ctx, done := context.WithTimeout(r.Context(), requestTimeout)
	defer done()
	s.showSFC(ctx, w, sfcKey(r), http.StatusOK)
}

// showSFC answers with one requirement.
func (s *Server) showSFC(ctx context.Context, w http.ResponseWriter, key mesh.Key, status int) {
	all, err := s.requirements(ctx, key)
	switch {
	case err != nil:
		problem(w, http.StatusServiceUnavailable, err.Error(), nil)
	case len(all) == 0:
		problem(w, http.StatusNotFound, "there is no such AfSfcRequirement", nil)
	default:
		reply(w, status, all[0])
	}
}

func (s *Server) listSFC(w http.ResponseWriter, r *http.Request) {
	ctx, done := context.WithTimeout(r.Context(), requestTimeout)
	defer done()
	all, err := s.requirements(ctx, mesh.Key{Kind: mesh.KindAfSfcRequirement})
	if err != nil {
		problem(w, http.StatusServiceUnavailable, err.Error(), nil)
		return
	}
	reply(w, http.StatusOK, siteapi.SFCList{Requirements: all})
}

// requirements are those that a key names, its empty parts all, and what keeps them from
// being in force.
func (s *Server) requirements(ctx context.Context, key mesh.Key) ([]siteapi.SFCRequirement, error) {
	out := []siteapi.SFCRequirement{}
	var err error
	if doErr := s.do(ctx, func() {
		var have siteapi.Objects
		if have, err = s.get(siteapi.GetRequest{Kind: key.Kind, Namespace: key.Namespace, Name: key.Name}); err != nil {
			return
		}
		conditions := s.conditions()
		for _, o := range have.Objects {
			if o.Shadowed {
				continue
			}
			var doc struct {
				Spec json.RawMessage `json:"spec"`
			}
			if err = json.Unmarshal(o.Object, &doc); err != nil {
				return
			}
			x := siteapi.SFCRequirement{Namespace: o.Key.Namespace, Name: o.Key.Name, Request: doc.Spec, Conditions: []siteapi.SFCCondition{}}
			for _, c := range conditions {
				if c.Object == o.Key {
					x.Conditions = append(x.Conditions, siteapi.SFCCondition{Param: strings.TrimPrefix(c.Path, "spec."), Reason: c.Reason, Message: c.Message})
				}
			}
			out = append(out, x)
		}
	}); doErr != nil {
		return nil, doErr
	}
	return out, err
}
