// Package mirror copies packets to a collector, all or a sample by flow, so that
// whole flows are seen. The package is pure.
package mirror

import (
	"fmt"
	"time"

	"github.com/meridian-mesh/meridian/chaining/flow"
	"github.com/meridian-mesh/meridian/chaining/function"
)

// Mirror is the function.
type Mirror struct {
	below  uint64
	packet flow.Packet
}

// New makes a mirror that copies the given share of flows, above 0 and at most 1.
func New(share float64) (*Mirror, error) {
	if !(share > 0 && share <= 1) {
		return nil, fmt.Errorf("mirror: share of %v: use more than 0 and at most 1", share)
	}
	m := &Mirror{below: 1<<64 - 1}
	if share < 1 {
		m.below = uint64(share * (1 << 64))
	}
	return m, nil
}

// Process implements function.Function. Both directions of a flow are copied, or
// none.
func (m *Mirror) Process(b []byte, _ function.Direction, _ time.Duration) function.Result {
	if !flow.Parse(b, &m.packet) {
		return function.Result{Drop: "malformed"}
	}
	return function.Result{Packet: b, Copy: m.packet.Hash() <= m.below}
}
