package demo

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/testbed/link"
	"github.com/meridian-mesh/meridian/testbed/reactor"
	"github.com/meridian-mesh/meridian/testbed/report"
	"github.com/meridian-mesh/meridian/testbed/topo"
)

// secretPath is asked for; no link may show it.
const secretPath = "capture-me"

// capture is what went over the links of a mesh, by link, connection and direction.
type capture struct {
	mu    sync.Mutex
	bytes map[string][]byte
}

func (c *capture) tap(link string) func(uint64, bool, []byte) {
	return func(conn uint64, forward bool, p []byte) {
		key := fmt.Sprint(link, " ", conn, " ", map[bool]string{true: "hello", false: "answer"}[forward])
		c.mu.Lock()
		defer c.mu.Unlock()
		c.bytes[key] = append(c.bytes[key], p...)
	}
}

// The mesh that `make run` starts encrypts what goes between its sites, and nobody
// asked it to: the links carry records of TLS 1.3 and nothing else.
func TestLinksAreEncrypted(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a whole mesh")
	}
	seen := &capture{bytes: map[string][]byte{}}
	askBothSites(t, func(relays [][]*link.Relay) {
		for i, row := range relays {
			for j, r := range row {
				if r != nil {
					r.Tap(seen.tap(fmt.Sprint(i, "-", j)))
				}
			}
		}
	})
	seen.mu.Lock()
	defer seen.mu.Unlock()
	data := 0
	for key, b := range seen.bytes {
		n, err := records13(b)
		if err != nil {
			t.Errorf("%s: %v", key, err)
		}
		data += n
	}
	if len(seen.bytes) < 4 || data < 50 { // both links both ways; half of the requests and the probes
		t.Errorf("%d records of data on %d directions of connections", data, len(seen.bytes))
	}
}

// askBothSites starts the demo's mesh of two sites, has seen be shown the links before
// anything goes over them, and asks for a page until the other site has served some.
func askBothSites(t *testing.T, seen func(relays [][]*link.Relay)) {
	t.Helper()
	dir, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	found, err := find(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, fail := context.WithCancelCause(t.Context())
	t.Cleanup(func() { noneLeft(t, dir) })
	loop, err := reactor.New()
	if err != nil {
		t.Fatal(err)
	}
	loopCtx, stopLoop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- loop.Run(loopCtx) }()
	defer func() {
		stopLoop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	c := &cluster{
		topology: topo.Default(1).First(2), programs: found, dir: t.TempDir(), seed: 1,
		family: newFamily(t.TempDir(), fail), client: &http.Client{Timeout: 5 * time.Second},
	}
	defer c.family.close()
	defer c.close()
	steps := []func(context.Context) error{
		c.startBackends,
		func(context.Context) error { return c.openRelays(loop) },
		func(context.Context) error { seen(c.relays); return nil },
		c.startPlane,
		func(ctx context.Context) error { return c.applyAll(ctx, report.RoundRobin) },
		c.startProxies, c.join,
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			t.Fatal(err)
		}
	}
	users, err := c.proxies[0].listener(usersName)
	if err != nil {
		t.Fatal(err)
	}
	requests := 0
	if err := within(ctx, startLimit, "requests that go to the other site", func() error {
		res, err := c.client.Get("http://" + users.String() + "/" + secretPath)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != http.StatusOK {
			return fmt.Errorf("%s %w", res.Status, err)
		}
		if requests++; requests < 40 {
			return fmt.Errorf("%d requests so far", requests)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// records13 reads one direction of a connection as TLS 1.3: a hello in the clear, at
// most an empty change of cipher specs for the sake of old boxes (RFC 8446 D.4), and from
// then on encrypted records. It returns how many of these there are.
func records13(b []byte) (encrypted int, err error) {
	const changeCipherSpec, handshake, applicationData = 20, 22, 23
	for first := true; len(b) > 0; first = false {
		if len(b) < 5 {
			return encrypted, nil // under way
		}
		kind, n := b[0], 5+int(binary.BigEndian.Uint16(b[3:]))
		switch {
		case b[1] != 3:
			return 0, fmt.Errorf("no TLS record: %q", b[:min(len(b), 40)])
		case first && kind == handshake:
			if len(b) >= n && !offers13(b[9:n]) {
				return 0, fmt.Errorf("a hello without TLS 1.3: % x", b[:n])
			}
		case !first && kind == changeCipherSpec && n == 6, !first && kind == applicationData:
		default:
			return 0, fmt.Errorf("a record of type %d with %d bytes (first: %v)", kind, n, first)
		}
		if kind == applicationData {
			encrypted++
		}
		if n > len(b) {
			return encrypted, nil
		}
		b = b[n:]
	}
	return encrypted, nil
}

// offers13 reports whether a hello's supported_versions are TLS 1.3 alone (RFC 8446
// 4.2.1): a client's list, or a server's choice.
func offers13(hello []byte) bool {
	skip := func(n int) bool {
		if n > len(hello) {
			return false
		}
		hello = hello[n:]
		return true
	}
	list := func(width int) bool { // over a list with its length before it
		if len(hello) < width {
			return false
		}
		n := int(hello[0])
		if width == 2 {
			n = int(binary.BigEndian.Uint16(hello))
		}
		return skip(width + n)
	}
	if !skip(2+32) || !list(1) { // version and random; session
		return false
	}
	if server := hello; len(server) >= 5 && server[2] == 0 && int(binary.BigEndian.Uint16(server[3:])) == len(server)-5 {
		hello = server[3:] // one cipher suite, no compression
	} else if !list(2) || !list(1) {
		return false
	}
	if !skip(2) {
		return false
	}
	for len(hello) >= 4 {
		kind, n := binary.BigEndian.Uint16(hello), int(binary.BigEndian.Uint16(hello[2:]))
		if len(hello) < 4+n {
			return false
		}
		if kind == 43 {
			v := string(hello[4 : 4+n])
			return v == "\x03\x04" || v == "\x02\x03\x04"
		}
		hello = hello[4+n:]
	}
	return false
}
