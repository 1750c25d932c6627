package edgeproxy

import "github.com/meridian-mesh/meridian/edgeproxy/worker"

// Connection is a client's connection at one moment.
type Connection = worker.Connection

// Connections returns the newest client connections of each loop, at most most of
// them of each, as the loops tell them between two turns.
func (s *Server) Connections(most int) []Connection {
	told := make(chan []Connection, len(s.shared.Workers))
	if !s.each(func(w *worker.Worker) { told <- w.Inspect(nil, most) }) {
		return nil
	}
	all := []Connection{}
	for range s.shared.Workers {
		all = append(all, <-told...)
	}
	return all
}

// Connection returns one client connection with the requests that it carries,
// false when there is none of that id.
func (s *Server) Connection(id uint64) (Connection, bool) {
	told := make(chan Connection, 1)
	s.each(func(w *worker.Worker) {
		if c, ok := w.InspectOne(id); ok {
			told <- c
		}
	})
	select {
	case c := <-told:
		return c, true
	default:
		return Connection{}, false
	}
}
