package mesh

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// maxMatches bounds the matches of a route (Gateway API, HTTPRouteSpec).
const maxMatches = 128

func httpRouteRelations(s *HTTPRouteSpec, fault faultFunc) {
	matches := 0
	named := map[string]int{}
	for i := range s.Rules {
		matches += max(1, len(s.Rules[i].Matches))
		name := s.Rules[i].Name
		if first, twice := named[name]; twice && name != "" {
			fault(fmt.Sprintf("rules[%d]", i), fmt.Sprintf("has the name of rules[%d], %s", first, name), "")
		} else {
			named[name] = i
		}
	}
	if matches > maxMatches {
		fault("rules", fmt.Sprintf("have %d matches, at most %d are allowed", matches, maxMatches), "split the route: routes of the same hostnames are matched as one")
	}
}

func routeRuleRelations(r *HTTPRouteRule, fault faultFunc) {
	filterListRelations(r.Filters, fault)
	for i, f := range r.Filters {
		if f.RequestRedirect != nil && len(r.BackendRefs) > 0 {
			fault(fmt.Sprintf("filters[%d]", i), "redirects requests that the rule's backendRefs take", "a rule has a RequestRedirect or backendRefs")
		}
	}
	if byPrefix(r) {
		return
	}
	const what, hint = "replaces the prefix of a rule that has no one PathPrefix match", "give the rule exactly one match, of type PathPrefix"
	for i, f := range r.Filters {
		if replacesPrefix(&f) {
			fault(fmt.Sprintf("filters[%d]", i), what, hint)
		}
	}
	for i, b := range r.BackendRefs {
		for j := range b.Filters {
			if replacesPrefix(&b.Filters[j]) {
				fault(fmt.Sprintf("backendRefs[%d]", i), fmt.Sprintf("filters[%d] %s", j, what), hint)
			}
		}
	}
}

// byPrefix reports whether the rule matches by one path prefix, which is then
// what a ReplacePrefixMatch replaces.
func byPrefix(r *HTTPRouteRule) bool {
	if len(r.Matches) == 0 {
		return true
	}
	p := r.Matches[0].Path
	return len(r.Matches) == 1 && (p == nil || p.Type == PathPrefix || p.Type == "")
}

func replacesPrefix(f *HTTPRouteFilter) bool {
	switch {
	case f.RequestRedirect != nil && f.RequestRedirect.Path != nil:
		return f.RequestRedirect.Path.ReplacePrefixMatch != nil
	case f.URLRewrite != nil && f.URLRewrite.Path != nil:
		return f.URLRewrite.Path.ReplacePrefixMatch != nil
	}
	return false
}

func backendRelations(b *BackendRef, fault faultFunc) { filterListRelations(b.Filters, fault) }

func filterListRelations(filters []HTTPRouteFilter, fault faultFunc) {
	seen := map[string]int{}
	for i, f := range filters {
		at := fmt.Sprintf("filters[%d]", i)
		if first, twice := seen[f.Type]; twice && f.Type != FilterRequestMirror && f.Type != FilterExtensionRef {
			fault(at, fmt.Sprintf("repeats the %s of filters[%d]", f.Type, first), "")
		}
		seen[f.Type] = i
	}
	if _, redirect := seen[FilterRequestRedirect]; redirect {
		if i, rewrite := seen[FilterURLRewrite]; rewrite {
			fault(fmt.Sprintf("filters[%d]", i), "rewrites requests that another filter redirects", "a redirected request reaches no backend: remove one of the two")
		}
	}
}

// checkExpression reports an expression that cannot be matched with.
func checkExpression(value string, most int, fault faultFunc) {
	if len(value) > most {
		fault("value", fmt.Sprintf("is %d bytes long", len(value)), fmt.Sprintf("at most %d", most))
	} else if _, err := CompileRegexp(value); err != nil {
		fault("value", strings.TrimPrefix(err.Error(), "error parsing regexp: "), "expressions are RE2's")
	}
}

func pathMatchRelations(m *PathMatch, fault faultFunc) {
	switch {
	case m.Value == "": // has a default
	case m.Type == MatchRegularExpression:
		checkExpression(m.Value, 1024, fault)
	default:
		if what, hint := checkPath(m.Value); what != "" {
			fault("value", what, hint)
		}
	}
}

func headerMatchRelations(m *HeaderMatch, fault faultFunc) {
	if m.Type == MatchRegularExpression {
		checkExpression(m.Value, 4096, fault)
	} else if what, hint := checkFieldValue(m.Value); what != "" {
		fault("value", what, hint)
	}
}

func queryMatchRelations(m *QueryParamMatch, fault faultFunc) {
	if m.Type == MatchRegularExpression {
		checkExpression(m.Value, 1024, fault)
	}
}

// union is a value of a discriminator and the field that it stands for.
type union struct{ value, field string }

var filterFields = []union{
	{FilterRequestHeaderModifier, "requestHeaderModifier"},
	{FilterResponseHeaderModifier, "responseHeaderModifier"},
	{FilterRequestMirror, "requestMirror"},
	{FilterRequestRedirect, "requestRedirect"},
	{FilterURLRewrite, "urlRewrite"},
	{FilterCORS, "cors"},
	{FilterExtensionRef, "extensionRef"},
}

var pathModifierFields = []union{
	{ReplaceFullPath, "replaceFullPath"},
	{ReplacePrefixMatch, "replacePrefixMatch"},
}

// oneField checks that of a struct's union the field that the type names is
// there, and no other.
func oneField(v reflect.Value, typ string, fields []union, fault faultFunc) {
	for _, f := range fieldsOf(v.Type()) {
		i := slices.IndexFunc(fields, func(u union) bool { return u.field == f.name })
		if i < 0 {
			continue
		}
		switch there := !v.FieldByIndex(f.index).IsNil(); {
		case there && fields[i].value != typ:
			fault(f.name, fmt.Sprintf("is there in one of type %s", typ), "write type: "+fields[i].value+", or remove it")
		case !there && fields[i].value == typ:
			fault("", fmt.Sprintf("is of type %s and lacks %s", typ, f.name), "")
		}
	}
}

func filterRelations(f *HTTPRouteFilter, fault faultFunc) {
	oneField(reflect.ValueOf(f).Elem(), f.Type, filterFields, fault)
}

func pathModifierRelations(m *PathModifier, fault faultFunc) {
	oneField(reflect.ValueOf(m).Elem(), m.Type, pathModifierFields, fault)
}

func headerModifierRelations(m *HeaderModifier, fault faultFunc) {
	seen := map[string]string{}
	check := func(list string, i int, name string) {
		at := fmt.Sprintf("%s[%d]", list, i)
		if first, twice := seen[strings.ToLower(name)]; twice {
			fault(at, fmt.Sprintf("%s is in %s too", name, first), "one action for each header")
			return
		}
		seen[strings.ToLower(name)] = at
	}
	for i, h := range m.Set {
		check("set", i, h.Name)
	}
	for i, h := range m.Add {
		check("add", i, h.Name)
	}
	for i, n := range m.Remove {
		check("remove", i, n)
	}
}

func mirrorRelations(m *RequestMirror, fault faultFunc) {
	if m.Percent != nil && m.Fraction != nil {
		fault("fraction", "is there beside percent", "write one of the two")
	}
}

func fractionRelations(f *Fraction, fault faultFunc) {
	denominator := f.Denominator
	if denominator == 0 {
		denominator = 100
	}
	if f.Numerator > denominator {
		fault("numerator", fmt.Sprintf("%d is more than the denominator, %d", f.Numerator, denominator), "")
	}
}

func retryRelations(r *RouteRetry, fault faultFunc) {
	for i, code := range r.Codes {
		if first := slices.Index(r.Codes, code); first < i {
			fault(fmt.Sprintf("codes[%d]", i), fmt.Sprintf("repeats codes[%d], %d", first, code), "")
		}
	}
}

var redirectCodes = []int{301, 302, 303, 307, 308}

func redirectRelations(r *RequestRedirect, fault faultFunc) {
	if r.StatusCode != 0 && !slices.Contains(redirectCodes, r.StatusCode) {
		fault("statusCode", fmt.Sprintf("%d is not a redirection", r.StatusCode), "301, 302, 303, 307 or 308")
	}
}

func corsRelations(c *CORS, fault faultFunc) {
	for _, list := range []struct {
		name   string
		values []string
	}{{"allowOrigins", c.AllowOrigins}, {"allowMethods", c.AllowMethods}, {"allowHeaders", c.AllowHeaders}} {
		if len(list.values) > 1 && slices.Contains(list.values, "*") {
			fault(list.name, "has * beside others", "* alone is all of them")
		}
	}
}

func localResponseRelations(s *LocalResponseSpec, fault faultFunc) {
	if bodyless := []int{204, 205, 304}; s.Body != "" && slices.Contains(bodyless, s.StatusCode) {
		fault("body", fmt.Sprintf("is there, but responses of status %d have none", s.StatusCode), "")
	}
}
