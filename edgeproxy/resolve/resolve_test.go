package resolve

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// dnsServer answers over UDP and TCP on one port of 127.0.0.1 from a table.
type dnsServer struct {
	addr netip.AddrPort

	mu    sync.Mutex
	zone  map[string][]dnsmessage.Resource // "name. type"
	fail  dnsmessage.RCode                 // of every answer
	cut   bool                             // datagrams are truncated
	forge bool                             // a wrong answer comes before each right one
	deaf  bool
	asked map[string]int // "network name. type"
}

func startDNS(t *testing.T) *dnsServer {
	t.Helper()
	s := &dnsServer{zone: map[string][]dnsmessage.Resource{}, asked: map[string]int{}}
	var udp net.PacketConn
	var tcp net.Listener
	for tcp == nil { // until a port is free for both
		var err error
		if udp, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if tcp, err = net.Listen("tcp", udp.LocalAddr().String()); err != nil {
			udp.Close()
		}
	}
	s.addr = netip.MustParseAddrPort(udp.LocalAddr().String())
	t.Cleanup(func() { udp.Close(); tcp.Close() })
	go func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := udp.ReadFrom(buf)
			if err != nil {
				return
			}
			for _, b := range s.answer("udp", buf[:n]) {
				_, _ = udp.WriteTo(b, from)
			}
		}
	}()
	go func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				var size [2]byte
				if _, err := io.ReadFull(c, size[:]); err != nil {
					return
				}
				msg := make([]byte, binary.BigEndian.Uint16(size[:]))
				if _, err := io.ReadFull(c, msg); err != nil {
					return
				}
				for _, b := range s.answer("tcp", msg) {
					_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
				}
			}()
		}
	}()
	return s
}

func (s *dnsServer) answer(network string, msg []byte) [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	var q dnsmessage.Message
	if s.deaf || q.Unpack(msg) != nil || len(q.Questions) != 1 {
		return nil
	}
	key := fmt.Sprintf("%s %s", strings.ToLower(q.Questions[0].Name.String()), strings.TrimPrefix(q.Questions[0].Type.String(), "Type"))
	s.asked[network+" "+key]++
	r := dnsmessage.Message{Header: dnsmessage.Header{ID: q.ID, Response: true, RCode: s.fail}, Questions: q.Questions}
	answers, known := s.zone[key]
	switch {
	case s.fail != 0:
	case network == "udp" && s.cut:
		r.Truncated = true
	case known:
		r.Answers = answers
	default:
		name, _, _ := strings.Cut(key, " ")
		r.RCode = dnsmessage.RCodeNameError
		for k := range s.zone {
			if strings.HasPrefix(k, name+" ") {
				r.RCode = dnsmessage.RCodeSuccess // the name has other records
			}
		}
	}
	b, err := r.Pack()
	if err != nil {
		return nil
	}
	if s.forge && network == "udp" {
		evil := r
		evil.ID++
		evil.Answers = []dnsmessage.Resource{rr("evil.test.", 60, a("6.6.6.6"))}
		wrong := r
		wrong.Questions = []dnsmessage.Question{{Name: dnsmessage.MustNewName("other.test."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}
		x, _ := evil.Pack()
		y, _ := wrong.Pack()
		return [][]byte{x, y, {1, 2, 3}, b}
	}
	return [][]byte{b}
}

func (s *dnsServer) set(key string, rs ...dnsmessage.Resource) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zone[key] = rs
}

func (s *dnsServer) count(key string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[key]
}

func rr(name string, ttl uint32, body dnsmessage.ResourceBody) dnsmessage.Resource {
	h := dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(name), Class: dnsmessage.ClassINET, TTL: ttl}
	switch body.(type) {
	case *dnsmessage.AResource:
		h.Type = dnsmessage.TypeA
	case *dnsmessage.AAAAResource:
		h.Type = dnsmessage.TypeAAAA
	case *dnsmessage.SRVResource:
		h.Type = dnsmessage.TypeSRV
	case *dnsmessage.CNAMEResource:
		h.Type = dnsmessage.TypeCNAME
	}
	return dnsmessage.Resource{Header: h, Body: body}
}

func a(ip string) *dnsmessage.AResource {
	return &dnsmessage.AResource{A: netip.MustParseAddr(ip).As4()}
}

func aaaa(ip string) *dnsmessage.AAAAResource {
	return &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr(ip).As16()}
}

func alias(to string) *dnsmessage.CNAMEResource {
	return &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(to)}
}

func srv(priority, weight, port uint16, target string) *dnsmessage.SRVResource {
	return &dnsmessage.SRVResource{Priority: priority, Weight: weight, Port: port, Target: dnsmessage.MustNewName(target)}
}

// newResolver asks s, with a search list and a hosts file of its own.
func newResolver(t *testing.T, s *dnsServer) *Resolver {
	t.Helper()
	dir := t.TempDir()
	r := New(s.addr)
	r.files = files{filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "hosts")}
	write := func(name, text string) {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(r.files.resolvConf, "# a comment\nnameserver 192.0.2.1\nsearch ns.svc.test svc.test\noptions ndots:2 timeout:1 attempts:1\n")
	write(r.files.hosts, "127.0.0.1 localhost\n::1 localhost ip6-localhost # both\n10.9.9.9\tPrinter.test printer\n")
	t.Cleanup(r.Close)
	return r
}

func follow(t *testing.T, r *Resolver, address string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r.Follow(ctx, []string{address})
	targets, err := r.Targets(address)
	if err != nil {
		return "error: " + err.Error()
	}
	return print(targets)
}

func print(targets []Target) string {
	var out []string
	for _, x := range targets {
		out = append(out, fmt.Sprintf("%s*%d", x.Addr, x.Weight))
	}
	return strings.Join(out, " ")
}

func TestLookup(t *testing.T) {
	t.Parallel()
	s := startDNS(t)
	s.set("echo.test. A", rr("echo.test.", 60, a("10.0.0.2")), rr("echo.test.", 60, a("10.0.0.1")), rr("other.test.", 60, a("6.6.6.6")))
	s.set("echo.test. AAAA", rr("echo.test.", 60, aaaa("2001:db8::9")))
	s.set("six.test. AAAA", rr("six.test.", 60, aaaa("2001:db8::1")))
	s.set("www.test. A", rr("WWW.test.", 60, alias("cdn.test.")), rr("cdn.test.", 60, alias("edge.test.")), rr("edge.test.", 60, a("10.0.0.3")))
	s.set("loop.test. A", rr("loop.test.", 60, alias("loop.test.")))
	s.set("web.ns.svc.test. A", rr("web.ns.svc.test.", 60, a("10.0.0.4")))
	s.set("db.other.svc.test. A", rr("db.other.svc.test.", 60, a("10.0.0.5")))
	s.set("_http._tcp.echo.test. SRV",
		rr("_http._tcp.echo.test.", 60, srv(1, 10, 8080, "echo.test.")),
		rr("_http._tcp.echo.test.", 60, srv(1, 0, 8081, "six.test.")),
		rr("_http._tcp.echo.test.", 60, srv(2, 9, 9999, "www.test.")),
		rr("_http._tcp.echo.test.", 60, srv(1, 9, 9999, "gone.test.")))
	s.set("_off._tcp.echo.test. SRV", rr("_off._tcp.echo.test.", 60, srv(0, 0, 0, ".")))
	for address, want := range map[string]string{
		"echo.test:80":         "10.0.0.1:80*1 10.0.0.2:80*1",
		"ECHO.test.:80":        "10.0.0.1:80*1 10.0.0.2:80*1",
		"six.test:80":          "[2001:db8::1]:80*1",
		"www.test:443":         "10.0.0.3:443*1",
		"loop.test:80":         "error: loop.test.ns.svc.test.: no such name",
		"web:80":               "10.0.0.4:80*1",
		"db.other:80":          "10.0.0.5:80*1",
		"absent.test:80":       "error: absent.test.ns.svc.test.: no such name",
		"absent.test.:80":      "error: absent.test.: no such name",
		"localhost:80":         "127.0.0.1:80*1",
		"ip6-localhost:80":     "[::1]:80*1",
		"printer.test:80":      "10.9.9.9:80*1",
		"_http._tcp.echo.test": "10.0.0.1:8080*10 10.0.0.2:8080*10 [2001:db8::1]:8081*1",
		"_off._tcp.echo.test":  "error: the name has no address",
	} {
		if got := follow(t, newResolver(t, s), address); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
	if s.count("udp echo.test. AAAA") > 0 {
		t.Error("IPv6 was asked for although there is IPv4")
	}
}

func TestTruncatedOverTCP(t *testing.T) {
	t.Parallel()
	s := startDNS(t)
	var many []dnsmessage.Resource
	for i := range 200 {
		many = append(many, rr("many.test.", 60, a(fmt.Sprintf("10.1.0.%d", i))))
	}
	s.set("many.test. A", many...)
	s.cut = true
	got := follow(t, newResolver(t, s), "many.test.:80")
	if n := strings.Count(got, "10.1.0."); n != 200 || s.count("tcp many.test. A") != 1 {
		t.Errorf("%d addresses, %d questions over TCP: %.100s", n, s.count("tcp many.test. A"), got)
	}
}

func TestForgedAnswersAreIgnored(t *testing.T) {
	t.Parallel()
	s := startDNS(t)
	s.set("echo.test. A", rr("echo.test.", 60, a("10.0.0.1")))
	s.forge = true
	if got := follow(t, newResolver(t, s), "echo.test.:80"); got != "10.0.0.1:80*1" {
		t.Error(got)
	}
}

// await gives what runs in the background time.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 1000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s did not happen", what)
}

func TestFollowsAndKeepsTheLastGood(t *testing.T) {
	t.Parallel()
	s := startDNS(t)
	const key = "echo.test. A"
	s.set(key, rr("echo.test.", 0, a("10.0.0.1"))) // ttl 0 is a second
	r := newResolver(t, s)
	if got := follow(t, r, "echo.test.:80"); got != "10.0.0.1:80*1" {
		t.Fatal(got)
	}
	<-r.Changed()

	s.set(key, rr("echo.test.", 0, a("10.0.0.1")), rr("echo.test.", 0, a("10.0.0.2")))
	await(t, "the change", func() bool { return len(r.Changed()) > 0 })
	<-r.Changed()
	if targets, err := r.Targets("echo.test.:80"); err != nil || print(targets) != "10.0.0.1:80*1 10.0.0.2:80*1" {
		t.Error(print(targets), err)
	}

	for name, breakIt := range map[string]func(){
		"SERVFAIL": func() { s.fail = dnsmessage.RCodeServerFailure },
		"NXDOMAIN": func() { s.fail = dnsmessage.RCodeNameError },
	} {
		s.mu.Lock()
		breakIt()
		s.mu.Unlock()
		await(t, name, func() bool { return len(r.Stale()) == 1 })
		if targets, err := r.Targets("echo.test.:80"); err != nil || len(targets) != 2 {
			t.Errorf("%s: %v %v", name, targets, err)
		}
		s.mu.Lock()
		s.fail = dnsmessage.RCodeSuccess
		s.mu.Unlock()
		await(t, "recovery", func() bool { return len(r.Stale()) == 0 })
	}
	if len(r.Changed()) > 0 {
		t.Error("a failure is told as a change")
	}

	r.Retain(nil)
	if _, err := r.Targets("echo.test.:80"); err == nil {
		t.Error("it is still followed")
	}
}

func TestSilentServer(t *testing.T) {
	t.Parallel()
	s := startDNS(t)
	s.deaf = true
	r := newResolver(t, s)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	r.Follow(ctx, []string{"echo.test.:80"})
	if took := time.Since(began); took > 900*time.Millisecond {
		t.Errorf("waited %v for a silent server", took)
	}
	if _, err := r.Targets("echo.test.:80"); err == nil || !strings.Contains(err.Error(), "not answered yet") {
		t.Error(err)
	}
	await(t, "the time out", func() bool {
		_, err := r.Targets("echo.test.:80")
		var n net.Error
		return errors.As(err, &n) && n.Timeout()
	})
}

func TestIsName(t *testing.T) {
	for address, want := range map[string]bool{
		"10.0.0.1:80": false, "[::1]:80": false, "echo.test:80": true, "_http._tcp.echo.test": true,
	} {
		if IsName(address) != want {
			t.Error(address)
		}
	}
}

func FuzzParse(f *testing.F) {
	q := dnsmessage.Question{Name: dnsmessage.MustNewName("echo.test."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, Response: true}, Questions: []dnsmessage.Question{q},
		Answers: []dnsmessage.Resource{rr("echo.test.", 5, alias("b.test.")), rr("b.test.", 9, a("10.0.0.1"))}}
	good, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-3])
	f.Fuzz(func(t *testing.T, msg []byte) {
		a, _, ours, err := parse(msg, 7, q)
		if (!ours || err != nil) && len(a.addrs) > 0 {
			t.Error("addresses of an answer that was refused")
		}
		for _, x := range a.addrs {
			if !x.Is4() {
				t.Errorf("%v answers a question for IPv4", x)
			}
		}
	})
}
