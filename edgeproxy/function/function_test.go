package function

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/edgeproxy/stream"
)

// arena gives memory that is used again for the next request.
type arena struct{ b []byte }

func (a *arena) Grab(n int) []byte {
	if len(a.b)+n > cap(a.b) {
		a.b = make([]byte, 0, 64<<10)
	}
	a.b = a.b[:len(a.b)+n]
	return a.b[len(a.b)-n:]
}

func objects(t testing.TB, text string) *mesh.Objects {
	t.Helper()
	o, err := mesh.ParseYAML("chains.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// functionText is a NetworkFunction in front of other documents.
func functionText(name, native string) string {
	return fmt.Sprintf("---\napiVersion: mesh.meridian.dev/v1alpha1\nkind: NetworkFunction\nmetadata: {name: %s}\nspec: {native: %s}\n", name, native)
}

func chainText(name, spec string) string {
	return fmt.Sprintf("---\napiVersion: mesh.meridian.dev/v1alpha1\nkind: ServiceChain\nmetadata: {name: %s}\nspec: %s\n", name, spec)
}

const siteText = "---\napiVersion: mesh.meridian.dev/v1alpha1\nkind: Site\nmetadata: {name: north}\nspec: {location: {type: Point, coordinates: [144.9631, -37.8136]}}\n"

// oneChain is a chain of one function.
func oneChain(t testing.TB, native string) *Chain {
	t.Helper()
	c := NewRegistry(2, nil).Chains(objects(t, functionText("f", native)+chainText("c", "{functions: [f]}")+siteText), "north")["default/c"]
	if c == nil || c.Broken != "" {
		t.Fatalf("no chain: %+v", c)
	}
	return c
}

// asked is a request with fields "name: value".
func asked(fields ...string) *Request {
	q := &Request{
		Method: []byte("GET"), Host: []byte("Shop.Example.com:8080"), Path: []byte("/cart?x=1"), Site: []byte("north"), Address: []byte("192.0.2.7"),
		Route: "default/r/0", Gateway: "default/g", Memory: &arena{}, Clock: func() int64 { return 0 },
	}
	for _, f := range fields {
		k, v, _ := strings.Cut(f, ": ")
		q.Fields = append(q.Fields, stream.Field{Name: []byte(k), Value: []byte(v)})
	}
	return q
}

func texts(fields []stream.Field) string {
	var out []string
	for _, f := range fields {
		out = append(out, string(f.Name)+": "+string(f.Value))
	}
	return strings.Join(out, "|")
}

func TestHeaders(t *testing.T) {
	c := oneChain(t, `{headers: {
		request: {set: [{name: X-From, value: "${source.site} ${source.address} $$"}, {name: X-Id, value: "${source.identity}"}, {name: X-Old, value: "was ${request.header.x-old}"}],
			add: [{name: X-Hop, value: "${chain} ${chain.si} ${function}"}, {name: X-What, value: "${request.method} ${request.host} ${request.path} ${route} ${gateway}"}], remove: [x-gone]},
		response: {set: [{name: X-Status, value: "${response.status} for ${request.header.X-Asked}"}]}}}`)
	q := asked("x-id: forged", "x-old: 1", "X-Gone: 1", "x-kept: k", "x-hop: own")
	if v, hops := c.Request(q, 0, false); v != Passed || hops != 1 {
		t.Fatal(v, hops)
	}
	want := "x-kept: k|x-hop: own|X-From: north 192.0.2.7 $|X-Old: was 1|X-Hop: default/c 255 f|X-What: GET Shop.Example.com:8080 /cart?x=1 default/r/0 default/g"
	if got := texts(q.Fields); got != want {
		t.Errorf("fields %s\nwant   %s", got, want)
	}
	back := asked("x-status: backend's", "server: s")
	back.Asked, back.Status = asked("x-asked: a").Fields, 204
	c.Response(back, 1)
	if got := texts(back.Fields); got != "server: s|X-Status: 204 for a" {
		t.Errorf("response %s", got)
	}
	back = asked()
	back.Status = 200
	if c.Response(back, 0); len(back.Fields) != 0 {
		t.Error("a hop that the request did not pass saw its response")
	}
	if s := c.Hops[0].Counters.Sum(); s.Passed != 1 || s.Timed != 0 {
		t.Errorf("counted %+v", s)
	}
}

func TestGeo(t *testing.T) {
	c := oneChain(t, `{headers: {request: {set: [{name: geo, value: "${source.geo}"}]}, clientPosition: {geoHeader: x-geo, latitudeHeader: x-lat, longitudeHeader: x-lon}}}`)
	for in, want := range map[string]string{
		"x-geo: geo:48.2,16.37":                 "geo:48.2,16.37",
		"x-geo: geo:48.2,16.37,183;crs=wgs84":   "geo:48.2,16.37,183;crs=wgs84",
		"x-geo: geo:98.2,16.37":                 "geo:-37.8136,144.9631",
		"x-geo: geo:48.2":                       "geo:-37.8136,144.9631",
		"x-geo: geo:48.2,16.3;a=\"x\"":          "geo:-37.8136,144.9631",
		"x-geo: 48.2,16.37":                     "geo:-37.8136,144.9631",
		"x-lat: -1.5":                           "geo:-37.8136,144.9631",
		"x-other: 1":                            "geo:-37.8136,144.9631",
		"x-geo: geo:1,2,3,4":                    "geo:-37.8136,144.9631",
		"x-geo: geo:nan,2":                      "geo:-37.8136,144.9631",
		"x-geo: geo:1.,2":                       "geo:-37.8136,144.9631",
		"x-geo: geo:" + strings.Repeat("1", 99): "geo:-37.8136,144.9631",
	} {
		q := asked(in)
		c.Request(q, 0, false)
		if got := string(valueOf(q.Fields, "geo")); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
	q := asked("x-lat: -1.5", "x-lon: 36.8")
	c.Request(q, 0, false)
	if got := string(valueOf(q.Fields, "geo")); got != "geo:-1.5,36.8" {
		t.Errorf("latitude and longitude: %q", got)
	}
}

func TestTagger(t *testing.T) {
	c := oneChain(t, `{tagger: {header: X-App, default: web, tags: [{name: video, hosts: [v.example, "*.v.example"]}, {name: live, hosts: ["*.live.v.example"]}]}}`)
	for host, want := range map[string]string{
		"v.example": "video", "V.Example.:8080": "video", "a.b.v.example": "video", "x.live.v.example": "live", "live.v.example": "video",
		"av.example": "web", "": "web", "[::1]:80": "web", strings.Repeat("a", 300): "web",
	} {
		q := asked("x-app: forged", "a: b")
		q.Host = []byte(host)
		c.Request(q, 0, false)
		if got := texts(q.Fields); got != "a: b|X-App: "+want {
			t.Errorf("%q: %s, want %s", host, got, want)
		}
	}
}

// TestPolicer holds buckets to a dumb twin that keeps each for ever.
func TestPolicer(t *testing.T) {
	c := oneChain(t, `{policer: {requestsPerSecond: 10, burst: 3, per: client}}`)
	twin := map[string]float64{}
	last := map[string]int64{}
	now := int64(1e9)
	refused := 0
	for i := range 20_000 {
		now += int64(5e5) * int64(i*7919%13)
		client := fmt.Sprintf("10.0.0.%d", i*31%17)
		tokens := 3.0
		if at, ok := last[client]; ok {
			tokens = min(3, twin[client]+float64(now-at)/1e8)
		}
		q := asked()
		q.Address, q.Now, q.Loop = []byte(client), now, i%2
		v, _ := c.Request(q, 0, false)
		if want := tokens >= 1-1e-6; (v == Passed) != want {
			t.Fatalf("request %d of %s with %.3f tokens: verdict %d", i, client, tokens, v)
		}
		if v == Passed {
			tokens--
		} else {
			refused++
			if q.Answer.Status != 429 || texts(q.Answer.Fields) != "retry-after: 1" {
				t.Fatalf("answer %d %s", q.Answer.Status, texts(q.Answer.Fields))
			}
		}
		twin[client], last[client] = tokens, now
	}
	if s := c.Hops[0].Counters.Sum(); refused < 1000 || s.Answered != uint64(refused) || s.Passed != uint64(20_000-refused) {
		t.Errorf("refused %d, counted %+v", refused, s)
	}
}

func TestPolicerKeys(t *testing.T) {
	for per, change := range map[string]func(q *Request){
		mesh.PolicePerClient:   func(q *Request) { q.Address = []byte("192.0.2.8") },
		mesh.PolicePerHost:     func(q *Request) { q.Host = []byte("other") },
		mesh.PolicePerIdentity: func(q *Request) { q.Identity = []byte("spiffe://a/b") },
	} {
		c := oneChain(t, `{policer: {requestsPerSecond: 0.1, burst: 1, per: `+per+`}}`)
		same, other := asked(), asked()
		change(other)
		first, _ := c.Request(same, 0, false)
		second, _ := c.Request(same, 0, false)
		third, _ := c.Request(other, 0, false)
		if first != Passed || second != Answered || third != Passed {
			t.Errorf("per %s: %d %d %d", per, first, second, third)
		}
		if got := texts(same.Answer.Fields); got != "retry-after: 10" {
			t.Errorf("per %s: %s", per, got)
		}
	}
	c := oneChain(t, `{policer: {requestsPerSecond: 0.1, burst: 1}}`)
	c.Request(asked(), 0, false)
	q := asked()
	q.Address = []byte("192.0.2.8")
	if v, _ := c.Request(q, 0, false); v != Answered {
		t.Error("all do not share one bucket")
	}
}

// TestPolicerFlood has more keys than there is room for: those of before lose their
// place at worst, and nothing else.
func TestPolicerFlood(t *testing.T) {
	p := newPolicer(&mesh.RequestPolicer{Rate: 1, Burst: 1, Per: mesh.PolicePerClient})
	q := asked()
	passed := 0
	const keys = 100_000
	for i := range keys {
		q.Address = fmt.Appendf(q.Address[:0], "%d", i)
		if p.Request(q) == Passed {
			passed++
		}
	}
	if passed < keys*999/1000 {
		t.Errorf("%d of %d new clients passed", passed, keys)
	}
}

// fails fails as it is told.
type fails struct{ answer Verdict }

func (f *fails) Request(*Request) Verdict  { return f.answer }
func (f *fails) Response(*Request) Verdict { return f.answer }

func TestFailureModes(t *testing.T) {
	for open, want := range map[bool]Verdict{false: Failed, true: Passed} {
		c := oneChain(t, `{headers: {request: {add: [{name: a, value: b}]}}}`)
		ok := c.Hops[0]
		c.Hops[0].Function, c.Hops[0].Open = &fails{Failed}, open
		ok.Counters = &Counters{Cells: make([]Cell, 2)}
		c.Hops = append(c.Hops, ok)
		q := asked()
		now := int64(0)
		q.Clock = func() int64 { now += 5; return now }
		v, _ := c.Request(q, 0, true)
		s := c.Hops[0].Counters.Sum()
		if v != want || (len(q.Fields) == 1) != open || s.Failed != 1 || (s.Bypassed == 1) != open || s.Timed != 1 || s.NS != 5 {
			t.Errorf("open %v: verdict %d, fields %s, counted %+v", open, v, texts(q.Fields), s)
		}
	}
}

// TestReload: what does not change keeps its buckets and counters.
func TestReload(t *testing.T) {
	r := NewRegistry(1, nil)
	text := func(burst int) string {
		return functionText("f", fmt.Sprintf("{policer: {requestsPerSecond: 0.1, burst: %d}}", burst)) + chainText("c", "{functions: [f]}")
	}
	ask := func(burst int) (Verdict, uint64) {
		c := r.Chains(objects(t, text(burst)), "")["default/c"]
		v, _ := c.Request(asked(), 0, false)
		return v, c.Hops[0].Counters.Sum().Passed
	}
	for i, want := range []struct {
		burst  int
		v      Verdict
		passed uint64
	}{{1, Passed, 1}, {1, Answered, 1}, {2, Passed, 2}, {2, Passed, 3}, {2, Answered, 3}} {
		if v, passed := ask(want.burst); v != want.v || passed != want.passed {
			t.Errorf("%d: verdict %d, passed %d, want %+v", i, v, passed, want)
		}
	}
}

func TestBroken(t *testing.T) {
	packets := "---\napiVersion: mesh.meridian.dev/v1alpha1\nkind: NetworkFunction\nmetadata: {name: p}\nspec: {instances: [{name: i, node: n1, left: l}]}\n"
	chains := NewRegistry(1, nil).Chains(objects(t, packets+chainText("a", "{functions: [p]}")+chainText("b", "{functions: [none], failureMode: open}")), "")
	if c := chains["default/a"]; c == nil || !strings.Contains(c.Broken, "is of packets") || c.Open {
		t.Errorf("%+v", c)
	}
	if c := chains["default/b"]; c == nil || c.Broken != "there is no NetworkFunction default/none" || !c.Open {
		t.Errorf("%+v", c)
	}
}

// enrichment is what the benchmark and the test of allocations run: values of all
// sorts on a request of 20 fields.
const enrichment = `{headers: {request: {
	set: [{name: X-Source-Site, value: "${source.site}"}, {name: X-Source-Geo, value: "${source.geo}"}, {name: X-Source-Identity, value: "${source.identity}"}],
	add: [{name: X-Chain, value: "${chain.spi}:${chain.si}"}], remove: [x-field-05]}}}`

func enriched(t testing.TB) (run func()) {
	c := oneChain(t, enrichment)
	var fields []string
	for i := range 20 {
		fields = append(fields, fmt.Sprintf("X-Field-%02d: value of field number %d", i, i))
	}
	q := asked(fields...)
	q.Identity = []byte("spiffe://mesh.example/site/north/ns/shop/sa/cart")
	all := append(make([]stream.Field, 0, 64), q.Fields...)
	memory := q.Memory.(*arena)
	work := make([]stream.Field, 0, 64)
	return func() {
		memory.b = memory.b[:0]
		q.Fields = append(work[:0], all...)
		c.Request(q, 0, false)
	}
}

// TestAllocations: native functions allocate nothing, refusals neither.
func TestAllocations(t *testing.T) {
	run := enriched(t)
	run()
	if n := testing.AllocsPerRun(1000, run); n > 0 {
		t.Errorf("header enrichment allocates %v times", n)
	}
	for _, native := range []string{`{policer: {requestsPerSecond: 1, per: client}}`, `{tagger: {header: x-app, tags: [{name: a, hosts: ["*.example.com"]}]}}`} {
		c := oneChain(t, native)
		q := asked("a: b", "c: d")
		all := append([]stream.Field(nil), q.Fields...)
		memory := q.Memory.(*arena)
		run := func() {
			if memory.b != nil {
				memory.b = memory.b[:0]
			}
			q.Fields = append(q.Fields[:0], all...)
			c.Request(q, 0, false)
		}
		run()
		run()
		if n := testing.AllocsPerRun(1000, run); n > 0 {
			t.Errorf("%s allocates %v times", native, n)
		}
	}
}

func BenchmarkHeaderEnrichment(b *testing.B) {
	run := enriched(b)
	b.ReportAllocs()
	for b.Loop() {
		run()
	}
}

func BenchmarkPolicer(b *testing.B) {
	c := oneChain(b, `{policer: {requestsPerSecond: 1000000000, per: client}}`)
	q := asked()
	b.ReportAllocs()
	for b.Loop() {
		q.Now += int64(time.Microsecond)
		c.Request(q, 0, false)
	}
}
