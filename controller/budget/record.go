package budget

import "time"

// Record is a book as it is kept on disk.
type Record struct {
	Links map[string]LinkRecord `json:"links"`
}

// LinkRecord is one link of a [Record].
type LinkRecord struct {
	Day   int64                 `json:"day"`
	RanMS int64                 `json:"ranMs"`
	Since uint64                `json:"since"`
	Used  uint64                `json:"used"`
	Bytes uint64                `json:"bytes"`
	Start int64                 `json:"startS"`
	Nodes map[string]NodeRecord `json:"nodes,omitempty"`
}

// NodeRecord is one node's part of a [LinkRecord]: when it started, what it had carried,
// and the furthest reading that it may go to.
type NodeRecord struct {
	Epoch   uint64 `json:"epoch"`
	Carried uint64 `json:"carried"`
	Held    uint64 `json:"held"`
}

// Record returns what a later run needs.
func (b *Book) Record() Record {
	out := Record{Links: make(map[string]LinkRecord, len(b.links))}
	for site, k := range b.links {
		r := LinkRecord{
			Day: k.day, RanMS: k.ran.Milliseconds(), Since: k.since, Used: k.used, Bytes: k.Bytes, Start: int64(k.Start / time.Second),
			Nodes: make(map[string]NodeRecord, len(k.nodes)),
		}
		for name, n := range k.nodes {
			held := n.held
			if n.gone {
				held = n.carried
			}
			r.Nodes[name] = NodeRecord{n.epoch, n.carried, held}
		}
		out.Links[site] = r
	}
	return out
}

// Restore makes a new book of a record. Nodes count as just heard.
func Restore(r Record) *Book {
	b := &Book{links: map[string]*link{}}
	for site, l := range r.Links {
		k := &link{
			Limit: Limit{l.Bytes, time.Duration(l.Start) * time.Second}, day: l.Day, ran: time.Duration(l.RanMS) * time.Millisecond,
			since: l.Since, used: l.Used, nodes: map[string]*node{},
		}
		for name, n := range l.Nodes {
			k.nodes[name] = &node{epoch: n.Epoch, carried: n.Carried, held: n.Held}
		}
		b.links[site] = k
	}
	return b
}
