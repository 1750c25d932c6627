package controller

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/journal"
	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/controller/world"
)

// serveChanges adds what is asked of the configuration's history.
func (s *Server) serveChanges(m *http.ServeMux) {
	m.HandleFunc("GET "+siteapi.PathChanges, func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		answer(w, r, func(ctx context.Context) (out *siteapi.Changes, err error) {
			err = s.do(ctx, func() {
				out = s.changesOf(siteapi.ChangesRequest{
					Owner: q.Get("owner"), Key: mesh.Key{Kind: q.Get("kind"), Namespace: q.Get("namespace"), Name: q.Get("name")},
				})
			})
			return out, err
		})
	})
	m.HandleFunc("GET "+siteapi.PathConfig, func(w http.ResponseWriter, r *http.Request) {
		answer(w, r, func(ctx context.Context) (out *siteapi.Config, err error) {
			if doErr := s.do(ctx, func() { out, err = s.config() }); doErr != nil {
				return nil, doErr
			}
			return out, err
		})
	})
	m.HandleFunc("POST "+siteapi.PathRollback, s.changes(func(w http.ResponseWriter, r *http.Request) {
		post(w, r, s.rollback, func(r *siteapi.RolledBack) bool { return refused(&r.Result) })
	}))
}

// changesOf are the changes that are remembered. Loop only.
func (s *Server) changesOf(r siteapi.ChangesRequest) *siteapi.Changes {
	out := &siteapi.Changes{Site: s.cfg.Site, Owner: s.world.Owner(), Owners: []siteapi.OwnerChanges{}, Changes: []journal.Change{}}
	match := func(key mesh.Key) bool {
		return (r.Key.Kind == "" || r.Key.Kind == key.Kind) && (r.Key.Namespace == "" || r.Key.Namespace == key.Namespace) && (r.Key.Name == "" || r.Key.Name == key.Name)
	}
	for _, owner := range s.changelog.journal.Owners() {
		if r.Owner != "" && r.Owner != owner {
			continue
		}
		floor, high := s.changelog.journal.Floor(owner)
		out.Owners = append(out.Owners, siteapi.OwnerChanges{Owner: owner, Floor: floor, Revision: high})
		for _, c := range s.changelog.journal.Changes(owner) {
			if match(c.Key) {
				out.Changes = append(out.Changes, c)
			}
		}
	}
	slices.SortStableFunc(out.Changes, func(a, b journal.Change) int { return a.At.Compare(b.At) })
	return out
}

// config is what the site's nodes are to serve. Loop only.
func (s *Server) config() (*siteapi.Config, error) {
	out := &siteapi.Config{Site: s.cfg.Site, Problem: s.problem, Objects: []siteapi.Served{}}
	served := map[mesh.Key]bool{}
	if s.snapshot != nil {
		g := s.snapshot.Generation
		out.Origin, out.Generation, out.Published = s.snapshot.Origin, &g, s.published == g
		for key, doc := range s.snapshot.Objects.All() {
			served[key] = true
			o := s.servedFrom(key, "", doc)
			data, err := json.Marshal(doc)
			if err != nil {
				return nil, fmt.Errorf("encode %s: %w", key, err)
			}
			o.Object = data
			out.Objects = append(out.Objects, o)
		}
	}
	for _, x := range s.world.List() {
		if served[x.Key] && !x.Shadowed {
			continue
		}
		o := s.servedFrom(x.Key, x.Owner, x.Doc)
		switch label := labelsOf(x.Doc)[world.SiteLabel]; {
		case x.Shadowed:
			o.Why = "another owner has this name"
		case label != "" && label != s.cfg.Site:
			o.Why = "it is for site " + label
		default:
			o.Why = "it came after the snapshot"
		}
		out.Left = append(out.Left, o)
	}
	order := func(a, b siteapi.Served) int {
		return cmp.Or(cmp.Compare(a.Key.String(), b.Key.String()), cmp.Compare(a.Owner, b.Owner))
	}
	slices.SortFunc(out.Objects, order)
	slices.SortFunc(out.Left, order)
	return out, nil
}

// servedFrom says where an object comes from, of an owner or of who has it in force.
// Loop only.
func (s *Server) servedFrom(key mesh.Key, owner string, doc any) siteapi.Served {
	if owner == "" {
		in, _ := s.world.Get(key)
		owner = in.Owner
	}
	out := siteapi.Served{Key: key, Owner: owner, Cluster: clusterOf(doc)}
	if l := s.ledgerOf(owner); owner != "" {
		out.Revision, out.At = l.live[key], l.at[key].UTC()
		out.Who = s.changelog.journal.Author(owner, key, out.Revision)
	}
	return out
}

// rollback has the objects that this controller owns be as they were at a revision, all
// of them or none, as new revisions and one generation.
func (s *Server) rollback(ctx context.Context, r siteapi.RollbackRequest) (*siteapi.RolledBack, error) {
	out := &siteapi.RolledBack{Result: siteapi.Result{Site: s.cfg.Site, DryRun: r.DryRun, Changes: []siteapi.Change{}}, Objects: []siteapi.RolledObject{}}
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := errors.Join(s.errStandby(), s.held(ctx)); err != nil {
		return nil, err
	}
	var changes []change
	err := s.do(ctx, func() {
		changes = s.undo(out, r)
		if len(out.Faults) == 0 && len(changes) > 1 && !r.DryRun {
			s.collecting = time.Now().Add(collectFor)
		}
	})
	if err != nil || len(out.Faults) > 0 || len(changes) == 0 {
		return out, err
	}
	_, err = s.write(ctx, &out.Result, changes)
	if r.DryRun {
		return out, err
	}
	return out, errors.Join(err, s.do(context.WithoutCancel(ctx), func() {
		s.collecting = time.Time{}
		out.Revision = s.ledgerOf(out.Owner).high
		s.compile()
	}))
}

// undo fills in what a rollback does, and returns the changes to write. Loop only.
func (s *Server) undo(out *siteapi.RolledBack, r siteapi.RollbackRequest) (changes []change) {
	out.Owner = s.world.Owner()
	out.Revision = s.ledgerOf(out.Owner).high
	fault := func(key mesh.Key, format string, args ...any) {
		f := mesh.Fault{Message: fmt.Sprintf(format, args...)}
		if key.Kind != "" {
			f.Object = key.String()
		}
		out.Faults = append(out.Faults, f)
	}
	if r.At != 0 && r.At != out.Revision {
		fault(mesh.Key{}, "somebody changed the configuration meanwhile: it is at revision %d, not %d; look again", out.Revision, r.At)
		return nil
	}
	then, err := s.changelog.journal.AsOf(out.Owner, r.Revision)
	if err != nil {
		fault(mesh.Key{}, "%v", err)
		return nil
	}
	set := &mesh.Objects{}
	for _, key := range slices.SortedFunc(maps.Keys(then), func(a, b mesh.Key) int { return cmp.Compare(a.String(), b.String()) }) {
		was, now := then[key], s.rawObject(out.Owner, key)
		if bytes.Equal(was.Before, now) {
			continue
		}
		if why := untouched(key, was, now); why != "" {
			out.Skipped = append(out.Skipped, siteapi.SkippedObject{Key: key, Why: why})
			continue
		}
		c := change{siteapi.Change{Key: key, Action: siteapi.Deleted}, nil}
		if was.Before != nil {
			c.Action = siteapi.Updated
			if now == nil {
				c.Action = siteapi.Created
			}
			if c.doc, err = parseObject(key, was.Before); err == nil {
				err = s.world.Claim(key)
			}
			if err != nil {
				fault(key, "as it was at revision %d it is refused now: %v", r.Revision, err)
				continue
			}
			add(set, world.Object{Key: key, Owner: out.Owner, Doc: c.doc})
		}
		out.Objects = append(out.Objects, siteapi.RolledObject{Key: key, Before: now, After: was.Before})
		changes = append(changes, c)
	}
	if len(out.Faults) == 0 && set.Len() > 0 {
		out.Conditions = s.conditionsWith(set)
	}
	return changes
}

// untouched says why a rollback leaves an object as it is, empty when it does not.
func untouched(key mesh.Key, was journal.Change, now json.RawMessage) string {
	if key.Kind == mesh.KindTrustBundle {
		return "whom the mesh believes follows its roots (meridian cert)"
	}
	if cluster := cmp.Or(clusterIn(was.Before), clusterIn(now), was.Cluster); cluster != "" {
		return "it is brought from Kubernetes cluster " + cluster + ": change it there"
	}
	return ""
}

// parseObject reads an object as strictly as apply does.
func parseObject(key mesh.Key, object json.RawMessage) (any, error) {
	objects, err := mesh.ParseYAML(key.String(), object)
	if err != nil {
		return nil, err
	}
	for k, doc := range objects.All() {
		if k == key {
			return doc, nil
		}
	}
	return nil, fmt.Errorf("it is another object than %s", key)
}
