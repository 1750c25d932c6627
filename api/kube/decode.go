package kube

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// rawMeta is metadata as it is read.
type rawMeta struct {
	Name              string            `json:"name"`
	Namespace         string            `json:"namespace"`
	Generation        int64             `json:"generation"`
	ResourceVersion   string            `json:"resourceVersion"`
	CreationTimestamp time.Time         `json:"creationTimestamp"`
	Labels            map[string]string `json:"labels"`
	Annotations       map[string]string `json:"annotations"`
	OwnerReferences   []struct {
		Kind       string `json:"kind"`
		Name       string `json:"name"`
		Controller bool   `json:"controller"`
	} `json:"ownerReferences"`
}

func (m *rawMeta) keep() Meta {
	k := Meta{Namespace: m.Namespace, Name: m.Name, Generation: m.Generation, Created: m.CreationTimestamp, Version: m.ResourceVersion}
	for name, value := range m.Labels {
		if strings.HasPrefix(name, mesh.MeshGroup+"/") {
			if k.Labels == nil {
				k.Labels = map[string]string{}
			}
			k.Labels[name] = value
		}
	}
	return k
}

// Decode reads an object of a cluster, as the API server writes it in JSON, into the
// struct that stands for its kind in [Input]. What is not used is left out, so that
// a large cluster fits into little memory. Fields of a route or Gateway that this
// version does not serve are no error: the object says so, and its status will.
func Decode(kind string, data []byte) (any, error) {
	var m struct {
		Metadata rawMeta `json:"metadata"`
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("read %s: %w", kind, err)
	}
	meta := &m.Metadata
	doc, err := decode(kind, meta, data)
	if err != nil {
		return nil, fmt.Errorf("read %s %s/%s: %w", kind, meta.Namespace, meta.Name, err)
	}
	return doc, nil
}

func decode(kind string, meta *rawMeta, data []byte) (any, error) {
	switch kind {
	case KindNamespace:
		k := meta.keep()
		k.Labels = meta.Labels
		return &Namespace{k}, nil
	case KindNode:
		return decodeNode(meta, data)
	case KindPod:
		return decodePod(meta, data)
	case KindSecret:
		var o struct {
			Data map[string][]byte `json:"data"`
		}
		err := json.Unmarshal(data, &o)
		return &Secret{Meta: meta.keep(), Certificate: o.Data["tls.crt"], Key: o.Data["tls.key"]}, err
	case KindService:
		return decodeService(meta, data)
	case KindEndpointSlice:
		return decodeSlice(meta, data)
	case KindGatewayClass:
		var o struct {
			Spec struct {
				ControllerName string           `json:"controllerName"`
				ParametersRef  *json.RawMessage `json:"parametersRef"`
			} `json:"spec"`
			Status ClassStatus `json:"status"`
		}
		err := json.Unmarshal(data, &o)
		return &GatewayClass{meta.keep(), o.Spec.ControllerName, o.Spec.ParametersRef != nil, o.Status}, err
	case mesh.KindGateway:
		return decodeGateway(meta, data)
	case mesh.KindReferenceGrant:
		var o struct {
			Spec mesh.ReferenceGrantSpec `json:"spec"`
		}
		err := json.Unmarshal(data, &o)
		return &Grant{meta.keep(), o.Spec}, err
	}
	if mesh.IsRoute(kind) {
		return decodeRoute(kind, meta, data)
	}
	return decodeOwn(kind, meta, data)
}

func decodeNode(meta *rawMeta, data []byte) (*Node, error) {
	var o struct {
		Status struct {
			Addresses []struct{ Type, Address string } `json:"addresses"`
		} `json:"status"`
	}
	err := json.Unmarshal(data, &o)
	n := &Node{Meta: meta.keep()}
	if zone := meta.Labels[zoneLabel]; zone != "" {
		n.Labels = maps.Clone(n.Labels)
		if n.Labels == nil {
			n.Labels = map[string]string{}
		}
		n.Labels[zoneLabel] = zone
	}
	for _, a := range o.Status.Addresses {
		if a.Type == "InternalIP" {
			n.Addresses = append(n.Addresses, a.Address)
		}
	}
	return n, err
}

// workload is the workload that a pod belongs to, named as the scheduler names it:
// by label, else by its controller (a ReplicaSet's Deployment), else by its app
// label, else by itself.
func (m *rawMeta) workload() string {
	if w := m.Labels[WorkloadLabel]; w != "" {
		return w
	}
	for _, o := range m.OwnerReferences {
		if !o.Controller {
			continue
		}
		if hash := m.Labels["pod-template-hash"]; o.Kind == "ReplicaSet" && hash != "" {
			return strings.TrimSuffix(o.Name, "-"+hash)
		}
		return o.Name
	}
	return cmp.Or(m.Labels["app.kubernetes.io/name"], m.Labels["app"], m.Name)
}

func decodePod(meta *rawMeta, data []byte) (*Pod, error) {
	var o struct {
		Spec struct {
			NodeName    string `json:"nodeName"`
			HostNetwork bool   `json:"hostNetwork"`
		} `json:"spec"`
		Status struct {
			Phase string `json:"phase"`
			PodIP string `json:"podIP"`
		} `json:"status"`
	}
	err := json.Unmarshal(data, &o)
	p := &Pod{Meta: meta.keep(), Workload: meta.workload()}
	p.Labels, p.Created = nil, time.Time{}
	if o.Status.Phase == "Running" && !o.Spec.HostNetwork {
		p.Node, p.Address = o.Spec.NodeName, o.Status.PodIP
	}
	return p, err
}

func decodeService(meta *rawMeta, data []byte) (*Service, error) {
	var o struct {
		Spec struct {
			Type       string            `json:"type"`
			ClusterIP  string            `json:"clusterIP"`
			ClusterIPs []string          `json:"clusterIPs"`
			Selector   map[string]string `json:"selector"`
			Ports      []ServicePort     `json:"ports"`
		} `json:"spec"`
	}
	err := json.Unmarshal(data, &o)
	addresses := o.Spec.ClusterIPs
	if len(addresses) == 0 {
		addresses = []string{o.Spec.ClusterIP}
	}
	addresses = slices.DeleteFunc(addresses, func(a string) bool { return a == "" || a == "None" })
	external := o.Spec.Type == "ExternalName"
	return &Service{Meta: meta.keep(), External: external, Alone: !external && len(o.Spec.Selector) == 0 && o.Spec.ClusterIP != "None", Addresses: addresses, Ports: o.Spec.Ports, Export: meta.Annotations[ExportAnnotation]}, err
}

func decodeSlice(meta *rawMeta, data []byte) (*EndpointSlice, error) {
	var o struct {
		Endpoints []struct {
			Addresses  []string `json:"addresses"`
			NodeName   string   `json:"nodeName"`
			Conditions struct {
				Ready   *bool `json:"ready"`
				Serving *bool `json:"serving"`
			} `json:"conditions"`
			TargetRef struct{ Kind, Name string } `json:"targetRef"`
		} `json:"endpoints"`
		Ports []struct {
			Name string `json:"name"`
			Port int    `json:"port"`
		} `json:"ports"`
	}
	err := json.Unmarshal(data, &o)
	s := &EndpointSlice{Meta: meta.keep(), Service: meta.Labels[serviceLabel], Ours: meta.Labels[managedLabel] == manager}
	for _, p := range o.Ports {
		s.Ports = append(s.Ports, SlicePort{p.Name, p.Port})
	}
	for _, e := range o.Endpoints {
		if len(e.Addresses) == 0 {
			continue
		}
		to := Endpoint{Address: e.Addresses[0], Node: e.NodeName}
		if e.TargetRef.Kind == KindPod {
			to.Pod = e.TargetRef.Name
		}
		// What is not said counts as ready, and what is not said of serving is as ready is.
		to.Ready = e.Conditions.Ready == nil || *e.Conditions.Ready
		to.Serving = to.Ready
		if e.Conditions.Serving != nil {
			to.Serving = *e.Conditions.Serving
		}
		s.Endpoints = append(s.Endpoints, to)
	}
	return s, err
}

func decodeGateway(meta *rawMeta, data []byte) (*Gateway, error) {
	var o struct {
		Spec struct {
			GatewayClassName string           `json:"gatewayClassName"`
			Addresses        []GatewayAddress `json:"addresses"`
			Listeners        []Listener       `json:"listeners"`
			TLS              json.RawMessage  `json:"tls"`
			Infrastructure   struct {
				ParametersRef json.RawMessage `json:"parametersRef"`
			} `json:"infrastructure"`
		} `json:"spec"`
		Status GatewayStatus `json:"status"`
	}
	err := json.Unmarshal(data, &o)
	g := &Gateway{Meta: meta.keep(), Class: o.Spec.GatewayClassName, Addresses: o.Spec.Addresses, Listeners: o.Spec.Listeners, Status: o.Status}
	switch {
	case o.Spec.TLS != nil:
		g.Unserved = "spec.tls"
	case o.Spec.Infrastructure.ParametersRef != nil:
		g.Unserved = "spec.infrastructure.parametersRef"
	}
	return g, err
}

func decodeRoute(kind string, meta *rawMeta, data []byte) (*Route, error) {
	var o struct {
		Spec struct {
			ParentRefs []ParentRef     `json:"parentRefs"`
			Hostnames  []string        `json:"hostnames"`
			Rules      json.RawMessage `json:"rules"`
		} `json:"spec"`
		Status RouteStatus `json:"status"`
	}
	if err := json.Unmarshal(data, &o); err != nil {
		return nil, err
	}
	r := &Route{Meta: meta.keep(), Kind: kind, Parents: o.Spec.ParentRefs, Hostnames: o.Spec.Hostnames, Status: o.Status}
	var rules any
	switch kind {
	case mesh.KindHTTPRoute:
		rules = &r.HTTP
	case mesh.KindGRPCRoute:
		rules = &r.GRPC
	default:
		rules = &r.Stream
	}
	if o.Spec.Rules == nil {
		return r, nil
	}
	if problem := strictly(o.Spec.Rules, rules); problem != "" {
		r.HTTP, r.GRPC, r.Stream = nil, nil, nil
		r.Unserved = "spec.rules: " + problem
		return r, nil
	}
	// The defaults now: what a translation is given it does not change.
	m := mesh.ObjectMeta{Name: r.Name, Namespace: r.Namespace}
	mesh.Default(&mesh.Objects{
		HTTPRoutes: []*mesh.HTTPRoute{{Metadata: m, Spec: mesh.HTTPRouteSpec{Rules: r.HTTP}}},
		GRPCRoutes: []*mesh.GRPCRoute{{Metadata: m, Spec: mesh.GRPCRouteSpec{Rules: r.GRPC}}},
		TCPRoutes:  []*mesh.TCPRoute{{Metadata: m, Spec: mesh.TCPRouteSpec{Rules: r.Stream}}},
	})
	return r, nil
}

// decodeOwn reads one of the mesh's own kinds as strictly as a file.
func decodeOwn(kind string, meta *rawMeta, data []byte) (*Own, error) {
	own := &Own{Meta: meta.keep(), Kind: kind}
	var o struct {
		Spec   json.RawMessage `json:"spec"`
		Status OwnStatus       `json:"status"`
	}
	if err := json.Unmarshal(data, &o); err != nil {
		return nil, err
	}
	own.Status = o.Status
	var all mesh.Objects
	doc, ok := newDocument(&all, kind)
	if !ok {
		return nil, fmt.Errorf("no kind of the mesh has that name")
	}
	defer func() {
		if own.Doc == nil && kind == mesh.KindPeerAuthentication {
			own.Instead = strict(mesh.ObjectMeta{Name: meta.Name, Namespace: cmp.Or(meta.Namespace, mesh.DefaultNamespace), Labels: own.Labels})
		}
		if own.Doc != nil || kind != mesh.KindAuthorizationPolicy {
			return
		}
		if p := closed(o.Spec, mesh.ObjectMeta{Name: meta.Name, Namespace: cmp.Or(meta.Namespace, mesh.DefaultNamespace), Labels: own.Labels}); p != nil {
			own.Instead = p
		}
	}()
	text, err := json.Marshal(map[string]any{
		"apiVersion": mesh.MeshAPIVersion, "kind": kind, "spec": o.Spec,
		"metadata": mesh.ObjectMeta{Name: meta.Name, Namespace: cmp.Or(meta.Namespace, mesh.DefaultNamespace), Labels: own.Labels},
	})
	if err != nil {
		return nil, err
	}
	if own.Problem = strictly(text, doc); own.Problem != "" {
		return own, nil
	}
	mesh.Default(&all)
	if own.Problem = oneLine(mesh.Validate(&all)); own.Problem == "" {
		own.Doc = doc
	}
	return own, nil
}

// newDocument adds an empty object of a kind to the list of its kind.
func newDocument(all *mesh.Objects, kind string) (doc any, ok bool) {
	lists := reflect.ValueOf(all).Elem()
	for i := range lists.NumField() {
		l := lists.Field(i)
		if l.Kind() != reflect.Slice || l.Type().Elem().Elem().Name() != kind {
			continue
		}
		v := reflect.New(l.Type().Elem().Elem())
		l.Set(reflect.Append(l, v))
		return v.Interface(), true
	}
	return nil, false
}

// strictly reads JSON and says what of it is not served, empty for nothing.
func strictly(data []byte, into any) string {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		return ""
	}
	if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return "field " + field + " is not served by this version"
	}
	return err.Error()
}

// oneLine is what a condition's message can hold of an error, empty for none.
func oneLine(err error) string {
	if err == nil {
		return ""
	}
	const most = 1000
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	if len(text) > most {
		text = text[:most] + "..."
	}
	return text
}

func itoa(n int) string { return strconv.Itoa(n) }

func hostPort(host string, port int) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + itoa(port)
}
