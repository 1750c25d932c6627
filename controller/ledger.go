package controller

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/backup"
	"github.com/meridian-mesh/meridian/controller/store"
	"github.com/meridian-mesh/meridian/controller/world"
	"github.com/meridian-mesh/meridian/internal/bus"
)

const (
	// booksFile records how the buckets stood when the last snapshot was made.
	booksFile = "buckets.json"
	// aheadFile has what the hub said and the mirror on disk had not got yet.
	aheadFile = "hub-ahead.json"
)

// ledger follows one bucket: which revision each object in it has, so that it can
// be told whether a start finds what an earlier run had.
type ledger struct {
	high uint64
	live map[mesh.Key]uint64
	// at is when each of them was written.
	at map[mesh.Key]time.Time
	// first is the first revision of the bucket's present incarnation: what is older
	// and was not written again went with the one before.
	first uint64
}

// book is a ledger as it is recorded.
type book struct {
	High   uint64 `json:"high"`
	Digest string `json:"digest"`
}

// incarnation is the value of [bus.IncarnationKey].
type incarnation struct {
	First uint64 `json:"first"`
}

func (l *ledger) book() book {
	h := sha256.New()
	keys := slices.SortedFunc(maps.Keys(l.live), func(a, b mesh.Key) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	for _, k := range keys {
		fmt.Fprintf(h, "%q %q %q %d\n", k.Kind, k.Namespace, k.Name, l.live[k])
	}
	return book{l.high, hex.EncodeToString(h.Sum(nil))}
}

// ledgerOf returns the ledger of an owner's bucket. Loop only.
func (s *Server) ledgerOf(owner string) *ledger {
	l := s.ledgers[owner]
	if l == nil {
		l = &ledger{live: map[mesh.Key]uint64{}, at: map[mesh.Key]time.Time{}}
		s.ledgers[owner] = l
	}
	return l
}

// enter books an entry of a bucket and reports whether it is an object of the
// bucket's present incarnation. Loop only.
func (s *Server) enter(e event) bool {
	l := s.ledgerOf(e.owner)
	l.high = max(l.high, e.entry.Revision)
	if e.entry.Key == bus.IncarnationKey {
		var inc incarnation
		if err := json.Unmarshal(e.entry.Value, &inc); err != nil {
			s.count.objectFaults.Add(1)
			s.log.Error("incarnation refused", "owner", e.owner, "err", err)
			return false
		}
		l.first = max(l.first, inc.First)
		for key, rev := range l.live {
			if rev < l.first {
				delete(l.live, key)
				before := s.rawObject(e.owner, key)
				s.world.Remove(e.owner, key)
				s.note(event{e.owner, bus.Entry{Key: key, Revision: inc.First, At: e.entry.At}}, before)
				s.forgetRemoved(key)
			}
		}
		s.log.Info("configuration was restored from a backup", "owner", e.owner, "first_revision", inc.First)
		return false
	}
	if e.entry.Revision < l.first {
		return false
	}
	if e.entry.Value == nil {
		delete(l.live, e.entry.Key)
		delete(l.at, e.entry.Key)
	} else {
		l.live[e.entry.Key], l.at[e.entry.Key] = e.entry.Revision, e.entry.At
	}
	return true
}

// books are all ledgers as they stand. Loop only.
func (s *Server) books() map[string]book {
	out := map[string]book{}
	for owner, l := range s.ledgers {
		if l.high > 0 {
			out[owner] = l.book()
		}
	}
	return out
}

// missing says what the buckets lack of what an earlier run had, empty when
// nothing. A bucket that went on since cannot be compared, and is believed. Loop
// only.
func (s *Server) missing(recorded map[string]book) (owner, what string) {
	for _, owner := range slices.Sorted(maps.Keys(recorded)) {
		was, is := recorded[owner], s.ledgerOf(owner).book()
		switch {
		case is.High < was.High:
			return owner, fmt.Sprintf("it stands at revision %d and stood at %d", is.High, was.High)
		case is.High == was.High && is.Digest != was.Digest:
			return owner, fmt.Sprintf("it has other objects at revision %d than it had", is.High)
		}
	}
	return "", ""
}

// compare holds the site to its last snapshot when the configuration on disk is
// not what it was: a store that lost something must not take it from the nodes
// too. Loop only.
func (s *Server) compare() {
	owner, what := s.missing(s.recorded)
	if what == "" {
		if s.hold != "" {
			s.log.Info("configuration is complete again")
			s.problem = ""
		}
		s.hold, s.holdOwner = "", ""
		return
	}
	hold := fmt.Sprintf("configuration owned by %s was lost or damaged (%s): the nodes keep the last snapshot", owner, what)
	if owner == world.Hub && s.hub != nil {
		hold += " until the hub answers"
	} else {
		hold += fmt.Sprintf("; restore a backup (meridian restore), or stop this controller and remove %s from its data folder to go on with what is left", booksFile)
	}
	if hold != s.hold {
		s.log.Error(hold)
	}
	s.hold, s.holdOwner, s.problem = hold, owner, hold
}

// held refuses changes while the configuration is not what it was.
func (s *Server) held(ctx context.Context) error {
	var hold string
	if err := s.do(ctx, func() {
		if s.holdOwner == s.world.Owner() {
			hold = s.hold
		}
	}); err != nil {
		return err
	}
	if hold != "" {
		return errors.New(hold)
	}
	return nil
}

// recall loads what an earlier run recorded.
func (s *Server) recall() error {
	if _, err := s.folder.LoadRecord(booksFile, &s.recorded); errors.Is(err, store.ErrDamaged) {
		s.log.Error("the record of the buckets is lost: what they hold is believed", "err", err)
	} else if err != nil {
		return err
	}
	return nil
}

// recallAhead hands the hub's word that the mirror had not got yet to the world.
func (s *Server) recallAhead() error {
	var ahead []bus.Entry
	if _, err := s.folder.LoadRecord(aheadFile, &ahead); errors.Is(err, store.ErrDamaged) {
		s.log.Error("what the hub said last is lost: the mirror is believed", "err", err)
	} else if err != nil {
		return err
	}
	s.hub.Recall(ahead)
	return nil
}

// refresh asks the hub itself, and keeps what the mirror lacks of its answer for
// the next start.
func (s *Server) refresh(ctx context.Context) error {
	var full bool
	if err := s.do(ctx, func() { full = s.holdOwner == world.Hub }); err != nil {
		return err
	}
	ahead, err := s.hub.Refresh(ctx, full)
	if err != nil {
		return err
	}
	if len(ahead) > 0 {
		if err := s.folder.SaveRecord(aheadFile, ahead); err != nil {
			return fmt.Errorf("keep what the hub says: %w", err)
		}
	}
	if full {
		return s.do(ctx, func() {
			s.drain()
			s.compare()
			s.follow()
			s.compile()
		})
	}
	return nil
}

// drain takes in the events that are queued. Loop only.
func (s *Server) drain() {
	for {
		select {
		case e := <-s.events:
			s.configured(e)
		default:
			return
		}
	}
}

// finishRestore puts the configuration of a folder that was restored from a backup
// into the bucket. It may be repeated.
func (s *Server) finishRestore(ctx context.Context) error {
	var pending backup.Pending
	found, err := s.folder.LoadRecord(backup.PendingFile, &pending)
	if err != nil {
		return fmt.Errorf("restore: %w; restore the backup again, into an empty folder", err)
	}
	if !found {
		return nil
	}
	if err := s.conn.RestoreConfig(ctx, s.cfg.Site, s.cfg.Hub, pending.First); err != nil {
		return err
	}
	if err := s.openOwn(ctx); err != nil {
		return err
	}
	var first uint64
	for _, o := range pending.Objects {
		rev, err := s.own.Put(ctx, o.Key, o.Value, bus.AnyRevision)
		if err != nil {
			return fmt.Errorf("restore %s: %w", o.Key, err)
		}
		if first == 0 {
			first = rev
		}
	}
	if first == 0 {
		first = pending.First
	}
	value, err := json.Marshal(incarnation{First: first})
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if _, err := s.own.Put(ctx, bus.IncarnationKey, value, bus.AnyRevision); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	s.log.Warn("restored from a backup", "objects", len(pending.Objects), "first_revision", first, "incarnation", s.newest.Incarnation)
	if err := os.Remove(s.folder.Path(backup.PendingFile)); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	return nil
}

// openOwn opens the bucket that this controller writes.
func (s *Server) openOwn(ctx context.Context) (err error) {
	if s.cfg.Hub {
		s.own, err = s.conn.OpenHubConfig(ctx)
	} else {
		s.own, err = s.conn.OpenSiteConfig(ctx, s.cfg.Site)
	}
	return err
}
