package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/meridian-mesh/meridian/controller/siteapi"
)

// Codes of what is found in a scheduler's configuration.
const (
	codeSchedulerSample  = "scheduler-sample"
	codeSchedulerTraffic = "scheduler-traffic"
	codeSchedulerGates   = "scheduler-gates"
)

const (
	schedulerAPI    = "kubescheduler.config.k8s.io/v1"
	schedulerKind   = "KubeSchedulerConfiguration"
	affinityPlugin  = "TrafficAffinity"
	defaultProfile  = "default-scheduler"
	everyPluginName = "*"
)

// schedulerConfig is a KubeSchedulerConfiguration as far as it decides which nodes
// TrafficAffinity gets to score. It names every field of v1 (k8s.io/kube-scheduler
// v0.36.3), so that a misspelt one is a fault here as it is there; what is `any` is
// kube-scheduler's to judge. This program links nothing of Kubernetes.
type schedulerConfig struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`

	PercentageOfNodesToScore *int               `yaml:"percentageOfNodesToScore"`
	Profiles                 []schedulerProfile `yaml:"profiles"`

	Parallelism               any `yaml:"parallelism"`
	LeaderElection            any `yaml:"leaderElection"`
	ClientConnection          any `yaml:"clientConnection"`
	EnableProfiling           any `yaml:"enableProfiling"`
	EnableContentionProfiling any `yaml:"enableContentionProfiling"`
	PodInitialBackoffSeconds  any `yaml:"podInitialBackoffSeconds"`
	PodMaxBackoffSeconds      any `yaml:"podMaxBackoffSeconds"`
	Extenders                 any `yaml:"extenders"`
	DelayCacheUntilActive     any `yaml:"delayCacheUntilActive"`
}

type schedulerProfile struct {
	SchedulerName string `yaml:"schedulerName"`
	// PercentageOfNodesToScore stands before the one of all profiles, 0 too.
	PercentageOfNodesToScore *int             `yaml:"percentageOfNodesToScore"`
	Plugins                  schedulerPlugins `yaml:"plugins"`
	PluginConfig             any              `yaml:"pluginConfig"`
}

type schedulerPlugins struct {
	Score          pluginSet `yaml:"score"`
	PlacementScore pluginSet `yaml:"placementScore"`
	MultiPoint     pluginSet `yaml:"multiPoint"`

	PreEnqueue        any `yaml:"preEnqueue"`
	QueueSort         any `yaml:"queueSort"`
	PreFilter         any `yaml:"preFilter"`
	Filter            any `yaml:"filter"`
	PostFilter        any `yaml:"postFilter"`
	PreScore          any `yaml:"preScore"`
	Reserve           any `yaml:"reserve"`
	Permit            any `yaml:"permit"`
	PreBind           any `yaml:"preBind"`
	Bind              any `yaml:"bind"`
	PostBind          any `yaml:"postBind"`
	PlacementGenerate any `yaml:"placementGenerate"`
}

type pluginSet struct {
	Enabled  []schedulerPlugin `yaml:"enabled"`
	Disabled []schedulerPlugin `yaml:"disabled"`
}

type schedulerPlugin struct {
	Name   string `yaml:"name"`
	Weight any    `yaml:"weight"`
}

// has says whether one of the plugins has one of the names.
func has(plugins []schedulerPlugin, names ...string) bool {
	for _, p := range plugins {
		for _, n := range names {
			if p.Name == n {
				return true
			}
		}
	}
	return false
}

// scores says whether the profile scores nodes by traffic. What multiPoint enables
// counts unless score disables it; what score enables counts in any case.
func (p *schedulerProfile) scores() bool {
	if has(p.Plugins.Score.Enabled, affinityPlugin) {
		return true
	}
	return has(p.Plugins.MultiPoint.Enabled, affinityPlugin) &&
		!has(p.Plugins.Score.Disabled, affinityPlugin, everyPluginName)
}

// scoresPlacements says whether the profile scores placements of pod groups by traffic
// where the gates are on, and whether it names it for that: then kube-scheduler does not
// start with the gates off.
func (p *schedulerProfile) scoresPlacements() (does, named bool) {
	named = has(p.Plugins.PlacementScore.Enabled, affinityPlugin)
	return named || has(p.Plugins.MultiPoint.Enabled, affinityPlugin) &&
		!has(p.Plugins.PlacementScore.Disabled, affinityPlugin, everyPluginName), named
}

// placementGates are the feature gates that placements of pod groups need in Kubernetes
// 1.36, where both are alpha and off.
var placementGates = []string{"GenericWorkload", "TopologyAwareWorkloadScheduling"}

// readGates reads what kube-scheduler gets as --feature-gates and returns the gates that
// are on.
func readGates(text string) (map[string]bool, error) {
	on := map[string]bool{}
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		// A gate of one component is written component:Gate.
		name = strings.TrimSpace(name[strings.LastIndex(name, ":")+1:])
		v, err := strconv.ParseBool(strings.TrimSpace(value))
		if name == "" || err != nil {
			return nil, fmt.Errorf("--%s: %q: want Gate=true or Gate=false, with commas between", gatesFlag, part)
		}
		on[name] = v
	}
	return on, nil
}

// readSchedulerConfig reads one document, strictly.
func readSchedulerConfig(r io.Reader) (*schedulerConfig, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	// What it is comes first: of another kind every field would be unknown.
	var what struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string `yaml:"kind"`
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(&what); errors.Is(err, io.EOF) {
		return nil, errors.New("there is no document in it: want a " + schedulerKind)
	} else if err != nil {
		return nil, plainer(err)
	}
	if what.Kind != schedulerKind || what.APIVersion != schedulerAPI {
		err := fmt.Errorf("it has apiVersion %q and kind %q: want %s and %s", what.APIVersion, what.Kind, schedulerAPI, schedulerKind)
		if what.Kind == "ConfigMap" {
			err = fmt.Errorf("%w; give the text in the ConfigMap's data", err)
		}
		return nil, err
	}
	if err := d.Decode(&yaml.Node{}); err == nil {
		return nil, errors.New("there is more than one document in it: want one " + schedulerKind + " alone")
	} else if !errors.Is(err, io.EOF) {
		return nil, plainer(err)
	}
	d = yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	c := &schedulerConfig{}
	if err := d.Decode(c); err != nil {
		return nil, plainer(err)
	}
	return c, c.check()
}

// check refuses what kube-scheduler would not start with.
func (c *schedulerConfig) check() error {
	var faults []error
	percent := func(field string, p *int) {
		if p != nil && (*p < 0 || *p > 100) {
			faults = append(faults, fmt.Errorf("%spercentageOfNodesToScore is %d: want 0 to 100", field, *p))
		}
	}
	percent("", c.PercentageOfNodesToScore)
	for i := range c.Profiles {
		percent(fmt.Sprintf("profiles[%d].", i), c.Profiles[i].PercentageOfNodesToScore)
	}
	return errors.Join(faults...)
}

// schedulerChecked is what check prints of a scheduler's configuration for programs.
type schedulerChecked struct {
	// Looked says what was looked at, in words.
	Looked   []string          `json:"looked"`
	Findings []siteapi.Finding `json:"findings"`
}

// find looks at every profile that scores nodes by traffic; gates are the feature gates
// that are on.
func (c *schedulerConfig) find(file string, gates map[string]bool) *schedulerChecked {
	r := &schedulerChecked{Looked: []string{}, Findings: []siteapi.Finding{}}
	add := func(code, what, remedy string) {
		r.Findings = append(r.Findings, siteapi.Finding{Code: code, Severity: siteapi.SeverityWarning, What: what, Remedy: remedy})
	}
	var off []string
	for _, g := range placementGates {
		if !gates[g] {
			off = append(off, g+"=true")
		}
	}
	for i := range c.Profiles {
		p := &c.Profiles[i]
		name := p.SchedulerName
		if name == "" {
			name = defaultProfile
		}
		groups, named := p.scoresPlacements()
		if named && len(off) > 0 {
			want := strings.Join(off, ",")
			add(codeSchedulerGates,
				fmt.Sprintf("%s: profile %s enables %s at profiles[%d].plugins.placementScore, and kube-scheduler does not start with that unless its feature gates are on; nothing here says that %s", file, name, affinityPlugin, i, want),
				fmt.Sprintf("start the scheduler and the API server with --feature-gates=%s, and give this command --%[2]s=%[1]s; or leave placementScore out: under multiPoint the plugin scores placements where the gates are on", want, gatesFlag))
		}
		if !p.scores() {
			continue
		}
		what := "which scores nodes by traffic"
		if groups && len(off) == 0 {
			what = "which scores nodes and placements of pod groups by traffic"
		}
		r.Looked = append(r.Looked, fmt.Sprintf("profile %s, %s", name, what))
		percent, field := p.PercentageOfNodesToScore, fmt.Sprintf("profiles[%d].percentageOfNodesToScore", i)
		if percent == nil {
			percent, field = c.PercentageOfNodesToScore, "percentageOfNodesToScore"
		}
		if percent != nil && *percent == 100 {
			continue
		}
		state := "not set"
		if percent != nil {
			state = fmt.Sprint(*percent)
		}
		add(codeSchedulerSample,
			fmt.Sprintf("%s: profile %s scores only a sample of the nodes of a cluster with more than 100: %s is %s, and the node that traffic calls for is often not in the sample", file, name, field, state),
			fmt.Sprintf("set %s: 100", field))
	}
	if len(r.Looked) == 0 {
		r.Looked = append(r.Looked, count(len(c.Profiles), "profile"))
		add(codeSchedulerTraffic,
			fmt.Sprintf("%s: no profile scores nodes by traffic", file),
			"enable "+affinityPlugin+" under a profile's plugins.multiPoint, and do not disable it under plugins.score")
	}
	return r
}

// plainer leaves the names of this program's types out of a decoder's error.
func plainer(err error) error {
	var t *yaml.TypeError
	if !errors.As(err, &t) {
		return err
	}
	faults := make([]error, len(t.Errors))
	for i, s := range t.Errors {
		s, _, _ = strings.Cut(s, " in type ")
		faults[i] = errors.New(s)
	}
	return errors.Join(faults...)
}
