package agent

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/chaining/datapath"
	"github.com/meridian-mesh/meridian/chaining/path"
)

// machine is what the domain must know of the node's own interfaces.
type machine interface {
	// device returns an interface.
	device(name string) (*net.Interface, error)
	// neighbour is the address behind a port to a function.
	neighbour(name string) (net.HardwareAddr, error)
	// wholePackets has packets leave a port as they would on a wire: cut, and with
	// checksums.
	wholePackets(name string) error
}

// kernel is the machine that the process runs on.
type kernel struct{}

func (kernel) device(name string) (*net.Interface, error)      { return net.InterfaceByName(name) }
func (kernel) neighbour(name string) (net.HardwareAddr, error) { return datapath.Neighbour(name) }
func (kernel) wholePackets(name string) error                  { return datapath.SetOffload(name, false) }

var kinds = map[string]path.Kind{mesh.AttachPlain: path.KindPlain, mesh.AttachGPE: path.KindGPE, mesh.AttachEther: path.KindEther}

var states = map[string]path.State{mesh.StateFlow: path.StateFlow, mesh.StateMAC: path.StateMAC, mesh.StateInterface: path.StateInterface}

// domainOf is where plans are compiled for. Of other nodes only what this one has to
// know is filled in. before are documents whose paths may still be in force: their
// instances stay attached, as far as they are there.
func domainOf(o, before *mesh.Objects, self string, m machine) (*path.Domain, error) {
	d := &path.Domain{}
	var faults []error
	for _, n := range o.ChainNodes {
		node, err := nodeOf(n, n.Metadata.Name == self, m)
		if err != nil {
			faults = append(faults, fmt.Errorf("ChainNode %s: %w", n.Metadata.Name, err))
		}
		d.Nodes = append(d.Nodes, node)
	}
	for _, f := range o.NetworkFunctions {
		for i := range f.Spec.Instances {
			in := &f.Spec.Instances[i]
			a, err := attachmentOf(f, in, in.Node == self, m)
			if err != nil {
				faults = append(faults, fmt.Errorf("NetworkFunction %s, instance %s: %w", fullName(f.Metadata), in.Name, err))
			}
			d.Attachments = append(d.Attachments, a)
		}
	}
	if before != nil {
		for _, f := range before.NetworkFunctions {
			for i := range f.Spec.Instances {
				in := &f.Spec.Instances[i]
				if slices.ContainsFunc(d.Attachments, func(a path.Attachment) bool { return a.Instance == in.Name }) {
					continue
				}
				if a, err := attachmentOf(f, in, in.Node == self, m); err == nil {
					d.Attachments = append(d.Attachments, a)
				}
			}
		}
	}
	return d, errors.Join(faults...)
}

func nodeOf(n *mesh.ChainNode, own bool, m machine) (path.Node, error) {
	out := path.Node{Name: n.Metadata.Name, Site: n.Spec.Site}
	if u := n.Spec.Underlay; u != nil {
		out.Underlay = u.Interface
		a, err := netip.ParseAddr(u.Address)
		if err != nil {
			return out, err
		}
		if a = a.Unmap(); a.Is4() {
			out.Address = a
		} else {
			out.Address6 = a
		}
	}
	if b := n.Spec.Border; b != nil {
		a, err := netip.ParseAddr(b.Address)
		if err != nil {
			return out, err
		}
		out.Border, out.BorderAddress = b.Interface, a.Unmap()
	}
	for _, p := range n.Spec.Ports {
		out.Ingress = append(out.Ingress, path.IngressPort{Interface: p.Interface, Zone: uint16(p.Zone)})
	}
	if !own {
		return out, nil
	}
	if out.Underlay != "" {
		ifc, err := m.device(out.Underlay)
		if err != nil {
			return out, fmt.Errorf("underlay %s: %w", out.Underlay, err)
		}
		out.UnderlayMTU = ifc.MTU
	}
	if out.Border != "" {
		ifc, err := m.device(out.Border)
		if err != nil {
			return out, fmt.Errorf("border %s: %w", out.Border, err)
		}
		out.BorderMTU = ifc.MTU
	}
	for i := range out.Ingress {
		p := &out.Ingress[i]
		ifc, err := m.device(p.Interface)
		if err != nil {
			return out, fmt.Errorf("port %s: %w", p.Interface, err)
		}
		p.MTU = ifc.MTU
		copy(p.MAC[:], ifc.HardwareAddr)
		p.Address, p.Address6 = addressesOf(ifc)
	}
	return out, nil
}

// addressesOf are the interface's first addresses of each family that are not of
// the link.
func addressesOf(ifc *net.Interface) (four, six netip.Addr) {
	addrs, err := ifc.Addrs()
	if err != nil {
		return four, six // without one, packets that are too big are dropped and counted
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || p.Addr().IsLinkLocalUnicast() {
			continue
		}
		switch a := p.Addr().Unmap(); {
		case a.Is4() && !four.IsValid():
			four = a
		case a.Is6() && !six.IsValid():
			six = a
		}
	}
	return four, six
}

func attachmentOf(f *mesh.NetworkFunction, in *mesh.FunctionInstance, own bool, m machine) (path.Attachment, error) {
	a := path.Attachment{
		Instance: in.Name, Function: fullName(f.Metadata), Node: in.Node,
		Kind: kinds[f.Spec.Attach], State: states[f.Spec.State], Left: in.Left, Right: in.Right,
	}
	if in.Address != "" {
		addr, err := netip.ParseAddr(in.Address)
		if err != nil {
			return a, err
		}
		a.Address = addr.Unmap()
	}
	if !own {
		return a, nil
	}
	if f.Spec.Process {
		for _, port := range portsOf(in) {
			if err := m.wholePackets(port); err != nil {
				return a, err
			}
		}
	}
	if len(in.Pairs) > 0 {
		return a, pairsOf(&a, in, m)
	}
	ifc, err := m.device(in.Left)
	if err != nil {
		return a, fmt.Errorf("interface %s: %w", in.Left, err)
	}
	a.MTU = ifc.MTU
	if a.Kind == path.KindGPE {
		four, six := addressesOf(ifc)
		if a.Local = four; a.Address.Is6() {
			a.Local = six
		}
		if !a.Local.IsValid() {
			return a, fmt.Errorf("interface %s has no address of the family of %v", in.Left, a.Address)
		}
	}
	var right *net.Interface
	if in.Right != "" {
		if right, err = m.device(in.Right); err != nil {
			return a, fmt.Errorf("interface %s: %w", in.Right, err)
		}
		a.MTU = min(a.MTU, right.MTU)
	}
	if f.Spec.Attach == mesh.AttachPlain && a.State == path.StateMAC {
		// A bridge hands on what is not for itself: for the node's port behind it.
		if right == nil {
			return a, errors.New("state mac needs right, the port behind the bridge")
		}
		copy(a.LeftMAC[:], right.HardwareAddr)
		copy(a.RightMAC[:], ifc.HardwareAddr)
		return a, nil
	}
	if a.LeftMAC, err = macOf(in.LeftMAC, in.Left, m); err != nil || right == nil {
		return a, err
	}
	a.RightMAC, err = macOf(in.RightMAC, in.Right, m)
	return a, err
}

// portsOf are all interfaces of the node to an instance.
func portsOf(in *mesh.FunctionInstance) []string {
	ports := []string{in.Left, in.Right}
	for _, p := range in.Pairs {
		ports = append(ports, p.Left, p.Right)
	}
	return slices.DeleteFunc(ports, func(s string) bool { return s == "" })
}

// pairsOf fills in the interface pairs of a function of state interface.
func pairsOf(a *path.Attachment, in *mesh.FunctionInstance, m machine) error {
	for _, p := range in.Pairs {
		pair := path.Pair{Left: p.Left, Right: p.Right}
		for _, end := range []struct {
			port, given string
			to          *path.MAC
		}{{p.Left, p.LeftMAC, &pair.LeftMAC}, {p.Right, p.RightMAC, &pair.RightMAC}} {
			ifc, err := m.device(end.port)
			if err != nil {
				return fmt.Errorf("interface %s: %w", end.port, err)
			}
			if a.MTU == 0 || ifc.MTU < a.MTU {
				a.MTU = ifc.MTU
			}
			if *end.to, err = macOf(end.given, end.port, m); err != nil {
				return err
			}
		}
		a.Pairs = append(a.Pairs, pair)
	}
	return nil
}

func macOf(given, port string, m machine) (out path.MAC, err error) {
	var mac net.HardwareAddr
	if given != "" {
		mac, err = net.ParseMAC(given)
	} else {
		mac, err = m.neighbour(port)
	}
	copy(out[:], mac)
	return out, err
}
