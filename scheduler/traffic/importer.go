package traffic

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Dialect is whose metrics an [Importer] reads.
type Dialect string

// The dialects, by the names that people write.
const (
	// Istio: istio_requests_total, istio_request_bytes_sum, istio_response_bytes_sum,
	// istio_tcp_received_bytes_total (client to server) and
	// istio_tcp_sent_bytes_total, of reporter="source": the other end reports the
	// same traffic again.
	Istio Dialect = "istio"
	// Linkerd: request_total and, with peer="dst", tcp_write_bytes_total and
	// tcp_read_bytes_total, of direction="outbound". The caller is in the labels
	// that linkerd-viz's Prometheus adds (namespace, deployment and the like), so
	// read them from Prometheus (its /federate), or name the caller.
	Linkerd Dialect = "linkerd"
	// Hubble: hubble_http_requests_total with the labels of
	// labelsContext=source_namespace,source_workload,destination_namespace,destination_workload.
	// Hubble counts no bytes by pair (cilium/cilium#32193): see
	// [ImportOptions.BytesPerRequest].
	Hubble Dialect = "hubble"
)

// ImportOptions say what the text does not.
type ImportOptions struct {
	Dialect Dialect
	// Cluster is the cluster of workloads whose labels name none.
	Cluster string
	// From is the caller where the labels name none (Linkerd's own endpoint).
	From mesh.Workload
	// BytesPerRequest stands in for both bodies of a request, half each way, where
	// bytes are not counted (Hubble). 0 means 1 KiB.
	BytesPerRequest float64
}

// Importer turns scrapes of cumulative counters into what a [Meter] takes. A
// counter that falls was restarted, and counts from 0; one that is new only shows
// where it stands (both as Prometheus has it).
type Importer struct {
	opts ImportOptions
	read map[string]func(*Importer, sample, *scrape) error
	last map[pair]map[string]counter // by series, so that one restart is one restart
	at   time.Duration
	had  bool
}

// counter is one series and which end of the pair counted it, empty where only one
// does.
type counter struct {
	end string
	Counts
}

type scrape struct {
	now     map[pair]map[string]counter
	skipped int
}

// NewImporter checks the options.
func NewImporter(o ImportOptions) (*Importer, error) {
	if o.BytesPerRequest == 0 {
		o.BytesPerRequest = 1024
	}
	if o.BytesPerRequest < 0 || math.IsNaN(o.BytesPerRequest) || math.IsInf(o.BytesPerRequest, 0) {
		return nil, fmt.Errorf("bytes per request are %v: want a positive number", o.BytesPerRequest)
	}
	i := &Importer{opts: o}
	switch o.Dialect {
	case Istio:
		i.read = istio
	case Linkerd:
		i.read = linkerd
	case Hubble:
		i.read = hubble
	default:
		return nil, fmt.Errorf("dialect %q is not known: istio, linkerd or hubble", o.Dialect)
	}
	return i, nil
}

// Imported says what a scrape held.
type Imported struct {
	Pairs int
	// Skipped counts samples that name no workload at one end (callers from
	// outside, for instance), which cannot be placed.
	Skipped int
	// First is set by the first scrape: it only shows where counters stand.
	First bool
	Since time.Duration
}

// Scrape reads text that was fetched at a time of any monotonic clock, adds what
// flowed since the last scrape to m and ends the interval there. An error leaves
// everything as it was.
func (i *Importer) Scrape(text io.Reader, at time.Duration, m *Meter) (Imported, error) {
	sc := &scrape{now: map[pair]map[string]counter{}}
	err := readSamples(text, func(name string) bool { return i.read[name] != nil }, func(s sample) error {
		if math.IsNaN(s.value) || math.IsInf(s.value, 0) || s.value < 0 {
			return fmt.Errorf("the counter is %v: want a finite number, not negative", s.value)
		}
		return i.read[s.name](i, s, sc)
	})
	if err != nil {
		return Imported{}, fmt.Errorf("%s metrics: %w", i.opts.Dialect, err)
	}
	out := Imported{Pairs: len(sc.now), Skipped: sc.skipped, First: !i.had, Since: at - i.at}
	if i.had && out.Since <= 0 {
		return Imported{}, fmt.Errorf("%s metrics: scraped at %s, not after the last scrape at %s", i.opts.Dialect, at, i.at)
	}
	if i.had {
		for _, k := range slices.SortedFunc(maps.Keys(sc.now), pair.compare) {
			byEnd := map[string]Counts{}
			for series, c := range sc.now[k] {
				if before, ok := i.last[k][series]; ok {
					byEnd[c.end] = byEnd[c.end].plus(since(c.Counts, before.Counts))
				}
			}
			// Where both ends count, the one that saw more saw all.
			var flowed Counts
			for _, end := range slices.Sorted(maps.Keys(byEnd)) {
				if byEnd[end].Requests >= flowed.Requests {
					flowed = byEnd[end]
				}
			}
			if err := m.Add(k.from, k.to, flowed); err != nil {
				return Imported{}, fmt.Errorf("%s metrics: %w", i.opts.Dialect, err)
			}
		}
		m.Tick(out.Since)
	}
	i.last, i.at, i.had = sc.now, at, true
	return out, nil
}

func since(now, before Counts) Counts {
	d := func(n, b float64) float64 {
		if n < b {
			return n
		}
		return n - b
	}
	return Counts{d(now.Requests, before.Requests), d(now.RequestBytes, before.RequestBytes), d(now.ResponseBytes, before.ResponseBytes)}
}

// count adds a sample to its pair. What tells two processes' counters of one pair
// apart (instance, pod) keeps them apart, so that one restart does not look like
// another's.
func (sc *scrape) count(s sample, from, to mesh.Workload, end string, c Counts) {
	if from.Name == "" || to.Name == "" {
		sc.skipped++
		return
	}
	k := pair{from, to}
	if sc.now[k] == nil {
		sc.now[k] = map[string]counter{}
	}
	series := seriesOf(s)
	sc.now[k][series] = counter{end, sc.now[k][series].plus(c)}
}

// seriesOf tells one counter from another: its name and all labels.
func seriesOf(s sample) string {
	var b strings.Builder
	b.WriteString(s.name)
	for _, k := range slices.Sorted(maps.Keys(s.labels)) {
		b.WriteByte(0)
		b.WriteString(k)
		b.WriteByte('=')
		b.WriteString(s.labels[k])
	}
	return b.String()
}

// known clears what meshes write for a workload that they do not know.
func known(v string) string {
	if v == "unknown" {
		return ""
	}
	return v
}

func (i *Importer) workload(cluster, namespace, name string) mesh.Workload {
	if name = known(name); name == "" {
		return mesh.Workload{}
	}
	if cluster = known(cluster); cluster == "" {
		cluster = i.opts.Cluster
	}
	return mesh.Workload{Cluster: cluster, Namespace: known(namespace), Name: name}
}

func istioSample(counts func(float64) Counts) func(*Importer, sample, *scrape) error {
	return func(i *Importer, s sample, sc *scrape) error {
		l := s.labels
		if l["reporter"] != "source" {
			return nil
		}
		sc.count(s, i.workload(l["source_cluster"], l["source_workload_namespace"], l["source_workload"]),
			i.workload(l["destination_cluster"], l["destination_workload_namespace"], l["destination_workload"]), "", counts(s.value))
		return nil
	}
}

func requests(v float64) Counts      { return Counts{Requests: v} }
func requestBytes(v float64) Counts  { return Counts{RequestBytes: v} }
func responseBytes(v float64) Counts { return Counts{ResponseBytes: v} }

// Names and labels: istio.io/latest/docs/reference/config/metrics.
var istio = map[string]func(*Importer, sample, *scrape) error{
	"istio_requests_total":           istioSample(requests),
	"istio_request_bytes_sum":        istioSample(requestBytes),
	"istio_response_bytes_sum":       istioSample(responseBytes),
	"istio_tcp_received_bytes_total": istioSample(requestBytes),
	"istio_tcp_sent_bytes_total":     istioSample(responseBytes),
}

// linkerdOwners are the labels that name a workload, the most telling first.
var linkerdOwners = []string{"deployment", "statefulset", "daemonset", "k8s_job", "replicationcontroller", "replicaset"}

func linkerdSample(counts func(float64) Counts, peer bool) func(*Importer, sample, *scrape) error {
	return func(i *Importer, s sample, sc *scrape) error {
		l := s.labels
		if l["direction"] != "outbound" || peer && l["peer"] != "dst" {
			return nil
		}
		owner := func(prefix string) string {
			for _, o := range linkerdOwners {
				if v := l[prefix+o]; v != "" {
					return v
				}
			}
			return ""
		}
		from := i.workload("", l["namespace"], owner(""))
		if from.Name == "" {
			from = i.opts.From
		}
		sc.count(s, from, i.workload("", l["dst_namespace"], owner("dst_")), "", counts(s.value))
		return nil
	}
}

// Names and labels: linkerd.io/2/reference/proxy-metrics. Bytes are those on the
// connection to the peer, so they are counted once for each direction.
var linkerd = map[string]func(*Importer, sample, *scrape) error{
	"request_total":         linkerdSample(requests, false),
	"tcp_write_bytes_total": linkerdSample(requestBytes, true),
	"tcp_read_bytes_total":  linkerdSample(responseBytes, true),
}

// Names and labels: docs.cilium.io/en/stable/observability/metrics (httpV2 and
// labelsContext).
var hubble = map[string]func(*Importer, sample, *scrape) error{
	"hubble_http_requests_total": func(i *Importer, s sample, sc *scrape) error {
		l := s.labels
		half := s.value * i.opts.BytesPerRequest / 2
		sc.count(s, i.workload(l["source_cluster"], l["source_namespace"], l["source_workload"]),
			i.workload(l["destination_cluster"], l["destination_namespace"], l["destination_workload"]),
			l["reporter"], Counts{Requests: s.value, RequestBytes: half, ResponseBytes: half})
		return nil
	},
}
