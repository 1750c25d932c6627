package datapath

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"github.com/meridian-mesh/meridian/chaining/path"
)

// settle is how long a generation is left alone after the flip away from it: a
// program that has read the old number must be able to end.
const settle = 20 * time.Millisecond

// Apply makes the table the one in force: the guard first, then the shadow
// generation, then one flip, then the ports. A fault before the flip leaves the old
// table in force. again has known flows classified anew, too; else they stay on
// their paths as long as these are in Table.Paths.
//
// Other nodes that the table's paths lead to must know these paths before.
func (d *Datapath) Apply(t *path.Table) error {
	im, err := compile(t, findDevice)
	if err != nil {
		return fmt.Errorf("table of node %s: %w", t.Node, err)
	}
	if err := d.applyGuard(im); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	if wait := settle - time.Since(d.flipped); wait > 0 {
		time.Sleep(wait)
	}
	if err := d.applyTable(im); err != nil {
		return err
	}
	return d.applyPorts(im)
}

func findDevice(name string) (device, error) {
	ifc, err := net.InterfaceByName(name)
	if err != nil {
		return device{}, err
	}
	d := device{index: uint32(ifc.Index)}
	if d.peer, err = toPeer(ifc.Index, name); err != nil {
		return device{}, err
	}
	addrs, err := ifc.Addrs()
	if err != nil {
		return device{}, err
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || p.Addr().IsLinkLocalUnicast() {
			continue
		}
		d.addresses = append(d.addresses, p.Addr())
	}
	return d, nil
}

// word is the table in force: generation in bit 0, epoch of classification above.
type word uint64

func (w word) generation() uint32 { return uint32(w & 1) }

func (w word) next() word { return (w + 1<<32) ^ 1 }

func readWord(m *ebpf.Map) (word, error) {
	var w word
	if err := m.Lookup(uint32(0), &w); err != nil {
		return 0, fmt.Errorf("table in force: %w", err)
	}
	return w, nil
}

func (d *Datapath) applyTable(im *image) error {
	m := d.chain.Maps
	now, err := readWord(m[chainMapActive])
	if err != nil {
		return err
	}
	next := now.next()
	shadow := next.generation()

	if err := d.applyHops(m[chainMapHops], shadow, im.hops); err != nil {
		return err
	}
	for i, r := range im.rules {
		r.Slots += shadow * maxSlots
		if err := m[chainMapRules].Put(shadow*maxRules+uint32(i), r); err != nil {
			return fmt.Errorf("rule %d: %w", i, err)
		}
	}
	for i, path := range im.slots {
		if err := m[chainMapSlots].Put(shadow*maxSlots+uint32(i), path); err != nil {
			return fmt.Errorf("slot %d: %w", i, err)
		}
	}
	var node chainNode
	if err := m[chainMapNode].Lookup(uint32(0), &node); err != nil {
		return fmt.Errorf("node's values: %w", err)
	}
	node.Rules[shadow], node.Keep[shadow] = uint32(im.classifier), 1
	for _, r := range im.rules[:im.classifier] {
		if r.Flags&ruleDSCP != 0 {
			node.Keep[shadow] = 0
		}
	}
	node.Mark, node.Mask = d.cfg.Mark, d.cfg.Mask
	if err := m[chainMapNode].Put(uint32(0), node); err != nil {
		return fmt.Errorf("node's values: %w", err)
	}
	// Ports that stay get their new meaning with the flip; both work with either table.
	for ifindex, p := range im.ports {
		if err := m[chainMapPortsOf].Put(ifindex, p); err != nil {
			return fmt.Errorf("port %d: %w", ifindex, err)
		}
	}
	if err := m[chainMapActive].Put(uint32(0), next); err != nil {
		return fmt.Errorf("flip: %w", err)
	}
	d.flipped = time.Now()
	return nil
}

func (d *Datapath) applyHops(m *ebpf.Map, shadow uint32, hops map[uint32]chainHop) error {
	var stale []chainHopKey
	var key chainHopKey
	var value chainHop
	for it := m.Iterate(); it.Next(&key, &value); {
		if key.Generation != shadow {
			continue
		}
		if _, wanted := hops[key.Path]; !wanted {
			stale = append(stale, key)
		}
	}
	for _, k := range stale {
		if err := m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("old hop %s: %w", pathString(k.Path), err)
		}
	}
	for path, h := range hops {
		var err error
		if h.Cell, err = d.cells.of(path); err != nil {
			return err
		}
		if err := m.Put(chainHopKey{Generation: shadow, Path: path}, h); err != nil {
			return fmt.Errorf("hop %s: %w", pathString(path), err)
		}
	}
	return nil
}

func (d *Datapath) applyGuard(im *image) error {
	m := d.guard.Maps
	now, err := readWord(m[guardMapActive])
	if err != nil {
		return err
	}
	var node guardNode
	if err := m[guardMapNode].Lookup(uint32(0), &node); err != nil {
		return err
	}
	guarded := make([]guardRule, im.classifier)
	for i := range guarded {
		guarded[i] = guardRule(im.rules[i])
		guarded[i].Slots, guarded[i].Size = 0, 0 // so that only what it asks for counts as a change
	}
	same := node.Rules[now.generation()] == uint32(len(guarded))
	for i := 0; same && i < len(guarded); i++ {
		var r guardRule
		if err := m[guardMapRules].Lookup(now.generation()*maxRules+uint32(i), &r); err != nil {
			return err
		}
		same = r == guarded[i]
	}
	next := now
	if !same {
		next = now.next()
		for i, r := range guarded {
			if err := m[guardMapRules].Put(next.generation()*maxRules+uint32(i), r); err != nil {
				return fmt.Errorf("rule %d: %w", i, err)
			}
		}
		node.Rules[next.generation()] = uint32(len(guarded))
	}
	node.Mark, node.Mask = d.cfg.Mark, d.cfg.Mask
	if err := m[guardMapNode].Put(uint32(0), node); err != nil {
		return err
	}
	if err := m[guardMapActive].Put(uint32(0), next); err != nil {
		return fmt.Errorf("flip: %w", err)
	}
	for _, ifindex := range slices.Sorted(maps.Keys(im.ports)) {
		if !guardsPort(im.ports[ifindex]) {
			continue
		}
		if err := d.attacher.attach(hookGuard, int(ifindex), d.guard.Programs[guardProgGuard]); err != nil {
			return err
		}
	}
	return nil
}

// guardsPort says whether the guard stands on a port: where users and servers are,
// and where packets leave the node. What goes to a function is not on its way out.
func guardsPort(p chainPort) bool { return p.Flags&portClassify != 0 }

func (d *Datapath) applyPorts(im *image) error {
	for _, ifindex := range slices.Sorted(maps.Keys(im.ports)) {
		if err := d.attacher.attach(hookIngress, int(ifindex), d.chain.Programs[chainProgIngress]); err != nil {
			return err
		}
	}
	// What is no port any more: traffic goes its own way there from now on.
	for _, h := range hooks {
		attached, err := d.attacher.attached(h)
		if err != nil {
			return fmt.Errorf("ports with %s programs: %w", h, err)
		}
		for _, ifindex := range attached {
			p, wanted := im.ports[uint32(ifindex)]
			if wanted && (h == hookIngress || guardsPort(p)) {
				continue
			}
			if err := d.attacher.detach(h, ifindex); err != nil {
				return fmt.Errorf("detach %s from interface %d: %w", h, ifindex, err)
			}
		}
	}
	m := d.chain.Maps[chainMapPortsOf]
	var stale []uint32
	var ifindex uint32
	var p chainPort
	it := m.Iterate()
	for it.Next(&ifindex, &p) {
		if _, wanted := im.ports[ifindex]; !wanted {
			stale = append(stale, ifindex)
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("ports: %w", err)
	}
	for _, i := range stale {
		if err := m.Delete(i); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("old port %d: %w", i, err)
		}
	}
	return d.removeOtherLayouts()
}
