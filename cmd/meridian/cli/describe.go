package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/siteapi"
)

// described is one object with what there is to say of it.
type described struct {
	Key        mesh.Key            `json:"key"`
	Owner      string              `json:"owner"`
	Shadowed   []string            `json:"shadowedOwners,omitempty"`
	Object     json.RawMessage     `json:"object"`
	UsedBy     []mesh.Key          `json:"usedBy"`
	Policies   []mesh.PolicyOrigin `json:"policies,omitempty"`
	Conditions []mesh.Condition    `json:"conditions"`
	// Loads are a service's at the sites that say it, Site is a Site's own word.
	Loads map[string]siteapi.ServiceStatus `json:"loads,omitempty"`
	Site  *siteapi.SiteStatus              `json:"site,omitempty"`
	// Silence is why a Site says nothing.
	Silence string `json:"silence,omitempty"`
}

func describeCommand(e *env) *cobra.Command {
	var output, namespace string
	cmd := &cobra.Command{
		Use:   "describe KIND NAME",
		Short: "Show an object with all that concerns it",
		Long: `Describe shows an object as a document, who owns it, which objects name it, which
policies hold for it, what is wrong with it, and for a service its load at each site,
for a site how it is.`,
		Example: `  meridian --data ./hub describe MeshService shop
  meridian --data ./hub describe site north`,
		Args: cobra.ExactArgs(2), ValidArgsFunction: completeObject(e),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := keyOf(args, namespace)
			if err != nil {
				return err
			}
			list, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Objects, error) {
				return c.Get(ctx, siteapi.GetRequest{})
			})
			if err != nil {
				return err
			}
			st, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Status, error) { return c.Status(ctx) })
			if err != nil {
				return err
			}
			d, err := describe(key, list, st)
			if err != nil {
				return err
			}
			return print(cmd, output, d, func(w io.Writer) { describeTable(w, d) })
		},
	}
	cmd.Flags().StringVarP(&namespace, "namespace", "n", mesh.DefaultNamespace, "`namespace` of the object")
	outputFlag(cmd, &output)
	return cmd
}

func describe(key mesh.Key, list *siteapi.Objects, st *siteapi.Status) (*described, error) {
	d := &described{Key: key, UsedBy: []mesh.Key{}, Conditions: []mesh.Condition{}}
	for _, o := range list.Objects {
		switch {
		case o.Key == key && o.Shadowed:
			d.Shadowed = append(d.Shadowed, o.Owner)
		case o.Key == key:
			d.Owner, d.Object = o.Owner, o.Object
		case names(o.Object, key):
			d.UsedBy = append(d.UsedBy, o.Key)
		}
	}
	if d.Object == nil {
		return nil, fmt.Errorf("there is no %s at site %s", key, list.Site)
	}
	for _, c := range st.Conditions {
		if c.Object == key {
			d.Conditions = append(d.Conditions, c)
		}
	}
	switch key.Kind {
	case mesh.KindMeshService:
		return d, d.service(list, st)
	case mesh.KindSite:
		d.site(st)
	}
	return d, nil
}

// service adds a service's policies and loads.
func (d *described) service(list *siteapi.Objects, st *siteapi.Status) error {
	var o mesh.Objects
	owners := map[mesh.Key]string{}
	for _, x := range list.Objects {
		if x.Key.Kind != mesh.KindTrafficPolicy || x.Shadowed {
			continue
		}
		p := new(mesh.TrafficPolicy)
		if err := json.Unmarshal(x.Object, p); err != nil {
			return fmt.Errorf("%s: %w", x.Key, err)
		}
		o.TrafficPolicies = append(o.TrafficPolicies, p)
		owners[x.Key] = x.Owner
	}
	key := mesh.ServiceKey(d.Key.Namespace + "/" + d.Key.Name)
	d.Policies = mesh.PolicyOrigins(&o, key)
	for i := range d.Policies {
		d.Policies[i].Owner = owners[d.Policies[i].Policy]
	}
	d.Loads = map[string]siteapi.ServiceStatus{}
	add := func(s *siteapi.SiteStatus) {
		for _, x := range s.Services {
			if x.Service == key {
				d.Loads[s.Site] = x
			}
		}
	}
	add(&st.Self)
	for i := range st.Peer {
		if said := st.Peer[i].Said; said != nil {
			add(said)
		}
	}
	return nil
}

func (d *described) site(st *siteapi.Status) {
	if d.Key.Name == st.Self.Site {
		d.Site = &st.Self
		return
	}
	d.Silence = "nothing is known of it"
	for i := range st.Peer {
		if p := &st.Peer[i]; p.Site == d.Key.Name {
			d.Site, d.Silence = p.Said, p.Silence
		}
	}
}

// names reports whether a document refers to an object: by kind and name, or where
// sites are named by a field of their own.
func names(document json.RawMessage, key mesh.Key) bool {
	var tree any
	if json.Unmarshal(document, &tree) != nil {
		return false
	}
	var walk func(any) bool
	walk = func(v any) bool {
		switch v := v.(type) {
		case map[string]any:
			if v["name"] == key.Name && v["kind"] == key.Kind {
				return true
			}
			if key.Kind == mesh.KindSite && (v["site"] == key.Name || v["to"] == key.Name || v["parent"] == key.Name) {
				return true
			}
			for _, x := range v {
				if walk(x) {
					return true
				}
			}
		case []any:
			for _, x := range v {
				if walk(x) {
					return true
				}
			}
		}
		return false
	}
	m, ok := tree.(map[string]any)
	return ok && walk(m["spec"])
}

func describeTable(w io.Writer, d *described) {
	text, err := asYAML(d.Object)
	if err != nil {
		text = string(d.Object) + "\n"
	}
	fmt.Fprint(w, text)
	fmt.Fprintf(w, "\nowner\t%s\n", d.Owner)
	for _, o := range d.Shadowed {
		fmt.Fprintf(w, "shadows\tthe object of %s, which is not in force\n", o)
	}
	for _, k := range d.UsedBy {
		fmt.Fprintf(w, "named by\t%s\n", k)
	}
	for _, p := range d.Policies {
		fmt.Fprintf(w, "policy\t%s by %s%s\n", p.Section, p.Policy, owned(p.Owner))
	}
	for _, c := range d.Conditions {
		fmt.Fprintf(w, "warning\t%s: %s\n", c.Reason, c.Message)
	}
	if d.Key.Kind == mesh.KindMeshService {
		describeLoads(w, d)
	}
	if d.Silence != "" {
		fmt.Fprintf(w, "silent\t%s\n", d.Silence)
	}
	if d.Site != nil {
		fmt.Fprintln(w, "\nSITE\tSTATUS\tAGE\tFROM\tRTT\tNODES\tGENERATION\tDEMAND/S\tSERVED/S\tIN FLIGHT\tLOAD")
		siteLine(w, d.Site.Site, withTraffic("answers", d.Site.Traffic), "-", "-", "-", d.Site)
		nodeNotes(func(format string, v ...any) { fmt.Fprintf(w, format+"\n", v...) }, d.Site)
	}
}

func describeLoads(w io.Writer, d *described) {
	if len(d.Loads) == 0 {
		fmt.Fprintln(w, "load\tno site says any")
		return
	}
	fmt.Fprintln(w, "\nSITE\tLOAD\tSLOTS\tSERVICE TIME\tIN FLIGHT\tSERVED/S\tDEMAND/S")
	for _, site := range slices.Sorted(maps.Keys(d.Loads)) {
		x := d.Loads[site]
		load := "-"
		if slotsKnown(&x.ServiceReport) {
			load = percent(x.Arrivals * x.ServiceTimeMS / 1000 / x.Slots)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%.1f\t%.1f\n", site, load, slotsText(&x.ServiceReport), millis(x.ServiceTimeMS), x.InFlight, x.Arrivals, x.Demand)
	}
}
