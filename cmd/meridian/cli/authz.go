package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/siteapi"
	"github.com/meridian-mesh/meridian/controller/world"
	"github.com/meridian-mesh/meridian/edgeproxy/authz"
	"github.com/meridian-mesh/meridian/edgeproxy/route"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
	"github.com/meridian-mesh/meridian/internal/manifest"
)

func authzCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "authz",
		Short: "Say who may call what",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(authzCheckCommand(e))
	return cmd
}

// authzQuery is what authz check asks.
type authzQuery struct {
	from               []string
	to, gateway, route string
	method, path, host string
	headers, files     []string
}

// authzAnswer is what authz check prints for programs.
type authzAnswer struct {
	authz.Explanation
	// Notes say what was not looked at.
	Notes []string `json:"notes,omitempty"`
}

func authzCheckCommand(e *env) *cobra.Command {
	var q authzQuery
	var output string
	cmd := &cobra.Command{
		Use:   "check --from IDENTITY|ADDRESS --to [NAMESPACE/]SERVICE[:PORT]",
		Short: "Say whether one would be allowed to call another, by which rule, and why not",
		Long: `Check asks the AuthorizationPolicies of a site, or of files with -f, as its proxies do, by
the same code. --from is who calls: an address, an identity, or both; an identity
of the mesh's own trust domain is that of a proxy that hands the request over, any
other the client's. Who is given without an identity has none.

--path, --host and --header are those of the request as the service will get it,
after what routes rewrite. The policies of the site and of the service are asked; those
of a gateway and a route too where --gateway and --route name them.

The exit code is 0 when it is allowed, 1 when it is not.`,
		Example: `  meridian --data ./hub authz check --from 10.0.0.7 --to shop --path /cart
  meridian authz check -f mesh.yaml --from spiffe://corp.example/ns/shop/sa/web --to default/orders:80 --method POST
  meridian authz check -f mesh.yaml --from 10.0.0.7 --to web --gateway ingress --path /admin`,
		Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(q.from) == 0 || q.to == "" {
				return errUsage{errors.New("who calls what? Give --from IDENTITY or ADDRESS, and --to SERVICE")}
			}
			o, err := q.objects(cmd, e)
			if err != nil {
				return err
			}
			x, err := q.check(o)
			if err != nil {
				return err
			}
			if err := print(cmd, output, x, func(w io.Writer) { authzTable(w, x) }); err != nil {
				return err
			}
			if !x.Allowed {
				return errRefused
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&q.from, "from", nil, "`who` calls: an address or an identity; may be given again")
	f.StringVar(&q.to, "to", "", "`service` that is called: [namespace/]name[:port]")
	f.StringVar(&q.gateway, "gateway", "", "gateway by which it comes in: `[namespace/]name[/listener]`")
	f.StringVar(&q.route, "route", "", "route that takes it: `[kind/][namespace/]name` (default kind HTTPRoute)")
	f.StringVar(&q.method, "method", "", "the request's method (default GET)")
	f.StringVar(&q.path, "path", "", "the request's path (default /)")
	f.StringVar(&q.host, "host", "", "the request's `host`")
	f.StringArrayVar(&q.headers, "header", nil, "`name: value` that the request has; may be given again")
	filesFlag(cmd, &q.files, "what to ask in place of a mesh")
	outputFlag(cmd, &output)
	return cmd
}

// objects are the documents of files, or those in force at a site.
func (q *authzQuery) objects(cmd *cobra.Command, e *env) (*mesh.Objects, error) {
	if len(q.files) > 0 {
		sources, err := manifest.Read(q.files, cmd.InOrStdin())
		if err != nil {
			return nil, err
		}
		return mesh.ParseSources(sources)
	}
	list, err := ask(cmd, e, func(ctx context.Context, c *siteapi.Client) (*siteapi.Objects, error) {
		return c.Get(ctx, siteapi.GetRequest{})
	})
	if err != nil {
		return nil, err
	}
	list.Objects = slices.DeleteFunc(list.Objects, func(o siteapi.Object) bool { return o.Shadowed })
	var text bytes.Buffer
	if err := printDocuments(&text, list); err != nil {
		return nil, err
	}
	o, err := mesh.ParseYAML("site "+list.Site, text.Bytes())
	if err != nil {
		return nil, fmt.Errorf("what the controller knows cannot be read: %w", err)
	}
	o.AuthorizationPolicies = slices.DeleteFunc(o.AuthorizationPolicies, func(p *mesh.AuthorizationPolicy) bool {
		site := p.Metadata.Labels[world.SiteLabel]
		return site != "" && site != list.Site
	})
	return o, nil
}

func (q *authzQuery) check(o *mesh.Objects) (*authzAnswer, error) {
	r, targets, err := q.request(o)
	if err != nil {
		return nil, err
	}
	x := &authzAnswer{}
	if x.Explanation, err = authz.Explain(o, r, targets); err != nil {
		return nil, err
	}
	compiled, err := authz.Compile(o, nil)
	if err != nil {
		return nil, err
	}
	allowed := true
	var j authz.Judge
	j.Begin(r)
	for _, t := range targets {
		if s := compiled.Of(t); s != nil {
			allowed = !j.Judge(s).Denied && allowed
		}
	}
	if allowed != x.Allowed {
		return nil, fmt.Errorf("proxies would say allowed: %v, and the policies read from top to bottom say %v: this is a fault of this program, please report it", allowed, x.Allowed)
	}
	if n := notAsked(o, targets); n > 0 {
		x.Notes = append(x.Notes, fmt.Sprintf("%s of gateways and routes not asked: name them with --gateway and --route", count(n, "target")))
	}
	return x, nil
}

// notAsked counts the gateways and routes that policies name and that were not asked.
func notAsked(o *mesh.Objects, asked []authz.Target) int {
	seen := map[authz.Target]bool{}
	for _, p := range o.AuthorizationPolicies {
		for _, t := range p.Spec.TargetRefs {
			target := authz.Target{Kind: t.Kind, Namespace: p.Metadata.Namespace, Name: t.Name, Section: t.SectionName}
			whole := slices.ContainsFunc(asked, func(a authz.Target) bool {
				return a.Kind == t.Kind && (t.Kind == mesh.KindGateway && target.Section == "" || a.Kind != mesh.KindGateway || a.Section != "")
			})
			if t.Kind != mesh.KindMeshService && !whole {
				seen[target] = true
			}
		}
	}
	return len(seen)
}

// request is what is asked, and of whom.
func (q *authzQuery) request(o *mesh.Objects) (*authz.Request, []authz.Target, error) {
	r := &authz.Request{}
	if err := q.caller(o, r); err != nil {
		return nil, nil, err
	}
	name, portText, hasPort := strings.Cut(q.to, ":")
	namespace, name := split(name)
	at := slices.IndexFunc(o.Services, func(s *mesh.MeshService) bool {
		return s.Metadata.Namespace == namespace && s.Metadata.Name == name
	})
	if at < 0 {
		return nil, nil, hinted{fmt.Errorf("there is no MeshService %s/%s", namespace, name), "meridian get MeshService lists those of a mesh"}
	}
	ports := o.Services[at].Spec.Ports
	if hasPort {
		n, err := strconv.ParseUint(portText, 10, 16)
		if err != nil || !slices.ContainsFunc(ports, func(p mesh.ServicePort) bool { return p.Port == int(n) }) {
			return nil, nil, fmt.Errorf("MeshService %s/%s has no port %s", namespace, name, portText)
		}
		r.ServicePort = int(n)
	} else if len(ports) == 1 {
		r.ServicePort = ports[0].Port
	} else {
		return nil, nil, fmt.Errorf("MeshService %s/%s has several ports: name one, as in %s/%s:%d", namespace, name, namespace, name, ports[0].Port)
	}
	protocol := ports[slices.IndexFunc(ports, func(p mesh.ServicePort) bool { return p.Port == r.ServicePort })].Protocol
	r.HTTP = protocol != mesh.PortTCP && protocol != mesh.PortUDP
	targets := []authz.Target{{}}
	if q.gateway != "" {
		more, err := q.gateways(o, r)
		if err != nil {
			return nil, nil, err
		}
		targets = append(targets, more...)
	}
	if q.route != "" {
		t, err := q.routes(o)
		if err != nil {
			return nil, nil, err
		}
		targets = append(targets, t)
	}
	targets = append(targets, authz.Target{Kind: mesh.KindMeshService, Namespace: namespace, Name: name})
	return r, targets, q.message(r, protocol)
}

// caller reads who calls.
func (q *authzQuery) caller(o *mesh.Objects, r *authz.Request) error {
	domain := ""
	if t := o.Trust(); t != nil {
		domain = t.Spec.TrustDomain
	}
	for _, from := range q.from {
		a, err := netip.ParseAddr(from)
		switch {
		case err == nil && r.Address.IsValid():
			return errUsage{fmt.Errorf("--from %s: there is an address already, %s", from, r.Address)}
		case err == nil:
			r.Address = a
		case !strings.Contains(from, "://"):
			return errUsage{fmt.Errorf("--from %q is neither an address nor an identity such as spiffe://corp.example/ns/shop/sa/web", from)}
		case domain != "" && strings.HasPrefix(from, "spiffe://"+domain+"/"):
			if len(r.Peer) > 0 {
				return errUsage{fmt.Errorf("--from %s: there is a proxy already, %s", from, r.Peer)}
			}
			_, site, _ := strings.Cut(from, "/site/")
			site, _, _ = strings.Cut(site, "/")
			r.Peer, r.Site = []byte(from), []byte(site)
		case len(r.Client) > 0:
			return errUsage{fmt.Errorf("--from %s: there is an identity already, %s", from, r.Client)}
		default:
			r.Client = []byte(from)
		}
	}
	return nil
}

func (q *authzQuery) gateways(o *mesh.Objects, r *authz.Request) ([]authz.Target, error) {
	parts := strings.Split(q.gateway, "/")
	if len(parts) == 1 {
		parts = append([]string{mesh.DefaultNamespace}, parts...)
	}
	if len(parts) > 3 {
		return nil, errUsage{fmt.Errorf("--gateway %q: want [namespace/]name or namespace/name/listener", q.gateway)}
	}
	at := slices.IndexFunc(o.Gateways, func(g *mesh.Gateway) bool {
		return g.Metadata.Namespace == parts[0] && g.Metadata.Name == parts[1]
	})
	if at < 0 {
		return nil, fmt.Errorf("there is no Gateway %s/%s", parts[0], parts[1])
	}
	targets := []authz.Target{{Kind: mesh.KindGateway, Namespace: parts[0], Name: parts[1]}}
	listeners := o.Gateways[at].Spec.Listeners
	if len(parts) == 2 {
		if len(listeners) != 1 {
			return nil, fmt.Errorf("several listeners are in Gateway %s/%s: name one, as in %s/%s/%s", parts[0], parts[1], parts[0], parts[1], listeners[0].Name)
		}
		parts = append(parts, listeners[0].Name)
	}
	at = slices.IndexFunc(listeners, func(l mesh.Listener) bool { return l.Name == parts[2] })
	if at < 0 {
		return nil, fmt.Errorf("there is no listener %s in Gateway %s/%s", parts[2], parts[0], parts[1])
	}
	r.Port = listeners[at].Port
	return append(targets, authz.Target{Kind: mesh.KindGateway, Namespace: parts[0], Name: parts[1], Section: parts[2]}), nil
}

func (q *authzQuery) routes(o *mesh.Objects) (authz.Target, error) {
	kind, rest, ok := strings.Cut(q.route, "/")
	if !ok || !mesh.IsRoute(kind) {
		kind, rest = mesh.KindHTTPRoute, q.route
	}
	namespace, name := split(rest)
	for key := range o.All() {
		if key == (mesh.Key{Kind: kind, Namespace: namespace, Name: name}) {
			return authz.Target{Kind: kind, Namespace: namespace, Name: name}, nil
		}
	}
	return authz.Target{}, fmt.Errorf("there is no %s %s/%s", kind, namespace, name)
}

// message reads what the request is like.
func (q *authzQuery) message(r *authz.Request, protocol string) error {
	if !r.HTTP {
		if q.method+q.path+q.host != "" || len(q.headers) > 0 {
			return errUsage{fmt.Errorf("port %d speaks %s, and nobody looks into that: leave --method, --path, --host and --header out", r.ServicePort, protocol)}
		}
		return nil
	}
	path := cmp.Or(q.path, "/")
	_, normal, ok := route.Normalize([]byte(path), nil)
	if !ok {
		return fmt.Errorf("path %q: proxies answer it with 400 before any policy is asked", path)
	}
	r.Method, r.Host, r.Path = []byte(cmp.Or(q.method, "GET")), []byte(q.host), normal
	for _, h := range q.headers {
		name, value, ok := strings.Cut(h, ":")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return errUsage{fmt.Errorf("header %q: want name: value", h)}
		}
		r.Fields = append(r.Fields, stream.Field{Name: []byte(name), Value: []byte(strings.TrimSpace(value))})
	}
	return nil
}

// split cuts [namespace/]name.
func split(s string) (namespace, name string) {
	if ns, n, ok := strings.Cut(s, "/"); ok {
		return ns, n
	}
	return mesh.DefaultNamespace, s
}

func authzTable(w io.Writer, x *authzAnswer) {
	if x.Allowed {
		fmt.Fprintln(w, "allowed")
	} else {
		fmt.Fprintln(w, "denied")
	}
	if len(x.Targets) == 0 {
		fmt.Fprintln(w, "no policy is for it")
	}
	for _, t := range x.Targets {
		fmt.Fprintf(w, "\n%s: %s\n", t.Target, t.Why)
		for _, p := range t.Policies {
			note := ""
			if p.DryRun {
				note = ", a dry run"
			}
			fmt.Fprintf(w, "  %s (%s%s)\n", p.Policy, p.Action, note)
			for _, r := range p.Rules {
				if r.Matches {
					fmt.Fprintf(w, "    rule %s: matches\n", r.Rule)
				} else {
					fmt.Fprintf(w, "    rule %s: does not match: %s\n", r.Rule, r.Why)
				}
			}
		}
	}
	for _, n := range x.Notes {
		fmt.Fprintf(w, "\nnote: %s\n", n)
	}
}
