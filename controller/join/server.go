package join

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"
)

// path is where the hub listens for requests to join.
const path = "/v1/join"

// maxBody bounds a request and an answer.
const maxBody = 64 << 10

// request is what a new site sends.
type request struct {
	Site string `json:"site"`
	Key  string `json:"key"`
	// NKey is the site's public key.
	NKey string `json:"nkey"`
	// Document is the site's own Site object as YAML, empty when it has none.
	Document string `json:"document,omitempty"`
}

// answer is what the hub says.
type answer struct {
	// CA is the hub's CA certificate, PEM.
	CA    string `json:"ca,omitempty"`
	Error string `json:"error,omitempty"`
}

// Hub is what a handler needs of the hub.
type Hub struct {
	Registry *Registry
	// CA is the CA certificate, PEM.
	CA []byte
	// Introduce makes the new site's Site object known to the mesh. It runs after
	// the key was found good and before the site is let in; its error is the
	// answer.
	Introduce func(ctx context.Context, site, document string) error
	// Joined is called for each site that was let in.
	Joined func(site string)
	Now    func() time.Time
}

// Handler answers requests to join.
func (h Hub) Handler() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		var in request
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&in); err != nil {
			reply(w, http.StatusBadRequest, answer{Error: "the request cannot be read"})
			return
		}
		if err := h.Registry.Check(in.Site, in.Key, in.NKey, h.Now()); err != nil {
			reply(w, http.StatusForbidden, answer{Error: err.Error()})
			return
		}
		if in.Document != "" {
			if err := h.Introduce(r.Context(), in.Site, in.Document); err != nil {
				reply(w, http.StatusUnprocessableEntity, answer{Error: err.Error()})
				return
			}
		}
		err := h.Registry.Admit(in.Site, in.Key, in.NKey, h.Now())
		switch {
		case errors.Is(err, ErrUnknownToken), errors.Is(err, ErrUsedToken), errors.Is(err, ErrExpiredToken):
			reply(w, http.StatusForbidden, answer{Error: err.Error()})
		case err != nil:
			reply(w, http.StatusServiceUnavailable, answer{Error: err.Error()})
		default:
			h.Joined(in.Site)
			reply(w, http.StatusOK, answer{CA: string(h.CA)})
		}
	})
	return m
}

func reply(w http.ResponseWriter, status int, a answer) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(a); err != nil {
		return // the reader left
	}
}
