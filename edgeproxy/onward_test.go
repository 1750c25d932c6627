package edgeproxy

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/meridian-mesh/meridian/api/mesh"
)

// savedSYN is a backend that answers with the code point on the SYN of the connection
// that a request came by.
func savedSYN(t *testing.T, network, address string) string {
	t.Helper()
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if fault := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_SAVE_SYN, 1) }); fault != nil {
			return fault
		}
		return err
	}}
	l, err := lc.Listen(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	var key struct{}
	server := &http.Server{
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			text := "none"
			raw, err := c.(*net.TCPConn).SyscallConn()
			if err == nil {
				err = raw.Control(func(fd uintptr) {
					// The packet as it came, from its IP header on.
					var syn [128]byte
					n := uint32(len(syn))
					_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.IPPROTO_TCP, unix.TCP_SAVED_SYN, uintptr(unsafe.Pointer(&syn)), uintptr(unsafe.Pointer(&n)), 0)
					switch {
					case errno != 0 || n < 20:
						text = fmt.Sprint("none: ", errno)
					case syn[0]>>4 == 4:
						text = fmt.Sprint(syn[1] >> 2)
					case syn[0]>>4 == 6:
						text = fmt.Sprint((syn[0]<<4 | syn[1]>>4) >> 2)
					}
				})
			}
			if err != nil {
				t.Error(err)
			}
			return context.WithValue(ctx, &key, text)
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = fmt.Fprint(w, strings.TrimSpace(r.Header.Get("X-T-Way")+" "+r.Context().Value(&key).(string))) // the client sees what is missing
		}),
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(l) }) // ends with Close
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
	})
	return l.Addr().String()
}

// TestOnward: requests of a rule that names a chain of packets go by connections whose first
// packet already carries its code point, behind the chains of requests, and never by
// those of others to the same endpoint.
func TestOnward(t *testing.T) {
	packets := func(match string) string {
		return "{functions: [f], ingress: {node: edge}, egress: {node: edge}, match: [" + match + "]}"
	}
	named := func(names ...string) string {
		var list []string
		for _, n := range names {
			list = append(list, "{type: ExtensionRef, extensionRef: {group: mesh.meridian.dev, kind: ServiceChain, name: "+n+"}}")
		}
		return "filters: [" + strings.Join(list, ", ") + "], "
	}
	p := startProxy(t, Config{Loops: 1}, Deps{}, parsed(t, routeText(`
  - {matches: [{path: {value: /plain}}], `+toEcho+`}
  - {matches: [{path: {value: /marked}}], `+named("ten")+toEcho+`}
  - {matches: [{path: {value: /other}}], `+named("web", "eleven", "eleven")+toEcho+`}
  - {matches: [{path: {value: /two}}], `+named("ten", "eleven")+toEcho+`}
  - {matches: [{path: {value: /without}}], `+named("without")+toEcho+`}
  - {matches: [{path: {value: /zero}}], `+named("zero")+toEcho+`}
`)+chainText("web", "{functions: [sign]}")+functionTexts("sign", `{headers: {request: {set: [{name: X-T-Way, value: signed}]}}}`)+
		chainText("ten", packets("{dscp: [10], protocols: [tcp]}, {dscp: [10]}"))+chainText("eleven", packets("{dscp: [11]}"))+
		chainText("without", packets("{dscp: [10]}, {protocols: [tcp]}"))+chainText("zero", packets("{dscp: [0]}"))+
		serviceText("echo", savedSYN(t, "tcp4", "127.0.0.1:0"))))
	for _, path := range []string{"/plain 0", "/marked 10", "/plain 0", "/other signed 11", "/marked 10", "/other signed 11", "/plain 0"} {
		path, want, _ := strings.Cut(path, " ")
		if res, body := ask(t, "GET", p.url(path), "a.example"); res.StatusCode != 200 || body != want {
			t.Errorf("%s: %d %q, want %q", path, res.StatusCode, body, want)
		}
	}
	if n := p.Stats().UpstreamConnects; n != 3 {
		t.Errorf("%d connections, want one for each code point", n)
	}
	for _, path := range []string{"/two", "/without", "/zero"} {
		if res, body := ask(t, "GET", p.url(path), "a.example"); res.StatusCode != 500 {
			t.Errorf("%s: %d %q", path, res.StatusCode, body)
		}
	}
	all := strings.Join(p.Problems(), "\n")
	for _, want := range []string{"and so is default/ten", "ServiceChain default/without is of packets", "ServiceChain default/zero is of packets"} {
		if !strings.Contains(all, want) {
			t.Errorf("problems do not say %q:\n%s", want, all)
		}
	}
	x, err := p.Explain(&mesh.ExplainQuery{Host: "a.example", Path: "/other"})
	if want := "default/eleven, of packets: its connections carry DSCP 11"; err != nil || len(x.Backends) != 1 || len(x.Backends[0].Chains) != 2 || x.Backends[0].Chains[1] != want {
		t.Errorf("explained %+v, %v", x, err)
	}
}

// TestOnward6: over IPv6 as well.
func TestOnward6(t *testing.T) {
	if l, err := net.Listen("tcp6", "[::1]:0"); err != nil {
		t.Skipf("IPv6 is missing: %v", err)
	} else if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	p := startProxy(t, Config{Loops: 1}, Deps{}, parsed(t, routeText(`
  - {matches: [{path: {value: /marked}}], `+fmt.Sprintf(byChain, "most")+toEcho+`}
  - {`+toEcho+`}
`)+chainText("most", "{functions: [f], ingress: {node: edge}, egress: {node: edge}, match: [{dscp: [63]}]}")+
		serviceText("echo", savedSYN(t, "tcp6", "[::1]:0"))))
	for path, want := range map[string]string{"/marked": "63", "/": "0"} {
		if res, body := ask(t, "GET", p.url(path), "a.example"); res.StatusCode != 200 || body != want {
			t.Errorf("%s: %d %q, want %q", path, res.StatusCode, body, want)
		}
	}
}
