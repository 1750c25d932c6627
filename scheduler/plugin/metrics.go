package plugin

import (
	"sync"
	"time"

	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
)

// The scheduler serves what is registered with the legacy registry, of which there
// is one in a process, so these are one for all profiles.
var (
	placed = metrics.NewCounterVec(&metrics.CounterOpts{
		Name:           "meridian_scheduler_pods_total",
		Help:           "Pods that got a node, by how: scored by traffic, or placed without since traffic is absent, stale, failed or no-peers is known; and unreserved ones.",
		StabilityLevel: metrics.ALPHA,
	}, []string{"result"})
	groups = metrics.NewCounterVec(&metrics.CounterOpts{
		Name:           "meridian_scheduler_pod_groups_total",
		Help:           "Pod groups with more than one placement to go to, by how these were told apart: scored by traffic, or not since traffic is absent, stale, failed or no-peers is known.",
		StabilityLevel: metrics.ALPHA,
	}, []string{"result"})
	register sync.Once
	watched  struct {
		sync.Mutex
		source *source
	}
)

// watch makes the newest source's age and faults a metric.
func watch(s *source) {
	watched.Lock()
	watched.source = s
	watched.Unlock()
	register.Do(func() {
		legacyregistry.MustRegister(placed, groups)
		gauge := func(name, help string, f func(*source) float64) {
			legacyregistry.RawMustRegister(metrics.NewGaugeFunc(&metrics.GaugeOpts{Name: name, Help: help, StabilityLevel: metrics.ALPHA}, func() float64 {
				watched.Lock()
				s := watched.source
				watched.Unlock()
				return f(s)
			}))
		}
		gauge("meridian_scheduler_traffic_age_seconds", "Age of the traffic that pods are placed by, -1 where none is known.", func(s *source) float64 {
			r := s.now.Load()
			if r.index == nil {
				return -1
			}
			return time.Since(r.at).Seconds()
		})
		gauge("meridian_scheduler_traffic_workloads", "Workloads of which traffic is known.", func(s *source) float64 {
			if r := s.now.Load(); r.index != nil {
				return float64(r.index.Len())
			}
			return 0
		})
		gauge("meridian_scheduler_traffic_max_age_seconds", "Age from which traffic is not used.", func(s *source) float64 { return s.args.MaxAge.Seconds() })
		gauge("meridian_scheduler_traffic_faults", "Refreshes of the traffic that went wrong.", func(s *source) float64 { return float64(s.faults.Load()) })
	})
}
