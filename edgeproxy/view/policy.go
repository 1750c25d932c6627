package view

import (
	"cmp"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/lb"
	"github.com/meridian-mesh/meridian/edgeproxy/outlier"
)

// policy applies what the policies of a service say together.
func (b *builder) policy(s *Service) {
	p := mesh.EffectivePolicy(&b.snap.Objects, s.Key)
	set := func(d *time.Duration, v *mesh.Duration) {
		if v != nil && v.D() > 0 {
			*d = v.D()
		}
	}
	if o := p.Timeouts; o != nil {
		set(&s.Connect, o.Connect)
		set(&s.Silence, o.Idle)
		set(&s.Idle, o.Idle)
		set(&s.PacketIdle, o.Idle)
		set(&s.Request, o.Request)
	}
	if r := p.Retries; r != nil && r.Attempts != nil {
		s.Retries = max(0, *r.Attempts)
	}
	if c := p.Connections; c != nil {
		s.MaxRequests = c.MaxRequests
		if c.MaxAge != nil {
			s.MaxAge = c.MaxAge.D()
		}
	}
	s.Outlier, s.PanicBelow = outlierOf(p.OutlierDetection)
	if x := p.LoadBalancing.SlowStart; x != nil {
		s.SlowStart = lb.SlowStart{Window: int64(x.Window), Aggression: x.Aggression, Least: percent(x.MinWeightPercent, 10)}
	}
	b.pickers(s, p.LoadBalancing)
	b.shedding(s, p.SiteSharing)
}

// targets says which policies' targets are not there.
func (b *builder) targets(p *mesh.TrafficPolicy) {
	for _, t := range p.Spec.TargetRefs {
		key := mesh.ServiceKey(p.Metadata.Namespace + "/" + t.Name)
		if t.Kind == mesh.KindMeshService && b.view.Services[key] == nil {
			b.problem("TrafficPolicy/%s/%s: target MeshService %q does not exist", p.Metadata.Namespace, p.Metadata.Name, key)
		}
	}
}

func percent(p *int, otherwise int) float64 {
	if p != nil {
		otherwise = *p
	}
	return float64(otherwise) / 100
}

func outlierOf(o *mesh.OutlierDetection) (outlier.Config, float64) {
	c := outlier.DefaultConfig
	if o == nil {
		return c, 0
	}
	set := func(ns *int64, v *mesh.Duration) {
		if v != nil && *v > 0 {
			*ns = int64(*v)
		}
	}
	if o.ConsecutiveFailures != nil {
		c.Failures = *o.ConsecutiveFailures
	}
	c.Margin = percent(o.SuccessRateMargin, int(math.Round(c.Margin*100)))
	c.Requests = cmp.Or(o.MinRequests, c.Requests)
	set(&c.Interval, o.Interval)
	set(&c.Ejection, o.BaseEjectionTime)
	set(&c.MaxEjection, o.MaxEjectionTime)
	c.MaxEjection = max(c.MaxEjection, c.Ejection)
	c.MaxEjected = percent(o.MaxEjectionPercent, int(math.Round(c.MaxEjected*100)))
	if c.MaxEjected == 0 {
		c.Failures, c.Margin = 0, 0
	}
	return c, float64(o.PanicThreshold) / 100
}

// pickers makes what picks among the home endpoints. Only round robin keeps
// something between picks and is made for each loop.
func (b *builder) pickers(s *Service, l *mesh.LoadBalancing) {
	weights := b.weights[s.Key]
	var shared lb.Picker
	switch l.Algorithm {
	case mesh.LBRoundRobin:
	case mesh.LBRandom:
		shared = lb.NewRandom(weights)
	case mesh.LBPeakEWMA:
		shared, s.Timed = lb.NewPeakEWMA(weights), true
	case mesh.LBRingHash:
		shared = lb.NewRingHash(weights, s.IDs, float64(l.HashBalanceFactor)/100)
		s.Keyed = shared
	case mesh.LBMaglev:
		shared = lb.NewMaglev(weights, s.IDs)
		s.Keyed = shared
	case mesh.LBLeastRequest:
		shared = lb.NewLeastRequest(weights)
	default:
		shared, s.Told = lb.NewFadingTable(weights, s.Slots), true
	}
	for i := range b.loops {
		if shared != nil {
			s.Pickers = append(s.Pickers, shared)
		} else {
			s.Pickers = append(s.Pickers, lb.NewRoundRobin(weights, uint64(i)))
		}
	}
	for _, protocol := range s.ports {
		if protocol == mesh.PortUDP {
			s.Packets = lb.NewMaglev(weights, s.IDs)
		}
	}
	switch {
	case s.KeyBy != ByNothing && s.Keyed == nil:
		s.Keyed = lb.NewMaglev(weights, s.IDs)
	case s.KeyBy == ByNothing && s.Keyed != nil:
		s.KeyBy = BySource
	}
}

// affinity says what makes the sessions of a service.
func (b *builder) affinity(s *Service, m *mesh.MeshService) {
	a := m.Spec.SessionAffinity
	if a == nil {
		return
	}
	switch a.Type {
	case mesh.AffinitySourceAddress:
		s.KeyBy = BySource
	case mesh.AffinityHeader:
		s.KeyBy, s.KeyHeader = ByHeader, strings.ToLower(a.SessionName)
	default:
		s.Cookie = cookieOf(m.Metadata.Name, a)
	}
}

func cookieOf(service string, a *mesh.SessionAffinity) *Cookie {
	name := cmp.Or(a.SessionName, "meridian-"+service)
	var c mesh.CookieConfig
	if a.CookieConfig != nil {
		c = *a.CookieConfig
	}
	same := cmp.Or(c.SameSite, "Lax")
	attributes := "; Path=" + cmp.Or(c.Path, "/") + "; HttpOnly; SameSite=" + same
	if same == "None" {
		attributes += "; Secure" // browsers refuse it otherwise
	}
	if c.LifetimeType == mesh.CookiePermanent && a.AbsoluteTimeout != nil {
		attributes += fmt.Sprintf("; Max-Age=%d", int64(math.Ceil(a.AbsoluteTimeout.D().Seconds())))
	}
	return &Cookie{Name: name, Prefix: []byte(name + "="), Suffix: []byte(attributes)}
}
