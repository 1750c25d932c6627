package controller

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"time"

	"github.com/meridian-mesh/meridian/api/kube"
	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/journal"
	"github.com/meridian-mesh/meridian/controller/store"
	"github.com/meridian-mesh/meridian/controller/world"
)

const (
	// journalFile has the changes of the configuration; what cannot be read of it is
	// kept beside it.
	journalFile    = "journal.log"
	unreadableFile = "journal.log.unreadable"
	// keepJournalEvery is how often changes are written down. One that a crash takes
	// from there is found again at the next start, without who asked for it.
	keepJournalEvery = 500 * time.Millisecond
	// journalSlack is by how much the file may be longer than what it has to hold.
	journalSlack = 4 * journal.MaxBytes
)

// changelog is the journal of changes and what of it is not on disk yet. Loop only.
type changelog struct {
	journal *journal.Journal
	// following are the owners whose buckets were read whole: from then on what comes
	// is a change.
	following map[string]bool
	pending   []byte
	// whole says that the file has to be written anew.
	whole bool
	// writer is who asked for what is being written to the controller's own bucket.
	writer string
	// dirty wakes keepJournal.
	dirty chan struct{}
}

type whoKey struct{}

// by returns a context for changes that somebody asked for.
func by(ctx context.Context, who string) context.Context {
	return context.WithValue(ctx, whoKey{}, who)
}

// signed has the changes that are stored until written is called bear the name of who
// asked for them. The caller holds writing.
func (s *Server) signed(ctx context.Context) (written func(), err error) {
	who, named := ctx.Value(whoKey{}).(string)
	if !named {
		who = "another controller, over the bus"
	}
	sign := func(who string) error {
		return s.do(context.WithoutCancel(ctx), func() { s.changelog.writer = who })
	}
	return func() { _ = sign("") }, sign(who) // it fails only when the controller ends
}

// rawObject is an owner's object as JSON, nil where it has none. Loop only.
func (s *Server) rawObject(owner string, key mesh.Key) json.RawMessage {
	doc := s.world.Of(owner, key)
	if doc == nil || !s.changelog.following[owner] {
		return nil
	}
	data, err := json.Marshal(doc)
	if err != nil {
		s.log.Error("journal", "object", key, "err", err)
		return nil
	}
	return data
}

// note writes a change of a bucket down that is in force now. Loop only.
func (s *Server) note(e event, before json.RawMessage) {
	l := &s.changelog
	if !l.following[e.owner] {
		return
	}
	c := journal.Change{
		Owner: e.owner, Revision: e.entry.Revision, At: e.entry.At.UTC(), Key: e.entry.Key,
		Before: before, After: s.rawObject(e.owner, e.entry.Key),
	}
	c.Cluster = cmp.Or(clusterIn(c.After), clusterIn(before))
	if c.At.IsZero() { // from a record of an earlier build
		c.At = time.Now().UTC()
	}
	if e.owner == s.world.Owner() {
		c.Who = l.writer
	}
	if l.journal.Note(c) {
		s.writeDown(c)
	}
}

func (s *Server) writeDown(c journal.Change) {
	line, err := journal.Line(c)
	if err != nil {
		s.log.Error("journal", "object", c.Key, "err", err)
		return
	}
	s.changelog.pending = append(s.changelog.pending, line...)
	s.wakeJournal()
}

func (s *Server) wakeJournal() {
	select {
	case s.changelog.dirty <- struct{}{}:
	default: // it is awake
	}
}

// clusterIn is [clusterOf] an object as JSON.
func clusterIn(object json.RawMessage) string {
	var o struct {
		Metadata mesh.ObjectMeta `json:"metadata"`
	}
	if object == nil || json.Unmarshal(object, &o) != nil {
		return "" // the controller made it from an object, so it can be read
	}
	return o.Metadata.Labels[kube.ClusterLabel]
}

// follow begins the journal of each owner whose bucket is what it was, with what
// changed since an earlier run. Loop only.
func (s *Server) follow() {
	l := &s.changelog
	owners := []string{s.world.Owner()}
	if s.hub != nil {
		owners = append(owners, world.Hub)
	}
	for _, owner := range owners {
		if l.following[owner] || s.hold != "" && s.holdOwner == owner {
			continue
		}
		l.whole = l.whole || !l.journal.Knows(owner)
		l.following[owner] = true
		books := s.ledgerOf(owner)
		objects := map[mesh.Key]journal.Present{}
		for key, rev := range books.live {
			data := s.rawObject(owner, key)
			if data == nil {
				continue // this build refused it
			}
			objects[key] = journal.Present{Revision: rev, At: books.at[key].UTC(), Value: data, Cluster: clusterIn(data)}
		}
		for _, c := range l.journal.Begin(owner, books.high, objects, time.Now().UTC()) {
			s.writeDown(c)
		}
	}
	if l.whole {
		s.wakeJournal()
	}
}

// recallJournal reads what an earlier run wrote down. A file that cannot be believed is
// put aside: changes are remembered from now on, and serving does not depend on it.
func (s *Server) recallJournal() error {
	s.changelog = changelog{journal: journal.New(), following: map[string]bool{}, dirty: make(chan struct{}, 1)}
	text, err := os.ReadFile(s.folder.Path(journalFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("controller: %w", err)
	}
	j, err := journal.Parse(text)
	if err != nil {
		s.log.Error("the history of changes cannot be read and begins anew", "file", s.folder.Path(journalFile), "err", err, "kept_as", s.folder.Path(unreadableFile))
		if err := os.Rename(s.folder.Path(journalFile), s.folder.Path(unreadableFile)); err != nil {
			return fmt.Errorf("controller: %w", err)
		}
		return nil
	}
	s.changelog.journal = j
	// Its last line may be torn.
	s.changelog.whole = true
	return nil
}

// keepJournal writes changes down until ctx ends, and then what is left.
func (s *Server) keepJournal(ctx context.Context) {
	size, failed := 0, ""
	keep := func(text []byte, whole bool, err error) {
		path := s.folder.Path(journalFile)
		switch {
		case err != nil || len(text) == 0:
		case whole:
			size, err = len(text), store.WriteFile(path, text, 0o600)
		default:
			size += len(text)
			err = appendTo(path, text)
		}
		if err == nil {
			failed = ""
			return
		}
		if text := err.Error(); text != failed {
			failed = text
			s.log.Error("changes of the configuration are not written down: a restart will not know who made them", "err", err)
		}
		size = math.MaxInt // a torn line stands at its end: anew with the next change
	}
	for {
		select {
		case <-ctx.Done():
			<-s.stopped // what was the loop's is nobody's now
			keep(s.unwritten(size))
			return
		case <-s.changelog.dirty:
		}
		select {
		case <-ctx.Done():
			continue
		case <-time.After(keepJournalEvery): // what belongs together is written together
		}
		var text []byte
		var whole bool
		var err error
		if s.do(ctx, func() { text, whole, err = s.unwritten(size) }) == nil {
			keep(text, whole, err)
		}
	}
}

// unwritten is what has to be added to a file of a size, or with whole to replace it.
// Loop only.
func (s *Server) unwritten(size int) (text []byte, whole bool, err error) {
	l := &s.changelog
	text, l.pending = l.pending, nil
	if whole = l.whole || size > journalSlack; whole {
		l.whole = false
		text, err = l.journal.Text()
	}
	return text, whole, err
}

func appendTo(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("controller: %w", err)
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
