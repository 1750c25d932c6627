package authz

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// Explanation says what the policies of some targets make of a request, rule by rule.
type Explanation struct {
	Allowed bool          `json:"allowed"`
	Targets []Explanandum `json:"targets"`
}

// Explanandum is one target with what its policies say.
type Explanandum struct {
	Target string `json:"target"`
	Denied bool   `json:"denied"`
	// Why says what decided, in words.
	Why      string            `json:"why"`
	Policies []PolicyExplained `json:"policies"`
}

// PolicyExplained is one policy with its rules.
type PolicyExplained struct {
	Policy string          `json:"policy"`
	Action string          `json:"action"`
	DryRun bool            `json:"dryRun,omitempty"`
	Rules  []RuleExplained `json:"rules"`
}

// RuleExplained is one rule and whether it matches; if not, why not.
type RuleExplained struct {
	Rule    string `json:"rule"`
	Matches bool   `json:"matches"`
	Why     string `json:"why,omitempty"`
}

// Explain decides as [Judge] does, by reading the policies from top to bottom. It is
// slow and has nothing in common with the compiled tables but how a path is folded.
func Explain(o *mesh.Objects, q *Request, targets []Target) (Explanation, error) {
	out := Explanation{Allowed: true, Targets: []Explanandum{}}
	sorted := slices.Clone(o.AuthorizationPolicies)
	slices.SortStableFunc(sorted, func(a, b *mesh.AuthorizationPolicy) int {
		return strings.Compare(a.Metadata.Namespace+"\x00"+a.Metadata.Name, b.Metadata.Namespace+"\x00"+b.Metadata.Name)
	})
	for _, t := range targets {
		var of []*mesh.AuthorizationPolicy
		for _, p := range sorted {
			if slices.Contains(targetsOf(p), t) {
				of = append(of, p)
			}
		}
		if len(of) == 0 {
			continue
		}
		x, err := explainTarget(t, of, q)
		if err != nil {
			return out, err
		}
		out.Allowed = out.Allowed && !x.Denied
		out.Targets = append(out.Targets, x)
	}
	return out, nil
}

func explainTarget(t Target, policies []*mesh.AuthorizationPolicy, q *Request) (Explanandum, error) {
	out := Explanandum{Target: t.String(), Policies: []PolicyExplained{}}
	e := explainer{q: q, port: q.Port, portOf: "the listener's port"}
	if t.Kind == mesh.KindMeshService {
		e.port, e.portOf = q.ServicePort, "the service's port"
	}
	denied, allowed, unclear, allows := "", "", "", 0
	for _, p := range policies {
		x := PolicyExplained{Policy: p.Metadata.Namespace + "/" + p.Metadata.Name, Action: p.Spec.Action, DryRun: p.Spec.DryRun, Rules: []RuleExplained{}}
		e.strict = p.Spec.Action == mesh.ActionAllow
		if e.strict && !p.Spec.DryRun {
			allows++
		}
		for i := range p.Spec.Rules {
			r := RuleExplained{Rule: p.Spec.Rules[i].Title(i)}
			why, err := e.rule(&p.Spec.Rules[i])
			if err != nil {
				return out, fmt.Errorf("AuthorizationPolicy/%s: rule %s: %w", x.Policy, r.Rule, err)
			}
			r.Matches, r.Why = why == "", why
			x.Rules = append(x.Rules, r)
			if p.Spec.DryRun || p.Spec.Action == mesh.ActionAudit {
				continue
			}
			name := x.Policy + " rule " + r.Rule
			if !e.strict && unclear == "" {
				unclear = e.unclear(&p.Spec.Rules[i])
			}
			switch {
			case why != "":
			case e.strict && allowed == "":
				allowed = name
			case !e.strict && denied == "":
				denied = name
			}
		}
		out.Policies = append(out.Policies, x)
	}
	switch {
	case unclear != "":
		out.Denied, out.Why = true, "denied because "+unclear
	case denied != "":
		out.Denied, out.Why = true, "denied by "+denied
	case allowed != "":
		out.Why = "allowed by " + allowed
	case allows > 0:
		out.Denied, out.Why = true, "denied because no policy of action allow matches, and there is one"
	default:
		out.Why = "no policy in force denies it"
	}
	return out, nil
}

// explainer reads rules for one request.
type explainer struct {
	q      *Request
	port   int
	portOf string
	strict bool
}

// rule says why a rule does not match, empty where it does.
func (e *explainer) rule(r *mesh.AuthorizationRule) (string, error) {
	var why []string
	if len(r.From) > 0 {
		one, err := none(r.From, "from", e.source)
		if err != nil {
			return "", err
		}
		why = append(why, one...)
	}
	if len(r.To) > 0 {
		one, err := none(r.To, "to", e.access)
		if err != nil {
			return "", err
		}
		why = append(why, one...)
	}
	return strings.Join(why, "; "), nil
}

// none says of a list of alternatives why none of them matches; nothing where one does.
func none[T any](list []T, name string, of func(*T) (string, error)) ([]string, error) {
	var why []string
	for i := range list {
		w, err := of(&list[i])
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s[%d]: %w", name, i, err)
		case w == "":
			return nil, nil
		}
		why = append(why, fmt.Sprintf("%s[%d]: %s", name, i, w))
	}
	return why, nil
}

func (e *explainer) source(s *mesh.AuthorizationSource) (string, error) {
	q := e.q
	lenient := q.Unclear && !e.strict
	var persons []string
	for _, p := range [...][]byte{q.Client, q.Peer} {
		if bytes.Contains(p, []byte("://")) {
			persons = append(persons, string(p))
		}
	}
	whoever := "it has no identity"
	if len(persons) > 0 {
		whoever = "it is " + strings.Join(persons, " by way of ")
	}
	if s.Unauthenticated && !lenient && (len(q.Client) > 0 || q.Unclear) {
		return "the client is " + string(q.Client) + ", not unauthenticated", nil
	}
	if len(s.Sites) > 0 && !slices.Contains(s.Sites, string(q.Site)) {
		if len(q.Site) == 0 {
			return "no other site's proxy handed it over, and sites are " + strings.Join(s.Sites, ", "), nil
		}
		return "it comes from site " + string(q.Site) + ", not " + strings.Join(s.Sites, ", "), nil
	}
	if len(s.Identities) > 0 && !lenient && !slices.ContainsFunc(s.Identities, func(pattern string) bool {
		return slices.ContainsFunc(persons, func(p string) bool { return matchesPattern(pattern, p) })
	}) {
		return whoever + ", and identities are " + strings.Join(s.Identities, ", "), nil
	}
	if len(s.Namespaces) > 0 && !lenient && !slices.ContainsFunc(persons, func(p string) bool { return slices.Contains(s.Namespaces, namespaceOf(p)) }) {
		return whoever + ", and namespaces are " + strings.Join(s.Namespaces, ", "), nil
	}
	if len(s.Sources) == 0 || !q.Address.IsValid() && !e.strict {
		return "", nil
	}
	for _, text := range s.Sources {
		n, err := netip.ParsePrefix(text)
		if err != nil {
			return "", err
		}
		if a := q.Address.Unmap().WithZone(""); n.Contains(a) || n.Addr().Is4In6() && n.Contains(netip.AddrFrom16(a.As16())) {
			return "", nil
		}
	}
	return "its address is " + q.Address.String() + ", not within " + strings.Join(s.Sources, ", "), nil
}

// matchesPattern compares segment by segment.
func matchesPattern(pattern, id string) bool {
	ps, pp, _ := strings.Cut(pattern, "://")
	is, ip, _ := strings.Cut(id, "://")
	want, have := strings.Split(pp, "/"), strings.Split(ip, "/")
	if ps != is {
		return false
	}
	for i, w := range want {
		switch last := i == len(want)-1; {
		case w == "*" && last && i > 0:
			return len(have) > i
		case i >= len(have) || w != "*" && w != have[i]:
			return false
		}
	}
	return len(want) == len(have)
}

func namespaceOf(id string) string {
	_, path, _ := strings.Cut(id, "://")
	segments := strings.Split(path, "/")
	for i := 1; i+1 < len(segments) && i+1 < maxSegments; i++ {
		if segments[i] == "ns" {
			return segments[i+1]
		}
	}
	return ""
}

func (e *explainer) access(a *mesh.AuthorizationAccess) (string, error) {
	q := e.q
	if len(a.Ports) > 0 && !slices.Contains(a.Ports, e.port) && (e.port != 0 || e.strict) {
		if e.port == 0 {
			return e.portOf + " is not known", nil
		}
		return fmt.Sprintf("%s is %d, not %s", e.portOf, e.port, strings.Trim(fmt.Sprint(a.Ports), "[]")), nil
	}
	if !q.HTTP {
		if e.strict && a.OfRequests() {
			return "it is a connection passed on whole, into which nobody looks", nil
		}
		return "", nil
	}
	if why := e.method(a.Methods); why != "" {
		return why, nil
	}
	if host := hostOf(q.Host); len(a.Hosts) > 0 && !slices.ContainsFunc(a.Hosts, func(h string) bool {
		h = strings.ToLower(h)
		return h == host || strings.HasPrefix(h, "*.") && strings.HasSuffix(host, h[1:]) && len(host) > len(h)-1
	}) {
		return fmt.Sprintf("its host is %q, not %s", host, strings.Join(a.Hosts, ", ")), nil
	}
	if len(a.Paths) > 0 {
		if why, err := e.path(a.Paths); why != "" || err != nil {
			return why, err
		}
	}
	for _, h := range a.Headers {
		if why := e.header(h); why != "" {
			return why, nil
		}
	}
	return "", nil
}

func (e *explainer) override(names ...string) []string {
	var values []string
	for _, f := range e.q.Fields {
		if slices.Contains(names, strings.ToLower(string(f.Name))) && len(f.Value) > 0 {
			values = append(values, string(f.Value))
		}
	}
	return values
}

func (e *explainer) method(methods []string) string {
	if len(methods) == 0 {
		return ""
	}
	all := append([]string{string(e.q.Method)}, e.override("x-http-method", "x-method-override", "x-http-method-override")...)
	if len(all) > 5 {
		if e.strict {
			return "its method is overridden too often to tell"
		}
		return ""
	}
	matched := 0
	for _, m := range all {
		if slices.ContainsFunc(methods, func(want string) bool { return want == m || !e.strict && equalFold([]byte(m), want) }) {
			matched++
		}
	}
	if matched == 0 || e.strict && matched < len(all) {
		return "its method is " + strings.Join(all, ", overridden by ") + ", not " + strings.Join(methods, ", ")
	}
	return ""
}

func hostOf(host []byte) string {
	h := string(bytes.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r |= 0x20
		}
		return r
	}, host))
	if strings.HasPrefix(h, "[") {
		if i := strings.IndexByte(h, ']'); i >= 0 {
			h = h[:i+1]
		}
	} else {
		h, _, _ = strings.Cut(h, ":")
	}
	return strings.TrimRight(h, ".")
}

func (e *explainer) paths() (plain []string, clear bool) {
	plain = []string{string(e.q.Path)}
	for _, v := range e.override("x-original-url", "x-rewrite-url") {
		plain = append(plain, string(withoutOrigin([]byte(v))))
	}
	if len(plain) > maxViews {
		return plain, false
	}
	for _, p := range plain {
		if _, ok := fold([]byte(p), nil); !ok {
			return plain, false
		}
	}
	return plain, true
}

func (e *explainer) path(list []mesh.AuthorizationPath) (string, error) {
	paths, clear := e.paths()
	if !clear {
		if e.strict {
			return "its path means different things to different servers", nil
		}
		return "", nil
	}
	matched := 0
	var names []string
	for i, p := range paths {
		folded, _ := fold([]byte(p), nil)
		light := lighten([]byte(p), nil)
		ok := false
		for _, want := range list {
			if i == 0 {
				names = append(names, strings.TrimSpace(want.Type+" "+want.Value))
			}
			wantFolded, sure := fold([]byte(want.Value), nil)
			if !sure {
				return "", fmt.Errorf("path %q means different things to different servers", want.Value)
			}
			inFolded := under(string(folded), string(wantFolded), want.Type)
			if e.strict {
				ok = ok || under(p, want.Value, want.Type) && inFolded
			} else {
				ok = ok || under(string(light), string(lighten([]byte(want.Value), nil)), want.Type) || inFolded
			}
		}
		if ok {
			matched++
		}
	}
	if matched == 0 || e.strict && matched < len(paths) {
		return fmt.Sprintf("its path is %s, not %s", strings.Join(paths, ", overridden by "), strings.Join(names, ", ")), nil
	}
	return "", nil
}

// under reports whether a path is the one that is wanted, or below it.
func under(path, want, typ string) bool {
	if typ == mesh.PathExact {
		return path == want
	}
	want = strings.TrimRight(want, "/")
	return want == "" || path == want || strings.HasPrefix(path, want+"/")
}

func (e *explainer) header(h mesh.AuthorizationHeader) string {
	canon := func(s string) string { return strings.ReplaceAll(strings.ToLower(s), "_", "-") }
	name := canon(h.Name)
	var values []string
	odd, any := false, false
	for _, f := range e.q.Fields {
		if canon(string(f.Name)) != name {
			continue
		}
		any = true
		if strings.Contains(string(f.Name), "_") {
			odd = true
			if h.Value == "" && e.strict {
				continue
			}
		}
		values = append(values, string(f.Value))
	}
	switch {
	case !any:
		return "it has no field " + name
	case h.Value == "" && (!e.strict || len(values) > 0):
		return ""
	case h.Value == "":
		return "its field " + name + " has an underscore"
	case e.strict && (odd || len(values) != 1 || values[0] != h.Value):
		return fmt.Sprintf("its field %s is %q, not once and exactly %q", name, values, h.Value)
	case e.strict:
		return ""
	}
	for _, v := range values {
		if equalFold([]byte(v), h.Value) {
			return ""
		}
		for m := range strings.SplitSeq(v, ",") {
			if equalFold([]byte(strings.Trim(m, " \t")), h.Value) {
				return ""
			}
		}
	}
	return fmt.Sprintf("its field %s is %q, not %q", name, values, h.Value)
}

// unclear says what a rule of action deny names that cannot be told of the request.
func (e *explainer) unclear(r *mesh.AuthorizationRule) string {
	for _, f := range r.From {
		if e.q.Unclear && (len(f.Identities)+len(f.Namespaces) > 0 || f.Unauthenticated) {
			return "the identity that it is said to have cannot be read"
		}
		if !e.q.Address.IsValid() && len(f.Sources) > 0 {
			return "its address is not known"
		}
	}
	if _, clear := e.paths(); !clear && e.q.HTTP && slices.ContainsFunc(r.To, func(a mesh.AuthorizationAccess) bool { return len(a.Paths) > 0 }) {
		return "its path means different things to different servers"
	}
	return ""
}
