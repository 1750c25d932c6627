package view

import (
	"slices"
	"strings"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/plan"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// Priority is a priority class: requests with one of the values in a field.
type Priority struct {
	Name   string
	header string // in lower case
	values []string
}

func (p *Priority) fits(fields []stream.Field) bool {
	for i := range fields {
		if fields[i].Is(p.header) && slices.ContainsFunc(p.values, func(v string) bool { return v == string(fields[i].Value) }) {
			return true
		}
	}
	return false
}

// Class is the number of a request's priority class by its fields: that of the first
// that fits, from 1 on, or 0. It allocates nothing.
func (s *Service) Class(fields []stream.Field) int {
	for i := range s.Priorities {
		if s.Priorities[i].fits(fields) {
			return i + 1
		}
	}
	return 0
}

// Full reports whether a request of a class is refused at a service without a gate,
// by the declared capacity and the number in flight.
func (s *Service) Full(class, inFlight int) bool {
	limit := s.FullAt(class)
	return limit > 0 && inFlight >= limit
}

// FullAt is the number in flight from which Full is true, 0 where it never is.
func (s *Service) FullAt(class int) int {
	if s.alone == nil {
		return 0
	}
	return s.alone[class]
}

// shedding says when requests are refused, and where that is counted.
func (b *builder) shedding(s *Service, p *mesh.SiteSharing) {
	s.Sheds = append(s.Sheds, s.Shed(""))
	after := []float64{0}
	if p.ShedAfter != nil {
		after[0] = float64(*p.ShedAfter) / float64(time.Millisecond)
	}
	for i, c := range plan.Classes(p) {
		x := &p.PriorityClasses[i]
		s.Priorities = append(s.Priorities, Priority{c.Name, strings.ToLower(x.Header), x.Values})
		s.Sheds = append(s.Sheds, s.Shed(c.Name))
		after = append(after, c.ShedAfterMS)
	}
	if p.Policy != mesh.SharingCooperative || !slices.ContainsFunc(after, func(ms float64) bool { return ms > 0 }) {
		return
	}
	for _, ms := range after {
		s.alone = append(s.alone, plan.ShedLimit(float64(s.Concurrency), float64(s.ServiceTime)/float64(time.Millisecond), ms))
	}
}
