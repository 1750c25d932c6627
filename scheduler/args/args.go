// Package args is the configuration of the TrafficAffinity plugin as it stands in
// a KubeSchedulerConfiguration: strict, with defaults, and every fault at once.
package args

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/meridian-mesh/meridian/scheduler/traffic"
)

// DefaultSiteLabel names a node's site; without it the topology zone counts.
const DefaultSiteLabel = "mesh.meridian.dev/site"

// Args is the plugin's pluginConfig.args.
type Args struct {
	metav1.TypeMeta
	// Cluster is this cluster's name in the traffic matrix. Workloads there without
	// a cluster are taken for this cluster's.
	Cluster string `json:"cluster,omitempty"`
	// SiteLabel is the node label that names its site.
	SiteLabel string `json:"siteLabel,omitempty"`
	// MatrixFile is a traffic matrix (JSON), read again when it changes.
	MatrixFile string `json:"matrixFile,omitempty"`
	// DelaysFile says how far sites are apart (JSON): {"sites": [...], "oneWayMs":
	// [[...]]}, read again when it changes.
	DelaysFile string `json:"delaysFile,omitempty"`
	// NATS is where the mesh's own controllers tell of traffic and, without a
	// DelaysFile, of how far sites are apart.
	NATS *NATS `json:"nats,omitempty"`
	// Metrics are scraped for traffic that another mesh sees.
	Metrics *Metrics `json:"metrics,omitempty"`
	// MaxAge is how old the traffic may be; older is as good as none. 10m by default.
	MaxAge metav1.Duration `json:"maxAge,omitempty"`
	// Cohesion is the part of a workload's traffic by which its own pods draw each
	// other, 0 to 1, 0.1 by default: they talk to the same peers. Spread constraints of
	// the pods still have their say.
	Cohesion *float64 `json:"cohesion,omitempty"`
	// Events says which pods get an event that explains their node: All, Notable (the
	// default: those that are not near the cheapest node that was open to them, or were
	// placed without traffic) or None.
	Events string `json:"events,omitempty"`
}

// Values of [Args.Events].
const (
	EventsAll     = "All"
	EventsNotable = "Notable"
	EventsNone    = "None"
)

// NATS is a site controller's server, or an external one that the mesh uses.
type NATS struct {
	// URL is nats://host:port or tls://host:port, several with commas.
	URL string `json:"url"`
	// TokenFile holds the site's node token, NKeyFile an NKey seed; one at most.
	TokenFile string `json:"tokenFile,omitempty"`
	NKeyFile  string `json:"nkeyFile,omitempty"`
	// CAFile holds the certificates (PEM) that a tls:// server's must chain to; empty
	// means the machine's own.
	CAFile string `json:"caFile,omitempty"`
}

// Metrics are another mesh's metrics in the Prometheus text format.
type Metrics struct {
	Dialect traffic.Dialect `json:"dialect"`
	// URL answers with the whole text, for instance Prometheus'
	// /federate?match[]={__name__=~"istio_.*"}.
	URL string `json:"url"`
	// Every is the interval, 30s by default.
	Every metav1.Duration `json:"every,omitempty"`
	// BytesPerRequest stands in where bytes are not counted (hubble).
	BytesPerRequest float64 `json:"bytesPerRequest,omitempty"`
}

// Read decodes what the scheduler hands to the plugin, sets defaults and checks.
func Read(obj runtime.Object) (*Args, error) {
	a := &Args{}
	switch o := obj.(type) {
	case nil:
	case *runtime.Unknown:
		if o.ContentType != "" && o.ContentType != runtime.ContentTypeJSON && o.ContentType != runtime.ContentTypeYAML {
			return nil, fmt.Errorf("TrafficAffinity args: content type %s: want JSON or YAML", o.ContentType)
		}
		d := json.NewDecoder(bytes.NewReader(o.Raw))
		d.DisallowUnknownFields()
		if err := d.Decode(a); err != nil {
			return nil, fmt.Errorf("TrafficAffinity args: %w", err)
		}
	default:
		return nil, fmt.Errorf("TrafficAffinity args: unexpected %T", obj)
	}
	a.setDefaults()
	return a, a.check()
}

func (a *Args) setDefaults() {
	if a.SiteLabel == "" {
		a.SiteLabel = DefaultSiteLabel
	}
	if a.Cohesion == nil {
		tenth := 0.1
		a.Cohesion = &tenth
	}
	if a.Events == "" {
		a.Events = EventsNotable
	}
	if a.MaxAge.Duration == 0 {
		a.MaxAge.Duration = 10 * time.Minute
	}
	if a.Metrics != nil && a.Metrics.Every.Duration == 0 {
		a.Metrics.Every.Duration = 30 * time.Second
	}
}

func (a *Args) check() error {
	var faults []error
	var sources []string
	for _, s := range []struct {
		name string
		set  bool
	}{{"matrixFile", a.MatrixFile != ""}, {"nats", a.NATS != nil}, {"metrics", a.Metrics != nil}} {
		if s.set {
			sources = append(sources, s.name)
		}
	}
	switch len(sources) {
	case 0:
		faults = append(faults, errors.New("there is no source of traffic: set matrixFile, nats or metrics"))
	case 1:
	default:
		faults = append(faults, fmt.Errorf("%s are set together: choose one source of traffic", strings.Join(sources, " and ")))
	}
	if n := a.NATS; n != nil && n.URL == "" {
		faults = append(faults, errors.New("nats.url is missing"))
	}
	if n := a.NATS; n != nil && n.TokenFile != "" && n.NKeyFile != "" {
		faults = append(faults, errors.New("nats.tokenFile and nats.nkeyFile are both set: choose one"))
	}
	if a.Events != EventsAll && a.Events != EventsNotable && a.Events != EventsNone {
		faults = append(faults, fmt.Errorf("events is %q: want %s, %s or %s", a.Events, EventsAll, EventsNotable, EventsNone))
	}
	if c := *a.Cohesion; !(c >= 0 && c <= 1) {
		faults = append(faults, fmt.Errorf("cohesion is %v: want 0 to 1", c))
	}
	if a.MaxAge.Duration < 0 {
		faults = append(faults, fmt.Errorf("maxAge is %s: want a positive duration", a.MaxAge.Duration))
	}
	if m := a.Metrics; m != nil {
		if m.URL == "" {
			faults = append(faults, errors.New("metrics.url is missing"))
		}
		if m.Every.Duration < time.Second {
			faults = append(faults, fmt.Errorf("metrics.every is %s: want 1s at least", m.Every.Duration))
		}
		if _, err := traffic.NewImporter(traffic.ImportOptions{Dialect: m.Dialect, BytesPerRequest: m.BytesPerRequest}); err != nil {
			faults = append(faults, fmt.Errorf("metrics: %w", err))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("TrafficAffinity args: %w", err)
	}
	return nil
}
