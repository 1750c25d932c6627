package agent

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/chaining/datapath"
	"github.com/meridian-mesh/meridian/chaining/path"
)

// paper puts tables in force on paper.
type paper struct{}

func (paper) Apply(*path.Table) error                    { return nil }
func (paper) Counts() (map[uint32]datapath.Count, error) { return nil, nil }
func (paper) Drops() (map[path.Reason]uint64, error)     { return nil, nil }
func (paper) AnswersEchoes()                             {}

// Documents that say the same of chains do not end a change that is under way; what
// cannot be served changes nothing; after the end nothing is taken.
func TestTake(t *testing.T) {
	refused := ""
	a := New(Config{Node: "a", Settle: time.Hour, Log: slog.New(slog.DiscardHandler),
		Configuration: func() Configuration { return Configuration{Source: "test", Refused: refused} }}, paper{})
	a.machine = fakeMachine{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { a.Run(ctx); close(done) }()

	if err := a.Take(parse(t, twoNodes)); err != nil {
		t.Fatal(err)
	}
	first := a.Status()
	if !first.Ready || len(first.Paths) == 0 {
		t.Fatalf("%+v", first)
	}
	changed := strings.ReplaceAll(twoNodes, "functions: [firewall, bridge]", "functions: [bridge, firewall]")
	if err := a.Take(parse(t, changed)); err != nil {
		t.Fatal(err)
	}
	waiting := a.Status().View
	if waiting != "add" {
		t.Fatalf("the change is at step %q, want add: the other node may not know it yet", waiting)
	}
	other := changed + "\n---\napiVersion: mesh.meridian.dev/v1alpha1\nkind: Site\nmetadata: {name: north}\nspec: {location: {type: Point, coordinates: [1, 2]}}\n"
	if err := a.Take(parse(t, other)); err != nil {
		t.Fatal(err)
	}
	if s := a.Status(); s.View != waiting {
		t.Errorf("a document that is of no chain took the change from step %q to %q", waiting, s.View)
	}
	if err := a.Take(parse(t, strings.ReplaceAll(twoNodes, "metadata: {name: a}", "metadata: {name: c}"))); err == nil || !strings.Contains(err.Error(), "there is no ChainNode a") {
		t.Errorf("%v", err)
	}
	if s := a.Status(); !s.Ready || s.View != waiting {
		t.Errorf("%+v", s)
	}
	// Ready is what the source thinks, too: it knows of what never came here.
	refused = "generation 1.2: not signed"
	if s := a.Status(); s.Ready || !strings.Contains(s.Fault, refused) {
		t.Errorf("%+v", s)
	}
	cancel()
	<-done
	if err := a.Take(parse(t, twoNodes)); !errors.Is(err, ErrEnded) {
		t.Errorf("%v", err)
	}
}
