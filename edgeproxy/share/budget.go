package share

import (
	"github.com/meridian-mesh/meridian/api/mesh"
)

// spentText is why nothing more goes over a link with a budget.
const spentText = "the link's budget for today is used up here"

// budgeted is what is in force of a link with a daily budget.
type budgeted struct {
	priceMS float64
	grant   *mesh.LinkGrant
}

// SetLinks takes what budgets leave of links. What is not for this process is passed
// over, and a link that is not named keeps what it has: a node whose controller is silent
// goes on with what was left to it.
func (n *Node) SetLinks(links []mesh.LinkState) {
	for i := range links {
		l := &links[i]
		p := n.peer[l.Site]
		if p == nil || !p.Budget {
			continue
		}
		b := n.budgets[l.Site]
		b.priceMS = l.PriceMS
		if g, ok := l.Grants[n.id.Node]; ok && g.Epoch == n.id.Epoch {
			b.grant = &g
		}
		n.budgets[l.Site] = b
		n.bound(l.Site)
	}
}

// bound puts in force what is known of a link's budget: nothing begins over a link that
// has one before a part of it was granted.
func (n *Node) bound(site string) {
	m := n.ledger.Meter(site)
	switch b := n.budgets[site]; {
	case !n.peer[site].Budget:
		m.Unbound()
	case b.grant == nil:
		m.Bound(0)
	default:
		m.Bound(b.grant.Most)
	}
}

// configureBudgets follows a new set of peers.
func (n *Node) configureBudgets(old map[string]*Peer) {
	for site, p := range n.peer {
		if !p.Budget {
			delete(n.budgets, site)
		}
		n.bound(site)
	}
	for site := range old {
		if n.peer[site] == nil {
			delete(n.budgets, site)
			n.ledger.Meter(site).Unbound()
		}
	}
}

// spent says in words why a link may carry nothing more, empty where it may.
func (n *Node) spent(p *Peer) string {
	switch {
	case !p.meter.Spent():
		return ""
	case n.budgets[p.Site].grant == nil:
		return "the link has a budget, and the controller has not said yet what is left of it for this proxy"
	}
	return spentText
}

// carried completes what is said of a link.
func (n *Node) carried(l *mesh.LinkReport, p *Peer) {
	l.Carried = p.meter.Carried()
	if p.Budget {
		l.Grant = n.budgets[l.Site].grant
	}
}
