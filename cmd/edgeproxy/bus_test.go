package main

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/meridian-mesh/meridian/api/mesh"
	"github.com/meridian-mesh/meridian/controller/natsd"
	"github.com/meridian-mesh/meridian/internal/bus"
)

const nodeToken, adminToken = "node-secret", "admin-secret"

// controller is a site's bus with the key that signs its snapshots.
type controller struct {
	t         *testing.T
	server    *natsd.Server
	conn      *bus.Conn
	snapshots *bus.Snapshots
	key       ed25519.PrivateKey
}

func startController(t *testing.T, listen, storeDir string, key ed25519.PrivateKey) *controller {
	t.Helper()
	c := &controller{t: t, key: key}
	var err error
	if c.server, err = natsd.Start(natsd.Config{
		Site: "north", StoreDir: storeDir, Listen: listen,
		NodeToken: nodeToken, AdminToken: adminToken, Log: slog.New(slog.DiscardHandler),
	}); err != nil {
		t.Fatal(err)
	}
	token := filepath.Join(t.TempDir(), "admin")
	put(t, token, adminToken)
	if c.conn, err = bus.Connect(bus.Options{InProcess: c.server, TokenFile: token}); err != nil {
		t.Fatal(err)
	}
	if c.snapshots, err = c.conn.OpenSnapshots(t.Context(), "north"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.stop)
	return c
}

func (c *controller) stop() {
	c.conn.Close()
	c.server.Kill()
}

// send makes config the site's snapshot.
func (c *controller) send(counter uint64, config string, key ed25519.PrivateKey) {
	c.t.Helper()
	objects, err := mesh.ParseYAML("test", []byte(config))
	if err != nil {
		c.t.Fatal(err)
	}
	s := &mesh.Snapshot{Generation: mesh.Generation{Incarnation: 1, Counter: counter}, Origin: "north", Site: "north", Objects: *objects}
	if err := s.Seal(key); err != nil {
		c.t.Fatal(err)
	}
	if err := c.snapshots.Put(c.t.Context(), s); err != nil {
		c.t.Fatal(err)
	}
}

func (c *controller) address() string { return strings.TrimPrefix(c.server.ClientURL(), "nats://") }

func TestBus(t *testing.T) {
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	secrets, state, store := t.TempDir(), t.TempDir(), t.TempDir()
	token, trust := filepath.Join(secrets, "token"), filepath.Join(secrets, "trust.pem")
	put(t, token, nodeToken+"\n")
	put(t, trust, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	a, b := startBackend(t, "a", nil), startBackend(t, "b", nil)

	c := startController(t, "127.0.0.1:0", store, key)
	reports, err := c.conn.NodeReports(t.Context(), "north", 64)
	if err != nil {
		t.Fatal(err)
	}
	address := c.address()
	args := []string{"--config", "nats://" + address, "--site", "north", "--node", "n1", "--nats-token-file", token, "--trust-key", trust}

	// Before there is a snapshot the node is there and not ready.
	p := launch(t, state, args...)
	eventually(t, "it waits", func() bool { return strings.Contains(p.stderr.String(), "waiting for the first snapshot") })
	c.send(1, smallest(a.address()), key)
	p.waitReady()
	serves := func(p *proxy, want string) {
		t.Helper()
		if status, got := fetch(t, p.ingress()); status != 200 || got != want+"\n" {
			t.Fatalf("%d %q, want %s", status, got, want)
		}
	}
	serves(p, "a")
	c.send(2, smallest(b.address()), key)
	p.says("/metrics", "meridian_config_generation_counter 2\n")
	serves(p, "b")

	// Lower and unsigned ones are refused, and the controller is told.
	c.send(1, smallest(a.address()), key)
	p.says("/metrics", `meridian_config_refusals_total{reason="lower_generation"} 1`+"\n")
	c.send(3, smallest(a.address()), nil)
	p.says("/readyz?verbose", "generation 1.3 refused")
	eventually(t, "the node reports what it refused", func() bool {
		select {
		case r := <-reports:
			v := r.Value
			return v.Node == "n1" && v.Applied.Counter == 2 && v.Refused != nil && v.Refused.Counter == 3 && strings.Contains(v.RefusedWhy, "not signed")
		default:
			return false
		}
	})
	serves(p, "b")

	// The controller dies: everything goes on, and the age is shown.
	c.stop()
	p.says("/readyz?verbose", "[!] controller: not connected since")
	serves(p, "b")

	// The node restarts alone: the last good configuration serves.
	p.kill()
	p = start(t, state, args...)
	p.says("/readyz?verbose", "[!] config: generation 1.2 of north from the last good copy on disk")
	serves(p, "b")

	// The controller is back, on the same address.
	c = startController(t, address, store, key)
	c.send(4, smallest(a.address()), key)
	p.says("/metrics", "meridian_config_generation_counter 4\n")
	p.says("/readyz?verbose", "[+] controller: connected since")
	serves(p, "a")

	// What was signed once is offered again while the node restarts: it starts from its
	// last good copy, refuses the other and says which.
	p.kill()
	c.send(2, smallest(b.address()), key)
	p = start(t, state, args...)
	p.says("/readyz?verbose", "generation 1.2 refused")
	p.says("/readyz?verbose", "generation is lower than the one in force: got 1.2, had 1.4")
	serves(p, "a")
}

// A wrong token is said, not swallowed.
func TestBus_wrongToken(t *testing.T) {
	c := startController(t, "127.0.0.1:0", t.TempDir(), nil)
	token := filepath.Join(t.TempDir(), "token")
	put(t, token, "guess")
	p := launch(t, t.TempDir(), "--config", "nats://"+c.address(), "--site", "north", "--nats-token-file", token)
	eventually(t, "the log says why", func() bool { return strings.Contains(strings.ToLower(p.stderr.String()), "authorization") })
	if _, err := net.DialTimeout("tcp", c.address(), time.Second); err != nil {
		t.Fatal(err)
	}
}
