package topo

import "fmt"

// First returns the topology of the first n sites and of the users whose home
// those are, nothing less than the whole when there are no more.
func (t *Topology) First(n int) *Topology {
	if n >= len(t.Sites) {
		return t
	}
	out := *t
	out.Title = fmt.Sprintf("%d of %s", n, t.Title)
	out.Sites = t.Sites[:n:n]
	out.Users = nil
	for _, u := range t.Users {
		if u.Home < n {
			out.Users = append(out.Users, u)
		}
	}
	return &out
}
