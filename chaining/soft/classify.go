package soft

import "github.com/meridian-mesh/meridian/chaining/path"

// classify puts a plain packet on a path, or lets it pass.
func (t *turn) classify(port uint16, p *path.Port) {
	t.packet.Zone = p.Zone
	spi, known := t.flows.get(t.packet.Key)
	if known {
		_, known = t.table.Paths[spi]
	}
	if !known {
		c, unsure := match(t.table, t.table.Rules, port, t)
		switch {
		case unsure:
			t.drop(path.ReasonFragment)
			return
		case c == nil || c.Pass:
			t.pass()
			return
		}
		var ok bool
		if spi, ok = c.Choose(t.packet.Hash()); !ok {
			t.noPath(c)
			return
		}
		if t.packet.LaterFragment && len(c.Spread) > 1 {
			t.drop(path.ReasonFragment)
			return
		}
		if !t.packet.LaterFragment && !t.packet.Error {
			t.flows.put(t.packet.Key, spi)
		}
	}
	t.res.Hop = path.Hop{SPI: spi, SI: 255}
	if mtu := t.table.Paths[spi].MTU; t.packet.Length > mtu {
		t.tooBig(p, mtu)
		if t.res.Verdict == path.VerdictAnswer {
			t.res.Port = port
		}
		return
	}
	t.dispatch(t.res.Hop)
}

func (t *turn) noPath(c *path.Class) {
	if c.Open {
		t.pass()
		return
	}
	t.drop(path.ReasonNoPath)
}

// match finds the class of the first rule that matches.
func match(table *path.Table, rules []path.Rule, port uint16, t *turn) (c *path.Class, unsure bool) {
	for i := range rules {
		ok, unsure := rules[i].Matches(port, &t.packet)
		if unsure {
			return nil, true
		}
		if ok {
			return &table.Classes[rules[i].Class], false
		}
	}
	return nil, false
}

// branch classifies a packet again in the middle of its path. ok is false when
// that was its end.
func (t *turn) branch(hop path.Hop, next *path.NextHop) (path.Hop, bool) {
	c, unsure := match(t.table, t.table.Branches[next.Branch], path.NoPort, t)
	if unsure {
		t.drop(path.ReasonFragment)
		return hop, false
	}
	if c != nil && !c.Pass {
		if spi, ok := c.Choose(t.packet.Hash()); ok {
			if t.packet.LaterFragment && len(c.Spread) > 1 {
				t.drop(path.ReasonFragment)
				return hop, false
			}
			return path.Hop{SPI: spi, SI: 255}, true
		}
		if !c.Open {
			t.drop(path.ReasonNoPath)
			return hop, false
		}
	}
	if hop.SI == 0 {
		t.drop(path.ReasonSIUnderflow)
		return hop, false
	}
	hop.SI--
	return hop, true
}
