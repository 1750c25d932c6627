package controller

import (
	"errors"
	"fmt"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/budget"
	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/controller/store"
)

const (
	// budgetsFile has what the site's links carried today.
	budgetsFile = "budgets.json"
	// keepBudgetsEvery is how often it is written while anything is carried. What a proxy
	// carried and reported since is found again in its next report.
	keepBudgetsEvery = 5 * time.Second
)

// budgets are the daily budgets of the site's links. It belongs to the loop.
type budgets struct {
	book *budget.Book
	uses map[string]budget.Use // at the last tick
	// unsaved says that a part was made larger that the record on disk does not have:
	// until it has, nobody is told.
	unsaved bool
	kept    map[string]uint64 // used, as it stands on disk
	keptAt  time.Time
	failed  string
}

// recallBudgets loads what an earlier run kept.
func (s *Server) recallBudgets() error {
	var r budget.Record
	switch _, err := s.folder.LoadRecord(budgetsFile, &r); {
	case errors.Is(err, store.ErrDamaged):
		s.log.Error("what links carried today is lost: their budgets begin anew", "err", err)
		r = budget.Record{}
	case err != nil:
		return err
	}
	s.budgets.book = budget.Restore(r)
	return nil
}

// countBudgets takes in what the nodes carried. Loop only.
func (s *Server) countBudgets(now time.Time) {
	clock := now.Sub(s.started)
	limits := map[string]budget.Limit{}
	for _, l := range s.world.Links() {
		if l.Budget != nil {
			limits[l.To] = budget.LimitOf(l.Budget)
		}
	}
	b := &s.budgets
	b.book.Tick(now, clock, limits)
	b.uses = map[string]budget.Use{}
	if len(limits) == 0 {
		return
	}
	for _, n := range s.world.Nodes(now) {
		for i := range n.Report.Links {
			l := &n.Report.Links[i]
			b.book.Note(n.At.Sub(s.started), l.Site, n.Name, n.Report.Epoch, l.Carried, l.Grant)
		}
	}
	for _, u := range b.book.Uses(now) {
		b.uses[u.Site] = u
	}
}

// shareBudgets deals out what is left, once what is dealt out is on disk. Loop only.
func (s *Server) shareBudgets(now time.Time) []mesh.LinkState {
	b := &s.budgets
	links, larger := b.book.Share(now)
	b.unsaved = b.unsaved || larger
	if b.unsaved || now.Sub(b.keptAt) >= keepBudgetsEvery {
		s.keepBudgets(now)
	}
	if b.unsaved {
		return nil
	}
	return links
}

// keepBudgets writes the record where it is not what was written last. Loop only.
func (s *Server) keepBudgets(now time.Time) {
	b := &s.budgets
	used := map[string]uint64{}
	same := len(b.uses) == len(b.kept)
	for site, u := range b.uses {
		used[site] = u.Used
		was, ok := b.kept[site]
		same = same && ok && was == u.Used
	}
	if same && !b.unsaved {
		return
	}
	b.keptAt = now
	if err := s.folder.SaveRecord(budgetsFile, b.book.Record()); err != nil {
		if text := err.Error(); text != b.failed {
			b.failed = text
			s.log.Error("what links carried today is not kept: proxies get no larger part of their budgets until it is", "err", err)
		}
		return
	}
	b.unsaved, b.kept, b.failed = false, used, ""
}

// budgetOf is what the budget of the link to a site adds to its price, and why it is
// closed, empty when it is not. Loop only.
func (s *Server) budgetOf(site string) (priceMS float64, closed string) {
	u, ok := s.budgets.uses[site]
	if !ok {
		return 0, ""
	}
	if u.Spent() {
		closed = fmt.Sprintf("the link's budget for today (%.3g GB) is used up, the next day begins at %s", float64(u.Bytes)/1e9, u.Turns.UTC().Format("15:04Z"))
	}
	return u.PriceMS, closed
}

// linkBudgets says how the links with a budget stand. Loop only.
func (s *Server) linkBudgets(now time.Time) []siteapi.LinkBudget {
	var out []siteapi.LinkBudget
	for _, u := range s.budgets.book.Uses(now) {
		out = append(out, siteapi.LinkBudget{Site: u.Site, Bytes: u.Bytes, Used: u.Used, PriceMS: u.PriceMS, Turns: u.Turns})
	}
	return out
}
