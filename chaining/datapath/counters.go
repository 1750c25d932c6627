package datapath

import (
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/meridian-mesh/meridian/chaining/path"
)

// Reasons that only the kernel's side has, beside chaining/path's.
const (
	// ReasonNoRoute is a packet that is through its chain where the node has no route.
	ReasonNoRoute = path.ReasonCount + iota
	// ReasonHelper is a packet with which a helper of the kernel would not do what
	// the table asked for.
	ReasonHelper
	reasons
)

// ReasonName is a reason's name in metrics and traces.
func ReasonName(r path.Reason) string {
	switch r {
	case ReasonNoRoute:
		return "no-route"
	case ReasonHelper:
		return "helper"
	}
	return r.String()
}

// Count is what one hop of one path has seen on this node.
type Count struct {
	Packets, Bytes uint64 // sent to the hop; Bytes are of frames as they came in
	Drops          uint64 // for any reason
}

// cells hands out counters to (SPI, SI). A pair keeps its counter while it is in a
// table, also over restarts.
type cells struct {
	byPath map[uint32]uint32
	free   []uint32
	values *ebpf.Map
}

func knownCells(hops, values *ebpf.Map) (*cells, error) {
	c := &cells{byPath: map[uint32]uint32{}, values: values}
	used := map[uint32]bool{}
	var key chainHopKey
	var hop chainHop
	it := hops.Iterate()
	for it.Next(&key, &hop) {
		c.byPath[key.Path] = hop.Cell
		used[hop.Cell] = true
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("hops: %w", err)
	}
	for i := values.MaxEntries(); i > 0; i-- {
		if !used[i-1] {
			c.free = append(c.free, i-1)
		}
	}
	return c, nil
}

// of returns the counter of a path, a new one from zero.
func (c *cells) of(path uint32) (uint32, error) {
	if cell, ok := c.byPath[path]; ok {
		return cell, nil
	}
	if len(c.free) == 0 {
		return 0, fmt.Errorf("hop %s: all %d counters are in use", pathString(path), c.values.MaxEntries())
	}
	cell := c.free[len(c.free)-1]
	zero := make([]chainCell, ebpf.MustPossibleCPU())
	if err := c.values.Put(cell, zero); err != nil {
		return 0, fmt.Errorf("counter of %s: %w", pathString(path), err)
	}
	c.free = c.free[:len(c.free)-1]
	c.byPath[path] = cell
	return cell, nil
}

// Counts returns what each (SPI << 8 | SI) of the tables has seen since it was
// first in one.
func (d *Datapath) Counts() (map[uint32]Count, error) {
	all := make(map[uint32]Count, len(d.cells.byPath))
	for path, cell := range d.cells.byPath {
		var perCPU []chainCell
		if err := d.cells.values.Lookup(cell, &perCPU); err != nil {
			return nil, fmt.Errorf("counter of %s: %w", pathString(path), err)
		}
		var sum Count
		for _, v := range perCPU {
			sum.Packets += v.Packets
			sum.Bytes += v.Bytes
			sum.Drops += v.Drops
		}
		all[path] = sum
	}
	return all, nil
}

// Drops returns how many packets were dropped, by reason, by datapath and guard.
func (d *Datapath) Drops() (map[path.Reason]uint64, error) {
	all := map[path.Reason]uint64{}
	for _, m := range []*ebpf.Map{d.chain.Maps[chainMapDrops], d.guard.Maps[guardMapDrops]} {
		for r := path.ReasonNone + 1; r < reasons; r++ {
			var perCPU []uint64
			if err := m.Lookup(uint32(r), &perCPU); err != nil {
				return nil, fmt.Errorf("drops for %s: %w", ReasonName(r), err)
			}
			for _, v := range perCPU {
				all[r] += v
			}
		}
	}
	return all, nil
}
