package edgeproxy

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// rawH2 is a client of HTTP/2 that says what a test wants.
type rawH2 struct {
	t testing.TB
	*http2.Framer
	c    net.Conn
	next uint32
	// got is what came, by stream: a status, data in quotes, END, RST and its code.
	got map[uint32]string
	dec *hpack.Decoder
}

func (p *proxy) rawH2(listener string) *rawH2 {
	p.t.Helper()
	c := p.dial(listener)
	io.WriteString(c, http2.ClientPreface)
	h := &rawH2{t: p.t, Framer: http2.NewFramer(c, c), c: c, next: 1, got: map[uint32]string{}, dec: hpack.NewDecoder(4096, nil)}
	h.WriteSettings()
	return h
}

// ask sends a head on a new stream.
func (h *rawH2) ask(end bool, fields ...string) uint32 {
	h.t.Helper()
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	id := h.next
	h.next += 2
	if err := h.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: end}); err != nil {
		h.t.Fatal(err)
	}
	return id
}

func (h *rawH2) connect(authority string, more ...string) uint32 {
	h.t.Helper()
	return h.ask(false, append([]string{":method", "CONNECT", ":authority", authority}, more...)...)
}

// read takes frames until it is enough.
func (h *rawH2) read(enough func() bool) {
	h.t.Helper()
	for !enough() {
		f, err := h.ReadFrame()
		if err != nil {
			h.t.Fatalf("%v; so far %v", err, h.got)
		}
		id := f.Header().StreamID
		say := func(s string) { h.got[id] = strings.TrimSpace(h.got[id] + " " + s) }
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				h.WriteSettingsAck()
			}
		case *http2.HeadersFrame:
			fields, err := h.dec.DecodeFull(f.HeaderBlockFragment())
			if err != nil {
				h.t.Fatal(err)
			}
			say(fields[0].Value)
			if f.StreamEnded() {
				say("END")
			}
		case *http2.DataFrame:
			if len(f.Data()) > 0 {
				say(fmt.Sprintf("%q", f.Data()))
			}
			if f.StreamEnded() {
				say("END")
			}
		case *http2.RSTStreamFrame:
			say("RST " + f.ErrCode.String())
		case *http2.GoAwayFrame:
			h.t.Fatalf("GOAWAY %v", f.ErrCode)
		}
	}
}

// status waits for the head of the answer on a stream.
func (h *rawH2) status(id uint32) string {
	h.t.Helper()
	h.read(func() bool { return h.got[id] != "" })
	s, _, _ := strings.Cut(h.got[id], " ")
	return s
}

// TestConnectRefuses what is not there, not exported, not at this site, or not CONNECT.
func TestConnectRefuses(t *testing.T) {
	echo := tcpBackend(t, echoTCP)
	o := siteStreams(map[string]string{"b": echo}, nil)
	o.Gateways[0].Spec.Listeners = append(o.Gateways[0].Spec.Listeners, httpListener("http", 0))
	exported := func(name string, x *mesh.Export, protocol, site string) {
		s := tcpService(name, echo)
		s.Spec.Export, s.Spec.Ports[0].Protocol, s.Spec.Endpoints[0].Site = x, protocol, site
		o.Services = append(o.Services, s)
	}
	exported("local", nil, mesh.PortTCP, "b")
	exported("site", &mesh.Export{Scope: mesh.ScopeSite}, mesh.PortTCP, "b")
	exported("others", &mesh.Export{Scope: mesh.ScopeMesh, Sites: []string{"a"}}, mesh.PortTCP, "b")
	exported("web", &mesh.Export{Scope: mesh.ScopeMesh}, mesh.PortHTTP, "b")
	exported("elsewhere", &mesh.Export{Scope: mesh.ScopeMesh}, mesh.PortTCP, "c")
	o.Services[len(o.Services)-1].Spec.Endpoints[0].Address = "127.0.0.1:9"
	p := startProxy(t, Config{Site: "b", Loops: 1}, Deps{}, o)
	h := p.rawH2("eastwest")
	for authority, want := range map[string]string{
		"echo.default._tcp:80":      "200",
		"echo.default._tcp:81":      "404",
		"echo.default._tcp":         "404",
		"ECHO.default._tcp:80":      "404",
		"other.default._tcp:80":     "404",
		"echo.other._tcp:80":        "404",
		"local.default._tcp:80":     "404",
		"site.default._tcp:80":      "404",
		"others.default._tcp:80":    "404",
		"web.default._tcp:80":       "404",
		"elsewhere.default._tcp:80": "503",
		echo:                        "404",
		"localhost:22":              "404",
	} {
		if got := h.status(h.connect(authority)); got != want {
			t.Errorf("%s: %s, want %s", authority, got, want)
		}
	}
	// A service that a field names is not asked for: of a CONNECT the authority counts.
	if got := h.status(h.connect("other.default._tcp:80", "meridian-service", "default/echo")); got != "404" {
		t.Errorf("a service in a field: %s", got)
	}
	for _, fields := range [][]string{
		{":method", "CONNECT", ":authority", "echo.default._tcp:80", ":path", "/"},
		{":method", "CONNECT", ":scheme", "http", ":authority", "echo.default._tcp:80"},
		{":method", "CONNECT"},
		{":method", "CONNECT", ":authority", "user@echo.default._tcp:80"},
	} {
		if got := h.status(h.ask(false, fields...)); got != "RST" {
			t.Errorf("%q: %s", fields, got)
		}
	}
	// By HTTP/1.1, and where no sites are served, CONNECT is what it was: refused.
	for _, listener := range []string{"eastwest", "http"} {
		c := p.dial(listener)
		fmt.Fprint(c, "CONNECT echo.default._tcp:80 HTTP/1.1\r\nHost: echo.default._tcp:80\r\n\r\n")
		line := make([]byte, 12)
		if io.ReadFull(c, line); string(line) != "HTTP/1.1 400" {
			t.Errorf("%s by HTTP/1.1: %q", listener, line)
		}
	}
	if got := p.rawH2("http"); got.status(got.connect("echo.default._tcp:80")) != "400" {
		t.Errorf("on an ordinary listener: %v", got.got)
	}
	p.streamCount("default/echo", "", 0)
	h.c.Close()
	p.atRest()
}

// TestConnectIsBounded floods a site with CONNECT.
func TestConnectIsBounded(t *testing.T) {
	p := startProxy(t, Config{Site: "b", Loops: 1, MaxListenerConnections: 150}, Deps{}, siteStreams(map[string]string{"b": tcpBackend(t, echoTCP)}, nil))
	count := func(h *rawH2, want string) (n int) {
		for _, got := range h.got {
			if strings.HasPrefix(got, want) {
				n++
			}
		}
		return n
	}
	// 100 streams of one connection; the others may be tried on another.
	h := p.rawH2("eastwest")
	for range 150 {
		h.connect("echo.default._tcp:80")
	}
	h.read(func() bool { return len(h.got) == 150 })
	if open, refused := count(h, "200"), count(h, "RST REFUSED_STREAM"); open != 100 || refused != 50 {
		t.Errorf("%d open, %d refused on one connection", open, refused)
	}
	// The listener has room for 150 of all: 2 connections and 148 streams.
	more := p.rawH2("eastwest")
	for range 60 {
		more.connect("echo.default._tcp:80")
	}
	more.read(func() bool { return len(more.got) == 60 })
	if open, full := count(more, "200"), count(more, "503"); open != 48 || full != 12 {
		t.Errorf("%d open, %d refused by the listener's bound", open, full)
	}
	if got := p.Stats(); got.Streams[len(got.Streams)-1].Open != 148 || got.Connections != 150 {
		t.Errorf("%+v", got.Streams)
	}
	// Streams that end make room.
	more.WriteRSTStream(1, http2.ErrCodeCancel)
	eventually(t, func() bool { return p.Stats().Connections < 150 }, "there is room")
	if id := more.connect("echo.default._tcp:80"); more.status(id) != "200" {
		t.Errorf("%v", more.got[id])
	}
	h.c.Close()
	more.c.Close()
	p.atRest()
	eventually(t, func() bool { return p.Stats().Connections == 0 }, "no connection is left")
}

// TestConnectDuplex: ends of the two directions, early data and a stream's reset.
func TestConnectDuplex(t *testing.T) {
	p := startProxy(t, Config{Site: "b", Loops: 1}, Deps{}, siteStreams(map[string]string{"b": tcpBackend(t, echoTCP)}, nil))
	h := p.rawH2("eastwest")
	whole := h.connect("echo.default._tcp:80") // all before the answer
	h.WriteData(whole, true, []byte("hello"))
	h.read(func() bool { return strings.HasSuffix(h.got[whole], "END") })
	if got := h.got[whole]; got != `200 "hello" END` {
		t.Errorf("early data: %s", got)
	}
	if id := h.ask(true, ":method", "CONNECT", ":authority", "echo.default._tcp:80"); true {
		h.read(func() bool { return strings.HasSuffix(h.got[id], "END") })
		if got := h.got[id]; got != "200 END" {
			t.Errorf("a head that ends the stream: %s", got)
		}
	}
	late := h.connect("echo.default._tcp:80")
	h.status(late)
	h.WriteData(late, false, []byte("a"))
	h.read(func() bool { return strings.HasSuffix(h.got[late], `"a"`) })
	h.WriteData(late, true, nil)
	h.read(func() bool { return strings.HasSuffix(h.got[late], "END") })
	trailed := h.connect("echo.default._tcp:80")
	h.status(trailed)
	if err := h.WriteHeaders(http2.HeadersFrameParam{StreamID: trailed, EndHeaders: true, EndStream: true}); err != nil {
		t.Fatal(err)
	}
	h.read(func() bool { return strings.Contains(h.got[trailed], "RST PROTOCOL_ERROR") })
	p.streamCount("default/echo", "", 3)
	p.streamCount("default/echo", "DC", 1)
	h.c.Close()
	p.atRest()
}

// TestConnectIsJudged by the policies of the site that serves: by the proxy that asks and
// by the client that it tells of.
func TestConnectIsJudged(t *testing.T) {
	p := relaying(t, nil, echoTCP, Deps{}, Deps{})
	denied := uint64(0)
	for _, x := range []struct {
		name, spec string
		ok         bool
	}{
		{"its site", "{" + ofEcho + ", action: allow, rules: [{from: [{sites: [a]}]}]}", true},
		{"another site", "{" + ofEcho + ", action: allow, rules: [{from: [{sites: [c]}]}]}", false},
		{"its identity", "{" + ofEcho + `, action: allow, rules: [{from: [{identities: ["spiffe://mesh.example/site/a/ns/*/sa/a-1"]}]}]}`, true},
		{"another identity", "{" + ofEcho + `, action: deny, rules: [{from: [{identities: ["spiffe://mesh.example/site/a/ns/*/sa/a-1"]}]}]}`, false},
		{"its client's address", "{" + ofEcho + `, action: allow, rules: [{from: [{sources: [127.0.0.1/32]}]}]}`, true},
		{"another address", "{" + ofEcho + `, action: allow, rules: [{from: [{sources: [127.0.0.2/32]}]}]}`, false},
		{"a method, which it has none of", "{" + ofEcho + `, action: allow, rules: [{to: [{methods: [CONNECT]}]}]}`, false},
		{"the port", "{" + ofEcho + `, action: deny, rules: [{to: [{ports: [80]}]}]}`, false},
		{"the gateway", "{" + ofIngress + `, action: deny, rules: [{from: [{sites: [a]}]}]}`, false},
	} {
		b := p.objectsB()
		b.AuthorizationPolicies = parsed(t, policyText("p", x.spec)).AuthorizationPolicies
		p.b.apply(b)
		var got []byte
		c, err := net.Dial("tcp", p.a.addr("tcp").String())
		if err == nil { // who is refused may see it while it connects
			c.SetDeadline(time.Now().Add(20 * time.Second))
			io.WriteString(c, "hello")
			c.(*net.TCPConn).CloseWrite()
			got, err = io.ReadAll(c)
			c.Close()
		}
		if (err == nil && string(got) == "hello") != x.ok {
			t.Errorf("%s: %q, %v", x.name, got, err)
		}
		if !x.ok {
			denied++
		}
	}
	p.b.streamCount("", "AD", denied)
	p.a.streamCount("default/echo", "AD", denied)
}

// TestConnectInTheClear: whether a CONNECT has to come from a proxy by its identity is said
// by the port that it names.
func TestConnectInTheClear(t *testing.T) {
	p := relaying(t, nil, echoTCP, Deps{}, Deps{})
	o := p.objectsB()
	o.Sites[1].Spec.MTLS = mesh.MTLSPermissive
	o.Services[0].Spec.Ports = append(o.Services[0].Spec.Ports, mesh.ServicePort{Name: "admin", Port: 81, Protocol: mesh.PortTCP})
	o.PeerAuthentications = []*mesh.PeerAuthentication{peerAuthentication("default", "", 81, "strict")}
	p.b.apply(o)
	h := p.b.rawH2("eastwest")
	for authority, want := range map[string]string{"echo.default._tcp:80": "200", "echo.default._tcp:81": "403", "no.default._tcp:81": "404"} {
		if got := h.status(h.connect(authority)); got != want {
			t.Errorf("%s: %s, want %s", authority, got, want)
		}
	}
	h.c.Close()
	p.b.atRest()
}
