package controller

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/meridian-mesh/meridian/api/kube"
	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

const (
	// bringWriters is how many objects of a cluster are stored at a time.
	bringWriters = 16
	// collectFor bounds how long snapshots wait for objects that belong together.
	collectFor = 10 * time.Second
)

// Bring makes the objects of a Kubernetes cluster, each marked with
// [kube.ClusterLabel], those in force, as one generation, and removes what it brought
// of that cluster before and is not among them. Objects that somebody wrote by hand or
// that belong to another owner stay, and are faults. From then on what was brought is
// not changed by hand. Bring may be called when the server is ready.
func (s *Server) Bring(ctx context.Context, cluster string, objects *mesh.Objects) ([]mesh.Fault, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := errors.Join(s.errStandby(), s.held(ctx)); err != nil {
		return nil, err
	}
	var faults []mesh.Fault
	var changes []change
	err := s.do(ctx, func() {
		s.brought[cluster] = true
		want := map[mesh.Key]bool{}
		for key, doc := range objects.All() {
			want[key] = true
			have, there := s.world.Get(key)
			refusal := s.world.Claim(key)
			if there && refusal == nil && clusterOf(have.Doc) != cluster {
				refusal = errors.New("an object of that name was not brought from the cluster: it stays, remove it or rename one of the two")
			}
			switch {
			case refusal != nil:
				faults = append(faults, mesh.Fault{Object: key.String(), Message: refusal.Error()})
			case !there:
				changes = append(changes, change{siteapi.Change{Key: key, Action: siteapi.Created}, doc})
			case !sameJSON(have.Doc, doc):
				changes = append(changes, change{siteapi.Change{Key: key, Action: siteapi.Updated}, doc})
			}
		}
		for _, o := range s.world.List() {
			if o.Owner == s.world.Owner() && clusterOf(o.Doc) == cluster && !want[o.Key] {
				changes = append(changes, change{siteapi.Change{Key: o.Key, Action: siteapi.Deleted}, nil})
			}
		}
		if len(changes) > 1 {
			s.collecting = time.Now().Add(collectFor)
		}
	})
	if err != nil || len(changes) == 0 {
		return faults, err
	}
	err = s.storeAll(by(ctx, "Kubernetes cluster "+cluster), changes)
	return faults, errors.Join(err, s.do(ctx, func() {
		s.collecting = time.Time{}
		s.compile()
	}))
}

// storeAll stores changes, several at a time, and returns when the world has them.
func (s *Server) storeAll(ctx context.Context, changes []change) error {
	ctx, done := context.WithTimeout(ctx, collectFor)
	defer done()
	written, err := s.signed(ctx)
	if err != nil {
		return err
	}
	defer written()
	var group sync.WaitGroup
	var mu sync.Mutex
	var errs error
	wait := map[mesh.Key]uint64{}
	one := func(c change) {
		rev, err := s.store(ctx, c)
		mu.Lock()
		defer mu.Unlock()
		if err != nil && errs == nil {
			errs = fmt.Errorf("store %s: %w", c.Key, err)
		} else if err == nil {
			wait[c.Key] = rev
		}
	}
	slots := make(chan struct{}, bringWriters)
	for _, c := range changes {
		if c.doc == nil {
			continue
		}
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			one(c)
		})
	}
	group.Wait()
	// One at a time: a bucket does not tell the revision of a deletion but its last.
	for _, c := range changes {
		if c.doc == nil {
			one(c)
		}
	}
	if errs != nil {
		return errs
	}
	return s.await(ctx, wait)
}

// Sites are the names of the sites that the mesh knows.
func (s *Server) Sites(ctx context.Context) (names []string, err error) {
	err = s.do(ctx, func() { names = s.siteNames() })
	return names, err
}

// clusterOf is the cluster that an object was brought from, empty for none.
func clusterOf(doc any) string { return labelsOf(doc)[kube.ClusterLabel] }

func labelsOf(doc any) map[string]string {
	if doc == nil {
		return nil
	}
	meta, ok := reflect.ValueOf(doc).Elem().FieldByName("Metadata").Interface().(mesh.ObjectMeta)
	if !ok {
		return nil
	}
	return meta.Labels
}

// errBrought refuses changes by hand of objects that are kept from a cluster, and
// objects that would pass for one. Loop only.
func (s *Server) errBrought(docs ...any) error {
	for _, d := range docs {
		if c := clusterOf(d); c != "" && s.brought[c] {
			return fmt.Errorf("objects with label %s: %s are kept from that Kubernetes cluster: change it there, or remove the label", kube.ClusterLabel, c)
		}
	}
	return nil
}
