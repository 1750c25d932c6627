package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/meridian-mesh/meridian/api/kube"
	"github.com/meridian-mesh/meridian/api/mesh"
)

// resource is one kind of objects that is watched.
type resource struct {
	group, version, plural, kind string
	// optional kinds are those of CRDs, which may be installed later.
	optional bool
	// fields selects among the objects.
	fields string
	// lazy kinds change often and decide little: they are looked at a little later.
	lazy bool
}

func (r resource) gv() schema.GroupVersion {
	return schema.GroupVersion{Group: r.group, Version: r.version}
}

// String is the name that kubectl knows it by.
func (r resource) String() string {
	if r.group == "" {
		return r.plural
	}
	return r.plural + "." + r.group
}

// resources are what the bridge watches; Secrets only where certificates are kept.
func resources(secrets bool) []resource {
	list := []resource{
		{version: "v1", plural: "namespaces", kind: kube.KindNamespace},
		{version: "v1", plural: "nodes", kind: kube.KindNode},
		{version: "v1", plural: "pods", kind: kube.KindPod, lazy: true},
		{version: "v1", plural: "services", kind: kube.KindService},
		{group: "discovery.k8s.io", version: "v1", plural: "endpointslices", kind: kube.KindEndpointSlice},
	}
	if secrets {
		list = append(list, resource{version: "v1", plural: "secrets", kind: kube.KindSecret, fields: "type=kubernetes.io/tls"})
	}
	for _, r := range []resource{
		{plural: "gatewayclasses", kind: kube.KindGatewayClass},
		{plural: "gateways", kind: mesh.KindGateway},
		{plural: "httproutes", kind: mesh.KindHTTPRoute},
		{plural: "grpcroutes", kind: mesh.KindGRPCRoute},
		{plural: "tlsroutes", kind: mesh.KindTLSRoute},
		{plural: "tcproutes", kind: mesh.KindTCPRoute},
		{plural: "udproutes", kind: mesh.KindUDPRoute},
		{plural: "referencegrants", kind: mesh.KindReferenceGrant},
	} {
		r.group, r.version, r.optional = mesh.GatewayGroup, "v1", true
		list = append(list, r)
	}
	_, version, _ := strings.Cut(mesh.MeshAPIVersion, "/")
	for _, k := range kube.OwnKinds {
		list = append(list, resource{group: mesh.MeshGroup, version: version, plural: k.Plural, kind: k.Kind, optional: true})
	}
	return list
}

// object is any object of the cluster: as it came, then as what is kept of it.
type object struct {
	metav1.TypeMeta
	metav1.ObjectMeta
	raw []byte
	// doc points to the struct of api/kube, nil where it could not be read.
	doc any
}

// UnmarshalJSON keeps the text, which is read when it is known of which kind it is.
func (o *object) UnmarshalJSON(data []byte) error {
	var m struct {
		metav1.TypeMeta
		Metadata struct {
			Name            string            `json:"name"`
			Namespace       string            `json:"namespace"`
			ResourceVersion string            `json:"resourceVersion"`
			UID             types.UID         `json:"uid"`
			Annotations     map[string]string `json:"annotations"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return err
	}
	o.TypeMeta = m.TypeMeta
	o.Name, o.Namespace, o.ResourceVersion, o.UID = m.Metadata.Name, m.Metadata.Namespace, m.Metadata.ResourceVersion, m.Metadata.UID
	o.Annotations = m.Metadata.Annotations
	o.raw = bytes.Clone(data)
	return nil
}

// MarshalJSON refuses: nothing of this type is ever sent.
func (o *object) MarshalJSON() ([]byte, error) {
	return nil, errors.New("kube: objects are read, not written")
}

// DeepCopyObject is part of runtime.Object.
func (o *object) DeepCopyObject() runtime.Object {
	c := *o
	c.ObjectMeta = *o.ObjectMeta.DeepCopy()
	return &c
}

type objectList struct {
	metav1.TypeMeta
	metav1.ListMeta `json:"metadata"`
	Items           []object `json:"items"`
}

// DeepCopyObject is part of runtime.Object.
func (l *objectList) DeepCopyObject() runtime.Object {
	c := *l
	c.Items = append([]object(nil), l.Items...)
	return &c
}

// client speaks to one API server.
type client struct {
	base *rest.Config
	http *http.Client
	// namespace is that of the kubeconfig, or of the pod that this runs in.
	namespace string
	codecs    serializer.CodecFactory
}

// connect finds the API server as kubectl does: a kubeconfig that is named, else the
// pod's service account, else KUBECONFIG and ~/.kube/config. It does not ask the server.
func connect(kubeconfig, kubecontext string) (*client, error) {
	c := &client{namespace: metav1.NamespaceDefault}
	var err error
	if kubeconfig == "" && os.Getenv("KUBERNETES_SERVICE_HOST") != "" {
		if c.base, err = rest.InClusterConfig(); err != nil {
			return nil, fmt.Errorf("kube: this pod's service account: %w", err)
		}
		if b, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace"); err == nil {
			c.namespace = strings.TrimSpace(string(b))
		}
	} else {
		rules := clientcmd.NewDefaultClientConfigLoadingRules()
		rules.ExplicitPath = kubeconfig
		loaded := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: kubecontext})
		if c.base, err = loaded.ClientConfig(); clientcmd.IsEmptyConfig(err) {
			return nil, errors.New("kube: there is no kubeconfig: name one (--kube=FILE), set KUBECONFIG, or run in a pod of the cluster")
		} else if err != nil {
			return nil, fmt.Errorf("kube: kubeconfig: %w", err)
		}
		if c.namespace, _, err = loaded.Namespace(); err != nil {
			return nil, fmt.Errorf("kube: kubeconfig: %w", err)
		}
	}
	// What this sends is bounded by its own workers, and the server has its own limits.
	c.base.QPS = -1
	c.base.UserAgent = "meridian-sitecontroller"
	c.base.ContentType = runtime.ContentTypeJSON
	s := runtime.NewScheme()
	for _, r := range append(resources(true), resource{group: "coordination.k8s.io", version: "v1", kind: "Lease"}, resource{group: reviewGroup.Group, version: reviewGroup.Version, kind: "TokenReview"}) {
		metav1.AddToGroupVersion(s, r.gv())
		s.AddKnownTypeWithName(r.gv().WithKind(r.kind), &object{})
		s.AddKnownTypeWithName(r.gv().WithKind(r.kind+"List"), &objectList{})
	}
	c.codecs = serializer.NewCodecFactory(s)
	if c.http, err = rest.HTTPClientFor(c.base); err != nil {
		return nil, fmt.Errorf("kube: %w", err)
	}
	return c, nil
}

// group is a client for the objects of a version of a group.
func (c *client) group(gv schema.GroupVersion) (*rest.RESTClient, error) {
	cfg := rest.CopyConfig(c.base)
	cfg.APIPath = "/apis"
	if gv.Group == "" {
		cfg.APIPath = "/api"
	}
	cfg.GroupVersion = &gv
	cfg.NegotiatedSerializer = c.codecs.WithoutConversion()
	r, err := rest.RESTClientForConfigAndClient(cfg, c.http)
	if err != nil {
		return nil, fmt.Errorf("kube: %w", err)
	}
	return r, nil
}

// served asks which resources of a version the server has; none where it does not know
// the group.
func (c *client) served(ctx context.Context, gv schema.GroupVersion) (map[string]bool, error) {
	r, err := c.group(gv)
	if err != nil {
		return nil, err
	}
	data, err := r.Get().AbsPath("/apis", gv.Group, gv.Version).DoRaw(ctx)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list metav1.APIResourceList
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("list of what %s has: %w", gv, err)
	}
	has := map[string]bool{}
	for _, x := range list.APIResources {
		has[x.Name] = true
	}
	return has, nil
}

// source lists and watches a resource in all namespaces.
func source(r *rest.RESTClient, of resource) *cache.ListWatch {
	request := func(o *metav1.ListOptions) *rest.Request {
		o.FieldSelector = of.fields
		return r.Get().Resource(of.plural).VersionedParams(o, metav1.ParameterCodec)
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list := &objectList{}
			return list, request(&o).Do(ctx).Into(list)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.Watch = true
			return request(&o).Watch(ctx)
		},
	}
}

// patchStatus writes an object's status, if the object is still the one that the status
// was made for.
func (c *client) patchStatus(ctx context.Context, of resource, meta kube.Meta, status any) error {
	r, err := c.group(of.gv())
	if err != nil {
		return err
	}
	body, err := json.Marshal(map[string]any{"metadata": map[string]string{"resourceVersion": meta.Version}, "status": status})
	if err != nil {
		return fmt.Errorf("kube: encode status: %w", err)
	}
	q := r.Patch(types.MergePatchType).Resource(of.plural).Name(meta.Name).SubResource("status").Body(body)
	if meta.Namespace != "" {
		q = q.Namespace(meta.Namespace)
	}
	return q.Do(ctx).Error()
}
