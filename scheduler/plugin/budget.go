package plugin

import (
	"fmt"
	"strconv"
	"time"

	"k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Annotations of a pod that refuse nodes.
const (
	// AnnotationLatency is the longest round trip to the nearest pod of every workload
	// that this one talks to, for instance "20ms".
	AnnotationLatency = "mesh.meridian.dev/latency-budget"
	// AnnotationBandwidth is the most that the pod may exchange with other sites, in
	// bytes per second as a quantity, for instance "10M".
	AnnotationBandwidth = "mesh.meridian.dev/bandwidth-budget"
)

// budget is what a pod's annotations allow; 0 means anything.
type budget struct {
	rttMS     float64
	bytesPerS float64
}

// budgetOf reads the annotations. One that cannot be read counts as absent, and the
// error says so: a typing mistake must not keep a pod from running.
func budgetOf(p *v1.Pod) (b budget, err error) {
	if text, ok := p.Annotations[AnnotationLatency]; ok {
		d, e := time.ParseDuration(text)
		if e != nil || d <= 0 {
			err = fmt.Errorf("annotation %s: %s is not a duration such as 20ms: the budget is ignored", AnnotationLatency, strconv.Quote(text))
		} else {
			b.rttMS = float64(d) / float64(time.Millisecond)
		}
	}
	if text, ok := p.Annotations[AnnotationBandwidth]; ok {
		q, e := resource.ParseQuantity(text)
		if e != nil || q.Sign() <= 0 {
			return b, fmt.Errorf("annotation %s: %s is not a quantity of bytes per second such as 10M: the budget is ignored", AnnotationBandwidth, strconv.Quote(text))
		}
		b.bytesPerS = q.AsApproximateFloat64()
	}
	return b, err
}
