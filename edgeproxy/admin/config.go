package admin

import (
	"net/http"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/source"
)

// configView is the answer of /config. Ages are in seconds.
type configView struct {
	Source     string           `json:"source"`
	Origin     string           `json:"origin,omitempty"`
	Generation *mesh.Generation `json:"generation,omitempty"`
	Hash       string           `json:"hash,omitempty"`
	Signed     bool             `json:"signed"`
	AppliedAt  *time.Time       `json:"appliedAt,omitempty"`
	AgeSeconds float64          `json:"ageSeconds,omitempty"`
	FromDisk   bool             `json:"fromDisk"`
	CheckedAt  *time.Time       `json:"checkedAt,omitempty"`
	Refused    *refusedView     `json:"refused,omitempty"`
	Unsaved    string           `json:"unsaved,omitempty"`
	Controller *linkView        `json:"controller,omitempty"`
	// Problems are the parts of the snapshot that cannot be served.
	Problems []string      `json:"problems,omitempty"`
	Objects  *mesh.Objects `json:"objects,omitempty"`
}

type refusedView struct {
	At         time.Time        `json:"at"`
	Generation *mesh.Generation `json:"generation,omitempty"`
	Faults     []string         `json:"faults"`
}

type linkView struct {
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since"`
}

func (n Node) config(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Has("history") {
		kept, err := n.History()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		writeJSON(w, struct {
			History []source.Kept `json:"history"`
		}{append([]source.Kept{}, kept...)})
		return
	}
	c := n.Config()
	if r.URL.Query().Get("format") == "yaml" {
		configYAML(w, c)
		return
	}
	v := configView{Source: c.Source, FromDisk: c.Restored, Unsaved: c.Unsaved, Problems: n.Proxy.Problems()}
	if !c.CheckedAt.IsZero() {
		v.CheckedAt = &c.CheckedAt
	}
	if s := c.Snapshot; s != nil {
		v.Origin, v.Hash, v.Signed = s.Origin, s.Hash, s.Signature != ""
		v.Generation, v.Objects = &s.Generation, &s.Objects
		v.AppliedAt, v.AgeSeconds = &c.AppliedAt, time.Since(c.AppliedAt).Seconds()
	}
	if c.Refused != nil {
		v.Refused = &refusedView{At: c.Refused.At, Generation: c.Refused.Generation, Faults: c.Refused.Faults}
	}
	if c.Link != nil {
		v.Controller = &linkView{Connected: c.Link.Connected, Since: c.Link.Since}
	}
	writeJSON(w, v)
}

// configYAML writes the objects in force as documents that --config reads.
func configYAML(w http.ResponseWriter, c source.State) {
	if c.Snapshot == nil {
		http.Error(w, "nothing is in force", http.StatusServiceUnavailable)
		return
	}
	body, err := mesh.ToYAML(&c.Snapshot.Objects)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	write(w, http.StatusOK, "application/yaml", body)
}
