package mesh

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
)

// sections of a TrafficPolicySpec are settled one by one: of two policies for the
// same service that both write a section, the first by namespace and name counts.
var sections = func() []field {
	return slices.DeleteFunc(slices.Clone(fieldsOf(reflect.TypeFor[TrafficPolicySpec]())), func(f field) bool { return f.typ.Kind() != reflect.Pointer })
}()

// policiesOf lists the policies that target the service, in the order in which
// they count.
func (o *Objects) policiesOf(key ServiceKey) []*TrafficPolicy {
	var ps []*TrafficPolicy
	for _, p := range o.TrafficPolicies {
		if slices.ContainsFunc(p.Spec.TargetRefs, func(t PolicyTargetRef) bool {
			return t.Kind == KindMeshService && ServiceKey(p.Metadata.Namespace+"/"+t.Name) == key
		}) {
			ps = append(ps, p)
		}
	}
	slices.SortStableFunc(ps, func(a, b *TrafficPolicy) int { return byName(a.Metadata, b.Metadata) })
	return ps
}

// EffectivePolicy merges the policies that target a service. LoadBalancing and
// SiteSharing are always there, with their defaults; the other sections are nil
// where no policy writes them. TargetRefs is empty. The result shares memory
// with the objects and must not be changed.
func EffectivePolicy(o *Objects, key ServiceKey) TrafficPolicySpec {
	var spec TrafficPolicySpec
	v := reflect.ValueOf(&spec).Elem()
	for _, p := range o.policiesOf(key) {
		for _, s := range sections {
			if dst := v.FieldByIndex(s.index); dst.IsNil() {
				dst.Set(reflect.ValueOf(&p.Spec).Elem().FieldByIndex(s.index))
			}
		}
	}
	if spec.LoadBalancing == nil {
		spec.LoadBalancing = new(LoadBalancing)
		setDefaults(reflect.ValueOf(spec.LoadBalancing))
	}
	if spec.SiteSharing == nil {
		spec.SiteSharing = new(SiteSharing)
		setDefaults(reflect.ValueOf(spec.SiteSharing))
	}
	return spec
}

func (c *checker) policies() {
	for _, p := range c.o.TrafficPolicies {
		c.pins(p)
		for i, t := range p.Spec.TargetRefs {
			key := ServiceKey(p.Metadata.Namespace + "/" + t.Name)
			path := fmt.Sprintf("spec.targetRefs[%d]", i)
			if t.Kind == KindGateway {
				c.gatewayTarget(p, path, &t)
				continue
			}
			if c.services[key] == nil {
				c.add(KindTrafficPolicy, p.Metadata, path, ReasonTargetNotFound, "there is no MeshService %s%s", key, c.perhaps(t.Name, c.services))
				continue
			}
			c.sendsProxy(p, c.services[key])
			for _, s := range sections {
				mine := reflect.ValueOf(&p.Spec).Elem().FieldByIndex(s.index)
				if mine.IsNil() {
					continue
				}
				for _, other := range c.o.policiesOf(key) {
					if other == p {
						break
					}
					if !reflect.ValueOf(&other.Spec).Elem().FieldByIndex(s.index).IsNil() {
						c.add(KindTrafficPolicy, p.Metadata, "spec."+s.name, ReasonConflicted, "TrafficPolicy %s/%s sets it for MeshService %s and comes first by name",
							other.Metadata.Namespace, other.Metadata.Name, key)
						break
					}
				}
			}
		}
	}
}

func setsSection(p *TrafficPolicy, s field) bool {
	return !reflect.ValueOf(&p.Spec).Elem().FieldByIndex(s.index).IsNil()
}

// pins finds sites that there are not. Where no Site is known at all, as at a lone
// node, nothing is said.
func (c *checker) pins(p *TrafficPolicy) {
	if p.Spec.SiteSharing == nil || len(c.sites) == 0 {
		return
	}
	for i, pin := range p.Spec.SiteSharing.Pins {
		path := fmt.Sprintf("spec.siteSharing.pins[%d]", i)
		names := map[string]string{path + ".from": pin.From}
		for j, to := range pin.To {
			names[fmt.Sprintf("%s.to[%d].site", path, j)] = to.Site
		}
		for _, at := range slices.Sorted(maps.Keys(names)) {
			if name := names[at]; c.sites[name] == nil {
				c.add(KindTrafficPolicy, p.Metadata, at, ReasonUnknownSite, "there is no Site %s%s", name, c.perhaps(name, c.sites))
			}
		}
	}
}
