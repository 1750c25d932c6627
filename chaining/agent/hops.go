package agent

import (
	"math"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/chaining/path"
)

// meterMemory is over how long rates of hops are smoothed: long enough that the steps
// of a busy node's clock do not show, short enough for somebody who watches.
const meterMemory = 2 * time.Second

// HopMeter makes rates of counters that are read again and again. The zero value is
// ready; one goroutine uses it.
type HopMeter struct {
	at   time.Time
	hops map[path.Hop]metered
}

type metered struct {
	last                  HopCounter
	packets, bytes, drops float64 // per second
}

// read takes a reading. Hops that are gone are forgotten; one whose counters began anew
// has the rates of before until the next reading.
func (m *HopMeter) read(c *Counters) {
	took := c.At.Sub(m.at)
	weight := 1 - math.Exp(-took.Seconds()/meterMemory.Seconds())
	now := make(map[path.Hop]metered, len(c.Hops))
	for _, h := range c.Hops {
		key := path.Hop{SPI: h.SPI, SI: h.SI}
		was, there := m.hops[key]
		is := was
		is.last = h
		if there && took > 0 && h.Packets >= was.last.Packets && h.Bytes >= was.last.Bytes && h.Drops >= was.last.Drops {
			add := func(rate *float64, n uint64) { *rate += weight * (float64(n)/took.Seconds() - *rate) }
			add(&is.packets, h.Packets-was.last.Packets)
			add(&is.bytes, h.Bytes-was.last.Bytes)
			add(&is.drops, h.Drops-was.last.Drops)
		}
		now[key] = is
	}
	m.at, m.hops = c.At, now
}

// Paths is what a reading says of the paths that pass the agent's node, hop by hop, and
// how many of them are left out because all have more than [mesh.MaxChainHops] hops.
func (m *HopMeter) Paths(s *Status, c *Counters) (out []mesh.ChainPath, left int) {
	m.read(c)
	echoes := map[path.Hop]float64{}
	for _, e := range c.Echoes {
		echoes[path.Hop{SPI: e.SPI, SI: e.SI}] = e.MS
	}
	hops := 0
	for i := range s.Paths {
		p := &s.Paths[i]
		if !passes(p, s.Node) {
			continue
		}
		if hops+len(p.Stops)+1 > mesh.MaxChainHops {
			left++
			continue
		}
		hops += len(p.Stops) + 1
		told := mesh.ChainPath{Chain: p.Chain, SPI: p.SPI, Reversed: p.Reversed, Broken: c.Broken[p.SPI]}
		for j := range len(p.Stops) + 1 {
			key := path.Hop{SPI: p.SPI, SI: path.SI(j)}
			h := mesh.ChainHop{SI: key.SI, Node: p.Egress}
			if j < len(p.Stops) {
				stop := &p.Stops[j]
				h.Node, h.Function, h.Instance = stop.Node, stop.Function, stop.Instance
			}
			if r, ok := m.hops[key]; ok {
				h.Counted = &mesh.HopCount{Packets: r.last.Packets, Drops: r.last.Drops, PacketsPerS: r.packets, Mbps: r.bytes * 8 / 1e6, DropsPerS: r.drops}
			}
			if ms, ok := c.Probes[h.Instance]; ok && h.Instance != "" {
				h.ProbeMS = &ms
			}
			if ms, ok := echoes[key]; ok {
				h.EchoMS = &ms
			}
			told.Hops = append(told.Hops, h)
		}
		out = append(out, told)
	}
	return out, left
}

// passes reports whether a node has a part in a path.
func passes(p *path.Path, node string) bool {
	if p.Ingress == node || p.Egress == node {
		return true
	}
	for i := range p.Stops {
		if p.Stops[i].Node == node {
			return true
		}
	}
	return false
}
