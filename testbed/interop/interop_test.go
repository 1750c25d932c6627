package interop

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// cases are grpc-go's, but for those that the package doc names.
var cases = []string{
	"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
	"timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response",
	"status_code_and_message", "special_status_message", "custom_metadata",
	"unimplemented_method", "unimplemented_service", "orca_per_rpc", "orca_oob", "rpc_soak", "channel_soak",
}

// patience bounds whatever is waited for.
const patience = time.Minute

// program is one of those that make test-interop builds.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", "bin", name))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("%v: make test-interop builds it", err)
	}
	return path
}

// said is what a process says, for the one who reads why a test failed.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// launch starts a program that ends with the test.
func launch(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	out := &said{}
	cmd := exec.Command(program(t, name), args...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s %s said:\n%s", name, strings.Join(args, " "), out)
		}
	})
	return cmd
}

// ran is the output of a program that has to succeed.
func ran(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, done := context.WithTimeout(t.Context(), patience)
	defer done()
	out, err := exec.CommandContext(ctx, program(t, name), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// write puts a document where a program reads it.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mesh.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// server starts grpc-go's server and returns its address.
func server(t *testing.T) string {
	t.Helper()
	// The server takes a number only. Below those that the kernel gives to connections
	// nobody takes one that is free.
	port, addr := "", ""
	for addr == "" {
		port = strconv.Itoa(20_000 + mathrand.IntN(10_000))
		if l, err := net.Listen("tcp", ":"+port); err == nil {
			l.Close()
			addr = net.JoinHostPort("127.0.0.1", port)
		}
	}
	launch(t, "interop-server", "--port", port)
	eventually(t, "the server listens", func() bool {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return false
		}
		c.Close()
		return true
	})
	return addr
}

// proxy is a running edgeproxy; address is by listener.
type proxy struct {
	t       *testing.T
	admin   string
	address map[string]string
}

// sendsTo waits until the proxy sends all that it gets to another site, and has for a while:
// its first plan knows of nobody's load, and a plan that follows may wait for reports.
func (p *proxy) sendsTo(site string) {
	p.t.Helper()
	why, since := "", time.Now()
	defer func() {
		if p.t.Failed() {
			p.t.Log("weights: ", why)
		}
	}()
	eventually(p.t, "all calls go to "+site, func() bool {
		var weights struct {
			Services []struct {
				Remotes []struct {
					Site, Excluded, Suspect string
					Share                   float64
				}
			}
		}
		res, err := http.Get("http://" + p.admin + "/weights")
		if err != nil {
			p.t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if why = string(b); err != nil || json.Unmarshal(b, &weights) != nil {
			p.t.Fatal(err, why)
		}
		ok := len(weights.Services) == 1 && len(weights.Services[0].Remotes) == 1
		if ok {
			r := weights.Services[0].Remotes[0]
			ok = r.Site == site && r.Share == 1 && r.Excluded == "" && r.Suspect == ""
		}
		if !ok {
			since = time.Now()
		}
		return time.Since(since) > 3*time.Second
	})
}

// proxyOf starts an edgeproxy that waits for its listeners of the Gateway ingress.
func proxyOf(t *testing.T, args ...string) *proxy {
	t.Helper()
	state := t.TempDir()
	cmd := launch(t, "edgeproxy", append([]string{"--admin", "127.0.0.1:0", "--loops", "1", "--state-dir", state}, args...)...)
	p := &proxy{t: t, address: map[string]string{}}
	eventually(t, "edgeproxy listens", func() bool {
		var run struct {
			PID       int
			Admin     string
			Listeners []struct{ Name, Address string }
		}
		b, err := os.ReadFile(filepath.Join(state, "run.json"))
		if err != nil || json.Unmarshal(b, &run) != nil || run.PID != cmd.Process.Pid {
			return false
		}
		for _, l := range run.Listeners {
			p.address[l.Name] = l.Address
		}
		p.admin = run.Admin
		return len(p.address) > 0
	})
	return p
}

const serverName = "interop.example"

// certificate makes a CA and what it signs for serverName, as files.
func certificate(t *testing.T) (ca, cert, key string) {
	t.Helper()
	sign := func(tmpl, parent *x509.Certificate, by *ecdsa.PrivateKey) (*ecdsa.PrivateKey, []byte) {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if by == nil {
			by = k
		}
		tmpl.NotBefore, tmpl.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &k.PublicKey, by)
		if err != nil {
			t.Fatal(err)
		}
		return k, der
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	rootKey, rootDER := sign(root, root, nil)
	leafKey, leafDER := sign(&x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{serverName}}, root, rootKey)
	keyDER, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	put := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return put("ca.pem", "CERTIFICATE", rootDER), put("cert.pem", "CERTIFICATE", leafDER), put("key.pem", "PRIVATE KEY", keyDER)
}

// objects are a Gateway with the listeners, and the service that is all behind it.
func objects(listeners, endpoint, more string) string {
	return fmt.Sprintf(`apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: ingress}
spec:
  gatewayClassName: meridian
  addresses: [{type: IPAddress, value: 127.0.0.1}]
  listeners:
%s---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: all}
spec:
  parentRefs: [{name: ingress}]
  rules:
  - backendRefs: [{group: mesh.meridian.dev, kind: MeshService, name: interop, port: 80}]
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: MeshService
metadata: {name: interop}
spec:
  ports: [{name: grpc, port: 80, protocol: http2}]
  endpoints: [%s]
%s`, listeners, endpoint, more)
}

// run has the client go through all cases against an address.
func run(t *testing.T, addr string, args ...string) {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c, func(t *testing.T) {
			call := append([]string{"--test_case", c, "--server_host", host, "--server_port", port}, args...)
			if strings.HasPrefix(c, "orca_") { // these are told what the balancer hears
				call = append(call, "--service_config_json", `{"loadBalancingConfig": [{"test_backend_metrics_load_balancer": {}}]}`)
			}
			ran(t, "interop-client", call...)
		})
	}
}

func TestOneProxy(t *testing.T) {
	ca, cert, key := certificate(t)
	p := proxyOf(t, "--config", write(t, objects(`  - {name: plain, port: 0, protocol: HTTP}
  - name: tls
    port: 0
    protocol: HTTPS
    tls: {certificateRefs: [{group: mesh.meridian.dev, kind: Certificate, name: interop}]}
`, fmt.Sprintf("{address: %q}", server(t)), fmt.Sprintf(`---
apiVersion: mesh.meridian.dev/v1alpha1
kind: Certificate
metadata: {name: interop}
spec: {certificateFile: %q, keyFile: %q}
`, cert, key))))
	t.Run("h2c", func(t *testing.T) { run(t, p.address["plain"]) })
	t.Run("gRPC-Web", func(t *testing.T) { web(t, p.address["plain"]) })
	t.Run("tls", func(t *testing.T) {
		run(t, p.address["tls"], "--use_tls", "--use_test_ca", "--ca_file", ca, "--server_host_override", serverName)
	})
}

// TestTwoSites has the calls of one site's users served by another, as two sites that join
// each other are by default: with mTLS, and with certificates that nobody had to make.
func TestTwoSites(t *testing.T) {
	dir := t.TempDir()
	centre, north := filepath.Join(dir, "centre"), filepath.Join(dir, "north")
	controller := func(data string, args ...string) (nats string) {
		launch(t, "sitecontroller", append([]string{"--data", data}, args...)...)
		eventually(t, "a controller serves", func() bool {
			var run struct{ NATS string }
			b, err := os.ReadFile(filepath.Join(data, "run.json"))
			if err != nil || json.Unmarshal(b, &run) != nil {
				return false
			}
			nats = run.NATS
			return nats != ""
		})
		return nats
	}
	natsCentre := controller(centre, "--site", "centre", "--hub")
	words := strings.Fields(ran(t, "meridian", "--data", centre, "token", "create", "north"))
	ran(t, "meridian", "join", words[len(words)-1], "--data", north, "--location", "145.0,-37.7", "--prepare")
	natsNorth := controller(north)
	ran(t, "meridian", "--data", centre, "apply", "-f", write(t, objects(`  - {name: plain, port: 0, protocol: HTTP}
  - {name: sites, port: 0, protocol: mesh.meridian.dev/EastWest}
`, fmt.Sprintf("{address: %q, site: north, capacity: {concurrency: 8, serviceTime: 5ms}}", server(t)), `  export: {scope: mesh}
---
apiVersion: mesh.meridian.dev/v1alpha1
kind: Site
metadata: {name: centre}
spec: {location: {type: Point, coordinates: [144.9631, -37.8136]}}
`)))
	log := filepath.Join(dir, "access.log")
	node := func(site, data, nats string, args ...string) *proxy {
		return proxyOf(t, append([]string{
			"--site", site, "--config", nats, "--nats-token-file", filepath.Join(data, "node.token"), "--trust-key", filepath.Join(data, "site.pub"),
		}, args...)...)
	}
	there := node("north", north, natsNorth, "--access-log", log, "--access-log-format", "%PROTOCOL% %DOWNSTREAM_PEER_URI_SAN%")
	here := node("centre", centre, natsCentre)
	ran(t, "meridian", "--data", centre, "apply", "-f", write(t, fmt.Sprintf(`apiVersion: mesh.meridian.dev/v1alpha1
kind: Site
metadata: {name: north}
spec:
  location: {type: Point, coordinates: [145.0, -37.7]}
  gateways: [{address: %q}]
`, there.address["sites"])))
	here.sendsTo("north")
	served := func() int {
		b, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for line := range strings.Lines(string(b)) {
			if strings.HasPrefix(line, "HTTP/2 spiffe://") && strings.Contains(line, "/site/centre/") {
				n++
			}
		}
		return n
	}
	before := served()
	run(t, here.address["plain"])
	t.Run("gRPC-Web", func(t *testing.T) { web(t, here.address["plain"]) })
	eventually(t, "north says that centre's proxy asked for every case", func() bool { return served() >= before+len(cases) })
}
